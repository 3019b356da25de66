//! Host wrapper of `shaders/pool.wgsl`.

use crate::error::Result;
use crate::gpu::{View, program::fold, shaders};
use crate::model::config::Pool;
use crate::ops::{Recorder, WG, check, elementwise};

/// Shape of a pooling over tokens.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Sequence length, with the class token.
    pub tokens: usize,
    /// Width of a token.
    pub dim: usize,
    /// Whether the first token is a class token.
    pub class_token: bool,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    batch: u32,
    tokens: u32,
    dim: u32,
    cls_tokens: u32,
}

impl Dims {
    fn params(self) -> Params {
        Params {
            batch: self.batch as u32,
            tokens: self.tokens as u32,
            dim: self.dim as u32,
            cls_tokens: u32::from(self.class_token),
        }
    }
}

fn constants(pool: Pool) -> [(&'static str, f64); 1] {
    [("MEAN", f64::from(u8::from(pool == Pool::Mean)))]
}

/// `out` `[batch, dim] = ` one vector for each image of `inp` `[batch, tokens, dim]`.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, pool: Pool, dims: Dims) -> Result<()> {
    check("pool", "out", out, dims.batch * dims.dim);
    check("pool", "inp", inp, dims.batch * dims.tokens * dims.dim);
    let kernel = r.kernel(&shaders::POOL, "forward", &constants(pool))?;
    r.push(&kernel, &[("out", out), ("inp", inp)], &dims.params(), fold(out.len.div_ceil(WG)));
    Ok(())
}

/// `dinp = ` the gradient of every token.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, pool: Pool, dims: Dims) -> Result<()> {
    check("pool::backward", "dinp", dinp, dims.batch * dims.tokens * dims.dim);
    check("pool::backward", "dout", dout, dims.batch * dims.dim);
    let kernel = r.kernel(&shaders::POOL, "backward", &constants(pool))?;
    r.push(&kernel, &[("dinp", dinp), ("dout", dout)], &dims.params(), elementwise(dinp.len));
    Ok(())
}
