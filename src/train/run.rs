//! A run under way: its loop over steps, evaluations on the way, and what it leaves in the run directory.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::checkpoint::{LowRank, Overrides};
use crate::data::loader::CACHE_BYTES;
use crate::data::{Dataset, ImageCache, Loader, LoaderConfig, Preprocess};
use crate::error::Result;
use crate::method::active::Finished;
use crate::method::{Anchor, Held, Saved, Snapshot};
use crate::train::adapters;
use crate::train::advice::temperature_harms;
use crate::train::by_image;
use crate::train::calibration::{Logits, Temperature};
use crate::train::config::TrainConfig;
use crate::train::corrupted::{self, Test};
use crate::train::drift;
use crate::train::evaluate::{Evaluation, Fitted, Watched, evaluate, evaluate_to_fit};
use crate::train::evaluations::EvaluationLog;
use crate::train::events::{Event, Start, Summary, TestResult};
use crate::train::feature_cache::Features;
use crate::train::leave::{Chosen, Leaving, epoch_end};
use crate::train::place::Place;
use crate::train::preview::{self, SHOWN};
use crate::train::records::{DriftRow, EvaluationLine, Metric, PlacedLine, ShareRow, Weights};
use crate::train::row_log::RowLog;
use crate::train::run_dir;
use crate::train::sessions::Sessions;
use crate::train::source::Source;
use crate::train::splits::Splits;
use crate::train::state::{self, Identity, Progress};
use crate::train::steps::Steps;
use crate::train::subset::{classes_with_images, evaluate_among};
use crate::train::throughput::Throughput;
use crate::train::tta::Tta;

/// Steps after which ranks tell each other whether they still have the same weights; at evaluations they do as well.
const AGREE_EVERY: u64 = 200;

/// The file of the best weights.
const BEST: &str = "best.safetensors";

/// What each label is guessed among: it is there, or it is not.
pub(super) const EACH: usize = 2;

/// A run in progress: what its parts share.
pub(super) struct Training<'a, 'g> {
    pub(super) config: &'a TrainConfig,
    pub(super) out: &'a Path,
    /// Where this process is among the ranks that make the run.
    pub(super) place: Place,
    pub(super) source: &'a Source,
    /// What the run starts from.
    pub(super) anchor: Anchor<'a>,
    pub(super) preprocess: &'a Preprocess,
    pub(super) classes: usize,
    pub(super) steps: Steps<'a, 'g>,
    pub(super) evaluations: EvaluationLog,
    pub(super) drift: RowLog,
    pub(super) shares: RowLog,
    pub(super) sessions: Sessions,
    pub(super) progress: Progress,
    /// What stays the same of images in the stage that the run is in.
    pub(super) features: Option<Features>,
    /// The adapters of the best weights, whose file has them merged; empty without any.
    pub(super) best_adapters: Vec<f32>,
    /// Advice that came up on the way to its end.
    pub(super) told: Vec<String>,
    /// What identifies the run in its state.
    pub(super) identity: Identity,
    /// When the state was saved last, and the steps and iterations since.
    pub(super) saved: (Instant, u64),
}

