//! Host wrapper of `shaders/pool.wgsl`.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{Kernel, View, program::fold};
use crate::ops::elem::stored;
use crate::ops::variants::{FLAG, Variants};
use crate::ops::{Recorder, WG, check, elementwise, flag};

static SHADER: Shader = shader!("pool", FOLD);

/// Shape of a pooling over a run of tokens.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Sequence length.
    pub tokens: usize,
    /// Width of a token.
    pub dim: usize,
    /// The first token that is pooled.
    pub first: usize,
    /// How many are pooled from there on.
    pub count: usize,
    /// Columns of what they are pooled to, of which `dim` from `column` on are written.
    pub stride: usize,
    /// Of those, the first that is written.
    pub column: usize,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    batch: u32,
    tokens: u32,
    dim: u32,
    first: u32,
    count: u32,
    stride: u32,
    column: u32,
}

impl Dims {
    fn params(self) -> Params {
        assert!(self.count > 0 && self.first + self.count <= self.tokens, "pool: {self:?}");
        assert!(self.column + self.dim <= self.stride, "pool: {self:?}");
        Params {
            batch: self.batch as u32,
            tokens: self.tokens as u32,
            dim: self.dim as u32,
            first: self.first as u32,
            count: self.count as u32,
            stride: self.stride as u32,
            column: self.column as u32,
        }
    }
}

fn tail(tokens: Element, pooled: Element) -> String {
    format!("{}alias pooled = {};\n", stored(tokens), pooled.scalar())
}

/// Every variant that [`forward`] and [`backward`] record: tokens and what they are pooled to in f32, tokens in f16 and features in either.
pub fn variants() -> Vec<Variants> {
    use Element::{Half, Word};
    let tails = [(Word, Word), (Half, Word), (Half, Half)].map(|(tokens, pooled)| tail(tokens, pooled));
    vec![Variants::of(&SHADER).append(tails).with("ACCUMULATE", FLAG)]
}

/// A kernel for these tokens and what they are pooled to, or their gradients.
fn kernel(r: &Recorder, entry: &str, constants: &[(&str, f64)], tokens: &View, pooled: &View) -> Result<Arc<Kernel>> {
    r.kernel_with(&SHADER, entry, constants, &tail(tokens.element, pooled.element))
}

/// `out` `[batch, stride] = ` one vector for each image of `inp` `[batch, tokens, dim]`, from `column` on; each f32 or f16.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, dims: Dims) -> Result<()> {
    check("pool", "out", out, dims.batch * dims.stride);
    check("pool", "inp", inp, dims.batch * dims.tokens * dims.dim);
    let kernel = kernel(r, "forward", &[], inp, out)?;
    r.push(&kernel, &[("out", out), ("inp", inp)], &dims.params(), fold((dims.batch * dims.dim).div_ceil(WG)));
    Ok(())
}

/// `dinp = ` the gradient of every token; with `accumulate` it is added, for tokens that are pooled more than once.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, dims: Dims, accumulate: bool) -> Result<()> {
    check("pool::backward", "dinp", dinp, dims.batch * dims.tokens * dims.dim);
    check("pool::backward", "dout", dout, dims.batch * dims.stride);
    let kernel = kernel(r, "backward", &[("ACCUMULATE", flag(accumulate))], dinp, dout)?;
    r.push(&kernel, &[("dinp", dinp), ("dout", dout)], &dims.params(), elementwise(dinp.len));
    Ok(())
}
