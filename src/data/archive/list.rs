//! The members of an archive, and where they lie.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use zip::{CompressionMethod, ZipArchive};

use super::Member;
use crate::error::{Error, Result, quote};

type Members = BTreeMap<String, Member>;

/// The most that a compressed archive may unpack to: it is held in memory.
const UNPACKED: u64 = 4 << 30;

/// A member's name without what stands for the folder that it is in, with `/` between folders, for which some programs write a backslash.
fn plain(name: &str) -> String {
    name.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

/// The files of a tar archive of `len` bytes; links and devices are left out.
pub(super) fn tar(path: &Path, from: impl Read + Seek, len: u64) -> Result<Members> {
    let broken = |e: std::io::Error| {
        let what = quote(&e.to_string());
        Error::data(path, format!("this is no whole .tar archive ({what}): fetch or pack it again"))
    };
    let mut archive = tar::Archive::new(from);
    let mut members = Members::new();
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path_bytes();
        let name = std::str::from_utf8(&name).map_err(|_| {
            Error::data(path, format!("a name in it is not UTF-8: {:?}", String::from_utf8_lossy(&name)))
        })?;
        let (at, size) = (entry.raw_file_position(), entry.size());
        if at.checked_add(size).is_none_or(|end| end > len) {
            let what = format!("the archive is cut short within \"{}\": fetch or pack it again", quote(name));
            return Err(Error::data(path, what));
        }
        // Of two with one name the last counts, as when they are unpacked.
        members.insert(plain(name), Member { at, packed: size, len: size, zip: None });
    }
    Ok(members)
}

/// The content of a gzip file.
pub(super) fn gunzip(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::io(path, "cannot read", e))?;
    let mut bytes = Vec::new();
    MultiGzDecoder::new(BufReader::new(file)).take(UNPACKED + 1).read_to_end(&mut bytes).map_err(|e| {
        let what = quote(&e.to_string());
        Error::data(path, format!("this is no whole .tar.gz archive ({what}): fetch or pack it again"))
    })?;
    match bytes.len() as u64 > UNPACKED {
        true => Err(Error::data(
            path,
            "it holds more than 4 GiB, and a compressed archive is read as a whole: make it a .tar or a .zip, whose files are read in place",
        )),
        false => Ok(bytes),
    }
}

/// The files of a zip archive.
pub(super) fn zip(path: &Path) -> Result<Members> {
    let file = File::open(path).map_err(|e| Error::io(path, "cannot read", e))?;
    let broken = |e: zip::result::ZipError| {
        let what = quote(&e.to_string());
        Error::data(path, format!("this is no whole .zip archive ({what}): fetch or pack it again"))
    };
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let mut members = Members::new();
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(broken)?;
        if !entry.is_file() {
            continue;
        }
        let name = entry.name().map_err(broken)?.into_owned();
        let refuse =
            |what: &str| Err(Error::data(path, format!("\"{}\" in it is {what}: pack it again", quote(&name))));
        let deflated = match entry.compression() {
            _ if entry.encrypted() => return refuse("encrypted"),
            CompressionMethod::Stored => false,
            CompressionMethod::Deflated => true,
            other => return refuse(&format!("compressed by {other}, not stored or deflated")),
        };
        let Some(at) = entry.data_start() else { return refuse("at no known place") };
        let (packed, len, sum) = (entry.compressed_size(), entry.size(), entry.crc32());
        members.insert(plain(&name), Member { at, packed, len, zip: Some((sum, deflated)) });
    }
    Ok(members)
}
