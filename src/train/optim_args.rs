//! Flags of the optimisation: how long, how fast, and how each batch is treated.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::flag::{in_range, positive, word};
use crate::method::{BatchNorm, Optimizer, Stage};
use crate::ops::adamw::AdamW;
use crate::ops::sgd::Sgd;
use crate::train::schedule::{LearningRate, LrSchedule, Warmup};

/// Which optimiser updates the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Stochastic gradient descent.
    Sgd,
    /// Adam with decoupled weight decay.
    AdamW,
}

/// Where the defaults of the optimisation come from. A value that the user gives is never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// The model's family and size.
    Auto,
    /// The paper's for ViTs: AdamW, and the radii are learned once, after fine-tuning.
    PaperVit,
    /// The paper's for ResNets: SGD, a cosine per epoch, and a radius step beside each step.
    PaperResnet,
    /// The paper's for CLIP's ViTs: [`Recipe::PaperVit`] from the zero-shot head, which has radii, too.
    PaperClipVit,
    /// [`Recipe::PaperResnet`] for CLIP's ResNets, from the zero-shot head.
    PaperClipResnet,
}

/// How the weights are trained. Some defaults follow the model, the method and the optimiser: see [`super::resolve`].
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OptimArgs {
    /// Where defaults come from: auto (the model's family and size), paper-vit (TPGM's paper: AdamW, radii once, after
    /// fine-tuning), paper-resnet (SGD without warm-up and clipping, a radius step beside each step), paper-clip-vit or
    /// paper-clip-resnet (the same from a zero-shot head)
    #[arg(long, value_name = "RECIPE", default_value = "auto", value_parser = word::<Recipe>)]
    pub recipe: Recipe,
    /// Passes over the training images
    #[arg(long, value_name = "N", default_value = "10", conflicts_with = "steps")]
    pub epochs: Option<u64>,
    /// Steps, instead of epochs
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Images of a step
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub batch_size: usize,
    /// sgd or adamw [default: adamw for ViTs of at least 3 million parameters and with --method spd, else sgd]
    #[arg(long, default_value = "sgd", hide_default_value = true, value_parser = word::<OptimizerName>)]
    pub optimizer: OptimizerName,
    /// Learning rate [default: 0.01 with sgd; with adamw 0.0001, 0.001 below 3 million parameters, 0.00003 from 150 million on; for
    /// --method linear-probe 0.1 and 0.01]
    #[arg(long, alias = "learning-rate", default_value_t = 1e-2, hide_default_value = true)]
    pub lr: f64,
    /// Momentum of sgd
    #[arg(long, default_value_t = 0.9)]
    pub momentum: f32,
    /// Nesterov momentum: true or false; false if the momentum is 0
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", default_value_t = true,
        action = clap::ArgAction::Set)]
    pub nesterov: bool,
    /// Weight decay; 0.05 with adamw, 0 with --method ftp, and 1 with --method spd, for which it is the strength of the pull
    /// toward the pre-trained weights
    #[arg(long, default_value_t = 5e-4)]
    pub weight_decay: f32,
    /// constant, cosine, cosine-epoch or linear
    #[arg(long, default_value = "cosine", value_parser = word::<LrSchedule>)]
    pub lr_schedule: LrSchedule,
    /// Steps over which the learning rate rises, or a share of the steps; 0 with a recipe of the paper
    #[arg(long, value_name = "N|SHARE%", default_value = "10%")]
    pub warmup_steps: Warmup,
    /// Clip the global gradient norm to this; 0 for not at all, as with a recipe of the paper
    #[arg(long, value_name = "NORM", default_value_t = 1.0)]
    pub clip_norm: f32,
    /// Label smoothing of the training loss
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub label_smoothing: f32,
    /// With f16, the first factor on the gradient of the loss, so that small values survive; halved when it overflows,
    /// doubled after 2000 steps without overflow [default: 65536]
    #[arg(long, value_name = "SCALE")]
    pub loss_scale: Option<f32>,
    /// What batch norm does in training: train (the batch's statistics, and the running ones move) or frozen (the running
    /// ones, which stay); frozen with linear-probe, bitfit and partial
    #[arg(long, default_value = "train", value_parser = word::<BatchNorm>)]
    pub bn: BatchNorm,
    /// On several ranks (mpirun), let batch norm take its statistics over the images of all of them, instead of each rank's own part
    /// of the batch; alone it changes nothing
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", default_value_t = false,
        action = clap::ArgAction::Set)]
    pub sync_bn: bool,
}

impl OptimArgs {
    /// The learning rate of each step of a run with these stages.
    pub(super) fn rates(&self, stages: &[Stage], steps: u64, epoch_steps: u64) -> LearningRate {
        LearningRate {
            stages: stages.iter().map(|stage| (stage.since, stage.lr.unwrap_or(self.lr))).collect(),
            schedule: self.lr_schedule,
            warmup: self.warmup_steps,
            steps,
            epoch_steps,
        }
    }

    /// The optimiser with its hyperparameters.
    pub fn optimizer(&self) -> Optimizer {
        let OptimArgs { momentum, nesterov, weight_decay, .. } = *self;
        match self.optimizer {
            OptimizerName::Sgd => Optimizer::Sgd(Sgd { momentum, nesterov, weight_decay }),
            OptimizerName::AdamW => Optimizer::AdamW(AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay }),
        }
    }

    /// # Errors
    /// [`Error::Usage`] naming the value that is out of range.
    pub(super) fn validate(&self) -> Result<()> {
        positive("batch-size", self.batch_size > 0)?;
        positive("steps", self.steps != Some(0))?;
        positive("epochs", self.epochs != Some(0))?;
        positive("lr", self.lr > 0.0 && self.lr.is_finite())?;
        in_range("momentum", self.momentum, |m| (0.0..1.0).contains(&m), "at least 0 and below 1")?;
        in_range("weight-decay", self.weight_decay, |d| d >= 0.0 && d.is_finite(), "at least 0")?;
        in_range("clip-norm", self.clip_norm, |c| c >= 0.0 && c.is_finite(), "at least 0")?;
        in_range("label-smoothing", self.label_smoothing, |s| (0.0..1.0).contains(&s), "at least 0 and below 1")?;
        in_range("loss-scale", self.loss_scale, |s: f32| (1.0..=16_777_216.0).contains(&s), "1 to 16777216")?;
        if self.optimizer == OptimizerName::Sgd && self.nesterov && self.momentum == 0.0 {
            return Err(Error::Usage("--nesterov needs a --momentum above 0".into()));
        }
        Ok(())
    }
}
