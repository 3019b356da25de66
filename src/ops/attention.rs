//! Host wrapper of `shaders/attention.wgsl`, `attention_direct.wgsl` and `attention_cooperative.wgsl`.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::tiles::{Cooperative, Tile};
use crate::gpu::{Gpu, Kernel, View};
use crate::ops::attention_dims::{MEMORY, WIDEST};
use crate::ops::attention_tails::{SLICE, Scoring, block, cooperative_tail, direct_tail, tail};
use crate::ops::elem::FORMATS;
use crate::ops::product::{Pass, Product};
use crate::ops::variants::{Needs, Variants};
use crate::ops::{Recorder, check, rows};

pub use crate::ops::attention_dims::{Dims, has_memory, suits_matrices};
pub use crate::ops::attention_tails::Mask;

static SHADER: Shader = shader!("attention");
static COOPERATIVE: Shader = shader!("attention_cooperative");
static DIRECT: Shader = shader!("attention_direct");

/// Queries, or keys, of a workgroup of the direct kernel: two for each of its eight lanes.
const DIRECT_ROWS: usize = 16;
/// The same of `attention.wgsl`.
const ROWS: usize = 32;
/// Invocations of its workgroups.
const THREADS: usize = 128;

/// What becomes of the products of queries and keys besides their scale, before the softmax.
#[derive(Clone, Copy, Debug, Default)]
pub enum Scores<'a> {
    /// Nothing.
    #[default]
    Plain,
    /// A bias is added for each offset of two tokens and head (`[offsets, heads]`, [`Dims::offsets`]), where the tokens are a class token
    /// and a square grid of patches.
    Relative(&'a View),
    /// Queries do not see all keys.
    Masked {
        /// Each sees those up to itself alone.
        causal: bool,
        /// Tokens of each sequence, `[batch]` u32 of at least 1, behind which is padding that nobody sees.
        lengths: Option<&'a View>,
    },
}

impl<'a> Scores<'a> {
    fn kind(self) -> Scoring {
        match self {
            Scores::Plain => Scoring::Plain,
            Scores::Relative(_) => Scoring::Relative,
            Scores::Masked { causal, lengths } => Scoring::Masked(Mask { causal, padded: lengths.is_some() }),
        }
    }

    fn check(self, dims: Dims) {
        match self {
            Scores::Plain | Scores::Masked { causal: true, lengths: None } => {}
            Scores::Relative(table) => {
                let grid = dims.grid();
                let tokens = 1 + grid * grid;
                assert_eq!(dims.tokens, tokens, "attention: relative positions of a class token and a square grid");
                check("attention", "relative", table, dims.offsets() * dims.heads);
            }
            Scores::Masked { lengths: Some(lengths), .. } => check("attention", "lengths", lengths, dims.batch),
            Scores::Masked { causal: false, lengths: None } => panic!("attention: a mask that hides nothing"),
        }
    }

