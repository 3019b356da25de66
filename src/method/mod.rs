//! Fine-tuning methods, each written like its algorithm on paper: [`learner`] is the inner problem that all share
//! (weights, gradient, optimiser), [`tpgm`] the outer one (radii learned on validation data), [`memory`] what they take.

pub mod learner;
pub mod memory;
pub mod tpgm;

pub use learner::{BatchNorm, Learner, Optimizer, Settings, Snapshot};
pub use memory::Memory;
pub use tpgm::{Schedule, Tpgm, TpgmSettings};
