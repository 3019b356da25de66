//! Which images there are, and which class each has.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive::{self, Archive};
use super::beside;
use super::columns::Columns;
use super::item::Item;
use super::label::Found;
use super::label_sets::LabelSets;
use super::packed;
use super::parse;
use super::pattern;
use super::walk::{self, LeftOut, is_image};
use crate::error::{Error, Result};

/// The image formats that are read, for messages.
const READ: &str = "png, jpg, webp, bmp, gif, tif, pnm";

/// A list of images with their classes; no pixel is read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// What tables and messages call it: at first the file's or folder's own name.
    pub name: String,
    /// The classes' ids by label: folders, or the labels of a list; empty for unlabelled images. Which output of a model each is
    /// says a [`super::ClassMap`].
    pub classes: Vec<String>,
    /// The images, in the order that evaluation and unshuffled training keep.
    pub items: Vec<Item>,
    /// Of a multi-label data set: the sets of classes that its items' labels are places of. None where an image has one class.
    pub sets: Option<Arc<LabelSets>>,
    /// What else is in its folders.
    pub left_out: LeftOut,
}

impl Dataset {
    /// Opens a folder with one folder per class, a list (`path label` per line), a CSV (with the columns `path` and
    /// `label`), a folder with `metadata.csv` or `metadata.jsonl`, an archive of class folders, or shards of WebDataset's kind.
    ///
    /// - **Class folders** sort by name, and the files of each, found at any depth, by path. Hidden entries, those of the system
    ///   (`@eaDir`, `__MACOSX`) and files that are no images by extension are counted in [`Self::left_out`], and so is a
    ///   link to a folder above it.
    /// - **Lists and CSVs** sort by path, folder by folder. Paths are relative to `root`, or else to the file's own
    ///   folder. Labels are either all numbers, with the classes `"0"` to `"max"`, or all names, with the classes
    ///   sorted by name. In a list the label is the last word of a line, so that paths may contain spaces; blank
    ///   lines and lines that start with `#` are left out.
    ///
    /// An image may have any number of labels: in a column `labels` of a CSV (with `;` or `|` between them), in one column per class (with 0
    /// or 1), or as a list in JSON. Then all images have such sets of labels, and [`Self::sets`] holds them.
    ///
    /// - **Metadata**, as Hugging Face's image folders have it, names images by `file_name`, below its folder, with `label`.
    /// - **Archives** (`.tar`, `.tar.gz`, `.tgz`, `.zip`), and folders in them, are read as class folders are. A folder that all others
    ///   are in is passed over.
    /// - **Parquet** files, as Hugging Face's data sets have them, have an image and its label in each row, or in the place of its bytes the
    ///   path of a file: relative to `root`, or else to the Parquet file's folder, and below it.
    /// - **Shards**, one, a folder of them, or those that a pattern such as `train-*.parquet` stands for, have a `.cls` or `.json` beside each image, with the same name up to its first dot.
    ///
    /// # Errors
    /// [`Error::Data`] naming the folder or the file and line: nothing there, no class folders, an empty class
    /// folder, no images, a line that can't be understood, a label that is not a number where others are or is too
    /// large, a listed file that does not exist. [`Error::Io`] where the system refuses to read.
    pub fn open(path: impl AsRef<Path>, root: Option<&Path>) -> Result<Self> {
        Self::open_as(path, root, &Columns::default())
    }

