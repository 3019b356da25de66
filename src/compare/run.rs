//! Makes the runs that are missing, goes on with those that were stopped, and passes over those that are there.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use crate::compare::config::CompareConfig;
use crate::compare::entry_runs::{EntryRuns, PointRuns};
use crate::compare::event::{End, Event, Work};
use crate::compare::outcome::{Outcome, RUN, Standing, Took, finish, standing};
use crate::compare::plan::TrainRun;
use crate::compare::post::Images;
use crate::compare::results::{DataUse, Results};
use crate::compare::select::choose;
use crate::compare::spec::{EntryKind, Over, Point};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::train::help::told;
use crate::train::leaks::Leaks;
use crate::train::records::Weights;
use crate::train::{self, Start};

/// A comparison on its way.
pub(super) struct Comparison<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) config: &'a CompareConfig,
    tune: bool,
    pub(super) events: &'a mut dyn FnMut(Event),
    index: usize,
    total: usize,
    /// Training steps that are left, and seconds per step so far.
    steps_left: u64,
    timed: (f64, u64),
    steps: HashMap<(usize, usize, usize), u64>,
    /// The end of the run that was asked to stop: then nothing else starts.
    stopped: Option<Error>,
}

/// Runs everything and returns the results, in which failed runs are missing; [`Results::failures`] counts them.
///
/// # Errors
/// Before anything runs: a folder that holds a run with other settings, data sets or models that can't be opened. A run that
/// fails later is no error here.
pub fn compare(gpu: &Gpu, config: &CompareConfig, tune: bool, events: &mut dyn FnMut(Event)) -> Result<Results> {
    let mut comparison = Comparison {
        gpu,
        config,
        tune,
        events,
        index: 0,
        total: 0,
        steps_left: 0,
        timed: (0.0, 0),
        steps: HashMap::new(),
        stopped: None,
    };
    comparison.prepare()?;
    let mut images = Vec::new();
    let mut uses = Vec::new();
    for (d, data) in config.data.iter().enumerate() {
        let first = config.train_run(d, config.reference, 0, config.seeds[0]);
        let opened = Images::open(gpu, &first.config, &mut |event| (comparison.events)(event.about(&data.name)))?;
        let leaks = Leaks::find(&opened.splits).warnings();
        for leak in &leaks {
            (comparison.events)(Event::Warning(format!("{}: {leak}", data.name)));
        }
        uses.push(DataUse::new(&first.config, &opened.splits, leaks));
        images.push(opened);
    }
    std::fs::create_dir_all(&config.out).map_err(|e| Error::io(&config.out, "cannot create this folder", e))?;
    let mut all = Vec::new();
    for (d, images) in images.iter().enumerate() {
        let mut entries = comparison.trained(d);
        if let Some(Error::Stopped { signal, what }) = comparison.stopped.take() {
            let by = what.split(';').next().unwrap_or_default();
            let what = format!("{by}; give the same command again to go on");
            return Err(Error::Stopped { signal, what });
        }
        comparison.post(d, images, &mut entries);
        all.push(entries);
    }
    Ok(Results::new(config, &gpu.info.name, all, uses))
}

