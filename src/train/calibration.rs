//! How far a model's confidence can be trusted, and the one temperature that mends it best.
//!
//! Guo, Pleiss, Sun and Weinberger, *On Calibration of Modern Neural Networks*, ICML 2017: reliability diagrams and the
//! expected calibration error (section 2), temperature scaling (section 4.2). A temperature divides all logits, so it
//! changes how sure a model is and never what it predicts. It is fitted on images that nothing is reported on.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::data::LabelSets;
pub use crate::train::bins::{BINS, Bin};
use crate::train::json_lines::or_nan;
use crate::train::labels::LabelLogits;

/// Temperatures outside are no property of a model but of a set that can't tell, such as one without a single mistake.
const RANGE: (f64, f64) = (0.05, 20.0);

/// What a model's probabilities are worth, at one temperature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// What the logits were divided by.
    pub temperature: f64,
    /// Mean negative log-likelihood of the right class, in nats.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
    /// Mean of Σ_c (p_c − y_c)², 0 to 2 (Brier 1950).
    #[serde(deserialize_with = "or_nan")]
    pub brier: f64,
    /// Expected calibration error: the mean gap between confidence and accuracy, bins weighted by their images.
    #[serde(deserialize_with = "or_nan")]
    pub ece: f64,
    /// The [`BINS`] bins, from unsure to sure.
    pub bins: Vec<Bin>,
}

/// Adds up a [`Calibration`] image by image.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    temperature: f64,
    loss: f64,
    brier: f64,
    /// Images, sum of confidence, right ones; a bin each.
    bins: [(usize, f64, usize); BINS],
}

impl Tally {
    pub(super) fn new(temperature: f64) -> Tally {
        Tally { temperature, loss: 0.0, brier: 0.0, bins: [(0, 0.0, 0); BINS] }
    }

    pub(super) fn add(&mut self, logits: &[f32], label: usize, right: bool) {
        let peak = peak(logits);
        let scaled = |logit: f32| (f64::from(logit) - peak) / self.temperature;
        let (mut total, mut squares) = (0.0, 0.0);
        for logit in logits {
            let weight = scaled(*logit).exp();
            total += weight;
            squares += weight * weight;
        }
        let own = scaled(logits[label]).exp();
        self.loss += total.ln() - scaled(logits[label]);
        self.brier += (squares - own * own + (total - own).powi(2)) / (total * total);
        let confidence = 1.0 / total;
        // Bins are open on the left: a confidence of exactly 1/15 lies in the first.
        let bin = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        self.bins[bin].0 += 1;
        self.bins[bin].1 += confidence;
        self.bins[bin].2 += usize::from(right);
    }

    pub(super) fn finish(&self) -> Calibration {
        let n = self.bins.iter().map(|b| b.0).sum::<usize>() as f64;
        let gap = |(_, confidence, right): &(usize, f64, usize)| (confidence - *right as f64).abs();
        let mean = |&(images, confidence, right): &(usize, f64, usize)| match images {
            0 => Bin::default(),
            _ => Bin { images, confidence: confidence / images as f64, accuracy: right as f64 / images as f64 },
        };
        Calibration {
            temperature: self.temperature,
            loss: self.loss / n,
            brier: self.brier / n,
            ece: self.bins.iter().map(gap).sum::<f64>() / n,
            bins: self.bins.iter().map(mean).collect(),
        }
    }
}

/// The largest logit; NaN counts for nothing.
fn peak(logits: &[f32]) -> f64 {
    f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max))
}

/// The logits of a whole data set, to fit a temperature on.
#[derive(Clone, Debug, Default)]
pub struct Logits {
    /// `[images, classes]`
    pub values: Vec<f32>,
    /// `[images]`, the right classes; or places among these sets of classes.
    pub labels: Vec<u32>,
    /// The sets, of images with any number of labels.
    pub sets: Option<Arc<LabelSets>>,
}

