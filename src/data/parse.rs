//! List files and CSVs: lines of a path and a label, checked before anything trains on them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::item::Item;
use super::read;
use crate::error::{Error, Help, Result, quote, shown};

/// More classes than any data set has; a larger number is a slip that would otherwise cost gigabytes of class names.
const MAX_CLASSES: u32 = 1 << 20;

/// A path and a label as written, and where.
struct Entry {
    line: u64,
    path: PathBuf,
    label: String,
}

/// The classes and the items, sorted by path, of a CSV (by extension) or else a list file.
pub(super) fn labelled_file(file: &Path, root: Option<&Path>) -> Result<(Vec<String>, Vec<Item>)> {
    let bytes = read::bytes(file)?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let is_csv = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
    let mut entries = if is_csv { csv_entries(file, bytes)? } else { list_entries(file, bytes)? };
    if entries.is_empty() {
        return Err(Error::data(file, "there are no images in it"));
    }

    let whose = if root.is_some() { "the root" } else { "the list's folder" };
    let root = root.unwrap_or_else(|| file.parent().unwrap_or(Path::new("")));
    for entry in &mut entries {
        let path = root.join(&entry.path);
        if !path.is_file() {
            let path = quote(&shown(&path));
            let what = format!("there is no file {path} (paths are relative to {whose})");
            return Err(at_line(file, entry.line, what).with_help(Help::ListRoot));
        }
        entry.path = path;
    }

    let (classes, labels) = label_entries(file, &entries)?;
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
        entries.push(Entry { line, path: path.trim_end().into(), label: label.into() });
    }
    Ok(entries)
}

fn csv_entries(file: &Path, bytes: &[u8]) -> Result<Vec<Entry>> {
    let bad = |e: csv::Error| Error::data(file, format!("not a CSV: {e}"));
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(bytes);
    let header = reader.headers().map_err(bad)?;
    let column = |name: &str| header.iter().position(|field| field == name);
    let (Some(path), Some(label)) = (column("path"), column("label")) else {
        return Err(at_line(file, 1, "the header of a CSV must have the columns `path` and `label`"));
    };
    let mut entries = Vec::new();
    for record in reader.records() {
        let record = record.map_err(bad)?;
        let line = record.position().map_or(0, csv::Position::line);
        match (record.get(path), record.get(label)) {
            (Some(path), Some(label)) if !path.is_empty() && !label.is_empty() => {
                entries.push(Entry { line, path: path.into(), label: label.into() });
            }
            _ => return Err(at_line(file, line, "the path or the label is missing")),
        }
    }
    Ok(entries)
}

/// Class names, and a label an entry. The first label decides whether they are numbers or names.
fn label_entries(file: &Path, entries: &[Entry]) -> Result<(Vec<String>, Vec<u32>)> {
    let first = &entries[0];
    if !is_number(&first.label) {
        if let Some(entry) = entries.iter().find(|entry| is_number(&entry.label)) {
            let what = format!(
                "the label {:?} is a number, but line {} has the name {:?}: use numbers or names throughout",
                quote(&entry.label),
                first.line,
                quote(&first.label)
            );
            return Err(at_line(file, entry.line, what));
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
                "the label {:?} is not a number, but line {} has {:?}: use numbers or names throughout",
                quote(label),
                first.line,
                quote(&first.label)
            );
            return Err(at_line(file, entry.line, what));
        }
        match label.parse::<u32>() {
            Ok(label) if label < MAX_CLASSES => labels.push(label),
            _ => {
                let what =
                    format!("the label {} is no class number: they count from 0 to {}", quote(label), MAX_CLASSES - 1);
                return Err(at_line(file, entry.line, what));
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

fn at_line(file: &Path, line: u64, what: impl std::fmt::Display) -> Error {
    Error::data(file, format!("line {line}: {what}"))
}