impl Training<'_, '_> {
    /// Trains to the last step, evaluates, and leaves everything in the run directory.
    pub(super) fn fine_tune(&mut self, splits: &Splits, train_config: LoaderConfig, start: Start) -> Result<Summary> {
        let cache = |dataset: &Dataset| ImageCache::new(dataset.clone(), CACHE_BYTES);
        let (train_images, val_images) = (cache(&splits.train), cache(&splits.val));
        let select = splits.select.as_ref().map_or(val_images.clone(), cache);
        let select_name = if splits.select.is_some() { "select" } else { "val" };
        let tests = splits.tests.iter().map(|t| (t.name.clone(), t.id, cache(&t.images))).collect();
        let tests = corrupted::with_copies(tests, &self.config.corruptions()?);

        let mut summary = Summary { delta: self.identity.delta, ..Summary::default() };
        let first = self.progress.steps;
        if first == 0 {
            self.save()?;
        } else {
            self.best_adapters = state::best_adapters(&self.out.join(run_dir::STATE))?;
        }
        let pretrained = !self.config.method.solves() && self.source.recognised.initialised.is_empty();
        if start.baseline && first == 0 && pretrained {
            let own = self.source.recognised.thresholds.as_deref();
            self.test(&tests, Weights::Pretrained, 0, (None, own), &mut summary)?;
        }

        let config = self.config;
        let shown = self.out.join(SHOWN);
        if self.place.writes() && !config.method.solves() && !shown.is_file() {
            let names = splits.classes.names();
            let png = preview::write(&shown, train_images.clone(), &names, self.preprocess, &train_config)?;
            self.steps.log.board.as_mut().map_or(Ok(()), |board| board.augmented(png))?;
        }
        let (images, started) = ((&train_images, &select), Instant::now());
        let mut train = self.train_loader(images, select_name, &train_config)?;
        let mut val = self.val_loader(&val_images)?;
        let mut next = || val.as_mut().expect("what learns on validation images has a loader").next();
        let mut throughput = Throughput::start();
        let last = self.steps.lr.steps;
        for step in first..last {
            if self.progress.steps == step && self.stalls() {
                let best = self.progress.best_steps;
                let count = config.early_stop;
                let what = format!(
                    "the training ends after {step} of {last} steps: no evaluation after step {best} was better (--early-stop {count})"
                );
                (self.steps.events)(Event::Note(what));
                break;
            }
            if step > first && self.steps.enter_stage(false)? {
                train = self.train_loader(images, select_name, &train_config)?;
            }
            let batch = train.next()?;
            self.steps.step(&batch, &mut next, &mut throughput)?;
            let every = config.eval_every * self.steps.lr.epoch_steps;
            if step + 1 != last && every > 0 && (step + 1).is_multiple_of(every) {
                let paused = Instant::now();
                self.evaluate_on_the_way(select_name, &select)?;
                throughput.pause(paused.elapsed());
            } else if step + 1 != last && (step + 1).is_multiple_of(self.steps.lr.epoch_steps) {
                // Its loss is of all its steps.
                self.steps.flush(true)?;
                self.tell_epoch(None);
            }
            if self.place.size() > 1 && (step + 1).is_multiple_of(AGREE_EVERY) {
                self.captured()?;
            }
            throughput.pause(self.between()?);
        }
        self.features = None;
        self.steps.learner.begin_at(None);
        let mut throughput = Throughput::start();
        while self.steps.rest(&mut next, &mut throughput)? {
            throughput.pause(self.between()?);
        }
        let (saved, values) = self.finish(select_name, &select)?;
        let steps = self.steps.learner.steps;
        let (evaluation, logits) = self.evaluated(select_name, &select)?;
        self.log(select_name, evaluation.clone(), &logits)?;
        let finishes = self.steps.active.finishes();
        if finishes || self.is_best(&evaluation) {
            self.keep_best(&values, &logits)?;
        }
        (summary.seconds, summary.steps) = (started.elapsed().as_secs_f64(), steps);
        let thresholds = logits.thresholds();
        let chosen =
            Chosen { name: select_name, images: &select, evaluation: &evaluation, thresholds: thresholds.as_deref() };
        let classes = if evaluation.labels.is_some() { EACH } else { self.classes };
        let out = self.out;
        let leaving = Leaving { out, config, classes, steps: self.steps.lr.steps, chosen };
        if self.place.writes() {
            leaving.advice()?.into_iter().for_each(|what| (self.steps.events)(Event::Advice(what)));
            self.save_state(&saved)?;
            self.source.save_with(&self.out.join("last.safetensors"), &values, thresholds.as_deref())?;
            self.write_drift(&values.w)?;
            self.note_shares()?;
        }
        drop(saved);
        summary.adapters = [self.best_adapters.clone(), self.adapters(&values.w)].map(|own| self.named_adapters(&own));
        if !tests.is_empty() {
            let logits = self.as_tests_see(select_name, &select, logits)?;
            let temperature = Temperature::fit(&logits);
            (self.steps.events)(Event::of_temperature(temperature, select_name, Weights::Last));
            let chosen = (temperature, thresholds.as_deref());
            self.test(&tests, Weights::Last, steps, chosen, &mut summary)?;
        }
        if start.best && !finishes && self.progress.best_steps != steps && !tests.is_empty() {
            let best = self.best_values(values)?;
            self.steps.learner.load(&best);
            let (_, logits) = self.evaluated(select_name, &select)?;
            let thresholds = logits.thresholds();
            let logits = self.as_tests_see(select_name, &select, logits)?;
            let temperature = Temperature::fit(&logits);
            (self.steps.events)(Event::of_temperature(temperature, select_name, Weights::Best));
            let chosen = (temperature, thresholds.as_deref());
            self.test(&tests, Weights::Best, self.progress.best_steps, chosen, &mut summary)?;
        }
        if self.place.writes() {
            leaving.write(&tests, splits, &summary, &self.told)?;
            self.sessions.write(steps, self.steps.rate, self.steps.learner.exchange_time())?;
        }
        Ok(summary)
    }

