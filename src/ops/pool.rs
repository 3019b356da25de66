//! Host wrapper of `shaders/pool.wgsl`.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::elem::Elem;
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::{Recorder, check, flag};

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
    fn params(self, width: usize) -> Params {
        assert!(self.count > 0 && self.first + self.count <= self.tokens, "pool: {self:?}");
        assert!(self.column + self.dim <= self.stride, "pool: {self:?}");
        Params {
            batch: self.batch as u32,
            tokens: self.tokens as u32,
            dim: (self.dim / width) as u32,
            first: self.first as u32,
            count: self.count as u32,
            stride: (self.stride / width) as u32,
            column: (self.column / width) as u32,
        }
    }

    /// 4 where all columns come in fours.
    fn width(self) -> usize {
        let fours = [self.dim, self.stride, self.column].iter().all(|n| n.is_multiple_of(4));
        if fours { 4 } else { 1 }
    }
}

fn tail(width: usize, tokens: Element, pooled: Element) -> String {
    Elem::of(width, tokens).tail() + &Elem::of(width, pooled).held("pooled")
}

/// Every variant that [`forward`] and [`backward`] record: tokens and what they are pooled to in f32, tokens in f16 and features in either.
pub fn variants() -> Vec<Variants> {
    use Element::{Half, Word};
    let pairs = [(Word, Word), (Half, Word), (Half, Half)];
    let tails = pairs.into_iter().flat_map(|(tokens, pooled)| [1, 4].map(|width| tail(width, tokens, pooled)));
    vec![Variants::of(&SHADER).append(tails).with("WG", LANES).with_in(&["backward"], "ACCUMULATE", FLAG)]
}

/// `out` `[batch, stride] = ` one vector for each image of `inp` `[batch, tokens, dim]`, from `column` on; each f32 or f16.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, dims: Dims) -> Result<()> {
    check("pool", "out", out, dims.batch * dims.stride);
    check("pool", "inp", inp, dims.batch * dims.tokens * dims.dim);
    // A GPU's lanes are many, and each has a sum.
    let (width, lanes) = (if r.for_cpu { dims.width() } else { 1 }, r.reduce_lanes());
    let kernel = r.kernel_with(&SHADER, "forward", &[("WG", lanes as f64)], &tail(width, inp.element, out.element))?;
    let grid = fold((dims.batch * dims.dim / width).div_ceil(lanes));
    r.push(&kernel, &[("out", out), ("inp", inp)], &dims.params(width), grid);
    Ok(())
}

/// `dinp = ` the gradient of every token; with `accumulate` it is added, for tokens that are pooled more than once.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, dims: Dims, accumulate: bool) -> Result<()> {
    check("pool::backward", "dinp", dinp, dims.batch * dims.tokens * dims.dim);
    check("pool::backward", "dout", dout, dims.batch * dims.stride);
    let width = dims.width();
    let tail = tail(width, dinp.element, dout.element);
    let own = [("ACCUMULATE", flag(accumulate))];
    let views = [("dinp", dinp), ("dout", dout)];
    r.push_spread((&SHADER, "backward", &own, &tail), &views, dinp.len, width, |_| dims.params(width))
}
