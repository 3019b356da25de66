//! The same image in two data sets that should share none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use image::{ImageFormat, ImageReader};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::dataset::Dataset;
use super::decode::decode;
use super::jpeg;
use crate::error::{Error, Result};

/// What two files of the same image have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Same {
    /// Every byte.
    Bytes,
    /// Every pixel, as the model is given them: upright 8-bit RGB. One of the two was written anew.
    Pixels,
}

/// The same image in two data sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The earlier data set's name, and the image's path there (its first, where it is there twice).
    pub first: (String, PathBuf),
    /// The later data set's name, and the image's path there.
    pub second: (String, PathBuf),
    /// Whether the files are the same as well.
    pub same: Same,
}

/// The SHA-256 of every image file's bytes, in the order of `dataset.items`.
///
/// # Errors
/// [`Error::Io`] naming the first file that can't be read.
pub fn content_hashes(dataset: &Dataset) -> Result<Vec<[u8; 32]>> {
    let hashes: Vec<Result<[u8; 32]>> = dataset.items.par_iter().map(|item| hash_file(&item.path)).collect();
    hashes.into_iter().collect()
}

/// Every image that two of the named data sets share, by content, where one of the two is among the first `guarded`: for
/// each pair in the order given, in the order of the second's items.
///
/// Files of the same bytes are found first. Of the others, those are decoded and compared by their pixels whose width and
/// height occur in another data set: a PNG that was written anew is found, a JPEG that was compressed anew is another image.
/// A file that can't be decoded is left to whoever needs its pixels.
///
/// # Errors
/// [`Error::Io`] naming the first file that can't be read.
pub fn overlaps(sets: &[(&str, &Dataset)], guarded: usize) -> Result<Vec<Overlap>> {
    let bytes = sets.iter().map(|(_, dataset)| content_hashes(dataset)).collect::<Result<Vec<_>>>()?;
    let pixels = pixel_hashes(sets, &bytes);
    let mut found = Vec::new();
    for (i, (first_name, first)) in sets.iter().enumerate().take(guarded) {
        // By pixels where they are known: files of the same bytes have the same pixels.
        let key = |bytes: &[u8; 32]| *pixels.get(bytes).unwrap_or(bytes);
        let mut index = HashMap::new();
        for (hash, item) in bytes[i].iter().zip(&first.items) {
            index.entry(key(hash)).or_insert((hash, item));
        }
        for (j, (second_name, second)) in sets.iter().enumerate().skip(i + 1) {
            for (hash, item) in bytes[j].iter().zip(&second.items) {
                if let Some((twin_hash, twin)) = index.get(&key(hash)) {
                    found.push(Overlap {
                        first: (first_name.to_string(), twin.path.clone()),
                        second: (second_name.to_string(), item.path.clone()),
                        same: if *twin_hash == hash { Same::Bytes } else { Same::Pixels },
                    });
                }
            }
        }
    }
    Ok(found)
}

/// One content of a file.
struct Content<'a> {
    path: &'a Path,
    /// The places of the data sets that have it.
    sets: BTreeSet<usize>,
}

/// The hash of the pixels by the hash of the file, for every file that could be another's image.
fn pixel_hashes(sets: &[(&str, &Dataset)], bytes: &[Vec<[u8; 32]>]) -> HashMap<[u8; 32], [u8; 32]> {
    let mut contents: BTreeMap<[u8; 32], Content> = BTreeMap::new();
    for (set, ((_, dataset), hashes)) in sets.iter().zip(bytes).enumerate() {
        for (item, hash) in dataset.items.iter().zip(hashes) {
            let new = || Content { path: &item.path, sets: BTreeSet::new() };
            contents.entry(*hash).or_insert_with(new).sets.insert(set);
        }
    }
    let sizes: Vec<Option<[u32; 2]>> = contents.par_iter().map(|(_, content)| size(content.path)).collect();
    let mut met: HashMap<[u32; 2], (usize, BTreeSet<usize>)> = HashMap::new();
    for (content, size) in contents.values().zip(&sizes) {
        if let Some(size) = size {
            let (files, sets) = met.entry(*size).or_default();
            *files += 1;
            sets.extend(&content.sets);
        }
    }
    let shared = |size: &[u32; 2]| met.get(size).is_some_and(|(files, sets)| *files > 1 && sets.len() > 1);
    let wanted: Vec<([u8; 32], &Path)> = contents
        .iter()
        .zip(&sizes)
        .filter(|(_, size)| size.as_ref().is_some_and(shared))
        .map(|((hash, content), _)| (*hash, content.path))
        .collect();
    let pixels = |(hash, path): &([u8; 32], &Path)| {
        let image = decode(path).ok()?;
        let mut hasher = Sha256::new();
        hasher.update(image.width().to_le_bytes());
        hasher.update(image.as_raw());
        Some((*hash, hasher.finalize().into()))
    };
    wanted.par_iter().filter_map(pixels).collect()
}

/// Width and height by the file's header, the shorter first, since the image may lie on its side.
fn size(path: &Path) -> Option<[u32; 2]> {
    let reader = ImageReader::new(BufReader::new(File::open(path).ok()?)).with_guessed_format().ok()?;
    let (width, height) = match reader.format() {
        Some(ImageFormat::Jpeg) => jpeg::size(&std::fs::read(path).ok()?)?,
        _ => reader.into_dimensions().ok()?,
    };
    Some([width.min(height), width.max(height)])
}

fn hash_file(path: &Path) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    File::open(path)
        .and_then(|mut file| io::copy(&mut file, &mut hasher))
        .map_err(|e| Error::io(path, "cannot read", e))?;
    Ok(hasher.finalize().into())
}
