//! The kernel correctness suite: every kernel against its f64 reference in [`crate::cpu`], at odd sizes and with extreme
//! values, on whatever adapter it is given. `tpgm check` runs it on a user's own GPU, the tests on theirs.
//!
//! [`harness`] says what a case watches: outputs poisoned beforehand, guards around every range, inputs left alone. The
//! other files have a group of stems each, and say beside each tolerance why it is what it is.

#![allow(clippy::single_range_in_vec_init)] // lists of ranges, of which some have one

pub mod harness;

mod anchor;
mod attention;
mod batch_norm;
mod conv;
mod features;
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

use crate::error::Result;
use crate::gpu::Gpu;
use harness::Case;

/// Runs the cases of one stem.
pub type Stem = fn(&mut Suite) -> Result<()>;

/// The stems, by the name that shader, host wrapper and reference share.
pub fn stems() -> &'static [(&'static str, Stem)] {
    &[
        ("matmul", linear::matmul),
        ("epilogue", linear::epilogues),
        ("column_sum", linear::column_sum),
        ("layer_norm", norm::layer_norm),
        ("gelu", pointwise::gelu),
        ("swiglu", pointwise::swiglu),
        ("residual", pointwise::residual),
        ("pool", pointwise::pool),
        ("conv2d", conv::conv2d),
        ("batch_norm", batch_norm::batch_norm),
        ("relu", batch_norm::relu),
        ("max_pool", pooling::max_pool),
        ("avg_pool", pooling::avg_pool),
        ("patch_embed", pointwise::patch_embed),
        ("attention", attention::attention),
        ("attention_pool", attention::attention_pool),
        ("l2_normalize", features::l2_normalize),
        ("average", features::average),
        ("cross_entropy", loss::cross_entropy),
        ("cast", half::cast),
        ("half", half::half),
        ("loss_scale", half::loss_scale),
        ("sgd", optim::sgd),
        ("adamw", optim::adamw),
        ("norm_clip", optim::norm_clip),
        ("mars", mars::mars),
        ("ftp", anchor::ftp),
        ("spd", anchor::spd),
        ("l2_sp", anchor::l2_sp),
        ("lerp", anchor::lerp),
        ("peak", peak::peak),
    ]
}

/// Where the cases report to.
pub struct Suite<'a> {
    gpu: &'a Gpu,
    each: &'a mut dyn FnMut(&Outcome),
    outcomes: Vec<Outcome>,
}

impl std::fmt::Debug for Suite<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Suite({:?}, {} outcomes)", self.gpu, self.outcomes.len())
    }
}

impl Suite<'_> {
    fn finish(&mut self, case: Case) -> Result<()> {
        for outcome in case.finish()? {
            (self.each)(&outcome);
            self.outcomes.push(outcome);
        }
        Ok(())
    }
}

/// Runs the whole suite on `gpu`, calling `each` after every case. Errors only when the device fails; a wrong result is an
/// outcome that has not [passed](Outcome::passed).
pub fn run(gpu: &Gpu, each: &mut dyn FnMut(&Outcome)) -> Result<Vec<Outcome>> {
    let mut suite = Suite { gpu, each, outcomes: Vec::new() };
    for (_, stem) in stems() {
        stem(&mut suite)?;
    }
    Ok(suite.outcomes)
}

/// Runs the cases of the stem called `name`. Panics when there is none.
pub fn run_stem(gpu: &Gpu, name: &str, each: &mut dyn FnMut(&Outcome)) -> Result<Vec<Outcome>> {
    let found = stems().iter().find(|(stem, _)| *stem == name);
    let mut suite = Suite { gpu, each, outcomes: Vec::new() };
    found.unwrap_or_else(|| panic!("no stem {name}")).1(&mut suite)?;
    Ok(suite.outcomes)
}
