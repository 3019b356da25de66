//! List files and CSVs: lines of a path and a label, checked before anything trains on them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::item::Item;
use super::read;
use crate::error::{Error, Help, Result, quote, shown};

/// More classes than any data set has; a larger number is a slip that would otherwise cost gigabytes of class names.
const MAX_CLASSES: u32 = 1 << 20;

/// A path and a label as written, and where: `line 3`.
pub(super) struct Entry {
    pub(super) at: String,
    pub(super) path: PathBuf,
    pub(super) label: String,
}

impl Entry {
    fn new(line: u64, path: &str, label: &str) -> Entry {
        Entry { at: format!("line {line}"), path: path.into(), label: label.into() }
    }
}

/// The classes and the items, sorted by path, of a CSV (by extension) or else a list file.
pub(super) fn labelled_file(file: &Path, root: Option<&Path>) -> Result<(Vec<String>, Vec<Item>)> {
    let bytes = read::bytes(file)?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let is_csv = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
    let entries = if is_csv { csv_entries(file, bytes, "path")? } else { list_entries(file, bytes)? };
    items(file, root, entries)
}

/// The table of an image folder as Hugging Face has them, if there is one.
pub(super) fn metadata(folder: &Path) -> Option<PathBuf> {
    ["metadata.csv", "metadata.jsonl"].map(|name| folder.join(name)).into_iter().find(|path| path.is_file())
}

/// The classes and the items of such a table; none if it has no labels.
pub(super) fn labelled_table(file: &Path) -> Result<Option<(Vec<String>, Vec<Item>)>> {
    let bytes = read::bytes(file)?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let is_csv = file.extension().is_some_and(|e| e == "csv");
    if is_csv && !has_column(file, bytes, "label")? {
        return Ok(None);
    }
    let entries = if is_csv { csv_entries(file, bytes, "file_name")? } else { json_entries(file, bytes)? };
    if !entries.is_empty() && entries.iter().all(|entry| entry.label.is_empty()) {
        return Ok(None);
    }
    if let Some(entry) = entries.iter().find(|entry| entry.label.is_empty()) {
        return Err(Error::data(file, format!("{}: `label` is missing", entry.at)));
    }
    items(file, None, entries).map(Some)
}

/// The entries of a file as items, by path.
fn items(file: &Path, root: Option<&Path>, mut entries: Vec<Entry>) -> Result<(Vec<String>, Vec<Item>)> {
    if entries.is_empty() {
        return Err(Error::data(file, "there are no images in it"));
    }

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

    let (classes, labels) = labels_of(file, &entries)?;
    let mut items: Vec<Item> =
        entries.into_iter().zip(labels).map(|(entry, label)| Item { path: entry.path, label }).collect();
    items.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((classes, items))
}

fn list_entries(file: &Path, bytes: &[u8]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (line, text) in (1..).zip(bytes.split(|&b| b == b'\n')) {
        let Ok(text) = std::str::from_utf8(text) else {
            return Err(at_line(file, line, "not UTF-8 text; a list has `path label` a line"));
        };
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let Some((path, label)) = text.rsplit_once(char::is_whitespace) else {
            return Err(at_line(file, line, format!("expected `path label`, found {:?}", quote(text))));
        };
        entries.push(Entry::new(line, path.trim_end(), label));
    }
    Ok(entries)
}

fn csv_reader(bytes: &[u8]) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(bytes)
}

fn has_column(file: &Path, bytes: &[u8], name: &str) -> Result<bool> {
    let mut reader = csv_reader(bytes);
    let header = reader.headers().map_err(|e| Error::data(file, format!("not a CSV: {e}")))?;
    Ok(header.iter().any(|field| field == name))
}

/// One JSON object per line, with `file_name` and perhaps `label`.
fn json_entries(file: &Path, bytes: &[u8]) -> Result<Vec<Entry>> {
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
        let label = match value.get("label") {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(serde_json::Value::String(name)) => name.clone(),
            Some(serde_json::Value::Number(number)) => number.to_string(),
            Some(_) => return Err(at_line(file, line, "`label` is neither text nor a number")),
        };
        entries.push(Entry::new(line, path, &label));
    }
    Ok(entries)
}

/// The rows of a CSV whose column `name` has the paths.
fn csv_entries(file: &Path, bytes: &[u8], name: &str) -> Result<Vec<Entry>> {
    let bad = |e: csv::Error| Error::data(file, format!("not a CSV: {e}"));
    let mut reader = csv_reader(bytes);
    let header = reader.headers().map_err(bad)?;
    let column = |name: &str| header.iter().position(|field| field == name);
    let (Some(path), Some(label)) = (column(name), column("label")) else {
        return Err(at_line(file, 1, format!("the header of a CSV must have the columns `{name}` and `label`")));
    };
    let mut entries = Vec::new();
    for record in reader.records() {
        let record = record.map_err(bad)?;
        let line = record.position().map_or(0, csv::Position::line);
        match (record.get(path), record.get(label)) {
            (Some(path), Some(label)) if !path.is_empty() && !label.is_empty() => {
                entries.push(Entry::new(line, path, label));
            }
            _ => return Err(at_line(file, line, "the path or the label is missing")),
        }
    }
    Ok(entries)
}

/// Class names, and a label an entry. The first label decides whether they are numbers or names.
pub(super) fn labels_of(file: &Path, entries: &[Entry]) -> Result<(Vec<String>, Vec<u32>)> {
    let first = &entries[0];
    if !is_number(&first.label) {
        if let Some(entry) = entries.iter().find(|entry| is_number(&entry.label)) {
            let what = format!(
                "the label {:?} is a number, but {} has the name {:?}: use numbers or names throughout",
                quote(&entry.label),
                first.at,
                quote(&first.label)
            );
            return Err(at(file, entry, what));
        }
        let names: BTreeSet<&str> = entries.iter().map(|entry| entry.label.as_str()).collect();
        let classes: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let index = |entry: &Entry| classes.binary_search(&entry.label).expect("every label is a class") as u32;
        let labels = entries.iter().map(index).collect();
        return Ok((classes, labels));
    }
    let mut labels = Vec::with_capacity(entries.len());
    for entry in entries {
        let label = &entry.label;
        if !is_number(label) {
            let what = format!(
                "the label {:?} is not a number, but {} has {:?}: use numbers or names throughout",
                quote(label),
                first.at,
                quote(&first.label)
            );
            return Err(at(file, entry, what));
        }
        match label.parse::<u32>() {
            Ok(label) if label < MAX_CLASSES => labels.push(label),
            _ => {
                let what =
                    format!("the label {} is no class number: they count from 0 to {}", quote(label), MAX_CLASSES - 1);
                return Err(at(file, entry, what));
            }
        }
    }
    let max = labels.iter().max().expect("there is an entry");
    Ok(((0..=*max).map(|class| class.to_string()).collect(), labels))
}

/// Also "-1", "+2" and "1.5", which are no class numbers but surely no names either.
fn is_number(label: &str) -> bool {
    label.parse::<f64>().is_ok() && label.bytes().any(|b| b.is_ascii_digit())
}

fn at(file: &Path, entry: &Entry, what: impl std::fmt::Display) -> Error {
    Error::data(file, format!("{}: {what}", entry.at))
}

fn at_line(file: &Path, line: u64, what: impl std::fmt::Display) -> Error {
    Error::data(file, format!("line {line}: {what}"))
}
