//! Robust fine-tuning of vision models on any GPU: the trainable projected gradient method (TPGM, Tian et al., CVPR 2023)
//! in hand-written WGSL compute shaders on wgpu.
//!
//! A tour in reading order, from the method down to the metal and up again:
//!
//! 1. [`method`]: the algorithm. [`method::tpgm`] has it on its first page: an inner optimiser step on a training batch, an
//!    outer step on the radii with a validation batch, a projection.
//! 2. [`model`]: a vision transformer or a ResNet is its forward pass, written on a tape; parameters, memory and the reverse
//!    follow from it, and both passes are recorded against an arena of weights.
//! 3. [`ops`]: one file per stem, the host's side of a shader: shapes in, dispatches out. `shaders/` has the WGSL under
//!    the same names, and [`cpu`] the naive reference that each is held against.
//! 4. [`gpu`]: adapters, kernels that describe themselves, and the program that is recorded once and replayed.
//! 5. [`checkpoint`] and [`data`]: safetensors in and out, images to batches.
//! 6. [`train`]: the loop, schedules, evaluation, the run directory; [`report`] makes a page of it.
//! 7. [`compare`]: methods, seeds and data sets side by side, and which grid point to take.
//! 8. `suite`: every kernel against its reference, on whatever adapter there is, and `bench`: how fast it is there.
//! 9. `cli` puts it all on a command line.
//!
//! A program that names what a model sees; `examples/` has it in full, and one that fine-tunes:
//!
//! ```
//! use tpgm::prelude::*;
//!
//! # fn main() -> Result<()> {
//! let source = Source::open("assets/vit-emoji.safetensors".as_ref(), &Overrides::default())?;
//! let gpu = Gpu::open(None, false)?;
//! let mut predictor = Predictor::new(&gpu, source.model(), &source.snapshot(), 1)?;
//! let image = decode("assets/google/test/building/1f3d5-fe0f.png")?;
//! let logits = predictor.logits(&source.recognised.preprocess.apply(&image), 1)?;
//! assert_eq!(logits.len(), source.classes()?.len());
//! # Ok(())
//! # }
//! ```
//!
//! Imports run one way, from `cli` down to [`error`]: ARCHITECTURE.md has the floors, and a test holds them.
#![warn(missing_docs, unreachable_pub)]

#[macro_use]
mod stems;

pub mod atomic;
#[doc(hidden)]
pub mod bench;
pub mod checkpoint;
#[doc(hidden)]
pub mod cli;
pub mod compare;
pub mod cpu;
pub mod csv_text;
pub mod data;
pub mod error;
pub mod export;
pub mod flag;
pub mod gpu;
pub mod method;
pub mod model;
pub mod ops;
pub mod prelude;
pub mod random;
pub mod ranks;
pub mod report;
pub mod shapes;
pub mod stop;
#[doc(hidden)]
pub mod suite;
pub mod text;
pub mod tfevents;
pub mod train;
pub mod version;

pub use error::{Error, Result};
