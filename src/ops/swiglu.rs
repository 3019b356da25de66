//! Host wrapper of `shaders/swiglu.wgsl`.

use crate::error::Result;
use crate::gpu::{View, shaders};
use crate::ops::{Recorder, check, elem, stored};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    cols: u32,
}

fn run(r: &mut Recorder, entry: &str, views: &[(&str, &View)], rows: usize, cols: usize) -> Result<()> {
    let element = views[0].1.element;
    for (name, view) in views {
        assert_eq!(view.element, element, "swiglu: {name} holds other elements than {}", views[0].0);
    }
    let (width, alias) = elem(cols);
    let (len, cols) = (rows * cols / width, cols / width);
    let (constants, grid) = r.spread(len, width);
    let kernel = r.gpu.kernel(&shaders::SWIGLU, entry, &constants, &(alias.to_string() + stored(element, width)))?;
    r.push(&kernel, views, &Params { len: len as u32, cols: cols as u32 }, grid);
    Ok(())
}

/// `out = a·σ(a)·b` where a row of `inp` `[rows, 2·cols]` is a, then b; `out` `[rows, cols]`. Both f32, or both f16.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, rows: usize, cols: usize) -> Result<()> {
    check("swiglu", "out", out, rows * cols);
    check("swiglu", "inp", inp, 2 * rows * cols);
    run(r, "forward", &[("out", out), ("inp", inp)], rows, cols)
}

/// `dinp = ` `[rows, 2·cols]` from `dout` `[rows, cols]` and forward's `inp`; all f32, or all f16.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, inp: &View, rows: usize, cols: usize) -> Result<()> {
    check("swiglu::backward", "dinp", dinp, 2 * rows * cols);
    check("swiglu::backward", "dout", dout, rows * cols);
    check("swiglu::backward", "inp", inp, 2 * rows * cols);
    run(r, "backward", &[("dinp", dinp), ("dout", dout), ("inp", inp)], rows, cols)
}
