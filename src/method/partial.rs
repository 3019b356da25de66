//! Partial fine-tuning: the stem and the first k blocks stay as they were pre-trained. Backward ends above them.

use crate::method::stage::Stage;
use crate::model::ModelConfig;
use crate::model::place::Place;
use crate::shapes::ParamLayout;

/// `whole`, with the stem and the first `frozen_blocks` blocks at rest; with 0, nothing.
pub fn stage(whole: Stage, frozen_blocks: usize, config: &ModelConfig, layout: &ParamLayout) -> Stage {
    let rests = |name: &str| match config.place(name) {
        Place::Stem => frozen_blocks > 0,
        Place::Block(block) => block < frozen_blocks,
        Place::Tail | Place::Head => false,
    };
    whole.with_rates(|name| if rests(name) { 0.0 } else { 1.0 }, layout)
}
