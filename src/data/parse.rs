//! List files and CSVs: lines of a path and a label, checked before anything trains on them.

use std::path::{Path, PathBuf};

use super::columns::Columns;
use super::label::{Entry, Found, Label, found};
use super::read;
use crate::error::{Error, Help, Result, quote, shown};

/// An entry of a line.
fn entry(line: u64, path: &str, label: Label) -> Entry {
    Entry { at: format!("line {line}"), path: path.into(), label }
}

/// The classes and the items, sorted by path, of a CSV (by extension) or else a list file.
pub(super) fn labelled_file(file: &Path, root: Option<&Path>, columns: &Columns) -> Result<Found> {
    let bytes = read::bytes(file)?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    if file.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv")) {
        let (entries, declared) = csv_entries(file, bytes, "path", columns)?;
        return items(file, root, entries, &declared);
    }
    items(file, root, list_entries(file, bytes)?, &[])
}

/// The table of an image folder as Hugging Face has them, if there is one.
pub(super) fn metadata(folder: &Path) -> Option<PathBuf> {
    ["metadata.csv", "metadata.jsonl"].map(|name| folder.join(name)).into_iter().find(|path| path.is_file())
}

/// The classes and the items of such a table; none if it has no labels.
pub(super) fn labelled_table(file: &Path, columns: &Columns) -> Result<Option<Found>> {
    let bytes = read::bytes(file)?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    if file.extension().is_some_and(|e| e == "csv") {
        if !has_labels(file, bytes, columns)? {
            return Ok(None);
        }
        let (entries, declared) = csv_entries(file, bytes, "file_name", columns)?;
        return items(file, None, entries, &declared).map(Some);
    }
    let entries = json_entries(file, bytes, columns)?;
    let missing = |label: &Label| *label == Label::One(String::new());
    if !entries.is_empty() && entries.iter().all(|entry| missing(&entry.label)) {
        return Ok(None);
    }
    if let Some(entry) = entries.iter().find(|entry| missing(&entry.label)) {
        return Err(Error::data(file, format!("{}: `label` is missing", entry.at)));
    }
    items(file, None, entries, &[]).map(Some)
}

/// The entries of a file as items, by path; `declared` are classes that are there whether an image has them or not.
fn items(file: &Path, root: Option<&Path>, mut entries: Vec<Entry>, declared: &[String]) -> Result<Found> {
    let whose = if root.is_some() { "the root" } else { "the list's folder" };
    let root = root.unwrap_or_else(|| file.parent().unwrap_or(Path::new("")));
    for entry in &mut entries {
        let path = root.join(&entry.path);
        if !read::is_file(&path) {
            let path = quote(&shown(&path));
            let what = format!("{}: there is no file {path} (paths are relative to {whose})", entry.at);
            return Err(Error::data(file, what).with_help(Help::ListRoot));
        }
        entry.path = path;
    }
    let mut found = found(file, entries, declared)?;
    found.items.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn list_entries(file: &Path, bytes: &[u8]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (line, text) in (1..).zip(bytes.split(|&b| b == b'\n')) {
        let Ok(text) = std::str::from_utf8(text) else {
            return Err(at_line(file, line, "not UTF-8 text; each line of a list is `path label`"));
        };
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let Some((path, label)) = text.rsplit_once(char::is_whitespace) else {
            return Err(at_line(file, line, format!("expected `path label`, found {:?}", quote(text))));
        };
        entries.push(entry(line, path.trim_end(), Label::One(label.into())));
    }
    Ok(entries)
}

fn csv_reader(bytes: &[u8]) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(bytes)
}

/// Whether a table of images has labels: a column of them, or classes alone beside the paths.
fn has_labels(file: &Path, bytes: &[u8], columns: &Columns) -> Result<bool> {
    let mut reader = csv_reader(bytes);
    let bad = |e: csv::Error| Error::data(file, format!("not a CSV: {e}"));
    let header = reader.headers().map_err(bad)?.clone();
    if label_column(file, &header, columns)?.is_some() {
        return Ok(true);
    }
    let others = |record: &csv::StringRecord| {
        header.iter().zip(record).filter(|(name, _)| *name != "file_name").all(|(_, cell)| truth(cell).is_some())
    };
    let rows = reader.records().collect::<Result<Vec<_>, _>>().map_err(bad)?;
    Ok(header.len() > 1 && !rows.is_empty() && rows.iter().all(others))
}

