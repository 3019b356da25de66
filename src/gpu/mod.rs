//! The GPU layer: an adapter is opened once ([`Gpu`]), shaders become cached [`Kernel`]s, and a model is recorded as a
//! [`Program`] of steps that is replayed for every batch.
//!
//! Reading order: [`adapters`] (which there are), [`device`] (an open one, and its limits), [`shaders`] (the WGSL files), [`kernel`]
//! (pipelines and what they bind, by name), [`buffer`] (buffers and views), [`program`] (record, check, replay), [`pace`] (how much is
//! submitted at once), [`readback`] (numbers back without stalling), [`profile`] (one timestamp per step), [`tiles`] (ways to compute
//! a product), [`tune`] (which of them are fastest here).
//!
//! [`Gpu`] knows what it holds, and what acts on a device is beside it in files of its own: buffers, kernels, submissions and
//! choices are each an `impl Gpu` there.

pub mod adapters;
mod arena;
pub mod buffer;
pub mod cache;
mod compile;
pub mod device;
pub mod kernel;
mod matrices;
mod memory;
pub mod pace;
pub mod profile;
pub mod program;
pub mod readback;
pub mod shaders;
mod submit;
pub mod tiles;
pub mod tune;

pub use adapters::AdapterEntry;
pub use buffer::{Buffer, View};
pub use device::Gpu;
pub use kernel::Kernel;
pub use program::{Params, Program};
