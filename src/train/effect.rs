//! Which settings have an effect in a run. A value that the user gave is kept, whatever the method is, and named if it changes
//! nothing.

use toml::Table;

use crate::error::{Error, Result};
use crate::method::args::Idle;
use crate::model::Precision;
use crate::train::config::TrainConfig;
use crate::train::optim_args::OptimizerName;

/// Settings that steps of an optimiser use; a head that is solved for takes no steps.
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

/// What a run is evaluated on, keeps, how long and how fast it learns, and with which other ranks: a test of learning rates evaluates and
/// keeps nothing, has a length and rates of its own, and is one process.
const OF_WHOLE_RUNS: [&str; 16] = [
    "best-by",
    "corrupt",
    "early-stop",
    "epochs",
    "eval-every",
    "id",
    "lr",
    "lr-schedule",
    "save-every",
    "select",
    "steps",
    "subset",
    "sync-bn",
    "test",
    "tta",
    "warmup-steps",
];

/// Of these, what sets the stages before the last of a run that has several.
const OF_EARLIER_STAGES: [&str; 5] = ["epochs", "lr", "lr-schedule", "steps", "warmup-steps"];

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

    /// The keys that the user gave and that set nothing in [`super::lr_find`], though they do in a run.
    pub fn idle_in_lr_find(&self) -> Vec<&str> {
        let keys = self.given.iter().map(String::as_str);
        keys.filter(|key| self.idle(key).is_none() && self.is_idle_in_lr_find(key)).collect()
    }

    fn is_idle_in_lr_find(&self, key: &str) -> bool {
        // The head's rate follows --lr where it has none of its own.
        let follows = key != "lr" || !self.given.contains("probe-lr");
        let earlier = self.method.name.has_stages() && OF_EARLIER_STAGES.contains(&key) && follows;
        (OF_WHOLE_RUNS.contains(&key) && !earlier) || self.method.is_beside_steps(key)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Flags;
    use crate::train::resolve::KEYS;

    /// What acts in a test of learning rates as in a run. A new flag belongs here or into the list above.
    const ACTS: &[&str] = &[
        "model",
        "data",
        "train",
        "val",
        "val-share",
        "val-seed",
        "fold",
        "root",
        "class-map",
        "image-column",
        "label-column",
        "label-separator",
        "skip-broken",
        "strict-splits",
        "heads",
        "activation",
        "pool",
        "family",
        "head",
        "fc-norm",
        "normalize-features",
        "image-size",
        "in-channels",
        "crop-pct",
        "crop-mode",
        "mean",
        "std",
        "interpolation",
        "zero-shot",
        "class-names",
        "template",
        "templates",
        "tokenizer",
        "recipe",
        "batch-size",
        "optimizer",
        "momentum",
        "nesterov",
        "weight-decay",
        "clip-norm",
        "label-smoothing",
        "loss-scale",
        "bn",
        "augment",
        "no-flip",
        "rotation",
        "color-jitter",
        "rand-augment",
        "rand-augment-ops",
        "trivial-augment",
        "random-erasing",
        "mixup",
        "cutmix",
        "mixup-prob",
        "mixup-switch-prob",
        "drop-path",
        "dropout",
        "no-shuffle",
        "drop-last",
        "seed",
        "class-weights",
        "sampler",
        "micro-batch",
        "memory-limit",
        "recompute",
        "precision",
        "method",
        "layer-decay",
        "freeze-bn",
    ];

    #[test]
    fn each_flag_is_known_to_act_in_a_test_of_learning_rates_or_not_to() {
        let of_a_method = |key: &str| crate::method::METHODS.iter().any(|method| method.flags().contains(&key));
        for key in KEYS.iter().map(String::as_str) {
            let places = [OF_WHOLE_RUNS.contains(&key), ACTS.contains(&key) || of_a_method(key)];
            assert!(places[0] != places[1], "{key}: does it act in lr-find?");
        }
    }

    fn idle(words: &str) -> String {
        let config = Flags::parse(format!("--model m --train t {words}").split_whitespace())
            .and_then(|flags| flags.resolve(None));
        config.unwrap().idle_in_lr_find().join(" ")
    }

    #[test]
    fn what_belongs_to_whole_runs_is_idle_in_a_test_of_learning_rates() {
        assert_eq!(idle("--method vanilla --weight-decay 0.1 --drop-path 0.1 --class-weights balanced"), "");
        assert_eq!(idle("--lr 1 --steps 3 --test a=b --select s --wise-alpha 0.5"), "lr select steps test wise-alpha");
        assert_eq!(
            idle("--method lp-ft --lr 1 --steps 3 --warmup-steps 1 --lr-schedule linear --save-every 3"),
            "save-every"
        );
        assert_eq!(idle("--method lp-ft --lr 1 --probe-lr 2"), "lr");
        assert_eq!(idle("--norm l2 --radius-lr 1"), "");
        assert_eq!(idle("--schedule post --norm l2 --radius-lr 1 --exclude x"), "exclude norm radius-lr");
        assert_eq!(idle("--method ftp --optimizer adamw --ema-decay 0.9 --exclude x"), "ema-decay");
        assert_eq!(idle("--method vanilla --lora-rank 2 --lora-alpha 3"), "");
        assert_eq!(idle("--method vanilla --lines-alpha 0.5 --sync-bn"), "lines-alpha sync-bn");
    }
}
