//! What a run writes line by line, one type for each kind of line: whoever writes or reads `metrics.jsonl`,
//! `evaluations.jsonl` or `radii.csv` does so through these.
//!
//! JSON has no NaN: a figure that is not a number is written as null, and null is read as NaN. Keys that are not known are passed
//! over, so that older and newer records can be read.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::method::active::Placed;
use crate::method::between::Between;
use crate::train::evaluate::Evaluation;
use crate::train::json_lines::{object, or_nan, read};
use crate::train::labels::AtThresholds;

/// Which weights of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// Those that it starts from.
    Pretrained,
    /// Those of the best evaluation on the selection images.
    Best,
    /// Those after the last step.
    #[default]
    Last,
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Weights::Pretrained => "pretrained",
            Weights::Best => "best",
            Weights::Last => "last",
        })
    }
}

/// What a test set is to the training data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// In distribution.
    Id,
    /// Out of distribution.
    Ood,
}

impl Distribution {
    /// That of a set that is in-distribution or not.
    pub fn of(id: bool) -> Distribution {
        if id { Distribution::Id } else { Distribution::Ood }
    }
}

/// As [`or_nan`], of a key that may be absent: absent is None, null is NaN.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de> + From<f32>>(from: D) -> Result<Option<T>, D::Error> {
    Ok(Some(Option::<T>::deserialize(from)?.unwrap_or_else(|| f32::NAN.into())))
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Metric {
    /// About an evaluation.
    Evaluation(Box<EvaluationLine>),
    /// About where between the pre-trained and the fine-tuned weights the result lies.
    Placed(PlacedLine),
    /// About a training step, or an outer iteration of the post-hoc recipe.
    Step(StepLine),
}

/// A training step; or an outer iteration of the post-hoc recipe, which has nothing but its number and its radius loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepLine {
    /// Counted from 0.
    pub step: u64,
    /// The epoch that the step belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The learning rate of this step.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub lr: Option<f64>,
    /// Mean loss over the training batch.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub train_loss: Option<f32>,
    /// Global norm of the gradient, before clipping.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub grad_norm: Option<f32>,
    /// In f16, what the loss's gradient was multiplied by.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub loss_scale: Option<f32>,
    /// In f16, whether the step was skipped since a gradient overflowed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
    /// Loss at the projected weights over the radius batch.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub radius_loss: Option<f32>,
}

/// Where between the pre-trained and the fine-tuned weights a run's result lies: one of the two places.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacedLine {
    /// Steps before it.
    pub step: u64,
    /// WiSE's: 0 is pre-trained, 1 fine-tuned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wise_alpha: Option<f32>,
    /// LiNeS's: the share of its drift that the first block keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines_alpha: Option<f32>,
}

impl PlacedLine {
    /// Of a run of `step` steps.
    pub fn new(step: u64, Placed { between, alpha }: Placed) -> PlacedLine {
        let of = |which| (between == which).then_some(alpha);
        PlacedLine { step, wise_alpha: of(Between::Wise), lines_alpha: of(Between::Lines) }
    }
}

/// One evaluation of one data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationLine {
    /// Steps before it.
    pub step: u64,
    /// The epoch that they come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The data set: `val`, `select`, or a test set's name.
    #[serde(rename = "eval")]
    pub set: String,
    /// How many images it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    /// Mean cross-entropy.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub loss: Option<f64>,
    /// Share of images whose first guess is right, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub top1: Option<f64>,
    /// Share of images with the right class among the first five guesses, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub top5: Option<f64>,
    /// Balanced accuracy, 0 to 1: the mean of the classes' accuracies.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub balanced: Option<f64>,
    /// The mean of the classes' F1, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub macro_f1: Option<f64>,
    /// Of images with any number of labels: mean average precision, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub map: Option<f64>,
    /// F1 over all their labels together at a probability of 0.5, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub micro_f1: Option<f64>,
    /// Share of the images that are given exactly their labels at a probability of 0.5, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub exact: Option<f64>,
    /// The same and macro F1 at thresholds that were chosen on the selection images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_own: Option<AtThresholds>,
    /// Expected calibration error, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub ece: Option<f64>,
    /// Brier score, 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub brier: Option<f64>,
    /// The temperature that was fitted for these weights.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub temperature: Option<f64>,
    /// The probabilities' figures at that temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated: Option<Calibrated>,
    /// Which images were right, of those that choices are made on: see [`bits`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<String>,
    /// The share of each of these images in what the best checkpoint is chosen by, where that is not `right`: see
    /// [`by_image`](crate::train::by_image).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_image: Option<String>,
    /// Whether this belongs to the evaluation at the end of the run.
    #[serde(default, rename = "final", skip_serializing_if = "std::ops::Not::not")]
    pub is_final: bool,
    /// Which weights, in an evaluation at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Weights>,
    /// Whether this is the pre-trained model, before any step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub baseline: bool,
    /// In or out of distribution, where the run knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Distribution>,
    /// The kind of corruption of the set's images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corruption: Option<String>,
    /// How severely, 1 to 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<u64>,
    /// The number of classes that answers were held to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<u64>,
    /// The views of each image that the model answered to, if more than the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tta: Option<String>,
}

