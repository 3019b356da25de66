//! Data sets in archives: class folders, and WebDataset's shards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::archive::Archive;
use super::beside;
use super::columns::Columns;
use super::item::Item;
use super::label::{Entry, Found, Label, found};
use super::walk::{self, LeftOut, is_image};
use crate::error::{Error, Result, quote};

/// Keys under which a sample's JSON may have its class.
const LABELS: [&str; 5] = ["cls", "label", "class", "class_name", "labels"];

/// The files of an archive below `folder` (all of them if it is empty), by what follows it.
pub(super) fn below<'a>(archive: &'a Archive, folder: &str) -> Vec<&'a str> {
    let inside = |name: &'a str| match folder {
        "" => Some(name),
        _ => name.strip_prefix(folder)?.strip_prefix('/'),
    };
    archive.names().filter_map(inside).collect()
}

/// The images among `names`, sorted as folders are; all else is counted in `left_out`.
pub(super) fn images<'a>(names: &[&'a str], left_out: &mut LeftOut) -> Vec<&'a str> {
    let mut images: Vec<&str> = names.iter().copied().filter(|name| walk::keep(name, left_out)).collect();
    images.sort_by(|a, b| Path::new(a).cmp(Path::new(b)));
    images
}

/// One folder per class in the archive at `file`, below `folder`: the classes, and their images. A folder that all others are in is
/// passed over.
///
/// # Errors
/// [`Error::Data`] for an archive without class folders.
pub(super) fn class_folders(file: &Path, folder: &str, names: &[&str], left_out: &mut LeftOut) -> Result<Found> {
    let images = images(names, left_out);
    let mut root = folder.to_string();
    let mut inner = images;
    while let Some(outer) = outer(&inner) {
        inner.iter_mut().for_each(|name| *name = &name[outer.len() + 1..]);
        root = if root.is_empty() { outer.into() } else { format!("{root}/{outer}") };
    }
    let mut classes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut loose = 0;
    for name in &inner {
        match name.split_once('/') {
            Some((class, _)) => classes.entry(class).or_default().push(name),
            None => loose += 1,
        }
    }
    let place = if root.is_empty() { file.to_path_buf() } else { file.join(&root) };
    if classes.is_empty() {
        let has = if left_out.total() > 0 { format!(" (it has {left_out})") } else { String::new() };
        let what =
            format!("there are no class folders with images in this archive{has}, and no samples of WebDataset's kind");
        return Err(Error::data(place, what));
    }
    if loose > 0 {
        *left_out.0.entry("images outside class folders".into()).or_default() += loose;
    }
    walk::refuse_splits(&place, classes.keys().copied())?;
    let items = (0..).zip(classes.values()).flat_map(|(label, names)| {
        let place = &place;
        names.iter().map(move |name| Item { path: place.join(name), label })
    });
    let items = items.collect();
    Ok(Found { classes: classes.into_keys().map(String::from).collect(), items, sets: None })
}

/// The folder that all images are in, if there are folders in it.
fn outer<'a>(images: &[&'a str]) -> Option<&'a str> {
    let (first, _) = images.first()?.split_once('/')?;
    let within = |name: &&str| name.split_once('/').is_some_and(|(folder, rest)| folder == first && rest.contains('/'));
    images.iter().all(within).then_some(first)
}

/// The key of a sample, which its files share, and the rest of a file's name.
fn key(name: &str) -> (&str, &str) {
    let base = name.rfind('/').map_or(0, |at| at + 1);
    match name[base..].find('.') {
        Some(dot) => (&name[..base + dot], &name[base + dot + 1..]),
        None => (name, ""),
    }
}

/// Whether files are samples of WebDataset's kind: an image and its class beside it, under one key.
pub(super) fn is_shard(names: &[&str]) -> bool {
    let described = names.iter().map(|name| key(name)).filter(|(_, rest)| ["cls", "json"].contains(rest));
    let labelled: BTreeSet<&str> = described.map(|(key, _)| key).collect();
    let mut images = names.iter().filter(|name| is_image(Path::new(name)));
    images.any(|name| labelled.contains(key(name).0))
}

