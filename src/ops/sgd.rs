//! Host wrapper of `shaders/sgd.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::{Recorder, flag};
use crate::shapes::Segment;

static SHADER: Shader = shader!("sgd", FOLD, STEP);

/// Hyperparameters, as in `torch.optim.SGD`; the learning rate comes with every step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sgd {
    /// Momentum, 0 for none.
    pub momentum: f32,
    /// Nesterov's variant.
    pub nesterov: bool,
    /// L2 penalty added to the gradient.
    pub weight_decay: f32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    momentum: f32,
    weight_decay: f32,
    rate: f32,
}

/// Every variant that [`step()`] records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).with("WG", LANES).with("NESTEROV", FLAG)]
}

/// One step on the arena `w` with gradient `dw`; `m` is the momentum buffer, there if the momentum is not 0. `step` and
/// `health` as in the shader.
pub fn step(
    r: &mut Recorder,
    w: &View,
    m: Option<&View>,
    dw: &View,
    step: &View,
    health: &View,
    segments: &[Segment],
    sgd: Sgd,
) -> Result<()> {
    step_at(r, w, m, dw, step, health, segments, sgd, 1.0)
}

/// As [`step()`], with `rate` times the learning rate.
pub fn step_at(
    r: &mut Recorder,
    w: &View,
    m: Option<&View>,
    dw: &View,
    step: &View,
    health: &View,
    segments: &[Segment],
    sgd: Sgd,
    rate: f32,
) -> Result<()> {
    assert_eq!(m.is_some(), sgd.momentum != 0.0, "sgd: a momentum buffer goes with a momentum");
    let entry = if m.is_some() { "forward" } else { "plain" };
    let own = [("NESTEROV", flag(sgd.nesterov))];
    let params = |len| Params { len, momentum: sgd.momentum, weight_decay: sgd.weight_decay, rate };
    let mut arenas = vec![("w", w), ("dw", dw)];
    arenas.extend(m.map(|m| ("m", m)));
    r.push_segments((&SHADER, entry, &own), &arenas, &[("step", step), ("health", health)], segments, params)
}
