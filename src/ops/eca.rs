//! Host wrapper of `shaders/eca.wgsl`.

use crate::error::Result;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Recorder, check};

static SHADER: Shader = shader!("eca", REDUCE, FOLD);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    batch: u32,
    channels: u32,
    kernel: u32,
}

/// Shape of a convolution along channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Rows, one per image.
    pub batch: usize,
    /// Columns.
    pub channels: usize,
    /// Length of the kernel, an odd number.
    pub kernel: usize,
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).with("WG", LANES)]
}

fn run(r: &mut Recorder, entry: &str, views: &[(&str, &View)], dims: Dims, workgroups: Option<usize>) -> Result<()> {
    let Dims { batch, channels, kernel } = dims;
    assert!(kernel % 2 == 1, "eca: a kernel of {kernel} has no middle");
    let lanes = r.reduce_lanes();
    let pipeline = r.kernel_with(&SHADER, entry, &[("WG", lanes as f64)], "")?;
    let params = Params { batch: batch as u32, channels: channels as u32, kernel: kernel as u32 };
    let groups = workgroups.unwrap_or((batch * channels).div_ceil(lanes));
    r.push(&pipeline, views, &params, fold(groups));
    Ok(())
}

/// `out = ` each row of `inp` convolved with `weight`: both `[batch, channels]`, `weight` `[kernel]`.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, weight: &View, dims: Dims) -> Result<()> {
    check("eca", "out", out, dims.batch * dims.channels);
    check("eca", "inp", inp, dims.batch * dims.channels);
    check("eca", "weight", weight, dims.kernel);
    run(r, "forward", &[("dst", out), ("src", inp), ("weight", weight)], dims, None)
}

/// `dinp = ` the gradient of the input. Shapes as in [`forward`].
pub fn backward_input(r: &mut Recorder, dinp: &View, dout: &View, weight: &View, dims: Dims) -> Result<()> {
    check("eca::backward_input", "dinp", dinp, dims.batch * dims.channels);
    check("eca::backward_input", "dout", dout, dims.batch * dims.channels);
    check("eca::backward_input", "weight", weight, dims.kernel);
    run(r, "backward_input", &[("dst", dinp), ("src", dout), ("weight", weight)], dims, None)
}

/// `dweight += ` the gradient of the weight. Shapes as in [`forward`].
pub fn backward_weight(r: &mut Recorder, dweight: &View, dout: &View, inp: &View, dims: Dims) -> Result<()> {
    check("eca::backward_weight", "dweight", dweight, dims.kernel);
    check("eca::backward_weight", "dout", dout, dims.batch * dims.channels);
    check("eca::backward_weight", "inp", inp, dims.batch * dims.channels);
    run(r, "backward_weight", &[("dst", dweight), ("src", inp), ("dout", dout)], dims, Some(dims.kernel))
}