impl Logits {
    /// The rows with their labels.
    pub fn rows(&self) -> impl Iterator<Item = (&[f32], usize)> {
        let classes = self.values.len().checked_div(self.labels.len()).unwrap_or(0).max(1);
        self.values.chunks(classes).zip(&self.labels).map(|(row, label)| (row, *label as usize))
    }

    /// The thresholds of largest F1, of images with any number of labels.
    pub fn thresholds(&self) -> Option<Vec<f32>> {
        self.of_labels().map(|labels| labels.thresholds())
    }

    /// The same, if images may have any number of labels.
    pub fn of_labels(&self) -> Option<LabelLogits<'_>> {
        self.sets.as_ref().map(|sets| LabelLogits { values: &self.values, labels: &self.labels, sets })
    }

    /// First and second derivative of the mean negative log-likelihood in β = 1/T, in which it is convex:
    /// the mean of E_p\[z\] − z_y, and of Var_p\[z\].
    fn slope(&self, beta: f64) -> (f64, f64) {
        if let Some(logits) = self.of_labels() {
            return logits.slope(beta);
        }
        let (mut first, mut second) = (0.0, 0.0);
        for (row, label) in self.rows() {
            let peak = peak(row);
            let (mut total, mut mean, mut square) = (0.0, 0.0, 0.0);
            for logit in row {
                let z = f64::from(*logit) - peak;
                let weight = (beta * z).exp();
                // A class that is ruled out has a logit of −∞, which a weight of 0 would turn into NaN.
                if weight != 0.0 {
                    total += weight;
                    mean += weight * z;
                    square += weight * z * z;
                }
            }
            mean /= total;
            first += mean - (f64::from(row[label]) - peak);
            second += square / total - mean * mean;
        }
        let n = self.labels.len() as f64;
        (first / n, second / n)
    }
}

/// What logits are divided by to make confidence match accuracy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// The temperature; above 1 for a model that is too sure of itself.
    pub value: f64,
    /// Whether the loss would fall further beyond 0.05 or 20, where the search ends: the set can't tell a temperature.
    pub at_bound: bool,
}

impl Temperature {
    /// Why the figures at this temperature say little, where it was fitted on `set`.
    pub fn doubt(&self, set: &str) -> Option<String> {
        let what = match self.value < 1.0 {
            true => "hardly a mistake; a larger or harder set tells more",
            false => "hardly a right answer: there is no confidence to mend",
        };
        self.at_bound.then(|| format!("the end of its range, since {set} has {what}"))
    }

