//! Accuracy, loss and calibration of a model on a data set.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::data::{Batch, Dataset, EvalBatches, ImageCache, Preprocess, blocks, eval_batches};
use crate::error::Result;
use crate::ranks::part;
use crate::stop;
use crate::train::by_class;
use crate::train::calibration::{self, Bin, Calibration, Logits};
pub use crate::train::classifier::{Classifier, Predictor, Sound, Watched};
use crate::train::json_lines::or_nan;
use crate::train::labels::{LabelLogits, LabelTally, MultiLabel};
use crate::train::place::Place;

/// A model's figures on a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Images.
    pub images: usize,
    /// Mean cross-entropy, which is the negative log-likelihood; of labels, mean binary cross-entropy.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
    /// Share of images whose class scores highest; NaN, and not written, where images may have any number of labels, as the next two.
    #[serde(default = "nan", deserialize_with = "or_nan", skip_serializing_if = "is_unwritten")]
    pub top1: f64,
    /// Share of images whose class is among the five that score highest.
    #[serde(default = "nan", deserialize_with = "or_nan", skip_serializing_if = "is_unwritten")]
    pub top5: f64,
    /// Balanced accuracy: the mean of the classes' accuracies ([`by_class::balanced`]).
    #[serde(default = "nan", deserialize_with = "or_nan", skip_serializing_if = "is_unwritten")]
    pub balanced: f64,
    /// What images may have any number of labels come to: mAP and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<MultiLabel>,
    /// The mean of the classes' F1 ([`by_class::macro_f1`]); of labels, at a probability of 0.5.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub macro_f1: f64,
    /// Expected calibration error over 15 bins of confidence (Guo et al. 2017, eq. 5); of labels, of the probabilities of all of them.
    #[serde(deserialize_with = "or_nan")]
    pub ece: f64,
    /// Mean of Σ_c (p_c − y_c)², 0 to 2; of labels, the mean of (p − y)², 0 to 1.
    #[serde(deserialize_with = "or_nan")]
    pub brier: f64,
    /// Images and right ones, by class; of labels, the right ones are given at a probability of 0.5.
    pub per_class: Vec<(usize, usize)>,
    /// The reliability diagram: 15 bins of confidence; of labels, of their probabilities, whose accuracy is the share that is there.
    pub bins: Vec<Bin>,
    /// The confusion matrix where it is not 0, in order: class, predicted class, images. An image none of whose logits is a
    /// number has no prediction and is left out.
    pub confusion: Vec<(u32, u32, u32)>,
    /// The probabilities' figures at the temperature that was fitted elsewhere, where one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated: Option<Calibration>,
    /// Which images are right, in their order; of labels none is told. Not part of the JSON.
    #[serde(skip)]
    pub right: Vec<bool>,
    /// What each image was taken for, in their order; not part of the JSON.
    #[serde(skip)]
    pub answers: Vec<Answer>,
    /// Logits `[images, classes]` of images with any number of labels; none of others, and of corrupted copies. Not part of the JSON.
    #[serde(skip)]
    pub logits: Vec<f32>,
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

fn is_unwritten(figure: &f64) -> bool {
    figure.is_nan()
}

/// The figure that a model is judged by first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Of one class for each image.
    Top1,
    /// Of any number of labels.
    Map,
}

impl Figure {
    /// Of images that may have any number of labels, or of others.
    pub fn of(multi_label: bool) -> Figure {
        if multi_label { Figure::Map } else { Figure::Top1 }
    }

    /// What tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Top1 => "top-1",
            Figure::Map => "mAP",
        }
    }

    /// What JSON and CSV call it.
    pub fn key(self) -> &'static str {
        match self {
            Figure::Top1 => "top1",
            Figure::Map => "map",
        }
    }
}

impl Evaluation {
    /// Which figure is the main one.
    pub fn figure(&self) -> Figure {
        Figure::of(self.labels.is_some())
    }

    /// The main figure: top-1 accuracy, or mean average precision, 0 to 1.
    pub fn main(&self) -> f64 {
        self.labels.as_ref().map_or(self.top1, |labels| labels.map)
    }
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
            labels: None,
            per_class: self.per_class,
            bins,
            confusion: self.confusion.into_iter().map(|((label, predicted), n)| (label, predicted, n)).collect(),
            calibrated: self.calibrated.map(|tally| tally.finish()),
            right: self.right,
            answers: self.answers,
            logits: Vec::new(),
        }
    }
}

