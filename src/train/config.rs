//! Everything that decides a training run: flags, with a TOML file of the same names below them, resolved into values.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::data::{Augment, Corruption};
use crate::error::{Error, Result};
use crate::method::{BatchNorm, LossScaling, Optimizer};
use crate::model::Precision;
use crate::ops::adamw::AdamW;
use crate::ops::sgd::Sgd;
use crate::train::corrupted::corruptions;
use crate::train::fit::MicroBatch;
use crate::train::method_args::{Method, MethodArgs, MethodConfig};
use crate::train::model_args::{ModelArgs, word};
use crate::train::overlay::overlay;
use crate::train::schedule::LrSchedule;
use crate::train::splits::named_paths;

/// Which optimiser updates the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// Stochastic gradient descent.
    Sgd,
    /// Adam with decoupled weight decay.
    AdamW,
}

/// The flags of `finetune`, and the keys of `--config`: each may be absent.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TrainArgs {
    /// Pre-trained model: a .safetensors file, or a folder with model.safetensors and perhaps config.json
    #[arg(long, value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// Training images: a folder with a folder a class, a list file (`path label` a line) or a CSV (path,label)
    #[arg(long, value_name = "PATH")]
    pub train: Option<PathBuf>,
    /// Validation images: what the radii are learned on
    #[arg(long, value_name = "PATH")]
    pub val: Option<PathBuf>,
    /// Images on which the best checkpoint is chosen [default: those of --val]
    #[arg(long, value_name = "PATH")]
    pub select: Option<PathBuf>,
    /// A test set to report, NAME=PATH; may be given several times
    #[arg(long, value_name = "NAME=PATH", num_args = 1..)]
    pub test: Option<Vec<String>>,
    /// Names of the test sets that are in-distribution; the others then count as out-of-distribution
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub id: Option<Vec<String>>,
    /// Corrupted copies of the in-distribution test sets as further OOD sets: KIND, KIND:SEVERITY or KIND:A..B, or all
    #[arg(long, value_name = "KIND[:SEVERITY]", num_args = 1..)]
    pub corrupt: Option<Vec<String>>,
    /// On each test set, let the model answer only with classes that the set has images of (ImageNet-A, -R)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub subset: Option<bool>,
    /// Refuse to start where two splits share an image by content, instead of a warning
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub strict_splits: Option<bool>,
    /// Folder that the paths of list files and CSVs are relative to [default: the file's own]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Which folder is which output of the model: `folder name` a line, or imagenet_class_index.json
    #[arg(long, value_name = "FILE")]
    pub class_map: Option<PathBuf>,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub model_args: ModelArgs,
    /// Passes over the training images [default: 10]
    #[arg(long, value_name = "N", conflicts_with = "steps")]
    pub epochs: Option<u64>,
    /// Steps, instead of epochs
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Images a step [default: 64]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Images that pass through the adapter at once, or `auto` for as many as fit its memory; a larger batch is cut into
    /// parts whose gradients add up (batch norm takes its statistics from each part) [default: the batch size]
    #[arg(long, value_name = "N|auto")]
    pub micro_batch: Option<MicroBatch>,
    /// Memory that the run may take on the adapter, in MiB [default: what is there]
    #[arg(long, value_name = "MIB")]
    pub memory_limit: Option<u64>,
    /// Keep only what enters each block and compute the rest once more in the backward pass: less memory, a step that is
    /// about a quarter longer, the same results
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub recompute: Option<bool>,
    /// f32, or f16: 16-bit activations, matrix products and convolutions, on adapters that have them. Half the activations'
    /// memory; slower on CPU adapters [default: f32]
    #[arg(long, value_parser = word::<Precision>)]
    pub precision: Option<Precision>,
    /// What f16 multiplies the loss's gradient by at first, so that small ones survive; halved where it overflows, doubled after
    /// 2000 steps without [default: 65536]
    #[arg(long, value_name = "SCALE")]
    pub loss_scale: Option<f32>,
    /// sgd or adamw [default: sgd; adamw with --method spd]
    #[arg(long, value_parser = word::<OptimizerName>)]
    pub optimizer: Option<OptimizerName>,
    /// Learning rate [default: 0.01 for sgd, 0.0001 for adamw]
    #[arg(long)]
    pub lr: Option<f64>,
    /// Momentum of sgd [default: 0.9]
    #[arg(long)]
    pub momentum: Option<f32>,
    /// Nesterov momentum: true or false [default: true where there is momentum]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub nesterov: Option<bool>,
    /// Weight decay [default: 0.0005 for sgd, 0.05 for adamw; 0 for ftp; 1 for spd, whose pull toward the pre-trained weights it
    /// is]
    #[arg(long)]
    pub weight_decay: Option<f32>,
    /// constant, cosine, cosine-epoch or linear [default: cosine]
    #[arg(long, value_parser = word::<LrSchedule>)]
    pub lr_schedule: Option<LrSchedule>,
    /// Steps over which the learning rate rises [default: 0]
    #[arg(long, value_name = "N")]
    pub warmup_steps: Option<u64>,
    /// Clip the global gradient norm to this; 0 for not at all [default: 0]
    #[arg(long, value_name = "NORM")]
    pub clip_norm: Option<f32>,
    /// Label smoothing of the training loss [default: 0]
    #[arg(long, value_name = "SHARE")]
    pub label_smoothing: Option<f32>,
    /// none, flip or crop (random resized crop and flip) [default: crop]
    #[arg(long, value_parser = word::<Augment>)]
    pub augment: Option<Augment>,
    /// What batch norm does in training: train (the batch's statistics, and the running ones move) or frozen (the running
    /// ones, which stay) [default: train; frozen with linear-probe, bitfit and partial]
    #[arg(long, value_parser = word::<BatchNorm>)]
    pub bn: Option<BatchNorm>,
    /// Batches in sorted order, for training and radii alike
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub no_shuffle: Option<bool>,
    /// Decides everything that is random [default: 0]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Epochs between two evaluations on the validation images; 0 for only at the end [default: 1]
    #[arg(long, value_name = "N")]
    pub eval_every: Option<u64>,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub method_args: MethodArgs,
}