    /// Batches of training images from the next step on: of their features, if the layers below all that is trained stay as they are.
    fn train_loader(
        &mut self,
        (train, select): (&Arc<ImageCache>, &Arc<ImageCache>),
        name: &str,
        config: &LoaderConfig,
    ) -> Result<Loader> {
        let Steps { learner, events, .. } = &mut self.steps;
        let augmented = !config.augment.keeps_images();
        self.features = Features::of(learner, (train, select), (name, augmented), self.preprocess, events)?;
        learner.begin_at(self.features.as_ref().map(|features| features.cut.clone()));
        let images = self.features.as_ref().map_or(train, |features| &features.train).clone();
        let (start_batch, rank) = (learner.steps, self.place.of());
        Loader::with_cache(images, self.preprocess, LoaderConfig { start_batch, rank, ..config.clone() })
    }

    /// Whether the training ends here, since no evaluation gets better.
    fn stalls(&self) -> bool {
        let every = self.config.eval_every * self.steps.lr.epoch_steps;
        let since = self.steps.stages.last().map_or(0, |stage| stage.since);
        self.progress.stalls(self.config.early_stop, every, since)
    }

    /// Evaluates what the method makes of the weights so far, and saves the state. The weights leave the device once. An evaluation
    /// that ends the training is made again at its end, and written there.
    fn evaluate_on_the_way(&mut self, name: &str, select: &Arc<ImageCache>) -> Result<()> {
        self.steps.flush(true)?;
        let saved = self.captured()?;
        let own = self.steps.learner.own(&saved);
        let average = self.steps.active.evaluated(&saved, own.batches);
        let own_features = self.features.as_ref().map(|features| (features.cut.clone(), features.select.clone()));
        let (evaluation, logits) = match (&average, &own_features) {
            (None, Some((_, features))) => self.evaluated(name, features)?,
            (None, None) => self.evaluated(name, select)?,
            // An average of weights has features of its own.
            (Some(average), _) => {
                self.steps.learner.load(average);
                self.steps.learner.begin_at(None);
                self.evaluated(name, select)?
            }
        };
        // What a method has yet to change after the last step is no result, though it tells when the training is done.
        let active = &self.steps.active;
        let (is_result, is_judged) = (!active.finishes(), active.rest().is_none());
        if is_judged && self.is_best(&evaluation) && is_result {
            self.keep_best(average.as_ref().unwrap_or(&own), &logits)?;
        }
        self.progress.steps = self.steps.learner.steps;
        if !self.stalls() {
            self.log(name, evaluation, &logits)?;
            self.note_drift(&average.as_ref().unwrap_or(&own).w)?;
        }
        if average.is_some() {
            self.steps.learner.load(&own);
            self.steps.learner.begin_at(own_features.map(|(cut, _)| cut));
        }
        self.save_state(&saved)
    }