    /// What kernels bind for it, of the images of `part`.
    fn named(self, part: &Range<usize>) -> Option<(&'static str, View)> {
        match self {
            Scores::Relative(table) => Some(("relative", table.clone())),
            Scores::Masked { lengths: Some(lengths), .. } => Some(("lengths", rows(lengths, part, 1))),
            Scores::Plain | Scores::Masked { .. } => None,
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    tokens: u32,
    heads: u32,
    scale: f32,
    /// Quads of a head; `attention.wgsl` alone asks, as for what follows.
    quads: u32,
    batch: u32,
    /// Patches along a side, where there are relative positions.
    grid: u32,
    /// Whether scores' gradients are added.
    added: u32,
}

impl Dims {
    /// Runs of images that one dispatch takes, and the products that a lane forms for a pair of tokens.
    fn parts(self, r: &Recorder, element: Element, products: usize) -> Vec<(Range<usize>, Dims)> {
        let strides = [self.len() / self.batch, self.stats() / self.batch];
        let parts = r.parts(self.batch, self.flops(products) / self.batch as u64, element, &strides);
        parts.into_iter().map(|part| (part.clone(), Dims { batch: part.len(), ..self })).collect()
    }

    fn params(self) -> Params {
        let scale = (1.0 / (self.head_dim as f64).sqrt()) as f32;
        Params {
            tokens: self.tokens as u32,
            heads: self.heads as u32,
            scale,
            quads: self.head_dim.div_ceil(4) as u32,
            batch: self.batch as u32,
            grid: self.grid() as u32,
            added: 0,
        }
    }
}

/// The matrix units that compute heads of this width, if `tile` asks for them.
fn matrices(gpu: &Gpu, tile: Tile) -> Option<Cooperative> {
    gpu.offered_cooperative().filter(|_| tile == Tile::Cooperative)
}

/// The kernel for this adapter, tile and head, and its grid.
fn kernel(
    r: &Recorder,
    tile: Tile,
    entry: &str,
    element: Element,
    scoring: Scoring,
    dims: Dims,
) -> Result<(Arc<Kernel>, [u32; 3])> {
    let heads = (dims.batch * dims.heads) as u32;
    if let Some(matrices) = matrices(r.gpu, tile) {
        let ([rows, _], slices) = (block(entry, dims.head_dim), dims.head_dim.div_ceil(SLICE));
        let grid = [dims.tokens.div_ceil(rows) as u32, heads, if entry == "backward_key" { slices as u32 } else { 1 }];
        let tail = cooperative_tail(entry, dims.head_dim, matrices, scoring.mask());
        return Ok((r.kernel_with(&COOPERATIVE, entry, &[], &tail)?, grid));
    }
    if r.for_cpu && r.gpu.has_wide_subgroups() && dims.head_dim.is_multiple_of(4) {
        let tail = direct_tail(dims.head_dim, element, r.wide_words, scoring);
        let grid = [dims.tokens.div_ceil(DIRECT_ROWS) as u32, heads, 1];
        return Ok((r.kernel_with(&DIRECT, entry, &[], &tail)?, grid));
    }
    // As many columns of a head as the shader computes in a workgroup.
    let columns = match entry {
        "forward" => 256,
        "backward_query" => 128,
        _ => 64,
    };
    let grid = [dims.tokens.div_ceil(ROWS) as u32, heads, dims.head_dim.div_ceil(columns) as u32];
    Ok((r.kernel_with(&SHADER, entry, &[], &tail(element, dims.head_dim, scoring))?, grid))
}

/// The tile for this adapter: matrices where they were measured to be faster, which are for f16 alone. They have no relative positions.
fn tile(r: &mut Recorder, pass: Pass, element: Element, scoring: Scoring, dims: Dims) -> Tile {
    if scoring == Scoring::Relative {
        return Tile::Tiled;
    }
    let product = Product::Attention { pass, dims, element, mask: scoring.mask() };
    let able = r.forced.is_some() || r.gpu.cooperative().is_some();
    if able && product.suits_matrices() && has_memory(r.gpu) { r.variant(product).tile } else { Tile::Tiled }
}

/// Every variant that this file records, with heads of every width at which something else is computed, and of those that models have.
pub fn variants() -> Vec<Variants> {
    let widths = [1, 4, 10, 32, 64, 80, 96, 128, 130, 256, 300];
    let formats = || FORMATS.into_iter().flat_map(|element| Scoring::ALL.map(|scoring| (element, scoring)));
    let plain = widths.into_iter().flat_map(|width| formats().map(move |(e, scoring)| tail(e, width, scoring)));
    let direct = [4, 32, 64, WIDEST].into_iter().flat_map(|width| {
        formats().flat_map(move |(e, scoring)| [false, true].map(|wide| direct_tail(width, e, wide, scoring)))
    });
    let cooperative = ["forward", "backward_query", "backward_key"].into_iter().flat_map(|entry| {
        let of_mask = move |width, mask| {
            Cooperative::KNOWN.map(|matrices| (entry, cooperative_tail(entry, width, matrices, mask)))
        };
        let of_width = move |width| Mask::ALL.into_iter().flat_map(move |mask| of_mask(width, mask));
        [4, 20, SLICE, 80, WIDEST].into_iter().flat_map(of_width)
    });
    vec![
        Variants::of(&SHADER).append(plain),
        Variants::of(&COOPERATIVE).append_to(cooperative).needing(Needs::Matrices).with_memory(MEMORY),
        Variants::of(&DIRECT).append(direct).needing(Needs::WideSubgroups),
    ]
}

/// `out = softmax(q·kᵀ/√d)·v` per image and head; saves `lse` (`[batch, heads, tokens]`) for backward.
/// `qkv` `[batch, tokens, 3·heads·head_dim]`, `out` a third of it; both f32, or both f16, as
/// their gradients are.
pub fn forward(r: &mut Recorder, out: &View, lse: &View, qkv: &View, scores: Scores, dims: Dims) -> Result<()> {
    check("attention", "out", out, dims.len());
    check("attention", "lse", lse, dims.stats());
    check("attention", "qkv", qkv, 3 * dims.len());
    scores.check(dims);
    let (len, stats) = (dims.len() / dims.batch, dims.stats() / dims.batch);
    let tile = tile(r, Pass::Forward, qkv.element, scores.kind(), dims);
    for (part, dims) in dims.parts(r, qkv.element, 2) {
        let (kernel, grid) = kernel(r, tile, "forward", qkv.element, scores.kind(), dims)?;
        let (out, lse, qkv) = (rows(out, &part, len), rows(lse, &part, stats), rows(qkv, &part, 3 * len));
        let own = scores.named(&part);
        let views = [("out", &out), ("lse", &lse), ("qkv", &qkv)];
        r.push(&kernel, &with(&views, &own), &dims.params(), grid);
        r.work(dims.flops(2));
    }
    Ok(())
}

fn with<'a>(views: &[(&'a str, &'a View)], own: &'a Option<(&'static str, View)>) -> Vec<(&'a str, &'a View)> {
    views.iter().copied().chain(own.as_ref().map(|(name, view)| (*name, view))).collect()
}

/// `dqkv = ` the gradient of all three; `delta` (`[batch, heads, tokens]`) is scratch. `scores` as in [`forward`].
pub fn backward(
    r: &mut Recorder,
    dqkv: &View,
    delta: &View,
    dout: &View,
    out: &View,
    qkv: &View,
    lse: &View,
    scores: Scores,
    dims: Dims,
) -> Result<()> {
    for (name, view, len) in [("dqkv", dqkv, 3 * dims.len()), ("dout", dout, dims.len()), ("out", out, dims.len())] {
        check("attention::backward", name, view, len);
    }
    check("attention::backward", "delta", delta, dims.stats());
    scores.check(dims);
    let (len, stats) = (dims.len() / dims.batch, dims.stats() / dims.batch);
    let tile = tile(r, Pass::BackwardInput, qkv.element, scores.kind(), dims);
    for (part, dims) in dims.parts(r, qkv.element, 4) {
        let [dqkv, qkv] = [dqkv, qkv].map(|v| rows(v, &part, 3 * len));
        let [dout, out] = [dout, out].map(|v| rows(v, &part, len));
        let [delta, lse] = [delta, lse].map(|v| rows(v, &part, stats));
        let (query, grid) = kernel(r, tile, "backward_query", qkv.element, scores.kind(), dims)?;
        let views = [
            ("dqkv", &dqkv),
            ("delta", &delta),
            ("dout", &dout),
            ("attended", &out),
            ("qkv", &qkv),
            ("saved_lse", &lse),
        ];
        let own = scores.named(&part);
        r.push(&query, &with(&views, &own), &dims.params(), grid);
        r.work(dims.flops(3));
        let (key, grid) = kernel(r, tile, "backward_key", qkv.element, scores.kind(), dims)?;
        let views = [("dqkv", &dqkv), ("saved_delta", &delta), ("dout", &dout), ("qkv", &qkv), ("saved_lse", &lse)];
        r.push(&key, &with(&views, &own), &dims.params(), grid);
        r.work(dims.flops(4));
    }
    Ok(())
}

/// `drelative += ` (`[offsets, heads]`) from `dout`, what forward read and saved, and the `delta` of [`backward`], which comes before;
/// `dscores` (`[heads, tokens, tokens]`) is scratch.
pub fn backward_relative(
    r: &mut Recorder,
    drelative: &View,
    dscores: &View,
    dout: &View,
    qkv: &View,
    lse: &View,
    delta: &View,
    relative: &View,
    dims: Dims,
) -> Result<()> {
    let op = "attention::backward_relative";
    check(op, "drelative", drelative, dims.offsets() * dims.heads);
    check(op, "dscores", dscores, dims.scores());
    Scores::Relative(relative).check(dims);
    let (len, stats) = (dims.len() / dims.batch, dims.stats() / dims.batch);
    let tail = tail(qkv.element, dims.head_dim, Scoring::Relative);
    for (part, own) in dims.parts(r, qkv.element, 2) {
        let [qkv, dout] = [rows(qkv, &part, 3 * len), rows(dout, &part, len)];
        let [delta, lse] = [delta, lse].map(|v| rows(v, &part, stats));
        let kernel = r.kernel_with(&SHADER, "backward_scores", &[], &tail)?;
        let views = [
            ("dscores", dscores),
            ("qkv", &qkv),
            ("dout", &dout),
            ("saved_lse", &lse),
            ("saved_delta", &delta),
            ("relative", relative),
        ];
        let grid = [dims.tokens.div_ceil(ROWS), dims.heads, dims.tokens.div_ceil(2 * ROWS)].map(|n| n as u32);
        r.push(&kernel, &views, &Params { added: u32::from(part.start > 0), ..own.params() }, grid);
        r.work(own.flops(2));
    }
    let kernel = r.kernel_with(&SHADER, "backward_table", &[], &tail)?;
    let views = [("drelative", drelative), ("saved_dscores", dscores)];
    r.push(&kernel, &views, &dims.params(), [drelative.len.div_ceil(THREADS) as u32, 1, 1]);
    Ok(())
}
