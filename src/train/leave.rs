//! What a run leaves at its end for those who look at it: advice, and examples of what its model answers.

use std::path::Path;
use std::sync::Arc;

use crate::atomic::atomic_write;
use crate::data::ImageCache;
use crate::error::{Error, Result};
use crate::train::advice::{Course, HeldOut, advice};
use crate::train::config::TrainConfig;
use crate::train::corrupted::Test;
use crate::train::evaluate::Evaluation;
use crate::train::events::{EpochEnd, Summary, TestResult};
use crate::train::examples::{self, EXAMPLES, Judged};
use crate::train::imbalance_args::BestBy;
use crate::train::json_lines::lines;
use crate::train::label_examples::{self, LABEL_EXAMPLES};
use crate::train::records::{EvaluationLine, Metric, Weights};
use crate::train::run_dir::ADVICE;
use crate::train::splits::Splits;
use crate::train::steps::Steps;
use crate::train::suggestions::{Story, suggestions};

/// Values of a loss's course.
const COURSE: usize = 24;

/// The images that choices are made on, with the evaluation of the last weights on them.
pub(super) struct Chosen<'a> {
    pub(super) name: &'a str,
    pub(super) images: &'a Arc<ImageCache>,
    pub(super) evaluation: &'a Evaluation,
    /// The thresholds that were chosen on them, if images may have any number of labels.
    pub(super) thresholds: Option<&'a [f32]>,
}

impl Chosen<'_> {
    fn held_out(&self) -> Option<HeldOut<'_>> {
        let Evaluation { top1, per_class, labels, .. } = self.evaluation;
        labels.is_none().then_some(HeldOut { name: self.name, top1: *top1, per_class })
    }
}

/// The progress and figures at the end of an epoch, or of all; `held_out` is the evaluation there, if one was made.
pub(super) fn epoch_end(steps: &Steps, held_out: Option<TestResult>) -> EpochEnd {
    let Steps { learner, lr, losses, rate, .. } = steps;
    let (step, steps) = (learner.steps, lr.steps);
    let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
    let of_epoch = usize::try_from((step.max(1) - 1) % lr.epoch_steps + 1).unwrap_or(usize::MAX);
    EpochEnd {
        epoch: step.div_ceil(lr.epoch_steps),
        epochs: steps.div_ceil(lr.epoch_steps),
        step,
        steps,
        train_loss: mean(&losses[losses.len() - of_epoch.min(losses.len())..]),
        course: losses.chunks(losses.len().div_ceil(COURSE).max(1)).map(mean).collect(),
        rate: *rate,
        held_out,
    }
}

/// A run that is over.
pub(super) struct Leaving<'a> {
    pub(super) out: &'a Path,
    pub(super) config: &'a TrainConfig,
    /// Outputs of the head.
    pub(super) classes: usize,
    /// Its training steps.
    pub(super) steps: u64,
    pub(super) chosen: Chosen<'a>,
}

/// The training losses of all steps, and all evaluations on the way, whichever process made them.
struct History {
    losses: Vec<f32>,
    evaluations: Vec<EvaluationLine>,
}

/// A test set as examples are chosen of it: with the thresholds of labels that its figures were made with, or the model's `own`.
fn judge<'a>(name: &'a str, images: &'a ImageCache, evaluation: &'a Evaluation, own: Option<&[f32]>) -> Judged<'a> {
    let told = || evaluation.labels.iter().flat_map(|labels| &labels.labels).map(|label| label.threshold);
    let thresholds = own.map_or_else(|| told().collect(), <[f32]>::to_vec);
    Judged { name, images, evaluation, thresholds }
}

impl Leaving<'_> {
    fn history(&self) -> Result<History> {
        let path = self.out.join("metrics.jsonl");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, "cannot read", e))?;
        let (mut losses, mut evaluations) = (Vec::new(), Vec::new());
        for line in lines(&path, &text, Metric::parse)? {
            match line {
                Metric::Step(step) => losses.extend(step.train_loss),
                Metric::Evaluation(e) if e.set == self.chosen.name && !e.is_final => evaluations.push(*e),
                _ => {}
            }
        }
        Ok(History { losses, evaluations })
    }

    fn course<'a>(&'a self, history: &'a History) -> Course<'a> {
        Course {
            losses: &history.losses,
            classes: self.classes,
            settings: &self.config.optim,
            steps: self.steps,
            held_out: self.chosen.held_out(),
            evaluations: &history.evaluations,
        }
    }

    /// What the run's figures tell about its settings.
    ///
    /// # Errors
    /// Records that can't be read.
    pub(super) fn advice(&self) -> Result<Vec<String>> {
        Ok(advice(&self.course(&self.history()?)))
    }

    /// Writes what to try next, with the advice `told` besides, and examples: of the test sets, else of the images that choices were made
    /// on.
    ///
    /// # Errors
    /// Records or images that can't be read, files that can't be written.
    pub(super) fn write(&self, tests: &[Test], splits: &Splits, summary: &Summary, told: &[String]) -> Result<()> {
        let (history, names, chosen) = (self.history()?, splits.classes.names(), &self.chosen);
        let story = Story {
            course: self.course(&history),
            tests: &summary.tests,
            plain: self.config.method.name.name() == "vanilla",
            by_top1: matches!(self.config.imbalance.best_by, BestBy::Auto | BestBy::Top1),
            unequal: self.config.imbalance.note(&splits.train, &names),
        };
        let text = serde_json::to_string_pretty(&[suggestions(&story).as_slice(), told].concat()).expect("plain text");
        atomic_write(self.out.join(ADVICE), (text + "\n").as_bytes())?;

        let of = |model: Weights| summary.tests.iter().filter(move |t| t.model == model && t.corruption.is_none());
        let model = if of(Weights::Best).next().is_some() { Weights::Best } else { Weights::Last };
        let images = |name: &str| tests.iter().find(|test| test.0 == name).map(|test| &test.2);
        let mut judged: Vec<Judged> =
            of(model).filter_map(|t| Some(judge(&t.name, images(&t.name)?, &t.evaluation, None))).collect();
        if judged.is_empty() {
            judged.push(judge(chosen.name, chosen.images, chosen.evaluation, chosen.thresholds));
        }
        match chosen.evaluation.labels {
            None => examples::write(&self.out.join(EXAMPLES), &examples::choose(model, &judged, &names)?),
            Some(_) => {
                examples::write(&self.out.join(LABEL_EXAMPLES), &label_examples::choose(model, &judged, &names)?)
            }
        }
    }
}
