//! The activations of a ResNet: what a forward pass keeps for its reverse, planned before it is allocated. Every tensor is
//! a slot of its own; which of them share memory follows from when they are used ([`Plan::pack`]).

use crate::gpu::buffer::Element;
use crate::model::activations::Mode;
use crate::model::attention_pool::AttentionSlots;
use crate::model::half_weights::HalfWeights;
use crate::model::head::UnitSlots;
use crate::model::plan::{Plan, Slot};
use crate::model::precision::Precision;
use crate::model::resnet_layers::{Block, Layer, ResNet, StemPool};
use crate::ops::{batch_norm, conv2d, scratch_len};

/// Activations of a convolution and its norm.
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

/// Gradients of a convolution's output, and of its input where that lies inside a block or the stem.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradientSlots {
    pub(super) dconv: Slot,
    pub(super) dinp: Slot,
}

/// Gradients of a block.
#[derive(Clone, Debug)]
pub(super) struct BlockGradients {
    pub(super) units: Vec<GradientSlots>,
    pub(super) shortcut: Option<GradientSlots>,
    /// Of what enters the block.
    pub(super) dinp: Slot,
    /// Of what enters an average pool in the branch.
    pub(super) dunpooled: Option<Slot>,
}

/// What the backward pass has besides.
#[derive(Clone, Debug)]
pub(super) struct BackwardSlots {
    pub(super) stem: Vec<GradientSlots>,
    /// Of what leaves the stem's last norm, and of what leaves the last block.
    pub(super) dstem: Slot,
    pub(super) dlast: Slot,
    pub(super) blocks: Vec<BlockGradients>,
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
    /// What forward writes.
    pub(super) blocks: Vec<BlockSlots>,
    /// What backward computes once more before it goes through a block; none where it reads what forward wrote.
    pub(super) again: Vec<Option<BlockSlots>>,
    /// In f16 alone: a copy of the weights that convolutions and products read.
    pub(super) half_weights: Option<HalfWeights>,
    pub(super) attention: Option<AttentionSlots>,
    pub(super) features: Slot,
    pub(super) unit: Option<UnitSlots>,
    pub(super) backward: Option<BackwardSlots>,
}

/// The largest of some lengths.
fn largest(lens: impl IntoIterator<Item = usize>) -> usize {
    lens.into_iter().max().unwrap_or(1)
}

impl LayerSlots {
    fn plan(plan: &mut Plan, layer: &Layer, batch: usize, element: Element) -> LayerSlots {
        let name = &layer.name;
        LayerSlots {
            conv: plan.add_as(format!("activation {name}"), element, layer.out_len(batch)),
            mean: plan.add(format!("{name} mean"), layer.dims.out_channels),
            rstd: plan.add(format!("{name} rstd"), layer.dims.out_channels),
            out: plan.add_as(format!("activation {name} norm"), element, layer.out_len(batch)),
        }
    }

    /// Slots to compute these once more: the statistics stay.
    fn again(self, plan: &mut Plan, layer: &Layer, batch: usize, element: Element) -> LayerSlots {
        LayerSlots { mean: self.mean, rstd: self.rstd, ..LayerSlots::plan(plan, layer, batch, element) }
    }
}

/// What leaves a block's average pools: before its shortcut, and before the last convolution of its branch.
fn pooled(plan: &mut Plan, block: &Block, batch: usize, element: Element) -> [Option<Slot>; 2] {
    let pools = [("shortcut", block.shortcut_pool(batch)), ("branch", block.branch_pool(batch))];
    pools.map(|(name, pool)| Some(plan.add_as(format!("activation pooled {name}"), element, pool?.out_len())))
}

impl BlockSlots {
    fn plan(plan: &mut Plan, block: &Block, batch: usize, element: Element) -> BlockSlots {
        let units = block.units.iter().map(|l| LayerSlots::plan(plan, l, batch, element)).collect();
        let shortcut = block.shortcut.as_ref().map(|l| LayerSlots::plan(plan, l, batch, element));
        let [pooled, branch_pooled] = pooled(plan, block, batch, element);
        BlockSlots { units, shortcut, pooled, branch_pooled }
    }

