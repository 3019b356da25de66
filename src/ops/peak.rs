//! Host wrapper of `shaders/peak.wgsl`: what `tpgm bench` holds everything else against.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::variants::{LANES, Variants};
use crate::ops::words::fours;
use crate::ops::{Recorder, WG, check};

static SHADER: Shader = shader!("peak", FOLD);

/// Rounds of a turn of the loop.
pub const ROUNDS: usize = 8;
/// Values that a lane works on.
const VALUES: usize = 3 * 4;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    loops: u32,
    a: f32,
    b: f32,
}

/// Floating-point operations of [`multiply_add`] over `len` elements: a multiply-add is two.
pub fn flop(len: usize, loops: usize) -> f64 {
    2.0 * (len / 4 * VALUES * ROUNDS) as f64 * loops as f64
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append([false, true].map(tail)).with_in(&["copy"], "WG", LANES)]
}

fn tail(wide: bool) -> String {
    fours(Element::Word, Element::Word, wide)
}

/// `out = ` the sum of three values, begun at `inp`, after `loops` times [`ROUNDS`] multiply-adds `x ← a·x + b`. Both are
/// as long, a multiple of 4.
pub fn multiply_add(r: &mut Recorder, out: &View, inp: &View, loops: usize, a: f32, b: f32) -> Result<()> {
    check("peak::multiply_add", "out", out, inp.len);
    assert!(inp.len.is_multiple_of(4), "peak::multiply_add: {} elements", inp.len);
    let lanes = inp.len / 4;
    let kernel = r.kernel_with(&SHADER, "multiply_add", &[], &tail(false))?;
    let params = Params { len: lanes as u32, loops: loops as u32, a, b };
    r.push(&kernel, &[("out", out), ("inp", inp)], &params, fold(lanes.div_ceil(WG)));
    Ok(())
}

/// `out = inp`, as long, a multiple of 4, in the way in which this adapter's kernels read and write fastest.
pub fn copy(r: &mut Recorder, out: &View, inp: &View) -> Result<()> {
    check("peak::copy", "out", out, inp.len);
    assert!(inp.len.is_multiple_of(4), "peak::copy: {} elements", inp.len);
    let tail = tail(r.for_cpu && r.wide_words);
    let params = |len| Params { len, loops: 0, a: 0.0, b: 0.0 };
    r.push_spread((&SHADER, "copy", &[], &tail), &[("copied", out), ("whole", inp)], inp.len, 4, params)
}
