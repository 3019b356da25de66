//! What images were found to be, on disk: one file for each folder of images. A lost or broken file costs time, nothing else.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::archive;
use super::look::Look;
use crate::atomic::atomic_write;
use crate::error::Result;

/// The first line. Another version may decode otherwise.
const MAGIC: &[u8] = concat!("tpgm images 1 ", env!("CARGO_PKG_VERSION"), "\n").as_bytes();

/// A file that changed this short before it was looked at may change again within the same tick of its clock.
const SETTLED: Duration = Duration::from_secs(2);

/// What tells a file from an earlier one at its place: bytes, and the times of its last change in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    len: u64,
    modified: i128,
    /// When its content or its attributes changed, which no program sets back; 0 where the system has no such time.
    changed: i128,
}

impl Stamp {
    /// Of the file at `path`; none if it can't be told, or has not settled yet.
    pub(super) fn of(path: &Path) -> Option<Stamp> {
        // In an archive, a file is as old as the archive.
        let archive = archive::split(path).map(|(archive, _)| archive);
        let meta = fs::metadata(archive.as_deref().unwrap_or(path)).ok().filter(Metadata::is_file)?;
        let modified = nanoseconds(meta.modified().ok()?);
        let stamp = Stamp { len: meta.len(), modified, changed: changed(&meta) };
        let settled = nanoseconds(SystemTime::now()) - SETTLED.as_nanos() as i128;
        (stamp.modified.max(stamp.changed) < settled).then_some(stamp)
    }
}

fn nanoseconds(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_nanos() as i128,
        Err(before) => -(before.duration().as_nanos() as i128),
    }
}

#[cfg(unix)]
fn changed(meta: &Metadata) -> i128 {
    use std::os::unix::fs::MetadataExt;
    i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec())
}

#[cfg(not(unix))]
fn changed(_: &Metadata) -> i128 {
    0
}

/// What the file of each path was found to be, when it had a stamp.
type Entries = HashMap<String, (Stamp, Result<Look, String>)>;

/// Findings about the images in one folder and below it.
pub(super) struct Cache {
    path: PathBuf,
    /// The folder that all images are in; paths are relative to it.
    root: PathBuf,
    entries: Entries,
    /// Images of this call: what belongs to none of them is kept only in measure.
    images: usize,
    changed: bool,
}

/// The folder that all `paths` are in.
pub(super) fn root<'a>(paths: impl Iterator<Item = &'a Path> + Clone) -> PathBuf {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    // What the first and the last share, all between them share.
    let (Some(first), Some(last)) = (paths.clone().min(), paths.max()) else { return PathBuf::new() };
    let ends = [first, last].map(|path| absolute(path).parent().map(Path::to_path_buf).unwrap_or_default());
    let shared = ends[0].components().zip(ends[1].components()).take_while(|(a, b)| a == b);
    shared.map(|(component, _)| component).collect()
}

impl Cache {
    /// The findings about the images below `root`, kept in `folder`.
    pub(super) fn open(folder: &Path, root: &Path) -> Cache {
        let name: String =
            Sha256::digest(root.as_os_str().as_encoded_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect();
        let path = folder.join(format!("{name}.images"));
        let entries = fs::read(&path).ok().and_then(|bytes| read(&bytes)).unwrap_or_default();
        Cache { path, root: root.into(), entries, images: 0, changed: false }
    }

    /// So many images of a data set below the root are about to be asked for.
    pub(super) fn expect(&mut self, images: usize) {
        self.images += images;
    }

    fn key(&self, path: &Path) -> Option<String> {
        let absolute = std::path::absolute(path).ok()?;
        Some(absolute.strip_prefix(&self.root).ok()?.to_str()?.to_string())
    }

    /// What the file at `path` was found to be when it had this stamp.
    pub(super) fn get(&self, path: &Path, stamp: &Stamp) -> Option<Result<Look, String>> {
        let (then, look) = self.entries.get(&self.key(path)?)?;
        (then == stamp).then(|| look.clone())
    }

    pub(super) fn put(&mut self, path: &Path, stamp: &Stamp, look: &Result<Look, String>) {
        // A file that could not be read at all may be readable the next time.
        let lasting = !look.as_ref().is_err_and(|why| why.starts_with("cannot read"));
        if let (Some(key), true) = (self.key(path), lasting) {
            self.entries.insert(key, (*stamp, look.clone()));
            self.changed = true;
        }
    }

    /// Writes it all; whatever goes wrong costs the next run time.
    pub(super) fn save(&self) {
        /// Entries of other data sets in the same folder that are kept, for each image of this one.
        const OTHERS: usize = 4;
        if !self.changed {
            return;
        }
        if self.entries.len() > OTHERS * self.images.max(10_000) {
            let _ = fs::remove_file(&self.path);
            return;
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let done = fs::create_dir_all(folder).is_ok() && atomic_write(&self.path, &written(&self.entries)).is_ok();
        if !done {
            tracing::warn!("{}: what the images are is not kept", self.path.display());
        }
    }
}

fn written(entries: &Entries) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    };
    for (key, (stamp, look)) in entries {
        text(&mut out, key);
        out.extend(stamp.len.to_le_bytes());
        out.extend(stamp.modified.to_le_bytes());
        out.extend(stamp.changed.to_le_bytes());
        match look {
            Ok(look) => {
                out.push(u8::from(look.sixteen));
                out.extend(look.bytes);
                out.extend(look.pixels);
                look.size.iter().for_each(|side| out.extend(side.to_le_bytes()));
            }
            Err(why) => {
                out.push(2);
                text(&mut out, why);
            }
        }
    }
    let sum = Sha256::digest(&out);
    out.extend(sum);
    out
}

/// The entries of a file; none if a byte of it is wrong.
fn read(bytes: &[u8]) -> Option<Entries> {
    let (body, sum) = bytes.split_last_chunk::<32>()?;
    if Sha256::digest(body)[..] != sum[..] {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut entries = HashMap::new();
    while !rest.is_empty() {
        let key = text(&mut rest)?;
        let stamp = Stamp {
            len: u64::from_le_bytes(take(&mut rest)?),
            modified: i128::from_le_bytes(take(&mut rest)?),
            changed: i128::from_le_bytes(take(&mut rest)?),
        };
        let look = match take::<1>(&mut rest)? {
            [2] => Err(text(&mut rest)?),
            [sixteen] => Ok(Look {
                sixteen: sixteen == 1,
                bytes: take(&mut rest)?,
                pixels: take(&mut rest)?,
                size: [u32::from_le_bytes(take(&mut rest)?), u32::from_le_bytes(take(&mut rest)?)],
            }),
        };
        entries.insert(key, (stamp, look));
    }
    Some(entries)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn text(rest: &mut &[u8]) -> Option<String> {
    let len = u32::from_le_bytes(take(rest)?) as usize;
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    String::from_utf8(head.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_back_and_a_damaged_one_is_no_file() {
        let look = Look { bytes: [7; 32], pixels: [9; 32], size: [640, 480], sixteen: true };
        let stamp = Stamp { len: 5, modified: -3, changed: 1 << 70 };
        let entries = HashMap::from([
            ("a/b.png".to_string(), (stamp, Ok(look))),
            ("c".to_string(), (Stamp { len: 0, ..stamp }, Err("broken image: cut short".to_string()))),
        ]);
        let bytes = written(&entries);
        assert_eq!(read(&bytes), Some(entries));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(read(&damaged), None, "byte {at}");
            assert_eq!(read(&bytes[..at]), None, "{at} bytes");
        }
    }
}
