//! The runs that a comparison takes, each with a folder of its own.

use std::path::PathBuf;

use serde::Serialize;

use crate::compare::config::CompareConfig;
use crate::compare::spec::{EntryKind, Over, TestPoints};
use crate::data::Fold;
use crate::error::Result;
use crate::train::TrainConfig;
use crate::train::splits::Splits;

/// One run of a training method.
#[derive(Clone, Debug)]
pub struct TrainRun {
    /// Index of the data set.
    pub data: usize,
    /// Index of the method.
    pub entry: usize,
    /// Index of the grid point.
    pub point: usize,
    /// The seed.
    pub seed: u64,
    /// The run directory.
    pub dir: PathBuf,
    /// Its configuration.
    pub config: TrainConfig,
}

/// What a method costs on a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Runs to choose a grid point; 0 where there is nothing to choose.
    pub tune: usize,
    /// Runs to report it, besides those that the choice has made already.
    pub report: usize,
}

impl CompareConfig {
    /// The folder of data set `data`.
    pub fn data_dir(&self, data: usize) -> PathBuf {
        self.out.join(&self.data[data].name)
    }

    /// The run of a training method at a grid point; panics where the method does not train.
    pub fn train_run(&self, data: usize, entry: usize, point: usize, seed: u64) -> TrainRun {
        let EntryKind::Train(points, configs) = &self.methods[entry].kind else { panic!("only what trains has runs") };
        let mut dir = self.data_dir(data).join(&self.methods[entry].name);
        if !points[point].folder.is_empty() {
            dir.push(&points[point].folder);
        }
        dir.push(format!("seed-{seed}"));
        let mut config = TrainConfig { seed, ..configs[data][point].clone() };
        config.splits.fold = self.folds.map(|of| Fold { index: seed as usize, of });
        TrainRun { data, entry, point, seed, dir, config }
    }

    /// Seeds for which every grid point of `entry` is run: the tuning seeds, or all where a soup is made of each seed's grid.
    pub fn grid_seeds_of(&self, entry: usize) -> &[u64] {
        let wants_all = |kind: &EntryKind| matches!(kind, EntryKind::Soup { from, over: Over::Grid, every_seed: true, .. } if *from == entry);
        let all = self.methods.iter().any(|m| wants_all(&m.kind));
        if all { &self.seeds } else { self.tuning_seeds() }
    }

    /// The runs of a training method before its grid point is chosen, and the number of those after.
    pub fn runs_of(&self, data: usize, entry: usize) -> (Vec<TrainRun>, usize) {
        let EntryKind::Train(points, _) = &self.methods[entry].kind else { return (Vec::new(), 0) };
        let seeds = if points.len() > 1 { self.grid_seeds_of(entry) } else { &self.seeds };
        let runs = seeds.iter().flat_map(|seed| (0..points.len()).map(|p| self.train_run(data, entry, p, *seed)));
        (runs.collect(), self.seeds.len() - seeds.len())
    }

    /// What `entry` takes on one data set, with the runs of the method that it is made of.
    pub fn cost(&self, entry: usize) -> Cost {
        match &self.methods[entry].kind {
            EntryKind::Train(points, _) if points.len() == 1 => Cost { tune: 0, report: self.seeds.len() },
            EntryKind::Train(points, _) => {
                let seeds = self.tuning_seeds().len();
                Cost { tune: points.len() * seeds, report: self.seeds.len() - seeds }
            }
            EntryKind::Between { from, .. } | EntryKind::Soup { from, over: Over::Seeds, .. } => self.cost(*from),
            EntryKind::Soup { from, over: Over::Grid, .. } => {
                let EntryKind::Train(points, _) = &self.methods[*from].kind else { return Cost::default() };
                Cost { tune: points.len() * self.soup_seeds(entry).len(), report: 0 }
            }
        }
    }

    /// The seeds of the soups of `entry` that are made of a seed's grid.
    pub fn soup_seeds(&self, entry: usize) -> &[u64] {
        match self.methods[entry].kind {
            EntryKind::Soup { every_seed: true, .. } => &self.seeds,
            _ => self.tuning_seeds(),
        }
    }
}

/// A line of `--dry-run`.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    /// The data set.
    pub data: String,
    /// The method.
    pub method: String,
    /// Grid points.
    pub points: usize,
    /// Training runs of its own, of which `tune` choose a grid point.
    pub runs: usize,
    /// Training runs that choose a grid point.
    pub tune: usize,
    /// Training steps of all its runs. Where points differ in length, runs after the choice count as the longest.
    pub steps: u64,
    /// Models that are evaluated without training.
    pub blends: usize,
}

/// What will be run, by data set and method.
///
/// # Errors
/// Where a training set can't be opened: its size decides the steps of an epoch.
pub fn planned(config: &CompareConfig) -> Result<Vec<Planned>> {
    let mut lines = Vec::new();
    for (d, data) in config.data.iter().enumerate() {
        let images = config.train_images(d)?;
        for (entry, method) in config.methods.iter().enumerate() {
            let line = Planned {
                data: data.name.clone(),
                method: method.name.clone(),
                points: 1,
                runs: 0,
                tune: 0,
                steps: 0,
                blends: 0,
            };
            lines.push(match &method.kind {
                EntryKind::Train(points, _) => {
                    let (first, after) = config.runs_of(d, entry);
                    let steps: Vec<u64> = first.iter().map(|run| run.config.steps(images)).collect();
                    let longest = steps.iter().copied().max().unwrap_or(0);
                    let tune = if points.len() > 1 { first.len() } else { 0 };
                    let total = steps.iter().sum::<u64>() + after as u64 * longest;
                    Planned { points: points.len(), runs: first.len() + after, tune, steps: total, ..line }
                }
                EntryKind::Between { alphas, test_points, .. } => {
                    let seeds = config.seeds.len();
                    let blends = match test_points {
                        TestPoints::All => alphas.len() * seeds,
                        TestPoints::Chosen => alphas.len() * config.tuning_seeds().len() + seeds,
                    };
                    Planned { points: alphas.len(), blends, ..line }
                }
                EntryKind::Soup { over: Over::Grid, .. } => Planned { blends: config.soup_seeds(entry).len(), ..line },
                EntryKind::Soup { over: Over::Seeds, .. } => Planned { blends: 1, ..line },
            });
        }
    }
    Ok(lines)
}

impl CompareConfig {
    /// Training images of a data set.
    ///
    /// # Errors
    /// As opening them.
    pub fn train_images(&self, data: usize) -> Result<usize> {
        let c = self.train_run(data, self.reference, 0, self.seeds[0]).config;
        Splits::train_images(&c)
    }
}