    /// Slots to compute these once more: what leaves the block stays, and so do all statistics.
    fn again(&self, plan: &mut Plan, block: &Block, batch: usize, element: Element) -> BlockSlots {
        let units = block.units.iter().zip(&self.units);
        let mut units: Vec<LayerSlots> = units.map(|(l, own)| own.again(plan, l, batch, element)).collect();
        let shortcut = block.shortcut.as_ref().zip(self.shortcut);
        let shortcut = shortcut.map(|(l, own)| own.again(plan, l, batch, element));
        let [pooled, branch_pooled] = pooled(plan, block, batch, element);
        let last = self.units.len() - 1;
        units[last].out = self.units[last].out;
        BlockSlots { units, shortcut, pooled, branch_pooled }
    }
}

impl GradientSlots {
    fn plan(plan: &mut Plan, layer: &Layer, batch: usize, element: Element) -> GradientSlots {
        GradientSlots {
            dconv: plan.add_as(format!("gradient of {}", layer.name), element, layer.out_len(batch)),
            dinp: plan.add_as(format!("gradient of what enters {}", layer.name), element, layer.in_len(batch)),
        }
    }
}

impl BlockGradients {
    fn plan(plan: &mut Plan, block: &Block, batch: usize, element: Element) -> BlockGradients {
        let units = block.units.iter().map(|l| GradientSlots::plan(plan, l, batch, element)).collect();
        let shortcut = block.shortcut.as_ref().map(|l| GradientSlots::plan(plan, l, batch, element));
        let dinp = plan.add_as("gradient of what enters a block", element, block.units[0].in_len(batch));
        let mut dunpooled = |len: usize| plan.add_as("gradient of a pooled branch", element, len);
        BlockGradients { units, shortcut, dinp, dunpooled: block.branch_pool(batch).map(|p| dunpooled(p.in_len())) }
    }
}

impl ResNetSlots {
    /// Adds them to `plan` for up to `batch` images; returns the scratch that the ops need as well.
    pub(super) fn plan(
        net: &ResNet,
        plan: &mut Plan,
        batch: usize,
        mode: Mode,
        precision: Precision,
    ) -> (ResNetSlots, usize) {
        // The features, what comes behind them, and all statistics are f32.
        let own = precision.element();
        let layers: Vec<&Layer> = net.layers().collect();
        let blocks: Vec<BlockSlots> = net.blocks.iter().map(|b| BlockSlots::plan(plan, b, batch, own)).collect();
        // Backward begins with the last block, whose activations are still there.
        let dropped = |i: usize| mode == Mode::Recompute && i + 1 < blocks.len();
        let again = net.blocks.iter().zip(&blocks).enumerate();
        let again = again.map(|(i, (b, slots))| dropped(i).then(|| slots.again(plan, b, batch, own))).collect();
        let backward = (mode != Mode::Infer).then(|| BackwardSlots {
            stem: net.stem.iter().map(|l| GradientSlots::plan(plan, l, batch, own)).collect(),
            dstem: plan.add_as("gradient of the stem", own, net.stem_pool(batch).in_len()),
            dlast: plan.add_as("gradient of the last block", own, largest(net.blocks.last().map(|b| b.out_len(batch)))),
            blocks: net.blocks.iter().map(|b| BlockGradients::plan(plan, b, batch, own)).collect(),
            dfeatures: plan.add("gradient of the features", batch * net.config.features()),
        });
        let slots = ResNetSlots {
            pixels: plan.add_as("images with channels last", own, net.stem[0].in_len(batch)),
            stem: net.stem.iter().map(|l| LayerSlots::plan(plan, l, batch, own)).collect(),
            stem_pooled: plan.add_as("activation stem", own, net.stem_pool(batch).out_len()),
            tap: match net.stem_pool(batch) {
                StemPool::Max(dims) => Some(plan.add("max pool taps", dims.out_len())),
                StemPool::Avg(_) => None,
            },
            attention: net.attention.as_ref().map(|a| AttentionSlots::plan(a, plan, batch, mode, own)),
            blocks,
            again,
            half_weights: (precision == Precision::F16).then(|| half_weights(net, plan)),
            features: plan.add("features", batch * net.config.features()),
            unit: UnitSlots::plan(plan, net.config.normalize, batch, net.config.features(), mode),
            backward,
        };
        let attention = largest(net.attention.iter().map(|a| a.scratch_len(batch)));
        (slots, scratch(&layers, batch, net.config.classes).max(attention))
    }
}

/// The f16 copy of the weights of all convolutions and of an attention pool's projections.
fn half_weights(net: &ResNet, plan: &mut Plan) -> HalfWeights {
    let mut products: Vec<usize> = net.layers().map(|layer| layer.weight).collect();
    products.extend(net.attention.iter().flat_map(|attention| attention.weights()));
    HalfWeights::plan(&net.layout, plan, |index, _| products.contains(&index))
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