impl TrainArgs {
    /// These values where they are set, else those of `file`.
    pub fn over_file(mut self, file: &Path) -> Result<TrainArgs> {
        let text = std::fs::read_to_string(file).map_err(|e| Error::io(file, "cannot read", e))?;
        let mut under: TrainArgs = toml::from_str(&text)
            .map_err(|e| Error::Usage(format!("{}: line {}: {}", file.display(), line_of(&text, &e), e.message())))?;
        let over = &mut self;
        // An explicit length replaces the other way to give one.
        if over.epochs.is_some() || over.steps.is_some() {
            (under.epochs, under.steps) = (None, None);
        }
        if over.optimizer.is_some_and(|name| Some(name) != under.optimizer) {
            (under.momentum, under.nesterov) = (None, None);
        }
        if over.method_args.method.is_some_and(|method| Some(method) != under.method_args.method) {
            // What another method's defaults made of them.
            (under.weight_decay, under.bn) = (None, None);
        }
        overlay!(over, under; model, train, val, select, test, id, corrupt, subset, strict_splits, root, class_map, epochs, steps, batch_size,
            micro_batch, memory_limit,
            recompute, precision, loss_scale, optimizer,
            lr, momentum, nesterov, weight_decay, lr_schedule, warmup_steps, clip_norm, label_smoothing, augment, bn,
            no_shuffle, seed, eval_every);
        over.model_args.over(under.model_args);
        over.method_args.over(under.method_args);
        Ok(self)
    }

