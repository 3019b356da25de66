//! The activations of a vision transformer: what a forward pass keeps for its reverse, planned before it is allocated.
//! Every tensor is a slot of its own; which of them share memory follows from when they are used ([`Plan::pack`]).

use crate::gpu::buffer::{ALIGN, Element};
use crate::model::activations::Mode;
use crate::model::params::ParamLayout;
use crate::model::plan::{Plan, Slot};
use crate::model::precision::Precision;
use crate::model::vit::Vit;
use crate::model::vit_tail::TailSlots;
use crate::ops::{matmul, scratch_len};

/// Activations of one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockSlots {
    /// `[R, D]` each: after norm1, attention, its projection; the stream between the halves; after norm2, fc2.
    pub(super) norm1: Slot,
    pub(super) attended: Slot,
    pub(super) projected: Slot,
    pub(super) middle: Slot,
    pub(super) norm2: Slot,
    pub(super) mlp: Slot,
    /// `[R]` each.
    pub(super) mean1: Slot,
    pub(super) rstd1: Slot,
    pub(super) mean2: Slot,
    pub(super) rstd2: Slot,
    /// `[R, 3D]`, `[B, H, N]`, `[R, F]` (`[R, 2F]` with a gate), `[R, F]`.
    pub(super) qkv: Slot,
    pub(super) lse: Slot,
    pub(super) hidden: Slot,
    pub(super) activated: Slot,
    /// The stream after this block, `[R, D]`.
    pub(super) out: Slot,
}

/// Gradients inside one block: `d` of what [`BlockSlots`] has.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradientSlots {
    /// `[R, D]` each.
    pub(super) dmlp: Slot,
    pub(super) dnorm2: Slot,
    pub(super) dprojected: Slot,
    pub(super) dattended: Slot,
    pub(super) dnorm1: Slot,
    /// In f16 alone: what the branches' last layers read of `dmlp` and `dprojected`, or of the stream's gradient.
    pub(super) half_dmlp: Option<Slot>,
    pub(super) half_dprojected: Option<Slot>,
    /// `[R, F]`, `[R, F]` (`[R, 2F]` with a gate), `[R, 3D]`, `[B, H, N]`.
    pub(super) dactivated: Slot,
    pub(super) dhidden: Slot,
    pub(super) dqkv: Slot,
    pub(super) delta: Slot,
}

/// What the backward pass has besides.
#[derive(Clone, Debug)]
pub(super) struct BackwardSlots {
    /// Of the residual stream, `[R, D]`: every block adds to it.
    pub(super) dx: Slot,
    /// Of the patch embedding, and of what enters a norm before the blocks, `[R, D]` each.
    pub(super) dembedded: Slot,
    pub(super) dassembled: Option<Slot>,
    pub(super) blocks: Vec<GradientSlots>,
}

/// An f16 copy of the weights of the blocks' linear layers and of the patch embedding.
#[derive(Clone, Debug)]
pub(super) struct HalfWeights {
    /// All of them, one after another.
    pub(super) arena: Slot,
    /// Number of elements in `arena`, padding included.
    pub(super) len: usize,
    /// Where each starts, by its place in the layout.
    pub(super) offsets: Vec<(usize, usize)>,
}

impl HalfWeights {
    fn plan(layout: &ParamLayout, plan: &mut Plan, patches: Element) -> HalfWeights {
        // Twice as many halves as words lie between two places where a view may start.
        let align = |len: usize| len.next_multiple_of(2 * ALIGN);
        let embeds = if patches == Element::Half { Some("patch_embed.proj") } else { None };
        let layers =
            ["attn.qkv", "attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2"].into_iter().chain(embeds);
        let product = |name: &str| {
            name.strip_suffix(".weight").is_some_and(|stem| layers.clone().any(|layer| stem.ends_with(layer)))
        };
        let (mut len, mut offsets) = (0, Vec::new());
        for (i, param) in layout.params.iter().enumerate().filter(|(_, param)| product(&param.name)) {
            offsets.push((i, len));
            len += align(param.len);
        }
        HalfWeights { arena: plan.keep_as("weights in f16", Element::Half, len), len, offsets }
    }
}

/// What enters a norm before the blocks, and its statistics.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormSlots {
    pub(super) assembled: Slot,
    pub(super) mean: Slot,
    pub(super) rstd: Slot,
}

/// A vision transformer's own activations.
#[derive(Clone, Debug)]
pub(super) struct VitSlots {
    /// What forward writes.
    pub(super) blocks: Vec<BlockSlots>,
    /// What backward computes once more before it goes through a block; none where it reads what forward wrote.
    pub(super) again: Vec<Option<BlockSlots>>,
    pub(super) backward: Option<BackwardSlots>,
    /// In f16 alone: a copy of the weights that products read.
    pub(super) half_weights: Option<HalfWeights>,
    pub(super) patches: Slot,
    pub(super) embedded: Slot,
    pub(super) tokens: Slot,
    pub(super) norm_pre: Option<NormSlots>,
    pub(super) tail: TailSlots,
}