    /// Between two steps: saves the state if it is time to, or if the run is to stop. Returns how long that took.
    fn between(&mut self) -> Result<Duration> {
        let started = Instant::now();
        self.saved.1 += 1;
        let stop = self.place.check_stop();
        // Other ranks have nothing to save, and time flies differently there.
        let is_over = || self.config.save_every.is_over(self.saved.1, self.saved.0.elapsed());
        if self.place.writes() && (stop.is_err() || is_over()) {
            self.save()?;
        }
        if stop.is_err() {
            // None ends before the state is on the disk.
            self.place.wait()?;
        }
        stop.map(|()| started.elapsed())
    }

    /// What the learner and its methods keep. On several ranks, it is the same on all.
    fn captured(&self) -> Result<Saved> {
        let Steps { learner, active, .. } = &self.steps;
        let saved = state::capture(learner, active)?;
        state::agree(&self.place, &saved, learner.model.layout(), learner.steps)?;
        Ok(saved)
    }

    /// Saves the state as it is between two steps.
    fn save(&mut self) -> Result<()> {
        self.steps.flush(true)?;
        let saved = state::capture(&self.steps.learner, &self.steps.active)?;
        self.save_state(&saved)
    }

    /// What the run keeps, and what its last weights become, which the learner then has.
    fn finish(&mut self, name: &str, select: &Arc<ImageCache>) -> Result<(Saved, Snapshot)> {
        let saved = self.captured()?;
        // The evaluations to come take long with many images, and may be stopped.
        self.save_state(&saved)?;
        let Steps { learner, active, events, log, .. } = &mut self.steps;
        let (own, model) = (learner.own(&saved), learner.model.clone());
        let best_by = self.config.imbalance.best_by;
        let average = active.evaluated(&saved, own.batches);
        let is_own = average.is_none();
        let mut judge = |values: &Snapshot, what: &str| {
            learner.load(values);
            let mut tell = |done, of| events(Event::Evaluating { name: name.into(), done, of });
            let mut watched = Watched::new(learner, select.dataset(), &mut tell);
            let e = evaluate(&mut watched, select, self.preprocess, self.classes)?;
            let (figure, main, loss) = (e.figure().name(), 100.0 * e.main(), e.loss);
            events(Event::Note(format!("{what}: {name} {figure} {main:.1} %, loss {loss:.4}")));
            Ok(best_by.of(&e))
        };
        let Finished { values, placed } = active.finish(average.unwrap_or(own), &self.anchor, &model, &mut judge)?;
        if let Some(placed) = placed {
            events(Event::Note(placed.to_string()));
            log.metric(&Metric::Placed(PlacedLine::new(learner.steps, placed)))?;
        }
        if !is_own || placed.is_some() {
            learner.load(&values);
        }
        Ok((saved, values))
    }

    /// Saves what the run goes on from when it is resumed.
    fn save_state(&mut self, saved: &Saved) -> Result<()> {
        // A state takes the lines before it for written.
        self.steps.log.sync()?;
        self.evaluations.sync()?;
        self.drift.sync()?;
        self.shares.sync()?;
        let Steps { learner, active, .. } = &self.steps;
        (self.progress.steps, self.progress.taken) = (learner.steps, active.taken());
        if !self.place.writes() {
            return Ok(());
        }
        let progress = (self.progress, self.best_adapters.as_slice());
        state::write(&self.out.join(run_dir::STATE), saved, learner, progress, &self.identity)?;
        let exchange = self.steps.learner.exchange_time();
        self.sessions.write(self.progress.steps, self.steps.rate, exchange)?;
        self.saved = (Instant::now(), 0);
        Ok(())
    }

    /// The images that the method learns on, if it learns on validation images.
    fn val_loader(&self, images: &Arc<ImageCache>) -> Result<Option<Loader>> {
        let config = self.config.val_loader(images.dataset().items.len(), self.progress.taken);
        let config = config.map(|config| LoaderConfig { rank: self.place.of(), ..config });
        config.map(|config| Loader::with_cache(images.clone(), self.preprocess, config)).transpose()
    }