/// The class that scores highest, the lowest of equals; `None` where no logit is a number.
pub(super) fn argmax(logits: &[f32]) -> Option<usize> {
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

/// The figures of images with any number of labels, with `thresholds` of the classes and a `temperature` that were chosen on others.
pub fn of_labels(logits: &LabelLogits, thresholds: Option<&[f32]>, temperature: Option<f64>) -> Evaluation {
    let classes = logits.values.len() / logits.labels.len().max(1);
    let tally = |temperature| {
        let mut tally = LabelTally::new(classes, temperature);
        logits.rows().for_each(|(row, own)| tally.add(row, own));
        tally
    };
    let plain = tally(1.0);
    let (loss, brier, ece, bins) = plain.finish();
    let calibrated = temperature.map(|temperature| {
        let (loss, brier, ece, bins) = tally(temperature).finish();
        Calibration { temperature, loss, brier, ece, bins }
    });
    let half = logits.figures(None, &plain.errors());
    let figures = thresholds.map_or_else(|| half.clone(), |own| logits.figures(Some(own), &plain.errors()));
    let [top1, top5, balanced] = [f64::NAN; 3];
    Evaluation {
        images: logits.labels.len(),
        loss,
        top1,
        top5,
        balanced,
        macro_f1: figures.at_half.macro_f1,
        ece,
        brier,
        per_class: half.labels.iter().map(|label| (label.images, label.right)).collect(),
        labels: Some(figures),
        bins,
        confusion: Vec::new(),
        calibrated,
        right: Vec::new(),
        answers: Vec::new(),
        logits: logits.values.to_vec(),
    }
}

/// Passes the logits `[classes]` and the label of every image to `each`.
fn every_image(
    model: &mut dyn Classifier,
    images: &Arc<ImageCache>,
    preprocess: &Preprocess,
    classes: usize,
    mut each: impl FnMut(&[f32], u32),
) -> Result<()> {
    let (place, capacity, items) = (model.place(), model.capacity(), &images.dataset().items);
    let mut give = |batch: &Batch| model.logits(&batch.images, batch.len());
    in_blocks(&place, images, preprocess, capacity, &mut give, &mut |block, logits| {
        logits.chunks(classes).zip(&items[block]).for_each(|(row, item)| each(row, item.label));
    })
}

/// Passes what `give` makes of the images to `take`, block after block in their order. On several ranks each makes its part of a block.
pub(super) fn in_blocks(
    place: &Place,
    images: &Arc<ImageCache>,
    preprocess: &Preprocess,
    capacity: usize,
    give: &mut dyn FnMut(&Batch) -> Result<Vec<f32>>,
    take: &mut dyn FnMut(Range<usize>, &[f32]),
) -> Result<()> {
    let (rank, size) = place.of();
    let mut batches = EvalBatches::on_rank(images.clone(), preprocess, capacity, (rank, size))?;
    for block in blocks(images.dataset().items.len(), capacity, size) {
        let own = match part(block.len(), rank, size).is_empty() {
            true => Vec::new(),
            false => give(&batches.next().expect("every part is a batch")?)?,
        };
        take(block, &place.joined(&own)?);
    }
    Ok(())
}

/// The temperature and thresholds that were chosen on other images than those that a model is evaluated on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fitted<'a> {
    /// The temperature at which probabilities are judged as well.
    pub temperature: Option<f64>,
    /// The thresholds of the labels, if images may have any number of them.
    pub thresholds: Option<&'a [f32]>,
}

/// Runs `model` over `images`, whose labels index its `classes` outputs.
pub fn evaluate(
    model: &mut dyn Classifier,
    images: &Arc<ImageCache>,
    preprocess: &Preprocess,
    classes: usize,
) -> Result<Evaluation> {
    evaluate_at(model, images, preprocess, classes, Fitted::default())
}

/// [`evaluate`], and what comes of the temperature and thresholds `chosen` on other images.
pub fn evaluate_at(
    model: &mut dyn Classifier,
    images: &Arc<ImageCache>,
    preprocess: &Preprocess,
    classes: usize,
    chosen: Fitted,
) -> Result<Evaluation> {
    if images.dataset().is_multi_label() {
        let logits = logits(model, images, preprocess, classes)?;
        let labels = logits.of_labels().expect("the images have label sets");
        let mut evaluation = of_labels(&labels, chosen.thresholds, chosen.temperature);
        if images.corruption().is_some() {
            // Copies are many, and no page shows their images.
            evaluation.logits = Vec::new();
        }
        return Ok(evaluation);
    }
    let mut tally = Tally::new(classes, chosen.temperature);
    every_image(model, images, preprocess, classes, |row, label| tally.add(row, label as usize))?;
    Ok(tally.finish())
}

/// The logits of all images.
fn logits(
    model: &mut dyn Classifier,
    images: &Arc<ImageCache>,
    preprocess: &Preprocess,
    classes: usize,
) -> Result<Logits> {
    let mut logits = Logits { sets: images.dataset().sets.clone(), ..Logits::default() };
    every_image(model, images, preprocess, classes, |row, label| {
        logits.values.extend_from_slice(row);
        logits.labels.push(label);
    })?;
    Ok(logits)
}

/// [`evaluate`], and the logits to fit a temperature and thresholds on.
pub fn evaluate_to_fit(
    model: &mut dyn Classifier,
    images: &Arc<ImageCache>,
    preprocess: &Preprocess,
    classes: usize,
) -> Result<(Evaluation, Logits)> {
    let logits = logits(model, images, preprocess, classes)?;
    Ok((of_logits(&logits, classes), logits))
}

/// The figures that follow from the `logits` of `classes`.
pub fn of_logits(logits: &Logits, classes: usize) -> Evaluation {
    if let Some(labels) = logits.of_labels() {
        return of_labels(&labels, None, None);
    }
    let mut tally = Tally::new(classes, None);
    logits.rows().for_each(|(row, label)| tally.add(row, label));
    tally.finish()
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
