//! Figures of models for images with any number of labels, as scikit-learn defines them, and the thresholds from which on a label is
//! given.

use serde::{Deserialize, Serialize};

use crate::data::LabelSets;
use crate::train::bins::{BINS, Bin};
use crate::train::json_lines::or_nan;

/// Probability from which on a label is given, where no other was chosen.
pub const THRESHOLD: f32 = 0.5;

/// How well labels are given at some thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AtThresholds {
    /// F1 = 2·tp / (2·tp + fp + fn) over all labels of all images together.
    #[serde(deserialize_with = "or_nan")]
    pub micro_f1: f64,
    /// The mean of the classes' F1, over the classes that an image has or is given.
    #[serde(deserialize_with = "or_nan")]
    pub macro_f1: f64,
    /// Share of the images that are given exactly the labels that they have.
    #[serde(deserialize_with = "or_nan")]
    pub exact: f64,
}

/// A class's figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelFigures {
    /// Images that have it.
    pub images: usize,
    /// Average precision; NaN without images.
    #[serde(deserialize_with = "or_nan")]
    pub average_precision: f64,
    /// Probability from which on it is given.
    pub threshold: f32,
    /// Images that are given it at that threshold.
    pub given: usize,
    /// Of these, the ones that have it.
    pub right: usize,
    /// Expected calibration error of its probability, over 15 bins.
    #[serde(deserialize_with = "or_nan")]
    pub ece: f64,
}

impl LabelFigures {
    /// F1 at the threshold; NaN if no image has it or is given it.
    pub fn f1(&self) -> f64 {
        f1(self.right, self.given, self.images)
    }
}

/// A model's figures on images with any number of labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MultiLabel {
    /// Mean average precision: of the classes that an image has.
    #[serde(deserialize_with = "or_nan")]
    pub map: f64,
    /// At a probability of 0.5.
    pub at_half: AtThresholds,
    /// At thresholds that were chosen on other images, where they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_own: Option<AtThresholds>,
    /// By class, at its own threshold if it has one, else at 0.5.
    pub labels: Vec<LabelFigures>,
}

fn f1(right: usize, given: usize, have: usize) -> f64 {
    2.0 * right as f64 / (given + have) as f64
}

/// Of some that are numbers.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.filter(|v| v.is_finite()).fold((0.0, 0), |(sum, count), v| (sum + v, count + 1));
    sum / f64::from(count)
}

/// Average precision Σ (R_n − R_{n−1})·P_n over the distinct scores, from the highest on: scikit-learn's `average_precision_score`. NaN
/// without a positive.
pub fn average_precision(scores: &[(f32, bool)]) -> f64 {
    let mut sorted = scores.to_vec();
    // A score that is no number comes last.
    sorted.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or_else(|| a.0.is_nan().cmp(&b.0.is_nan())));
    let positives = sorted.iter().filter(|s| s.1).count();
    let (mut right, mut seen, mut sum) = (0, 0, 0.0);
    for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
        let own = equal.iter().filter(|s| s.1).count();
        (right, seen) = (right + own, seen + equal.len());
        sum += own as f64 * right as f64 / seen as f64;
    }
    sum / positives as f64
}

/// The probability from which on a label is given for its F1 to be largest: in the middle between the lowest that is and the highest that
/// is not; of several with the same F1, the one nearest to a half. A half where no image has the label.
pub fn best_threshold(probabilities: &[(f64, bool)]) -> f32 {
    let mut sorted: Vec<(f64, bool)> = probabilities.iter().copied().filter(|p| p.0.is_finite()).collect();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let positives = sorted.iter().filter(|s| s.1).count();
    if positives == 0 {
        return THRESHOLD;
    }
    let (mut right, mut given) = (0, 0);
    let mut best: Option<(f64, f64)> = None;
    let groups: Vec<&[(f64, bool)]> = sorted.chunk_by(|a, b| a.0 == b.0).collect();
    for (i, equal) in groups.iter().enumerate() {
        (right, given) = (right + equal.iter().filter(|s| s.1).count(), given + equal.len());
        let below = groups.get(i + 1).map_or(0.0, |next| next[0].0);
        let own = (f1(right, given, positives), (equal[0].0 + below) / 2.0);
        let nearer = |best: &(f64, f64)| (own.1 - 0.5).abs() < (best.1 - 0.5).abs();
        if best.is_none_or(|best| own.0 > best.0 || (own.0 == best.0 && nearer(&best))) {
            best = Some(own);
        }
    }
    best.map_or(THRESHOLD, |best| best.1 as f32)
}

