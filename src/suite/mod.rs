//! The kernel correctness suite: every kernel against its f64 reference in [`crate::cpu`], at odd sizes and with extreme
//! values, on whatever adapter it is given. `tpgm check` runs it on a user's own GPU, the tests on theirs.
//!
//! [`harness`] says what a case watches: outputs poisoned beforehand, guards around every range, inputs left alone. The
//! other files have a group of stems each, and say beside each tolerance why it is what it is. A stem lists its cases as
//! [jobs](Plan::add); [`run`](mod@run) has them done on several threads and hands on what came out in the order of the list.

#![allow(clippy::single_range_in_vec_init)] // lists of ranges, of which some have one

pub mod harness;
pub mod run;
mod stems;

mod anchor;
mod attention;
mod batch_norm;
mod conv;
mod features;
mod formats;
mod half;
mod linear;
mod loss;
mod mars;
mod norm;
mod optim;
mod peak;
mod pointwise;
mod pooling;

pub use harness::Outcome;
pub use run::{Event, Selection, run, run_stem};
pub use stems::{Stem, stems};

use crate::error::Result;
use crate::gpu::Gpu;
use harness::Case;

/// The cases of a stem, before any of them runs.
pub struct Plan<'g> {
    gpu: &'g Gpu,
    quick: bool,
    jobs: Vec<Job>,
}

/// Makes its own data, computes the references and runs the kernels, on whatever thread.
type Job = Box<dyn FnOnce(&mut Suite) -> Result<()> + Send>;

impl std::fmt::Debug for Plan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plan({:?}, {} jobs)", self.gpu, self.jobs.len())
    }
}

impl Plan<'_> {
    /// Adds a case, or a few that belong together.
    fn add(&mut self, job: impl FnOnce(&mut Suite) -> Result<()> + Send + 'static) {
        self.jobs.push(Box::new(job));
    }

    /// Each of `all` with its place in it; in a quick run those at the places `quick` alone.
    fn pick<T: Copy>(&self, all: &[T], quick: &[usize]) -> Vec<(usize, T)> {
        assert!(quick.iter().all(|i| *i < all.len()), "{quick:?} of {}", all.len());
        let chosen = all.iter().copied().enumerate().filter(|(i, _)| !self.quick || quick.contains(i));
        chosen.collect()
    }
}

/// Where the cases of one job run and report to.
pub struct Suite<'g> {
    gpu: &'g Gpu,
    outcomes: Vec<Outcome>,
}

impl std::fmt::Debug for Suite<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Suite({:?}, {} outcomes)", self.gpu, self.outcomes.len())
    }
}

impl Suite<'_> {
    fn finish(&mut self, case: Case) -> Result<()> {
        self.outcomes.extend(case.finish()?);
        Ok(())
    }
}
