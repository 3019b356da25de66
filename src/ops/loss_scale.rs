//! Host wrapper of `shaders/loss_scale.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::mars::LOG_WORDS;
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Recorder, check};

static SHADER: Shader = shader!("loss_scale", REDUCE, STEP);

/// Words of the scale's state: value, steps since it changed, whether the last step was skipped, and Adam's two bias
/// corrections.
pub const SCALE_WORDS: usize = 5;

/// Good steps in a row after which the scale doubles, as in PyTorch's `GradScaler`.
pub const INTERVAL: u32 = 2000;

/// The settings of [`settle`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settle {
    /// Decays of the optimiser's moments; zeros for one without bias correction.
    pub betas: [f64; 2],
    /// Clip the global gradient norm to this; 0 for not at all.
    pub max_norm: f32,
    /// Good steps in a row after which the scale doubles.
    pub interval: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    max_norm: f32,
    interval: u32,
    tensors: u32,
}

/// The state of a scale before the first step.
pub fn start(scale: f32) -> [u32; SCALE_WORDS] {
    [scale.to_bits(), 0, 0, 0, 0]
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).with("WG", LANES)]
}

/// After [`crate::ops::norm_clip::forward`] on scaled gradients: takes the scale out of the norm in `ring` and puts it into
/// `health`; skips a step whose gradient overflows; moves the scale.
pub fn settle(r: &mut Recorder, scale: &View, ring: &View, health: &View, step: &View, by: Settle) -> Result<()> {
    check("loss_scale", "scale", scale, SCALE_WORDS);
    let [beta1, beta2] = by.betas;
    let params = Params {
        beta1: beta1 as f32,
        beta2: beta2 as f32,
        // From f64, as for AdamW itself.
        one_minus_beta1: (1.0 - beta1) as f32,
        one_minus_beta2: (1.0 - beta2) as f32,
        max_norm: by.max_norm,
        interval: by.interval,
        tensors: 0,
    };
    let kernel = r.kernel(&SHADER, "settle", &[])?;
    let views = [("scale", scale), ("ring", ring), ("health", health), ("step", step)];
    r.push(&kernel, &views, &params, [1, 1, 1]);
    Ok(())
}

/// After [`crate::ops::mars::Mars::step`]: halves the scale where a radius gradient of `log`'s entry at `state.slot` is not
/// finite.
pub fn observe(r: &mut Recorder, scale: &View, log: &View, state: &View, tensors: usize) -> Result<()> {
    check("loss_scale::observe", "scale", scale, SCALE_WORDS);
    assert!(log.len.is_multiple_of(tensors * LOG_WORDS), "loss_scale::observe: log of {} words", log.len);
    let kernel = r.kernel(&SHADER, "observe", &[("WG", r.reduce_lanes() as f64)])?;
    let params = Params { tensors: tensors as u32, ..Params::default() };
    r.push(&kernel, &[("scale", scale), ("log", log), ("state", state)], &params, [1, 1, 1]);
    Ok(())
}
