//! Host wrapper of `shaders/lerp.wgsl`.

use crate::error::Result;
use crate::gpu::{View, shaders};
use crate::ops::Recorder;
use crate::shapes::Segment;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    share: f32,
}

/// `out += share · (inp − out)` over these segments of the arenas.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, segments: &[Segment], share: f32) -> Result<()> {
    for s in segments {
        assert!(s.len.is_multiple_of(4), "lerp: a segment of {} elements, tensors of an arena are padded", s.len);
        let len = s.len / 4;
        let (constants, grid) = r.spread(len, 4);
        let kernel = r.kernel(&shaders::LERP, "forward", &constants)?;
        let [out, inp] = [out, inp].map(|arena| arena.slice(s.offset, s.len));
        r.push(&kernel, &[("out", &out), ("inp", &inp)], &Params { len: len as u32, share }, grid);
    }
    Ok(())
}
