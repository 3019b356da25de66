//! Host wrapper of `shaders/blur.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::Elem;
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Recorder, check};

pub use crate::cpu::blur::{Dims, Filter};

static SHADER: Shader = shader!("blur");

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    src_h: u32,
    src_w: u32,
    dst_h: u32,
    dst_w: u32,
    cols: u32,
    stride: u32,
    reflect: u32,
    side: f32,
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
        stride: dims.stride as u32,
        reflect: u32::from(dims.filter.reflects()),
        side: dims.filter.side() as f32,
    };
    r.push(&kernel, views, &params, [cols.div_ceil(lanes.min(cols)) as u32, lines as u32, 1]);
    Ok(())
}

/// `out` `[B, H', W', C] = ` the filtered `inp` `[B, H, W, C]`; both f32 or both f16.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, dims: Dims) -> Result<()> {
    check("blur", "out", out, dims.out_len());
    check("blur", "inp", inp, dims.in_len());
    run(r, "forward", &[("out", out), ("inp", inp)], inp.element, dims.batch * dims.out_height(), dims)
}

/// `dinp = ` the gradient. Shapes as in [`forward`].
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, dims: Dims) -> Result<()> {
    check("blur::backward", "dinp", dinp, dims.in_len());
    check("blur::backward", "dout", dout, dims.out_len());
    run(r, "backward", &[("dinp", dinp), ("dout", dout)], dout.element, dims.batch * dims.height, dims)
}
