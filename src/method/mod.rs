//! Fine-tuning methods, each a file that reads like its definition: its flags, which defaults differ, which tensors are trained, what happens
//! around a step and after it, what it keeps on the device, records and saves. [`METHODS`] lists them; [`tpgm`] comes first.
//!
//! Below them lie [`learner`], the inner problem that all share (weights, gradient, optimiser), [`stage`], what of it is trained,
//! and [`memory`], what that takes. [`active`] is what a run does with its method. [`between`] and [`soups`] also make models of models
//! that are there already.

use std::fmt;

use toml::Table;

use crate::error::Result;
use crate::model::Model;

pub mod active;
pub mod args;
pub mod best;
pub mod between;
pub mod bitfit;
pub mod class_weights;
pub mod digrap;
pub mod distill;
pub mod ema;
pub mod fixed_radius;
pub mod ftp;
pub mod l2_sp;
pub mod learner;
pub mod linear_probe;
pub mod lines;
pub mod llrd;
pub mod lora;
pub mod lp_ft;
pub mod memory;
pub mod model_stock;
pub mod partial;
pub mod radius_record;
pub mod sam;
pub mod saved;
pub mod settings;
pub mod snapshot;
mod soup;
pub mod soups;
pub mod spd;
pub mod stage;
pub mod step_record;
pub mod targets;
mod teacher;
pub mod tpgm;
pub mod vanilla;
pub mod wise;

pub use active::{Active, Anchor, Held, Started};
pub use args::MethodArgs;
pub use best::best;
pub use between::Between;
pub use class_weights::ClassWeights;
pub use ema::Ema;
pub use ftp::{Ftp, FtpSettings};
pub use learner::{Around, Learner};
pub use memory::Memory;
pub use radius_record::{At, Learned, RadiusRecord};
pub use saved::Saved;
pub use settings::{BatchNorm, LossScaling, Optimizer, Settings};
pub use snapshot::Snapshot;
pub use stage::{Stage, Trained};
pub use step_record::StepRecord;
pub use targets::{LabelTargets, Targets};
pub use tpgm::{Schedule, Tpgm, TpgmSettings};

/// A method: add a file, its rule to [`METHODS`], and its flags, if it has any, to [`MethodArgs`].
pub trait Method: fmt::Debug + Sync {
    /// What `--method` calls it.
    fn name(&self) -> &'static str;

    /// The flags that act in its runs, beside those that act in all.
    fn flags(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether it acts in the run of another method, since a flag of its own asks for it.
    fn joins(&self, _args: &MethodArgs) -> bool {
        false
    }

    /// Refuses values of its own flags that are out of range, in whichever run.
    fn check(&self, _args: &MethodArgs) -> Result<()> {
        Ok(())
    }

    /// Refuses what its runs can't have.
    fn validate(&self, _args: &MethodArgs, _settings: &Settings) -> Result<()> {
        Ok(())
    }

    /// The defaults that differ in its runs, by their keys; `probe_lr` is the learning rate of a head that is trained alone.
    fn defaults(&self, _probe_lr: f64) -> Table {
        Table::new()
    }

    /// The defaults of its own flags that follow others, by their keys, in whichever run; `batch` is the training batch.
    fn following(&self, _args: &MethodArgs, _batch: usize) -> Table {
        Table::new()
    }

    /// What else would have to be given for `flag`, one of its own, to act in its run.
    fn idle(&self, _args: &MethodArgs, _flag: &str) -> Option<&'static str> {
        None
    }

    /// Whether `flag`, one of its own, leaves the training steps as they are: it sets what happens beside them, or after the last.
    fn is_beside_steps(&self, _args: &MethodArgs, _flag: &str) -> bool {
        false
    }

    /// Whether its runs have several [stages](Method::stages).
    fn has_stages(&self) -> bool {
        false
    }

    /// Whether nothing but the head is trained in its runs.
    fn trains_head_alone(&self) -> bool {
        false
    }

    /// Whether batch norm keeps its running statistics unless the user says otherwise: frozen layers stay as they were.
    fn freezes_batch_norm(&self) -> bool {
        false
    }

    /// Images of a validation batch that it learns from; none if it needs no validation images.
    fn val_batch(&self, _args: &MethodArgs) -> Option<usize> {
        None
    }

    /// Whether its runs take no steps, since the head is solved for before.
    fn solves(&self, _args: &MethodArgs) -> bool {
        false
    }

    /// The trained tensors, in stages that follow each other: `whole` in one, unless the method has it otherwise.
    fn stages(&self, _args: &MethodArgs, whole: Stage, _of: &Trained) -> Result<Vec<Stage>> {
        Ok(vec![whole])
    }

    /// Sentences about its runs, for whoever starts one.
    fn notes(&self, _args: &MethodArgs, _stages: &[Stage]) -> Vec<String> {
        Vec::new()
    }

    /// Bytes that [`Method::start`] allocates on the device, to be planned before: each method says so itself.
    fn bytes(&self, args: &MethodArgs, model: &Model) -> u64;

    /// What it asks of the learner before anything is recorded, near `anchor`.
    fn prepare(&self, _args: &MethodArgs, _learner: &mut Learner, _anchor: &Anchor) -> Result<()> {
        Ok(())
    }

    /// What it keeps on the device, and what it does around each step: for a run of `learner` near `anchor`.
    fn start(&self, _args: &MethodArgs, _learner: &Learner, _anchor: &Anchor) -> Result<Started> {
        Ok(Started::default())
    }
}

/// All methods, in the order in which those of one run act. The default is `tpgm`.
pub const METHODS: &[&dyn Method] = &[
    &lora::Rule,
    &vanilla::Rule,
    &linear_probe::Rule,
    &lp_ft::Rule,
    &bitfit::Rule,
    &partial::Rule,
    &llrd::Rule,
    &l2_sp::Rule,
    &distill::Rule,
    &sam::Rule,
    &fixed_radius::Rule,
    &tpgm::Rule,
    &ftp::Rule,
    &spd::Rule,
    &digrap::Rule,
    &ema::Rule,
    &wise::Rule,
    &lines::Rule,
];

/// The method called `name`.
pub fn named(name: &str) -> Option<&'static dyn Method> {
    METHODS.iter().copied().find(|method| method.name() == name)
}

/// Whether the method called `name` learns on validation images.
pub fn learns_on_val(name: &str) -> bool {
    named(name).is_some_and(|method| method.val_batch(&MethodArgs::default()).is_some())
}
