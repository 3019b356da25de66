//! Host wrapper of `shaders/l2_sp.wgsl`.

use crate::error::Result;
use crate::gpu::{View, shaders};
use crate::ops::Recorder;
use crate::shapes::Segment;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    lambda: f32,
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
    for s in segments {
        assert!(s.len.is_multiple_of(4), "l2_sp: a segment of {} elements, tensors of an arena are padded", s.len);
        let len = s.len / 4;
        let ([lanes, per_lane], grid) = r.spread(len, 4);
        let constants = [lanes, per_lane, ("SCALED", f64::from(u8::from(scale.is_some())))];
        let kernel = r.kernel(&shaders::L2_SP, "backward", &constants)?;
        let [dw, w, w0] = [dw, w, w0].map(|arena| arena.slice(s.offset, s.len));
        // Never read without a scale.
        let views = [("dw", &dw), ("w", &w), ("w0", &w0), ("loss_scale", scale.unwrap_or(&w))];
        r.push(&kernel, &views, &Params { len: len as u32, lambda }, grid);
    }
    Ok(())
}