/// The samples of a shard at `file`: one entry for each image, with the class that is beside it.
///
/// # Errors
/// [`Error::Data`] naming a sample without a class, or one that can't be understood.
pub(super) fn samples(
    file: &Path,
    archive: &Archive,
    names: &[&str],
    columns: &Columns,
    left_out: &mut LeftOut,
) -> Result<Vec<Entry>> {
    let described = names.iter().filter(|name| ["cls", "json"].contains(&key(name).1));
    let described: BTreeSet<&str> = described.copied().collect();
    let others: Vec<&str> = names.iter().copied().filter(|name| !described.contains(name)).collect();
    let entry = |name: &str| {
        let (key, _) = key(name);
        let label = label(file, archive, key, (&described, columns))?;
        Ok(Entry { at: format!("\"{}\"", quote(name)), path: file.join(name), label })
    };
    images(&others, left_out).into_iter().map(entry).collect()
}

/// The class of the sample `key`, from its `.cls` or else its `.json`.
fn label(
    file: &Path,
    archive: &Archive,
    key: &str,
    (described, columns): (&BTreeSet<&str>, &Columns),
) -> Result<Label> {
    let wrong = |what: &str| Error::data(file, format!("sample \"{}\": {what}", quote(key)));
    let text = |name: &str| String::from_utf8(archive.bytes(name)?).map_err(|_| wrong("its class is not UTF-8 text"));
    let (class, json) = (format!("{key}.cls"), format!("{key}.json"));
    // A column that is named is one of the .json, whatever else there is.
    let label = if described.contains(class.as_str()) && columns.label.is_none() {
        Label::One(text(&class)?.trim().to_string())
    } else if described.contains(json.as_str()) {
        let value: Value =
            serde_json::from_str(&text(&json)?).map_err(|e| wrong(&format!("its .json is none: {e}")))?;
        let label =
            Label::in_object(&value, &LABELS, columns).map_err(|what| wrong(&format!("in its .json {what}")))?;
        label.ok_or_else(|| wrong(&format!("its .json has no class: expected one of {}", LABELS.join(", "))))?
    } else {
        let lacking = if columns.label.is_some() { "there is no .json" } else { "there is no .cls and no .json" };
        return Err(wrong(&format!("{lacking} beside its image")));
    };
    match label == Label::One(String::new()) {
        true => Err(wrong("its class is empty")),
        false => Ok(label),
    }
}

/// The images of shards, with their classes: numbers or names throughout.
///
/// # Errors
/// As [`samples`], and as of a list file.
pub(super) fn shards(
    place: &Path,
    files: &[PathBuf],
    root: Option<&Path>,
    columns: &Columns,
    left_out: &mut LeftOut,
) -> Result<Found> {
    if files.iter().any(|file| file.extension().is_some_and(|end| end.eq_ignore_ascii_case("parquet"))) {
        return tables(place, files, root, columns);
    }
    let mut entries = Vec::new();
    for file in files {
        let archive = Archive::open(file)?;
        let names: Vec<&str> = archive.names().collect();
        if !is_shard(&names) {
            let what = "there are several archives in this folder, and this one has no samples of WebDataset's kind: give one archive";
            return Err(Error::data(file, what));
        }
        entries.extend(samples(file, &archive, &names, columns, left_out)?);
    }
    labelled(place, entries)
}

/// The rows of Parquet files, which have the same columns. Paths in the place of images are relative to `root`, or else to each file's folder.
///
/// # Errors
/// [`Error::Data`] naming the file that is none, that can't be read, or names other classes than the first.
pub(super) fn tables(place: &Path, files: &[PathBuf], root: Option<&Path>, columns: &Columns) -> Result<Found> {
    let (mut entries, mut declared) = (Vec::new(), None);
    for file in files {
        let archive = Archive::open(file)?;
        let table = archive.table().ok_or_else(|| {
            Error::data(file, "this is no Parquet file, as others beside it are: give data of one kind in a folder")
        })?;
        let (own, classes) = table.entries(columns, &|name| beside::find(file, root, name))?;
        if declared.get_or_insert_with(|| classes.clone()) != &classes {
            return Err(Error::data(file, "it names other classes than the Parquet file before it"));
        }
        entries.extend(own);
    }
    let mut found = found(place, entries, &declared.unwrap_or_default())?;
    found.items.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// The items of entries that have been read from `place`, by path.
pub(super) fn labelled(place: &Path, entries: Vec<Entry>) -> Result<Found> {
    let mut found = found(place, entries, &[])?;
    found.items.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
