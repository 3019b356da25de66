//! Host wrapper of `shaders/lerp.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::Recorder;
use crate::ops::variants::{LANES, Variants};
use crate::shapes::Segment;

static SHADER: Shader = shader!("lerp", FOLD);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    share: f32,
}

/// Every variant that [`forward`] records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).with("WG", LANES)]
}

/// `out += share · (inp − out)` over these segments of the arenas.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, segments: &[Segment], share: f32) -> Result<()> {
    let arenas = [("out", out), ("inp", inp)];
    r.push_segments((&SHADER, "forward", &[]), &arenas, &[], segments, |len| Params { len, share })
}
