//! Which columns of a table have what.

/// Which columns of a table have what, where its own names don't tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The column of images.
    pub image: Option<String>,
    /// The column of labels.
    pub label: Option<String>,
    /// What stands between several labels of one image: a text, of which blanks stand for any number of them.
    pub separator: Option<String>,
}

/// What stands between labels in a column called `labels`.
const SEPARATORS: [char; 2] = [';', '|'];

impl Columns {
    /// The labels in a cell; none in an empty one.
    pub(super) fn split(&self, cell: &str) -> Vec<String> {
        let parts: Vec<&str> = match self.separator.as_deref() {
            None => cell.split(SEPARATORS).collect(),
            Some(separator) if separator.trim().is_empty() => cell.split_whitespace().collect(),
            Some(separator) => cell.split(separator).collect(),
        };
        parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).map(String::from).collect()
    }
}
