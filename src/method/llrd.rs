//! Layer-wise learning-rate decay (Clark et al., ICLR 2020; for vision transformers Bao et al., ICLR 2022): the rate falls by
//! a factor a layer from the head down to the stem. Layers are counted as timm's `param_groups_layer_decay` does: a layer is
//! a block, the stem is one, and the head with what stands behind the last block is one.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::flag::in_range;
use crate::method::stage::{Stage, Trained};
use crate::method::{Method, MethodArgs};
use crate::model::Model;

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// Factor on the learning rate of llrd from each layer to the one below
    #[arg(long, value_name = "FACTOR", default_value_t = 0.75)]
    pub layer_decay: f64,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "llrd"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["layer-decay"]
    }

    fn check(&self, args: &MethodArgs) -> Result<()> {
        in_range("layer-decay", args.llrd.layer_decay, |d| d > 0.0 && d <= 1.0, "above 0 and at most 1")
    }

    fn stages(&self, args: &MethodArgs, whole: Stage, of: &Trained) -> Result<Vec<Stage>> {
        let (decay, last) = (args.llrd.layer_decay, of.config.blocks() + 1);
        Ok(vec![whole.with_rates(|name| decay.powi((last - of.config.layer(name)) as i32) as f32, of.layout)])
    }

    fn bytes(&self, _: &MethodArgs, _: &Model) -> u64 {
        0
    }
}
