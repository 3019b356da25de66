//! A step's figures as they come back from the device.

use crate::method::settings::WINDOW;
use crate::ops::cross_entropy::{CHANNELS, Channel};

/// One step's figures, read back from the ring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRecord {
    /// Counted from 0.
    pub step: u64,
    /// Mean loss over the batch, before the step.
    pub loss: f32,
    /// Global norm of the gradient, before clipping.
    pub grad_norm: f32,
    /// In f16, what the loss's gradient was multiplied by, and whether the step was skipped since that overflowed.
    pub scale: Option<(f32, bool)>,
}

impl StepRecord {
    pub(super) fn new(step: u64, ring: &[f32]) -> StepRecord {
        let at = (step % WINDOW as u64) as usize * CHANNELS;
        let scale = ring[at + Channel::Scale as usize];
        StepRecord {
            step,
            loss: ring[at + Channel::Train as usize],
            grad_norm: ring[at + Channel::GradNorm as usize],
            scale: (scale != 0.0).then(|| (scale.abs(), scale < 0.0)),
        }
    }

    /// Whether the step went wrong for good. One that overflowed f16 is only skipped.
    pub fn is_bad(&self) -> bool {
        let skipped = self.scale.is_some_and(|(_, skipped)| skipped);
        !(self.loss.is_finite() && (self.grad_norm.is_finite() || skipped))
    }
}
