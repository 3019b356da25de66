//! Host wrapper of `shaders/gelu.wgsl`.

use crate::error::Result;
use crate::gpu::{View, shaders};
use crate::ops::{Len, Recorder, check, elem};
use crate::shapes::Activation;

/// What is appended to the shader, and to a matrix product's epilogue, for the activation.
pub(super) fn kind(activation: Activation) -> String {
    let kind = match activation {
        Activation::Gelu => 0,
        Activation::GeluTanh => 1,
        Activation::QuickGelu => 2,
        Activation::SwiGlu => unreachable!("gelu: SwiGLU is a stem of its own"),
    };
    format!("const KIND = {kind}u;\n")
}

fn run(r: &mut Recorder, entry: &str, views: &[(&str, &View)], len: usize, activation: Activation) -> Result<()> {
    let (width, alias) = elem(len);
    let len = len / width;
    let (constants, grid) = r.spread(len, width);
    let kernel = r.gpu.kernel(&shaders::GELU, entry, &constants, &(kind(activation) + alias))?;
    r.push(&kernel, views, &Len { len: len as u32 }, grid);
    Ok(())
}

/// `out = gelu(inp)`, elementwise.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, activation: Activation) -> Result<()> {
    check("gelu", "out", out, inp.len);
    run(r, "forward", &[("out", out), ("inp", inp)], inp.len, activation)
}

/// `dinp = dout · gelu'(inp)`, elementwise.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, inp: &View, activation: Activation) -> Result<()> {
    check("gelu::backward", "dinp", dinp, inp.len);
    check("gelu::backward", "dout", dout, inp.len);
    run(r, "backward", &[("dinp", dinp), ("dout", dout), ("inp", inp)], inp.len, activation)
}
