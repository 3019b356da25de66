//! Fine-tuning methods, each written like its algorithm on paper: [`learner`] is the inner problem that all share
//! (weights, gradient, optimiser), [`tpgm`] the outer one (radii learned on validation data), [`memory`] what they take.
//! [`wise`] and [`soups`] make models of models that are there already.

pub mod learner;
pub mod memory;
pub mod settings;
pub mod soups;
pub mod tpgm;
pub mod wise;

pub use learner::{Learner, Snapshot};
pub use memory::Memory;
pub use settings::{BatchNorm, LossScaling, Optimizer, Settings};
pub use tpgm::{Schedule, Tpgm, TpgmSettings};
