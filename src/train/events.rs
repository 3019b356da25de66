//! What goes into a run besides its configuration, and what comes out of it besides its directory.

use serde_json::{Value, json};

use crate::checkpoint::LowRank;
use crate::data::Corruption;
use crate::method::Memory;
use crate::train::calibration::Temperature;
use crate::train::evaluate::Evaluation;
use crate::train::records::{Calibrated, Distribution, EvaluationLine, Weights, bits};
use crate::train::tta::Tta;

/// What a run tells whoever started it.
#[derive(Clone, Debug)]
pub enum Event {
    /// Something worth knowing, one sentence.
    Note(String),
    /// Something that may spoil the result, one sentence.
    Warning(String),
    /// What the run's figures tell about its settings, and what to try, one sentence.
    Advice(String),
    /// The memory of the run on the device, before it is allocated; the last of these is the one that was allocated.
    Planned(Memory),
    /// Steps done, of how many, the latest loss, and images per second since the start.
    Progress {
        /// Steps taken.
        step: u64,
        /// Steps of the run.
        steps: u64,
        /// Loss of the latest step that has been read back.
        loss: f32,
        /// Training images per second, evaluations left out; NaN while the first batches are under way.
        rate: f64,
    },
    /// Images that were looked at before the run begins, and how many there are.
    Checked {
        /// Images done.
        done: usize,
        /// Images in all.
        of: usize,
    },
    /// Images of an evaluation that are done, and how many there are.
    Evaluating {
        /// The data set's name.
        name: String,
        /// Images done.
        done: usize,
        /// Images in all.
        of: usize,
    },
    /// An evaluation.
    Evaluated(Box<TestResult>),
    /// The end of an epoch, or of the training.
    Epoch(Box<EpochEnd>),
}

/// The progress and figures at the end of an epoch.
#[derive(Clone, Debug)]
pub struct EpochEnd {
    /// Epochs that were begun so far, and epochs of the run.
    pub epoch: u64,
    /// See there.
    pub epochs: u64,
    /// Steps taken, and steps of the run.
    pub step: u64,
    /// See there.
    pub steps: u64,
    /// Mean training loss of the epoch's steps; NaN without any.
    pub train_loss: f32,
    /// The training loss so far, as means over equal parts of it.
    pub course: Vec<f32>,
    /// Training images per second, evaluations left out; NaN while the first batches are under way.
    pub rate: f64,
    /// The evaluation on held-out images, if there was one.
    pub held_out: Option<TestResult>,
}

impl Event {
    /// Tells the temperature that was fitted on the split `set` with the `model` weights, or that there is none.
    pub fn of_temperature(temperature: Option<Temperature>, set: &str, model: Weights) -> Event {
        match temperature {
            None => Event::Warning(format!("no temperature: the {model} weights' logits on {set} are not all numbers")),
            Some(t) => {
                let what = format!("temperature {:.3}, fitted on {set} with the {model} weights", t.value);
                match t.doubt(set) {
                    None => Event::Note(what),
                    Some(doubt) => Event::Warning(format!("{what}: {doubt}")),
                }
            }
        }
    }
}

/// A model's figures on one data set.
#[derive(Clone, Debug)]
pub struct TestResult {
    /// The data set's name: `val`, `select`, or that of a test set.
    pub name: String,
    /// Which weights.
    pub model: Weights,
    /// Whether the set is in-distribution, where that was said.
    pub id: Option<bool>,
    /// The corruption of its images, if they are corrupted.
    pub corruption: Option<Corruption>,
    /// The number of classes that answers were held to.
    pub subset: Option<usize>,
    /// The views of each image that the model answered to.
    pub tta: Tta,
    /// The figures.
    pub evaluation: Evaluation,
}

impl TestResult {
    /// The line of `metrics.jsonl` about it: after `steps` steps, where an epoch has `epoch_steps`, and whether it is one of the run's
    /// end.
    pub(super) fn line(&self, steps: u64, epoch_steps: u64, is_final: bool) -> EvaluationLine {
        let e = &self.evaluation;
        let labels = e.labels.as_ref();
        EvaluationLine {
            step: steps,
            epoch: Some(steps / epoch_steps),
            set: self.name.clone(),
            images: Some(e.images as u64),
            loss: Some(e.loss),
            top1: labels.is_none().then_some(e.top1),
            top5: labels.is_none().then_some(e.top5),
            balanced: labels.is_none().then_some(e.balanced),
            map: labels.map(|labels| labels.map),
            micro_f1: labels.map(|labels| labels.at_half.micro_f1),
            exact: labels.map(|labels| labels.at_half.exact),
            at_own: labels.and_then(|labels| labels.at_own),
            macro_f1: Some(e.macro_f1),
            ece: Some(e.ece),
            brier: Some(e.brier),
            temperature: e.calibrated.as_ref().map(|c| c.temperature),
            calibrated: e.calibrated.as_ref().map(|c| Calibrated { loss: c.loss, ece: c.ece, brier: c.brier }),
            right: (!is_final && labels.is_none()).then(|| bits(&e.right)),
            by_image: None,
            is_final,
            model: is_final.then_some(self.model),
            baseline: is_final && self.model == Weights::Pretrained,
            kind: self.id.filter(|_| is_final).map(Distribution::of),
            corruption: self.corruption.map(|c| c.kind.name().to_string()),
            severity: self.corruption.map(|c| c.severity().into()),
            subset: self.subset.map(|classes| classes as u64),
            tta: self.tta.name().map(String::from),
        }
    }

    /// Adds to a JSON object how the set was made and read: `corruption` and `severity`, `subset` and `tta`, where they apply.
    pub fn describe(&self, line: &mut Value) {
        if let Some(corruption) = self.corruption {
            line["corruption"] = json!(corruption.kind);
            line["severity"] = json!(corruption.severity());
        }
        if let Some(classes) = self.subset {
            line["subset"] = json!(classes);
        }
        if let Some(views) = self.tta.name() {
            line["tta"] = json!(views);
        }
    }
}

/// What a finished run came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Fine-tuning steps taken.
    pub steps: u64,
    /// Results on the test sets: of the pre-trained model, of the last weights, and of the best where they differ.
    pub tests: Vec<TestResult>,
    /// Seconds from the first step to the last, evaluations included.
    pub seconds: f64,
    /// The low-rank adapters of the best and of the last weights, where they and the base make these weights.
    pub adapters: [Option<LowRank>; 2],
    /// Whether the run is to leave deltas as well.
    pub delta: bool,
}

/// How a run is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Start {
    /// Go on with the run in the folder.
    pub resume: bool,
    /// Evaluate the pre-trained model on the test sets first.
    pub baseline: bool,
    /// Evaluate the best weights on the test sets too, where they are not the last.
    pub best: bool,
    /// Measure the kernels for products that nobody has measured on this adapter.
    pub tune: bool,
    /// Go on although images or the model have changed since the run began.
    pub accept_changes: bool,
    /// Take Ctrl-C and SIGTERM, from the first step on, as a request to save the state and end.
    pub stoppable: bool,
    /// Write event files for TensorBoard; a run that has some goes on with them anyway.
    pub tensorboard: bool,
    /// Leave deltas as well, which whoever started the run writes; a run that was begun so goes on so anyway.
    pub delta: bool,
}
