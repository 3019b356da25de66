//! A comparison from its first look at the data to its results; the runs themselves are made in `rounds`.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use crate::compare::choice::{self, Places};
use crate::compare::claim::{Claim, Claims, Taken, wait};
use crate::compare::config::CompareConfig;
use crate::compare::event::{End, Event};
use crate::compare::outcome::{Digests, Outcome, Standing, base, standing};
use crate::compare::post::{Images, Opened};
use crate::compare::results::{DataUse, Results};
use crate::compare::spec::{EntryKind, Over};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::train::TrainConfig;
use crate::train::board;
use crate::train::leaks::Leaks;

/// A comparison on its way.
pub(super) struct Comparison<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) config: &'a CompareConfig,
    pub(super) tune: bool,
    pub(super) part: Option<Part>,
    /// Whether runs have event files for TensorBoard.
    pub(super) tensorboard: bool,
    pub(super) claims: Claims,
    pub(super) events: &'a mut dyn FnMut(Event),
    pub(super) index: usize,
    total: usize,
    /// Training steps that are left, and seconds per step so far.
    pub(super) steps_left: u64,
    pub(super) timed: (f64, u64),
    /// Steps of a run, by data set, method and grid point.
    pub(super) steps: HashMap<(usize, usize, usize), u64>,
    /// What has ended: the outcome, or the error, by data set, method, grid point and seed.
    pub(super) ended: HashMap<(usize, usize, usize, u64), Result<Outcome, String>>,
    /// Methods of a data set of whose grids nothing can be chosen, since runs failed.
    pub(super) unchosen: HashSet<(usize, usize)>,
}

/// A share of the runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which, from 1.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

impl Part {
    /// Whether the run of this number belongs to it. Neighbours, which are points of one grid, go to different parts.
    pub(super) fn has(self, number: usize) -> bool {
        number % self.of == self.index - 1
    }
}

impl std::str::FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Part, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
        match numbers {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Part { index, of }),
            _ => Err("not I/N with I from 1 to N, as in 2/8".into()),
        }
    }
}

/// What of a comparison this process does.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Its part of the runs; none for all.
    pub part: Option<Part>,
    /// Whether it makes the entries without training and the results, if it finds all runs whole.
    pub writes: bool,
    /// Whether runs have event files for TensorBoard. A comparison that has them goes on with them anyway.
    pub tensorboard: bool,
}

/// What a process has come to.
#[derive(Debug)]
pub enum Ended {
    /// Every run has ended, and this process alone writes the results as long as it keeps this.
    Whole(Box<Results>, Writer),
    /// This process may make no more runs; so many are missing. These have failed, with their errors.
    Part(usize, Vec<String>),
}

/// The right to write the tables and the page.
#[derive(Debug)]
pub struct Writer(#[allow(dead_code)] Claim);

/// Makes every run of its `share` that no other process makes, and returns the results once all are there. Failed
/// runs are missing in them; [`Results::failures`] counts them.
///
/// # Errors
/// Before anything runs: a folder that holds a run with other settings, data sets or models that can't be opened. A run that
/// fails later is no error here.
pub fn compare(
    gpu: &Gpu,
    config: &CompareConfig,
    tune: bool,
    share: Share,
    events: &mut dyn FnMut(Event),
) -> Result<Ended> {
    let mut comparison = Comparison {
        gpu,
        config,
        tune,
        part: share.part,
        tensorboard: share.tensorboard,
        claims: Claims::new(),
        events,
        index: 0,
        total: 0,
        steps_left: 0,
        timed: (0.0, 0),
        steps: HashMap::new(),
        ended: HashMap::new(),
        unchosen: HashSet::new(),
    };
    if comparison.prepare()? && !comparison.tensorboard {
        (comparison.events)(Event::Note("runs here have event files for TensorBoard: all get them".into()));
        comparison.tensorboard = true;
    }
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
        images.push(Opened::new(opened));
    }
    std::fs::create_dir_all(&config.out).map_err(|e| Error::io(&config.out, "cannot create this folder", e))?;
    let again = |error| match error {
        Error::Stopped { signal, what } => {
            let by = what.split(';').next().unwrap_or_default();
            Error::Stopped { signal, what: format!("{by}; give the same command again to go on") }
        }
        error => error,
    };
    let missing = comparison.rounds().map_err(again)?;
    if missing > 0 || !share.writes {
        let failed = comparison.ended.values().filter_map(|outcome| outcome.as_ref().err().cloned());
        return Ok(Ended::Part(missing, failed.collect()));
    }
    let writer = comparison.writer().map_err(again)?;
    let (mut all, mut places) = (Vec::new(), Vec::new());
    for (d, images) in images.iter_mut().enumerate() {
        let mut entries = comparison.trained(d);
        comparison.post(d, images, &mut entries);
        all.push(entries);
        places.push(comparison.places(d, images)?);
    }
    Ok(Ended::Whole(Box::new(Results::new(config, &gpu.info.name, all, uses, &places)), writer))
}