    /// Figures of the learner's weights on the split `name`, and the logits.
    fn evaluated(&mut self, name: &str, images: &Arc<ImageCache>) -> Result<(Evaluation, Logits)> {
        let Steps { learner, events, .. } = &mut self.steps;
        let mut tell = |done, of| events(Event::Evaluating { name: name.into(), done, of });
        let mut watched = Watched::new(learner, images.dataset(), &mut tell);
        evaluate_to_fit(&mut watched, images, self.preprocess, self.classes)
    }

    /// The logits on the split `name` to fit the tests' temperature on: those of the views that tests take, which `logits` are if
    /// there is one view.
    fn as_tests_see(&mut self, name: &str, images: &Arc<ImageCache>, logits: Logits) -> Result<Logits> {
        let tta = self.config.splits.views.tta;
        if tta == Tta::None {
            return Ok(logits);
        }
        let Steps { learner, events, .. } = &mut self.steps;
        let mut tell = |done, of| events(Event::Evaluating { name: name.into(), done, of });
        let mut viewed = tta.of(learner, self.preprocess.image_size);
        let mut watched = Watched::new(&mut viewed, images.dataset(), &mut tell);
        Ok(evaluate_to_fit(&mut watched, images, self.preprocess, self.classes)?.1)
    }

    /// The adapters among `w`, weights of the run; empty where it has none, or makes other weights of them.
    fn adapters(&self, w: &[f32]) -> Vec<f32> {
        adapters::alone(&self.config.method, &self.steps.learner.model, w).map_or(Vec::new(), <[f32]>::to_vec)
    }

    /// Them by name, if there are any.
    fn named_adapters(&self, values: &[f32]) -> Option<LowRank> {
        let (args, model) = (&self.config.method, &self.steps.learner.model);
        (!values.is_empty()).then(|| adapters::named(args, self.source, model, values)).flatten()
    }

    /// Tells how far the run has come: at the end of an epoch, or of all.
    fn tell_epoch(&mut self, held_out: Option<TestResult>) {
        let end = epoch_end(&self.steps, held_out);
        (self.steps.events)(Event::Epoch(end.into()));
    }

    fn log(&mut self, name: &str, evaluation: Evaluation, logits: &Logits) -> Result<()> {
        let (model, name, steps) = (Weights::Last, name.to_string(), self.steps.learner.steps);
        let result = TestResult { name, model, id: None, corruption: None, subset: None, tta: Tta::None, evaluation };
        let by_image =
            by_image::by_image(self.config.imbalance.best_by, logits).map(|values| by_image::packed(&values));
        let line = EvaluationLine { by_image, ..result.line(steps, self.steps.lr.epoch_steps, false) };
        self.steps.log.metric(&Metric::Evaluation(line.into()))?;
        match self.steps.lr.steps {
            0 => (self.steps.events)(Event::Evaluated(result.into())),
            _ => self.tell_epoch(Some(result)),
        }
        Ok(())
    }

    /// Whether this evaluation is the best so far, which it then counts as: by the figure that was asked for, then by loss.
    fn is_best(&mut self, e: &Evaluation) -> bool {
        let score = self.config.imbalance.best_by.of(e);
        let better =
            self.progress.best.is_none_or(|(most, loss)| score.0 > most || (score.0 == most && score.1 < loss));
        if better {
            (self.progress.best, self.progress.best_steps) = (Some(score), self.steps.learner.steps);
        }
        better
    }

    /// Writes the file of the best weights, which `values` are.
    fn keep_best(&mut self, values: &Snapshot, logits: &Logits) -> Result<()> {
        if self.place.writes() {
            self.source.save_with(&self.out.join(BEST), values, logits.thresholds().as_deref())?;
        }
        self.best_adapters = self.adapters(&values.w);
        Ok(())
    }

