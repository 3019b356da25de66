//! Host wrapper of `shaders/standardize.wgsl`.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::elem::{FORMATS, stored};
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Recorder, check};

static SHADER: Shader = shader!("standardize", REDUCE, FOLD);

/// Shape of a weight, and how it is standardised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dims {
    /// Rows: output channels.
    pub rows: usize,
    /// Columns: weights of each.
    pub cols: usize,
    /// Added to the variance.
    pub eps: f32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    eps: f32,
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(FORMATS.map(stored)).with("WG", LANES)]
}

fn run(
    r: &mut Recorder,
    entry: &str,
    views: &[(&str, &View)],
    element: Element,
    workgroups: Option<usize>,
    dims: Dims,
) -> Result<()> {
    let Dims { rows, cols, eps } = dims;
    let lanes = r.reduce_lanes();
    let kernel = r.kernel_with(&SHADER, entry, &[("WG", lanes as f64)], &stored(element))?;
    let params = Params { rows: rows as u32, cols: cols as u32, eps };
    r.push(&kernel, views, &params, fold(workgroups.unwrap_or((rows * cols).div_ceil(lanes))));
    Ok(())
}

/// `out = ` the rows of `inp`, each with a mean of 0 and a variance of 1: both `[rows, cols]`, `out` of f32 or f16.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, dims: Dims) -> Result<()> {
    check("standardize", "out", out, dims.rows * dims.cols);
    check("standardize", "inp", inp, dims.rows * dims.cols);
    run(r, "forward", &[("out", out), ("inp", inp)], out.element, Some(dims.rows), dims)
}

/// `dout` `[rows, cols] = 0`, to which a convolution adds the gradient of what [`forward`] wrote.
pub fn clear(r: &mut Recorder, dout: &View, dims: Dims) -> Result<()> {
    check("standardize::clear", "dout", dout, dims.rows * dims.cols);
    run(r, "clear", &[("cleared", dout)], Element::Word, None, dims)
}

/// `dinp += ` the gradient of what [`forward`] read, from that of what it wrote, all `[rows, cols]` in f32.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, inp: &View, dims: Dims) -> Result<()> {
    check("standardize::backward", "dinp", dinp, dims.rows * dims.cols);
    check("standardize::backward", "dout", dout, dims.rows * dims.cols);
    check("standardize::backward", "inp", inp, dims.rows * dims.cols);
    let views = [("dinp", dinp), ("dout", dout), ("inp", inp)];
    run(r, "backward", &views, Element::Word, Some(dims.rows), dims)
}
