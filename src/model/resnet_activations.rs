//! The activations of a ResNet: what a forward pass keeps for its reverse, planned before it is allocated.

use crate::model::activations::Mode;
use crate::model::attention_pool::AttentionSlots;
use crate::model::plan::{Plan, Slot};
use crate::model::resnet_layers::{Block, Layer, ResNet, StemPool};
use crate::ops::{batch_norm, conv2d, scratch_len};

/// Activations of a convolution and its norm. In [`Mode::Infer`] all share their slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerSlots {
    /// The convolution's output, `[B, H', W', O]`.
    pub(super) conv: Slot,
    /// The statistics that the norm took, `[O]` each.
    pub(super) mean: Slot,
    pub(super) rstd: Slot,
    /// What leaves the norm, after ReLU and shortcut where there are any.
    pub(super) out: Slot,
}

/// Activations of a block.
#[derive(Clone, Debug)]
pub(super) struct BlockSlots {
    pub(super) units: Vec<LayerSlots>,
    /// Where the shortcut has a convolution.
    pub(super) shortcut: Option<LayerSlots>,
    /// The average pool before it.
    pub(super) pooled: Option<Slot>,
    /// The average pool before the branch's last convolution.
    pub(super) branch_pooled: Option<Slot>,
}

/// Buffers of the backward pass, each as large as the largest tensor that it ever holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct BackwardSlots {
    /// Gradient of the stream between blocks: block `i` reads `[(i + 1) % 2]` and writes `[i % 2]`.
    pub(super) dx: [Slot; 2],
    /// Gradient of a convolution's output, and of its input inside a block.
    pub(super) dconv: Slot,
    pub(super) dinner: Slot,
    /// Gradient of what an average pool in the branch gave.
    pub(super) dpooled: Slot,
    pub(super) dfeatures: Slot,
}

/// A ResNet's own activations.
#[derive(Clone, Debug)]
pub(super) struct ResNetSlots {
    /// The images with channels last, four to a pixel.
    pub(super) pixels: Slot,
    pub(super) stem: Vec<LayerSlots>,
    pub(super) stem_pooled: Slot,
    /// Where the max pool's values come from, u32; a max pool alone has them.
    pub(super) tap: Option<Slot>,
    pub(super) blocks: Vec<BlockSlots>,
    pub(super) attention: Option<AttentionSlots>,
    pub(super) features: Slot,
    pub(super) backward: Option<BackwardSlots>,
}

/// The largest of some lengths.
fn largest(lens: impl IntoIterator<Item = usize>) -> usize {
    lens.into_iter().max().unwrap_or(1)
}

