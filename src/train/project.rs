//! The post-hoc recipe on two checkpoints that were trained elsewhere: a run without steps, of which only what follows the last is
//! left, radii learned at fixed weights and one projection.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::checkpoint::{Note, Overrides};
use crate::data::{ImageCache, Loader, LoaderConfig, Summary};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::method::{
    Anchor, BatchNorm, Held, LabelTargets, Learner, LossScaling, MethodArgs, Optimizer, Settings, Snapshot,
};
use crate::model::Precision;
use crate::ops::sgd::Sgd;
use crate::train::data_args::DataArgs;
use crate::train::evaluate::{Watched, evaluate_to_fit};
use crate::train::events::Event;
use crate::train::exclude::excluded;
use crate::train::fit;
use crate::train::heads::Rows;
use crate::train::help;
use crate::train::memory_args::MemoryArgs;
use crate::train::model_args::ModelArgs;
use crate::train::place::Place;
use crate::train::run_dir::RunLog;
use crate::train::schedule::{LearningRate, LrSchedule, Warmup};
use crate::train::source::Source;
use crate::train::steps::Steps;
use crate::train::subset;
use crate::train::throughput::Throughput;
use crate::train::tuning;
use crate::train::zero_shot::Told;
use crate::train::zero_shot_args::ZeroShotArgs;

/// The weights to project, their anchor, and how the radii are learned.
#[derive(Clone, Debug)]
pub struct ProjectConfig {
    /// The anchor.
    pub pretrained: PathBuf,
    /// The weights to project.
    pub finetuned: PathBuf,
    /// Images that the radii are learned on.
    pub val: PathBuf,
    /// How they are read.
    pub data: DataArgs,
    /// The file to write.
    pub out: PathBuf,
    /// What the checkpoints can't say.
    pub model_args: ModelArgs,
    /// Whether the anchor has a head made from the names of the classes.
    pub zero_shot: ZeroShotArgs,
    /// How the radii are learned after no steps.
    pub method: MethodArgs,
    /// How many images pass through at once, and which activations are kept.
    pub memory: MemoryArgs,
    /// Batches in sorted order.
    pub no_shuffle: bool,
    /// Decides the batches.
    pub seed: u64,
    /// Measure the kernels for products that nobody has measured on this adapter.
    pub tune: bool,
}

/// `path` with `suffix` after its whole name: `C.radii.csv` beside `C`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The anchor in the layout of the fine-tuned model, which tensors have none, and what to tell the user about the order of the
/// outputs. A tensor that the anchor lacks, or has in another shape or for other classes, can only be the head's: it stays as it
/// was fine-tuned. A head with its outputs in another order is put in that of the fine-tuned.
pub(super) fn anchor(pretrained: &Source, finetuned: &Source) -> Result<(Vec<f32>, Vec<bool>, Option<String>)> {
    let rows = Rows::of(finetuned, pretrained)?;
    let is_multi = |source: &Source| source.recognised.thresholds.is_some();
    if is_multi(pretrained) && !is_multi(finetuned) && !matches!(rows, Rows::Differ(_)) {
        let what = "this model gives an image any number of labels, and the fine-tuned one gives one class";
        return Err(pretrained
            .checkpoint
            .error(format!("{what}: give the checkpoint that the fine-tuning began with")));
    }
    let known: BTreeMap<&str, (&Vec<usize>, &Vec<f32>)> =
        pretrained.weights.iter().map(|(name, shape, values)| (name.as_str(), (shape, values))).collect();
    let mut missing = Vec::new();
    let mut tensors: Vec<Cow<[f32]>> = Vec::new();
    for (name, shape, values) in &finetuned.weights {
        let is_head = finetuned.recognised.config.is_head(name);
        let own = known.get(name.as_str()).filter(|(own, _)| *own == shape);
        let own = own.filter(|_| !(is_head && matches!(rows, Rows::Differ(_))));
        if own.is_none() && !is_head {
            let path = pretrained.checkpoint.path();
            let (from, to) = (&pretrained.recognised.config, &finetuned.recognised.config);
            if known.contains_key(name.as_str()) && from.image_size() != to.image_size() {
                let what = format!(
                    "its positions are for images of {} pixels, the fine-tuned model's for {}: give --image-size {1}",
                    from.image_size(),
                    to.image_size()
                );
                return Err(Error::checkpoint(path, what));
            }
            let what = match known.get(name.as_str()) {
                Some((own, _)) => format!("tensor {name} has shape {own:?}, the fine-tuned model's {shape:?}"),
                None => format!("tensor {name} is missing, the fine-tuned model has it"),
            };
            return Err(Error::checkpoint(
                path,
                format!("{what}: give the checkpoint that the fine-tuning began with"),
            ));
        }
        missing.push(own.is_none() || pretrained.recognised.initialised.contains(name));
        tensors.push(match own {
            None => Cow::Borrowed(values.as_slice()),
            Some((_, own)) if is_head => Cow::Owned(rows.permuted(own)),
            Some((_, own)) => Cow::Borrowed(own.as_slice()),
        });
    }
    let packed = finetuned.model().layout().pack(tensors.iter().map(AsRef::as_ref));
    Ok((packed, missing, rows.note(pretrained)))
}

