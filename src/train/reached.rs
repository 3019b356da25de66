//! How far a run had come that is resumed, and so which of its records stay.

use crate::train::records::Metric;

/// How far a run had come that is gone on with.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    /// Training steps taken.
    pub steps: u64,
    /// What the first column of `radii.csv` had come to: steps, or outer iterations with the post schedule.
    pub radii: u64,
    /// Whether these are all steps of the run: its last evaluations are then made again.
    pub done: bool,
}

impl Reached {
    /// Whether an evaluation after `step` steps is not made again.
    pub(super) fn has(self, step: u64) -> bool {
        step < self.steps || (step == self.steps && !self.done)
    }

    /// Whether a line of `metrics.jsonl` is about a part that is not run again.
    pub(super) fn keeps(self, line: &Metric) -> bool {
        match line {
            Metric::Evaluation(e) if e.is_final => e.is_baseline(),
            // An evaluation says how many steps came before it; a training line belongs to the step it has.
            Metric::Evaluation(e) => self.has(e.step),
            Metric::Step(s) if s.train_loss.is_some() => s.step < self.steps,
            Metric::Step(s) => s.step < self.radii,
            // It belongs to the end of a run, which comes again.
            Metric::Placed(_) => false,
        }
    }
}
