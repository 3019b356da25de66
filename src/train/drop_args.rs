//! Flags of the branches and values that are dropped at random while a model is trained.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::flag::in_range;
use crate::model::{Drops, Model, ModelConfig};

/// How often the network drops what.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DropArgs {
    /// Stochastic depth: the probability that the last block's branch is dropped for an image in training; it rises linearly from 0 at
    /// the first block
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    pub drop_path: f64,
    /// Dropout: the probability that a value that enters the head is dropped in training
    #[arg(long, value_name = "RATE", default_value_t = 0.0)]
    pub dropout: f64,
}

impl DropArgs {
    /// # Errors
    /// [`Error::Usage`] naming a rate that is out of range.
    pub(super) fn validate(&self) -> Result<()> {
        let rates = |rate: f64| (0.0..1.0).contains(&rate);
        in_range("drop-path", self.drop_path, rates, "at least 0 and below 1")?;
        in_range("dropout", self.dropout, rates, "at least 0 and below 1")
    }

    /// `model`, dropping so.
    ///
    /// # Errors
    /// [`Error::Usage`] if it has no blocks to drop.
    pub(super) fn apply(&self, model: Model) -> Result<Model> {
        if self.drop_path > 0.0 && matches!(model.config, ModelConfig::Vgg(_)) {
            return Err(Error::Usage("--drop-path is for models with residual blocks, which a VGG has none of".into()));
        }
        Ok(model.dropping(Drops { path: self.drop_path, head: self.dropout }))
    }
}
