//! The main job: a checkpoint fine-tuned on a folder of images, evaluated, and left in a run directory.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use crate::data::{Dataset, ImageCache, Loader, LoaderConfig, Preprocess};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::method::{BatchNorm, Learner, Settings, Snapshot, StepRecord};
use crate::train::calibration::{Logits, Temperature};
use crate::train::config::TrainConfig;
use crate::train::corrupted::{self, Test};
use crate::train::evaluate::{Evaluation, evaluate_to_fit};
use crate::train::evaluations::EvaluationLog;
use crate::train::events::{Event, Start, Summary, TestResult};
use crate::train::exclude::excluded;
use crate::train::fit::{self, MicroBatch};
use crate::train::leaks::Leaks;
use crate::train::parts::{self, Parts, Stages};
use crate::train::run_dir::{self, Reached, RunLog};
use crate::train::schedule::LearningRate;
use crate::train::source::Source;
use crate::train::splits::Splits;
use crate::train::state::{self, Progress};
use crate::train::subset::{classes_with_images, evaluate_among};
use crate::train::tuning;

/// Decoded images that the splits of a run keep in memory, each.
const CACHE_BYTES: usize = 512 << 20;
/// The radius loader draws from its own stream, so that it never follows the training loader's order.
const RADIUS_STREAM: u64 = 0x7261_6469_7573;

/// A run in progress: what its parts share.
struct Run<'a, 'g> {
    config: &'a TrainConfig,
    out: &'a Path,
    source: &'a Source,
    preprocess: &'a Preprocess,
    classes: usize,
    learner: Learner<'g>,
    parts: Parts,
    stages: Stages,
    log: RunLog,
    evaluations: EvaluationLog,
    lr: LearningRate,
    waiting: VecDeque<StepRecord>,
    radius_losses: BTreeMap<u64, f32>,
    outer_seen: u64,
    latest_loss: f32,
    events: &'a mut dyn FnMut(Event),
}

