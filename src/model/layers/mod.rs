//! The kinds of layers, one file each: what a [`Tape`](crate::model::tape::Tape) method writes, its forward pass and its reverse.

mod activation;
mod add;
mod attention;
mod attention_pool;
mod average;
mod avg_pool;
mod batch_norm;
mod bias;
mod conv2d;
mod depthwise;
mod eca;
mod embedding;
mod gate;
mod grn;
mod group_norm;
mod layer_norm;
mod linear;
mod max_pool;
mod patch_embed;
mod pixels;
mod pool;
mod projection;
mod rms_norm;
mod rope;
mod std_conv;
mod swiglu;
mod unfold;
mod unit_length;

pub use attention::TokenMask;
pub use batch_norm::BatchNormParams;
pub use conv2d::ConvParams;
pub use depthwise::DepthwiseParams;
pub use group_norm::GroupNormParams;
pub use linear::LinearParams;
pub use patch_embed::EmbedParams;
pub use rope::Turns;