    /// [`Self::open`], of whose tables `columns` says which column has what.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_as(path: impl AsRef<Path>, root: Option<&Path>, columns: &Columns) -> Result<Self> {
        let path = path.as_ref();
        let mut left_out = LeftOut::default();
        let Found { classes, items, sets } = if let Some((file, inside)) = archive::split(path) {
            in_archive(path, (&file, &inside), root, columns, &mut left_out)?
        } else if let Some(files) = pattern::files(path)? {
            packed::shards(path, &files, root, columns, &mut left_out)?
        } else if !exists(path)? {
            return Err(Error::data(path, "there is no such file or folder"));
        } else if path.is_dir() {
            in_folder(path, root, columns, &mut left_out)?
        } else if is_image(path) {
            return Err(Error::data(path, "this is one image: a class folder tree, a list file or a CSV is needed"));
        } else {
            parse::labelled_file(path, root, columns)?
        };
        all_text(&items)?;
        Ok(Self { name: name_of(path), classes, items, sets, left_out })
    }

    /// Whether images at `path` have labels: those of a folder with a table of them, with shards of a data set, or with class folders, and
    /// those of any file but an image.
    ///
    /// # Errors
    /// As [`Self::open_as`] of a table.
    pub fn has_labels(path: &Path, columns: &Columns) -> Result<bool> {
        if !path.is_dir() {
            return Ok(!is_image(path));
        }
        if let Some(table) = parse::metadata(path)
            && parse::labelled_table(&table, columns)?.is_some()
        {
            return Ok(true);
        }
        if !walk::entries(path, &mut LeftOut::default())?.folders.is_empty() {
            return Ok(true);
        }
        let Some(first) = archives(path)?.into_iter().next() else { return Ok(false) };
        let archive = Archive::open(&first)?;
        Ok(archive.table().is_some() || packed::is_shard(&archive.names().collect::<Vec<_>>()))
    }

    /// Whether its images may have any number of labels.
    pub fn is_multi_label(&self) -> bool {
        self.sets.is_some()
    }

    /// The classes that a label of an item stands for: that one, or those of its set.
    pub fn classes_of<'a>(&'a self, label: &'a u32) -> &'a [u32] {
        match &self.sets {
            Some(sets) => sets.get(*label),
            None => std::slice::from_ref(label),
        }
    }

    /// Images that have each of its classes.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        let all = self.items.iter().flat_map(|item| self.classes_of(&item.label));
        all.for_each(|class| counts[*class as usize] += 1);
        counts
    }

    /// Gives multi-label data sets, labelled by the same classes, one list of label sets, so that equal labels are equal sets.
    pub fn unite(sets: &mut [Dataset]) {
        let own = sets.iter().filter(|set| set.is_multi_label());
        let own = own.flat_map(|set| set.items.iter().map(|item| set.classes_of(&item.label).to_vec()));
        let (all, labels) = LabelSets::of(own);
        let (all, mut labels) = (Arc::new(all), labels.into_iter());
        for set in sets.iter_mut().filter(|set| set.is_multi_label()) {
            set.items.iter_mut().zip(&mut labels).for_each(|(item, label)| item.label = label);
            set.sets = Some(all.clone());
        }
    }

    /// Images to predict: one image, a folder (flat or a tree, sorted by path), or a list file or CSV as in
    /// [`Self::open`], whose labels are dropped. `classes` is empty and every label 0.
    ///
    /// # Errors
    /// As [`Self::open`], except that folders need not be classes.
    pub fn unlabelled(path: impl AsRef<Path>, root: Option<&Path>) -> Result<Self> {
        Self::unlabelled_as(path, root, &Columns::default())
    }

    /// [`Self::unlabelled`], of whose tables `columns` says which column has what.
    ///
    /// # Errors
    /// As [`Self::unlabelled`].
    pub fn unlabelled_as(path: impl AsRef<Path>, root: Option<&Path>, columns: &Columns) -> Result<Self> {
        let path = path.as_ref();
        let mut left_out = LeftOut::default();
        let paths = if let Some((file, inside)) = archive::split(path) {
            images_in(path, (&file, &inside), root, columns, &mut left_out)?
        } else if let Some(files) = pattern::files(path)? {
            let mut paths = Vec::new();
            for file in files {
                paths.extend(images_in(&file, (&file, ""), root, columns, &mut left_out)?);
            }
            paths
        } else if path.is_dir() {
            let mut paths = walk::images_below(path, &mut left_out)?;
            if paths.is_empty() {
                let files = archives(path)?;
                // They are read, not left out.
                left_out = if files.is_empty() { left_out } else { LeftOut::default() };
                for file in files {
                    paths.extend(images_in(&file, (&file, ""), root, columns, &mut left_out)?);
                }
            }
            if paths.is_empty() {
                let has = if left_out.total() > 0 { format!(" (it has {left_out})") } else { String::new() };
                return Err(Error::data(path, format!("there are no images ({READ}) in this folder{has}")));
            }
            paths
        } else if is_image(path) && exists(path)? {
            vec![path.to_path_buf()]
        } else {
            Self::open_as(path, root, columns)?.items.into_iter().map(|item| item.path).collect()
        };
        let items: Vec<Item> = paths.into_iter().map(|path| Item { path, label: 0 }).collect();
        all_text(&items)?;
        Ok(Self { name: name_of(path), classes: Vec::new(), items, sets: None, left_out })
    }
}

/// The labelled images at `path` in the archive `file`, `inside` of it.
fn in_archive(
    path: &Path,
    (file, inside): (&Path, &str),
    root: Option<&Path>,
    columns: &Columns,
    left_out: &mut LeftOut,
) -> Result<Found> {
    let archive = Archive::open(file)?;
    if archive.table().is_some() {
        let what = "this is one image, or none: give the whole Parquet file";
        return if inside.is_empty() {
            packed::tables(path, &[file.into()], root, columns)
        } else {
            Err(Error::data(path, what))
        };
    }
    let names = packed::below(&archive, inside);
    if names.is_empty() {
        return Err(not_inside(path, &archive, inside));
    }
    match inside.is_empty() && packed::is_shard(&names) {
        true => packed::labelled(file, packed::samples(file, &archive, &names, columns, left_out)?),
        false => packed::class_folders(file, inside, &names, left_out),
    }
}

