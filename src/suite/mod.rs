//! The kernel correctness suite: every kernel against its f64 reference in [`crate::cpu`], at odd sizes and with extreme
//! values, on whatever adapter it is given. `tpgm check` runs it on a user's own GPU, the tests on theirs.
//!
//! [`harness`] says what a case watches: outputs poisoned beforehand, guards around every range, inputs left alone. The
//! other files have a group of stems each, and say beside each tolerance why it is what it is. A stem lists its cases as
//! jobs; [`run`](mod@run) has them done on several threads and hands on what came out in the order of the list.

#![allow(clippy::single_range_in_vec_init)] // lists of ranges, of which some have one

pub mod harness;
pub mod run;

mod anchor;
mod attention;
mod batch_norm;
mod channels;
mod conv;
mod depthwise;
mod distill;
mod dropout;
mod formats;
mod linear;
mod loss;
mod mars;
mod norm;
mod optim;
mod patch_embed;
mod peak;
mod pointwise;
mod pooling;
mod rope;
mod shared_norm;
mod text;

pub use harness::CaseResult;
pub use run::{Event, Selection, run, run_stem};

use std::collections::BTreeSet;
use std::sync::LazyLock;

use crate::error::Result;
use crate::gpu::Gpu;
use harness::Case;

/// A group of cases.
#[derive(Clone, Copy, Debug)]
pub struct Stem {
    /// The name that shader, host wrapper and reference share.
    pub name: &'static str,
    /// Names of the kernels that its outcomes are about, [`CaseResult::kernel`].
    pub kernels: &'static [&'static str],
    /// Lists its cases.
    list: fn(&mut Plan) -> Result<()>,
}

const fn stem(name: &'static str, list: fn(&mut Plan) -> Result<()>, kernels: &'static [&'static str]) -> Stem {
    Stem { name, kernels, list }
}

/// The stems, in the order in which they run.
pub fn stems() -> &'static [Stem] {
    static ALL: LazyLock<Vec<Stem>> = LazyLock::new(|| {
        let products =
            [linear::STEMS, conv::STEMS, depthwise::STEMS, attention::STEMS, rope::STEMS, patch_embed::STEMS];
        let others = [
            pointwise::STEMS,
            dropout::STEMS,
            norm::STEMS,
            batch_norm::STEMS,
            channels::STEMS,
            pooling::STEMS,
            text::STEMS,
            loss::STEMS,
            distill::STEMS,
        ];
        let steps = [optim::STEMS, mars::STEMS, anchor::STEMS, peak::STEMS];
        [&products[..], &others, &steps].concat().concat()
    });
    &ALL
}

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

    /// All of `cases`; in a quick run as many of them, in their order, as it takes for everything that `shows` says of one of
    /// them to occur: each time the one with most that is new. A case that shows nothing is left out of a quick run.
    fn thin<T>(&self, cases: Vec<T>, shows: impl Fn(&T) -> Vec<String>) -> Vec<T> {
        if !self.quick {
            return cases;
        }
        let shown: Vec<BTreeSet<String>> = cases.iter().map(|case| shows(case).into_iter().collect()).collect();
        let mut missing: BTreeSet<&String> = shown.iter().flatten().collect();
        let mut chosen = BTreeSet::new();
        while !missing.is_empty() {
            let new = |i: &usize| shown[*i].iter().filter(|what| missing.contains(what)).count();
            // The first of those that show as much.
            let Some(best) = (0..cases.len()).rev().max_by_key(new) else { break };
            missing.retain(|what| !shown[best].contains(*what));
            chosen.insert(best);
        }
        cases.into_iter().enumerate().filter(|(i, _)| chosen.contains(i)).map(|(_, case)| case).collect()
    }
}

/// Every two of these, as [`Plan::thin`] takes them: mistakes of kernels that depend on two properties at once show in pairs.
fn pairs(properties: &[&str]) -> Vec<String> {
    let behind = |i: usize| (i + 1..properties.len()).map(move |j| (i, j));
    let all = (0..properties.len()).flat_map(behind);
    all.map(|(i, j)| format!("{i} {}, {j} {}", properties[i], properties[j])).collect()
}

/// Where the cases of one job run and report to.
pub struct Suite<'g> {
    gpu: &'g Gpu,
    outcomes: Vec<CaseResult>,
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
