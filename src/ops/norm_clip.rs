//! Host wrapper of `shaders/norm_clip.wgsl`.

use crate::error::Result;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Recorder, check};
use crate::shapes::Segment;

static SHADER: Shader = shader!("norm_clip", REDUCE, FOLD, STEP);

/// Elements of the gradient that one workgroup squares and adds: `CHUNK` of the shader.
const CHUNK: usize = 16384;

/// Elements of the `health` buffer: the clipping scale, and the first bad step.
pub const HEALTH_LEN: usize = 2;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    first: u32,
    max_norm: f32,
}

/// Partial sums that an arena of these segments needs.
pub fn partials_len(segments: &[Segment]) -> usize {
    segments.iter().map(|s| s.len.div_ceil(CHUNK)).sum()
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).with("WG", LANES)]
}

/// `health = ` the clipping scale for `max_norm` (0: none) and whether loss and gradient of this step are finite;
/// `ring[step.slot][1] = ` the global norm of `dw`. `partials` is scratch.
pub fn forward(
    r: &mut Recorder,
    health: &View,
    ring: &View,
    dw: &View,
    step: &View,
    partials: &View,
    segments: &[Segment],
    max_norm: f32,
) -> Result<()> {
    check("norm_clip", "health", health, HEALTH_LEN);
    let len = squares(r, dw, partials, segments)?;
    let clip = r.kernel(&SHADER, "clip", &[("WG", r.reduce_lanes() as f64)])?;
    let views = [("sums", partials), ("step", step), ("ring", ring), ("health", health)];
    r.push(&clip, &views, &Params { len, first: 0, max_norm }, [1, 1, 1]);
    Ok(())
}

/// `partials = ` sums that come to the squared norm of these segments of `dw`, and how many there are.
pub(super) fn squares(r: &mut Recorder, dw: &View, partials: &View, segments: &[Segment]) -> Result<u32> {
    check("norm_clip", "partials", partials, partials_len(segments));
    let squares = r.kernel(&SHADER, "squares", &[("WG", r.reduce_lanes() as f64)])?;
    let mut first = 0;
    for segment in segments {
        let groups = segment.len.div_ceil(CHUNK);
        assert!(segment.len.is_multiple_of(4), "norm_clip: a segment of {} elements", segment.len);
        let params = Params { len: segment.len as u32 / 4, first, max_norm: 0.0 };
        let part = dw.slice(segment.offset, segment.len);
        r.push(&squares, &[("dw", &part), ("partials", partials)], &params, fold(groups));
        first += groups as u32;
    }
    Ok(first)
}
