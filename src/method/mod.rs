//! Fine-tuning methods, each written like its algorithm on paper: [`learner`] is the inner problem that all share
//! (weights, gradient, optimiser), [`tpgm`] the outer one (radii learned on validation data).

pub mod learner;
pub mod tpgm;

pub use learner::{BatchNorm, Learner, Optimizer, Settings, Snapshot};
pub use tpgm::{Schedule, Tpgm, TpgmSettings};
