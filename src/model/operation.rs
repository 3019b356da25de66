//! What a layer computes in evaluation, in words: what a program needs that writes a network for another runtime.
//!
//! Values are those of the tape: `[batch, height, width, cols]`, or `[batch, tokens, cols]` with a width of 1.

use crate::model::value::{Act, ParamRef, Statistic};
use crate::ops::{avg_pool, blur, conv2d, depthwise, gate, max_pool, rope, split_attention, swiglu, unfold};
use crate::shapes::{Activation, Pointwise, Prefix};

/// A batch norm with its running statistics.
#[derive(Clone, Copy, Debug)]
pub struct Normed {
    /// Times, `[cols]`.
    pub weight: ParamRef,
    /// Plus, `[cols]`.
    pub bias: ParamRef,
    /// The mean, `[cols]`.
    pub mean: Statistic,
    /// The variance, `[cols]`.
    pub var: Statistic,
    /// Added to the variance.
    pub eps: f32,
}

/// What comes before the patches, and where all tokens are.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// `[dim]`
    pub class_token: Option<ParamRef>,
    /// `[registers, dim]`
    pub registers: Option<ParamRef>,
    /// A row of `dim` for each token that has a position.
    pub positions: Option<ParamRef>,
    /// Which tokens come before the patches.
    pub prefix: Prefix,
}

/// By which angles queries and keys turn.
#[derive(Clone, Copy, Debug)]
pub enum Angles {
    /// A table for all heads, a [constant](crate::model::Tape::constant): that of [`rope::forward`].
    Table(Act),
    /// Those that a block has learned, `[2, blocks, heads, head_dim/2]`.
    Learned(ParamRef, rope::Learned),
}

/// What becomes of a linear layer's product.
#[derive(Clone, Copy, Debug)]
pub enum LinearEnd {
    /// Nothing.
    Plain,
    /// It goes through an activation that has no gate.
    Through(Activation),
    /// It is added to a stream, times `gamma` `[cols]` if there is one.
    Onto {
        /// What it is added to.
        stream: Act,
        /// Times.
        gamma: Option<ParamRef>,
    },
}

