//! Flags that decide what a run takes of the adapter's memory.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::flag::word;
use crate::model::Precision;
use crate::train::micro_batch::MicroBatch;

/// The format of the activations.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PrecisionArgs {
    /// f32, or f16: 16-bit activations, matrix products and convolutions, on adapters that have them. Half the activations'
    /// memory; slower on CPU adapters
    #[arg(long, value_name = "PRECISION", default_value = "f32", value_parser = word::<Precision>)]
    pub precision: Precision,
}

/// How many images pass through the adapter at once, and which activations are kept there.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemoryArgs {
    /// Images that pass through the adapter at once, or `auto` for as many as fit its memory; a larger batch is cut into
    /// parts whose gradients add up (batch norm takes its statistics from each part) [default: the whole batch]
    #[arg(long, value_name = "N|auto")]
    pub micro_batch: Option<MicroBatch>,
    /// Memory that the run may take on the adapter, in MiB [default: all that is free]
    #[arg(long, value_name = "MIB")]
    pub memory_limit: Option<u64>,
    /// Keep only what enters each block and compute the rest once more in the backward pass: less memory, a step that is
    /// about a quarter longer, the same results
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", default_value_t = false,
        action = clap::ArgAction::Set)]
    pub recompute: bool,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub format: PrecisionArgs,
}

impl MemoryArgs {
    /// The format of the activations.
    pub fn precision(&self) -> Precision {
        self.format.precision
    }

    /// Images of a batch of `batch` that pass through at once.
    pub fn micro_batch(&self, batch: usize) -> MicroBatch {
        match self.micro_batch {
            Some(MicroBatch::Images(images)) => MicroBatch::Images(images.min(batch)),
            Some(auto) => auto,
            None => MicroBatch::Images(batch),
        }
    }

    /// # Errors
    /// [`Error::Usage`] where nothing could run.
    pub fn validate(&self) -> Result<()> {
        for (flag, none) in [
            ("micro-batch", self.micro_batch == Some(MicroBatch::Images(0))),
            ("memory-limit", self.memory_limit == Some(0)),
        ] {
            if none {
                return Err(Error::Usage(format!("--{flag} must be greater than 0")));
            }
        }
        Ok(())
    }
}
