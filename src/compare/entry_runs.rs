//! The runs of an entry, by grid point.

use crate::compare::outcome::Outcome;
use crate::compare::plan::Cost;
use crate::compare::select::Score;

/// The runs of a grid point: seed (none for one model for all seeds), and outcome or error.
#[derive(Debug)]
pub struct PointRuns {
    /// The point; empty without a grid.
    pub label: String,
    /// Its runs.
    pub runs: Vec<(Option<u64>, Result<Outcome, String>)>,
}

impl PointRuns {
    /// The outcome with `seed`.
    pub fn of(&self, seed: u64) -> Option<&Outcome> {
        self.runs.iter().find(|(s, _)| s.is_none_or(|s| s == seed)).and_then(|(_, outcome)| outcome.as_ref().ok())
    }
}

/// Everything about a method on a data set.
#[derive(Debug)]
pub struct EntryRuns {
    /// Its name.
    pub name: String,
    /// `pretrained`, `trained`, `wise`, `lines` or `soup`.
    pub kind: &'static str,
    /// What it is made of, where it trains nothing: the name of an entry.
    pub from: Option<String>,
    /// Its grid, or the values of α.
    pub points: Vec<PointRuns>,
    /// The point that is reported, where one could be chosen.
    pub chosen: Option<usize>,
    /// What it cost.
    pub cost: Cost,
    /// Runs whose time went into one model.
    pub ingredients: usize,
    /// One sentence about what it is, where its name does not say; a soup's ingredients.
    pub note: String,
}

impl EntryRuns {
    /// The scores on the selection images that decide the choice: those of the tuning seeds.
    pub(super) fn scores(points: &[PointRuns], seeds: &[u64]) -> Vec<Vec<Option<Score>>> {
        points.iter().map(|p| seeds.iter().map(|seed| Some(p.of(*seed)?.select)).collect()).collect()
    }
}
