//! Which images there are, and which class each has.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use super::parse;
use crate::error::{Error, Result};

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The image file.
    pub path: PathBuf,
    /// Index into [`Dataset::classes`]; 0 where there are none.
    pub label: u32,
}

/// A list of images with their classes; no pixel is read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// What tables and messages call it: at first the file's or folder's own name.
    pub name: String,
    /// Class names by label; empty for unlabelled images.
    pub classes: Vec<String>,
    /// The images, in the order that evaluation and unshuffled training keep.
    pub items: Vec<Item>,
}

impl Dataset {
    /// Opens a folder with a folder a class, a list file (`path label` a line) or a CSV (with the columns `path` and
    /// `label`).
    ///
    /// - **Class folders** sort by name, and the files of each, found at any depth, by path. Hidden files and files
    ///   that are not `png`, `jpg`, `jpeg` or `webp` are left out.
    /// - **Lists and CSVs** sort by path, folder by folder. Paths are relative to `root`, or else to the file's own
    ///   folder. Labels are either all numbers, with the classes `"0"` to `"max"`, or all names, with the classes
    ///   sorted by name. In a list the label is the last word of a line, so that paths may contain spaces; blank
    ///   lines and lines that start with `#` are left out.
    ///
    /// # Errors
    /// [`Error::Data`] naming the folder or the file and line: nothing there, no class folders, an empty class
    /// folder, no images, a line that can't be understood, a label that is not a number where others are or is too
    /// large, a listed file that does not exist. [`Error::Io`] where the system refuses to read.
    pub fn open(path: impl AsRef<Path>, root: Option<&Path>) -> Result<Self> {
        let path = path.as_ref();
        if !exists(path)? {
            return Err(Error::data(path, "there is no such file or folder"));
        }
        let (classes, items) = if path.is_dir() {
            class_folders(path)?
        } else if is_image(path) {
            return Err(Error::data(path, "this is one image: a class folder tree, a list file or a CSV is needed"));
        } else {
            parse::labelled_file(path, root)?
        };
        Ok(Self { name: name_of(path), classes, items })
    }

    /// Images to predict: one image, a folder (flat or a tree, sorted by path), or a list file or CSV as in
    /// [`Self::open`], whose labels are dropped. `classes` is empty and every label 0.
    ///
    /// # Errors
    /// As [`Self::open`], except that folders need not be classes.
    pub fn unlabelled(path: impl AsRef<Path>, root: Option<&Path>) -> Result<Self> {
        let path = path.as_ref();
        let paths = if path.is_dir() {
            let mut paths = Vec::new();
            images_below(path, &mut paths)?;
            if paths.is_empty() {
                return Err(Error::data(path, "there are no images (png, jpg, jpeg, webp) in this folder"));
            }
            paths.sort();
            paths
        } else if is_image(path) && exists(path)? {
            vec![path.to_path_buf()]
        } else {
            Self::open(path, root)?.items.into_iter().map(|item| item.path).collect()
        };
        let items = paths.into_iter().map(|path| Item { path, label: 0 }).collect();
        Ok(Self { name: name_of(path), classes: Vec::new(), items })
    }

    /// The same images with labels that index `classes`, matched by name: a model's classes, or another data set's.
    ///
    /// # Errors
    /// [`Error::Data`] naming the first class with an image here that is not among `classes`; [`Error::Usage`] where
    /// the images are unlabelled.
    pub fn with_classes(&self, classes: &[String]) -> Result<Self> {
        if self.classes.is_empty() {
            return Err(Error::Usage(format!(
                "{} has no labels: give a folder a class, a list file or a CSV",
                self.name
            )));
        }
        let index: HashMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
        let map: Vec<Option<u32>> = self.classes.iter().map(|class| index.get(class.as_str()).copied()).collect();
        let missing = self.items.iter().filter(|item| map[item.label as usize].is_none()).min_by_key(|item| item.label);
        if let Some(item) = missing {
            let class = &self.classes[item.label as usize];
            let what = format!(
                "a label outside the classes: {class:?} of {:?} is not among the {} known ({}); remove its images or \
                 rename the class",
                self.name,
                classes.len(),
                name_some(classes),
            );
            return Err(Error::data(&item.path, what));
        }
        let items = self.items.iter().map(|item| {
            let label = map[item.label as usize].expect("a missing class was found above");
            Item { path: item.path.clone(), label }
        });
        Ok(Self { name: self.name.clone(), classes: classes.to_vec(), items: items.collect() })
    }
}

/// Whether two data sets have the same classes by name, in whatever order; [`Dataset::with_classes`] then aligns their
/// labels.
///
/// # Errors
/// [`Error::Data`] naming the classes that only one of them has.
pub fn same_classes(train: &Dataset, val: &Dataset) -> Result<()> {
    let set = |dataset: &Dataset| dataset.classes.iter().cloned().collect::<BTreeSet<_>>();
    let (ours, theirs) = (set(train), set(val));
    let only = |name: &str, left: &BTreeSet<String>, right: &BTreeSet<String>| {
        let only: Vec<String> = left.difference(right).cloned().collect();
        (!only.is_empty()).then(|| format!("only {name} has {}", name_some(&only)))
    };
    let differences: Vec<String> =
        [only(&train.name, &ours, &theirs), only(&val.name, &theirs, &ours)].into_iter().flatten().collect();
    if differences.is_empty() {
        return Ok(());
    }
    let what =
        format!("its classes and those of {} differ: {}; give both the same", train.name, differences.join("; "));
    Err(Error::data(&val.name, what))
}

fn class_folders(path: &Path) -> Result<(Vec<String>, Vec<Item>)> {
    let mut folders = Vec::new();
    for entry in visible_entries(path)? {
        if entry.is_dir() {
            let name = entry.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| Error::data(&entry, "a class folder's name must be UTF-8: rename it"))?;
            folders.push((name.to_owned(), entry));
        }
    }
    if folders.is_empty() {
        return Err(Error::data(path, "there are no class folders in it: expected a folder a class, with its images"));
    }
    folders.sort();

    let (mut classes, mut items) = (Vec::new(), Vec::new());
    for (label, (class, folder)) in (0..).zip(folders) {
        let mut paths = Vec::new();
        images_below(&folder, &mut paths)?;
        if paths.is_empty() {
            return Err(Error::data(folder, "empty class folder: add images (png, jpg, jpeg, webp) or remove it"));
        }
        paths.sort();
        items.extend(paths.into_iter().map(|path| Item { path, label }));
        classes.push(class);
    }
    Ok((classes, items))
}

fn images_below(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in visible_entries(folder)? {
        if entry.is_dir() {
            images_below(&entry, paths)?;
        } else if is_image(&entry) {
            paths.push(entry);
        }
    }
    Ok(())
}

fn visible_entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot_read = |e| Error::io(folder, "cannot read the folder", e);
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot_read)? {
        let entry = entry.map_err(cannot_read)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            entries.push(entry.path());
        }
    }
    Ok(entries)
}

/// By extension, whatever its case.
fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    matches!(extension.as_str(), "png" | "jpg" | "jpeg" | "webp")
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|e| Error::io(path, "cannot read", e))
}

fn name_of(path: &Path) -> String {
    // "." and ".." have no name of their own.
    let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = if full.is_dir() { full.file_name() } else { full.file_stem() };
    name.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The first few names, quoted, and how many more there are: an error stays one line.
fn name_some(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = names.iter().take(SHOWN).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}
