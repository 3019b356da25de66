//! Host wrapper of `shaders/l2_sp.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::{Recorder, flag};
use crate::shapes::Segment;

static SHADER: Shader = shader!("l2_sp", FOLD);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    lambda: f32,
}

/// Every variant that [`backward`] records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).with("WG", LANES).with("SCALED", FLAG)]
}

/// `dw += lambda · (w − w0)` over these segments of the arenas, times the first value of a loss scale that `dw` is
/// multiplied by.
pub fn backward(
    r: &mut Recorder,
    dw: &View,
    w: &View,
    w0: &View,
    scale: Option<&View>,
    segments: &[Segment],
    lambda: f32,
) -> Result<()> {
    let own = [("SCALED", flag(scale.is_some()))];
    // Never read without a scale.
    let unread = w.first(1);
    let whole = [("loss_scale", scale.unwrap_or(&unread))];
    let arenas = [("dw", dw), ("w", w), ("w0", w0)];
    r.push_segments((&SHADER, "backward", &own), &arenas, &whole, segments, |len| Params { len, lambda })
}
