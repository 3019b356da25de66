//! What an EfficientNet, a MobileNetV2 or a MobileNetV3 is made of, as read from a checkpoint: pure data, no GPU.

use serde::{Deserialize, Serialize};

use crate::ops::gate::Kind;
use crate::shapes::Pointwise;

/// The kind of block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MobileKind {
    /// A convolution alone.
    Conv,
    /// A depth-wise convolution, then a 1×1 one (MobileNet, Howard et al. 2017).
    Separable,
    /// A 1×1 convolution that widens, a depth-wise one, and a 1×1 one that narrows (MobileNetV2, Sandler et al. 2018).
    Inverted,
    /// A convolution that widens, and a 1×1 one that narrows (EfficientNetV2, Tan & Le 2021).
    Fused,
    /// As [`MobileKind::Inverted`], with another depth-wise convolution before the first, or that one alone (MobileNetV4, Qin et al.
    /// 2024).
    Universal,
}

/// What takes the place of a stride, behind the convolution's activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AntiAlias {
    /// Nothing: the convolution has its stride.
    #[default]
    None,
    /// An average pool of 2 × 2 pixels.
    Average,
    /// A blur of 3 × 3 taps, reflected at the edges (Zhang 2019).
    Blur,
    /// The same among zeros.
    BlurAmongZeros,
}

/// Convolutions that take the place of one, each for a part of the channels (MixNet, Tan & Le 2019).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mixed {
    /// 1×1 convolutions that widen, if they are several.
    pub widen: usize,
    /// Height and width of each depth-wise kernel, if they are several; the others are 0.
    pub kernels: [usize; 6],
    /// 1×1 convolutions that narrow, if they are several.
    pub narrow: usize,
}

impl Mixed {
    /// How channels fall into `parts`: all alike, and the remainder into the first.
    pub fn split(channels: usize, parts: usize) -> Vec<usize> {
        let mut split = vec![channels / parts; parts];
        split[0] += channels % parts;
        split
    }
}

/// A block.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MobileBlock {
    /// What it consists of.
    pub kind: MobileKind,
    /// Channels between its convolutions; those that enter a separable one.
    pub middle: usize,
    /// Channels that leave it.
    pub out: usize,
    /// Height and width of the kernel of the convolution that has one; 0 if a universal block has none between its 1×1 convolutions.
    pub kernel: usize,
    /// Channels of each group of a fused block's first convolution; 0 if it has one group.
    #[serde(default)]
    pub group_size: usize,
    /// What convolutions of an inverted block are cut into.
    #[serde(default)]
    pub mixed: Mixed,
    /// The same of a universal block's first convolution; 0 if there is none.
    #[serde(default)]
    pub start: usize,
    /// Pixels from one of its outputs to the next.
    pub stride: usize,
    /// Width of the squeeze between two linear layers, which weighs the channels before the last convolution; 0 if there is none.
    pub squeeze: usize,
    /// Its activation.
    pub activation: Pointwise,
    /// Whether the activation stands behind a separable block's last convolution, too (MobileNetV1, LCNet).
    pub twice_active: bool,
    /// Whether what enters is added to what leaves.
    pub skip: bool,
}

/// What stands behind the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MobileHead {
    /// The pixels' mean alone.
    Mean,
    /// A 1×1 convolution with a norm and an activation, then the mean (EfficientNet).
    Conv {
        /// Its channels.
        width: usize,
    },
    /// The mean, then a linear layer with an activation (MobileNetV3).
    Linear {
        /// Its outputs.
        width: usize,
        /// Whether it has a bias.
        bias: bool,
        /// Whether a norm stands before the activation (MobileNetV4).
        #[serde(default)]
        norm: bool,
        /// Whether its weight is `[outputs, inputs]` and not a convolution's.
        #[serde(default)]
        flat: bool,
    },
}

/// An EfficientNet or a MobileNet in timm's terms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EfficientNetConfig {
    /// Height and width of the input, in pixels.
    pub image_size: usize,
    /// Channels of the first convolution, of stride 2, and the height and width of its kernel.
    pub stem: [usize; 2],
    /// The blocks, stage by stage.
    pub stages: Vec<Vec<MobileBlock>>,
    /// What stands behind them.
    pub tail: MobileHead,
    /// The activation of the first convolution and the tail.
    pub activation: Pointwise,
    /// The gates of channels.
    pub gate: Kind,
    /// The activation in a squeeze, if it is not the block's.
    pub squeeze_activation: Option<Pointwise>,
    /// Whether convolutions are padded as TensorFlow's "same".
    pub same: bool,
    /// What takes the place of the blocks' strides.
    #[serde(default)]
    pub anti_alias: AntiAlias,
    /// Batch norm's epsilon.
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

impl EfficientNetConfig {
    /// Channels that the stem reads.
    pub fn in_channels(&self) -> usize {
        if self.grey { 1 } else { 3 }
    }

    /// Length of the feature vector that enters the head.
    pub fn features(&self) -> usize {
        match self.tail {
            MobileHead::Mean => self.stages.iter().flatten().last().map_or(self.stem[0], |block| block.out),
            MobileHead::Conv { width } | MobileHead::Linear { width, .. } => width,
        }
    }

    /// Pixels of the image to one pixel of what leaves the last block.
    pub fn stride(&self) -> usize {
        2 * self.stages.iter().flatten().map(|block| block.stride).product::<usize>()
    }

    /// The same for images of `size` pixels.
    pub fn at(&self, size: usize) -> EfficientNetConfig {
        EfficientNetConfig { image_size: size, ..self.clone() }
    }
}
