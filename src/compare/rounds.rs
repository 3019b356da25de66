//! Makes the runs that are missing, goes on with those that were stopped, and passes over those that are there or that another
//! process makes: round after round, until none is left that this process may make.

use std::time::Instant;

use crate::compare::claim::{Taken, wait};
use crate::compare::entry_runs::{EntryRuns, PointRuns};
use crate::compare::event::{End, Event, Work};
use crate::compare::outcome::{Outcome, Standing, Took, base, finish, standing};
use crate::compare::plan::TrainRun;
use crate::compare::run::Comparison;
use crate::compare::select::choose;
use crate::compare::spec::{EntryKind, Point};
use crate::error::{Error, Result};
use crate::stop;
use crate::train::board;
use crate::train::help::told;
use crate::train::records::Weights;
use crate::train::{self, Start};

/// The runs that are left after a round.
#[derive(Default)]
pub(super) struct Left {
    /// Runs that nobody has finished, or whose grid point is not chosen yet.
    pub(super) missing: usize,
    /// A run that another process makes, and which.
    others: Option<String>,
    /// Whether a run has ended in this round: it may decide others.
    any: bool,
}

/// What came of a run.
enum Came {
    /// It has ended: its outcome, or why it failed.
    Ended(Result<Outcome, String>),
    /// Another process makes it.
    Others(String),
    /// It belongs to another part.
    NotOurs,
}

