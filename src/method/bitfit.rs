//! BitFit (Ben Zaken, Goldberg & Ravfogel, ACL 2022): biases alone are trained, and the head.

use crate::method::stage::Stage;
use crate::model::ModelConfig;
use crate::model::place::Place;
use crate::shapes::ParamLayout;

/// `whole`, with everything but biases and the head at rest.
pub fn stage(whole: Stage, config: &ModelConfig, layout: &ParamLayout) -> Stage {
    let trained = |name: &str| name.ends_with("bias") || config.place(name) == Place::Head;
    whole.with_rates(|name| if trained(name) { 1.0 } else { 0.0 }, layout)
}