impl ResNetSlots {
    /// Adds them to `plan` for up to `batch` images; returns the scratch that the ops need as well.
    pub(super) fn plan(net: &ResNet, plan: &mut Plan, batch: usize, mode: Mode) -> (ResNetSlots, usize) {
        let layers: Vec<&Layer> = net.layers().collect();
        let widest = largest(layers.iter().map(|l| l.dims.out_channels));
        let largest_conv = largest(layers.iter().map(|l| l.out_len(batch)));
        let largest_out = largest(net.blocks.iter().map(|b| b.out_len(batch)).chain([net.stem_pool(batch).out_len()]));
        let shortcut_pools = net.blocks.iter().filter_map(|b| b.shortcut_pool(batch));
        let branch_pools = net.blocks.iter().filter_map(|b| b.branch_pool(batch));
        let largest_pooled = largest(shortcut_pools.chain(branch_pools.clone()).map(|p| p.out_len()));
        let pixels = plan.add("images with channels last", net.stem[0].in_len(batch));
        let new = |plan: &mut Plan, layer: &Layer, out: Option<Slot>| {
            let name = &layer.name;
            LayerSlots {
                conv: plan.add(format!("activation {name}"), layer.out_len(batch)),
                mean: plan.add(format!("{name} mean"), layer.dims.out_channels),
                rstd: plan.add(format!("{name} rstd"), layer.dims.out_channels),
                out: out.unwrap_or_else(|| plan.add(format!("activation {name} norm"), layer.out_len(batch))),
            }
        };
        let (stem, stem_pooled, blocks);
        if mode == Mode::Train {
            stem = net.stem.iter().map(|l| new(plan, l, None)).collect();
            stem_pooled = plan.add("activation stem", net.stem_pool(batch).out_len());
            let mut block = |b: &Block| BlockSlots {
                units: b.units.iter().map(|l| new(plan, l, None)).collect(),
                shortcut: b.shortcut.as_ref().map(|l| new(plan, l, None)),
                pooled: b.shortcut_pool(batch).map(|p| plan.add("activation pooled shortcut", p.out_len())),
                branch_pooled: b.branch_pool(batch).map(|p| plan.add("activation pooled branch", p.out_len())),
            };
            blocks = net.blocks.iter().map(&mut block).collect();
        } else {
            // A norm reads what its convolution wrote, and nobody reads the convolution's input by then: three buffers
            // and the shortcut's serve all layers. A branch pools after its shortcut has used what it pooled.
            let shared = LayerSlots {
                conv: plan.add("activation of a convolution", largest_conv),
                mean: plan.add("means", widest),
                rstd: plan.add("rstd", widest),
                out: plan.add("activation of a norm", largest_conv),
            };
            let outs = [0, 1].map(|i| plan.add(format!("activation of blocks {i}"), largest_out));
            let shortcut = plan.add("activation of a shortcut", largest_out);
            let pooled = plan.add("activation of an average pool", largest_pooled);
            stem = vec![shared; net.stem.len()];
            stem_pooled = outs[1];
            let block = |(i, b): (usize, &Block)| {
                let mut units = vec![shared; b.units.len()];
                units.last_mut().expect("a block has convolutions").out = outs[i % 2];
                BlockSlots {
                    units,
                    shortcut: b.shortcut.as_ref().map(|_| LayerSlots { out: shortcut, ..shared }),
                    pooled: b.shortcut_pool(batch).map(|_| pooled),
                    branch_pooled: b.branch_pool(batch).map(|_| pooled),
                }
            };
            blocks = net.blocks.iter().enumerate().map(block).collect();
        }
        let inner = |b: &Block| largest(b.units[..b.units.len() - 1].iter().map(|l| l.out_len(batch)));
        let largest_inner = largest(net.blocks.iter().map(inner).chain(net.stem.iter().map(|l| l.out_len(batch))));
        let backward = (mode == Mode::Train).then(|| BackwardSlots {
            dx: [0, 1].map(|i| plan.add(format!("gradient of blocks {i}"), largest_out)),
            dconv: plan.add("gradient of a convolution's output", largest_conv),
            dinner: plan.add("gradient inside a block", largest_inner.max(largest_pooled)),
            dpooled: plan.add("gradient of a pooled branch", largest(branch_pools.map(|p| p.out_len()))),
            dfeatures: plan.add("gradient of the features", batch * net.config.features()),
        });
        let slots = ResNetSlots {
            pixels,
            stem,
            stem_pooled,
            tap: match net.stem_pool(batch) {
                StemPool::Max(dims) => Some(plan.add("max pool taps", dims.out_len())),
                StemPool::Avg(_) => None,
            },
            blocks,
            attention: net.attention.as_ref().map(|a| AttentionSlots::plan(a, plan, batch, mode)),
            features: plan.add("features", batch * net.config.features()),
            backward,
        };
        let attention = largest(net.attention.iter().map(|a| a.scratch_len(batch)));
        (slots, scratch(&layers, batch, net.config.classes).max(attention))
    }
}

/// Scratch for any batch up to `batch`: a smaller one may cut its sums into more pieces.
fn scratch(layers: &[&Layer], batch: usize, classes: usize) -> usize {
    let of = |layer: &Layer, batch: usize| {
        let dims = layer.dims(batch);
        conv2d::scratch_len(dims).max(batch_norm::scratch_len(dims.out_pixels(), dims.out_channels))
    };
    let layers = (1..=batch).flat_map(|b| layers.iter().map(move |l| of(l, b)));
    largest(layers).max(scratch_len(batch, classes))
}
