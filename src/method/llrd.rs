//! Layer-wise learning-rate decay (Clark et al., ICLR 2020; for vision transformers Bao et al., ICLR 2022): the rate falls by
//! a factor a layer from the head down to the stem. Layers are counted as timm's `param_groups_layer_decay` does: a layer is
//! a block, the stem is one, and the head with what stands behind the last block is one.

use crate::method::stage::Stage;
use crate::model::ModelConfig;
use crate::shapes::ParamLayout;

/// `whole`, with `decay` to the power of the layers above as the rate.
pub fn stage(whole: Stage, decay: f64, config: &ModelConfig, layout: &ParamLayout) -> Stage {
    let last = config.blocks() + 1;
    whole.with_rates(|name| decay.powi((last - config.layer(name)) as i32) as f32, layout)
}
