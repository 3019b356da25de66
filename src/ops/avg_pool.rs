//! Host wrapper of `shaders/avg_pool.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::Elem;
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Recorder, check};

pub use crate::cpu::avg_pool::Dims;

static SHADER: Shader = shader!("avg_pool");

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
    padding: u32,
}

/// Every variant that [`forward`] and [`backward`] record.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(Elem::ALL.map(Elem::tail)).with("WG", LANES)]
}

fn run(
    r: &mut Recorder,
    entry: &str,
    views: &[(&str, &View)],
    element: Element,
    lines: usize,
    dims: Dims,
) -> Result<()> {
    let elem = Elem::of(dims.channels, element);
    let lanes = r.reduce_lanes();
    let kernel = r.kernel_with(&SHADER, entry, &[("WG", lanes as f64)], &elem.tail())?;
    let cols = dims.channels / elem.width;
    let params = Params {
        src_h: dims.height as u32,
        src_w: dims.width as u32,
        dst_h: dims.out_height() as u32,
        dst_w: dims.out_width() as u32,
        cols: cols as u32,
        kernel: dims.kernel as u32,
        stride: dims.stride as u32,
        padding: dims.padding as u32,
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
