//! The learning-rate range test (Smith, *Cyclical learning rates for training neural networks*, WACV 2017): a few steps at a rate that
//! rises from far too low to far too high, and a rate that the loss suggests.

use crate::data::Loader;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::method::{Anchor, At, Held, Learned, Stage, Trained};
use crate::stop;
use crate::train::adapters;
use crate::train::config::TrainConfig;
use crate::train::events::Event;
use crate::train::exclude::excluded;
use crate::train::fit;
use crate::train::help;
use crate::train::leaks::Leaks;
use crate::train::place::Place;
use crate::train::source::Source;
use crate::train::splits::Splits;
use crate::train::throughput::Throughput;
use crate::train::tuning;

/// Weight of the past in the smoothed loss.
const SMOOTHING: f64 = 0.9;
/// The test ends where the smoothed loss is so many times the least that it has been.
const DIVERGED: f64 = 4.0;
/// Steps between two looks at the losses.
const LOOK: u64 = 5;

/// Which rates are tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The first.
    pub from: f64,
    /// The last.
    pub to: f64,
    /// How many steps, each at a rate that is higher by the same factor.
    pub steps: u64,
}

impl Range {
    fn rate(self, step: u64) -> f64 {
        self.from * (self.to / self.from).powf(step as f64 / (self.steps - 1) as f64)
    }

    /// # Errors
    /// [`Error::Usage`] for a range that does not rise, or has too few steps to show anything.
    pub fn validate(self) -> Result<()> {
        let Range { from, to, steps } = self;
        if !(from > 0.0 && to.is_finite() && from < to) {
            return Err(Error::Usage(format!("--from {from} --to {to}: rates have to rise, from above 0")));
        }
        if steps < 10 {
            return Err(Error::Usage(format!("--lr-steps {steps}: it takes 10 steps or more")));
        }
        Ok(())
    }
}

/// The losses of a test.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Rates and the training loss at each, before its step.
    pub points: Vec<(f64, f64)>,
    /// The exponential moving average of the losses, corrected for its beginning; one per point.
    pub smooth: Vec<f64>,
    /// Whether it ended because the loss rose.
    pub diverged: bool,
}

/// A rate that a curve suggests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Suggestion {
    /// The lower of the next one and a tenth of the last one.
    pub rate: f64,
    /// Where the smoothed loss falls fastest for each power of ten.
    pub steepest: f64,
    /// Where it is least.
    pub least: f64,
}

impl Curve {
    /// Of the losses at the rates of `range`, up to the first that is no number or far above the least.
    pub fn new(losses: impl IntoIterator<Item = f64>, range: Range) -> Curve {
        let mut curve = Curve { points: Vec::new(), smooth: Vec::new(), diverged: false };
        let (mut average, mut least) = (0.0, f64::INFINITY);
        for (step, loss) in losses.into_iter().enumerate() {
            if !loss.is_finite() {
                curve.diverged = true;
                break;
            }
            average = SMOOTHING * average + (1.0 - SMOOTHING) * loss;
            let smooth = average / (1.0 - SMOOTHING.powi(step as i32 + 1));
            curve.points.push((range.rate(step as u64), loss));
            curve.smooth.push(smooth);
            least = smooth.min(least);
            if smooth > DIVERGED * least {
                curve.diverged = true;
                break;
            }
        }
        curve
    }

    /// The rate to take: none if the loss never falls by a twentieth of what it begins with.
    pub fn suggestion(&self) -> Option<Suggestion> {
        let first = *self.smooth.first()?;
        let (at, least) = self.smooth.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1))?;
        if *least > 0.95 * first {
            return None;
        }
        // Slopes over a tenth of the way, so that no single batch decides.
        let wide = (self.smooth.len() / 10).max(1);
        let slope =
            |i: usize| (self.smooth[i + wide] - self.smooth[i]) / (self.points[i + wide].0 / self.points[i].0).ln();
        let steepest = (0..=at.saturating_sub(wide)).min_by(|a, b| slope(*a).total_cmp(&slope(*b)))?;
        let middle = (self.points[steepest].0 * self.points[(steepest + wide).min(at)].0).sqrt();
        let least = self.points[at].0;
        Some(Suggestion { rate: rounded(middle.min(least / 10.0)), steepest: middle, least })
    }
}

/// A rate with one digit that counts.
fn rounded(rate: f64) -> f64 {
    format!("{rate:.0e}").parse().unwrap_or(rate)
}

