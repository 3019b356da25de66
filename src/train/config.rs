//! Everything that decides a training run. Each setting is one field: a flag of `finetune`, a key of `--config` and of
//! `config.toml`, and its default.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Overrides;
use crate::data::{Corruption, Dataset, FOLD, LoaderConfig, Rest, Sampler};
use crate::error::{Error, Result};
use crate::method::{BatchNorm, ClassWeights, LabelTargets, Learner, LossScaling, MethodArgs, Settings, Targets};
use crate::model::Precision;
use crate::train::augment_args::AugmentArgs;
use crate::train::corrupted::{copy_name, corruptions};
use crate::train::data_args::{SplitArgs, named_paths, path};
use crate::train::drop_args::DropArgs;
use crate::train::imbalance_args::ImbalanceArgs;
use crate::train::interval::Interval;
use crate::train::memory_args::MemoryArgs;
use crate::train::model_args::ModelArgs;
use crate::train::optim_args::OptimArgs;
use crate::train::zero_shot_args::ZeroShotArgs;

/// The radius loader draws from its own stream, so that it never follows the training loader's order.
const RADIUS_STREAM: u64 = 0x7261_6469_7573;

/// A run's settings, all of them decided: [`super::resolve::resolve`] makes it of what the user gave.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrainConfig {
    /// Pre-trained model: a .safetensors file, a folder with model.safetensors and perhaps config.json, or
    /// hf://OWNER/NAME on the Hugging Face hub
    #[arg(long, value_name = "MODEL", value_parser = path, default_value = "", hide_default_value = true)]
    pub model: PathBuf,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub splits: SplitArgs,
    /// Refuse to start if two splits share an image by content, instead of a warning
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", default_value_t = false,
        action = clap::ArgAction::Set)]
    pub strict_splits: bool,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub model_args: ModelArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub zero_shot: ZeroShotArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub optim: OptimArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub augment: AugmentArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub drops: DropArgs,
    /// Batches in sorted order, for training and radii alike
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", default_value_t = false,
        action = clap::ArgAction::Set)]
    pub no_shuffle: bool,
    /// Leave out the last batch of an epoch if it is not full, for training and radii alike; the only batch of an epoch is kept. By
    /// default it is trained on; a single image joins the batch before it, unless --no-shuffle or --bn frozen is given
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", default_value_t = false,
        action = clap::ArgAction::Set)]
    pub drop_last: bool,
    /// Decides everything that is random
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Epochs between two evaluations on the validation images; 0 for only at the end
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub eval_every: u64,
    /// End the training after so many evaluations in a row without a better one, by --best-by; 0 for never
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub early_stop: u64,
    /// Steps, or time (30s, 10m, 2h), after which the state to resume from is saved again; it is also saved at the start, at every
    /// evaluation and when the run is stopped. 0 for only then
    #[arg(long, value_name = "N|TIME", default_value = "10m")]
    pub save_every: Interval,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub imbalance: ImbalanceArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub memory: MemoryArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub method: MethodArgs,
    /// The keys that the user gave; the others are filled in.
    #[arg(skip)]
    #[serde(skip)]
    pub given: BTreeSet<String>,
}

