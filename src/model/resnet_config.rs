//! What a ResNet is made of, as read from a checkpoint: pure data, no GPU.

use serde::{Deserialize, Serialize};

use crate::shapes::Pointwise;

/// The kind of residual block (He et al. 2016).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// Two 3×3 convolutions, the stride on the first.
    Basic,
    /// 1×1, 3×3, 1×1, the stride on the 3×3 as torchvision and timm have it.
    Bottleneck,
}

/// What stands before the first block; a pool of stride 2 ends it, but for the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// A 7×7 convolution of stride 2, a 3×3 max pool.
    Conv,
    /// Three 3×3 convolutions, the first of stride 2 (ResNet-C and -D, He et al. 2019), a 3×3 max pool.
    Deep,
    /// The same by other names (SENet-154, Hu et al. 2018).
    Three,
    /// Three 3×3 convolutions, the first of stride 2, a 2×2 average pool (CLIP, Radford et al. 2021).
    Clip,
    /// A 3×3 convolution of stride 2 and no pool (RegNet, Radosavovic et al. 2020).
    Halved,
    /// A 3×3 convolution of stride 1 and no pool, for CIFAR's images of 32 × 32 pixels (He et al. 2016, section 4.2).
    Small,
}

/// How a block changes the shape: its shortcut, and where its stride is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Downsample {
    /// A 1×1 convolution with the block's stride.
    Conv,
    /// A 2×2 average pool where there is a stride, which may reach over the edge, then a 1×1 convolution (ResNet-D).
    Avg,
    /// The same with whole windows alone, and the branch has no other stride either: its average pool stands behind the
    /// 3×3 convolution of a bottleneck (CLIP; the strides are anti-aliased, Zhang 2019).
    AntiAliased,
}

/// How the pixels that leave the last block become one feature vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// Attention with their mean as the query, and a projection (CLIP's `attnpool`).
    Attention {
        /// Heads; a divisor of the last block's channels.
        heads: usize,
        /// Width of the feature vector.
        features: usize,
    },
}

/// What weighs the channels of a block's branch before the shortcut is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelAttention {
    /// Nothing.
    #[default]
    None,
    /// Two linear layers over the pixels' mean, with a ReLU between them (SE, Hu et al. 2018).
    Squeeze {
        /// Channels between the two.
        hidden: usize,
    },
    /// A convolution along the channels of the pixels' mean (ECA, Wang et al. 2020).
    Neighbours {
        /// Length of its kernel.
        kernel: usize,
    },
}

/// The splits that the 3×3 convolution of a bottleneck makes (ResNeSt, Zhang et al. 2020). Their sum, each weighed channel by channel, goes
/// on; what weighs them comes from two 1×1 convolutions over the pixels' mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splits {
    /// How many they are.
    pub radix: usize,
    /// Channels between the two convolutions.
    pub hidden: usize,
    /// Whether the pool in place of the stride stands before the 3×3 convolution and not behind the splits.
    pub pool_first: bool,
}

/// A residual block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockConfig {
    /// Channels between its convolutions.
    pub inner: usize,
    /// Channels that leave it.
    pub out: usize,
    /// Pixels from one of its outputs to the next.
    pub stride: usize,
    /// Whether its shortcut has a convolution.
    pub downsample: bool,
    /// Channels that leave the 3×3 convolution of a bottleneck, if they are others than those that enter it (SENet-154, pruned
    /// networks).
    pub second: Option<usize>,
    /// Whether the shortcut's convolution is 3×3 (SENet-154) and not 1×1.
    pub wide_shortcut: bool,
    /// What weighs the branch's channels.
    pub attention: ChannelAttention,
    /// Groups of its 3×3 convolution, if they are not [`ResNetConfig::groups`].
    pub groups: Option<usize>,
    /// What its 3×3 convolution is split into.
    pub splits: Option<Splits>,
}

