//! Everything that decides a training run: flags, with a TOML file of the same names below them, resolved into values.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Overrides;
use crate::cpu::mars::Norm;
use crate::data::{Augment, CropMode, Interpolation, Preprocess};
use crate::error::{Error, Result};
use crate::method::{BatchNorm, LossScaling, Optimizer, Schedule};
use crate::model::{Activation, Pool, Precision};
use crate::ops::adamw::AdamW;
use crate::ops::sgd::Sgd;
use crate::train::fit::MicroBatch;
use crate::train::schedule::LrSchedule;
use crate::train::splits::named_paths;

/// What a checkpoint can't say, or says and the user knows better.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ModelArgs {
    /// Attention heads, where the file can't say
    #[arg(long, value_name = "N")]
    pub heads: Option<usize>,
    /// The MLP's activation: gelu, gelu_tanh or quick_gelu
    #[arg(long, value_parser = word::<Activation>)]
    pub activation: Option<Activation>,
    /// Pooling before the head: cls or mean
    #[arg(long, value_parser = word::<Pool>)]
    pub pool: Option<Pool>,
    /// What the checkpoint is, where its names don't tell: timm-vit, hf-vit, hf-dinov2, clip-vit, hf-clip, hf-siglip, resnet
    /// or hf-resnet
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<String>,
    /// A .safetensors file with a head [classes, features] to start from, such as CLIP's text embeddings of the classes
    #[arg(long, value_name = "FILE")]
    pub head: Option<PathBuf>,
    /// With --pool mean, a new norm after the mean instead of the one behind the blocks: how MAE is fine-tuned
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub fc_norm: Option<bool>,
    /// Scale features to unit length before the head, as CLIP does; a new head then has no bias [default: the checkpoint's]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub normalize_features: Option<bool>,
    /// Height and width of the model's input, in pixels [default: the checkpoint's]
    #[arg(long, value_name = "PX")]
    pub image_size: Option<usize>,
    /// Share of the resized image that the centre crop keeps [default: the checkpoint's]
    #[arg(long, value_name = "SHARE")]
    pub crop_pct: Option<f32>,
    /// center (shorter side, then crop) or squash (both sides) [default: the checkpoint's]
    #[arg(long, value_parser = word::<CropMode>)]
    pub crop_mode: Option<CropMode>,
    /// Subtracted from each channel [default: the checkpoint's]
    #[arg(long, num_args = 3, value_names = ["R", "G", "B"])]
    pub mean: Option<Vec<f32>>,
    /// Divides each channel [default: the checkpoint's]
    #[arg(long, num_args = 3, value_names = ["R", "G", "B"])]
    pub std: Option<Vec<f32>>,
    /// bilinear, bicubic or lanczos [default: the checkpoint's]
    #[arg(long, value_parser = word::<Interpolation>)]
    pub interpolation: Option<Interpolation>,
}

/// A value of an enum by its serde name, so that flags, files and metadata share one spelling.
pub fn word<T: serde::de::DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(name.into())).map_err(|e| e.to_string())
}

impl ModelArgs {
    /// What recognising a checkpoint is told.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            heads: self.heads,
            activation: self.activation,
            image_size: self.image_size,
            pool: self.pool,
            family: self.family.clone(),
            fc_norm: self.fc_norm.unwrap_or(false),
            normalize: self.normalize_features,
            head: self.head.clone(),
        }
    }

    /// Whether a flag says how images are made ready.
    pub fn changes_preprocess(&self) -> bool {
        let ModelArgs { crop_pct, crop_mode, mean, std, interpolation, .. } = self;
        crop_pct.is_some() || crop_mode.is_some() || mean.is_some() || std.is_some() || interpolation.is_some()
    }

    /// The checkpoint's preprocessing with the flags' values.
    pub fn preprocess(&self, own: &Preprocess) -> Result<Preprocess> {
        let triple = |flag: &str, values: &Option<Vec<f32>>, own: [f32; 3]| match values {
            None => Ok(own),
            Some(v) => <[f32; 3]>::try_from(v.as_slice())
                .map_err(|_| Error::Usage(format!("--{flag} takes three numbers, one for each channel"))),
        };
        let preprocess = Preprocess {
            image_size: self.image_size.unwrap_or(own.image_size),
            crop_pct: self.crop_pct.unwrap_or(own.crop_pct),
            crop_mode: self.crop_mode.unwrap_or(own.crop_mode),
            interpolation: self.interpolation.unwrap_or(own.interpolation),
            mean: triple("mean", &self.mean, own.mean)?,
            std: triple("std", &self.std, own.std)?,
        };
        preprocess.validate()?;
        Ok(preprocess)
    }
}

