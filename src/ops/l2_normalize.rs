//! Host wrapper of `shaders/l2_normalize.wgsl`.

use crate::error::Result;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Recorder, check};

static SHADER: Shader = shader!("l2_normalize", REDUCE, FOLD);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
}

fn run(r: &mut Recorder, entry: &str, views: &[(&str, &View)], rows: usize, cols: usize) -> Result<()> {
    let kernel = r.kernel(&SHADER, entry, &[("WG", r.reduce_lanes() as f64)])?;
    r.push(&kernel, views, &Params { rows: rows as u32, cols: cols as u32 }, fold(rows));
    Ok(())
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).with("WG", LANES)]
}

/// `out = inp / ‖inp‖` over rows; saves `scale` (`[rows]`), the inverse norms, for backward.
pub fn forward(r: &mut Recorder, out: &View, scale: &View, inp: &View, rows: usize, cols: usize) -> Result<()> {
    for (name, view, len) in [("out", out, rows * cols), ("scale", scale, rows), ("inp", inp, rows * cols)] {
        check("l2_normalize", name, view, len);
    }
    run(r, "forward", &[("inp", inp), ("out", out), ("scale", scale)], rows, cols)
}

/// `dinp = ` from `dout`, with `out` and `scale` of forward.
pub fn backward(
    r: &mut Recorder,
    dinp: &View,
    dout: &View,
    out: &View,
    scale: &View,
    rows: usize,
    cols: usize,
) -> Result<()> {
    for (name, view) in [("dinp", dinp), ("dout", dout), ("out", out)] {
        check("l2_normalize::backward", name, view, rows * cols);
    }
    check("l2_normalize::backward", "scale", scale, rows);
    run(r, "backward", &[("dinp", dinp), ("dout", dout), ("saved_out", out), ("saved_scale", scale)], rows, cols)
}
