//! A run's methods at work: its own, and those that join it.

use std::fmt::{self, Debug};

use crate::checkpoint::Checkpoint;
use crate::data::Batch;
use crate::error::Result;
use crate::gpu::{View, profile};
use crate::method::args::MethodArgs;
use crate::method::between::Between;
use crate::method::learner::{Around, Learner};
use crate::method::radius_record::Learned;
use crate::method::saved::Saved;
use crate::method::snapshot::Snapshot;
use crate::model::Model;

/// What a run holds its weights near.
#[derive(Clone, Copy, Debug)]
pub struct Anchor<'a> {
    /// The pre-trained weights and running statistics.
    pub values: &'a Snapshot,
    /// Tensors that have no pre-trained counterpart, or are left alone: a flag per tensor, in layout order.
    pub excluded: &'a [bool],
    /// Whether the head has no pre-trained counterpart.
    pub new_head: bool,
}

impl Anchor<'_> {
    /// The weights in an arena of their own.
    pub(super) fn upload(&self, learner: &Learner) -> Result<View> {
        let w0 = learner.model.layout().arena(learner.gpu, "anchor weights")?;
        learner.gpu.write(&w0, &self.values.w);
        Ok(w0)
    }
}

/// What [`crate::method::Method::start`] gives.
#[derive(Debug, Default)]
pub struct Started {
    /// What happens in every step, around the optimiser's update.
    pub around: Around,
    /// What the method keeps.
    pub held: Option<Box<dyn Held>>,
}

impl Started {
    /// Of a method that keeps `held`.
    pub fn new(around: Around, held: impl Held + 'static) -> Started {
        Started { around, held: Some(Box::new(held)) }
    }
}

/// Gives the next batch of validation images.
pub type Batches<'a> = &'a mut dyn FnMut() -> Result<Batch>;

/// Judges a model on the selection images: its accuracy and loss. Its name is for whoever watches the run.
pub type Judge<'a> = &'a mut dyn FnMut(&Snapshot, &str) -> Result<(f64, f64)>;

/// What dispatches do, and each one's time.
pub type Trace = (&'static str, Vec<profile::Timing>);

/// Work that is left after the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Iterations that are done.
    pub done: u64,
    /// Iterations in all.
    pub of: u64,
    /// What they do.
    pub what: &'static str,
}

/// What a run's last weights become.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The weights that are evaluated in the end and saved.
    pub values: Snapshot,
    /// Where they lie between the pre-trained and the fine-tuned ones, if a method chose a place.
    pub placed: Option<Placed>,
}

/// A place between the pre-trained and the fine-tuned weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// What α means.
    pub between: Between,
    /// From 0, nearest to the pre-trained weights, to 1, the fine-tuned ones.
    pub alpha: f32,
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Placed { between, alpha } = self;
        match between {
            Between::Wise => write!(f, "the weights are {alpha} of the way from the pre-trained to the fine-tuned"),
            Between::Lines => {
                write!(f, "the first block keeps {alpha} of its drift from the pre-trained weights, the last all of it")
            }
        }
    }
}

/// What a method keeps on the device during a run, and does after a step.
pub trait Held: Debug {
    /// Called after each step; `next` gives validation batches to a method that asks for them. Does not wait.
    fn after_step(&mut self, _learner: &mut Learner, _next: Batches) -> Result<()> {
        Ok(())
    }

    /// The work that is left after the last step; none if nothing is.
    fn rest(&self) -> Option<Rest> {
        None
    }

    /// One iteration of [`Held::rest`].
    fn iterate(&mut self, _learner: &mut Learner, _next: Batches) -> Result<()> {
        Ok(())
    }

    /// Whether iterations of [`Held::rest`] have changed the weights: then no step can follow.
    fn has_begun_rest(&self) -> bool {
        false
    }

    /// Validation batches taken.
    fn taken(&self) -> u64 {
        0
    }

    /// Layout indices and rows of the tensors that have a learned radius.
    fn radii(&self) -> Vec<(usize, usize)> {
        Vec::new()
    }

    /// The learned radii, as far as their numbers have arrived since the last call; with `wait`, all of them.
    fn learned(&mut self, _learner: &Learner, _wait: bool) -> Result<Vec<Learned>> {
        Ok(Vec::new())
    }

    /// Whether [`Held::learned`] has given all that belongs to step `step`.
    fn is_told(&self, _step: u64) -> bool {
        true
    }

    /// Steps, or iterations after them, whose radii are recorded: the number that the next row of `radii.csv` begins with.
    fn recorded(&self, learner: &Learner) -> u64 {
        learner.steps
    }

    /// Layout indices of the tensors whose gradient is without a learned share, and the share that the last step had. Waits.
    fn shares(&self, _learner: &Learner) -> Result<Vec<(usize, f32)>> {
        Ok(Vec::new())
    }

    /// Adds to `saved` what a stopped run needs to go on. Waits.
    fn save(&self, learner: &Learner, saved: &mut Saved) -> Result<()>;