/// All images at `path` in the archive `file`, `inside` of it.
fn images_in(
    path: &Path,
    (file, inside): (&Path, &str),
    root: Option<&Path>,
    columns: &Columns,
    left_out: &mut LeftOut,
) -> Result<Vec<PathBuf>> {
    let archive = Archive::open(file)?;
    if let Some(table) = archive.table() {
        let find = |name: &str| beside::find(file, root, name);
        return if inside.is_empty() {
            table.images(columns, &find)
        } else {
            table.image(inside, &find).map(|image| vec![image])
        };
    }
    if archive.len(inside).is_ok() && is_image(path) {
        return Ok(vec![path.to_path_buf()]);
    }
    let names = packed::below(&archive, inside);
    let images = packed::images(&names, left_out);
    match images.is_empty() {
        true if names.is_empty() => Err(not_inside(path, &archive, inside)),
        true => Err(Error::data(path, format!("there are no images ({READ}) in this archive"))),
        false => Ok(images.into_iter().map(|name| path.join(name)).collect()),
    }
}

fn not_inside(path: &Path, archive: &Archive, inside: &str) -> Error {
    let what = match archive.len(inside).is_ok() {
        true if is_image(path) => "this is one image: a class folder tree, a list file or a CSV is needed",
        true => "a list in an archive is not read: put it beside the archive, with paths such as photos.zip/cat/1.jpg",
        false if inside.is_empty() => "there are no files in this archive",
        false => "there is no such file or folder in this archive",
    };
    Error::data(path, what)
}

/// The archives that lie in a folder, sorted.
fn archives(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot_read = |e| Error::io(folder, "cannot read the folder", e);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot_read)? {
        let path = entry.map_err(cannot_read)?.path();
        if archive::is_archive(&path) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A folder with a table of its images, with shards, or with one folder per class.
fn in_folder(path: &Path, root: Option<&Path>, columns: &Columns, left_out: &mut LeftOut) -> Result<Found> {
    if let Some(table) = parse::metadata(path) {
        match parse::labelled_table(&table, columns)? {
            Some(found) => return Ok(found),
            None if walk::entries(path, &mut LeftOut::default())?.folders.is_empty() => {
                let what = "its images have no column `label` here, and there are no class folders beside it";
                return Err(Error::data(&table, what));
            }
            None => {}
        }
    }
    let folders = walk::entries(path, &mut LeftOut::default())?.folders;
    match archives(path)? {
        files if folders.is_empty() && !files.is_empty() => packed::shards(path, &files, root, columns, left_out),
        _ => class_folders(path, left_out),
    }
}

fn class_folders(path: &Path, left_out: &mut LeftOut) -> Result<Found> {
    let found = walk::entries(path, left_out)?;
    if found.folders.is_empty() {
        let what = "there are no class folders in it: expected one folder per class, with its images";
        return Err(Error::data(path, what));
    }
    // Images beside the class folders have no class.
    if !found.images.is_empty() {
        *left_out.0.entry("images outside class folders".into()).or_default() += found.images.len() as u64;
    }
    let mut folders = Vec::new();
    for folder in found.folders {
        let name = folder.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::data(&folder, "a class folder's name must be UTF-8: rename it"))?;
        folders.push((name.to_owned(), folder));
    }
    folders.sort();
    walk::refuse_splits(path, folders.iter().map(|(name, _)| name.as_str()))?;

    let (mut classes, mut items) = (Vec::new(), Vec::new());
    for (label, (class, folder)) in (0..).zip(folders) {
        let mut own = LeftOut::default();
        let paths = walk::images_below(&folder, &mut own)?;
        if paths.is_empty() {
            let has = if own.total() > 0 { format!(" (it has {own})") } else { String::new() };
            let what = format!("empty class folder{has}: add images ({READ}) or remove it");
            return Err(Error::data(folder, what));
        }
        left_out.add(own);
        items.extend(paths.into_iter().map(|path| Item { path, label }));
        classes.push(class);
    }
    Ok(Found { classes, items, sets: None })
}

/// The paths have to be text: reports, JSON and lists hold them.
fn all_text(items: &[Item]) -> Result<()> {
    match items.iter().find(|item| item.path.to_str().is_none()) {
        None => Ok(()),
        Some(item) => {
            let others = items.iter().filter(|item| item.path.to_str().is_none()).count() - 1;
            let others = if others > 0 { format!(", and {others} more") } else { String::new() };
            Err(Error::data(&item.path, format!("this name is not UTF-8{others}: rename it")))
        }
    }
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|e| Error::io(path, "cannot read", e))
}

fn name_of(path: &Path) -> String {
    // "." and ".." have no name of their own.
    let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = if full.is_file() && !archive::is_archive(&full) { full.file_stem() } else { full.file_name() };
    let name = name.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    archive::stem(&name).to_string()
}