impl Comparison<'_> {
    /// Makes what this process may make. Gives the number of runs that are missing then: those of other parts.
    ///
    /// # Errors
    /// Where it was asked to stop.
    pub(super) fn rounds(&mut self) -> Result<usize> {
        let mut told = None;
        loop {
            let left = self.round()?;
            match left.others {
                _ if left.missing == 0 => return Ok(0),
                _ if left.any => {}
                None => return Ok(left.missing),
                Some(others) => {
                    if told.as_ref() != Some(&others) {
                        (self.events)(Event::Note(format!("waiting for {others}")));
                        told = Some(others);
                    }
                    wait()?;
                }
            }
        }
    }

    fn round(&mut self) -> Result<Left> {
        let config = self.config;
        let mut left = Left::default();
        let mut number = 0;
        for d in 0..config.data.len() {
            for (entry, method) in config.methods.iter().enumerate() {
                if !matches!(method.kind, EntryKind::Train(..)) {
                    continue;
                }
                let (runs, after) = config.runs_of(d, entry);
                for run in &runs {
                    let ours = self.part.is_none_or(|part| part.has(number));
                    self.attempt(run, ours, &mut left)?;
                    number += 1;
                }
                let seeds = &config.seeds[config.seeds.len() - after..];
                match self.chosen(d, entry) {
                    _ if after == 0 => {}
                    None => left.missing += after,
                    Some(None) => {
                        if self.unchosen.insert((d, entry)) {
                            self.index += after;
                        }
                    }
                    // Whoever finds that a choice is made may go on with it.
                    Some(Some(point)) => {
                        for seed in seeds {
                            self.attempt(&config.train_run(d, entry, point, *seed), true, &mut left)?;
                        }
                    }
                }
            }
        }
        Ok(left)
    }

    /// The grid point of a training method; none yet where runs are missing, and none at all where they failed.
    fn chosen(&self, d: usize, entry: usize) -> Option<Option<usize>> {
        let points = self.points(d, entry)?;
        // Without a grid there is nothing to choose: a seed that failed does not spoil the others.
        let one = (points.len() == 1).then_some(0);
        Some(one.or_else(|| choose(&EntryRuns::scores(&points, self.config.tuning_seeds()))))
    }

    /// The grid of a training method with what its runs came to; nothing where one is missing.
    fn points(&self, d: usize, entry: usize) -> Option<Vec<PointRuns>> {
        let EntryKind::Train(points, _) = &self.config.methods[entry].kind else { return None };
        let label = |point: &Point| PointRuns { label: point.label.clone(), runs: Vec::new() };
        let mut all: Vec<PointRuns> = points.iter().map(label).collect();
        for run in self.config.runs_of(d, entry).0 {
            let outcome = self.ended.get(&(d, entry, run.point, run.seed))?;
            all[run.point].runs.push((Some(run.seed), outcome.clone()));
        }
        Some(all)
    }

    /// The methods of a data set that train, with the runs of each chosen point, once all have ended. Others are left empty.
    pub(super) fn trained(&self, d: usize) -> Vec<Option<EntryRuns>> {
        let config = self.config;
        let of = |(entry, method): (usize, &crate::compare::config::Entry)| {
            let (mut points, chosen) = (self.points(d, entry)?, self.chosen(d, entry)?);
            let after = config.runs_of(d, entry).1;
            for (point, seed) in
                chosen.into_iter().flat_map(|p| config.seeds.iter().rev().take(after).rev().map(move |s| (p, *s)))
            {
                let outcome = self.ended.get(&(d, entry, point, seed))?;
                points[point].runs.push((Some(seed), outcome.clone()));
            }
            Some(EntryRuns {
                name: method.name.clone(),
                kind: "trained",
                from: None,
                points,
                chosen,
                cost: config.cost(entry),
                ingredients: 1,
                note: String::new(),
            })
        };
        config.methods.iter().enumerate().map(of).collect()
    }

    /// A run that may have ended before.
    fn attempt(&mut self, run: &TrainRun, ours: bool, left: &mut Left) -> Result<()> {
        let key = (run.data, run.entry, run.point, run.seed);
        if self.ended.contains_key(&key) {
            return Ok(());
        }
        match self.train(run, ours)? {
            Came::Ended(outcome) => {
                self.ended.insert(key, outcome);
                left.any = true;
            }
            Came::Others(who) => {
                left.others = Some(who);
                left.missing += 1;
            }
            Came::NotOurs => left.missing += 1,
        }
        Ok(())
    }

    fn train(&mut self, run: &TrainRun, ours: bool) -> Result<Came> {
        let (config, method) = (self.config, &self.config.methods[run.entry]);
        let EntryKind::Train(points, _) = &method.kind else { unreachable!("runs are of what trains") };
        let point = &points[run.point].label;
        let at = if point.is_empty() { String::new() } else { format!(" ({point})") };
        let name = format!("{} {}{at} seed {}", config.data[run.data].name, method.name, run.seed);
        let steps = self.steps.get(&(run.data, run.entry, run.point)).copied().unwrap_or(0);
        let started = Instant::now();
        let (made, end) = match self.train_or_skip(run, &name, ours) {
            Ok(Made::Others(who)) => return Ok(Came::Others(format!("{name}: {who}"))),
            Ok(Made::NotOurs) => return Ok(Came::NotOurs),
            Ok(Made::Found(outcome)) => (Ok(*outcome), End::Skipped),
            Ok(Made::Now { outcome, resumed }) => {
                let seconds = started.elapsed().as_secs_f64();
                if !resumed {
                    self.timed = (self.timed.0 + seconds, self.timed.1 + steps);
                }
                let (id, ood) = (outcome.id(), self.ood(run.data, &outcome));
                (Ok(*outcome), End::Finished { id, ood, seconds, resumed })
            }
            // Then nothing else starts.
            Err(error) if matches!(error, Error::Stopped { .. }) || stop::has_failed() => return Err(error),
            Err(error) => (Err(told(&error)), End::Failed(told(&error))),
        };
        self.steps_left = self.steps_left.saturating_sub(steps);
        self.done(name, end);
        Ok(Came::Ended(made))
    }

    /// Writes the event files of a run that was whole without them, unless another process does so.
    fn add_events(&mut self, run: &TrainRun, outcome: &Outcome) -> Result<()> {
        if !self.tensorboard || board::is_in(&run.dir) {
            return Ok(());
        }
        let Taken::Ours(_claim) = self.claims.take(&run.dir)? else { return Ok(()) };
        if board::is_in(&run.dir) {
            return Ok(());
        }
        let steps = outcome.took.as_ref().map_or(0, |took| took.steps);
        board::write_later(&run.dir, steps, run.config.method.learns_after_steps())
    }

    /// The run's outcome: found, or made now.
    fn train_or_skip(&mut self, run: &TrainRun, name: &str, ours: bool) -> Result<Made> {
        let weights = self.config.weights;
        if let Standing::Finished(outcome) = standing(&run.dir, &run.config, weights)? {
            if ours {
                self.add_events(run, &outcome)?;
            }
            return Ok(Made::Found(outcome));
        }
        if !ours {
            return Ok(Made::NotOurs);
        }
        let claim = match self.claims.take(&run.dir)? {
            Taken::Ours(claim) => claim,
            Taken::Others(Some(owner)) => return Ok(Made::Others(owner.to_string())),
            Taken::Others(None) => return Ok(Made::Others("another process".into())),
        };
        // It may have ended, or come further, before it was ours.
        let resume = match standing(&run.dir, &run.config, weights)? {
            Standing::Finished(outcome) => return Ok(Made::Found(outcome)),
            Standing::Resumable => true,
            Standing::Begun | Standing::Absent => false,
        };
        let best = weights == Weights::Best;
        let tensorboard = self.tensorboard;
        let start = Start { resume, best, tune: self.tune, stoppable: true, tensorboard, ..Start::default() };
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
            base: Some(base(&run.config)?),
            ..Took::default()
        };
        finish(&run.dir, took)?;
        drop(claim);
        match standing(&run.dir, &run.config, weights)? {
            Standing::Finished(outcome) => Ok(Made::Now { outcome, resumed: resume }),
            _ => Err(Error::data(&run.dir, "the run has ended without the evaluations of all its test sets")),
        }
    }
}

/// Who made a run.
enum Made {
    /// It was there.
    Found(Box<Outcome>),
    /// This process, just now.
    Now {
        /// Its outcome.
        outcome: Box<Outcome>,
        /// Whether it was gone on with.
        resumed: bool,
    },
    /// Another process is making it.
    Others(String),
    /// It belongs to another part, and is not there.
    NotOurs,
}
