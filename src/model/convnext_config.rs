//! What a ConvNeXt is made of, as read from a checkpoint: pure data, no GPU.

use serde::{Deserialize, Serialize};

use crate::shapes::Activation;

/// What stands before the first stage; a norm ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConvNextStem {
    /// One convolution over patches that touch.
    Patch {
        /// Height and width of a patch, in pixels.
        size: usize,
    },
    /// Two 3×3 convolutions of stride 2.
    Overlap {
        /// Channels between them.
        middle: usize,
    },
}

/// What stands behind the tower, into the space that images and texts share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConvNextProjection {
    /// A linear map without a bias.
    Linear {
        /// Length of what leaves it.
        features: usize,
    },
    /// Two linear layers with GELU between them, the second without a bias.
    Mlp {
        /// Width between them.
        hidden: usize,
        /// Length of what leaves it.
        features: usize,
    },
}

/// The pixels of one stage, and its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvNextStage {
    /// Blocks.
    pub depth: usize,
    /// Channels.
    pub width: usize,
    /// Width of the blocks' MLPs.
    pub hidden: usize,
    /// Height and width of the depth-wise kernels, an odd number.
    pub kernel: usize,
}

/// The shapes that parameters have in the library that the file comes from, where libraries differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConvNextShapes {
    /// Whether the MLPs' weights are those of convolutions, `[n, k, 1, 1]`.
    pub conv_mlp: bool,
    /// Whether layer scales are `[width, 1, 1]`.
    pub flat_scale: bool,
    /// Whether the response normalisation's parameters are `[1, 1, 1, hidden]`.
    pub flat_response: bool,
}

/// A ConvNeXt (Liu et al. 2022), or a ConvNeXt V2 (Woo et al. 2023), in timm's terms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvNextConfig {
    /// Height and width of the input, in pixels.
    pub image_size: usize,
    /// What stands before the stages.
    pub stem: ConvNextStem,
    /// The stages; between two of them a convolution halves the pixels along each side.
    pub stages: Vec<ConvNextStage>,
    /// The MLPs' activation.
    pub activation: Activation,
    /// Layer norm's epsilon.
    pub eps: f32,
    /// The same of the last norm.
    pub head_eps: f32,
    /// Whether blocks scale their branches (`gamma`).
    pub layer_scale: bool,
    /// Whether the MLPs normalise responses (`mlp.grn`, V2).
    pub response_norm: bool,
    /// Whether the last norm stands before the pooling (`norm_pre`) and not behind it (`head.norm`).
    pub norm_first: bool,
    /// Width of a linear layer and GELU before the head (`head.pre_logits.fc`); 0 if there is none.
    pub head_hidden: usize,
    /// Behind the pooling, of an image tower.
    pub projection: Option<ConvNextProjection>,
    /// Shapes of parameters.
    pub shapes: ConvNextShapes,
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

impl ConvNextConfig {
    /// Channels that the stem reads.
    pub fn in_channels(&self) -> usize {
        if self.grey { 1 } else { 3 }
    }

    /// Channels that leave the last stage.
    pub fn width(&self) -> usize {
        self.stages.last().map_or(0, |stage| stage.width)
    }

    /// Length of the feature vector that enters the head.
    pub fn features(&self) -> usize {
        match self.projection {
            Some(ConvNextProjection::Linear { features } | ConvNextProjection::Mlp { features, .. }) => features,
            None if self.head_hidden > 0 => self.head_hidden,
            None => self.width(),
        }
    }

    /// The name of the head: timm's `head.fc`; image towers have none, and get a `classifier`.
    pub fn head(&self) -> &'static str {
        if self.projection.is_some() { "classifier" } else { "head.fc" }
    }

    /// Pixels of the image to one pixel of what leaves the last stage.
    pub fn stride(&self) -> usize {
        let stem = match self.stem {
            ConvNextStem::Patch { size } => size,
            ConvNextStem::Overlap { .. } => 4,
        };
        stem << self.stages.len().saturating_sub(1)
    }

    /// The same for images of `size` pixels.
    pub fn at(&self, size: usize) -> ConvNextConfig {
        ConvNextConfig { image_size: size, ..self.clone() }
    }
}
