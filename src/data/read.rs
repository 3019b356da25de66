//! The bytes of a file that the user named, on its own or in an archive, and of nothing but files: a pipe would be waited for without end.

use std::fs;
use std::path::{Path, PathBuf};

use super::archive::{Archive, split};
use super::pattern;
use crate::error::{Error, Result};

/// The bytes of a regular file, or of what a link to one leads to.
///
/// # Errors
/// [`Error::Io`] where it can't be read; [`Error::Data`] where it is a folder, a pipe, a socket or a device, and for a fault of
/// the archive that it is in.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>> {
    if let Some((archive, inside)) = split(path).filter(|(_, inside)| !inside.is_empty()) {
        return Archive::open(&archive)?.bytes(&inside);
    }
    let cannot_read = |e| Error::io(path, "cannot read", e);
    if !fs::metadata(path).map_err(cannot_read)?.is_file() {
        return Err(Error::data(path, "this is no regular file: only such files are opened"));
    }
    fs::read(path).map_err(cannot_read)
}

/// How many bytes the file at `path` has, on its own or in an archive.
///
/// # Errors
/// [`Error::Io`] where that can't be told; [`Error::Data`] for a fault of the archive.
pub fn size_of(path: &Path) -> Result<u64> {
    match split(path).filter(|(_, inside)| !inside.is_empty()) {
        Some((archive, inside)) => Archive::open(&archive)?.len(&inside),
        None => Ok(fs::metadata(path).map_err(|e| Error::io(path, "cannot read", e))?.len()),
    }
}

/// Whether there is a file or a folder at `path`, on its own or in an archive that can be read.
pub fn exists(path: &Path) -> bool {
    // Or files that a pattern stands for.
    if pattern::is_one(path) {
        return matches!(pattern::files(path), Ok(Some(_)));
    }
    let has = |(archive, inside): (PathBuf, String)| {
        let below = format!("{inside}/");
        Archive::open(&archive).is_ok_and(|archive| {
            inside.is_empty()
                || archive.len(&inside).is_ok()
                || archive.names().any(|name| name == inside || name.starts_with(&below))
        })
    };
    path.exists() || split(path).is_some_and(has)
}

/// Whether `path` is a file, on its own or in an archive that can be read.
pub(super) fn is_file(path: &Path) -> bool {
    path.is_file()
        || split(path)
            .is_some_and(|(archive, inside)| Archive::open(&archive).is_ok_and(|archive| archive.len(&inside).is_ok()))
}

/// The text of a list or a class map.
///
/// # Errors
/// As [`bytes`], and where it is no UTF-8 text.
pub(super) fn text_file(path: &Path) -> Result<String> {
    String::from_utf8(bytes(path)?).map_err(|_| Error::data(path, "this is not UTF-8 text"))
}
