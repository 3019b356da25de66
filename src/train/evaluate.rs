//! Accuracy, loss and calibration of a model on a data set.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::data::{Dataset, EvalBatches, ImageCache, Preprocess, eval_batches};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Program, View};
use crate::method::{Learner, Snapshot};
use crate::model::{Activations, Cut, Mode, Model, Phase, Precision};
use crate::ops::Recorder;
use crate::ops::product::Product;
use crate::stop;
use crate::train::by_class;
use crate::train::calibration::{self, Bin, Calibration, Logits};
use crate::train::json_lines::or_nan;

/// Whatever gives logits for a batch of images.
pub trait Classifier {
    /// The most images of a batch.
    fn capacity(&self) -> usize;
    /// Logits `[batch, classes]` of `images` `[batch, 3, size, size]`.
    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>>;
}

impl Classifier for Learner<'_> {
    fn capacity(&self) -> usize {
        Learner::capacity(self)
    }

    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        Learner::logits(self, images, batch)
    }
}

/// A classifier whose answers have to be numbers: what is no number has no probability and no class.
pub struct Sound<'a> {
    model: &'a mut dyn Classifier,
    images: &'a Dataset,
    seen: usize,
}

impl<'a> Sound<'a> {
    /// Of `model`, for one pass over `images` in their order.
    pub fn new(model: &'a mut dyn Classifier, images: &'a Dataset) -> Sound<'a> {
        Sound { model, images, seen: 0 }
    }
}

impl Classifier for Sound<'_> {
    fn capacity(&self) -> usize {
        self.model.capacity()
    }

    /// # Errors
    /// [`Error::Data`] naming the first image whose logits are not all finite.
    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        let logits = self.model.logits(images, batch)?;
        let classes = logits.len() / batch.max(1);
        let bad = logits.chunks(classes.max(1)).position(|row| !row.iter().all(|logit| logit.is_finite()));
        if let Some(item) = bad.and_then(|row| self.images.items.get(self.seen + row)) {
            let what = "the model's outputs for this image are not finite numbers: its weights are damaged, or too large for \
                        the precision";
            return Err(Error::data(&item.path, what));
        }
        self.seen += batch;
        Ok(logits)
    }
}

/// A classifier that tells how far an evaluation has come.
pub struct Watched<'a> {
    model: &'a mut dyn Classifier,
    done: usize,
    of: usize,
    tell: &'a mut dyn FnMut(usize, usize),
}

impl<'a> Watched<'a> {
    /// Calls `tell` with the images done and those there are, after each batch of one pass over `images`.
    pub fn new(model: &'a mut dyn Classifier, images: &Dataset, tell: &'a mut dyn FnMut(usize, usize)) -> Watched<'a> {
        Watched { model, done: 0, of: images.items.len(), tell }
    }
}

impl Classifier for Watched<'_> {
    fn capacity(&self) -> usize {
        self.model.capacity()
    }

    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        let logits = self.model.logits(images, batch)?;
        self.done += batch;
        (self.tell)(self.done, self.of);
        Ok(logits)
    }
}

/// A model that only predicts: no gradient, and blocks that share their activations.
#[derive(Debug)]
pub struct Predictor<'g> {
    gpu: &'g Gpu,
    model: Model,
    w: View,
    stats: View,
    acts: Activations,
    scratch: View,
    programs: HashMap<usize, Program>,
    /// Where the head begins, and what it has read so far: if that is to be kept.
    features: Option<(Cut, Vec<f32>)>,
}

impl<'g> Predictor<'g> {
    /// Uploads `values` and plans for batches of up to `batch` images.
    pub fn new(gpu: &'g Gpu, model: Model, values: &Snapshot, batch: usize) -> Result<Predictor<'g>> {
        Self::new_in(gpu, model, values, batch, Precision::F32)
    }

    /// As [`Predictor::new`], with activations in this precision.
    ///
    /// Errors where the device has no f16, or the model has a width that its kernels can't take.
    pub fn new_in(
        gpu: &'g Gpu,
        model: Model,
        values: &Snapshot,
        batch: usize,
        precision: Precision,
    ) -> Result<Predictor<'g>> {
        model.layout().segments(gpu.limits.max_storage_buffer_binding_size)?;
        let acts = model.plan(gpu, batch, Mode::Infer, precision)?.allocate(gpu)?;
        let (w, stats) = values.upload(gpu, &model)?;
        let scratch = acts.scratch();
        if acts.casts_weights() {
            let mut r = Recorder::new(gpu, &scratch);
            acts.cast_weights(&mut r, &w)?;
            Program::run(gpu, &[], &[&r.program])?;
        }
        Ok(Predictor { gpu, model, w, stats, acts, scratch, programs: HashMap::new(), features: None })
    }

