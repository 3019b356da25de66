//! Accuracy, loss and calibration of a model on a data set.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::data::{EvalBatches, ImageCache, Preprocess};
use crate::error::Result;
use crate::gpu::{Gpu, Program, View};
use crate::method::{Learner, Snapshot};
use crate::model::{Activations, Mode, Model, Phase};
use crate::ops::Recorder;

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
}

impl<'g> Predictor<'g> {
    /// Uploads `values` and plans for batches of up to `batch` images.
    pub fn new(gpu: &'g Gpu, model: Model, values: &Snapshot, batch: usize) -> Result<Predictor<'g>> {
        model.layout().segments(gpu.limits.max_storage_buffer_binding_size)?;
        let (w, stats) = values.upload(gpu, &model)?;
        let acts = model.plan(gpu, batch, Mode::Infer)?.allocate(gpu)?;
        let scratch = acts.scratch();
        Ok(Predictor { gpu, model, w, stats, acts, scratch, programs: HashMap::new() })
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
        let pass = self.model.pass(&self.acts, batch);
        if !self.programs.contains_key(&batch) {
            let mut r = Recorder::new(self.gpu, &self.scratch);
            pass.forward(&mut r, &self.w, &self.stats, Phase::Eval)?;
            self.programs.insert(batch, r.program);
        }
        self.gpu.write(&pass.images(), images);
        Program::run(self.gpu, &[], &[&self.programs[&batch]])?;
        self.gpu.read(&pass.logits())
    }
}

/// A model's figures on a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Images.
    pub images: usize,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Share of images whose class scores highest.
    pub top1: f64,
    /// Share of images whose class is among the five that score highest.
    pub top5: f64,
    /// Expected calibration error over 15 bins of confidence (Guo et al. 2017, eq. 5).
    pub ece: f64,
    /// Images and right ones, by class.
    pub per_class: Vec<(usize, usize)>,
}

/// Adds up an [`Evaluation`] batch by batch.
#[derive(Debug)]
struct Tally {
    loss: f64,
    top1: usize,
    top5: usize,
    /// Images, sum of confidence, right ones; a bin each.
    bins: [(usize, f64, usize); 15],
    per_class: Vec<(usize, usize)>,
}

impl Tally {
    fn new(classes: usize) -> Tally {
        Tally { loss: 0.0, top1: 0, top5: 0, bins: [(0, 0.0, 0); 15], per_class: vec![(0, 0); classes] }
    }

    fn add(&mut self, logits: &[f32], label: usize) {
        let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = logits.iter().map(|l| f64::from(l - peak).exp()).sum();
        self.loss += total.ln() - f64::from(logits[label] - peak);
        // A tie goes to the lower class, as in an argmax. A NaN loses against nothing: it never counts as right.
        let own = logits[label];
        let ahead = logits.iter().enumerate().filter(|(c, l)| **l > own || (**l == own && *c < label)).count();
        let ahead = if own.is_nan() { logits.len() } else { ahead };
        let right = ahead == 0;
        self.top1 += usize::from(right);
        self.top5 += usize::from(ahead < 5);
        let confidence = 1.0 / total;
        // Bins are open on the left: a confidence of exactly 1/15 lies in the first.
        let bin = ((confidence * 15.0).ceil() as usize).clamp(1, 15) - 1;
        self.bins[bin].0 += 1;
        self.bins[bin].1 += confidence;
        self.bins[bin].2 += usize::from(right);
        self.per_class[label].0 += 1;
        self.per_class[label].1 += usize::from(right);
    }

    fn finish(self) -> Evaluation {
        let images: usize = self.per_class.iter().map(|c| c.0).sum();
        let n = images as f64;
        let gap = |(_, confidence, right): &(usize, f64, usize)| (confidence - *right as f64).abs();
        Evaluation {
            images,
            loss: self.loss / n,
            top1: self.top1 as f64 / n,
            top5: self.top5 as f64 / n,
            ece: self.bins.iter().map(gap).sum::<f64>() / n,
            per_class: self.per_class,
        }
    }
}

/// Runs `model` over `images`, whose labels index its `classes` outputs.
pub fn evaluate(
    model: &mut dyn Classifier,
    images: &Arc<ImageCache>,
    preprocess: &Preprocess,
    classes: usize,
) -> Result<Evaluation> {
    let mut tally = Tally::new(classes);
    for batch in EvalBatches::new(images.clone(), preprocess, model.capacity())? {
        let batch = batch?;
        let logits = model.logits(&batch.images, batch.len())?;
        for (row, label) in logits.chunks(classes).zip(&batch.labels) {
            tally.add(row, *label as usize);
        }
    }
    Ok(tally.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_worked_out_by_hand() {
        let mut tally = Tally::new(6);
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
    }

    #[test]
    fn a_logit_that_is_not_a_number_is_never_right() {
        let mut tally = Tally::new(2);
        tally.add(&[f32::NAN, f32::NAN], 0);
        assert_eq!(tally.finish().top1, 0.0);
    }
}
