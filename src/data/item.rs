//! One image of a data set.

use std::path::PathBuf;

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The image file.
    pub path: PathBuf,
    /// Index into [`super::Dataset::classes`]; 0 if there are none.
    pub label: u32,
}
