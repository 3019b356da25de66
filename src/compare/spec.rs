//! What an entry of a comparison may be, and checks that its tables share.

use serde::Deserialize;
use toml::Table;

use crate::error::Result;
use crate::method::Between;
use crate::method::soups::Soup;
use crate::train::TrainConfig;
use crate::train::lines::{Lines, Section};

/// What an entry does.
#[derive(Clone, Debug)]
pub enum EntryKind {
    /// Trains at each point of a grid, one without a grid. Configurations are by data set, then by point; the seed is 0.
    Train(Vec<Point>, Vec<Vec<TrainConfig>>),
    /// WiSE-FT or LiNeS: α chosen on the selection images.
    Between {
        /// Which of the two.
        between: Between,
        /// Index of the entry whose models are interpolated.
        from: usize,
        /// The values of α.
        alphas: Vec<f32>,
        /// Which of them the test sets see.
        test_points: TestPoints,
    },
    /// A soup.
    Soup {
        /// Index of the entry whose models are averaged.
        from: usize,
        /// How they are averaged.
        soup: &'static dyn Soup,
        /// What its ingredients are.
        over: Over,
        /// With ingredients over the grid: a soup for every seed, not only for the grid's.
        every_seed: bool,
    },
}

/// Which points the test sets see; no choice looks at them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TestPoints {
    /// All, with every seed.
    #[default]
    All,
    /// The chosen one alone. The others pass the selection images, with the tuning seeds.
    Chosen,
}

/// Ingredients of a soup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// All grid points of one seed.
    Grid,
    /// The chosen grid point with all seeds.
    Seeds,
}

/// A point of a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// As in tables: `lr 0.01, radius 2`; empty without a grid.
    pub label: String,
    /// As a folder's name: `lr-0.01_radius-2`.
    pub folder: String,
    pub(super) values: Table,
}

/// A value that is there twice, if any.
pub(super) fn repeated<T: PartialEq>(mut values: impl Iterator<Item = T> + Clone) -> Option<T> {
    while let Some(value) = values.next() {
        if values.clone().any(|other| other == value) {
            return Some(value);
        }
    }
    None
}

/// # Errors
/// The first of `keys` that `table` has, with the reason why it may not.
pub(super) fn refuse(lines: &Lines, place: Section, table: &Table, keys: &[&str]) -> Result<()> {
    match keys.iter().find(|key| table.contains_key(**key)) {
        Some(key) => {
            let what = match *key {
                "seed" => "seed: seeds are given once, by the file's own seeds = [...]".to_string(),
                "fold" => "fold: folds are given once, by the file's own folds = K or by --folds K".into(),
                "method" => "method: methods are given by [[method]]".into(),
                key => format!("{key}: belongs to [common] or [[data]], so that all methods see the same data"),
            };
            Err(lines.error(place, Some(key), what))
        }
        None => Ok(()),
    }
}