/// The settings of `config` without what a run is evaluated on, which would only be opened and looked at.
fn of_training(config: &TrainConfig) -> TrainConfig {
    let mut config = config.clone();
    let splits = &mut config.splits;
    splits.select = None;
    for names in [&mut splits.test, &mut splits.id, &mut splits.corrupt] {
        names.clear();
    }
    config
}

/// Trains as a run of `config` does, with all that its method does around a step, for the steps of `range` at its rates, and writes
/// nothing. Of a run with several stages the last is tested; those before it are as the run has them. What such a test makes no use of
/// says [`TrainConfig::idle_in_lr_find`].
///
/// # Errors
/// As those of a run before its first step; [`Error::Train`] where a stage before the last fails; [`Error::Stopped`].
pub fn find(gpu: &Gpu, config: &TrainConfig, range: Range, tune: bool, events: &mut dyn FnMut(Event)) -> Result<Curve> {
    range.validate()?;
    if config.method.solves() {
        return Err(Error::Usage("lr-find is for runs that take steps: --probe logistic takes none".into()));
    }
    let (config, method) = (&of_training(config), &config.method);
    let mut source = Source::open(&config.model, &config.overrides())?;
    source.recognised.preprocess = config.model_args.preprocess(&source.recognised.preprocess)?;
    let splits = Splits::open(gpu, config, &mut source, events)?;
    let notes = source.recognised.notes.iter().map(help::note);
    notes.chain([config.augment.note()]).chain(config.note()).for_each(|note| events(Event::Note(note)));
    if config.strict_splits {
        Leaks::find(&splits).refuse()?;
    }
    let weights = config.imbalance.weights(&splits.train, &splits.classes)?;
    let (targets, settings) = (config.targets(weights, &splits.train), config.settings(0));
    let model = adapters::adapted(method, &source, config.drops.apply(source.model())?)?.distilling(method.distills());
    adapters::note(&model).into_iter().for_each(|note| events(Event::Note(note)));
    let values = adapters::begun(&model, source.snapshot(), config.seed);
    let mut excluded = excluded(method.exclude.as_deref(), &source)?;
    excluded.resize(model.layout().params.len(), true);
    let anchor = Anchor { values: &values, excluded: &excluded, new_head: source.has_new_head() };
    let micro_batch = config.memory.micro_batch(config.optim.batch_size);
    let place = Place::default();
    let (sizes, limit) = fit::of_run(gpu, config, &model, &splits, micro_batch, &place);
    let (mut learner, mut active) =
        fit::allocate((gpu, &place), &model, (&sizes, limit), (settings, targets), method, (&values, &anchor), events)?;
    learner.randomize(config.seed);
    if tune {
        tuning::tune(gpu, &learner.untuned()?, events)?;
    }
    let images = splits.train.items.len();
    let loader = config.loader(images);
    learner.check_batch(fit::smallest_pass(&splits.train, &loader, learner.capacity()))?;
    config.refuse_for_model(&learner)?;
    let (layout, steps) = (learner.model.layout(), config.steps(images));
    let of = Trained {
        config: &source.recognised.config,
        layout,
        excluded: &excluded,
        norms: learner.model.norms(),
        steps,
        begun: None,
    };
    let stages = method.stages(Stage::whole(layout, &settings), &of)?;
    let (lr, since) =
        (config.optim.rates(&stages, steps, config.epoch_steps(images)), stages.last().map_or(0, |s| s.since));
    if since > 0 {
        let what =
            format!("the first {since} steps are those of finetune's earlier stage; the rates that are tested follow");
        events(Event::Note(what));
    }
    let preprocess = &source.recognised.preprocess;
    let mut loader = Loader::new(&splits.train, preprocess, loader)?;
    let val = config.val_loader(splits.val.items.len(), 0);
    let mut val = val.map(|config| Loader::new(&splits.val, preprocess, config)).transpose()?;
    let mut next = || val.as_mut().expect("what learns on validation images has a loader").next();
    let mut losses: Vec<f64> = Vec::new();
    // The first step of which a figure is no number: a run ends there.
    let mut bad: Option<u64> = None;
    let mut throughput = Throughput::start();
    let all = since + range.steps;
    for step in 0..all {
        stop::check()?;
        if let Some(stage) = stages.iter().find(|stage| stage.since == step) {
            learner.begin(stage.clone())?;
        }
        let batch = loader.next()?;
        let rate = if step < since { lr.at(step) } else { range.rate(step - since) };
        learner.step_mixed(&batch.images, &batch.labels, batch.mixed.as_ref(), rate)?;
        active.after_step(&mut learner, &mut next)?;
        let look = (step + 1) % LOOK == 0 || step + 1 == all;
        let records = learner.records(look)?;
        losses.extend(records.iter().filter(|r| r.step >= since).map(|r| f64::from(r.loss)));
        let spoilt = records.iter().filter(|r| r.is_bad()).map(|r| r.step);
        let learned = active.learned(&learner, look)?;
        let radii = learned.iter().filter(|l| l.loss.is_some_and(|loss| !loss.is_finite()));
        let at = |learned: &Learned| match learned.at {
            At::Step(step) | At::Iteration(step) => step,
        };
        bad = bad.into_iter().chain(spoilt).chain(radii.map(at)).min();
        if let Some(bad) = bad.filter(|bad| *bad < since) {
            let what = "a figure is not a finite number, before any rate is tested: try a lower --probe-lr";
            return Err(Error::Train(format!("step {bad}: {what}")));
        }
        let rate = throughput.submitted(batch.len());
        if look {
            let loss = losses.last().map_or(f32::NAN, |loss| *loss as f32);
            events(Event::Progress { step: step + 1, steps: all, loss, rate });
            if Curve::new(losses.iter().copied(), range).diverged || bad.is_some() {
                break;
            }
        }
    }
    let whole = bad.map_or(losses.len(), |bad| (bad - since) as usize);
    let end = bad.map(|_| f64::NAN);
    Ok(Curve::new(losses.into_iter().take(whole).chain(end), range))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Range = Range { from: 1e-6, to: 1.0, steps: 61 };

    /// Falls from 2 to 1 around a rate of 1e-3, and rises from 1e-1 on.
    fn loss(rate: f64) -> f64 {
        let x = rate.log10();
        2.0 - 1.0 / (1.0 + (-4.0 * (x + 3.0)).exp()) + (8.0 * (x + 1.0)).max(0.0).exp_m1()
    }

    fn rates() -> impl Iterator<Item = f64> {
        (0..RANGE.steps).map(|step| RANGE.rate(step))
    }

    #[test]
    fn rates_rise_by_one_factor() {
        let rates: Vec<f64> = rates().collect();
        assert!((rates[0] - 1e-6).abs() < 1e-18 && (rates[60] - 1.0).abs() < 1e-12);
        assert!(rates.windows(2).all(|pair| (pair[1] / pair[0] - 10f64.powf(0.1)).abs() < 1e-9));
    }

    #[test]
    fn the_suggestion_lies_where_the_loss_falls_and_below_where_it_rises() {
        let curve = Curve::new(rates().map(loss), RANGE);
        assert!(curve.diverged && curve.points.len() < 61, "{} steps", curve.points.len());
        let found = curve.suggestion().unwrap();
        // The average lags behind by some steps of a tenth of a power of ten.
        assert!((1e-3..1e-2).contains(&found.steepest), "{found:?}");
        assert!((3e-2..3e-1).contains(&found.least), "{found:?}");
        assert!((1e-3..=1e-2).contains(&found.rate) && found.rate <= found.least / 10.0 * 1.5, "{found:?}");
        assert_eq!(found.rate, rounded(found.rate));
    }

    #[test]
    fn a_loss_that_does_not_fall_suggests_nothing() {
        assert_eq!(Curve::new(rates().map(|_| 1.5), RANGE).suggestion(), None);
        assert_eq!(Curve::new(rates().map(|rate| 1.0 + rate), RANGE).suggestion(), None);
        let curve = Curve::new([1.0, f64::NAN, 0.1], RANGE);
        assert!(curve.diverged && curve.points.len() == 1);
        assert_eq!(Curve::new([], RANGE).suggestion(), None);
    }

    #[test]
    fn ranges_that_do_not_rise_are_refused() {
        for (from, to, steps) in [(0.0, 1.0, 100), (1.0, 0.1, 100), (1e-3, f64::INFINITY, 100), (1e-3, 1.0, 9)] {
            assert!(Range { from, to, steps }.validate().is_err(), "{from} {to} {steps}");
        }
        assert!(RANGE.validate().is_ok());
    }
}
