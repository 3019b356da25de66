//! Layer-wise learning-rate decay (Clark et al., ICLR 2020; for vision transformers Bao et al., ICLR 2022): the rate falls by
//! a factor per layer from the head down to the stem. Every method has this by `--layer-decay`; this one is plain fine-tuning with
//! a factor below 1 as its default.

use toml::Table;

use crate::method::{Method, MethodArgs};
use crate::model::Model;

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "llrd"
    }

    fn defaults(&self, _: f64) -> Table {
        toml::toml! { layer-decay = 0.75 }
    }

    fn bytes(&self, _: &MethodArgs, _: &Model) -> u64 {
        0
    }
}
