//! Host wrapper of `shaders/pick.wgsl`.

use crate::error::Result;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::variants::{FLAG, Variants};
use crate::ops::{Recorder, WG, check, elementwise, flag};

static SHADER: Shader = shader!("pick", FOLD);

/// Shape of what a token is picked from.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Texts.
    pub batch: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Width of a token.
    pub dim: usize,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    batch: u32,
    tokens: u32,
    dim: u32,
}

impl Dims {
    fn params(self) -> Params {
        Params { batch: self.batch as u32, tokens: self.tokens as u32, dim: self.dim as u32 }
    }
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).with("ACCUMULATE", FLAG)]
}

/// `out` `[batch, dim] = ` token `at` `[batch]`, u32, of each text of `inp` `[batch, tokens, dim]`.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, at: &View, dims: Dims) -> Result<()> {
    check("pick", "out", out, dims.batch * dims.dim);
    check("pick", "inp", inp, dims.batch * dims.tokens * dims.dim);
    check("pick", "at", at, dims.batch);
    let kernel = r.kernel(&SHADER, "forward", &[])?;
    let grid = fold((dims.batch * dims.dim).div_ceil(WG));
    r.push(&kernel, &[("out", out), ("inp", inp), ("at", at)], &dims.params(), grid);
    Ok(())
}

/// `dinp = ` the gradient of every token, from `dout`; with `accumulate` it is added.
pub fn backward_input(
    r: &mut Recorder,
    dinp: &View,
    dout: &View,
    at: &View,
    dims: Dims,
    accumulate: bool,
) -> Result<()> {
    check("pick::backward_input", "dinp", dinp, dims.batch * dims.tokens * dims.dim);
    check("pick::backward_input", "dout", dout, dims.batch * dims.dim);
    check("pick::backward_input", "at", at, dims.batch);
    let kernel = r.kernel(&SHADER, "backward_input", &[("ACCUMULATE", flag(accumulate))])?;
    r.push(&kernel, &[("dinp", dinp), ("dout", dout), ("at", at)], &dims.params(), elementwise(dinp.len));
    Ok(())
}