    /// From now on keeps the features that the head reads, of each image that passes: see [`Predictor::features`].
    ///
    /// # Errors
    /// [`Error::Usage`] for a model without a head, or one whose head reads more than one value.
    pub fn keep_features(&mut self) -> Result<()> {
        let Model { config, .. } = &self.model;
        let params = &self.model.layout().params;
        let cut = self.acts.cut(config, &|place| config.is_head(&params[place].name));
        let width = config.width();
        let cut = cut.filter(|cut| self.acts.crossing_values(cut) == [width]);
        let cut =
            cut.ok_or_else(|| Error::Usage("this model has no head that reads its features: use `tpgm embed`".into()))?;
        self.features = Some((cut, Vec::new()));
        Ok(())
    }

    /// The features kept so far, `[images, features]`; empty without [`Predictor::keep_features`].
    pub fn features(self) -> Vec<f32> {
        self.features.map(|(_, kept)| kept).unwrap_or_default()
    }

    /// The products of its pass that nobody has measured on this adapter.
    pub fn untuned(&self) -> Result<Vec<Product>> {
        let mut r = Recorder::new(self.gpu, &self.scratch);
        self.acts.forward(&self.model, &mut r, self.capacity(), &self.w, &self.stats, Phase::Eval)?;
        Ok(r.untuned)
    }

    /// Takes other weights and running statistics of the same model.
    pub fn load(&mut self, values: &Snapshot) {
        let expected = (self.model.layout().len, self.model.buffers().len);
        assert_eq!((values.w.len(), values.stats.len()), expected, "values are images of the model's arenas");
        self.gpu.write(&self.w, &values.w);
        self.gpu.write(&self.stats, &values.stats);
    }
}

impl Classifier for Predictor<'_> {
    fn capacity(&self) -> usize {
        self.acts.batch()
    }

    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        if !self.programs.contains_key(&batch) {
            let mut r = Recorder::new(self.gpu, &self.scratch);
            self.acts.forward(&self.model, &mut r, batch, &self.w, &self.stats, Phase::Eval)?;
            self.programs.insert(batch, r.program);
        }
        self.gpu.write(&self.acts.images(batch), images);
        Program::run(self.gpu, &[], &[&self.programs[&batch]])?;
        if let Some((cut, kept)) = &mut self.features {
            kept.extend(self.acts.read_crossing(self.gpu, cut, batch)?);
        }
        self.gpu.read(&self.acts.logits(batch))
    }
}

/// A model's figures on a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Images.
    pub images: usize,
    /// Mean cross-entropy, which is the negative log-likelihood.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
    /// Share of images whose class scores highest.
    pub top1: f64,
    /// Share of images whose class is among the five that score highest.
    pub top5: f64,
    /// Balanced accuracy: the mean of the classes' accuracies ([`by_class::balanced`]).
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub balanced: f64,
    /// The mean of the classes' F1 ([`by_class::macro_f1`]).
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub macro_f1: f64,
    /// Expected calibration error over 15 bins of confidence (Guo et al. 2017, eq. 5).
    #[serde(deserialize_with = "or_nan")]
    pub ece: f64,
    /// Mean of Σ_c (p_c − y_c)², 0 to 2.
    #[serde(deserialize_with = "or_nan")]
    pub brier: f64,
    /// Images and right ones, by class.
    pub per_class: Vec<(usize, usize)>,
    /// The reliability diagram: 15 bins of confidence.
    pub bins: Vec<Bin>,
    /// The confusion matrix where it is not 0, in order: class, predicted class, images. An image none of whose logits is a
    /// number has no prediction and is left out.
    pub confusion: Vec<(u32, u32, u32)>,
    /// The probabilities' figures at the temperature that was fitted elsewhere, where one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated: Option<Calibration>,
    /// Which images are right, in their order; not part of the JSON.
    #[serde(skip)]
    pub right: Vec<bool>,
    /// What each image was taken for, in their order; not part of the JSON.
    #[serde(skip)]
    pub answers: Vec<Answer>,
}

/// What a model takes one image for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// The class; none where no logit is a number.
    pub class: Option<u32>,
    /// Its probability, 0 to 1, at no temperature; NaN where a logit is none.
    pub confidence: f32,
}

impl Answer {
    fn new(class: Option<usize>, logits: &[f32]) -> Answer {
        let peak = class.map_or(f32::NAN, |class| logits[class]);
        let total: f64 = logits.iter().map(|logit| f64::from(logit - peak).exp()).sum();
        Answer { class: class.map(|class| class as u32), confidence: (1.0 / total) as f32 }
    }
}

/// Of a figure that an older file lacks.
fn nan() -> f64 {
    f64::NAN
}

