//! Recipes: what a run's defaults follow besides its method. Equal for every method, so that comparisons are fair;
//! docs/finetuning.md has the measurements behind them.

use toml::Table;

use crate::checkpoint::{self, Checkpoint};
use crate::model::{Model, ModelConfig};
use crate::train::config::TrainConfig;
use crate::train::optim_args::{OptimizerName, Recipe};

/// Parameters below which a model is tiny: the ViTs that were measured have 0.5 and 22 million.
const TINY: usize = 3_000_000;
/// Parameters from which a model is large. Nothing of that size was measured: its rate is the field's convention.
const LARGE: usize = 150_000_000;

impl Recipe {
    /// Its defaults, below those of the method.
    pub(super) fn defaults(self, model: Option<&Known>) -> Table {
        match self {
            Recipe::Auto => Table::from_iter(model.map(|model| ("optimizer".to_string(), model.optimizer().into()))),
            // Features are normalised whatever the head is.
            Recipe::PaperClipVit => {
                let mut table = from_zero_shot(Recipe::PaperVit.defaults(model));
                table.insert("normalize-features".into(), true.into());
                table
            }
            Recipe::PaperClipResnet => from_zero_shot(Recipe::PaperResnet.defaults(model)),
            Recipe::PaperVit => toml::toml! {
                optimizer = "adamw"
                warmup-steps = 0
                clip-norm = 0.0
                schedule = "post"
            },
            Recipe::PaperResnet => toml::toml! {
                optimizer = "sgd"
                lr-schedule = "cosine-epoch"
                warmup-steps = 0
                clip-norm = 0.0
                schedule = "every-step"
            },
        }
    }

    /// Its learning rate, if it has one whatever the model is: that of WiSE-FT's paper (Wortsman et al. 2022) for CLIP's ViTs, whose
    /// towers forget much at the usual rate.
    pub(super) fn rate(self) -> Option<f64> {
        (self == Recipe::PaperClipVit).then_some(3e-5)
    }
}

fn from_zero_shot(mut table: Table) -> Table {
    table.insert("zero-shot".into(), true.into());
    table
}

/// What defaults follow of a model.
pub(super) struct Known {
    config: ModelConfig,
    parameters: usize,
}

impl Known {
    /// Of the model that a run starts from; none if it can't be read, which the run itself reports.
    pub(super) fn of(config: &TrainConfig) -> Option<Known> {
        let checkpoint = Checkpoint::open(&config.model).ok()?;
        let config = checkpoint::recognise(&checkpoint, &config.overrides()).ok()?.config;
        let parameters = Model::new(config.clone()).layout().params.iter().map(|param| param.len).sum();
        Some(Known { config, parameters })
    }

    /// Transformers and ConvNeXts are trained with AdamW, unless they are tiny; networks with batch norm with SGD.
    fn optimizer(&self) -> &'static str {
        match self.config {
            ModelConfig::Vit(_) | ModelConfig::ConvNext(_) if self.parameters >= TINY => "adamw",
            _ => "sgd",
        }
    }
}

/// The learning rate of an optimiser for a model.
pub(super) fn rate(optimizer: OptimizerName, model: Option<&Known>) -> f64 {
    match (optimizer, model.map(|model| model.parameters)) {
        (OptimizerName::Sgd, _) => 1e-2,
        (OptimizerName::AdamW, Some(..TINY)) => 1e-3,
        (OptimizerName::AdamW, Some(LARGE..)) => 3e-5,
        (OptimizerName::AdamW, _) => 1e-4,
    }
}

/// The learning rate of an optimiser for a head that is trained alone: on features that stay, a whole model's is far too low.
pub(super) fn probe_rate(optimizer: OptimizerName) -> f64 {
    match optimizer {
        OptimizerName::Sgd => 1e-1,
        OptimizerName::AdamW => 1e-2,
    }
}
