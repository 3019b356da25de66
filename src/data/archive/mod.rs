//! Images in archives, read where they lie, without unpacking: the path of a member is that of the archive with the member's name behind
//! it, as in `photos.zip/cat/1.jpg`. The list of members is made once and kept as long as the file stays as it is.

mod list;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use flate2::read::DeflateDecoder;

use super::parquet::Table;
use crate::error::{Error, Result, quote};

/// The kinds that are read, by the end of a file's name.
const KINDS: [(&str, Kind); 5] = [
    (".tar", Kind::Tar),
    (".tar.gz", Kind::TarGz),
    (".tgz", Kind::TarGz),
    (".zip", Kind::Zip),
    (".parquet", Kind::Parquet),
];

/// The largest member: no image has as many bytes.
const MOST: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tar,
    TarGz,
    Zip,
    Parquet,
}

/// Where the bytes of a member are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    at: u64,
    /// Bytes there.
    packed: u64,
    /// Bytes of the member.
    len: u64,
    /// CRC-32 of the member, where the archive has one, and whether it is deflated.
    zip: Option<(u32, bool)>,
}

/// An archive's members by their names, `/` between folders.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    members: BTreeMap<String, Member>,
    /// What a compressed archive holds, which has no places to read at.
    unpacked: Option<Vec<u8>>,
    /// The rows of a Parquet file, which has no members.
    table: Option<Table>,
    /// Its length and the time of its last change when it was listed.
    stamp: (u64, Option<SystemTime>),
}

fn kind(name: &str) -> Option<Kind> {
    let name = name.to_ascii_lowercase();
    KINDS.iter().find(|(end, _)| name.ends_with(end) && name.len() > end.len()).map(|(_, kind)| *kind)
}

/// Whether a file is called as archives are that can be read.
pub(super) fn is_archive(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| kind(name).is_some())
}

/// An archive's name without its ending.
pub(super) fn stem(name: &str) -> &str {
    let lower = name.to_ascii_lowercase();
    let end = KINDS.iter().map(|(end, _)| *end).filter(|end| lower.ends_with(end)).max_by_key(|end| end.len());
    &name[..name.len() - end.map_or(0, str::len)]
}

/// The archive that `path` is or leads into, and what of the path is inside; none for a path of folders and files alone.
pub(super) fn split(path: &Path) -> Option<(PathBuf, String)> {
    let mut archive = PathBuf::new();
    let mut parts = path.components();
    while let Some(part) = parts.next() {
        archive.push(part);
        if is_archive(&archive) && archive.is_file() {
            let inside: Option<Vec<&str>> = parts.map(|part| part.as_os_str().to_str()).collect();
            return Some((archive, inside?.join("/")));
        }
    }
    None
}

/// The archives that were listed, by path.
static LISTED: LazyLock<Mutex<HashMap<PathBuf, Arc<Archive>>>> = LazyLock::new(Mutex::default);

impl Archive {
    /// The archive at `path`, listed now or before.
    ///
    /// # Errors
    /// [`Error::Io`] where it can't be read; [`Error::Data`] where it is broken, or holds what can't be read in place.
    pub(super) fn open(path: &Path) -> Result<Arc<Archive>> {
        let cannot_read = |e| Error::io(path, "cannot read", e);
        let meta = fs::metadata(path).map_err(cannot_read)?;
        let stamp = (meta.len(), meta.modified().ok());
        // Whoever comes while it is being listed waits for it, instead of listing it as well.
        let mut listed = LISTED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(archive) = listed.get(path).filter(|archive| archive.stamp == stamp) {
            return Ok(archive.clone());
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (members, unpacked) = match kind(name) {
            Some(Kind::Tar) => (list::tar(path, File::open(path).map_err(cannot_read)?, stamp.0)?, None),
            Some(Kind::TarGz) => {
                let bytes = list::gunzip(path)?;
                (list::tar(path, std::io::Cursor::new(&bytes), bytes.len() as u64)?, Some(bytes))
            }
            Some(Kind::Zip) => (list::zip(path)?, None),
            Some(Kind::Parquet) => (BTreeMap::new(), None),
            None => {
                return Err(Error::data(path, "this is no archive that is read (.tar, .tar.gz, .tgz, .zip, .parquet)"));
            }
        };
        let table = if kind(name) == Some(Kind::Parquet) { Some(Table::open(path)?) } else { None };
        let archive = Arc::new(Archive { path: path.into(), members, unpacked, table, stamp });
        listed.insert(path.into(), archive.clone());
        Ok(archive)
    }

    /// The names of its files, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    fn member(&self, name: &str) -> Result<&Member> {
        self.members.get(name).ok_or_else(|| {
            let what = format!("there is no file \"{}\" in this archive", quote(name));
            Error::data(&self.path, what)
        })
    }

    /// Its rows, if it is a Parquet file.
    pub(super) fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// Bytes of the file `name`; of an image of a Parquet file, which has no length of its own, those of the whole file.
    pub(super) fn len(&self, name: &str) -> Result<u64> {
        if let Some(table) = &self.table {
            return table.place(name).map(|_| self.stamp.0);
        }
        self.member(name).map(|member| member.len)
    }

    /// The content of the file `name`.
    ///
    /// # Errors
    /// As [`Archive::open`]; no such file; bytes that are not those that were packed.
    pub(super) fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        if let Some(table) = &self.table {
            return table.bytes(name);
        }
        let member = self.member(name)?;
        let at_file = |what: &str| Error::data(self.path.join(name), what);
        if member.len > MOST || member.packed > MOST {
            return Err(at_file("this file in an archive has more than 1 GiB: no image has"));
        }
        let packed = self.read(member)?;
        let Some((sum, deflated)) = member.zip else { return Ok(packed) };
        let mut out = packed;
        if deflated {
            let mut inflated = Vec::new();
            // One byte more than there should be tells that there are too many.
            let mut from = DeflateDecoder::new(&out[..]).take(member.len + 1);
            from.read_to_end(&mut inflated).map_err(|e| at_file(&format!("broken in its archive: {e}")))?;
            out = inflated;
        }
        let mut crc = flate2::Crc::new();
        crc.update(&out);
        match out.len() as u64 == member.len && crc.sum() == sum {
            true => Ok(out),
            false => Err(at_file("broken in its archive: its checksum is another")),
        }
    }

    fn read(&self, member: &Member) -> Result<Vec<u8>> {
        if let Some(unpacked) = &self.unpacked {
            return Ok(unpacked[member.at as usize..][..member.packed as usize].to_vec());
        }
        let cannot_read = |e| Error::io(&self.path, "cannot read", e);
        let mut file = File::open(&self.path).map_err(cannot_read)?;
        file.seek(SeekFrom::Start(member.at)).map_err(cannot_read)?;
        let mut bytes = vec![0; member.packed as usize];
        file.read_exact(&mut bytes).map_err(cannot_read)?;
        Ok(bytes)
    }
}
