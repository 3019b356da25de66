//! The leak guard: images that two splits of a run share, named, recorded, and refused where that was asked for.

use std::path::Path;

use crate::checkpoint::atomic_write;
use crate::csv_text::csv_text;
use crate::data::{Dataset, Overlap, Same, overlaps};
use crate::error::{Error, Result, shown};
use crate::train::splits::Splits;

/// What splits share that should share nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    /// Each image of a later split that is in an earlier one.
    pub overlaps: Vec<Overlap>,
}

impl Leaks {
    /// Compares all splits by content. Two test sets may share images: nothing is learned from them.
    pub fn find(splits: &Splits) -> Leaks {
        let mut sets: Vec<(&str, &Dataset)> = vec![("train", &splits.train), ("val", &splits.val)];
        sets.extend(splits.select.as_ref().map(|select| ("select", select)));
        let guarded = sets.len();
        sets.extend(splits.tests.iter().map(|t| (t.name.as_str(), &t.images)));
        Leaks { overlaps: overlaps(&sets, guarded, &splits.looks) }
    }

    /// One line for each pair of splits: how many images, and which the first few are.
    pub fn warnings(&self) -> Vec<String> {
        let text = |(first, second, shared): (&str, &str, Vec<&Overlap>)| {
            let (count, some) = (shared.len(), named(&shared));
            let (images, are) = if count == 1 { ("image", "is") } else { ("images", "are") };
            format!(
                "{count} {images} of {second} {are} in {first} as well: {some}; results on {second} will flatter, remove \
                 them from one of the two"
            )
        };
        self.pairs().into_iter().map(text).collect()
    }

    /// Nothing where nothing is shared.
    ///
    /// # Errors
    /// [`Error::Train`] with the first of [`Self::warnings`]: what `--strict-splits` asks for.
    pub fn refuse(&self) -> Result<()> {
        match self.warnings().first() {
            Some(first) => Err(Error::Train(format!("--strict-splits: {first}"))),
            None => Ok(()),
        }
    }

    /// Writes `leaks.csv`: `first_split,first_path,second_split,second_path,same`, the last `bytes` or `pixels`. A file with a
    /// header alone says that the splits were compared and share nothing.
    ///
    /// # Errors
    /// [`Error::Io`] where the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let rows = self.overlaps.iter().map(|Overlap { first, second, same }| {
            let same = match same {
                Same::Bytes => "bytes",
                Same::Pixels => "pixels",
            };
            (&first.0, first.1.to_string_lossy(), &second.0, second.1.to_string_lossy(), same)
        });
        let header = csv_text([["first_split", "first_path", "second_split", "second_path", "same"]]);
        atomic_write(path, (header + &csv_text(rows)).as_bytes())
    }

    /// The pairs of splits that share something, in order.
    fn pairs(&self) -> Vec<(&str, &str, Vec<&Overlap>)> {
        let mut pairs: Vec<(&str, &str, Vec<&Overlap>)> = Vec::new();
        for overlap in &self.overlaps {
            let (first, second) = (overlap.first.0.as_str(), overlap.second.0.as_str());
            match pairs.iter_mut().find(|pair| (pair.0, pair.1) == (first, second)) {
                Some(pair) => pair.2.push(overlap),
                None => pairs.push((first, second, vec![overlap])),
            }
        }
        pairs
    }
}

/// Both paths of the first few, and how many more there are.
fn named(shared: &[&Overlap]) -> String {
    const SHOWN: usize = 3;
    let one = |overlap: &&Overlap| format!("{} = {}", shown(&overlap.second.1), shown(&overlap.first.1));
    let mut text = shared.iter().take(SHOWN).map(one).collect::<Vec<_>>().join(", ");
    if shared.len() > SHOWN {
        text += &format!(" and {} more", shared.len() - SHOWN);
    }
    text
}
