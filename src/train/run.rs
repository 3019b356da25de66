//! A run under way: its loop over steps, evaluations on the way, and what it leaves in the run directory.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::data::loader::CACHE_BYTES;
use crate::data::{Dataset, ImageCache, Loader, LoaderConfig, Preprocess};
use crate::error::{Error, Result};
use crate::method::{Learner, Snapshot, StepRecord, wise};
use crate::train::blend;
use crate::train::calibration::{Logits, Temperature};
use crate::train::config::TrainConfig;
use crate::train::corrupted::{self, Test};
use crate::train::evaluate::{Evaluation, evaluate, evaluate_to_fit};
use crate::train::evaluations::EvaluationLog;
use crate::train::events::{Event, Start, Summary, TestResult};
use crate::train::method_args::WiseAlpha;
use crate::train::parts::{Parts, Stages};
use crate::train::records::{Calibrated, Distribution, DriftRow, EvaluationLine, Metric, Weights, WiseLine};
use crate::train::run_dir::{self, RunLog};
use crate::train::schedule::LearningRate;
use crate::train::source::Source;
use crate::train::splits::Splits;
use crate::train::state::{self, Progress};
use crate::train::subset::{classes_with_images, evaluate_among};
use crate::train::throughput::Throughput;

/// The radius loader draws from its own stream, so that it never follows the training loader's order.
const RADIUS_STREAM: u64 = 0x7261_6469_7573;
/// Places between the pre-trained and the fine-tuned weights that WiSE tries.
const SWEEP: usize = 11;

/// A run in progress: what its parts share.
pub(super) struct Run<'a, 'g> {
    pub(super) config: &'a TrainConfig,
    pub(super) out: &'a Path,
    pub(super) source: &'a Source,
    /// What the run starts from.
    pub(super) anchor: &'a Snapshot,
    /// Tensors without a pre-trained counterpart, a flag each.
    pub(super) excluded: Vec<bool>,
    pub(super) preprocess: &'a Preprocess,
    pub(super) classes: usize,
    pub(super) learner: Learner<'g>,
    pub(super) parts: Parts,
    pub(super) stages: Stages,
    pub(super) log: RunLog,
    pub(super) evaluations: EvaluationLog,
    pub(super) lr: LearningRate,
    pub(super) waiting: VecDeque<StepRecord>,
    pub(super) radius_losses: BTreeMap<u64, f32>,
    pub(super) outer_seen: u64,
    pub(super) latest_loss: f32,
    pub(super) events: &'a mut dyn FnMut(Event),
}

impl Run<'_, '_> {
    /// Trains to the last step, evaluates, and leaves everything in the run directory.
    pub(super) fn fine_tune(
        &mut self,
        splits: &Splits,
        train_config: LoaderConfig,
        mut progress: Progress,
        start: Start,
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
            self.test(&tests, Weights::Pretrained, 0, None, &mut summary)?;
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
        let (started, mut throughput) = (Instant::now(), Throughput::start());
        let first = progress.steps;
        for step in first..self.lr.steps {
            let batch = train.next()?;
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
            let rate = throughput.submitted(batch.len());
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
                throughput.pause(paused.elapsed());
            }
        }
        if let (Some(radius), true) = (&mut radius, post) {
            self.learn_radii(radius)?;
        }
        self.flush(true)?;
        let steps = self.learner.steps;
        // What is evaluated and saved is the run's own weights, their average, or something between that and the anchor.
        let own = self.learner.snapshot()?;
        if let Some(ema) = &self.parts.ema {
            let average = ema.snapshot(&self.learner)?;
            self.learner.load(&average);
        }
        if let Some(wise) = config.method.wise_alpha {
            self.interpolate(wise, select_name, &select)?;
        }
        let (evaluation, logits) = self.log_evaluation(select_name, &select, steps)?;
        self.note_best(&evaluation, &mut progress, &mut best)?;
        summary.seconds = started.elapsed().as_secs_f64();
        summary.steps = steps;

