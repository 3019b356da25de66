//! Host wrapper of `shaders/slice.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::Elem;
use crate::ops::variants::{FLAG, Variants};
use crate::ops::{Recorder, check, elementwise, flag};

pub use crate::cpu::slice::Dims;

static SHADER: Shader = shader!("slice", FOLD);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    pitch: u32,
    first: u32,
    count: u32,
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    let all = Variants::of(&SHADER).append(Elem::ALL.map(Elem::tail));
    vec![all.with_in(&["backward"], "ACCUMULATE", FLAG)]
}

/// Runs an entry over `cols` columns.
fn run(
    r: &mut Recorder,
    entry: &str,
    own: &[(&str, f64)],
    views: [(&str, &View); 2],
    cols: usize,
    dims: Dims,
) -> Result<()> {
    let Dims { rows, pitch, first, count } = dims;
    let widest = [pitch, first, count].into_iter().find(|n| !n.is_multiple_of(4)).unwrap_or(4);
    let elem = Elem::of(widest, views[0].1.element);
    let kernel = r.kernel_with(&SHADER, entry, own, &elem.tail())?;
    let [pitch, first, count, cols] = [pitch, first, count, cols].map(|n| n / elem.width);
    let params = Params { rows: rows as u32, pitch: pitch as u32, first: first as u32, count: count as u32 };
    r.push(&kernel, &views, &params, elementwise(rows * cols));
    Ok(())
}

/// `out` `[rows, count] = ` the columns from `first` on of `inp` `[rows, pitch]`; both f32 or both f16.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, dims: Dims) -> Result<()> {
    check("slice", "out", out, dims.part_len());
    check("slice", "inp", inp, dims.len());
    run(r, "forward", &[], [("out", out), ("inp", inp)], dims.count, dims)
}

/// `dinp` `[rows, pitch] = `, or `+= ` with `accumulate`, `dout` `[rows, count]` in these columns and zeros in the others.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, dims: Dims, accumulate: bool) -> Result<()> {
    check("slice::backward", "dinp", dinp, dims.len());
    check("slice::backward", "dout", dout, dims.part_len());
    let own = [("ACCUMULATE", flag(accumulate))];
    run(r, "backward", &own, [("dinp", dinp), ("dout", dout)], dims.pitch, dims)
}

/// These columns of `whole` `[rows, pitch] = part` `[rows, count]`; the others stay.
pub fn place(r: &mut Recorder, whole: &View, part: &View, dims: Dims) -> Result<()> {
    check("slice::place", "whole", whole, dims.len());
    check("slice::place", "part", part, dims.part_len());
    run(r, "place", &[], [("dinp", whole), ("dout", part)], dims.count, dims)
}