/// A ResNet in torchvision's, timm's and OpenCLIP's terms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResNetConfig {
    /// Height and width of the input, in pixels.
    pub image_size: usize,
    /// The kind of its blocks.
    pub block: Block,
    /// What stands before them.
    pub stem: Stem,
    /// Output channels of the stem's convolutions: one or three.
    pub stem_widths: Vec<usize>,
    /// The blocks, stage by stage.
    pub stages: Vec<Vec<BlockConfig>>,
    /// How blocks change the shape.
    pub downsample: Downsample,
    /// How the last block's pixels become the head's input.
    #[serde(default)]
    pub pooling: Pooling,
    /// Whether an average pool of 2 × 2 pixels takes the place of the stem's max pool, and of the branches' strides, where it stands
    /// before the last convolution (timm's `aa_layer`).
    #[serde(default)]
    pub anti_alias: bool,
    /// Whether a blur of 3 × 3 taps, reflected at the edges, stands there instead, in the stem behind a max pool without a stride (Zhang
    /// 2019).
    #[serde(default)]
    pub blur: bool,
    /// Whether a 3×3 convolution of stride 2 takes the place of the stem's max pool (ResNet-RS).
    #[serde(default)]
    pub stem_pool_conv: bool,
    /// Whether channels are weighed before the last convolution of a branch (RegNet) and not behind it.
    #[serde(default)]
    pub attention_inside: bool,
    /// Whether a bottleneck's stride is taken by its first convolution (timm's legacy SE-ResNets).
    #[serde(default)]
    pub stride_first: bool,
    /// Whether the windows of the stem's max pool begin at the edge and may reach over the far one (timm's legacy SENets).
    #[serde(default)]
    pub ceil_pool: bool,
    /// Whether a ReLU stands behind the last norm of a basic block, before its gate (timm's legacy SE-ResNets).
    #[serde(default)]
    pub active_gate: bool,
    /// Groups of channels, if norms are group norms.
    #[serde(default)]
    pub norm_groups: Option<usize>,
    /// The activation.
    #[serde(default = "relu")]
    pub activation: Pointwise,
    /// Groups of the 3×3 convolutions of bottlenecks.
    pub groups: usize,
    /// Batch norm's epsilon.
    pub eps: f32,
    /// Weight of a batch in the running statistics.
    pub momentum: f32,
    /// Outputs of the head; 0 for a model without one.
    pub classes: usize,
    /// Whether the head has a bias.
    pub head_bias: bool,
    /// Whether what enters the head is scaled to unit length.
    #[serde(default)]
    pub normalize: bool,
    /// Whether the stem reads one channel and not three.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grey: bool,
}

fn relu() -> Pointwise {
    Pointwise::Relu
}

impl ResNetConfig {
    /// Channels that the stem reads.
    pub fn in_channels(&self) -> usize {
        if self.grey { 1 } else { 3 }
    }

    /// The name of the first convolution's weight.
    pub fn stem_weight(&self) -> &'static str {
        if self.stem == Stem::Deep { "conv1.0.weight" } else { "conv1.weight" }
    }

    /// Whether it has parts that neither tensors nor the usual ResNet tell.
    pub fn untold(&self) -> bool {
        let usual = self.activation == Pointwise::Relu && self.norm_groups.is_none();
        let splits = self.stages.iter().flatten().any(|block| block.splits.is_some());
        !usual || splits || self.blur || self.stride_first || self.ceil_pool || self.active_gate
    }

    /// Channels that leave the last block.
    pub fn width(&self) -> usize {
        self.stages.last().and_then(|s| s.last()).map_or(0, |b| b.out)
    }

    /// Length of the feature vector that enters the head.
    pub fn features(&self) -> usize {
        match self.pooling {
            Pooling::Mean => self.width(),
            Pooling::Attention { features, .. } => features,
        }
    }

    /// The name of the head: torchvision's `fc`; CLIP's image towers have none, and get a `head`.
    pub fn head(&self) -> &'static str {
        match self.pooling {
            Pooling::Mean => "fc",
            Pooling::Attention { .. } => "head",
        }
    }

    /// Height and width of what leaves the last block. Convolutions and max pools take windows that reach over the edge,
    /// CLIP's average pools do not.
    pub fn final_size(&self) -> usize {
        let halved = self.image_size.div_ceil(2);
        let pooled = match self.stem {
            Stem::Conv | Stem::Deep | Stem::Three if !self.anti_alias => halved.div_ceil(2),
            Stem::Conv | Stem::Deep | Stem::Three | Stem::Clip => halved / 2,
            Stem::Halved => halved,
            Stem::Small => self.image_size,
        };
        let strides = self.stages.iter().flatten().map(|b| b.stride);
        strides.fold(pooled, |size, stride| match self.downsample {
            Downsample::AntiAliased => size / stride,
            _ if self.anti_alias => size / stride,
            Downsample::Conv | Downsample::Avg => size.div_ceil(stride),
        })
    }

    /// The same for images of `size` pixels.
    pub fn at(&self, size: usize) -> ResNetConfig {
        ResNetConfig { image_size: size, ..self.clone() }
    }

    /// Pixels of the image to one pixel of what leaves the last block.
    pub fn stride(&self) -> usize {
        let stem = match self.stem {
            Stem::Conv | Stem::Deep | Stem::Three | Stem::Clip => 4,
            Stem::Halved => 2,
            Stem::Small => 1,
        };
        stem * self.stages.iter().flatten().map(|b| b.stride).product::<usize>()
    }
}
