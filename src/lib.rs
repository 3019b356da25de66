//! Robust fine-tuning of vision models on any GPU: the trainable projected gradient method (Tian et al., CVPR 2023) in
//! hand-written WGSL compute shaders.
#![warn(missing_docs, unreachable_pub)]

pub mod checkpoint;
pub mod cli;
pub mod cpu;
pub mod data;
pub mod error;
pub mod gpu;
pub mod method;
pub mod model;
pub mod ops;
pub mod report;
pub mod suite;
pub mod train;

pub use error::{Error, Result};
