//! The main job: a checkpoint fine-tuned on a folder of images, evaluated, and left in a run directory.

use std::path::Path;
use std::time::Instant;

use crate::atomic::remove_temporaries;
use crate::data::LoaderConfig;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::gpu::tiles::Choices;
use crate::method::{Anchor, Held, Learner, Stage, Trained};
use crate::stop;
use crate::tfevents::EventFile;
use crate::train::adapter;
use crate::train::adapters;
use crate::train::board::{self, Board};
use crate::train::config::TrainConfig;
use crate::train::evaluations::EvaluationLog;
use crate::train::events::{Event, Start, Summary};
use crate::train::exclude::excluded;
use crate::train::fit;
use crate::train::help;
use crate::train::inputs::Inputs;
use crate::train::leaks::Leaks;
use crate::train::lock::Lock;
use crate::train::micro_batch::MicroBatch;
use crate::train::place::Place;
use crate::train::probe;
use crate::train::reached::Reached;
use crate::train::records::{DriftRow, ShareRow};
use crate::train::row_log::RowLog;
use crate::train::run::{EACH, Training};
use crate::train::run_dir::{self, Found, RunLog};
use crate::train::sessions::Sessions;
use crate::train::source::Source;
use crate::train::splits::{SUMMARIES, Splits};
use crate::train::state::{self, Identity, Progress};
use crate::train::steps::{Steps, Watch};
use crate::train::together;
use crate::train::tta::Tta;
use crate::train::tuning;

/// Fine-tunes as `config` says and writes the run directory `out`.
///
/// If the device is lost on the way, or the run is stopped, the error names the command that goes on from the last saved state.
pub fn train(
    gpu: &Gpu,
    config: &TrainConfig,
    out: &Path,
    start: Start,
    events: &mut dyn FnMut(Event),
) -> Result<Summary> {
    train_on(gpu, &Place::default(), config, out, start, events)
}

/// As [`train`], together with the other ranks of `place`, of which the first alone writes and calls `events`. All are given the same.
///
/// # Errors
/// Where ranks differ in what they are given, and where one is gone. An error that one rank has leaves the others waiting for it: whoever
/// starts ranks ends all of them.
pub fn train_on(
    gpu: &Gpu,
    place: &Place,
    config: &TrainConfig,
    out: &Path,
    start: Start,
    events: &mut dyn FnMut(Event),
) -> Result<Summary> {
    let began = Instant::now();
    let mut silent = |_| {};
    let events = if place.writes() { events } else { &mut silent };
    let mut lock = None;
    let found = place.from_first(|| {
        lock = if out.is_dir() { Some(Lock::take(out)?) } else { None };
        Ok(serde_json::to_vec(&run_dir::check(out, start.resume)?).expect("a word"))
    })?;
    let found: Found = serde_json::from_slice(&found).expect("what the first rank has written");
    if found == Found::Beginning {
        let what =
            format!("{} holds a run that was stopped before it had saved anything: it starts anew", out.display());
        events(Event::Note(what));
    }
    let start = Start { resume: found == Found::State, ..start };
    run((gpu, place), config, (out, began), start, &mut lock, events).map_err(|error| match error.facts() {
        Error::Lost(what) => Error::Lost(format!("{what}; {}", run_dir::how_to_go_on(out))),
        Error::Stopped { signal, what } => {
            Error::Stopped { signal: *signal, what: format!("{what}; {}", run_dir::how_to_go_on(out)) }
        }
        _ => error,
    })
}

