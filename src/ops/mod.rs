//! Host wrappers of the shaders, one file per stem: shapes in, steps out. An op checks its tensors' lengths, picks the
//! kernel variant and the grid, and records dispatches; it computes nothing itself. The variants that it picks from are listed
//! beside it ([`variants`]).

mod agreement;
mod attention_dims;
mod attention_tails;
pub mod columns;
mod conv_classes;
mod conv_grouped;
mod elem;
mod epilogue;
mod grid;
pub mod product;
mod recorder;
pub mod self_check;
pub mod step_state;
pub mod trial;
pub mod tune;
pub mod variants;
pub mod words;

use crate::ops::grid::{CPU_LANES, ROWS_PER_CHUNK, WG, elementwise};
use crate::ops::recorder::{Len, check, flag, rows};
use crate::ops::variants::Variants;

pub use crate::ops::recorder::{MAX_FLOPS, Recorder, scratch_len};

macro_rules! modules {
    ($($stem:ident $({ $($what:ident: $reason:literal),* })?;)*) => {
        $(
            #[allow(missing_docs)] // each file has its own
            pub mod $stem;
        )*
        /// The ops, in the order of the list.
        pub const OPS: &[Op] = &[$(Op {
            name: stringify!($stem),
            variants: $stem::variants,
            reasons: &[$($((stringify!($what), $reason)),*)?],
        }),*];
    };
}
for_each_stem!(modules);

/// A stem's host wrapper.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// The stem.
    pub name: &'static str,
    /// Everything that it may ask of its shaders.
    pub variants: fn() -> Vec<Variants>,
    /// What it is not held against, `gradcheck` or `golden`, and why.
    pub reasons: &'static [(&'static str, &'static str)],
}
