//! The image files below a folder, and a count of everything that is left out.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::names::name_some;
use crate::error::{Error, Help, Result};

/// Extensions of the formats that [`super::decode()`] reads. The content decides what a file is; the extension, whether it is
/// opened.
const IMAGES: [&str; 17] = [
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "gif", "tif", "tiff", "pbm", "pgm", "ppm",
    "pnm", "pam",
];

/// Folders and files that file managers, archives and network drives put beside one's own: thumbnails above all.
const SYSTEM: [&str; 8] = [
    "@eadir",
    "__macosx",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "thumbs.db",
    "desktop.ini",
];

/// How many files (or whole folders) are left out, by the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut(pub BTreeMap<String, u64>);

impl LeftOut {
    fn count(&mut self, kind: impl Into<String>) {
        *self.0.entry(kind.into()).or_default() += 1;
    }

    /// Adds the counts of another folder.
    pub fn add(&mut self, other: LeftOut) {
        other.0.into_iter().for_each(|(kind, n)| *self.0.entry(kind).or_default() += n);
    }

    /// How many there are in all.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl fmt::Display for LeftOut {
    /// `3 of .txt, 1 hidden`; the most frequent first, and of many kinds the rest as one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KINDS: usize = 6;
        let mut kinds: Vec<(&String, u64)> = self.0.iter().map(|(kind, n)| (kind, *n)).collect();
        kinds.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        let mut parts: Vec<String> = kinds.iter().take(KINDS).map(|(kind, n)| format!("{n} {kind}")).collect();
        if kinds.len() > KINDS {
            let rest: u64 = kinds[KINDS..].iter().map(|(_, n)| n).sum();
            parts.push(format!("{rest} of {} other kinds", kinds.len() - KINDS));
        }
        f.write_str(&parts.join(", "))
    }
}

/// Whether a file's name says that it is an image, whatever the case of its extension.
pub fn is_image(path: &Path) -> bool {
    extension(path).is_some_and(|extension| IMAGES.contains(&extension.as_str()))
}

fn extension(path: &Path) -> Option<String> {
    Some(path.extension()?.to_string_lossy().to_ascii_lowercase())
}

/// A folder on the way down.
struct Place<'a> {
    /// Its path without links, which tells whether a link leads back up.
    real: PathBuf,
    above: Option<&'a Place<'a>>,
}

impl Place<'_> {
    fn is_below(&self, real: &Path) -> bool {
        self.real.starts_with(real) || self.above.is_some_and(|above| above.is_below(real))
    }
}

/// What a folder has in it.
#[derive(Default)]
pub(super) struct Entries {
    pub(super) folders: Vec<PathBuf>,
    pub(super) images: Vec<PathBuf>,
}

/// A folder's own entries; hidden ones, those of the system, and files that are no images are counted in `left_out`.
///
/// # Errors
/// [`Error::Io`] where the folder can't be read.
pub(super) fn entries(folder: &Path, left_out: &mut LeftOut) -> Result<Entries> {
    let cannot_read = |e| Error::io(folder, "cannot read the folder", e);
    let mut found = Entries::default();
    for entry in fs::read_dir(folder).map_err(cannot_read)? {
        let entry = entry.map_err(cannot_read)?;
        let (path, name) = (entry.path(), entry.file_name());
        if is_system(&name) {
            left_out.count("of the system (@eaDir and its like)");
        } else if name.as_encoded_bytes().starts_with(b".") {
            left_out.count("hidden");
        } else {
            let mut kind = entry.file_type().map_err(|e| Error::io(&path, "cannot read", e))?;
            if kind.is_symlink() {
                match fs::metadata(&path) {
                    Ok(target) => kind = target.file_type(),
                    Err(_) => {
                        left_out.count("broken links");
                        continue;
                    }
                }
            }
            match (kind.is_dir(), kind.is_file(), extension(&path)) {
                (true, ..) => found.folders.push(path),
                (_, false, _) => left_out.count("pipes, sockets or devices"),
                (_, true, _) if is_image(&path) => found.images.push(path),
                (_, true, Some(extension)) => left_out.count(format!(".{extension}")),
                (_, true, None) => left_out.count("without an extension"),
            }
        }
    }
    Ok(found)
}

/// The images in `folder` and below it, sorted by path. A link to a folder that it lies in is left out: it would give every image
/// again and again.
///
/// # Errors
/// As [`entries`].
pub(super) fn images_below(folder: &Path, left_out: &mut LeftOut) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    let real = folder.canonicalize().map_err(|e| Error::io(folder, "cannot read the folder", e))?;
    descend(folder, &Place { real, above: None }, left_out, &mut images)?;
    images.sort();
    Ok(images)
}

fn descend(folder: &Path, place: &Place, left_out: &mut LeftOut, images: &mut Vec<PathBuf>) -> Result<()> {
    let mut found = entries(folder, left_out)?;
    images.append(&mut found.images);
    for path in found.folders {
        let real = path.canonicalize().map_err(|e| Error::io(&path, "cannot read the folder", e))?;
        if place.is_below(&real) {
            left_out.count("links to a folder above");
        } else {
            descend(&path, &Place { real, above: Some(place) }, left_out, images)?;
        }
    }
    Ok(())
}

/// Whether the file `name` of an archive, `/` between folders, is an image that counts; the others are counted in `left_out`.
pub(super) fn keep(name: &str, left_out: &mut LeftOut) -> bool {
    let mut parts = name.split('/');
    if parts.clone().any(|part| is_system(OsStr::new(part))) {
        left_out.count("of the system (@eaDir and its like)");
    } else if parts.any(|part| part.starts_with('.')) {
        left_out.count("hidden");
    } else if is_image(Path::new(name)) {
        return true;
    } else {
        left_out.count(extension(Path::new(name)).map_or("without an extension".into(), |end| format!(".{end}")));
    }
    false
}

/// Whether a folder is called as people call splits.
fn is_split(name: &str) -> bool {
    ["train", "training", "val", "valid", "validation", "test", "testing"].contains(&name.to_lowercase().as_str())
}

/// # Errors
/// [`Error::Data`] where the folders in `place`, which would be classes, are called as splits are.
pub(super) fn refuse_splits<'a>(place: &Path, names: impl ExactSizeIterator<Item = &'a str> + Clone) -> Result<()> {
    if names.len() < 2 || !names.clone().all(is_split) {
        return Ok(());
    }
    let first = place.join(names.clone().next().unwrap_or_default());
    let (names, first) = (name_some(names), first.display());
    let what = format!("its folders ({names}) are named as splits, not as classes: give one of them, such as {first}");
    Err(Error::data(place, what).with_help(Help::Splits))
}

fn is_system(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| SYSTEM.contains(&name.to_ascii_lowercase().as_str()))
}