fn run(
    (gpu, place): (&Gpu, &Place),
    config: &TrainConfig,
    (out, began): (&Path, Instant),
    start: Start,
    lock: &mut Option<Lock>,
    events: &mut dyn FnMut(Event),
) -> Result<Summary> {
    let open = |events: &mut dyn FnMut(Event)| {
        let mut source = Source::open(&config.model, &config.overrides())?;
        source.recognised.preprocess = config.model_args.preprocess(&source.recognised.preprocess)?;
        let splits = Splits::open(gpu, config, &mut source, events)?;
        Ok((source, splits))
    };
    let (mut source, splits) = place.agree(open(events))?;
    for note in &source.recognised.notes {
        events(Event::Note(help::note(note)));
    }
    splits.notes(config).into_iter().chain(config.note()).for_each(|note| events(Event::Note(note)));
    if config.splits.views.tta == Tta::Flip && !splits.tests.is_empty() {
        let what =
            "on the test sets, logits are the mean of those of each image and its horizontal mirror (--tta flip)";
        events(Event::Note(what.into()));
    }
    let leaks = Leaks::find(&splits);
    if config.strict_splits {
        leaks.refuse()?;
    }
    leaks.warnings().into_iter().for_each(|warning| events(Event::Warning(warning)));
    let preprocess = source.recognised.preprocess.clone();
    let weights = config.imbalance.weights(&splits.train, &splits.classes)?;
    let inputs = Inputs::of(&source.checkpoint, &splits, weights.as_ref())?;
    together::check(place, gpu, config, &inputs, events)?;
    let model = adapters::adapted(&config.method, &source, config.drops.apply(source.model())?)?;
    let model = model.distilling(config.method.distills());
    let model = model.across(if config.optim.sync_bn { place.size() } else { 1 });
    adapters::note(&model).into_iter().for_each(|note| events(Event::Note(note)));
    // What an adapter has computed is the first rank's.
    let anchor_values = place.values_of_first(adapters::begun(&model, source.snapshot(), config.seed))?;
    let solved = match config.method.solves() {
        true => {
            probe::solve(gpu, config, &mut source, (&splits, weights.as_ref()), events)?;
            Some(place.values_of_first(adapters::begun(&model, source.snapshot(), config.seed))?)
        }
        false => None,
    };
    let start_values = solved.as_ref().unwrap_or(&anchor_values);
    let targets = config.targets(weights, &splits.train);
    let settings = config.settings(0);
    let train_config = LoaderConfig { rank: place.of(), ..config.loader(splits.train.items.len()) };
    let state_path = out.join(run_dir::STATE);
    // A run that goes on goes on as it began, and no other choices count; on another adapter they have yet to be compared.
    let mut unconfirmed = None;
    if start.resume {
        for change in state::check(&state_path, config)? {
            events(Event::Note(format!("resumed with another setting: {change}")));
        }
        if let Some(what) = state::changed(&state_path, &inputs)? {
            if !start.accept_changes {
                return Err(Error::data(
                    out,
                    format!(
                        "{what} have changed since this run was stopped: put back what it began with, or give --accept-changes to go on"
                    ),
                ));
            }
            events(Event::Warning(format!("{what} have changed since this run was stopped")));
        }
        let choices = place.from_first(|| tuning::to_json(&tuning::read_choices(&out.join(run_dir::TUNING))?))?;
        let choices = tuning::from_json(&choices);
        gpu.replace_variants(Choices::new());
        if adapter::is_same(gpu, out) {
            gpu.replace_variants(choices);
        } else {
            unconfirmed = Some(choices);
        }
    }
    let micro_batch = match config.memory.micro_batch(config.optim.batch_size) {
        MicroBatch::Fitting(_) if start.resume => MicroBatch::Images(state::micro_batch(&state_path)?),
        as_asked => as_asked,
    };
    let (sizes, limit) = fit::of_run(gpu, config, &model, &splits, micro_batch, place);
    let method = &config.method;
    let mut excluded = excluded(method.exclude.as_deref(), &source)?;
    // What adapters hold has no pre-trained counterpart.
    excluded.resize(model.layout().params.len(), true);
    let anchor = Anchor { values: &anchor_values, excluded: &excluded, new_head: source.has_new_head() };
    let mut memory = 0;
    let mut told = |event: Event| {
        memory = if let Event::Planned(planned) = &event { planned.total() } else { memory };
        events(event);
    };
    let at = (start_values, &anchor);
    let (mut learner, mut active) =
        fit::allocate((gpu, place), &model, (&sizes, limit), (settings, targets), method, at, &mut told)?;
    learner.randomize(config.seed);
    if let Some(choices) = unconfirmed {
        tuning::confirm(gpu, &learner.untuned()?, &choices, events)?;
    }
    if start.tune && !start.resume && place.writes() {
        tuning::tune(gpu, &learner.untuned()?, events)?;
    }
    together::share_choices(place, gpu, &learner, events)?;
    learner.check_batch(fit::smallest_pass(&splits.train, &train_config, learner.capacity()))?;
    config.refuse_for_model(&learner)?;
    if config.optim.sync_bn {
        together::check_sync_bn(&learner, config, &splits)?;
    }
    let (epoch_steps, steps) = (config.epoch_steps(splits.train.items.len()), config.steps(splits.train.items.len()));
    let layout = learner.model.layout();
    let begun = if start.resume { state::last_stage(&state_path)? } else { None };
    let delta = start.delta || (start.resume && state::wants_delta(&state_path)?);
    let of = Trained {
        config: &source.recognised.config,
        layout,
        excluded: &excluded,
        norms: learner.model.norms(),
        steps,
        begun,
    };
    let stages = method.stages(Stage::whole(layout, &settings), &of)?;
    method.notes(&stages).into_iter().for_each(|note| events(Event::Note(note)));
    let lr = config.optim.rates(&stages, steps, epoch_steps);
    lr.never_reached().into_iter().for_each(|warning| events(Event::Warning(warning)));
    let post = active.rest().is_some();
    if config.early_stop > 0 && post {
        let what = "--early-stop judges weights on the way, which say little where radii are learned after the last step: leave it out \
                    with --schedule post";
        return Err(Error::Usage(what.into()));
    }
    // Only now: a run that can't start leaves no folder behind.
    if lock.is_none() && place.writes() {
        run_dir::create(out)?;
        *lock = Some(Lock::take(out)?);
        run_dir::check(out, false)?;
    }
    if place.writes() {
        remove_temporaries(out);
    }
    if start.stoppable {
        stop::listen()?;
    }
    let config_path = out.join("config.toml");
    let setup = config.to_toml();
    let progress = match start.resume {
        true => state::restore(&state_path, &mut learner, &mut active)?,
        false => Progress::default(),
    };
    if progress.steps > steps {
        let taken = progress.steps;
        return Err(Error::Usage(format!(
            "the run has taken {taken} steps: --epochs or --steps can't give it {steps} now"
        )));
    }
    if progress.steps < steps && active.has_begun_rest() {
        let what = "the run has learned its radii after its last step: it can't be made longer";
        return Err(Error::Usage(what.into()));
    }
    // Before its first step, a run has nothing to go on with but its beginning.
    let resumed = start.resume && progress.steps > 0;
    if place.writes() {
        crate::checkpoint::atomic_write(&config_path, setup.as_bytes())?;
        adapter::write(gpu, out)?;
        tuning::write_choices(gpu, &out.join(run_dir::TUNING))?;
        leaks.write(&out.join(run_dir::LEAKS))?;
        splits.write(&out.join(SUMMARIES))?;
    }
    let layout = learner.model.layout();
    let tensors = active.radii().into_iter().map(|(t, rows)| (layout.params[t].name.clone(), rows)).collect();
    let (reached, radii) = (progress.steps, active.recorded(&learner));
    let since = stages.last().map_or(0, |stage| stage.since);
    let stalls = progress.stalls(config.early_stop, config.eval_every * epoch_steps, since);
    let reached = resumed.then_some(Reached { steps: reached, radii, done: reached == steps || stalls });
    let (log, drift, evaluations) = match place.writes() {
        true => {
            let mut log = RunLog::open(&out.join("metrics.jsonl"), &out.join("radii.csv"), tensors, reached)?;
            if start.tensorboard || (resumed && EventFile::is_in(&board::folder(out))) {
                log.board = Some(Board::open(out, reached, steps, post)?);
            }
            let drift = RowLog::open(out.join(run_dir::DRIFT_OVER_TIME), &DriftRow::COLUMNS, reached)?;
            (log, drift, EvaluationLog::open(out.join(run_dir::EVALUATIONS), &source.classes()?, resumed)?)
        }
        false => (RunLog::nowhere(), RowLog::nowhere(), EvaluationLog::nowhere()),
    };
    let shares = match place.writes() && !active.shares(&learner)?.is_empty() {
        true => RowLog::open(out.join(run_dir::SHARES), &ShareRow::COLUMNS, reached)?,
        false => RowLog::nowhere(),
    };
    let took = (memory, place.size());
    let sessions = Sessions::open(out.join(run_dir::SESSIONS), resumed, began, progress.steps, gpu, took)?;

    // The weights are still those before the bad step.
    let gentler = match config.method.sam.sam_rho {
        Some(_) => "a lower --sam-rho, a lower --lr, a longer warm-up (--warmup-steps) or --clip-norm",
        None => "a lower --lr, a longer warm-up (--warmup-steps) or --clip-norm",
    };
    let spoilt = |learner: &Learner, what: &str| {
        let path = out.join("last.safetensors");
        let saved = learner.last_sound().and_then(|values| source.save(&path, &values));
        let kept = match saved {
            Ok(()) => format!("the last finite weights are in {}", path.display()),
            Err(e) => format!("the last finite weights could not be saved ({e})"),
        };
        Error::Train(format!("{what} is not a finite number; {kept}: try {gentler}"))
    };
    let (preprocess, classes) = (&preprocess, source.recognised.config.classes());
    let guessed = if splits.train.is_multi_label() { EACH } else { classes };
    let watched = Some(Watch { settings: &config.optim, classes: guessed });
    let mut steps = Steps::new((learner, active), (stages, lr), log, events, &spoilt, watched);
    steps.enter_stage(true)?;
    let source = &source;
    let identity = Identity { setup, inputs, last_stage: since, delta };
    let saved = (Instant::now(), 0);
    let mut run = Training {
        config,
        out,
        place: place.clone(),
        source,
        anchor,
        preprocess,
        classes,
        steps,
        evaluations,
        drift,
        shares,
        sessions,
        progress,
        features: None,
        best_adapters: Vec::new(),
        told: Vec::new(),
        identity,
        saved,
    };
    run.fine_tune(&splits, train_config, start)
}