    /// Goes on from the `file` that [`Held::save`] has gone into, after `taken` validation batches.
    fn restore(&mut self, learner: &mut Learner, file: &Checkpoint, taken: u64) -> Result<()>;

    /// What of all that is `saved` is evaluated and kept in place of the run's own weights, if anything. `batches` are in its
    /// running statistics.
    fn evaluated(&self, _saved: &Saved, _batches: u64) -> Option<Snapshot> {
        None
    }

    /// Whether [`Held::finish`] makes other weights of the last ones: those on the way are then no result of the run.
    fn finishes(&self) -> bool {
        false
    }

    /// What the last weights, or those in their place, become.
    fn finish(&self, values: Snapshot, _anchor: &Anchor, _model: &Model, _judge: Judge) -> Result<Finished> {
        Ok(Finished { values, placed: None })
    }

    /// Its own dispatches beside a step timed one by one (`--trace`), under what they do. They are done.
    fn trace(&self, _learner: &Learner) -> Result<Vec<Trace>> {
        Ok(Vec::new())
    }
}

/// Buffers that only dispatches around a step use, with nothing to save.
#[derive(Debug)]
pub(super) struct Owned<T>(pub(super) T);

impl<T: Debug> Held for Owned<T> {
    fn save(&self, _: &Learner, _: &mut Saved) -> Result<()> {
        Ok(())
    }

    fn restore(&mut self, _: &mut Learner, _: &Checkpoint, _: u64) -> Result<()> {
        Ok(())
    }
}

/// The methods of a run at work.
#[derive(Debug, Default)]
pub struct Active {
    held: Vec<Box<dyn Held>>,
}

impl Active {
    /// Allocates what the methods of `args` keep, and has them act around the steps of `learner`.
    pub fn start(args: &MethodArgs, learner: &mut Learner, anchor: &Anchor) -> Result<Active> {
        let mut active = Active::default();
        for method in args.active() {
            method.prepare(args, learner, anchor)?;
            let Started { around, held } = method.start(args, learner, anchor)?;
            learner.surround(around);
            active.held.extend(held);
        }
        Ok(active)
    }
}

impl Held for Active {
    fn after_step(&mut self, learner: &mut Learner, next: Batches) -> Result<()> {
        self.held.iter_mut().try_for_each(|held| held.after_step(learner, next))
    }

    fn rest(&self) -> Option<Rest> {
        self.held.iter().find_map(|held| held.rest())
    }

    fn iterate(&mut self, learner: &mut Learner, next: Batches) -> Result<()> {
        let held = self.held.iter_mut().find(|held| held.rest().is_some());
        held.map_or(Ok(()), |held| held.iterate(learner, next))
    }

    fn has_begun_rest(&self) -> bool {
        self.held.iter().any(|held| held.has_begun_rest())
    }

    fn taken(&self) -> u64 {
        self.held.iter().map(|held| held.taken()).sum()
    }

    fn radii(&self) -> Vec<(usize, usize)> {
        self.held.iter().flat_map(|held| held.radii()).collect()
    }

    fn learned(&mut self, learner: &Learner, wait: bool) -> Result<Vec<Learned>> {
        self.held.iter_mut().map(|held| held.learned(learner, wait)).collect::<Result<Vec<_>>>().map(|all| all.concat())
    }

    fn is_told(&self, step: u64) -> bool {
        self.held.iter().all(|held| held.is_told(step))
    }

    fn recorded(&self, learner: &Learner) -> u64 {
        let radii = self.held.iter().find(|held| !held.radii().is_empty());
        radii.map_or(learner.steps, |held| held.recorded(learner))
    }

    fn shares(&self, learner: &Learner) -> Result<Vec<(usize, f32)>> {
        self.held.iter().map(|held| held.shares(learner)).collect::<Result<Vec<_>>>().map(|all| all.concat())
    }

    fn save(&self, learner: &Learner, saved: &mut Saved) -> Result<()> {
        self.held.iter().try_for_each(|held| held.save(learner, saved))
    }

    fn restore(&mut self, learner: &mut Learner, file: &Checkpoint, taken: u64) -> Result<()> {
        self.held.iter_mut().try_for_each(|held| held.restore(learner, file, taken))
    }

    fn evaluated(&self, saved: &Saved, batches: u64) -> Option<Snapshot> {
        self.held.iter().find_map(|held| held.evaluated(saved, batches))
    }

    fn finishes(&self) -> bool {
        self.held.iter().any(|held| held.finishes())
    }

    fn finish(&self, values: Snapshot, anchor: &Anchor, model: &Model, judge: Judge) -> Result<Finished> {
        let mut all = Finished { values, placed: None };
        for held in &self.held {
            let Finished { values, placed } = held.finish(all.values, anchor, model, judge)?;
            all = Finished { values, placed: placed.or(all.placed) };
        }
        Ok(all)
    }

    fn trace(&self, learner: &Learner) -> Result<Vec<Trace>> {
        self.held.iter().map(|held| held.trace(learner)).collect::<Result<Vec<_>>>().map(|all| all.concat())
    }
}