        let values = self.learner.snapshot()?;
        self.learner.load(&own);
        self.save_state(&mut progress, state_path, setup)?;
        self.learner.load(&values);
        self.source.save(&self.out.join("last.safetensors"), &values)?;
        self.write_drift(&values.w)?;
        if !tests.is_empty() {
            let temperature = Temperature::fit(&logits);
            (self.events)(Event::of_temperature(temperature, select_name, Weights::Last));
            self.test(&tests, Weights::Last, steps, temperature, &mut summary)?;
        }
        if start.best && progress.best_steps != steps && !tests.is_empty() {
            let values = match best {
                Some(values) => values,
                None => Source::open(&self.out.join("best.safetensors"), &config.model_args.overrides())?.snapshot(),
            };
            self.learner.load(&values);
            let (_, logits) = evaluate_to_fit(&mut self.learner, &select, self.preprocess, self.classes)?;
            let temperature = Temperature::fit(&logits);
            (self.events)(Event::of_temperature(temperature, select_name, Weights::Best));
            self.test(&tests, Weights::Best, progress.best_steps, temperature, &mut summary)?;
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

    /// WiSE-FT: takes the weights at `wise`, or at the best of several places for the selection images.
    fn interpolate(&mut self, wise: WiseAlpha, name: &str, select: &Arc<ImageCache>) -> Result<()> {
        let tuned = self.learner.snapshot()?;
        let mut anchor = self.anchor.clone();
        for (param, excluded) in self.learner.model.layout().params.iter().zip(&self.excluded) {
            let at = param.offset..param.offset + param.len;
            if *excluded {
                anchor.w[at.clone()].copy_from_slice(&tuned.w[at]);
            }
        }
        let alphas = match wise {
            WiseAlpha::Alpha(alpha) => vec![alpha],
            WiseAlpha::Swept(_) => wise::alphas(SWEEP),
        };
        let mut tried = Vec::new();
        for &alpha in alphas.iter().filter(|_| alphas.len() > 1) {
            self.learner.load(&wise::snapshot(&anchor, &tuned, alpha));
            let e = evaluate(&mut self.learner, select, self.preprocess, self.classes)?;
            let said = format!("WiSE alpha {alpha:.1}: {name} top-1 {:.1} %, loss {:.4}", 100.0 * e.top1, e.loss);
            (self.events)(Event::Note(said));
            tried.push((e.top1, e.loss));
        }
        let alpha = alphas[blend::best(&tried).unwrap_or(0)];
        self.learner.load(&wise::snapshot(&anchor, &tuned, alpha));
        (self.events)(Event::Note(format!(
            "the weights are {alpha} of the way from the pre-trained to the fine-tuned"
        )));
        self.log.metric(&Metric::Wise(WiseLine { step: self.learner.steps, wise_alpha: alpha }))
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
        let mut throughput = Throughput::start();
        while let Some(tpgm) = self.parts.tpgm.as_mut().filter(|t| t.iterations < iterations) {
            if tpgm.iterations == 0 {
                (self.events)(Event::Note("learning the radii at the fine-tuned weights".into()));
            }
            let batch = radius.next()?;
            tpgm.outer(&mut self.learner, &batch.images, &batch.labels)?;
            let step = tpgm.iterations;
            if step == iterations {
                tpgm.apply(&mut self.learner)?;
            }
            self.flush(false)?;
            let rate = throughput.submitted(batch.len());
            (self.events)(Event::Progress { step, steps: iterations, loss: f32::NAN, rate });
        }
        Ok(())
    }

    fn radius_loader(&self, images: &Arc<ImageCache>, start_batch: u64) -> Result<Option<Loader>> {
        if self.parts.tpgm.is_none() {
            return Ok(None);
        }
        let batch = self.config.method.radius_batch_size;
        let config = LoaderConfig {
            batch_size: batch,
            shuffle: !self.config.no_shuffle,
            seed: self.config.seed ^ RADIUS_STREAM,
            drop_last: self.config.drops_last(images.dataset().items.len(), batch),
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
            model: Weights::Last,
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
    fn line(&self, result: &TestResult, steps: u64, is_final: bool) -> Metric {
        let e = &result.evaluation;
        Metric::Evaluation(EvaluationLine {
            step: steps,
            epoch: Some(steps / self.lr.epoch_steps),
            set: result.name.clone(),
            images: Some(e.images as u64),
            loss: Some(e.loss),
            top1: Some(e.top1),
            top5: Some(e.top5),
            ece: Some(e.ece),
            brier: Some(e.brier),
            temperature: e.calibrated.as_ref().map(|c| c.temperature),
            calibrated: e.calibrated.as_ref().map(|c| Calibrated { loss: c.loss, ece: c.ece, brier: c.brier }),
            is_final,
            model: is_final.then_some(result.model),
            baseline: is_final && result.model == Weights::Pretrained,
            kind: result.id.filter(|_| is_final).map(Distribution::of),
            corruption: result.corruption.map(|c| c.kind.name().to_string()),
            severity: result.corruption.map(|c| c.severity().into()),
            subset: result.subset.map(|classes| classes as u64),
        })
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
        model: Weights,
        steps: u64,
        temperature: Option<Temperature>,
        summary: &mut Summary,
    ) -> Result<()> {
        let temperature = temperature.map(|t| t.value);
        for (name, id, images) in tests {
            let among = self.config.splits.subset;
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
    fn write_drift(&self, packed: &[f32]) -> Result<()> {
        let layout = self.learner.model.layout();
        let rows: Vec<DriftRow> = layout
            .unpack(packed)
            .zip(layout.unpack(&self.anchor.w))
            .enumerate()
            .map(|(depth, ((param, w), (_, w0)))| {
                let delta: Vec<f64> = w.iter().zip(w0).map(|(w, w0)| f64::from(*w) - f64::from(*w0)).collect();
                let row = |row: &[f64]| row.iter().map(|d| d.abs()).sum::<f64>();
                let mars = delta.chunks(param.len / param.rows()).map(row).fold(0.0, f64::max);
                let l2 = delta.iter().map(|d| d * d).sum::<f64>().sqrt();
                let (step, tensor, rows) = (self.learner.steps, param.name.clone(), param.rows() as u64);
                DriftRow { step, tensor, depth: Some(depth), mars_drift: mars, l2_drift: l2, rows }
            })
            .collect();
        run_dir::write_drift(&self.out.join("drift.csv"), &rows)
    }
}
