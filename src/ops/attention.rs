//! Host wrapper of `shaders/attention.wgsl` and `shaders/attention_direct.wgsl`.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::{Kernel, View, shaders};
use crate::ops::cast::stored;
use crate::ops::words::fours;
use crate::ops::{Recorder, WG, check, rows};

/// Queries, or keys, of a workgroup of the direct kernel: two for each of its eight lanes.
const DIRECT_ROWS: usize = 16;

/// Shape of self-attention.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Sequence length.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    tokens: u32,
    heads: u32,
    scale: f32,
}

impl Dims {
    fn len(self) -> usize {
        self.batch * self.tokens * self.heads * self.head_dim
    }

    fn stats(self) -> usize {
        self.batch * self.tokens * self.heads
    }

    /// Runs of images that one dispatch takes, and the products that a lane forms for a pair of tokens.
    fn parts(self, r: &Recorder, element: Element, products: usize) -> Vec<(Range<usize>, Dims)> {
        let strides = [self.len() / self.batch, self.stats() / self.batch];
        let parts = r.parts(self.batch, self.flops(products) / self.batch as u64, element, &strides);
        parts.into_iter().map(|part| (part.clone(), Dims { batch: part.len(), ..self })).collect()
    }

    fn flops(self, products: usize) -> u64 {
        2 * (products * self.len() * self.tokens) as u64
    }

    fn params(self) -> Params {
        let scale = (1.0 / (self.head_dim as f64).sqrt()) as f32;
        Params { tokens: self.tokens as u32, heads: self.heads as u32, scale }
    }
}

/// The kernel for this adapter and head, and its grid.
fn kernel(r: &Recorder, entry: &str, element: Element, dims: Dims) -> Result<(Arc<Kernel>, [u32; 3])> {
    let direct = r.for_cpu && r.gpu.has_wide_subgroups() && dims.head_dim.is_multiple_of(4);
    let (shader, rows) = if direct { (&shaders::ATTENTION_DIRECT, DIRECT_ROWS) } else { (&shaders::ATTENTION, WG) };
    let mut tail = format!("const HD4 = {}u;\n", dims.head_dim.div_ceil(4));
    tail += &if direct {
        fours(element, element, r.wide_words)
    } else {
        stored(element) + &format!("const HD = {}u;\n", dims.head_dim)
    };
    let grid = [dims.tokens.div_ceil(rows) as u32, (dims.batch * dims.heads) as u32, 1];
    Ok((r.gpu.kernel(shader, entry, &[], &tail)?, grid))
}

/// `out = softmax(q·kᵀ/√d)·v` per image and head; saves `lse` (`[batch, heads, tokens]`) for backward.
/// `qkv` `[batch, tokens, 3·heads·head_dim]`, `out` a third of it; both f32, or both f16, as
/// their gradients are.
pub fn forward(r: &mut Recorder, out: &View, lse: &View, qkv: &View, dims: Dims) -> Result<()> {
    check("attention", "out", out, dims.len());
    check("attention", "lse", lse, dims.stats());
    check("attention", "qkv", qkv, 3 * dims.len());
    let (len, stats) = (dims.len() / dims.batch, dims.stats() / dims.batch);
    for (part, dims) in dims.parts(r, qkv.element, 2) {
        let (kernel, grid) = kernel(r, "forward", qkv.element, dims)?;
        let (out, lse, qkv) = (rows(out, &part, len), rows(lse, &part, stats), rows(qkv, &part, 3 * len));
        r.push(&kernel, &[("out", &out), ("lse", &lse), ("qkv", &qkv)], &dims.params(), grid);
        r.work(dims.flops(2));
    }
    Ok(())
}

/// `dqkv = ` the gradient of all three; `delta` (`[batch, heads, tokens]`) is scratch.
pub fn backward(
    r: &mut Recorder,
    dqkv: &View,
    delta: &View,
    dout: &View,
    out: &View,
    qkv: &View,
    lse: &View,
    dims: Dims,
) -> Result<()> {
    for (name, view, len) in [("dqkv", dqkv, 3 * dims.len()), ("dout", dout, dims.len()), ("out", out, dims.len())] {
        check("attention::backward", name, view, len);
    }
    check("attention::backward", "delta", delta, dims.stats());
    let (len, stats) = (dims.len() / dims.batch, dims.stats() / dims.batch);
    for (part, dims) in dims.parts(r, qkv.element, 4) {
        let [dqkv, qkv] = [dqkv, qkv].map(|v| rows(v, &part, 3 * len));
        let [dout, out] = [dout, out].map(|v| rows(v, &part, len));
        let [delta, lse] = [delta, lse].map(|v| rows(v, &part, stats));
        let (query, grid) = kernel(r, "backward_query", qkv.element, dims)?;
        let views = [
            ("dqkv", &dqkv),
            ("delta", &delta),
            ("dout", &dout),
            ("attended", &out),
            ("qkv", &qkv),
            ("saved_lse", &lse),
        ];
        r.push(&query, &views, &dims.params(), grid);
        r.work(dims.flops(3));
        let (key, grid) = kernel(r, "backward_key", qkv.element, dims)?;
        let views = [("dqkv", &dqkv), ("saved_delta", &delta), ("dout", &dout), ("qkv", &qkv), ("saved_lse", &lse)];
        r.push(&key, &views, &dims.params(), grid);
        r.work(dims.flops(4));
    }
    Ok(())
}
