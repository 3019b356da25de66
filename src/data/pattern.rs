//! Several archives by one path: `train-*.parquet`.

use std::path::{Path, PathBuf};

use super::archive;
use crate::error::{Error, Result};

/// Whether the last part of `path` is a pattern, and no file is called so.
pub(super) fn is_one(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains(['*', '?'])) && !path.exists()
}

/// The archives that a pattern in the last part of `path` stands for, sorted; none if it is no pattern.
///
/// # Errors
/// [`Error::Data`] where no archive has such a name.
pub(super) fn files(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    if !is_one(path) {
        return Ok(None);
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let pattern =
        PathBuf::from(glob::Pattern::escape(&folder.to_string_lossy())).join(path.file_name().unwrap_or_default());
    let found =
        glob::glob(&pattern.to_string_lossy()).map_err(|e| Error::data(path, format!("this is no pattern: {e}")))?;
    let files: Vec<PathBuf> = found.filter_map(|path| path.ok().filter(|path| archive::is_archive(path))).collect();
    match files.is_empty() {
        true => Err(Error::data(path, "no archive and no Parquet file has such a name")),
        false => Ok(Some(files)),
    }
}
