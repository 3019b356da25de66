//! Host wrapper of `shaders/avg_pool.wgsl`.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::{View, shaders};
use crate::ops::{Recorder, check, elem, stored};

pub use crate::cpu::avg_pool::Dims;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    src_h: u32,
    src_w: u32,
    dst_h: u32,
    dst_w: u32,
    cols: u32,
    kernel: u32,
    stride: u32,
}

fn run(
    r: &mut Recorder,
    entry: &str,
    views: &[(&str, &View)],
    element: Element,
    lines: usize,
    dims: Dims,
) -> Result<()> {
    let (width, alias) = elem(dims.channels);
    let tail = alias.to_string() + stored(element, width);
    let lanes = r.reduce_lanes();
    let kernel = r.gpu.kernel(&shaders::AVG_POOL, entry, &[("WG", lanes as f64)], &tail)?;
    let cols = dims.channels / width;
    let params = Params {
        src_h: dims.height as u32,
        src_w: dims.width as u32,
        dst_h: dims.out_height() as u32,
        dst_w: dims.out_width() as u32,
        cols: cols as u32,
        kernel: dims.kernel as u32,
        stride: dims.stride as u32,
    };
    r.push(&kernel, views, &params, [cols.div_ceil(lanes.min(cols)) as u32, lines as u32, 1]);
    Ok(())
}

/// `out` `[B, H', W', C] = ` the windows' means of `inp` `[B, H, W, C]`; both f32 or both f16.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, dims: Dims) -> Result<()> {
    check("avg_pool", "out", out, dims.out_len());
    check("avg_pool", "inp", inp, dims.in_len());
    run(r, "forward", &[("out", out), ("inp", inp)], inp.element, dims.batch * dims.out_height(), dims)
}

/// `dinp = ` the gradient. Shapes as in [`forward`].
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, dims: Dims) -> Result<()> {
    check("avg_pool::backward", "dinp", dinp, dims.in_len());
    check("avg_pool::backward", "dout", dout, dims.out_len());
    run(r, "backward", &[("dinp", dinp), ("dout", dout)], dout.element, dims.batch * dims.height, dims)
}