    /// Fills in every default, and checks what must hold between the values.
    pub fn resolve(self) -> Result<TrainConfig> {
        let need = |value: Option<PathBuf>, flag: &str| {
            value.ok_or_else(|| Error::Usage(format!("--{flag} is missing: give it as a flag or in --config")))
        };
        let method = self.method_args.method.unwrap_or(Method::Tpgm);
        let is_spd = method == Method::Spd;
        let usual = if is_spd { OptimizerName::AdamW } else { OptimizerName::Sgd };
        let optimizer = self.optimizer.unwrap_or(usual);
        let is_sgd = optimizer == OptimizerName::Sgd;
        if is_spd && is_sgd {
            return Err(Error::Usage("--method spd is a rule for Adam: use --optimizer adamw".into()));
        }
        if method == Method::LinearProbe && self.bn == Some(BatchNorm::Train) {
            return Err(Error::Usage(
                "--method linear-probe keeps the features as they are: leave --bn train out".into(),
            ));
        }
        // Zeros are what the config.toml of a run with another optimiser has.
        if !is_sgd && (self.momentum.is_some_and(|m| m != 0.0) || self.nesterov == Some(true)) {
            return Err(Error::Usage("--momentum and --nesterov go with --optimizer sgd".into()));
        }
        let momentum = if is_sgd { self.momentum.unwrap_or(0.9) } else { 0.0 };
        let batch_size = self.batch_size.unwrap_or(64);
        let lr = self.lr.unwrap_or(if is_sgd { 1e-2 } else { 1e-4 });
        let bn = if method.freezes_batch_norm() { BatchNorm::Frozen } else { BatchNorm::default() };
        let weight_decay = match method {
            Method::Ftp => 0.0,
            Method::Spd => 1.0,
            _ if is_sgd => 5e-4,
            _ => 0.05,
        };
        let config = TrainConfig {
            model: need(self.model, "model")?,
            train: need(self.train, "train")?,
            val: need(self.val, "val")?,
            select: self.select,
            test: self.test.unwrap_or_default(),
            id: self.id.unwrap_or_default(),
            corrupt: self.corrupt.unwrap_or_default(),
            subset: self.subset.unwrap_or(false),
            strict_splits: self.strict_splits.unwrap_or(false),
            root: self.root,
            class_map: self.class_map,
            model_args: self.model_args,
            epochs: if self.steps.is_some() { None } else { Some(self.epochs.unwrap_or(10)) },
            steps: self.steps,
            batch_size,
            micro_batch: match self.micro_batch {
                Some(MicroBatch::Images(images)) => MicroBatch::Images(images.min(batch_size)),
                Some(auto) => auto,
                None => MicroBatch::Images(batch_size),
            },
            memory_limit: self.memory_limit,
            recompute: self.recompute.unwrap_or(false),
            precision: self.precision.unwrap_or_default(),
            loss_scale: self.loss_scale,
            optimizer,
            lr,
            momentum,
            nesterov: self.nesterov.unwrap_or(momentum > 0.0),
            weight_decay: self.weight_decay.unwrap_or(weight_decay),
            lr_schedule: self.lr_schedule.unwrap_or(LrSchedule::Cosine),
            warmup_steps: self.warmup_steps.unwrap_or(0),
            clip_norm: self.clip_norm.unwrap_or(0.0),
            label_smoothing: self.label_smoothing.unwrap_or(0.0),
            augment: self.augment.unwrap_or(Augment::Crop),
            bn: self.bn.unwrap_or(bn),
            no_shuffle: self.no_shuffle.unwrap_or(false),
            seed: self.seed.unwrap_or(0),
            eval_every: self.eval_every.unwrap_or(1),
            method: self.method_args.resolve(batch_size, lr)?,
        };
        config.validate()?;
        Ok(config)
    }
}

/// The line of a TOML text that `error` is about. Where the model's flags are flattened into [`TrainArgs`], serde loses
/// the place: the key that fails by itself is then looked up.
fn line_of(text: &str, error: &toml::de::Error) -> usize {
    let fails = |(key, value): &(String, toml::Value)| {
        toml::Table::from_iter([(key.clone(), value.clone())]).try_into::<TrainArgs>().is_err()
    };
    let is_key = |line: &str, key: &str| {
        let rest = line.trim_start_matches([' ', '\t', '"', '[']).strip_prefix(key);
        rest.is_some_and(|rest| rest.starts_with([' ', '\t', '=', '"', '.', ']']))
    };
    let key = toml::from_str::<toml::Table>(text).ok().and_then(|table| table.into_iter().find(fails));
    let at = key.and_then(|(key, _)| text.lines().position(|line| is_key(line, &key)));
    at.unwrap_or_else(|| error.span().map_or(0, |s| text[..s.start].matches('\n').count())) + 1
}