/// Where a table's labels are, and whether an image may have several.
fn label_column(file: &Path, header: &csv::StringRecord, columns: &Columns) -> Result<Option<(usize, bool)>> {
    let place = |name: &str| header.iter().position(|field| field == name);
    if let Some(name) = &columns.label {
        let missing = || at_line(file, 1, format!("there is no column \"{}\" in the header", quote(name)));
        let at = place(name).ok_or_else(|| missing().with_help(Help::LabelColumn))?;
        return Ok(Some((at, columns.separator.is_some() || name == "labels")));
    }
    match (place("label"), place("labels")) {
        (Some(_), Some(_)) => {
            let what = "the header has `label` and `labels`: which of them is meant can't be told";
            Err(at_line(file, 1, what).with_help(Help::LabelColumn))
        }
        (Some(at), None) => Ok(Some((at, columns.separator.is_some()))),
        (None, Some(at)) => Ok(Some((at, true))),
        (None, None) => Ok(None),
    }
}

/// Whether a class is there, in a column of its own.
fn truth(cell: &str) -> Option<bool> {
    match cell {
        "1" | "1.0" => Some(true),
        "0" | "0.0" => Some(false),
        _ if cell.eq_ignore_ascii_case("true") => Some(true),
        _ if cell.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// One JSON object per line, with `file_name` and perhaps a label.
fn json_entries(file: &Path, bytes: &[u8], columns: &Columns) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (line, text) in (1..).zip(bytes.split(|&b| b == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let value: serde_json::Value =
            serde_json::from_slice(text).map_err(|e| at_line(file, line, format!("not a JSON object ({e})")))?;
        let Some(path) = value.get("file_name").and_then(|name| name.as_str()).filter(|name| !name.is_empty()) else {
            return Err(at_line(file, line, "there is no `file_name`, which names an image"));
        };
        let label =
            Label::in_object(&value, &["label", "labels"], columns).map_err(|what| at_line(file, line, what))?;
        let label = label.unwrap_or_else(|| Label::One(String::new()));
        entries.push(entry(line, path, label));
    }
    Ok(entries)
}

/// The rows of a CSV whose column `name` has the paths, and the classes that have columns of their own.
fn csv_entries(file: &Path, bytes: &[u8], name: &str, columns: &Columns) -> Result<(Vec<Entry>, Vec<String>)> {
    let bad = |e: csv::Error| Error::data(file, format!("not a CSV: {e}"));
    let mut reader = csv_reader(bytes);
    let header = reader.headers().map_err(bad)?.clone();
    let path = header.iter().position(|field| field == name);
    let label = label_column(file, &header, columns)?;
    let twice = header
        .iter()
        .enumerate()
        .find(|(at, name)| !name.is_empty() && header.iter().take(*at).any(|other| other == *name));
    if let Some((_, name)) = twice {
        return Err(at_line(file, 1, format!("the column \"{}\" is there twice", quote(name))));
    }
    let needed = format!(
        "the header of a CSV must have the columns `{name}` and `label`, or `{name}` and `labels`, or `{name}` and one column per \
         class with 0 or 1"
    );
    let Some(path) = path.filter(|_| header.len() > 1) else { return Err(at_line(file, 1, needed)) };
    let others = || header.iter().enumerate().filter(|(at, _)| label.is_none() && *at != path);
    let declared: Vec<String> = others().map(|(_, name)| name.to_string()).collect();
    if declared.iter().any(String::is_empty) {
        return Err(at_line(file, 1, "a column has no name"));
    }
    let mut entries = Vec::new();
    for record in reader.records() {
        let record = record.map_err(bad)?;
        let line = record.position().map_or(0, csv::Position::line);
        if record.iter().skip(header.len()).any(|cell| !cell.is_empty()) {
            let what = format!(
                "it has {} cells, and the header {} columns: put a cell with a comma in it into quotes, or several labels of an image into one \
                 cell with ; between them",
                record.len(),
                header.len()
            );
            return Err(at_line(file, line, what));
        }
        let own = record.get(path).unwrap_or_default();
        let missing = || at_line(file, line, "the path or the label is missing");
        if own.is_empty() {
            return Err(missing());
        }
        let label = match label {
            Some((at, true)) => Label::Several(columns.split(record.get(at).ok_or_else(missing)?)),
            Some((at, false)) => match record.get(at).filter(|label| !label.is_empty()) {
                Some(label) => Label::One(label.into()),
                None => return Err(missing()),
            },
            None => {
                let mut there = Vec::new();
                for (at, class) in others() {
                    let cell = record.get(at).unwrap_or_default();
                    match truth(cell) {
                        Some(true) => there.push(class.to_string()),
                        Some(false) => {}
                        None => {
                            let (class, cell) = (quote(class), quote(cell));
                            let what = format!("the column \"{class}\" has \"{cell}\", not 0 or 1; {needed}");
                            return Err(at_line(file, line, what));
                        }
                    }
                }
                Label::Several(there)
            }
        };
        entries.push(entry(line, own, label));
    }
    Ok((entries, declared))
}

fn at_line(file: &Path, line: u64, what: impl std::fmt::Display) -> Error {
    Error::data(file, format!("line {line}: {what}"))
}