/// Fine-tunes as `config` says and writes the run directory `out`.
pub fn train(
    gpu: &Gpu,
    config: &TrainConfig,
    out: &Path,
    start: Start,
    events: &mut dyn FnMut(Event),
) -> Result<Summary> {
    run_dir::check(out, start.resume)?;
    let mut source = Source::open(&config.model, &config.model_args.overrides())?;
    source.recognised.preprocess = config.model_args.preprocess(&source.recognised.preprocess)?;
    let splits = Splits::open(config, &mut source)?;
    for note in &source.recognised.notes {
        events(Event::Note(note.clone()));
    }
    splits.notes(config).into_iter().for_each(|note| events(Event::Note(note)));
    let leaks = Leaks::find(&splits)?;
    if config.strict_splits {
        leaks.refuse()?;
    }
    leaks.warnings().into_iter().for_each(|warning| events(Event::Warning(warning)));
    let preprocess = source.recognised.preprocess.clone();
    let model = source.model();
    let start_values = source.snapshot();
    let settings = Settings {
        optimizer: config.optimizer(),
        clip_norm: config.clip_norm,
        smoothing: config.label_smoothing,
        micro_batch: 0,
        batch_norm: config.bn,
        recompute: config.recompute,
        half: config.half(),
    };
    let train_config = LoaderConfig {
        batch_size: config.batch_size,
        shuffle: !config.no_shuffle,
        seed: config.seed,
        augment: config.augment,
        // A batch of a few images is a noisy step; where shuffled, what is left out differs every epoch.
        drop_last: !config.no_shuffle && splits.train.items.len() > config.batch_size,
        ..LoaderConfig::default()
    };
    let state_path = out.join(run_dir::STATE);
    // A run that goes on goes on as it began.
    if start.resume {
        tuning::read_choices(gpu, &out.join(run_dir::TUNING))?;
    }
    let micro_batch = match config.micro_batch {
        MicroBatch::Fitting(_) if start.resume => MicroBatch::Images(state::micro_batch(&state_path)?),
        as_asked => as_asked,
    };
    let images = splits.train.items.len().max(splits.val.items.len());
    let (mut sizes, limit) = fit::choices(gpu, micro_batch, config.batch_size.min(images), config.memory_limit);
    if sizes.len() > 1 && config.bn == BatchNorm::Train {
        let fits = |micro: &usize| {
            let pass = fit::smallest_pass(&splits.train, &train_config, *micro);
            model.norm_pixels().is_none_or(|pixels| pixels * pass > 1)
        };
        let whole = sizes[0];
        sizes.retain(|size| *size == whole || fits(size));
    }
    let method = &config.method;
    let excluded = excluded(method.exclude.as_deref(), &source)?;
    let (mut learner, mut parts, settings) = fit::largest(
        &sizes,
        limit,
        |micro_batch| parts::plan(gpu, &model, &Settings { micro_batch, ..settings }, method),
        |memory| {
            events(Event::Note(format!("{}: {memory}", gpu.info.name)));
            events(Event::Planned(*memory));
            let settings = Settings { micro_batch: memory.micro_batch, ..settings };
            let mut learner = Learner::new(gpu, model.clone(), &start_values, settings)?;
            let parts = Parts::new(&mut learner, &start_values, &excluded, method, config.weight_decay)?;
            Ok((learner, parts, settings))
        },
    )?;
    if start.tune && !start.resume {
        tuning::tune(gpu, &learner.untuned()?, events)?;
    }
    learner.check_batch(fit::smallest_pass(&splits.train, &train_config, learner.capacity()))?;
    if config.bn == BatchNorm::Frozen && learner.stats.len == 0 && !method.name.freezes_batch_norm() {
        return Err(Error::Usage("--bn frozen is for models with batch norm, this one has none".into()));
    }
    let epoch_steps = epoch_steps(&splits.train, &train_config);
    let steps = config.steps.unwrap_or_else(|| config.epochs.unwrap_or(1) * epoch_steps);
    let stages = Stages::new(&learner, &settings, &source.recognised.config, &excluded, method, steps)?;
    for note in parts::notes(config, &stages) {
        events(Event::Note(note));
    }
    let lr = LearningRate {
        base: config.lr,
        schedule: config.lr_schedule,
        warmup_steps: config.warmup_steps,
        steps,
        epoch_steps,
        probe: method.probe_lr.zip(stages.probe_steps()),
    };
    // Only now: a run that can't start leaves no folder behind.
    run_dir::create(out)?;
    let config_path = out.join("config.toml");
    let setup = config.to_toml();
    let progress = if start.resume {
        state::restore(&state_path, &mut learner, &mut parts, &start_values.w, &setup)?
    } else {
        Progress::default()
    };
    let (since, stage) = stages.at(progress.steps, &learner);
    learner.begin(stage, since)?;
    crate::checkpoint::atomic_write(&config_path, setup.as_bytes())?;
    tuning::write_choices(gpu, &out.join(run_dir::TUNING))?;
    leaks.write(&out.join(run_dir::LEAKS))?;
    let layout = learner.model.layout();
    let tensors = parts.radii().into_iter().map(|(t, rows)| (layout.params[t].name.clone(), rows)).collect();
    let post = method.is_post();
    let reached = start.resume.then_some(Reached {
        steps: progress.steps,
        radii: if post { progress.iterations } else { progress.steps },
        done: progress.steps == steps,
    });
    let log = RunLog::open(&out.join("metrics.jsonl"), &out.join("radii.csv"), tensors, reached)?;
    let evaluations = EvaluationLog::open(out.join(run_dir::EVALUATIONS), &source.classes()?, start.resume)?;

    let mut run = Run {
        config,
        out,
        source: &source,
        preprocess: &preprocess,
        classes: source.recognised.config.classes(),
        learner,
        parts,
        stages,
        log,
        evaluations,
        lr,
        waiting: VecDeque::new(),
        radius_losses: BTreeMap::new(),
        outer_seen: progress.iterations,
        latest_loss: f32::NAN,
        events,
    };
    run.fine_tune(&splits, train_config, progress, start, &start_values.w, &state_path, &setup)
}

/// Steps of an epoch under a loader's settings.
fn epoch_steps(train: &Dataset, config: &LoaderConfig) -> u64 {
    let (count, size) = (train.items.len(), config.batch_size);
    (if config.drop_last { count / size } else { count.div_ceil(size) }) as u64
}