impl TrainConfig {
    /// # Errors
    /// [`Error::Usage`] naming the setting that is missing or out of range, or the settings that contradict each other.
    pub(super) fn validate(&self) -> Result<()> {
        if self.model.as_os_str().is_empty() {
            return Err(Error::Usage("--model is missing: give it as a flag or in --config".into()));
        }
        self.splits.validate()?;
        self.zero_shot.validate(&self.model_args)?;
        self.optim.validate()?;
        self.augment.validate()?;
        self.drops.validate()?;
        self.memory.validate()?;
        self.method.validate(&self.settings(0))?;
        self.corruptions()?;
        for (flag, epochs) in [("epochs", self.optim.epochs.unwrap_or(0)), ("eval-every", self.eval_every)] {
            if epochs > u64::from(u32::MAX) {
                return Err(Error::Usage(format!("--{flag} {epochs}: it must be at most {}", u32::MAX)));
            }
        }
        if self.early_stop > 0 && self.eval_every == 0 {
            return Err(Error::Usage("--early-stop needs evaluations on the way: leave --eval-every 0 out".into()));
        }
        if self.no_shuffle && self.imbalance.sampler == Sampler::Balanced {
            let what = "--sampler balanced draws images at random: it can't be had with --no-shuffle";
            return Err(Error::Usage(what.into()));
        }
        let names: Vec<&str> = self.tests()?.iter().map(|t| t.0).collect();
        // Records know sets by their names.
        if let Some(name) = names.iter().find(|name| ["train", "val", "select"].contains(name)) {
            return Err(Error::Usage(format!(
                "--test {name}=...: this is the name of another split in the records: take another"
            )));
        }
        let copies = self.corruptions()?;
        let copy = |name: &&str| names.iter().any(|of| copies.iter().any(|c| copy_name(of, *c) == **name));
        if let Some(name) = names.iter().copied().find(|name| copy(name)) {
            return Err(Error::Usage(format!(
                "--test {name}=...: this is the name of a corrupted copy of another set: take another"
            )));
        }
        if self.splits.fold.is_some() && names.contains(&FOLD) {
            return Err(Error::Usage(format!(
                "--test {FOLD}=...: this is the name of what --fold holds out: take another"
            )));
        }
        match self.splits.id.iter().find(|name| !names.contains(&name.as_str())) {
            Some(name) => Err(Error::Usage(format!("--id {name}: there is no --test {name}=PATH"))),
            None => Ok(()),
        }
    }

    /// Refuses what can't be had with images that have any number of labels, or with images that have one class.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the flag.
    pub(super) fn refuse_for_labels(&self, multi_label: bool) -> Result<()> {
        self.imbalance.best_by.check(multi_label)?;
        let flags = [
            (
                "--sampler balanced",
                self.imbalance.sampler == Sampler::Balanced,
                "an image counts for all of its labels",
            ),
            ("--subset", self.splits.subset, "an answer is no choice of one class"),
            ("--zero-shot", self.zero_shot.on(), "a zero-shot head answers with one class"),
        ];
        match flags.into_iter().find(|(_, given, _)| multi_label && *given) {
            Some((flag, _, why)) => {
                Err(Error::Usage(format!("{flag} can't be had with images that have any number of labels: {why}")))
            }
            None => Ok(()),
        }
    }

    /// Refuses settings of batch norm for a model without any.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the flag.
    pub(super) fn refuse_for_model(&self, learner: &Learner) -> Result<()> {
        let method = &self.method;
        let follows = method.freeze_bn || method.lora.lora_rank.is_some() || method.name.freezes_batch_norm();
        if self.optim.bn == BatchNorm::Frozen && !follows && learner.stats.len == 0 {
            return Err(Error::Usage("--bn frozen is for models with batch norm, this one has none".into()));
        }
        if method.freeze_bn && learner.model.norms().is_empty() {
            return Err(Error::Usage("--freeze-bn is for models with batch norm, this one has none".into()));
        }
        Ok(())
    }

    /// What recognising a checkpoint is told.
    pub fn overrides(&self) -> Overrides {
        self.zero_shot.overrides(&self.model_args)
    }

    /// The test sets: name, path, and whether it is in-distribution if `--id` names any, or a fold is in-distribution anyway.
    ///
    /// # Errors
    /// As [`named_paths`].
    pub fn tests(&self) -> Result<Vec<(&str, &Path, Option<bool>)>> {
        let SplitArgs { test, id, fold, .. } = &self.splits;
        let known = !id.is_empty() || fold.is_some();
        named_paths(test)?
            .into_iter()
            .map(|(name, path)| Ok((name, path, known.then(|| id.iter().any(|id| id == name)))))
            .collect()
    }

