//! Linear probing: the head alone is trained, on features that stay as they were pre-trained. Batch norm takes its running
//! statistics, and backward ends below the head.

use crate::method::settings::BatchNorm;
use crate::method::stage::Stage;
use crate::model::ModelConfig;
use crate::model::place::Place;
use crate::shapes::ParamLayout;

/// `whole`, with everything but the head at rest.
pub fn stage(whole: Stage, config: &ModelConfig, layout: &ParamLayout) -> Stage {
    let rates = |name: &str| if config.place(name) == Place::Head { 1.0 } else { 0.0 };
    Stage { batch_norm: BatchNorm::Frozen, ..whole.with_rates(rates, layout) }
}
