//! The activations of an MLP.

use serde::{Deserialize, Serialize};

/// The activation inside an MLP. Loading one as another gives slightly wrong numbers without a word, so it is
/// always stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x·Φ(x)` with the error function (Hendrycks & Gimpel 2016): PyTorch's `nn.GELU()`.
    Gelu,
    /// The tanh approximation: PyTorch's `nn.GELU(approximate="tanh")`.
    GeluTanh,
    /// `x·σ(1.702x)`: OpenAI CLIP's QuickGELU.
    QuickGelu,
    /// `a·σ(a)·b` of the two halves that the MLP's first layer gives (Shazeer 2020), the first gating the second: that of
    /// DINOv2's giant. The first layer has twice as many outputs as the second has inputs.
    #[serde(rename = "swiglu")]
    SwiGlu,
    /// `gelu(a)·b` of two first layers: ViTamin's.
    #[serde(rename = "geglu")]
    GeGlu,
}

/// An activation on its own, element by element, as convolutional networks have it behind their norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pointwise {
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x·σ(x)`
    Silu,
    /// `x·min(max(x + 3, 0), 6)/6`
    HardSwish,
    /// `x·Φ(x)`
    Gelu,
}