/// Adds up an [`Evaluation`] image by image.
#[derive(Debug)]
pub struct Tally {
    top1: usize,
    top5: usize,
    per_class: Vec<(usize, usize)>,
    confusion: BTreeMap<(u32, u32), u32>,
    plain: calibration::Tally,
    calibrated: Option<calibration::Tally>,
    right: Vec<bool>,
    answers: Vec<Answer>,
}

impl Tally {
    /// Of no image yet; with a `temperature`, the probabilities are judged at it as well.
    pub fn new(classes: usize, temperature: Option<f64>) -> Tally {
        Tally {
            top1: 0,
            top5: 0,
            per_class: vec![(0, 0); classes],
            confusion: BTreeMap::new(),
            plain: calibration::Tally::new(1.0),
            calibrated: temperature.map(calibration::Tally::new),
            right: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Adds an image of the class `label` with its logits `[classes]`.
    pub fn add(&mut self, logits: &[f32], label: usize) {
        // A tie goes to the lower class, as in an argmax. A NaN loses against nothing: it never counts as right.
        let own = logits[label];
        let ahead = logits.iter().enumerate().filter(|(c, l)| **l > own || (**l == own && *c < label)).count();
        let ahead = if own.is_nan() { logits.len() } else { ahead };
        let right = ahead == 0;
        self.top1 += usize::from(right);
        self.right.push(right);
        self.top5 += usize::from(ahead < 5);
        self.per_class[label].0 += 1;
        self.per_class[label].1 += usize::from(right);
        let predicted = argmax(logits);
        self.answers.push(Answer::new(predicted, logits));
        if let Some(predicted) = predicted {
            *self.confusion.entry((label as u32, predicted as u32)).or_default() += 1;
        }
        for tally in std::iter::once(&mut self.plain).chain(&mut self.calibrated) {
            tally.add(logits, label, right);
        }
    }

    /// The figures.
    pub fn finish(self) -> Evaluation {
        let images: usize = self.per_class.iter().map(|c| c.0).sum();
        let n = images as f64;
        let Calibration { loss, brier, ece, bins, .. } = self.plain.finish();
        Evaluation {
            images,
            loss,
            top1: self.top1 as f64 / n,
            top5: self.top5 as f64 / n,
            balanced: by_class::balanced(&self.per_class),
            macro_f1: by_class::macro_f1(&self.per_class, &self.confusion),
            ece,
            brier,
            per_class: self.per_class,
            bins,
            confusion: self.confusion.into_iter().map(|((label, predicted), n)| (label, predicted, n)).collect(),
            calibrated: self.calibrated.map(|tally| tally.finish()),
            right: self.right,
            answers: self.answers,
        }
    }
}

/// The class that scores highest, the lowest of equals; `None` where no logit is a number.
fn argmax(logits: &[f32]) -> Option<usize> {
    let numbers = logits.iter().enumerate().filter(|(_, l)| !l.is_nan());
    numbers.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(class, _)| class)
}

/// What `model` gives for each of `images`, in their order: `[images, outputs]`.
pub fn features(model: &mut dyn Classifier, images: &Dataset, preprocess: &Preprocess) -> Result<Vec<f32>> {
    let mut out = Vec::new();
    for batch in eval_batches(images, preprocess, model.capacity())? {
        stop::check()?;
        let batch = batch?;
        out.extend(model.logits(&batch.images, batch.len())?);
    }
    Ok(out)
}

/// Passes the logits `[classes]` and the label of every image to `each`.
fn every_image(
    model: &mut dyn Classifier,
    images: &Arc<ImageCache>,
    preprocess: &Preprocess,
    classes: usize,
    mut each: impl FnMut(&[f32], u32),
) -> Result<()> {
    for batch in EvalBatches::new(images.clone(), preprocess, model.capacity())? {
        stop::check()?;
        let batch = batch?;
        let logits = model.logits(&batch.images, batch.len())?;
        logits.chunks(classes).zip(&batch.labels).for_each(|(row, label)| each(row, *label));
    }
    Ok(())
}

/// Runs `model` over `images`, whose labels index its `classes` outputs.
pub fn evaluate(
    model: &mut dyn Classifier,
    images: &Arc<ImageCache>,
    preprocess: &Preprocess,
    classes: usize,
) -> Result<Evaluation> {
    evaluate_at(model, images, preprocess, classes, None)
}

/// [`evaluate`], and the probabilities at `temperature` as well, which must have been fitted on other images.
pub fn evaluate_at(
    model: &mut dyn Classifier,
    images: &Arc<ImageCache>,
    preprocess: &Preprocess,
    classes: usize,
    temperature: Option<f64>,
) -> Result<Evaluation> {
    let mut tally = Tally::new(classes, temperature);
    every_image(model, images, preprocess, classes, |row, label| tally.add(row, label as usize))?;
    Ok(tally.finish())
}

/// [`evaluate`], and the logits to fit a temperature on.
pub fn evaluate_to_fit(
    model: &mut dyn Classifier,
    images: &Arc<ImageCache>,
    preprocess: &Preprocess,
    classes: usize,
) -> Result<(Evaluation, Logits)> {
    let (mut tally, mut logits) = (Tally::new(classes, None), Logits::default());
    every_image(model, images, preprocess, classes, |row, label| {
        tally.add(row, label as usize);
        logits.values.extend_from_slice(row);
        logits.labels.push(label);
    })?;
    Ok((tally.finish(), logits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_worked_out_by_hand() {
        let mut tally = Tally::new(6, None);
        tally.add(&[2.0, 1.0, 0.0, -1.0, -2.0, -3.0], 0);
        tally.add(&[2.0, 1.0, 0.0, -1.0, -2.0, -3.0], 5);
        tally.add(&[1.0, 1.0, 0.0, 0.0, 0.0, 0.0], 1);
        let e = tally.finish();
        assert_eq!((e.images, e.top1, e.top5), (3, 1.0 / 3.0, 2.0 / 3.0));
        // ln Σ exp(l − peak) is 0.456193 for the first two rows and ln(2 + 4/e) = 1.244587 for the third.
        let first = 1.0f64 + (-1.0f64).exp() + (-2.0f64).exp() + (-3.0f64).exp() + (-4.0f64).exp() + (-5.0f64).exp();
        let third = 2.0 + 4.0 * (-1.0f64).exp();
        assert!((e.loss - (2.0 * first.ln() + 5.0 + third.ln()) / 3.0).abs() < 1e-6);
        // The first two share a bin (confidence 0.634, one of them right), the third has its own (0.288, wrong).
        let ece = ((2.0 / first - 1.0).abs() + 1.0 / third) / 3.0;
        assert!((e.ece - ece).abs() < 1e-6, "{} {ece}", e.ece);
        assert_eq!(e.per_class[5], (1, 0));
        assert_eq!(e.confusion, [(0, 0, 1), (1, 0, 1), (5, 0, 1)]);
        assert_eq!(e.bins.iter().map(|b| b.images).collect::<Vec<_>>(), [0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0]);
        assert_eq!((e.bins[9].accuracy, e.bins[4].accuracy, e.calibrated), (0.5, 0.0, None));
        let answer = |class, confidence: f64| Answer { class: Some(class), confidence: confidence as f32 };
        assert_eq!(e.answers, [answer(0, 1.0 / first), answer(0, 1.0 / first), answer(0, 1.0 / third)]);
    }

    #[test]
    fn a_temperature_changes_confidence_and_nothing_else() {
        let tally = |temperature| {
            let mut tally = Tally::new(3, temperature);
            tally.add(&[2.0, 1.0, -1.0], 0);
            tally.add(&[0.0, 3.0, 2.0], 2);
            tally.finish()
        };
        let (plain, warm) = (tally(None), tally(Some(2.0)));
        let calibrated = warm.calibrated.clone().unwrap();
        assert_eq!(Evaluation { calibrated: None, ..warm }, plain);
        assert_eq!(tally(Some(1.0)).calibrated.unwrap().bins, plain.bins);
        let nll = |gaps: [f64; 3]| gaps.iter().map(|g| (g / 2.0).exp()).sum::<f64>().ln();
        let want = (nll([0.0, -1.0, -3.0]) + nll([-2.0, 1.0, 0.0])) / 2.0;
        assert!((calibrated.loss - want).abs() < 1e-12, "{} {want}", calibrated.loss);
    }

    #[test]
    fn figures_come_back_from_their_json() {
        let mut tally = Tally::new(2, Some(1.5));
        tally.add(&[f32::NAN, 0.25], 1);
        tally.add(&[0.5, 0.25], 1);
        let e = tally.finish();
        assert_eq!(e.confusion, [(1, 0, 1), (1, 1, 1)]);
        let text = serde_json::to_string(&e).unwrap();
        let back: Evaluation = serde_json::from_str(&text).unwrap();
        assert!(back.loss.is_nan());
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }

    #[test]
    fn a_logit_that_is_not_a_number_is_never_right() {
        let mut tally = Tally::new(2, None);
        tally.add(&[f32::NAN, f32::NAN], 0);
        let e = tally.finish();
        assert_eq!((e.top1, e.confusion.len()), (0.0, 0));
        assert!(e.answers[0].class.is_none() && e.answers[0].confidence.is_nan());
    }
}