/// Truth values as text: a hexadecimal digit for four of them, the first in its highest bit.
pub fn bits(values: &[bool]) -> String {
    let digit = |four: &[bool]| four.iter().enumerate().map(|(i, set)| u32::from(*set) << (3 - i)).sum();
    values.chunks(4).filter_map(|four| char::from_digit(digit(four), 16)).collect()
}

/// The first `count` values of [`bits`]; none where these are not in `text`.
pub fn from_bits(text: &str, count: usize) -> Option<Vec<bool>> {
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let all = digits.len() == count.div_ceil(4);
    all.then(|| (0..count).map(|i| digits[i / 4] >> (3 - i % 4) & 1 == 1).collect())
}

/// What changes with the temperature.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibrated {
    /// Mean cross-entropy.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
    /// Expected calibration error.
    #[serde(deserialize_with = "or_nan")]
    pub ece: f64,
    /// Brier score.
    #[serde(deserialize_with = "or_nan")]
    pub brier: f64,
}

impl EvaluationLine {
    /// Whether images may have any number of labels.
    pub fn is_multi_label(&self) -> bool {
        self.map.is_some()
    }

    /// The main figure: top-1 accuracy, or mean average precision.
    pub fn main(&self) -> Option<f64> {
        self.top1.or(self.map)
    }

    /// Whether this is the pre-trained model.
    pub fn is_baseline(&self) -> bool {
        self.baseline || self.model == Some(Weights::Pretrained)
    }
}

impl Metric {
    /// Reads a line.
    ///
    /// # Errors
    /// What about it can't be understood.
    pub fn parse(line: &str) -> Result<Metric, String> {
        let value = object(line)?;
        if !value.get("step").is_some_and(Value::is_u64) {
            return Err("there is no \"step\" that is a count".into());
        }
        let kind = |key: &str| value.get(key).is_some();
        match (kind("eval"), kind("wise_alpha") || kind("lines_alpha")) {
            (true, _) => read(value).map(Metric::Evaluation),
            (_, true) => read(value).map(Metric::Placed),
            _ => read(value).map(Metric::Step),
        }
    }

    /// The line, with its end.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("plain values always serialise") + "\n"
    }
}

/// A row of `radii.csv`: one tensor at one outer iteration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RadiusRow {
    /// The training step, or the outer iteration of the post-hoc recipe.
    pub step: u64,
    /// The tensor's name.
    pub tensor: String,
    /// The radius right after the iteration's Adam step, before its bounds: it may be below 0.
    pub radius: f32,
    /// The largest row norm of the drift.
    pub max_norm: f32,
    /// Rows outside the ball, which are those that give the radius a gradient.
    pub active_rows: u64,
    /// Rows of the tensor.
    pub rows: u64,
}

impl RadiusRow {
    /// The columns.
    pub const COLUMNS: [&str; 6] = ["step", "tensor", "radius", "max_norm", "active_rows", "rows"];

    /// The radius as the projection takes it: 0 where Adam left it below 0, since nothing may move then (its lower bound is 1e-8).
    pub fn in_force(&self) -> f64 {
        // Not `max`, which would make 0 of a radius that is no number.
        if self.radius < 0.0 { 0.0 } else { self.radius.into() }
    }
}

/// A row of `drift.csv`: how far one tensor has moved from the anchor by the end of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DriftRow {
    /// Steps before it.
    pub step: u64,
    /// The tensor's name.
    pub tensor: String,
    /// Its place from input to output, where the run says so.
    pub depth: Option<usize>,
    /// The largest absolute row sum of θ − θ₀.
    pub mars_drift: f64,
    /// The L2 norm of θ − θ₀.
    pub l2_drift: f64,
    /// Rows of the tensor.
    pub rows: u64,
}

impl DriftRow {
    /// The columns.
    pub const COLUMNS: [&str; 6] = ["step", "tensor", "depth", "mars_drift", "l2_drift", "rows"];
}

/// A row of `shares.csv`: the share ω of what leads a tensor away from the anchor that its gradient is without (`digrap`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareRow {
    /// Steps before it.
    pub step: u64,
    /// The tensor's name.
    pub tensor: String,
    /// ω of the last step, 0 to 1.
    pub share: f32,
}

impl ShareRow {
    /// The columns.
    pub const COLUMNS: [&str; 3] = ["step", "tensor", "share"];
}

