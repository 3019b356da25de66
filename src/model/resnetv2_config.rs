//! What a ResNetV2 is made of, as read from a checkpoint: pure data, no GPU.

use serde::{Deserialize, Serialize};

use crate::ops::max_pool::Padding;

/// What counts outside the image in the stem's 3×3 max pool of stride 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StemPool {
    /// Nothing: one pixel on each side does not count.
    Usual,
    /// One pixel on each side, as zeros (BiT, Kolesnikov et al. 2020).
    Zeros,
    /// Nothing, and windows lie as TensorFlow's "same" has them.
    Same,
}

impl StemPool {
    /// How windows lie, and whether pixels outside count as zeros.
    pub fn windows(self) -> (Padding, bool) {
        match self {
            StemPool::Usual => (Padding::Even(1), false),
            StemPool::Zeros => (Padding::Even(1), true),
            StemPool::Same => (Padding::Same, false),
        }
    }
}

/// The norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Batch norm.
    Batch,
    /// Group norm.
    Group {
        /// Groups of channels, which divide every width.
        groups: usize,
    },
}

impl NormKind {
    /// Groups of channels of a group norm.
    pub fn groups(self) -> Option<usize> {
        match self {
            NormKind::Batch => None,
            NormKind::Group { groups } => Some(groups),
        }
    }
}

/// A residual block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreBlock {
    /// Channels between its convolutions.
    pub inner: usize,
    /// Channels that leave it.
    pub out: usize,
    /// Pixels from one of its outputs to the next.
    pub stride: usize,
    /// Whether its shortcut has a convolution.
    pub downsample: bool,
}

/// A ResNet whose norms stand before its convolutions (He et al. 2016, identity mappings), in timm's terms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResNetV2Config {
    /// Height and width of the input, in pixels.
    pub image_size: usize,
    /// Output channels of the stem's convolutions: one of 7×7 pixels, or three of 3×3; the first has a stride of 2.
    pub stem_chs: Vec<usize>,
    /// The pool behind them.
    pub stem_pool: StemPool,
    /// Whether blocks have two 3×3 convolutions, and not three of 1×1, 3×3 and 1×1.
    pub basic: bool,
    /// Whether norms stand before convolutions; behind them (the backbone of hybrid ViTs) if not.
    pub preact: bool,
    /// The blocks, stage by stage.
    pub stages: Vec<Vec<PreBlock>>,
    /// Whether a 2×2 average pool takes the place of the shortcuts' stride.
    pub avg_down: bool,
    /// The norms.
    pub norm: NormKind,
    /// Where each output channel's weights have a mean of 0 and a variance of 1: the term added to the variance.
    pub standard: Option<f32>,
    /// Whether convolutions are padded as TensorFlow's "same".
    pub same: bool,
    /// The norms' epsilon.
    pub eps: f32,
    /// Weight of a batch in the running statistics.
    pub momentum: f32,
    /// Outputs of the head; 0 for a model without one.
    pub classes: usize,
    /// Whether the head has a bias.
    pub head_bias: bool,
    /// Whether what enters the head is scaled to unit length.
    pub normalize: bool,
    /// Whether the stem reads one channel and not three.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grey: bool,
}

impl ResNetV2Config {
    /// Channels that the stem reads.
    pub fn in_channels(&self) -> usize {
        if self.grey { 1 } else { 3 }
    }

    /// The name of the first convolution's weight.
    pub fn stem_weight(&self) -> &'static str {
        if self.stem_chs.len() > 1 { "stem.conv1.weight" } else { "stem.conv.weight" }
    }

    /// Length of the feature vector that enters the head.
    pub fn features(&self) -> usize {
        self.stages.iter().flatten().last().map_or(self.stem_chs.last().copied().unwrap_or(0), |block| block.out)
    }

    /// Pixels of the image to one pixel of what leaves the last block.
    pub fn stride(&self) -> usize {
        4 * self.stages.iter().flatten().map(|block| block.stride).product::<usize>()
    }

    /// The same for images of `size` pixels.
    pub fn at(&self, size: usize) -> ResNetV2Config {
        ResNetV2Config { image_size: size, ..self.clone() }
    }
}
