//! Plain fine-tuning.

use crate::method::{Method, MethodArgs};
use crate::model::Model;

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "vanilla"
    }

    fn bytes(&self, _: &MethodArgs, _: &Model) -> u64 {
        0
    }
}
