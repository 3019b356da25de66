//! The JSON files beside the weights, read with suspicion.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;

pub(super) use crate::error::quote;
use crate::error::{Error, Result};

/// What such a file may take at most. The names of 22 thousand classes take less than one; parsed, it is some thirty
/// times its size.
const MAX_LEN: u64 = 8 << 20;

/// The bytes of a small file.
///
/// # Errors
/// Where it can't be read, is no file, or is longer than any such file should be.
pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let unreadable = |e| Error::io(path, "cannot read", e);
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Error::checkpoint(path, "not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(unreadable)?.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(Error::checkpoint(path, format!("longer than {} MiB, which no such file is", MAX_LEN >> 20)));
    }
    Ok(bytes)
}

/// The bytes as JSON.
///
/// # Errors
/// Where they are none, or not of the form that is read.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| {
        let what = if e.is_data() { "can't be understood" } else { "not valid JSON" };
        Error::checkpoint(path, format!("{what}: {}", quote(&e.to_string())))
    })
}
