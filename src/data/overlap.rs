//! The same image in two data sets that should share none.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Serialize;

use super::check::Looks;
use super::dataset::Dataset;

/// What two files of the same image have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Same {
    /// Every byte.
    Bytes,
    /// Every pixel, as the model is given them: upright 8-bit RGB. One of the two was written anew.
    Pixels,
}

/// The same image in two data sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The earlier data set's name, and the image's path there (its first, where it is there twice).
    pub first: (String, PathBuf),
    /// The later data set's name, and the image's path there.
    pub second: (String, PathBuf),
    /// Whether the files are the same as well.
    pub same: Same,
}

/// Every image that two of the named data sets share, by content, where one of the two is among the first `guarded`: for
/// each pair in the order given, in the order of the second's items. Files of the same pixels are the same image: a PNG that was
/// written anew is found, a JPEG that was compressed anew is another one.
pub fn overlaps(sets: &[(&str, &Dataset)], guarded: usize, looks: &Looks) -> Vec<Overlap> {
    let mut found = Vec::new();
    for (i, (first_name, first)) in sets.iter().enumerate().take(guarded) {
        let mut index = HashMap::new();
        for (item, look) in first.items.iter().filter_map(|item| Some((item, looks.get(&item.path)?))) {
            index.entry(look.pixels).or_insert((look, item));
        }
        for (second_name, second) in &sets[i + 1..] {
            for (item, look) in second.items.iter().filter_map(|item| Some((item, looks.get(&item.path)?))) {
                if let Some((twin_look, twin)) = index.get(&look.pixels) {
                    found.push(Overlap {
                        first: (first_name.to_string(), twin.path.clone()),
                        second: (second_name.to_string(), item.path.clone()),
                        same: if twin_look.bytes == look.bytes { Same::Bytes } else { Same::Pixels },
                    });
                }
            }
        }
    }
    found
}
