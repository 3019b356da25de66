//! How files of one JSON object per line are read.

use std::path::Path;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::{Error, Result};

/// A number, or NaN for null.
pub(crate) fn or_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

/// The object that `line` holds.
pub(super) fn object(line: &str) -> Result<Value, String> {
    match serde_json::from_str(line) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("not a JSON object; delete the line to go on without it".into()),
        Err(e) => Err(format!("not a JSON object ({e}); delete the line to go on without it")),
    }
}

/// `value` as a `T`, or the key that does not fit and why.
pub(super) fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|e| format!("{}: {}", e.path(), e.inner()))
}

/// The lines of the file `text` of `path`, but for empty ones and a last one that was torn by an interrupted write.
pub fn lines<T>(path: &Path, text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>> {
    let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).collect();
    let mut parsed = Vec::new();
    for (at, (index, line)) in lines.iter().enumerate() {
        match parse(line) {
            Ok(line) => parsed.push(line),
            Err(_) if at + 1 == lines.len() && serde_json::from_str::<Value>(line).is_err() => break,
            Err(what) => return Err(Error::data(path, format!("line {}: {what}", index + 1))),
        }
    }
    Ok(parsed)
}
