//! Host wrapper of `shaders/embedding.wgsl`.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::elem::Elem;
use crate::ops::variants::Variants;
use crate::ops::{Recorder, WG, check, column_sum};

static SHADER: Shader = shader!("embedding", FOLD);

/// Shape of an embedding of texts.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Texts.
    pub batch: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Rows of the table.
    pub vocabulary: usize,
    /// Width of a token.
    pub dim: usize,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    tokens: u32,
    cols: u32,
}

impl Dims {
    fn rows(self) -> usize {
        self.batch * self.tokens
    }

    fn elem(self) -> Elem {
        Elem::of(self.dim, Element::Word)
    }

    fn params(self) -> Params {
        let cols = self.dim / self.elem().width;
        Params { rows: self.rows() as u32, tokens: self.tokens as u32, cols: cols as u32 }
    }
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append([4, 1].map(|cols| Elem::of(cols, Element::Word).alias()))]
}

/// `out` `[batch, tokens, dim] = weight[ids] + positions`: `ids` `[batch, tokens]` u32, rows of `weight` `[vocabulary, dim]`;
/// `positions` `[tokens, dim]`. All else is f32.
pub fn forward(r: &mut Recorder, out: &View, ids: &View, weight: &View, positions: &View, dims: Dims) -> Result<()> {
    let views = [("out", out), ("ids", ids), ("weight", weight), ("positions", positions)];
    let lens = [dims.rows() * dims.dim, dims.rows(), dims.vocabulary * dims.dim, dims.tokens * dims.dim];
    views.iter().zip(lens).for_each(|((name, view), len)| check("embedding", name, view, len));
    let kernel = r.kernel_with(&SHADER, "forward", &[], &dims.elem().alias())?;
    let params = dims.params();
    r.push(&kernel, &views, &params, fold((params.rows * params.cols).div_ceil(WG as u32) as usize));
    Ok(())
}

/// `dweight += ` the gradient of the table, from `dout`.
pub fn backward_params(r: &mut Recorder, dweight: &View, dout: &View, ids: &View, dims: Dims) -> Result<()> {
    let views = [("dweight", dweight), ("dout", dout), ("ids", ids)];
    let lens = [dims.vocabulary * dims.dim, dims.rows() * dims.dim, dims.rows()];
    views.iter().zip(lens).for_each(|((name, view), len)| check("embedding::backward_params", name, view, len));
    let kernel = r.kernel_with(&SHADER, "backward_params", &[], &dims.elem().alias())?;
    let params = dims.params();
    r.push(&kernel, &views, &params, fold(dims.rows() * (params.cols as usize).div_ceil(WG)));
    Ok(())
}

/// `dpositions` `[tokens, dim] += ` the sum of `dout` over the texts.
pub fn backward_positions(r: &mut Recorder, dpositions: &View, dout: &View, dims: Dims) -> Result<()> {
    column_sum::forward(r, dpositions, dout, dims.batch, dims.tokens * dims.dim)
}
