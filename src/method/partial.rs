//! Partial fine-tuning: the stem and the first k blocks stay as they were pre-trained. Backward ends above them.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::method::stage::{Stage, Trained};
use crate::method::{Method, MethodArgs};
use crate::model::Model;
use crate::model::place::Place;

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// Blocks that partial leaves as they are, with the stem [default: half of them]
    #[arg(long, value_name = "N")]
    pub freeze_blocks: Option<usize>,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "partial"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["freeze-blocks"]
    }

    fn freezes_batch_norm(&self) -> bool {
        true
    }

    fn stages(&self, args: &MethodArgs, whole: Stage, of: &Trained) -> Result<Vec<Stage>> {
        let blocks = of.config.blocks();
        let frozen = args.partial.freeze_blocks.unwrap_or(blocks / 2);
        if frozen > blocks {
            return Err(Error::Usage(format!("--freeze-blocks {frozen}: this model has {blocks} blocks")));
        }
        // With 0, the stem is trained as well.
        let rests = |name: &str| match of.config.place(name) {
            Place::Stem => frozen > 0,
            Place::Block(block) => block < frozen,
            Place::Tail | Place::Head => false,
        };
        Ok(vec![whole.with_rates(|name| if rests(name) { 0.0 } else { 1.0 }, of.layout)])
    }

    fn bytes(&self, _: &MethodArgs, _: &Model) -> u64 {
        0
    }
}
