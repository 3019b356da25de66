//! BitFit (Ben Zaken, Goldberg & Ravfogel, ACL 2022): biases alone are trained, and the head.

use crate::error::Result;
use crate::method::stage::{Stage, Trained};
use crate::method::{Method, MethodArgs};
use crate::model::Model;
use crate::model::place::Place;

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "bitfit"
    }

    fn freezes_batch_norm(&self) -> bool {
        true
    }

    fn stages(&self, _: &MethodArgs, whole: Stage, of: &Trained) -> Result<Vec<Stage>> {
        let trained = |name: &str| name.ends_with("bias") || of.config.place(name) == Place::Head;
        Ok(vec![whole.with_rates(|name| if trained(name) { 1.0 } else { 0.0 }, of.layout)])
    }

    fn bytes(&self, _: &MethodArgs, _: &Model) -> u64 {
        0
    }
}