/// The fine-tuning method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Plain fine-tuning.
    Vanilla,
    /// Trainable projected gradient method (Tian et al. 2023).
    Tpgm,
}

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
    /// sgd or adamw [default: sgd]
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
    /// Weight decay [default: 0.0005 for sgd, 0.05 for adamw]
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
    /// ones, which stay) [default: train]
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
    /// vanilla or tpgm [default: tpgm]
    #[arg(long, value_parser = word::<Method>)]
    pub method: Option<Method>,
    /// When radii are learned: every-step or post [default: every-step]
    #[arg(long, value_parser = word::<Schedule>)]
    pub schedule: Option<Schedule>,
    /// How drift is measured: mars or l2 [default: mars with every-step, l2 with post]
    #[arg(long, value_parser = word::<Norm>)]
    pub norm: Option<Norm>,
    /// Steps between two radius updates [default: 1]
    #[arg(long, value_name = "N")]
    pub proj_freq: Option<usize>,
    /// Outer iterations a radius update [default: 1 with every-step, 200 with post]
    #[arg(long, value_name = "N")]
    pub max_iters: Option<usize>,
    /// Adam's learning rate on the radii [default: 0.01]
    #[arg(long)]
    pub radius_lr: Option<f32>,
    /// Images of a radius batch [default: the batch size]
    #[arg(long, value_name = "N")]
    pub radius_batch_size: Option<usize>,
    /// Tensors that have no radius, by name; * and ? stand for any characters [default: whatever has no pre-trained
    /// counterpart]
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    pub exclude: Option<Vec<String>>,
}

macro_rules! overlay {
    ($over:ident, $under:ident; $($field:ident),*) => { $( $over.$field = $over.$field.take().or($under.$field); )* };
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
        overlay!(over, under; model, train, val, select, test, id, root, class_map, epochs, steps, batch_size, micro_batch, memory_limit,
            recompute, precision, loss_scale, optimizer,
            lr, momentum, nesterov, weight_decay, lr_schedule, warmup_steps, clip_norm, label_smoothing, augment, bn,
            no_shuffle, seed, eval_every, method, schedule, norm, proj_freq, max_iters, radius_lr, radius_batch_size,
            exclude);
        let (over, under) = (&mut self.model_args, under.model_args);
        overlay!(over, under; heads, activation, pool, family, head, fc_norm, normalize_features, image_size, crop_pct, crop_mode, mean, std, interpolation);
        Ok(self)
    }

    /// Fills in every default, and checks what must hold between the values.
    pub fn resolve(self) -> Result<TrainConfig> {
        let need = |value: Option<PathBuf>, flag: &str| {
            value.ok_or_else(|| Error::Usage(format!("--{flag} is missing: give it as a flag or in --config")))
        };
        let optimizer = self.optimizer.unwrap_or(OptimizerName::Sgd);
        let is_sgd = optimizer == OptimizerName::Sgd;
        // Zeros are what the config.toml of a run with another optimiser has.
        if !is_sgd && (self.momentum.is_some_and(|m| m != 0.0) || self.nesterov == Some(true)) {
            return Err(Error::Usage("--momentum and --nesterov go with --optimizer sgd".into()));
        }
        let momentum = if is_sgd { self.momentum.unwrap_or(0.9) } else { 0.0 };
        let method = self.method.unwrap_or(Method::Tpgm);
        let schedule = self.schedule.unwrap_or(Schedule::EveryStep);
        let post = schedule == Schedule::Post;
        let batch_size = self.batch_size.unwrap_or(64);
        let config = TrainConfig {
            model: need(self.model, "model")?,
            train: need(self.train, "train")?,
            val: need(self.val, "val")?,
            select: self.select,
            test: self.test.unwrap_or_default(),
            id: self.id.unwrap_or_default(),
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
            lr: self.lr.unwrap_or(if is_sgd { 1e-2 } else { 1e-4 }),
            momentum,
            nesterov: self.nesterov.unwrap_or(momentum > 0.0),
            weight_decay: self.weight_decay.unwrap_or(if is_sgd { 5e-4 } else { 0.05 }),
            lr_schedule: self.lr_schedule.unwrap_or(LrSchedule::Cosine),
            warmup_steps: self.warmup_steps.unwrap_or(0),
            clip_norm: self.clip_norm.unwrap_or(0.0),
            label_smoothing: self.label_smoothing.unwrap_or(0.0),
            augment: self.augment.unwrap_or(Augment::Crop),
            bn: self.bn.unwrap_or_default(),
            no_shuffle: self.no_shuffle.unwrap_or(false),
            seed: self.seed.unwrap_or(0),
            eval_every: self.eval_every.unwrap_or(1),
            method,
            schedule,
            norm: self.norm.unwrap_or(if post { Norm::L2 } else { Norm::Mars }),
            proj_freq: self.proj_freq.unwrap_or(1),
            max_iters: self.max_iters.unwrap_or(if post { 200 } else { 1 }),
            radius_lr: self.radius_lr.unwrap_or(1e-2),
            radius_batch_size: self.radius_batch_size.unwrap_or(batch_size),
            exclude: self.exclude,
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
    pub method: Method,
    pub schedule: Schedule,
    pub norm: Norm,
    pub proj_freq: usize,
    pub max_iters: usize,
    pub radius_lr: f32,
    pub radius_batch_size: usize,
    pub exclude: Option<Vec<String>>,
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
        positive("radius-batch-size", self.radius_batch_size > 0)?;
        positive("proj-freq", self.proj_freq > 0)?;
        positive("max-iters", self.max_iters > 0)?;
        positive("steps", self.steps != Some(0))?;
        positive("epochs", self.epochs != Some(0))?;
        positive("lr", self.lr > 0.0 && self.lr.is_finite())?;
        positive("radius-lr", self.radius_lr > 0.0 && self.radius_lr.is_finite())?;
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
