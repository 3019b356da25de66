//! Host wrapper of `shaders/attention_pool.wgsl`.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::elem::{FORMATS, stored};
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Recorder, WG, check, column_sum, elementwise};

pub use crate::cpu::attention_pool::Dims;

static SHADER: Shader = shader!("attention_pool", REDUCE, FOLD);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    batch: u32,
    tokens: u32,
    heads: u32,
    head_dim: u32,
    scale: f32,
}

fn params(dims: Dims) -> Params {
    Params {
        batch: dims.batch as u32,
        tokens: dims.tokens as u32,
        heads: dims.heads as u32,
        head_dim: dims.head_dim as u32,
        scale: (1.0 / (dims.head_dim as f64).sqrt()) as f32,
    }
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(FORMATS.map(stored)).with("WG", LANES)]
}

/// A workgroup for each head of each image.
fn run_heads(r: &mut Recorder, entry: &str, views: &[(&str, &View)], element: Element, dims: Dims) -> Result<()> {
    let constants = [("WG", r.reduce_lanes() as f64)];
    let kernel = r.kernel_with(&SHADER, entry, &constants, &stored(element))?;
    r.push(&kernel, views, &params(dims), fold(dims.batch * dims.heads));
    Ok(())
}

/// `out = softmax(q·kᵀ/√d)·v` per image and head; saves `prob` (`[batch, heads, tokens]`) for backward. `q` and `out` are
/// `[batch, heads·head_dim]`, `k` and `v` `[batch, tokens, heads·head_dim]`, all f32 or all f16; `prob` is f32.
pub fn forward(r: &mut Recorder, out: &View, prob: &View, q: &View, k: &View, v: &View, dims: Dims) -> Result<()> {
    check("attention_pool", "out", out, dims.query_len());
    check("attention_pool", "prob", prob, dims.prob_len());
    check("attention_pool", "q", q, dims.query_len());
    check("attention_pool", "k", k, dims.token_len());
    check("attention_pool", "v", v, dims.token_len());
    run_heads(r, "forward", &[("out", out), ("prob", prob), ("q", q), ("k", k), ("v", v)], q.element, dims)
}

/// `dq = `, `dk = `, `dv = ` from `dout`, and `prob` from forward; `ds` (`[batch, heads, tokens]`, f32) is scratch.
pub fn backward(
    r: &mut Recorder,
    dq: &View,
    dk: &View,
    dv: &View,
    ds: &View,
    dout: &View,
    q: &View,
    k: &View,
    v: &View,
    prob: &View,
    dims: Dims,
) -> Result<()> {
    for (name, view) in [("dq", dq), ("dout", dout), ("q", q)] {
        check("attention_pool::backward", name, view, dims.query_len());
    }
    for (name, view) in [("dk", dk), ("dv", dv), ("k", k), ("v", v)] {
        check("attention_pool::backward", name, view, dims.token_len());
    }
    for (name, view) in [("ds", ds), ("prob", prob)] {
        check("attention_pool::backward", name, view, dims.prob_len());
    }
    let views = [("dq", dq), ("ds", ds), ("dout", dout), ("k", k), ("v", v), ("saved_prob", prob)];
    run_heads(r, "backward_query", &views, q.element, dims)?;
    let key = r.kernel_with(&SHADER, "backward_key", &[], &stored(q.element))?;
    let views = [("dk", dk), ("dv", dv), ("dout", dout), ("q", q), ("saved_ds", ds), ("saved_prob", prob)];
    r.push(&key, &views, &params(dims), elementwise(dk.len));
    Ok(())
}

/// `tokens` `[batch, tokens, D] = ` the mean of the pixels `inp` `[batch, tokens − 1, D]`, then these, plus `pos`
/// `[tokens, D]`, which is f32; the others both f32 or both f16.
pub fn assemble(r: &mut Recorder, tokens: &View, inp: &View, pos: &View, dims: Dims) -> Result<()> {
    check("attention_pool::assemble", "tokens", tokens, dims.token_len());
    check("attention_pool::assemble", "inp", inp, dims.pixel_len());
    check("attention_pool::assemble", "pos", pos, dims.tokens * dims.dim());
    let kernel = r.kernel_with(&SHADER, "assemble", &[], &stored(inp.element))?;
    let grid = fold(dims.query_len().div_ceil(WG));
    r.push(&kernel, &[("tokens", tokens), ("inp", inp), ("pos", pos)], &params(dims), grid);
    Ok(())
}

/// `dinp = `, `dpos += ` from `dtokens`. Shapes as in [`assemble`].
pub fn assemble_backward(r: &mut Recorder, dinp: &View, dpos: &View, dtokens: &View, dims: Dims) -> Result<()> {
    check("attention_pool::assemble_backward", "dinp", dinp, dims.pixel_len());
    check("attention_pool::assemble_backward", "dpos", dpos, dims.tokens * dims.dim());
    check("attention_pool::assemble_backward", "dtokens", dtokens, dims.token_len());
    let kernel = r.kernel_with(&SHADER, "backward_assemble", &[], &stored(dtokens.element))?;
    r.push(&kernel, &[("dinp", dinp), ("dtokens", dtokens)], &params(dims), elementwise(dinp.len));
    // As many columns as any sum needs to keep a GPU busy, and few rows: one stage does.
    column_sum::add_rows(r, dpos, dtokens, dims.batch, dims.tokens * dims.dim())
}
