//! Which settings have an effect in a run. A value that the user gave is kept, whatever the method is, and named if it changes
//! nothing.

use toml::Table;

use crate::error::{Error, Result};
use crate::method::args::Idle;
use crate::model::Precision;
use crate::train::config::TrainConfig;
use crate::train::optim_args::OptimizerName;

/// What steps of an optimiser go by, of which a head that is solved for takes none.
const OF_STEPS: [&str; 30] = [
    "augment",
    "clip-norm",
    "color-jitter",
    "cutmix",
    "drop-last",
    "drop-path",
    "dropout",
    "early-stop",
    "epochs",
    "eval-every",
    "label-smoothing",
    "lr",
    "lr-schedule",
    "mixup",
    "mixup-prob",
    "mixup-switch-prob",
    "momentum",
    "nesterov",
    "no-flip",
    "no-shuffle",
    "optimizer",
    "rand-augment",
    "rand-augment-ops",
    "random-erasing",
    "rotation",
    "sampler",
    "steps",
    "trivial-augment",
    "warmup-steps",
    "weight-decay",
];

impl TrainConfig {
    /// Why `key` has no effect in this run; none if it has one.
    pub(super) fn idle(&self, key: &str) -> Option<Idle> {
        if self.method.solves() && OF_STEPS.contains(&key) {
            return Some(Idle { with: "--probe steps".into(), refused: false });
        }
        let optim = &self.optim;
        let sgd = optim.optimizer == OptimizerName::Sgd;
        let (effect, with) = match key {
            // A momentum of 0 is no contradiction.
            "momentum" => (sgd || optim.momentum == 0.0, "--optimizer sgd"),
            "nesterov" => (sgd || !optim.nesterov, "--optimizer sgd"),
            "loss-scale" => (self.memory.precision() == Precision::F16, "--precision f16"),
            "drop-path" if self.method.name.trains_head_alone() => {
                (self.drops.drop_path == 0.0, "a --method that trains more than the head")
            }
            _ => return self.method.idle(key),
        };
        (!effect).then(|| Idle { with: with.into(), refused: true })
    }

    /// Whether `key` of the configuration belongs to another method than the one that runs, so that its default means nothing.
    pub(super) fn is_foreign(&self, key: &str) -> bool {
        !self.given.contains(key) && self.idle(key).is_some_and(|idle| idle.refused)
    }

    /// Refuses a value of `beside`, which is given in the same place as the method, if it belongs to another.
    pub(super) fn refuse(&self, beside: &Table) -> Result<()> {
        let mut idle = beside.keys().filter_map(|key| Some((key, self.idle(key).filter(|idle| idle.refused)?)));
        match idle.next() {
            Some((key, Idle { with, .. })) => Err(Error::Usage(format!("--{key} goes with {with}: leave it out"))),
            None => Ok(()),
        }
    }

    /// What the user gave and has no effect in this run, with the reason, such as `anchor-decay (goes with --method l2-sp)`.
    pub fn without_effect(&self) -> Vec<(&str, String)> {
        let keys = self.given.iter().filter_map(|key| Some((key.as_str(), self.idle(key)?.with)));
        keys.map(|(key, with)| (key, format!("{key} (goes with {with})"))).collect()
    }

    /// A sentence about what the user gave and has no effect.
    pub fn note(&self) -> Option<String> {
        let named: Vec<String> = self.without_effect().into_iter().map(|(_, named)| named).collect();
        (!named.is_empty()).then(|| format!("without effect in this run: {}", named.join(", ")))
    }
}
