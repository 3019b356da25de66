//! The bytes of a file that the user named, and of nothing but files: a pipe would be waited for without end.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// The bytes of a regular file, or of what a link to one leads to.
///
/// # Errors
/// [`Error::Io`] where it can't be read; [`Error::Data`] where it is a folder, a pipe, a socket or a device.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>> {
    let cannot_read = |e| Error::io(path, "cannot read", e);
    if !fs::metadata(path).map_err(cannot_read)?.is_file() {
        return Err(Error::data(path, "this is no regular file: only such files are opened"));
    }
    fs::read(path).map_err(cannot_read)
}

/// The text of a list or a class map.
///
/// # Errors
/// As [`bytes`], and where it is no UTF-8 text.
pub(super) fn text_file(path: &Path) -> Result<String> {
    String::from_utf8(bytes(path)?).map_err(|_| Error::data(path, "this is not UTF-8 text"))
}
