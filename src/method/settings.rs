//! What a learner is set to: its optimiser and its precision.

use serde::{Deserialize, Serialize};

use crate::model::Precision;
use crate::ops::adamw::AdamW;
use crate::ops::loss_scale::INTERVAL;
use crate::ops::sgd::Sgd;

/// Steps between two readbacks of the losses.
pub const WINDOW: usize = 16;

/// The optimiser of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum Optimizer {
    /// `torch.optim.SGD`.
    Sgd(Sgd),
    /// `torch.optim.AdamW`.
    AdamW(AdamW),
}

impl Optimizer {
    /// Decays of the moments that it corrects for their start at zero; zeros where it corrects none.
    pub(super) fn betas(self) -> [f64; 2] {
        match self {
            Optimizer::Sgd(_) => [0.0; 2],
            Optimizer::AdamW(adamw) => [adamw.beta1, adamw.beta2],
        }
    }

    /// Its weight decay.
    pub fn weight_decay(self) -> f32 {
        match self {
            Optimizer::Sgd(sgd) => sgd.weight_decay,
            Optimizer::AdamW(adamw) => adamw.weight_decay,
        }
    }

    /// State arenas that it keeps.
    pub fn arenas(self) -> usize {
        match self {
            Optimizer::Sgd(sgd) => usize::from(sgd.momentum != 0.0),
            Optimizer::AdamW(_) => 2,
        }
    }
}

/// What batch norm does while a model is trained. Evaluation and radius batches always take the running statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchNorm {
    /// It normalises by the batch, and the running statistics move.
    #[default]
    Train,
    /// It normalises by the running statistics, which stay; its weight and bias are trained all the same.
    Frozen,
}

/// What does not change during a run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The optimiser.
    pub optimizer: Optimizer,
    /// Clip the global gradient norm to this; 0 for not at all.
    pub clip_norm: f32,
    /// Label smoothing of the training loss.
    pub smoothing: f32,
    /// Images that pass through the adapter at once; a larger batch, of training or of radii, is cut into several.
    pub micro_batch: usize,
    /// What batch norm does in training.
    pub batch_norm: BatchNorm,
    /// Keep only what enters each block, and compute the rest once more in backward.
    pub recompute: bool,
    /// f16 activations with this scaling of the loss; none for f32.
    pub half: Option<LossScaling>,
}

impl Settings {
    /// The format of the activations.
    pub fn precision(&self) -> Precision {
        if self.half.is_some() { Precision::F16 } else { Precision::F32 }
    }
}

/// How the scale of the loss's gradient starts and grows, so that f16 gradients neither underflow nor overflow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScaling {
    /// The scale of the first step, at least 1.
    pub start: f32,
    /// Good steps in a row after which it doubles; it is halved by every step that overflows, which is then skipped.
    pub interval: u32,
}

impl Default for LossScaling {
    fn default() -> Self {
        LossScaling { start: 65536.0, interval: INTERVAL }
    }
}
