//! The activations of a vision transformer: what a forward pass keeps for its reverse, planned before it is allocated.

use crate::model::activations::Mode;
use crate::model::config::VitConfig;
use crate::model::plan::{Plan, Slot};
use crate::ops::{matmul, scratch_len};

/// Activations of one block. In [`Mode::Infer`] all blocks have the same slots.
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
    /// `[R, 3D]`, `[B, H, N]`, `[R, F]`, `[R, F]`.
    pub(super) qkv: Slot,
    pub(super) lse: Slot,
    pub(super) hidden: Slot,
    pub(super) activated: Slot,
    /// The stream after this block, `[R, D]`.
    pub(super) out: Slot,
}

/// Buffers of the backward pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackwardSlots {
    /// Gradient of the residual stream, `[R, D]`, and of one branch.
    pub(super) dx: Slot,
    pub(super) dbranch: Slot,
    pub(super) dnormed: Slot,
    /// `[R, max(F, 3D)]` each.
    pub(super) dwide: Slot,
    pub(super) dhidden: Slot,
    pub(super) delta: Slot,
    pub(super) dpooled: Slot,
    pub(super) dfeatures: Slot,
}

/// A vision transformer's own activations.
#[derive(Clone, Debug)]
pub(super) struct VitSlots {
    pub(super) blocks: Vec<BlockSlots>,
    pub(super) backward: Option<BackwardSlots>,
    pub(super) patches: Slot,
    pub(super) embedded: Slot,
    pub(super) tokens: Slot,
    /// The final norm's output, over all tokens or over pooled ones, and its statistics.
    pub(super) normed: Slot,
    pub(super) mean: Slot,
    pub(super) rstd: Slot,
    pub(super) pooled: Slot,
}

impl VitSlots {
    /// Adds them to `plan` for up to `batch` images; returns the scratch that the ops need as well.
    pub(super) fn plan(c: &VitConfig, plan: &mut Plan, batch: usize, mode: Mode) -> (VitSlots, usize) {
        let (d, f) = (c.dim, c.mlp_dim);
        let patches = c.grid() * c.grid();
        let (rows, stats) = (batch * c.tokens(), batch * c.tokens() * c.heads);
        let unfolded = plan.add("patches", batch * patches * 3 * c.patch_size * c.patch_size);
        let embedded = plan.add("patch embedding", batch * patches * d);
        let tokens = plan.add("tokens", rows * d);
        // Without a layer scale nobody needs a branch's output again: one buffer serves all blocks.
        let mut branch = None;
        let mut first: Option<BlockSlots> = None;
        let mut blocks = Vec::new();
        for i in 0..c.depth {
            if let (Mode::Infer, Some(shared)) = (mode, first) {
                blocks.push(shared);
                continue;
            }
            let mut add = |name: &str, len: usize| plan.add(format!("activation blocks.{i}.{name}"), len);
            let mut output = |add: &mut dyn FnMut(&str, usize) -> Slot, name: &str| match branch {
                Some(shared) if !c.layer_scale => shared,
                _ => *branch.insert(add(name, rows * d)),
            };
            let projected = output(&mut add, "attn.proj");
            let mlp = output(&mut add, "mlp.fc2");
            let block = BlockSlots {
                norm1: add("norm1", rows * d),
                attended: add("attn", rows * d),
                projected,
                middle: add("residual", rows * d),
                norm2: add("norm2", rows * d),
                mlp,
                mean1: add("norm1.mean", rows),
                rstd1: add("norm1.rstd", rows),
                mean2: add("norm2.mean", rows),
                rstd2: add("norm2.rstd", rows),
                qkv: add("attn.qkv", rows * 3 * d),
                lse: add("attn.lse", stats),
                hidden: add("mlp.fc1", rows * f),
                activated: add("mlp.act", rows * f),
                // A block reads the stream twice, both times before it writes `out`: in inference it may write over it.
                out: if mode == Mode::Infer { tokens } else { add("out", rows * d) },
            };
            first = first.or(Some(block));
            blocks.push(block);
        }
        let backward = (mode == Mode::Train).then(|| BackwardSlots {
            dx: plan.add("gradient of the residual stream", rows * d),
            dbranch: plan.add("gradient of a branch", rows * d),
            dnormed: plan.add("gradient of a norm's output", rows * d),
            dwide: plan.add("gradient of the MLP's activation", rows * f.max(3 * d)),
            dhidden: plan.add("gradient of the MLP's hidden layer", rows * f.max(3 * d)),
            delta: plan.add("attention row sums", stats),
            dpooled: plan.add("gradient of the pooled features", batch * d),
            dfeatures: plan.add("gradient of the features", batch * d),
        });
        let normed_rows = if c.fc_norm { batch } else { rows };
        let widest = f.max(3 * d).max(c.classes);
        let slots = VitSlots {
            blocks,
            backward,
            patches: unfolded,
            embedded,
            tokens,
            normed: plan.add("final norm", normed_rows * d),
            mean: plan.add("final norm mean", normed_rows),
            rstd: plan.add("final norm rstd", normed_rows),
            pooled: plan.add("pooled features", batch * d),
        };
        let weights =
            [(rows, 3 * d, d), (rows, d, d), (rows, f, d), (rows, d, f), (batch * patches, d, 3 * c.patch_size.pow(2))];
        let products = weights.map(|(m, n, k)| matmul::scratch_len(m, n, k)).into_iter().max().unwrap_or(0);
        (slots, scratch_len(rows, widest).max(products))
    }
}
