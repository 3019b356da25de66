//! The list of stems, and which kernels each of them holds to its reference.

use super::{Plan, anchor, attention, batch_norm, conv, features, half, linear, loss, mars, norm, optim, peak};
use super::{pointwise, pooling};
use crate::error::Result;

/// A group of cases.
#[derive(Clone, Copy, Debug)]
pub struct Stem {
    /// The name that shader, host wrapper and reference share.
    pub name: &'static str,
    /// Names of the kernels that its outcomes are about, [`super::Outcome::kernel`] without the format.
    pub kernels: &'static [&'static str],
    /// Lists its cases.
    pub(super) list: fn(&mut Plan) -> Result<()>,
}

/// The stems, in the order in which they run.
pub fn stems() -> &'static [Stem] {
    const STEMS: &[Stem] = &[
        Stem {
            name: "matmul",
            list: linear::matmul,
            kernels: &["matmul::forward", "matmul::backward_input", "matmul::backward_weight"],
        },
        Stem {
            name: "epilogue",
            list: linear::epilogues,
            kernels: &[
                "matmul::forward",
                "matmul::forward_gelu",
                "matmul::forward_residual",
                "matmul::backward_input",
                "matmul::backward_input_gelu",
            ],
        },
        Stem { name: "column_sum", list: linear::column_sum, kernels: &["column_sum::forward", "column_sum::spread"] },
        Stem {
            name: "layer_norm",
            list: norm::layer_norm,
            kernels: &["layer_norm::forward", "layer_norm::backward_input", "layer_norm::backward_params"],
        },
        Stem { name: "gelu", list: pointwise::gelu, kernels: &["gelu::forward", "gelu::backward"] },
        Stem { name: "swiglu", list: pointwise::swiglu, kernels: &["swiglu::forward", "swiglu::backward"] },
        Stem {
            name: "residual",
            list: pointwise::residual,
            kernels: &[
                "residual::forward",
                "residual::forward_scaled",
                "residual::backward_input",
                "residual::backward_params",
            ],
        },
        Stem { name: "pool", list: pointwise::pool, kernels: &["pool::forward", "pool::backward"] },
        Stem {
            name: "conv2d",
            list: conv::conv2d,
            kernels: &["conv2d::forward", "conv2d::backward_input", "conv2d::backward_weight", "conv2d::to_nhwc"],
        },
        Stem {
            name: "batch_norm",
            list: batch_norm::batch_norm,
            kernels: &["batch_norm::forward", "batch_norm::running", "batch_norm::backward"],
        },
        Stem { name: "relu", list: batch_norm::relu, kernels: &["relu::forward", "relu::backward"] },
        Stem { name: "max_pool", list: pooling::max_pool, kernels: &["max_pool::forward", "max_pool::backward"] },
        Stem { name: "avg_pool", list: pooling::avg_pool, kernels: &["avg_pool::forward", "avg_pool::backward"] },
        Stem {
            name: "patch_embed",
            list: pointwise::patch_embed,
            kernels: &[
                "patch_embed::unfold",
                "patch_embed::assemble",
                "patch_embed::backward_embedded",
                "patch_embed::backward_pos",
                "patch_embed::backward_prefix",
            ],
        },
        Stem {
            name: "attention",
            list: attention::attention,
            kernels: &["attention::forward", "attention::backward_query", "attention::backward_key"],
        },
        Stem {
            name: "attention_pool",
            list: attention::attention_pool,
            kernels: &[
                "attention_pool::forward",
                "attention_pool::backward_query",
                "attention_pool::backward_key",
                "attention_pool::assemble",
                "attention_pool::backward_assemble",
                "column_sum::forward",
            ],
        },
        Stem {
            name: "l2_normalize",
            list: features::l2_normalize,
            kernels: &["l2_normalize::forward", "l2_normalize::backward"],
        },
        Stem { name: "average", list: features::average, kernels: &["average::forward", "average::backward"] },
        Stem {
            name: "cross_entropy",
            list: loss::cross_entropy,
            kernels: &["cross_entropy::forward", "cross_entropy::forward_scaled", "cross_entropy::record"],
        },
        Stem { name: "cast", list: half::cast, kernels: &["cast::forward"] },
        Stem {
            name: "half",
            list: half::half,
            kernels: &[
                "matmul::forward",
                "matmul::forward_gelu",
                "matmul::forward_residual",
                "matmul::backward_input",
                "matmul::backward_input_gelu",
                "matmul::backward_weight",
                "column_sum::forward",
                "layer_norm::forward",
                "layer_norm::backward_input",
                "layer_norm::backward_params",
                "attention::forward",
                "attention::backward",
                "swiglu::forward",
                "swiglu::backward",
                "patch_embed::unfold",
                "patch_embed::backward_embedded",
                "patch_embed::backward_pos",
                "patch_embed::backward_prefix",
            ],
        },
        Stem { name: "loss_scale", list: half::loss_scale, kernels: &["loss_scale::settle", "loss_scale::observe"] },
        Stem { name: "sgd", list: optim::sgd, kernels: &["sgd::plain", "sgd::forward"] },
        Stem { name: "adamw", list: optim::adamw, kernels: &["adamw::forward"] },
        Stem { name: "norm_clip", list: optim::norm_clip, kernels: &["norm_clip::squares", "norm_clip::clip"] },
        Stem { name: "mars", list: mars::mars, kernels: &["mars::project", "mars::step", "mars::apply", "mars::clip"] },
        Stem { name: "ftp", list: anchor::ftp, kernels: &["ftp::apply", "ftp::learn", "ftp::clip"] },
        Stem { name: "spd", list: anchor::spd, kernels: &["spd::apply"] },
        Stem { name: "l2_sp", list: anchor::l2_sp, kernels: &["l2_sp::backward"] },
        Stem { name: "lerp", list: anchor::lerp, kernels: &["lerp::forward"] },
        Stem { name: "peak", list: peak::peak, kernels: &["peak::multiply_add", "peak::copy"] },
    ];
    STEMS
}