impl Run<'_, '_> {
    fn fine_tune(
        &mut self,
        splits: &Splits,
        train_config: LoaderConfig,
        mut progress: Progress,
        start: Start,
        anchor: &[f32],
        state_path: &Path,
        setup: &str,
    ) -> Result<Summary> {
        let cache = |dataset: &Dataset| ImageCache::new(dataset.clone(), CACHE_BYTES);
        let (train_images, val_images) = (cache(&splits.train), cache(&splits.val));
        let select = splits.select.as_ref().map_or(val_images.clone(), cache);
        let select_name = if splits.select.is_some() { "select" } else { "val" };
        let tests = splits.tests.iter().map(|t| (t.name.clone(), t.id, cache(&t.images))).collect();
        let tests = corrupted::with_copies(tests, &self.config.corruptions()?);

        let mut summary = Summary::default();
        if start.baseline && progress.steps == 0 && self.source.recognised.initialised.is_empty() {
            self.test(&tests, "pretrained", 0, None, &mut summary)?;
        }

        let config = self.config;
        let post = config.method.is_post();
        let mut train = Loader::with_cache(
            train_images,
            self.preprocess,
            LoaderConfig { start_batch: progress.steps, ..train_config.clone() },
        )?;
        let mut radius = self.radius_loader(&val_images, progress.iterations)?;
        let mut best: Option<Snapshot> = None;
        let started = Instant::now();
        let mut evaluating = 0.0;
        let mut images = 0;
        let first = progress.steps;
        for step in first..self.lr.steps {
            let batch = train.next()?;
            images += batch.len();
            if step > first
                && let (since, stage) = self.stages.at(step, &self.learner)
                && since == step
            {
                self.learner.begin(stage, since)?;
            }
            self.learner.step(&batch.images, &batch.labels, self.lr.at(step))?;
            if let (Some(tpgm), false) = (&mut self.parts.tpgm, post) {
                if tpgm.is_due(step) {
                    for _ in 0..tpgm.max_iters() {
                        let batch = radius.as_mut().expect("radii have a loader").next()?;
                        tpgm.outer(&mut self.learner, &batch.images, &batch.labels)?;
                    }
                }
                tpgm.apply(&mut self.learner)?;
            }
            if let Some(ftp) = &mut self.parts.ftp {
                ftp.note_step(&self.learner);
            }
            if let Some(ema) = &self.parts.ema {
                ema.update(&mut self.learner)?;
            }
            self.flush(false)?;
            let rate = images as f64 / (started.elapsed().as_secs_f64() - evaluating).max(1e-9);
            let (steps, loss) = (self.lr.steps, self.latest_loss);
            (self.events)(Event::Progress { step: step + 1, steps, loss, rate });

            let every = config.eval_every * self.lr.epoch_steps;
            let last = step + 1 == self.lr.steps;
            if !last && every > 0 && (step + 1).is_multiple_of(every) {
                let paused = Instant::now();
                self.flush(true)?;
                self.averaged(|run| {
                    let (evaluation, _) = run.log_evaluation(select_name, &select, step + 1)?;
                    if post { Ok(()) } else { run.note_best(&evaluation, &mut progress, &mut best) }
                })?;
                self.save_state(&mut progress, state_path, setup)?;
                evaluating += paused.elapsed().as_secs_f64();
            }
        }
        if let (Some(radius), true) = (&mut radius, post) {
            self.learn_radii(radius)?;
        }
        self.flush(true)?;
        let steps = self.learner.steps;
        let logits = self.averaged(|run| {
            let (evaluation, logits) = run.log_evaluation(select_name, &select, steps)?;
            run.note_best(&evaluation, &mut progress, &mut best)?;
            Ok(logits)
        })?;
        summary.seconds = started.elapsed().as_secs_f64();
        summary.steps = steps;

        self.save_state(&mut progress, state_path, setup)?;
        if let Some(ema) = &self.parts.ema {
            let average = ema.snapshot(&self.learner)?;
            self.learner.load(&average);
        }
        let values = self.learner.snapshot()?;
        self.source.save(&self.out.join("last.safetensors"), &values)?;
        self.write_drift(anchor, &values.w)?;
        if !tests.is_empty() {
            let temperature = Temperature::fit(&logits);
            (self.events)(Event::of_temperature(temperature, select_name, "last"));
            self.test(&tests, "last", steps, temperature, &mut summary)?;
        }
        if start.best && progress.best_steps != steps && !tests.is_empty() {
            let values = match best {
                Some(values) => values,
                None => Source::open(&self.out.join("best.safetensors"), &config.model_args.overrides())?.snapshot(),
            };
            self.learner.load(&values);
            let (_, logits) = evaluate_to_fit(&mut self.learner, &select, self.preprocess, self.classes)?;
            let temperature = Temperature::fit(&logits);
            (self.events)(Event::of_temperature(temperature, select_name, "best"));
            self.test(&tests, "best", progress.best_steps, temperature, &mut summary)?;
        }
        Ok(summary)
    }

    /// Does `what` at the averaged weights, where there are any.
    fn averaged<T>(&mut self, what: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let Some(ema) = &self.parts.ema else { return what(self) };
        let (own, average) = (self.learner.snapshot()?, ema.snapshot(&self.learner)?);
        self.learner.load(&average);
        let done = what(self);
        self.learner.load(&own);
        done
    }