/// σ(logit).
pub fn probability(logit: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(logit)).exp())
}

/// The entropy of having a label or not, at the probability σ(logit): 0 to ln 2.
pub fn entropy(logit: f32) -> f64 {
    softplus(logit.into()) - f64::from(logit) * probability(logit)
}

/// ln(1 + exp(x)).
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Images, the sum of their probabilities and those that have the label; one for each bin.
type Bins = [(usize, f64, usize); BINS];

/// Loss, Brier score and calibration of the probabilities of all labels, at one temperature.
#[derive(Clone, Debug)]
pub(super) struct LabelTally {
    temperature: f64,
    loss: f64,
    brier: f64,
    by_class: Vec<Bins>,
}

impl LabelTally {
    pub(super) fn new(classes: usize, temperature: f64) -> LabelTally {
        LabelTally { temperature, loss: 0.0, brier: 0.0, by_class: vec![[(0, 0.0, 0); BINS]; classes] }
    }

    /// Adds an image with its logits `[classes]` and the classes that it has.
    pub(super) fn add(&mut self, logits: &[f32], own: &[u32]) {
        for ((class, logit), bins) in (0..).zip(logits).zip(&mut self.by_class) {
            let (x, has) = (f64::from(*logit) / self.temperature, own.binary_search(&class).is_ok());
            self.loss += softplus(if has { -x } else { x });
            let p = 1.0 / (1.0 + (-x).exp());
            self.brier += (p - f64::from(u8::from(has))).powi(2);
            let bin = ((p * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
            bins[bin].0 += 1;
            bins[bin].1 += p;
            bins[bin].2 += usize::from(has);
        }
    }

    /// Loss, Brier score, calibration error and bins of all labels together.
    pub(super) fn finish(&self) -> (f64, f64, f64, Vec<Bin>) {
        let mut all: Bins = [(0, 0.0, 0); BINS];
        for (bin, own) in self.by_class.iter().flat_map(|bins| bins.iter().enumerate()) {
            let sum = &mut all[bin];
            *sum = (sum.0 + own.0, sum.1 + own.1, sum.2 + own.2);
        }
        let n = all.iter().map(|b| b.0).sum::<usize>() as f64;
        let mean = |&(images, p, has): &(usize, f64, usize)| match images {
            0 => Bin::default(),
            _ => Bin { images, confidence: p / images as f64, accuracy: has as f64 / images as f64 },
        };
        (self.loss / n, self.brier / n, error(&all), all.iter().map(mean).collect())
    }

    /// The calibration error of each class.
    pub(super) fn errors(&self) -> Vec<f64> {
        self.by_class.iter().map(error).collect()
    }
}

/// Expected calibration error: the gap between mean probability and the share that has the label, bins weighted by their images.
fn error(bins: &Bins) -> f64 {
    let n = bins.iter().map(|b| b.0).sum::<usize>() as f64;
    bins.iter().map(|(_, p, has)| (p - *has as f64).abs()).sum::<f64>() / n
}

/// Logits of images with any number of labels, and which they have.
#[derive(Clone, Copy, Debug)]
pub struct LabelLogits<'a> {
    /// `[images, classes]`
    pub values: &'a [f32],
    /// `[images]`, places in the sets.
    pub labels: &'a [u32],
    /// The sets of classes.
    pub sets: &'a LabelSets,
}

impl LabelLogits<'_> {
    /// The rows with the classes that they have.
    pub fn rows(&self) -> impl Iterator<Item = (&[f32], &[u32])> {
        self.values.chunks(self.classes().max(1) as usize).zip(self.labels.iter().map(|label| self.sets.get(*label)))
    }

    /// Logits of a class, and whether the images have it.
    pub(super) fn column(&self, class: u32) -> Vec<(f32, bool)> {
        self.rows().map(|(row, own)| (row[class as usize], own.binary_search(&class).is_ok())).collect()
    }

    pub(super) fn classes(&self) -> u32 {
        self.values.len().checked_div(self.labels.len()).unwrap_or(0) as u32
    }

    /// The thresholds `[classes]` of largest F1: see [`best_threshold`].
    pub fn thresholds(&self) -> Vec<f32> {
        let of = |class| {
            let column = self.column(class).into_iter().map(|(logit, has)| (probability(logit), has));
            best_threshold(&column.collect::<Vec<_>>())
        };
        (0..self.classes()).map(of).collect()
    }

