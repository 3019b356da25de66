//! In which format activations are kept.

use serde::{Deserialize, Serialize};

use crate::gpu::buffer::Element;

/// The format of a model's activations and of what its products and convolutions read. Weights, their gradients and every sum
/// are f32 whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout.
    #[default]
    F32,
    /// 16-bit floats inside a vision transformer's blocks and its patch embedding, and in a ResNet from its pixels to the
    /// last pool's input. A transformer's residual stream and its final norm, a batch norm's statistics, pooled features,
    /// the head and the loss stay f32.
    F16,
}

impl Precision {
    /// What an activation holds.
    pub fn element(self) -> Element {
        match self {
            Precision::F32 => Element::Word,
            Precision::F16 => Element::Half,
        }
    }
}
