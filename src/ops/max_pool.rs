//! Host wrapper of `shaders/max_pool.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::Elem;
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::{Recorder, check, flag};

pub use crate::cpu::depthwise::Padding;
pub use crate::cpu::max_pool::Dims;

static SHADER: Shader = shader!("max_pool");

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
    above: u32,
    left: u32,
}

fn tail(elem: Elem) -> String {
    format!("{}alias taps = {};\n", elem.tail(), if elem.width == 4 { "vec4u" } else { "u32" })
}

/// Every variant that [`forward`] and [`backward`] record.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(Elem::ALL.map(tail)).with("WG", LANES).with_in(&["forward"], "ZEROS", FLAG)]
}

fn run(
    r: &mut Recorder,
    (entry, own): (&str, &[(&str, f64)]),
    views: &[(&str, &View)],
    element: Element,
    lines: usize,
    dims: Dims,
) -> Result<()> {
    let elem = Elem::of(dims.channels, element);
    let lanes = r.reduce_lanes();
    let kernel = r.kernel_with(&SHADER, entry, &[own, &[("WG", lanes as f64)]].concat(), &tail(elem))?;
    let cols = dims.channels / elem.width;
    let [above, left] = dims.before().map(|pixels| pixels as u32);
    let params = Params {
        src_h: dims.height as u32,
        src_w: dims.width as u32,
        dst_h: dims.out_height() as u32,
        dst_w: dims.out_width() as u32,
        cols: cols as u32,
        kernel: dims.kernel as u32,
        stride: dims.stride as u32,
        above,
        left,
    };
    r.push(&kernel, views, &params, [cols.div_ceil(lanes.min(cols)) as u32, lines as u32, 1]);
    Ok(())
}

/// `out` `[B, H', W', C] = ` the windows' largest values of `inp` `[B, H, W, C]`, both f32 or both f16; assigns `tap` (u32, as large as `out`),
/// which says where they were, for backward.
pub fn forward(r: &mut Recorder, out: &View, tap: &View, inp: &View, dims: Dims) -> Result<()> {
    check("max_pool", "out", out, dims.out_len());
    check("max_pool", "tap", tap, dims.out_len());
    check("max_pool", "inp", inp, dims.in_len());
    let views = [("out", out), ("tap", tap), ("inp", inp)];
    run(r, ("forward", &[("ZEROS", flag(dims.zeros))]), &views, inp.element, dims.batch * dims.out_height(), dims)
}

/// `dinp = ` the gradient: each window's goes to its first largest value. Shapes as in [`forward`].
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, tap: &View, dims: Dims) -> Result<()> {
    check("max_pool::backward", "dinp", dinp, dims.in_len());
    check("max_pool::backward", "dout", dout, dims.out_len());
    check("max_pool::backward", "tap", tap, dims.out_len());
    let views = [("dinp", dinp), ("dout", dout), ("saved_tap", tap)];
    run(r, ("backward", &[]), &views, dout.element, dims.batch * dims.height, dims)
}
