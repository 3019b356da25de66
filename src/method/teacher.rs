//! What a learner keeps of the model that its own is held near.

use crate::gpu::View;

/// A teacher's values on the device, and how much its loss counts.
#[derive(Debug)]
pub(super) struct Teacher {
    pub(super) w: View,
    pub(super) stats: View,
    pub(super) weight: f32,
    pub(super) temperature: f32,
}
