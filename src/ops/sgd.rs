//! Host wrapper of `shaders/sgd.wgsl`.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::gpu::{View, shaders};
use crate::ops::Recorder;
use crate::shapes::Segment;

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
    for s in segments {
        assert!(s.len.is_multiple_of(4), "sgd: a segment of {} elements, tensors of an arena are padded", s.len);
        let len = s.len / 4;
        let ([lanes, per_lane], grid) = r.spread(len, 4);
        let constants = [lanes, per_lane, ("NESTEROV", f64::from(u8::from(sgd.nesterov)))];
        let kernel = r.kernel(&shaders::SGD, entry, &constants)?;
        let params = Params { len: len as u32, momentum: sgd.momentum, weight_decay: sgd.weight_decay, rate };
        let [w, dw] = [w, dw].map(|arena| arena.slice(s.offset, s.len));
        let m = m.map(|m| m.slice(s.offset, s.len));
        let mut views = vec![("w", &w), ("dw", &dw), ("step", step), ("health", health)];
        views.extend(m.as_ref().map(|m| ("m", m)));
        r.push(&kernel, &views, &params, grid);
    }
    Ok(())
}