/// What runs begin with, by the paths of their models and heads: each is read once.
#[derive(Default)]
struct Bases(HashMap<(PathBuf, Option<PathBuf>), Vec<Digests>>);

impl Bases {
    /// Refuses a finished run that began with other weights than its paths hold now: an entry made of its weights and of these would be of
    /// two models.
    fn check(&mut self, config: &TrainConfig, outcome: &Outcome) -> Result<()> {
        let Some(then) = outcome.took.as_ref().and_then(|took| took.base.as_ref()) else { return Ok(()) };
        let key = (config.model.clone(), config.model_args.head.clone());
        let now = match self.0.get(&key) {
            Some(now) => now,
            None => self.0.entry(key).or_insert(base(config)?),
        };
        if now == then {
            return Ok(());
        }
        let which = if now.first() == then.first() { "--head" } else { "--model" };
        let what = format!(
            "this run began with other weights of {which} than there are now: put them back, give another --out, or delete this folder \
             to run it anew"
        );
        Err(Error::data(&outcome.dir, what))
    }
}

impl Comparison<'_> {
    /// Counts runs and steps, and finds runs that would stand in the way before the first one starts; whether any has event files.
    fn prepare(&mut self) -> Result<bool> {
        let (mut has_events, mut bases) = (false, Bases::default());
        for d in 0..self.config.data.len() {
            let images = self.config.train_images(d)?;
            for (entry, method) in self.config.methods.iter().enumerate() {
                match &method.kind {
                    EntryKind::Train(points, _) => {
                        for point in 0..points.len() {
                            for seed in &self.config.seeds {
                                let run = self.config.train_run(d, entry, point, *seed);
                                if let Standing::Finished(outcome) =
                                    standing(&run.dir, &run.config, self.config.weights)?
                                {
                                    bases.check(&run.config, &outcome)?;
                                }
                                has_events |= board::is_in(&run.dir);
                                self.steps.insert((d, entry, point), run.config.steps(images));
                            }
                        }
                        let (first, after) = self.config.runs_of(d, entry);
                        let longest = (0..points.len()).map(|p| self.steps[&(d, entry, p)]).max().unwrap_or(0);
                        self.total += first.len() + after;
                        self.steps_left += after as u64 * longest
                            + first.iter().map(|run| self.steps[&(d, entry, run.point)]).sum::<u64>();
                    }
                    EntryKind::Between { .. } => self.total += self.config.seeds.len(),
                    EntryKind::Soup { over: Over::Seeds, .. } => self.total += 1,
                    EntryKind::Soup { over: Over::Grid, .. } => self.total += self.config.soup_seeds(entry).len(),
                }
            }
        }
        Ok(has_events)
    }

    /// Which selection images tuning seeds share, where they have different ones: parts of the training images that are left by a fold.
    fn places(&self, d: usize, images: &mut Opened) -> Result<Option<Places>> {
        let (config, seeds) = (self.config, self.config.tuning_seeds());
        let run = |seed: &u64| config.train_run(d, config.reference, 0, *seed).config;
        let splits = run(&config.seeds[0]).splits;
        let apart = splits.select.is_none() && splits.val.as_os_str().is_empty();
        if config.folds.is_none() || !apart || seeds.len() < 2 {
            return Ok(None);
        }
        let names = seeds.iter().map(|seed| images.selected(self.gpu, &run(seed))).collect::<Result<Vec<_>>>()?;
        Ok(Some(choice::places(&names)))
    }

    /// Waits until no other process makes the entries without training and writes the results.
    fn writer(&mut self) -> Result<Writer> {
        let mut told = false;
        loop {
            let owner = match self.claims.take(&self.config.out)? {
                Taken::Ours(claim) => return Ok(Writer(claim)),
                Taken::Others(owner) => owner.map_or("another process".into(), |owner| owner.to_string()),
            };
            if !std::mem::replace(&mut told, true) {
                (self.events)(Event::Note(format!("waiting for {owner}, which writes the results")));
            }
            wait()?;
        }
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
}