/// The operation of a layer. `inp` is what it reads, `out` what it gives.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the fields have the names and shapes of the layers' own
pub enum Operation {
    /// Nothing: the layer is there for its reverse alone.
    Nothing,
    /// An activation, element by element.
    Activation { inp: Act, out: Act, kind: Pointwise },
    /// `out = stream + gamma·branch`
    Add { stream: Act, branch: Act, gamma: Option<ParamRef>, out: Act },
    /// Self-attention over query, key and value side by side, with a bias by offset if `relative`.
    Attention { qkv: Act, out: Act, relative: Option<ParamRef>, heads: usize },
    /// Attention of one query per image, `[B, D]`.
    Attend { q: Act, k: Act, v: Act, out: Act, heads: usize },
    /// The mean of the pixels, then the pixels, each at its position.
    TokensOfPixels { inp: Act, out: Act, positions: ParamRef },
    /// A parameter once for each row of `out`.
    Spread { latent: ParamRef, out: Act },
    /// `(a + b) / 2`
    Average { inputs: [Act; 2], out: Act },
    /// The mean of each window, of the pixels that lie in the image.
    AvgPool { inp: Act, out: Act, dims: avg_pool::Dims },
    /// A batch norm, plus a shortcut, through an activation.
    BatchNorm { own: Normed, inp: Act, out: Act, shortcut: Option<Act>, activation: Option<Pointwise> },
    /// A bias per channel, through a ReLU.
    Bias { inp: Act, out: Act, bias: ParamRef, relu: bool },
    /// A fixed filter.
    Blur { inp: Act, out: Act, dims: blur::Dims },
    /// A convolution; its weight is standardised with `eps` if that is there.
    Conv { inp: Act, out: Act, weight: ParamRef, dims: conv2d::Dims, standardized: Option<f32> },
    /// A depth-wise convolution.
    Depthwise { inp: Act, out: Act, weight: ParamRef, bias: Option<ParamRef>, dims: depthwise::Dims },
    /// A convolution along the channels of one row per image.
    Eca { inp: Act, out: Act, weight: ParamRef },
    /// `out = inp·σ(scale)`, plus a shortcut and through a ReLU if there is one.
    Gate { inp: Act, scale: Act, out: Act, kind: gate::Kind, shortcut: Option<Act> },
    /// Global response normalisation.
    Grn { inp: Act, out: Act, weight: ParamRef, bias: ParamRef, eps: f32 },
    /// Group norm, through a ReLU.
    GroupNorm { inp: Act, out: Act, weight: ParamRef, bias: ParamRef, groups: usize, eps: f32, relu: bool },
    /// Layer norm.
    LayerNorm { inp: Act, out: Act, weight: ParamRef, bias: ParamRef, eps: f32 },
    /// A linear layer; its weight is `[outputs, inputs]`.
    Linear { inp: Act, out: Act, weight: ParamRef, bias: Option<ParamRef>, end: LinearEnd },
    /// The largest value of each window.
    MaxPool { inp: Act, out: Act, dims: max_pool::Dims },
    /// Patches of images, projected, as tokens behind their prefix.
    PatchEmbed { images: Act, out: Act, weight: ParamRef, bias: Option<ParamRef>, patch: usize, places: Places },
    /// The patches of images as rows, in the order of a convolution's weight.
    Patches { images: Act, out: Act, patch: usize, channels: usize },
    /// Tokens behind their prefix and at their positions.
    Tokens { embedded: Act, out: Act, places: Places },
    /// Images, channels last.
    Pixels { images: Act, out: Act },
    /// The means over runs of rows, each the first and their number, side by side.
    Pool { inp: Act, out: Act, runs: Vec<(usize, usize)> },
    /// `out = inp·weight`, `weight` `[inputs, outputs]`.
    Projection { inp: Act, out: Act, weight: ParamRef },
    /// Root mean square norm.
    RmsNorm { inp: Act, out: Act, weight: ParamRef, eps: f32 },
    /// Biases of query and value, and rotary positions.
    Rope { inp: Act, out: Act, angles: Option<Angles>, biases: Option<[ParamRef; 2]>, dims: rope::Dims },
    /// `count` columns from `first` on.
    Slice { inp: Act, out: Act, first: usize, count: usize },
    /// Columns side by side.
    Beside { parts: Vec<Act>, out: Act },
    /// The sum of splits, weighed by a softmax over them.
    SplitAttention { inp: Act, logits: Act, out: Act, dims: split_attention::Dims },
    /// `a·σ(a)·b` of the two halves of `inp`'s columns.
    SwiGlu { inp: Act, out: Act },
    /// The product of two values, the first gated as `by` says.
    Gated { gate: Act, value: Act, out: Act, by: swiglu::Gate },
    /// The windows of an image as rows, in the order of a convolution's weight.
    Unfold { inp: Act, out: Act, dims: unfold::Dims },
    /// Rows over their lengths.
    UnitLength { inp: Act, out: Act },
}

impl Operation {
    /// The value that it gives.
    pub fn result(&self) -> Option<Act> {
        match self {
            Self::Nothing => None,
            Self::Activation { out, .. }
            | Self::Add { out, .. }
            | Self::Attention { out, .. }
            | Self::Attend { out, .. }
            | Self::TokensOfPixels { out, .. }
            | Self::Spread { out, .. }
            | Self::Average { out, .. }
            | Self::AvgPool { out, .. }
            | Self::BatchNorm { out, .. }
            | Self::Bias { out, .. }
            | Self::Blur { out, .. }
            | Self::Conv { out, .. }
            | Self::Depthwise { out, .. }
            | Self::Eca { out, .. }
            | Self::Gate { out, .. }
            | Self::Grn { out, .. }
            | Self::GroupNorm { out, .. }
            | Self::LayerNorm { out, .. }
            | Self::Linear { out, .. }
            | Self::MaxPool { out, .. }
            | Self::PatchEmbed { out, .. }
            | Self::Patches { out, .. }
            | Self::Tokens { out, .. }
            | Self::Pixels { out, .. }
            | Self::Pool { out, .. }
            | Self::Projection { out, .. }
            | Self::RmsNorm { out, .. }
            | Self::Rope { out, .. }
            | Self::Slice { out, .. }
            | Self::Beside { out, .. }
            | Self::SplitAttention { out, .. }
            | Self::SwiGlu { out, .. }
            | Self::Gated { out, .. }
            | Self::Unfold { out, .. }
            | Self::UnitLength { out, .. } => Some(*out),
        }
    }
}
