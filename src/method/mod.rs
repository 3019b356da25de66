//! Fine-tuning methods, each a file that reads like its definition. [`learner`] is the inner problem that all share (weights,
//! gradient, optimiser), [`tpgm`] the outer one (radii learned on validation data). The others are of two kinds: those that
//! choose what is trained, and how fast, are a [`Stage`]; those that do something in every step are [`Around`] it.
//! [`memory`] is what a run takes; [`wise`] and [`soups`] make models of models that are there already.

pub mod bitfit;
pub mod ema;
pub mod fixed_radius;
pub mod ftp;
pub mod l2_sp;
pub mod learner;
pub mod linear_probe;
pub mod llrd;
pub mod lp_ft;
pub mod memory;
pub mod partial;
pub mod radius_record;
pub mod settings;
pub mod snapshot;
pub mod soups;
pub mod spd;
pub mod stage;
pub mod step_record;
pub mod tpgm;
pub mod wise;

pub use ema::Ema;
pub use ftp::{Ftp, FtpSettings};
pub use learner::{Around, Learner};
pub use memory::Memory;
pub use radius_record::RadiusRecord;
pub use settings::{BatchNorm, LossScaling, Optimizer, Settings};
pub use snapshot::Snapshot;
pub use stage::Stage;
pub use step_record::StepRecord;
pub use tpgm::{Schedule, Tpgm, TpgmSettings};
