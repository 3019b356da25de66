//! Host wrapper of `shaders/split_attention.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::{FORMATS, stored};
use crate::ops::variants::Variants;
use crate::ops::{Recorder, check, elementwise};

pub use crate::cpu::split_attention::Dims;

static SHADER: Shader = shader!("split_attention", FOLD);

/// Channels of a workgroup that sums over pixels: `ACROSS` of the shader.
const ACROSS: usize = 16;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    batch: u32,
    pixels: u32,
    channels: u32,
    radix: u32,
    groups: u32,
}

fn params(dims: Dims) -> Params {
    Params {
        batch: dims.batch as u32,
        pixels: dims.pixels as u32,
        channels: dims.channels as u32,
        radix: dims.radix as u32,
        groups: dims.groups as u32,
    }
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(FORMATS.map(stored))]
}

/// `out` `[B, P, C] = ` the sum of the splits of `inp` `[B, P, R·C]`, weighed by `prob` `[B, R, C] = ` the softmax of `logits`
/// `[B, G, R, C/G]`. `inp` and `out` are both f32 or both f16, the others f32.
pub fn forward(r: &mut Recorder, out: &View, prob: &View, inp: &View, logits: &View, dims: Dims) -> Result<()> {
    for (name, view, len) in [("out", out, dims.len()), ("inp", inp, dims.in_len())] {
        check("split_attention", name, view, len);
    }
    for (name, view) in [("prob", prob), ("logits", logits)] {
        check("split_attention", name, view, dims.weights_len());
    }
    let tail = stored(inp.element);
    let kernel = r.kernel_with(&SHADER, "weigh", &[], &tail)?;
    r.push(&kernel, &[("logits", logits), ("prob", prob)], &params(dims), elementwise(dims.batch * dims.channels));
    let kernel = r.kernel_with(&SHADER, "forward", &[], &tail)?;
    r.push(&kernel, &[("inp", inp), ("saved_prob", prob), ("out", out)], &params(dims), elementwise(dims.len()));
    Ok(())
}

/// `dinp = ` and `dlogits = ` from `dout`, and `inp` and `prob` of [`forward`], whose shapes they have.
pub fn backward(
    r: &mut Recorder,
    dinp: &View,
    dlogits: &View,
    dout: &View,
    inp: &View,
    prob: &View,
    dims: Dims,
) -> Result<()> {
    for (name, view, len) in [("dout", dout, dims.len()), ("dinp", dinp, dims.in_len()), ("inp", inp, dims.in_len())] {
        check("split_attention::backward", name, view, len);
    }
    for (name, view) in [("prob", prob), ("dlogits", dlogits)] {
        check("split_attention::backward", name, view, dims.weights_len());
    }
    let tail = stored(inp.element);
    let kernel = r.kernel_with(&SHADER, "backward_input", &[], &tail)?;
    let views = [("dout", dout), ("saved_prob", prob), ("dinp", dinp)];
    r.push(&kernel, &views, &params(dims), elementwise(dinp.len));
    let kernel = r.kernel_with(&SHADER, "backward_logits", &[], &tail)?;
    let views = [("dout", dout), ("saved_prob", prob), ("values", inp), ("dlogits", dlogits)];
    r.push(&kernel, &views, &params(dims), [dims.channels.div_ceil(ACROSS) as u32, dims.batch as u32, 1]);
    Ok(())
}
