//! Host wrapper of `shaders/gelu.wgsl`.

use crate::error::Result;
use crate::gpu::{View, shaders};
use crate::model::config::Activation;
use crate::ops::{Len, Recorder, check, elementwise};

fn kind(activation: Activation) -> [(&'static str, f64); 1] {
    let kind = match activation {
        Activation::Gelu => 0.0,
        Activation::GeluTanh => 1.0,
        Activation::QuickGelu => 2.0,
    };
    [("KIND", kind)]
}

/// `out = gelu(inp)`, elementwise.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, activation: Activation) -> Result<()> {
    check("gelu", "out", out, inp.len);
    let kernel = r.kernel(&shaders::GELU, "forward", &kind(activation))?;
    r.push(&kernel, &[("out", out), ("inp", inp)], &Len { len: inp.len as u32 }, elementwise(inp.len));
    Ok(())
}

/// `dinp = dout · gelu'(inp)`, elementwise.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, inp: &View, activation: Activation) -> Result<()> {
    check("gelu::backward", "dinp", dinp, inp.len);
    check("gelu::backward", "dout", dout, inp.len);
    let kernel = r.kernel(&shaders::GELU, "backward", &kind(activation))?;
    let views = [("dinp", dinp), ("dout", dout), ("inp", inp)];
    r.push(&kernel, &views, &Len { len: inp.len as u32 }, elementwise(inp.len));
    Ok(())
}