/// A run's settings, all of them decided: what `config.toml` holds, and what `--config` takes again.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // one for each flag of TrainArgs, which says what it means
pub struct TrainConfig {
    pub model: PathBuf,
    pub train: PathBuf,
    pub val: PathBuf,
    pub select: Option<PathBuf>,
    pub test: Vec<String>,
    pub id: Vec<String>,
    pub corrupt: Vec<String>,
    pub subset: bool,
    pub strict_splits: bool,
    pub root: Option<PathBuf>,
    pub class_map: Option<PathBuf>,
    pub epochs: Option<u64>,
    pub steps: Option<u64>,
    pub batch_size: usize,
    pub micro_batch: MicroBatch,
    pub memory_limit: Option<u64>,
    pub recompute: bool,
    pub precision: Precision,
    pub loss_scale: Option<f32>,
    pub optimizer: OptimizerName,
    pub lr: f64,
    pub momentum: f32,
    pub nesterov: bool,
    pub weight_decay: f32,
    pub lr_schedule: LrSchedule,
    pub warmup_steps: u64,
    pub clip_norm: f32,
    pub label_smoothing: f32,
    pub augment: Augment,
    pub bn: BatchNorm,
    pub no_shuffle: bool,
    pub seed: u64,
    pub eval_every: u64,
    #[serde(flatten)]
    pub method: MethodConfig,
    #[serde(flatten)]
    pub model_args: ModelArgs,
}

impl TrainConfig {
    fn validate(&self) -> Result<()> {
        let positive = |name: &str, ok: bool| {
            if ok { Ok(()) } else { Err(Error::Usage(format!("--{name} must be greater than 0"))) }
        };
        positive("batch-size", self.batch_size > 0)?;
        positive("micro-batch", self.micro_batch != MicroBatch::Images(0))?;
        positive("memory-limit", self.memory_limit != Some(0))?;
        positive("steps", self.steps != Some(0))?;
        positive("epochs", self.epochs != Some(0))?;
        positive("lr", self.lr > 0.0 && self.lr.is_finite())?;
        let in_range = |name: &str, value: f32, ok: bool, range: &str| {
            if ok { Ok(()) } else { Err(Error::Usage(format!("--{name} {value}: it must be {range}"))) }
        };
        in_range("momentum", self.momentum, (0.0..1.0).contains(&self.momentum), "at least 0 and below 1")?;
        let (decay, clip, smoothing) = (self.weight_decay, self.clip_norm, self.label_smoothing);
        in_range("weight-decay", decay, decay >= 0.0 && decay.is_finite(), "at least 0")?;
        in_range("clip-norm", clip, clip >= 0.0 && clip.is_finite(), "at least 0")?;
        in_range("label-smoothing", smoothing, (0.0..1.0).contains(&smoothing), "at least 0 and below 1")?;
        if let Some(scale) = self.loss_scale {
            in_range("loss-scale", scale, (1.0..=16_777_216.0).contains(&scale), "1 to 16777216")?;
            if self.precision == Precision::F32 {
                return Err(Error::Usage("--loss-scale goes with --precision f16".into()));
            }
        }
        if self.nesterov && self.momentum == 0.0 {
            return Err(Error::Usage("--nesterov needs a --momentum above 0".into()));
        }
        self.method.validate()?;
        self.corruptions()?;
        let names: Vec<&str> = self.tests()?.iter().map(|t| t.0).collect();
        match self.id.iter().find(|name| !names.contains(&name.as_str())) {
            Some(name) => Err(Error::Usage(format!("--id {name}: there is no --test {name}=PATH"))),
            None => Ok(()),
        }
    }

    /// The test sets: name, path, and whether it is in-distribution where `--id` says so of any.
    pub fn tests(&self) -> Result<Vec<(&str, &Path, Option<bool>)>> {
        named_paths(&self.test)?
            .into_iter()
            .map(|(name, path)| Ok((name, path, (!self.id.is_empty()).then(|| self.id.iter().any(|id| id == name)))))
            .collect()
    }

    /// The corruptions that the test sets are copied with.
    pub fn corruptions(&self) -> Result<Vec<Corruption>> {
        corruptions(&self.corrupt, self.test.len())
    }

    /// f16 with its loss scaling; none for f32.
    pub fn half(&self) -> Option<LossScaling> {
        let default = LossScaling::default();
        let start = self.loss_scale.unwrap_or(default.start);
        (self.precision == Precision::F16).then_some(LossScaling { start, ..default })
    }

    /// The optimiser with its hyperparameters.
    pub fn optimizer(&self) -> Optimizer {
        let weight_decay = self.weight_decay;
        match self.optimizer {
            OptimizerName::Sgd => {
                Optimizer::Sgd(Sgd { momentum: self.momentum, nesterov: self.nesterov, weight_decay })
            }
            OptimizerName::AdamW => Optimizer::AdamW(AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay }),
        }
    }

    /// `config.toml`'s text.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("plain values always serialise")
    }
}