/// Learns the radii and writes `out`, with `out.radii.csv` and `out.metrics.jsonl` beside it.
pub fn project(gpu: &Gpu, config: &ProjectConfig, events: &mut dyn FnMut(Event)) -> Result<()> {
    let overrides = config.zero_shot.overrides(&config.model_args);
    // The fine-tuned model has its head.
    let mut finetuned = Source::open(&config.finetuned, &Overrides { head: None, ..overrides.clone() })?;
    let mut pretrained = Source::open(&config.pretrained, &overrides)?;
    finetuned.recognised.preprocess = config.model_args.preprocess(&finetuned.recognised.preprocess)?;
    let (a, b) = (&pretrained.recognised.config, &finetuned.recognised.config);
    if !a.computes_like(b) {
        return Err(Error::checkpoint(
            &config.finetuned,
            "heads, activation, eps or pooling differ from the pre-trained model's: see tpgm inspect on both",
        ));
    }
    let mut sets = [config.data.open(&config.val)?];
    if config.zero_shot.on() {
        let classes = match &finetuned.recognised.classes {
            Some(names) => names.clone(),
            None => finetuned.voted_classes(&sets[0], &sets, config.data.map()?.as_ref())?.names(),
        };
        let mut tell = |told: Told| events(told.into());
        config.zero_shot.apply(gpu, &mut pretrained, &config.model_args, &classes, &mut tell)?;
    }
    let (anchor, missing, note) = anchor(&pretrained, &finetuned)?;
    let others = pretrained.recognised.notes.iter().filter(|note| !finetuned.recognised.notes.contains(note));
    let others: Vec<Note> = others.cloned().chain(note.map(Note::from)).collect();
    finetuned.recognised.notes.extend(others);
    let checked = config.data.check(&mut sets, &mut |done, of| events(Event::Checked { done, of }))?;
    let [images] = sets;
    if b.classes() == 0 {
        return Err(Error::checkpoint(&config.finetuned, "this model has no head: radii are learned from its loss"));
    }
    let classes = finetuned.class_map(config.data.map()?.as_ref(), &[&images])?;
    if finetuned.recognised.classes.is_none() && images.classes.len() == b.classes() {
        finetuned.recognised.classes = Some(classes.names());
    }
    finetuned.recognised.notes.push(classes.to_string().into());
    let images = classes.label(&images)?;
    let summary = Summary::new("val", &images, &classes.names(), &checked.looks, &checked.broken[0]);
    finetuned.recognised.notes.extend(summary.lines().into_iter().map(|(_, line)| line.into()));
    finetuned.recognised.notes.extend(subset::lacking("val", &images, &classes).map(Note::from));
    for note in &finetuned.recognised.notes {
        events(Event::Note(help::note(note)));
    }
    let mut excluded = excluded(config.method.exclude.as_deref(), &finetuned)?;
    for ((excluded, missing), (name, ..)) in excluded.iter_mut().zip(missing).zip(&finetuned.weights) {
        if missing && !*excluded {
            events(Event::Note(format!("{name} has no pre-trained counterpart: it has no radius and stays as it is")));
            *excluded = true;
        }
    }

    let model = finetuned.model();
    let radius_batch = config.method.tpgm.radius_batch_size;
    let batch = radius_batch.min(images.items.len());
    let plain = Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
    let settings = Settings {
        optimizer: Optimizer::Sgd(plain),
        clip_norm: 0.0,
        smoothing: 0.0,
        micro_batch: 0,
        batch_norm: BatchNorm::Frozen,
        recompute: config.memory.recompute,
        half: (config.memory.precision() == Precision::F16).then(LossScaling::default),
    };
    let fitting = fit::choices(gpu, config.memory.micro_batch(batch), batch, config.memory.memory_limit);
    let start = finetuned.snapshot();
    let anchor_values = Snapshot { w: anchor, ..start.clone() };
    let anchor = Anchor { values: &anchor_values, excluded: &excluded, new_head: false };
    let at = (&start, &anchor);
    let equal = || vec![1.0; images.classes.len()];
    let targets = images.sets.as_ref().map(|sets| LabelTargets::new(sets.clone(), equal()).into());
    let (learner, active) = fit::allocate(
        (gpu, &Place::default()),
        &model,
        (&fitting.0, fitting.1),
        (settings, targets),
        &config.method,
        at,
        events,
    )?;
    if config.tune {
        tuning::tune(gpu, &learner.untuned()?, events)?;
    }
    let loader_config = LoaderConfig {
        batch_size: radius_batch,
        shuffle: !config.no_shuffle,
        seed: config.seed,
        ..LoaderConfig::default()
    };
    let mut loader = Loader::new(&images, &finetuned.recognised.preprocess, loader_config)?;

    let layout = learner.model.layout();
    let tensors = active.radii().into_iter().map(|(t, rows)| (layout.params[t].name.clone(), rows)).collect();
    let (metrics, radii) = (beside(&config.out, ".metrics.jsonl"), beside(&config.out, ".radii.csv"));
    let log = RunLog::open(&metrics, &radii, tensors, None)?;
    let spoilt = |_: &Learner, what: &str| {
        let out = config.out.display();
        Error::Train(format!(
            "{what} is not a finite number: {out} was not written; are both checkpoints of the same model?"
        ))
    };
    let lr = LearningRate {
        stages: Vec::new(),
        schedule: LrSchedule::Constant,
        warmup: Warmup::Steps(0),
        steps: 0,
        epoch_steps: 1,
    };
    let mut steps = Steps::new((learner, active), (Vec::new(), lr), log, events, &spoilt, None);
    let mut throughput = Throughput::start();
    while steps.rest(&mut || loader.next(), &mut throughput)? {}
    let values = steps.learner.snapshot()?;
    // Other weights have other thresholds.
    let thresholds = match images.is_multi_label() {
        true => {
            let mut tell = |done, of| (steps.events)(Event::Evaluating { name: "val".into(), done, of });
            let mut watched = Watched::new(&mut steps.learner, &images, &mut tell);
            let cache = ImageCache::new(images.clone(), 0);
            let preprocess = &finetuned.recognised.preprocess;
            evaluate_to_fit(&mut watched, &cache, preprocess, classes.len())?.1.thresholds()
        }
        false => None,
    };
    finetuned.save_with(&config.out, &values, thresholds.as_deref())
}