    /// The best weights as their file has them, rounded to its types: tested are the weights that a user gets, whether the run was
    /// stopped or not. `like` are values of the model.
    fn best_values(&self, like: Snapshot) -> Result<Snapshot> {
        if !self.place.writes() {
            return self.place.values_of_first(like);
        }
        let of_file = Overrides { head: None, ..self.config.overrides() };
        let values = Source::open(&self.out.join(BEST), &of_file)?.snapshot();
        self.place.values_of_first(adapters::begun(&self.steps.learner.model, values, self.config.seed))
    }

    fn test(
        &mut self,
        tests: &[Test],
        model: Weights,
        steps: u64,
        (temperature, thresholds): (Option<Temperature>, Option<&[f32]>),
        summary: &mut Summary,
    ) -> Result<()> {
        let temperature = temperature.map(|t| t.value);
        let chosen = Fitted { temperature, thresholds };
        for (name, id, images) in tests {
            let among = self.config.splits.subset;
            let Steps { learner, events, .. } = &mut self.steps;
            let mut tell = |done, of| events(Event::Evaluating { name: name.clone(), done, of });
            let tta = self.config.splits.views.tta;
            let mut viewed = tta.of(learner, self.preprocess.image_size);
            let mut watched = Watched::new(&mut viewed, images.dataset(), &mut tell);
            let evaluation = evaluate_among(&mut watched, images, self.preprocess, self.classes, among, chosen)?;
            let (corruption, subset) = (images.corruption(), among.then(|| classes_with_images(images.dataset())));
            let result = TestResult { name: name.clone(), model, id: *id, corruption, subset, tta, evaluation };
            let line = result.line(steps, self.steps.lr.epoch_steps, true);
            self.steps.log.metric(&Metric::Evaluation(line.into()))?;
            self.evaluations.write(&result)?;
            (self.steps.events)(Event::Evaluated(result.clone().into()));
            summary.tests.push(result);
        }
        let ood = summary.tests.iter().filter(|r| r.model == model && r.id == Some(false));
        let errors = ood.filter_map(|r| {
            let calibrated = r.evaluation.calibrated.as_ref()?;
            Some((r.name.as_str(), r.evaluation.ece, calibrated.ece))
        });
        let fitted = if self.config.splits.select.is_some() { "select" } else { "val" };
        let harm = temperature.and_then(|t| temperature_harms(fitted, t, &errors.collect::<Vec<_>>()));
        if let Some(what) = harm {
            self.told.push(what.clone());
            (self.steps.events)(Event::Advice(what));
        }
        Ok(())
    }

    /// Notes how far each tensor is from the anchor, and its learned share, if it has one, at an evaluation on the way.
    fn note_drift(&mut self, values: &[f32]) -> Result<()> {
        if !self.place.writes() {
            return Ok(());
        }
        let rows = self.measure_drift(values)?;
        self.drift.write(&rows)?;
        self.note_shares()
    }

    /// Notes the shares of the last step, where the method has any.
    fn note_shares(&mut self) -> Result<()> {
        let Steps { learner, active, .. } = &self.steps;
        let (params, step) = (&learner.model.layout().params, learner.steps);
        let shares = active.shares(learner)?.into_iter();
        let rows: Vec<ShareRow> =
            shares.map(|(t, share)| ShareRow { step, tensor: params[t].name.clone(), share }).collect();
        self.shares.write(&rows)
    }

    fn write_drift(&mut self, values: &[f32]) -> Result<()> {
        let rows = self.measure_drift(values)?;
        run_dir::write_drift(&self.out.join("drift.csv"), &rows)
    }

    fn measure_drift(&mut self, values: &[f32]) -> Result<Vec<DriftRow>> {
        let (Steps { learner, log, .. }, anchor) = (&mut self.steps, &self.anchor.values.w);
        let (layout, step) = (learner.model.layout(), learner.steps);
        log.board.as_mut().map_or(Ok(()), |board| board.drift(layout, values, anchor, step))?;
        Ok(drift::rows(layout, values, anchor, step))
    }
}