    /// Saves what the run goes on from when it is resumed.
    fn save_state(&self, progress: &mut Progress, path: &Path, setup: &str) -> Result<()> {
        progress.steps = self.learner.steps;
        progress.iterations = self.parts.iterations();
        state::save(path, &self.learner, &self.parts, *progress, setup)
    }

    /// The post-hoc recipe at the end of fine-tuning. A resumed run that has been through it is not projected again.
    fn learn_radii(&mut self, radius: &mut Loader) -> Result<()> {
        let iterations = self.config.method.max_iters as u64;
        let (mut images, started) = (0, Instant::now());
        while let Some(tpgm) = self.parts.tpgm.as_mut().filter(|t| t.iterations < iterations) {
            if tpgm.iterations == 0 {
                (self.events)(Event::Note("learning the radii at the fine-tuned weights".into()));
            }
            let batch = radius.next()?;
            images += batch.len();
            tpgm.outer(&mut self.learner, &batch.images, &batch.labels)?;
            let step = tpgm.iterations;
            if step == iterations {
                tpgm.apply(&mut self.learner)?;
            }
            self.flush(false)?;
            let rate = images as f64 / started.elapsed().as_secs_f64();
            (self.events)(Event::Progress { step, steps: iterations, loss: f32::NAN, rate });
        }
        Ok(())
    }

    fn radius_loader(&self, images: &Arc<ImageCache>, start_batch: u64) -> Result<Option<Loader>> {
        if self.parts.tpgm.is_none() {
            return Ok(None);
        }
        let config = LoaderConfig {
            batch_size: self.config.method.radius_batch_size,
            shuffle: !self.config.no_shuffle,
            seed: self.config.seed ^ RADIUS_STREAM,
            drop_last: !self.config.no_shuffle && images.dataset().items.len() > self.config.method.radius_batch_size,
            start_batch,
            ..LoaderConfig::default()
        };
        Loader::with_cache(images.clone(), self.preprocess, config).map(Some)
    }

    /// Writes the figures that have arrived; with `wait`, all. Stops the run at the first that is not a number.
    fn flush(&mut self, wait: bool) -> Result<()> {
        self.waiting.extend(self.learner.records(wait)?);
        let post = self.config.method.is_post();
        if let Some(ftp) = &mut self.parts.ftp {
            let records = ftp.records(&self.learner, wait)?;
            self.log.radii(records.iter().map(|(step, radii)| (*step, radii.as_slice())))?;
        }
        if let Some(tpgm) = &mut self.parts.tpgm {
            let records = tpgm.records(&self.learner, wait)?;
            self.outer_seen += records.len() as u64;
            if post {
                self.log.outer_losses(&records)?;
                self.log.radii(records.iter().map(|r| (r.iteration, r.radii.as_slice())))?;
            } else {
                // An outer iteration runs when its step has been counted already.
                self.log.radii(records.iter().map(|r| (r.step - 1, r.radii.as_slice())))?;
                self.radius_losses.extend(records.iter().map(|r| (r.step - 1, r.loss)));
            }
            if let Some(bad) = records.iter().find(|r| !r.loss.is_finite()) {
                let at =
                    if post { format!("outer iteration {}", bad.iteration) } else { format!("step {}", bad.step - 1) };
                return Err(self.not_finite(&format!("the radius loss of {at}")));
            }
        }
        // A step's line waits for the radius loss that belongs into it.
        let (freq, iters) = (self.config.method.proj_freq as u64, self.config.method.max_iters as u64);
        let needs_radius = self.parts.tpgm.is_some() && !post;
        let ready = |step: u64| !needs_radius || self.outer_seen >= (step / freq + 1) * iters;
        let count = self.waiting.iter().take_while(|r| ready(r.step)).count();
        let records: Vec<StepRecord> = self.waiting.drain(..count).collect();
        if let Some(last) = records.last() {
            self.latest_loss = last.loss;
        }
        let (lr, losses) = (self.lr, &self.radius_losses);
        self.log.steps(&records, lr.epoch_steps, |s| lr.at(s), |s| losses.get(&s).copied())?;
        if let Some(last) = records.last() {
            self.radius_losses = self.radius_losses.split_off(&(last.step + 1));
        }
        match records.iter().find(|r| r.is_bad()) {
            Some(bad) => {
                let what = if bad.loss.is_finite() { "gradient" } else { "loss" };
                Err(self.not_finite(&format!("the {what} of step {}", bad.step)))
            }
            None => Ok(()),
        }
    }