impl VitSlots {
    /// Adds them to `plan` for up to `batch` images; returns the scratch that the ops need as well.
    pub(super) fn plan(
        vit: &Vit,
        plan: &mut Plan,
        batch: usize,
        mode: Mode,
        precision: Precision,
    ) -> (VitSlots, usize) {
        let c = &vit.config;
        // The residual stream and its gradient are f32, whatever what branches off it is.
        let own = precision.element();
        let half = precision == Precision::F16;
        // Products with a width that 4 does not divide are f32: a patch's, where its side is odd.
        let patch_element = if c.patch_size.is_multiple_of(2) { own } else { Element::Word };
        let (d, f, hidden_dim) = (c.dim, c.mlp_dim, c.hidden_dim());
        let patches = c.grid() * c.grid();
        let (rows, stats) = (batch * c.tokens(), batch * c.tokens() * c.heads);
        let block = |plan: &mut Plan, i: usize, out: Option<Slot>| {
            let mut add_as = |name: &str, element: Element, len: usize| {
                plan.add_as(format!("activation blocks.{i}.{name}"), element, len)
            };
            let [norm1, norm2] = ["norm1", "norm2"].map(|name| add_as(name, own, rows * d));
            let attended = add_as("attn", own, rows * d);
            let qkv = add_as("attn.qkv", own, rows * 3 * d);
            let hidden = add_as("mlp.fc1", own, rows * hidden_dim);
            let activated = add_as("mlp.act", own, rows * f);
            let mut add = |name: &str, len: usize| add_as(name, Element::Word, len);
            BlockSlots {
                norm1,
                attended,
                projected: add("attn.proj", rows * d),
                middle: add("residual", rows * d),
                norm2,
                mlp: add("mlp.fc2", rows * d),
                mean1: add("norm1.mean", rows),
                rstd1: add("norm1.rstd", rows),
                mean2: add("norm2.mean", rows),
                rstd2: add("norm2.rstd", rows),
                qkv,
                lse: add("attn.lse", stats),
                hidden,
                activated,
                out: out.unwrap_or_else(|| add("out", rows * d)),
            }
        };
        let gradients = |plan: &mut Plan, i: usize| {
            let mut add_as = |name: &str, element: Element, len: usize| {
                plan.add_as(format!("gradient of blocks.{i}.{name}"), element, len)
            };
            let [half_dmlp, half_dprojected] =
                ["mlp.fc2 in f16", "attn.proj in f16"].map(|name| half.then(|| add_as(name, Element::Half, rows * d)));
            let delta = add_as("attn.lse", Element::Word, stats);
            let [dmlp, dprojected] = ["mlp.fc2", "attn.proj"].map(|name| add_as(name, Element::Word, rows * d));
            let mut add = |name: &str, len: usize| add_as(name, own, len);
            GradientSlots {
                half_dmlp,
                half_dprojected,
                dmlp,
                dnorm2: add("norm2", rows * d),
                dprojected,
                dattended: add("attn", rows * d),
                dnorm1: add("norm1", rows * d),
                dactivated: add("mlp.act", rows * f),
                dhidden: add("mlp.fc1", rows * hidden_dim),
                dqkv: add("attn.qkv", rows * 3 * d),
                delta,
            }
        };
        let blocks: Vec<BlockSlots> = (0..c.depth).map(|i| block(plan, i, None)).collect();
        // Backward begins with the last block, whose activations are still there.
        let dropped = |i: usize| mode == Mode::Recompute && i + 1 < c.depth;
        let again = (0..c.depth).map(|i| dropped(i).then(|| block(plan, i, Some(blocks[i].out)))).collect();
        let backward = (mode != Mode::Infer).then(|| BackwardSlots {
            dx: plan.add("gradient of the residual stream", rows * d),
            dembedded: plan.add_as("gradient of the patch embedding", patch_element, batch * patches * d),
            dassembled: c.parts.norm_pre.then(|| plan.add("gradient of what enters norm_pre", rows * d)),
            blocks: (0..c.depth).map(|i| gradients(plan, i)).collect(),
        });
        let pool_mlp = c.parts.attention_pool.map_or(0, |pool| pool.mlp_dim);
        let widest = hidden_dim.max(3 * d).max(c.classes).max(pool_mlp).max(c.features());
        let slots = VitSlots {
            blocks,
            again,
            backward,
            half_weights: half.then(|| HalfWeights::plan(&vit.layout, plan, patch_element)),
            patches: plan.add_as("patches", patch_element, batch * patches * 3 * c.patch_size * c.patch_size),
            embedded: plan.add("patch embedding", batch * patches * d),
            tokens: plan.add("tokens", rows * d),
            norm_pre: c.parts.norm_pre.then(|| NormSlots {
                assembled: plan.add("tokens before norm_pre", rows * d),
                mean: plan.add("norm_pre mean", rows),
                rstd: plan.add("norm_pre rstd", rows),
            }),
            tail: TailSlots::plan(c, plan, batch, mode),
        };
        let weights = [
            (rows, 3 * d, d),
            (rows, d, d),
            (rows, hidden_dim, d),
            (rows, d, f),
            (batch * patches, d, 3 * c.patch_size.pow(2)),
            (batch, pool_mlp, d),
            (batch, d, pool_mlp),
            (batch, c.features(), d),
            (batch, d, c.features()),
            (batch, c.classes, c.features()),
        ];
        let weights = weights.into_iter().filter(|(_, n, k)| n * k > 0);
        let products = weights.map(|(m, n, k)| matmul::scratch_len(m, n, k)).max().unwrap_or(0);
        (slots, scratch_len(rows, widest).max(products))
    }
}