/// One process that a run went on in, an entry of `sessions.json`. What an older file lacks is empty, 0 or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// The command line, word by word.
    pub command: Vec<String>,
    /// The program's version, with its commit.
    pub version: String,
    /// When it began: date and time of day in UTC, as in ISO 8601.
    pub started: String,
    /// Seconds that it had worked when this was written: at the end, or where the state was saved last.
    pub seconds: f64,
    /// Training steps of the run before it, and after it.
    pub steps: [u64; 2],
    /// Training images per second, evaluations left out; none where there were too few batches to tell.
    pub images_per_second: Option<f64>,
    /// Bytes on the device at most, as planned; on several ranks, on that of the first.
    pub memory: u64,
    /// Processes that trained together, each with a device of its own. Older files don't say: it was one.
    #[serde(default = "one")]
    pub ranks: usize,
    /// On several ranks: seconds that steps waited for the sum of the gradients, with the own gradient on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange_seconds: Option<f64>,
    /// The adapter's name.
    pub adapter: String,
    /// Its driver, with the driver's version.
    pub driver: String,
    /// The graphics interface: Vulkan, Metal, DX12 or GL.
    pub backend: String,
}

fn one() -> usize {
    1
}

/// A line of `evaluations.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FullLine {
    /// The first one: the names of the classes, in the order of the model's outputs.
    Classes {
        /// The names.
        classes: Vec<String>,
    },
    /// A final evaluation in full.
    Evaluation(Box<FullEvaluation>),
}

/// A final evaluation in full.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FullEvaluation {
    /// The test set.
    pub set: String,
    /// Which weights.
    pub model: Weights,
    /// In or out of distribution, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Distribution>,
    /// The figures.
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

impl FullLine {
    /// Reads a line.
    ///
    /// # Errors
    /// What about it can't be understood.
    pub fn parse(line: &str) -> Result<FullLine, String> {
        let value = object(line)?;
        match value.get("classes") {
            Some(classes) => read(classes.clone()).map(|classes| FullLine::Classes { classes }),
            None => read(value).map(FullLine::Evaluation).map_err(|e| format!("not an evaluation ({e})")),
        }
    }

    /// The line, with its end.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("plain values always serialise") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_read_as_they_are_written() {
        let values = [true, false, false, true, true, false];
        assert_eq!(bits(&values), "98");
        assert_eq!(from_bits("98", 6).as_deref(), Some(values.as_slice()));
        assert_eq!((bits(&[]), from_bits("", 0)), (String::new(), Some(Vec::new())));
        for (text, count) in [("9", 6), ("988", 6), ("9g", 6)] {
            assert_eq!(from_bits(text, count), None);
        }
    }

    #[test]
    fn a_radius_below_0_is_in_force_as_0_and_no_number_stays_none() {
        let row = |radius| RadiusRow { step: 1, tensor: "w".into(), radius, max_norm: 1.0, active_rows: 0, rows: 1 };
        assert_eq!([0.25, 0.0, -0.001].map(|radius| row(radius).in_force()), [0.25, 0.0, 0.0]);
        assert!(row(f32::NAN).in_force().is_nan());
    }

    #[test]
    fn what_is_not_a_number_is_read_as_written() {
        let line = StepLine { step: 3, train_loss: Some(f32::NAN), lr: Some(0.1), ..StepLine::default() };
        let text = Metric::Step(line).line();
        assert_eq!(text, "{\"step\":3,\"lr\":0.1,\"train_loss\":null}\n");
        let Ok(Metric::Step(read)) = Metric::parse(&text) else { panic!() };
        assert!(read.train_loss.is_some_and(f32::is_nan) && read.grad_norm.is_none());
    }

    #[test]
    fn each_line_is_read_as_its_kind() {
        let eval =
            "{\"step\":4,\"eval\":\"val\",\"top1\":0.5,\"loss\":null,\"final\":true,\"model\":\"best\",\"new\":[1]}";
        let Ok(Metric::Evaluation(e)) = Metric::parse(eval) else { panic!() };
        assert_eq!((e.set.as_str(), e.top1, e.is_final, e.model), ("val", Some(0.5), true, Some(Weights::Best)));
        assert!(e.loss.is_some_and(f64::is_nan) && e.top5.is_none() && !e.is_baseline());
        for line in ["{\"step\":4,\"wise_alpha\":0.5}\n", "{\"step\":4,\"lines_alpha\":0.5}\n"] {
            let read = Metric::parse(line).unwrap();
            assert!(matches!(read, Metric::Placed(_)) && read.line() == line);
        }
        assert!(matches!(Metric::parse("{\"step\":4,\"radius_loss\":0.5}"), Ok(Metric::Step(_))));
    }

    #[test]
    fn a_line_that_is_none_says_why() {
        let why = |line: &str| Metric::parse(line).unwrap_err();
        assert!(why("{\"step\":4").starts_with("not a JSON object ("));
        assert!(why("[4]").starts_with("not a JSON object;"));
        assert!(why("{\"train_loss\":1.0}").contains("no \"step\""));
        assert_eq!(
            why("{\"step\":61,\"train_loss\":\"low\"}"),
            "train_loss: invalid type: string \"low\", expected f32"
        );
        assert!(
            why("{\"step\":1,\"eval\":\"val\",\"model\":\"middle\"}").starts_with("model: unknown variant `middle`")
        );
    }
}
