//! What a VGG is made of, as read from a checkpoint: pure data, no GPU.

use serde::{Deserialize, Serialize};

/// Pixels along a side of what its first hidden layer reads.
pub const GRID: usize = 7;

/// A VGG (Simonyan & Zisserman 2015) in timm's terms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VggConfig {
    /// Height and width of the input, in pixels.
    pub image_size: usize,
    /// Output channels of the 3×3 convolutions, those before each max pool of 2 × 2 pixels.
    pub widths: Vec<Vec<usize>>,
    /// Whether a batch norm stands behind each of them.
    pub norm: bool,
    /// Widths of the two hidden layers before the head.
    pub hidden: [usize; 2],
    /// Whether their weights are `[outputs, inputs]` and not those of convolutions.
    pub flat: bool,
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
    /// Whether the first convolution reads one channel and not three.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grey: bool,
}

impl VggConfig {
    /// Channels that the first convolution reads.
    pub fn in_channels(&self) -> usize {
        if self.grey { 1 } else { 3 }
    }

    /// Channels that leave the last convolution.
    pub fn width(&self) -> usize {
        self.widths.iter().flatten().last().copied().unwrap_or(0)
    }

    /// Length of the feature vector that enters the head.
    pub fn features(&self) -> usize {
        self.hidden[1]
    }

    /// Pixels of the image to one pixel of what leaves the last pool.
    pub fn stride(&self) -> usize {
        1 << self.widths.len()
    }
}
