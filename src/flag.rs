//! What flags share: words for enums, and refusals of values that are out of range.

use crate::error::{Error, Result};

/// A value of an enum by its serde name, so that flags, files and metadata share one spelling.
pub fn word<T: serde::de::DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(name.into())).map_err(|e| e.to_string())
}

/// `text`, which a user gave in a file or on stdin, without the byte order mark that some editors and shells write before it.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Refuses a value of `--flag` that is not `ok`.
///
/// # Errors
/// [`Error::Usage`] naming the flag.
pub fn positive(flag: &str, ok: bool) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Usage(format!("--{flag} must be greater than 0"))) }
}

/// Refuses a value of `--flag` that is not `ok`; `range` says in words which values are. Values that are absent are fine.
///
/// # Errors
/// [`Error::Usage`] naming the flag, its value and the range.
pub fn in_range<T: Copy + std::fmt::Display>(
    flag: &str,
    value: impl Into<Option<T>>,
    ok: impl Fn(T) -> bool,
    range: &str,
) -> Result<()> {
    match value.into() {
        Some(value) if !ok(value) => Err(Error::Usage(format!("--{flag} {value}: it must be {range}"))),
        _ => Ok(()),
    }
}
