//! Corrupted copies of test sets, as further test sets.

use std::sync::Arc;

use crate::data::ImageCache;
use crate::data::corrupt::{self, Corruption};
use crate::error::{Error, Result};

/// A test set: its name, whether it is in-distribution where that was said, and its images.
pub type Test = (String, Option<bool>, Arc<ImageCache>);

/// The corruptions that `words` name ([`corrupt::parse`]), for a run: always of the same draws, so that runs with different
/// seeds are tested on the same images.
///
/// # Errors
/// As [`corrupt::parse`]; [`Error::Usage`] if there is no test set among the `tests` to corrupt.
pub fn corruptions(words: &[String], tests: usize) -> Result<Vec<Corruption>> {
    if !words.is_empty() && tests == 0 {
        return Err(Error::Usage("--corrupt corrupts test sets: give one with --test NAME=PATH".into()));
    }
    corrupt::parse(words, 0)
}

/// The name of `set`'s copy: `photo+fog3`.
pub fn copy_name(set: &str, corruption: Corruption) -> String {
    format!("{set}+{corruption}")
}

/// `tests` with a copy of each in-distribution one for each of `corruptions` behind them; of every one where nobody said
/// which is in-distribution. The copies are out-of-distribution.
pub fn with_copies(mut tests: Vec<Test>, corruptions: &[Corruption]) -> Vec<Test> {
    let copies: Vec<Test> = tests
        .iter()
        .filter(|(_, id, _)| *id != Some(false))
        .flat_map(|(name, _, images)| {
            corruptions.iter().map(move |c| (copy_name(name, *c), Some(false), images.corrupted(*c)))
        })
        .collect();
    tests.extend(copies);
    tests
}
