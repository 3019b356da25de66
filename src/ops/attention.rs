//! Host wrapper of `shaders/attention.wgsl` and `shaders/attention_direct.wgsl`.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::{Kernel, View, shaders};
use crate::ops::words::fours;
use crate::ops::{Recorder, check, rows};

/// Queries, or keys, of a workgroup of the direct kernel: two for each of its eight lanes.
const DIRECT_ROWS: usize = 16;
/// The same of `attention.wgsl`.
const ROWS: usize = 32;

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
    let heads = (dims.batch * dims.heads) as u32;
    if r.for_cpu && r.gpu.has_wide_subgroups() && dims.head_dim.is_multiple_of(4) {
        let tail = format!("const HD4 = {}u;\n", dims.head_dim / 4) + &fours(element, element, r.wide_words);
        let grid = [dims.tokens.div_ceil(DIRECT_ROWS) as u32, heads, 1];
        return Ok((r.gpu.kernel(&shaders::ATTENTION_DIRECT, entry, &[], &tail)?, grid));
    }
    // As many columns of a head as the shader computes in a workgroup.
    let columns = match entry {
        "forward" => 256,
        "backward_query" => 128,
        _ => 64,
    };
    let grid = [dims.tokens.div_ceil(ROWS) as u32, heads, dims.head_dim.div_ceil(columns) as u32];
    Ok((r.gpu.kernel(&shaders::ATTENTION, entry, &[], &tail(element, dims.head_dim))?, grid))
}

/// What is appended to `attention.wgsl` for tensors of `element` and heads of `head_dim`.
pub fn tail(element: Element, head_dim: usize) -> String {
    let scalar = element.scalar();
    let (width, word, whole, packed) = match head_dim.is_multiple_of(4) {
        true => (4, format!("vec4<{scalar}>"), "vec4f(x)", "word(x)"),
        false => (1, scalar.to_string(), "vec4f(f32(x))", "word(x.x)"),
    };
    format!(
        "const HD = {head_dim}u;\nconst WIDTH = {width}u;\nalias word = {word};\n\
         fn whole(x: word) -> vec4f {{ return {whole}; }}\nfn packed(x: vec4f) -> word {{ return {packed}; }}\n"
    )
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
