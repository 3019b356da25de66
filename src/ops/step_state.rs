//! What changes from step to step, written by the host before each one: `Step` of `shaders/lib/step.wgsl`.

/// The values, as the device reads them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct StepState {
    /// Learning rate.
    pub lr: f32,
    /// 1 − β₁ᵗ of AdamW.
    pub bias_correction1: f32,
    /// √(1 − β₂ᵗ) of AdamW.
    pub bias_correction2_sqrt: f32,
    /// Counted from 1.
    pub step: u32,
    /// Where this step's figures go in the ring and the log.
    pub slot: u32,
    /// 1 at the first step of a stage: the momentum buffer starts as the gradient.
    pub first: u32,
    /// Micro-batch of the step, counted from 0.
    pub micro: u32,
}

/// Words of a [`StepState`].
pub const STATE_WORDS: usize = size_of::<StepState>() / 4;

impl StepState {
    /// Its words in a buffer.
    pub fn words(self) -> [u32; STATE_WORDS] {
        bytemuck::cast(self)
    }
}
