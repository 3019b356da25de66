//! Host wrapper of `shaders/adamw.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::Recorder;
use crate::ops::variants::{LANES, Variants};
use crate::shapes::Segment;

static SHADER: Shader = shader!("adamw", FOLD, STEP);

/// Hyperparameters, as in `torch.optim.AdamW`; the learning rate comes with every step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    weight_decay: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    rate: f32,
}

/// Every variant that [`step()`] records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).with("WG", LANES)]
}

/// One step on the arena `w` with gradient `dw`; `m` and `v` are the moments. `step` and `health` as in the shader.
pub fn step(
    r: &mut Recorder,
    w: &View,
    m: &View,
    v: &View,
    dw: &View,
    step: &View,
    health: &View,
    segments: &[Segment],
    adamw: AdamW,
) -> Result<()> {
    step_at(r, w, m, v, dw, step, health, segments, adamw, 1.0)
}

/// As [`step()`], with `rate` times the learning rate.
pub fn step_at(
    r: &mut Recorder,
    w: &View,
    m: &View,
    v: &View,
    dw: &View,
    step: &View,
    health: &View,
    segments: &[Segment],
    adamw: AdamW,
    rate: f32,
) -> Result<()> {
    let params = |len| Params {
        len,
        beta1: adamw.beta1 as f32,
        beta2: adamw.beta2 as f32,
        eps: adamw.eps,
        weight_decay: adamw.weight_decay,
        // From f64: 1 − 0.999 in f32 is off by 1e-5, and PyTorch takes the difference in double.
        one_minus_beta1: (1.0 - adamw.beta1) as f32,
        one_minus_beta2: (1.0 - adamw.beta2) as f32,
        rate,
    };
    let arenas = [("w", w), ("m", m), ("v", v), ("dw", dw)];
    r.push_segments((&SHADER, "forward", &[]), &arenas, &[("step", step), ("health", health)], segments, params)
}
