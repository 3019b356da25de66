//! Selective projection decay (Tian et al., NeurIPS 2024): a tensor is pulled back toward the anchor after those steps
//! whose gradient has it come nearer, `⟨g, θ − θ₀⟩ > 0`, if Adam's step has taken it further away all the same. Adam, whose weight decay is `lambda`.

use toml::Table;

use crate::error::{Error, Result};
use crate::method::active::Owned;
use crate::method::settings::{Optimizer, Settings};
use crate::method::stage::{Stage, Trained};
use crate::method::{Anchor, Around, Learner, Method, MethodArgs, Started};
use crate::model::Model;
use crate::ops::spd::Spd;

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "spd"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["exclude"]
    }

    fn validate(&self, _: &MethodArgs, settings: &Settings) -> Result<()> {
        match settings.optimizer {
            Optimizer::AdamW(_) => Ok(()),
            Optimizer::Sgd(_) => Err(Error::Usage("--method spd is a rule for Adam: use --optimizer adamw".into())),
        }
    }

    fn defaults(&self, _: f64) -> Table {
        toml::toml! {
            optimizer = "adamw"
            weight-decay = 1.0
        }
    }

    /// Nothing is decayed toward zero.
    fn stages(&self, _: &MethodArgs, whole: Stage, _: &Trained) -> Result<Vec<Stage>> {
        Ok(vec![Stage { weight_decays: vec![0.0; whole.weight_decays.len()], ..whole }])
    }

    fn bytes(&self, _: &MethodArgs, model: &Model) -> u64 {
        model.layout().arena_bytes() + Spd::bytes(model.layout())
    }

    fn start(&self, _: &MethodArgs, learner: &Learner, anchor: &Anchor) -> Result<Started> {
        let lambda = learner.settings().optimizer.weight_decay();
        let w0 = anchor.upload(learner)?;
        let spd = Spd::new(learner.gpu, learner.model.layout(), anchor.excluded)?;
        let mut before = learner.recorder();
        spd.note(&mut before, &learner.dw, &learner.w, &w0)?;
        let mut after = learner.recorder();
        spd.apply(&mut after, &learner.w, &w0, lambda)?;
        Ok(Started::new(Around { before: before.program, after: after.program }, Owned((w0, spd))))
    }
}