    /// First and second derivative of the mean binary cross-entropy in β = 1/T, in which it is convex.
    pub(super) fn slope(&self, beta: f64) -> (f64, f64) {
        let (mut first, mut second) = (0.0, 0.0);
        for (row, own) in self.rows() {
            for (class, logit) in (0..).zip(row) {
                let z = f64::from(*logit);
                let p = 1.0 / (1.0 + (-beta * z).exp());
                first += z * (p - f64::from(u8::from(own.binary_search(&class).is_ok())));
                second += z * z * p * (1.0 - p);
            }
        }
        let n = self.values.len() as f64;
        (first / n, second / n)
    }

    /// All figures but those of [`LabelTally`], whose calibration `errors` of the classes are told, with `thresholds` of the classes where
    /// they have been chosen.
    pub(super) fn figures(&self, thresholds: Option<&[f32]>, errors: &[f64]) -> MultiLabel {
        let half = vec![THRESHOLD; self.classes() as usize];
        let own = thresholds.unwrap_or(&half);
        let labels = (0..self.classes()).zip(own).zip(errors).map(|((class, threshold), ece)| {
            let column = self.column(class);
            let given = |logit: f32| probability(logit) >= f64::from(*threshold);
            LabelFigures {
                images: column.iter().filter(|c| c.1).count(),
                average_precision: average_precision(&column),
                threshold: *threshold,
                given: column.iter().filter(|c| given(c.0)).count(),
                right: column.iter().filter(|c| c.1 && given(c.0)).count(),
                ece: *ece,
            }
        });
        let labels: Vec<LabelFigures> = labels.collect();
        MultiLabel {
            map: mean(labels.iter().map(|label| label.average_precision)),
            at_half: self.at(&half),
            at_own: thresholds.map(|thresholds| self.at(thresholds)),
            labels,
        }
    }

    fn at(&self, thresholds: &[f32]) -> AtThresholds {
        // Right, given and had, by class.
        let mut counts = vec![(0, 0, 0); thresholds.len()];
        let mut exact = 0;
        for (row, own) in self.rows() {
            let mut same = true;
            for (((class, logit), threshold), count) in (0..).zip(row).zip(thresholds).zip(&mut counts) {
                let (given, has) = (probability(*logit) >= f64::from(*threshold), own.binary_search(&class).is_ok());
                same &= given == has;
                count.0 += usize::from(given && has);
                count.1 += usize::from(given);
                count.2 += usize::from(has);
            }
            exact += usize::from(same);
        }
        let all = counts.iter().fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
        AtThresholds {
            micro_f1: f1(all.0, all.1, all.2),
            macro_f1: mean(counts.iter().map(|c| f1(c.0, c.1, c.2))),
            exact: exact as f64 / self.labels.len() as f64,
        }
    }
}

/// The labels `[classes]` that an image with these logits is given, with their probabilities, the likeliest first.
pub fn given(logits: &[f32], thresholds: &[f32]) -> Vec<(usize, f64)> {
    let all = logits.iter().map(|logit| probability(*logit)).enumerate();
    let mut given: Vec<(usize, f64)> = all.filter(|(class, p)| *p >= f64::from(thresholds[*class])).collect();
    given.sort_by(|a, b| b.1.total_cmp(&a.1));
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_are_one_step_of_average_precision() {
        // average_precision_score([1, 0, 1, 0], [0.9, 0.5, 0.5, 0.1]) = 0.8333333333333333
        let scores = [(0.9, true), (0.5, false), (0.5, true), (0.1, false)];
        assert!((average_precision(&scores) - 5.0 / 6.0).abs() < 1e-15);
        assert!(average_precision(&[(0.3, false)]).is_nan());
        // A score that is no number is worst.
        assert_eq!(average_precision(&[(f32::NAN, false), (0.1, true)]), 1.0);
    }

    #[test]
    fn a_threshold_lies_between_the_labels_that_are_given_and_those_that_are_not() {
        let told = [(0.8, true), (0.6, true), (0.3, false)];
        assert_eq!(best_threshold(&told), 0.45);
        // Nothing lies below: the middle to 0.
        assert_eq!(best_threshold(&[(0.2, true), (0.1, true)]), 0.05);
        assert_eq!(best_threshold(&[(0.9, false)]), 0.5);
        assert_eq!(best_threshold(&[(f64::NAN, true)]), 0.5);
    }

    #[test]
    fn labels_are_given_from_their_thresholds_on() {
        let given = given(&[0.0, 2.0, -1.0], &[0.5, 0.5, 0.5]);
        assert_eq!(given.iter().map(|g| g.0).collect::<Vec<_>>(), [1, 0]);
        assert!((given[0].1 - 0.880_797_077_977_882_3).abs() < 1e-15);
    }
}