    /// The names of all test sets, that of the held-out fold too, and whether each is in-distribution where that is known.
    ///
    /// # Errors
    /// As [`TrainConfig::tests`].
    pub fn reported(&self) -> Result<Vec<(&str, Option<bool>)>> {
        let tests = self.tests()?.into_iter().map(|(name, _, id)| (name, id));
        Ok(tests.chain(self.splits.fold.map(|_| (FOLD, Some(true)))).collect())
    }

    /// The corruptions that the test sets are copied with.
    ///
    /// # Errors
    /// As [`corruptions`].
    pub fn corruptions(&self) -> Result<Vec<Corruption>> {
        corruptions(&self.splits.corrupt, self.splits.test.len() + usize::from(self.splits.fold.is_some()))
    }

    /// What becomes of the images of an epoch that are no full batch of `batch` out of `images`.
    pub fn rest(&self, images: usize, batch: usize) -> Rest {
        match self.drop_last && images > batch {
            true => Rest::Dropped,
            false if self.no_shuffle || self.optim.bn == BatchNorm::Frozen => Rest::Kept,
            false => Rest::Joined,
        }
    }

    /// Steps of an epoch over `images` training images.
    pub fn epoch_steps(&self, images: usize) -> u64 {
        let batch = self.optim.batch_size;
        self.rest(images, batch).batches(images, batch) as u64
    }

    /// Steps of a run over `images` training images.
    pub fn steps(&self, images: usize) -> u64 {
        if self.method.solves() {
            return 0;
        }
        self.optim.steps.unwrap_or_else(|| self.optim.epochs.unwrap_or(1) * self.epoch_steps(images))
    }

    /// How a run goes through its `images` training images.
    pub fn loader(&self, images: usize) -> LoaderConfig {
        LoaderConfig {
            batch_size: self.optim.batch_size,
            shuffle: !self.no_shuffle,
            sampler: self.imbalance.sampler,
            seed: self.seed,
            augment: self.augment.transforms(),
            rest: self.rest(images, self.optim.batch_size),
            ..LoaderConfig::default()
        }
    }

    /// How a run that learns on validation images goes through its `images` of them, of which it has taken `taken` batches.
    pub(super) fn val_loader(&self, images: usize, taken: u64) -> Option<LoaderConfig> {
        let batch_size = self.method.val_batch()?;
        Some(LoaderConfig {
            batch_size,
            shuffle: !self.no_shuffle,
            seed: self.seed ^ RADIUS_STREAM,
            rest: self.rest(images, batch_size),
            start_batch: taken,
            ..LoaderConfig::default()
        })
    }

    /// What losses over images such as `train` are held against, by `weights` if classes are weighed: labels that are mixed take the same
    /// kernel, so classes then weigh equally at least.
    pub(super) fn targets(&self, weights: Option<ClassWeights>, train: &Dataset) -> Option<Targets> {
        let equal = || ClassWeights::equal(train.classes.len());
        match &train.sets {
            Some(sets) => {
                let positive = weights.unwrap_or_else(equal).values().to_vec();
                Some(LabelTargets::new(sets.clone(), positive).into())
            }
            None => weights.or_else(|| self.augment.transforms().mix.is_on().then(equal)).map(Targets::from),
        }
    }

    /// What the learner is set to, with `micro_batch` images at once.
    pub fn settings(&self, micro_batch: usize) -> Settings {
        let default = LossScaling::default();
        let scaling = LossScaling { start: self.optim.loss_scale.unwrap_or(default.start), ..default };
        Settings {
            optimizer: self.optim.optimizer(),
            clip_norm: self.optim.clip_norm,
            smoothing: self.optim.label_smoothing,
            micro_batch,
            batch_norm: self.optim.bn,
            recompute: self.memory.recompute,
            half: (self.memory.precision() == Precision::F16).then_some(scaling),
        }
    }
}