    /// The temperature with the least mean negative log-likelihood on `logits`, in f64: Newton's method in 1/T, in which
    /// there is one minimum, held within a shrinking bracket.
    ///
    /// `None` without images, and where a logit is not a number.
    pub fn fit(logits: &Logits) -> Option<Temperature> {
        let (first, second) = logits.slope(1.0);
        if !(first.is_finite() && second.is_finite()) {
            return None;
        }
        if first == 0.0 {
            return Some(Temperature { value: 1.0, at_bound: false });
        }
        let (mut low, mut high) = (1.0 / RANGE.1, 1.0 / RANGE.0);
        for (end, outward) in [(low, -1.0), (high, 1.0)] {
            // Still falling towards the end of the range.
            if logits.slope(end).0 * outward <= 0.0 {
                return Some(Temperature { value: 1.0 / end, at_bound: true });
            }
        }
        let mut beta = 1.0;
        for _ in 0..100 {
            let (first, second) = logits.slope(beta);
            *(if first < 0.0 { &mut low } else { &mut high }) = beta;
            let newton = beta - first / second;
            let next = if low < newton && newton < high { newton } else { (low * high).sqrt() };
            let moved = (next - beta).abs();
            beta = next;
            if moved <= 1e-13 * beta {
                break;
            }
        }
        Some(Temperature { value: 1.0 / beta, at_bound: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` images of two classes whose logits differ by `gap`, `right` of them with the higher one as their class.
    fn two_classes(gap: f32, count: usize, right: usize) -> Logits {
        let labels = (0..count).map(|i| u32::from(i >= right)).collect();
        Logits { values: [gap, 0.0].repeat(count), labels, sets: None }
    }

    #[test]
    fn the_temperature_of_two_classes_is_known() {
        // The likelihood is greatest where σ(gap/T) is the accuracy a, so T = gap / ln(a / (1 − a)).
        for (gap, right) in [(4.0, 75), (0.5, 90), (8.0, 51), (0.2, 99)] {
            let a = right as f64 / 100.0;
            let want = f64::from(gap) / (a / (1.0 - a)).ln();
            let fitted = Temperature::fit(&two_classes(gap, 100, right)).unwrap();
            let inside = (0.05..20.0).contains(&want);
            assert_eq!(fitted.at_bound, !inside, "{gap} {right}: {fitted:?}, expected {want}");
            let want = want.clamp(0.05, 20.0);
            assert!((fitted.value / want - 1.0).abs() < 1e-10, "{fitted:?}, expected {want}");
        }
    }

    #[test]
    fn a_set_that_can_not_tell_is_at_the_bound() {
        assert_eq!(Temperature::fit(&two_classes(1.0, 10, 10)), Some(Temperature { value: 0.05, at_bound: true }));
        assert_eq!(Temperature::fit(&two_classes(1.0, 10, 2)), Some(Temperature { value: 20.0, at_bound: true }));
        assert_eq!(Temperature::fit(&two_classes(0.0, 10, 5)), Some(Temperature { value: 1.0, at_bound: false }));
        assert_eq!(Temperature::fit(&two_classes(f32::NAN, 10, 5)), None);
        assert_eq!(Temperature::fit(&Logits::default()), None);
    }

    #[test]
    fn a_class_that_is_ruled_out_changes_nothing() {
        let open = two_classes(4.0, 100, 75);
        let rows = open.values.chunks(2).flat_map(|row| [row[0], row[1], f32::NEG_INFINITY]);
        let ruled_out = Logits { values: rows.collect(), ..open.clone() };
        assert_eq!(Temperature::fit(&ruled_out), Temperature::fit(&open));
        let (mut two, mut three) = (Tally::new(1.5), Tally::new(1.5));
        open.rows().for_each(|(row, label)| two.add(row, label, label == 0));
        ruled_out.rows().for_each(|(row, label)| three.add(row, label, label == 0));
        assert_eq!(two.finish(), three.finish());
    }

    #[test]
    fn figures_are_those_worked_out_by_hand() {
        // Logits ln 3 and 0 are probabilities 3/4 and 1/4; at T = ½ their ratio is 9: 9/10 and 1/10.
        let row = [3f32.ln(), 0.0];
        for (temperature, p, bin) in [(1.0, 0.75, 11), (0.5, 0.9, 13)] {
            let mut tally = Tally::new(temperature);
            tally.add(&row, 0, true);
            tally.add(&row, 1, false);
            tally.add(&row, 0, true);
            let c = tally.finish();
            let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-7, "{a}, expected {b}");
            close(c.loss, -(2.0 * f64::ln(p) + f64::ln(1.0 - p)) / 3.0);
            // (1 − p)² + (1 − p)² where right, p² + p² where wrong.
            close(c.brier, (4.0 * (1.0 - p) * (1.0 - p) + 2.0 * p * p) / 3.0);
            close(c.ece, (p - 2.0 / 3.0).abs());
            assert_eq!((c.bins.len(), c.bins[bin].images), (BINS, 3));
            close(c.bins[bin].confidence, p);
            close(c.bins[bin].accuracy, 2.0 / 3.0);
            assert_eq!(c.bins.iter().filter(|b| **b == Bin::default()).count(), BINS - 1);
        }
    }

    #[test]
    fn a_confidence_on_an_edge_belongs_to_the_bin_below() {
        let mut tally = Tally::new(1.0);
        tally.add(&[0.0; 15], 0, true); // 1/15, the first bin's upper edge
        tally.add(&[1000.0, 0.0], 0, true); // exactly 1
        let bins = tally.finish().bins;
        assert_eq!((bins[0].images, bins[14].images), (1, 1));
    }
}
