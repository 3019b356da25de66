//! The steps of a run, and what follows the last: batches in, records out. Of the method it knows when to call it.

use std::collections::{BTreeMap, VecDeque};

use crate::data::Batch;
use crate::error::{Error, Result};
use crate::method::active::Batches;
use crate::method::{Active, At, Held, Learner, Stage, StepRecord};
use crate::train::advice::{Course, early};
use crate::train::events::Event;
use crate::train::optim_args::OptimArgs;
use crate::train::run_dir::RunLog;
use crate::train::schedule::LearningRate;
use crate::train::throughput::Throughput;

/// A learner, its methods, and where their figures go.
pub(super) struct Steps<'a, 'g> {
    pub(super) learner: Learner<'g>,
    pub(super) active: Active,
    pub(super) stages: Vec<Stage>,
    pub(super) lr: LearningRate,
    pub(super) log: RunLog,
    pub(super) events: &'a mut dyn FnMut(Event),
    /// Saves what can be saved, and words the error about a figure that is not a number.
    pub(super) spoilt: &'a dyn Fn(&Learner, &str) -> Error,
    /// Steps whose line in the log waits for the radius loss that belongs into it.
    waiting: VecDeque<StepRecord>,
    /// Radius losses by step, until the line of their step is written.
    radius_losses: BTreeMap<u64, f32>,
    latest: f32,
    /// Training images per second; NaN as long as no one knows.
    pub(super) rate: f64,
    /// Training losses of the steps of this process, and what advice about them is based on.
    pub(super) losses: Vec<f32>,
    watched: Option<Watch<'a>>,
}

/// What the first steps of a run are judged by.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    pub(super) settings: &'a OptimArgs,
    pub(super) classes: usize,
}

impl<'a, 'g> Steps<'a, 'g> {
    /// Nothing of which has been read back.
    pub(super) fn new(
        (learner, active): (Learner<'g>, Active),
        (stages, lr): (Vec<Stage>, LearningRate),
        log: RunLog,
        events: &'a mut dyn FnMut(Event),
        spoilt: &'a dyn Fn(&Learner, &str) -> Error,
        watched: Option<Watch<'a>>,
    ) -> Steps<'a, 'g> {
        let (waiting, radius_losses, latest) = (VecDeque::new(), BTreeMap::new(), f32::NAN);
        let (losses, rate) = (Vec::new(), f64::NAN);
        Steps {
            learner,
            active,
            stages,
            lr,
            log,
            events,
            spoilt,
            waiting,
            radius_losses,
            latest,
            rate,
            losses,
            watched,
        }
    }

    /// Goes into the stage of the next step, if it `is_new` or begins with that step; whether it did.
    pub(super) fn enter_stage(&mut self, is_new: bool) -> Result<bool> {
        let steps = self.learner.steps;
        match self.stages.iter().rfind(|stage| stage.since <= steps) {
            Some(stage) if is_new || stage.since == steps => self.learner.begin(stage.clone()).map(|()| true),
            _ => Ok(false),
        }
    }

    /// One step on `batch`.
    pub(super) fn step(&mut self, batch: &Batch, next: Batches, throughput: &mut Throughput) -> Result<()> {
        self.learner.step_mixed(&batch.images, &batch.labels, batch.mixed.as_ref(), self.lr.at(self.learner.steps))?;
        self.active.after_step(&mut self.learner, next)?;
        self.flush(false)?;
        self.rate = throughput.submitted(batch.len());
        self.progress(self.learner.steps, self.lr.steps, self.rate);
        Ok(())
    }

    /// One iteration of what the methods do after the last step (all of it, in a run without steps); false if none is left.
    pub(super) fn rest(&mut self, next: Batches, throughput: &mut Throughput) -> Result<bool> {
        let Some(rest) = self.active.rest() else {
            self.flush(true)?;
            return Ok(false);
        };
        if rest.done == 0 {
            // The lines of all steps come before those of what follows them, whenever their figures arrive.
            self.flush(true)?;
            (self.events)(Event::Note(rest.what.into()));
            self.latest = f32::NAN;
        }
        let mut images = 0;
        let mut counted = || next().inspect(|batch| images += batch.len());
        self.active.iterate(&mut self.learner, &mut counted)?;
        self.flush(false)?;
        self.progress(rest.done + 1, rest.of, throughput.submitted(images));
        Ok(true)
    }

    fn progress(&mut self, step: u64, steps: u64, rate: f64) {
        (self.events)(Event::Progress { step, steps, loss: self.latest, rate });
    }

    /// Writes the figures that have arrived; with `wait`, all. Stops the run at the first that is not a number.
    pub(super) fn flush(&mut self, wait: bool) -> Result<()> {
        self.waiting.extend(self.learner.records(wait)?);
        let learned = self.active.learned(&self.learner, wait)?;
        self.log.learned(&learned)?;
        for (at, loss) in learned.iter().filter_map(|l| Some((l.at, l.loss?))) {
            let when = match at {
                At::Step(step) => {
                    self.radius_losses.insert(step, loss);
                    format!("step {step}")
                }
                At::Iteration(iteration) => {
                    self.latest = loss;
                    format!("outer iteration {iteration}")
                }
            };
            if !loss.is_finite() && self.judges() {
                return Err((self.spoilt)(&self.learner, &format!("the radius loss of {when}")));
            }
        }
        let count = self.waiting.iter().take_while(|r| self.active.is_told(r.step)).count();
        let records: Vec<StepRecord> = self.waiting.drain(..count).collect();
        let Some(last) = records.last() else { return Ok(()) };
        self.latest = last.loss;
        let losses = std::mem::take(&mut self.radius_losses);
        self.log.steps(&records, self.lr.epoch_steps, |s| self.lr.at(s), |s| losses.get(&s).copied())?;
        self.radius_losses = { losses }.split_off(&(last.step + 1));
        self.watch(&records);
        match records.iter().find(|r| r.is_bad()) {
            Some(bad) if self.judges() => {
                let what = if bad.loss.is_finite() { "gradient" } else { "loss" };
                Err((self.spoilt)(&self.learner, &format!("the {what} of step {}", bad.step)))
            }
            _ => Ok(()),
        }
    }

    /// Whether this process ends the run where a figure is no number. Of several ranks, whose figures are the same but arrive at different
    /// times, the first does.
    fn judges(&self) -> bool {
        self.learner.ranks().is_none_or(|ranks| ranks.rank() == 0)
    }

    /// Keeps the losses, and says once if the first of them tell of a bad start.
    fn watch(&mut self, records: &[StepRecord]) {
        let Some(Watch { settings, classes }) = self.watched else { return };
        for record in records {
            self.losses.push(record.loss);
            let (losses, steps) = (&self.losses, self.lr.steps);
            let course = Course { losses, classes, settings, steps, held_out: None, evaluations: &[] };
            // Steps after a resume are not the first.
            if let Some(what) = early(&course).filter(|_| record.step + 1 == self.losses.len() as u64) {
                (self.events)(Event::Advice(what));
            }
        }
    }
}
