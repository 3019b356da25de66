//! A radius's figures as they come back from the device.

use crate::ops::mars::LOG_WORDS;

/// When something was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At this step, counted from 0.
    Step(u64),
    /// At this iteration after the last step, counted from 0.
    Iteration(u64),
}

/// What a method has learned at one step, or in one iteration after the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// When.
    pub at: At,
    /// Mean loss over the validation batch that it was learned from; none if there was none.
    pub loss: Option<f32>,
    /// One for each tensor that has a radius, in layout order.
    pub radii: Vec<RadiusRecord>,
}

/// A tensor's radius after it was learned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RadiusRecord {
    /// γ right after its Adam step.
    pub radius: f32,
    /// The largest row norm of the drift when it was learned.
    pub max_norm: f32,
    /// Rows that the radius held back, those that gave to TPGM's gradient.
    pub active_rows: u32,
    /// ∂L/∂γ.
    pub gradient: f32,
}

impl RadiusRecord {
    /// Those of the tensors `projected` in one slot of a log `[slots, tensors, LOG_WORDS]`.
    pub(super) fn of_slot(log: &[u32], slot: usize, tensors: usize, projected: &[usize]) -> Vec<RadiusRecord> {
        let record = |t: &usize| {
            let at = (slot * tensors + t) * LOG_WORDS;
            RadiusRecord {
                radius: f32::from_bits(log[at]),
                max_norm: f32::from_bits(log[at + 1]),
                active_rows: log[at + 2],
                gradient: f32::from_bits(log[at + 3]),
            }
        };
        projected.iter().map(record).collect()
    }
}