impl Comparison<'_> {
    /// Counts runs and steps, and finds runs that would stand in the way before the first one starts.
    fn prepare(&mut self) -> Result<()> {
        for d in 0..self.config.data.len() {
            let images = self.config.train_images(d)?;
            for (entry, method) in self.config.methods.iter().enumerate() {
                match &method.kind {
                    EntryKind::Train(points, _) => {
                        for point in 0..points.len() {
                            for seed in &self.config.seeds {
                                let run = self.config.train_run(d, entry, point, *seed);
                                standing(&run.dir, &run.config, self.config.weights)?;
                                self.steps.insert((d, entry, point), run.config.steps(images));
                            }
                        }
                        let (first, after) = self.config.runs_of(d, entry);
                        let longest = (0..points.len()).map(|p| self.steps[&(d, entry, p)]).max().unwrap_or(0);
                        self.total += first.len() + after;
                        self.steps_left += after as u64 * longest
                            + first.iter().map(|run| self.steps[&(d, entry, run.point)]).sum::<u64>();
                    }
                    EntryKind::Wise { .. } => self.total += self.config.seeds.len(),
                    EntryKind::Soup { over: Over::Seeds, .. } => self.total += 1,
                    EntryKind::Soup { over: Over::Grid, .. } => self.total += self.config.soup_seeds(entry).len(),
                }
            }
        }
        Ok(())
    }

    pub(super) fn done(&mut self, name: String, end: End) {
        self.index += 1;
        let (seconds, steps) = self.timed;
        let left = (steps > 0 && self.steps_left > 0).then(|| seconds / steps as f64 * self.steps_left as f64);
        let (index, total) = (self.index, self.total);
        (self.events)(Event::Done { index, total, name, end, left });
    }

    /// Mean top-1 over the OOD sets of data set `data`.
    pub(super) fn ood(&self, data: usize, outcome: &Outcome) -> f64 {
        outcome.ood(&self.config.data[data].groups)
    }

    /// The methods that train: their grids, the choices, the runs of what was chosen. Others are left empty.
    fn trained(&mut self, d: usize) -> Vec<Option<EntryRuns>> {
        let config = self.config;
        let mut entries = Vec::new();
        for (entry, method) in config.methods.iter().enumerate() {
            let EntryKind::Train(points, _) = &method.kind else {
                entries.push(None);
                continue;
            };
            let label = |point: &Point| PointRuns { label: point.label.clone(), runs: Vec::new() };
            let mut all: Vec<PointRuns> = points.iter().map(label).collect();
            let (runs, after) = config.runs_of(d, entry);
            for run in &runs {
                all[run.point].runs.push((Some(run.seed), self.train(run)));
            }
            let chosen = choose(&EntryRuns::scores(&all, config.tuning_seeds()));
            // Without a grid there is nothing to choose: a seed that failed does not spoil the others.
            let chosen = if points.len() == 1 { Some(0) } else { chosen };
            if after > 0 {
                let seeds = &config.seeds[config.seeds.len() - after..];
                for seed in seeds {
                    match chosen {
                        Some(point) => {
                            let run = config.train_run(d, entry, point, *seed);
                            let outcome = self.train(&run);
                            all[point].runs.push((Some(*seed), outcome));
                        }
                        None => self.index += 1,
                    }
                }
            }
            entries.push(Some(EntryRuns {
                name: method.name.clone(),
                kind: "trained",
                from: None,
                points: all,
                chosen,
                cost: config.cost(entry),
                ingredients: 1,
                note: String::new(),
            }));
        }
        entries
    }

    fn train(&mut self, run: &TrainRun) -> Result<Outcome, String> {
        if let Some(stopped) = &self.stopped {
            return Err(stopped.to_string());
        }
        let (config, method) = (self.config, &self.config.methods[run.entry]);
        let EntryKind::Train(points, _) = &method.kind else { return Err("it does not train".into()) };
        let point = &points[run.point].label;
        let at = if point.is_empty() { String::new() } else { format!(" ({point})") };
        let name = format!("{} {}{at} seed {}", config.data[run.data].name, method.name, run.seed);
        let steps = self.steps.get(&(run.data, run.entry, run.point)).copied().unwrap_or(0);
        self.steps_left = self.steps_left.saturating_sub(steps);
        let started = Instant::now();
        match self.train_or_skip(run, &name) {
            Ok((outcome, None)) => {
                self.done(name, End::Skipped);
                Ok(outcome)
            }
            Ok((outcome, Some(resumed))) => {
                let seconds = started.elapsed().as_secs_f64();
                if !resumed {
                    self.timed = (self.timed.0 + seconds, self.timed.1 + steps);
                }
                let (id, ood) = (outcome.id(), self.ood(run.data, &outcome));
                self.done(name, End::Finished { id, ood, seconds, resumed });
                Ok(outcome)
            }
            Err(error) => {
                let what = told(&error);
                match error {
                    Error::Stopped { .. } => self.stopped = Some(error),
                    _ => self.done(name, End::Failed(what.clone())),
                }
                Err(what)
            }
        }
    }

    /// The run's outcome, and whether it was resumed; nothing where it was there.
    fn train_or_skip(&mut self, run: &TrainRun, name: &str) -> Result<(Outcome, Option<bool>)> {
        let weights = self.config.weights;
        let resume = match standing(&run.dir, &run.config, weights)? {
            Standing::Finished(outcome) => return Ok((outcome, None)),
            Standing::Resumable => true,
            Standing::Begun => {
                // Nothing in it can be gone on with, and its settings are ours.
                for file in ["last.safetensors", "best.safetensors", RUN] {
                    remove(&run.dir.join(file))?;
                }
                false
            }
            Standing::Absent => false,
        };
        let best = weights == Weights::Best;
        let start = Start { resume, best, tune: self.tune, stoppable: true, ..Start::default() };
        let mut memory = 0;
        let events = &mut self.events;
        let summary = train::train(self.gpu, &run.config, &run.dir, start, &mut |event| {
            let mut tell = |what, done, of| events(Event::Running { name: name.into(), what, done, of });
            match event {
                train::Event::Planned(plan) => memory = plan.total(),
                train::Event::Progress { step, steps, .. } => tell(Work::Steps, step as usize, steps as usize),
                train::Event::Evaluating { done, of, .. } => tell(Work::Images, done, of),
                train::Event::Advice(what) => events(Event::Warning(format!("{name}: {what}"))),
                // About the images and the model: said before the first run.
                _ => {}
            }
        })?;
        let took = Took {
            seconds: summary.seconds,
            resumed: resume,
            memory,
            steps: summary.steps,
            adapter: self.gpu.info.name.clone(),
            best: start.best,
        };
        finish(&run.dir, &took)?;
        match standing(&run.dir, &run.config, weights)? {
            Standing::Finished(outcome) => Ok((outcome, Some(resume))),
            _ => Err(Error::data(&run.dir, "the run has ended without the evaluations of all its test sets")),
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "cannot remove", e)),
        _ => Ok(()),
    }
}