    /// Saves the weights, which are still those before the bad step, and words the error.
    fn not_finite(&self, what: &str) -> Error {
        let path = self.out.join("last.safetensors");
        let saved = self.learner.last_sound().and_then(|values| self.source.save(&path, &values));
        let kept = match saved {
            Ok(()) => format!("the last finite weights are in {}", path.display()),
            Err(e) => format!("the last finite weights could not be saved ({e})"),
        };
        Error::Train(format!("{what} is not a finite number; {kept}: try a lower --lr, --warmup-steps or --clip-norm"))
    }

    fn log_evaluation(&mut self, name: &str, images: &Arc<ImageCache>, steps: u64) -> Result<(Evaluation, Logits)> {
        let (evaluation, logits) = evaluate_to_fit(&mut self.learner, images, self.preprocess, self.classes)?;
        let result = TestResult {
            name: name.into(),
            model: "last",
            id: None,
            corruption: None,
            subset: None,
            evaluation: evaluation.clone(),
        };
        self.log.metric(&self.line(&result, steps, false))?;
        (self.events)(Event::Evaluated(result));
        Ok((evaluation, logits))
    }

    /// A line of `metrics.jsonl` about an evaluation after `steps` steps.
    fn line(&self, result: &TestResult, steps: u64, is_final: bool) -> serde_json::Value {
        let e = &result.evaluation;
        let mut line = json!({
            "step": steps,
            "epoch": steps / self.lr.epoch_steps,
            "eval": result.name,
            "images": e.images,
            "loss": e.loss,
            "top1": e.top1,
            "top5": e.top5,
            "ece": e.ece,
            "brier": e.brier,
        });
        if let Some(c) = &e.calibrated {
            line["temperature"] = json!(c.temperature);
            line["calibrated"] = json!({"loss": c.loss, "ece": c.ece, "brier": c.brier});
        }
        if is_final {
            line["final"] = json!(true);
            line["model"] = json!(result.model);
            if result.model == "pretrained" {
                line["baseline"] = json!(true);
            }
            if let Some(id) = result.id {
                line["kind"] = json!(if id { "id" } else { "ood" });
            }
        }
        result.describe(&mut line);
        line
    }

    /// Keeps these weights as the best where they are: by accuracy, then by loss.
    fn note_best(&mut self, e: &Evaluation, progress: &mut Progress, best: &mut Option<Snapshot>) -> Result<()> {
        let better = progress.best.is_none_or(|(top1, loss)| e.top1 > top1 || (e.top1 == top1 && e.loss < loss));
        if better {
            let values = self.learner.snapshot()?;
            self.source.save(&self.out.join("best.safetensors"), &values)?;
            progress.best = Some((e.top1, e.loss));
            progress.best_steps = self.learner.steps;
            *best = Some(values);
        }
        Ok(())
    }

    fn test(
        &mut self,
        tests: &[Test],
        model: &'static str,
        steps: u64,
        temperature: Option<Temperature>,
        summary: &mut Summary,
    ) -> Result<()> {
        let temperature = temperature.map(|t| t.value);
        for (name, id, images) in tests {
            let among = self.config.subset;
            let evaluation =
                evaluate_among(&mut self.learner, images, self.preprocess, self.classes, among, temperature)?;
            let (corruption, subset) = (images.corruption(), among.then(|| classes_with_images(images.dataset())));
            let result = TestResult { name: name.clone(), model, id: *id, corruption, subset, evaluation };
            self.log.metric(&self.line(&result, steps, true))?;
            self.evaluations.write(&result)?;
            (self.events)(Event::Evaluated(result.clone()));
            summary.tests.push(result);
        }
        Ok(())
    }

    /// The largest row drift (MARS) and the L2 norm of each tensor's drift, in f64.
    fn write_drift(&self, anchor: &[f32], packed: &[f32]) -> Result<()> {
        let layout = self.learner.model.layout();
        let rows: Vec<(String, f64, f64, usize)> = layout
            .unpack(packed)
            .zip(layout.unpack(anchor))
            .map(|((param, w), (_, w0))| {
                let delta: Vec<f64> = w.iter().zip(w0).map(|(w, w0)| f64::from(*w) - f64::from(*w0)).collect();
                let row = |row: &[f64]| row.iter().map(|d| d.abs()).sum::<f64>();
                let mars = delta.chunks(param.len / param.rows()).map(row).fold(0.0, f64::max);
                let l2 = delta.iter().map(|d| d * d).sum::<f64>().sqrt();
                (param.name.clone(), mars, l2, param.rows())
            })
            .collect();
        run_dir::write_drift(&self.out.join("drift.csv"), self.learner.steps, &rows)
    }
}
