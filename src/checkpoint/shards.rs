//! The safetensors files that make up a checkpoint: one, or the shards that a `model.safetensors.index.json` names.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use sha2::{Digest, Sha256};

use super::header::{self, Header};
use super::json::{self, quote};
use super::{Dtype, foreign};
use crate::error::{Error, Result};

/// How the names of an index end.
pub(super) const INDEX: &str = ".safetensors.index.json";
/// Files that an index may name.
const MAX_SHARDS: usize = 1000;
/// Bytes read at a time; a multiple of every element's size.
pub(super) const CHUNK: usize = 1 << 20;

/// A safetensors file that was found whole.
///
/// Tensors are read when asked for. They are read and not mapped: a file that somebody cuts short meanwhile is then
/// an error, where a mapping would end the process.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    file: Mutex<File>,
    /// Where the tensors begin in the file.
    data_start: u64,
}

impl Shard {
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let wrong = |what: String| Error::checkpoint(&path, what);
        let unreadable = |e| Error::io(&path, "cannot read", e);
        if !fs::metadata(&path).map_err(unreadable)?.is_file() {
            return Err(wrong("neither a file nor a folder with model.safetensors".into()));
        }
        let mut file = File::open(&path).map_err(unreadable)?;
        let len = file.metadata().map_err(unreadable)?.len();
        let mut first = Vec::new();
        (&mut file).take(foreign::LOOK as u64).read_to_end(&mut first).map_err(unreadable)?;
        let header_len = header_len(&first, len, &path).map_err(wrong)?;
        let mut json = vec![0; header_len as usize];
        file.seek(SeekFrom::Start(8)).and_then(|_| file.read_exact(&mut json)).map_err(unreadable)?;
        let header = header::parse(&json, len - 8 - header_len).map_err(wrong)?;
        Ok(Self { path, header, file: Mutex::new(file), data_start: 8 + header_len })
    }

    /// The file's name in its folder.
    pub(super) fn name(&self) -> String {
        self.path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
    }

    /// The bytes of the tensor at `index` from byte `at` of it on.
    pub(super) fn read_tensor(&self, index: usize, at: u64, into: &mut [u8]) -> Result<()> {
        self.read(self.data_start + self.header.ranges[index].0 + at, into)
            .map_err(|e| Error::io(&self.path, format!("cannot read tensor {}", self.header.tensors[index].name), e))
    }

    /// How many bytes the tensor at `index` takes.
    pub(super) fn tensor_len(&self, index: usize) -> u64 {
        let (start, end) = self.header.ranges[index];
        end - start
    }

    /// Bytes of all its tensors.
    pub(super) fn data_len(&self) -> u64 {
        self.header.ranges.last().map_or(0, |range| range.1)
    }

    /// SHA-256 of the whole file, in hexadecimal.
    pub(super) fn sha256(&self) -> Result<String> {
        let (mut digest, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
        let (mut at, len) = (0, self.data_start + self.data_len());
        while at < len {
            let piece = &mut buffer[..CHUNK.min((len - at) as usize)];
            self.read(at, piece).map_err(|e| Error::io(&self.path, "cannot read", e))?;
            digest.update(&*piece);
            at += piece.len() as u64;
        }
        Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn read(&self, at: u64, into: &mut [u8]) -> std::io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(into)
    }
}

/// The header's length, from the `first` bytes of a file of `len`. The error is what to tell the user.
fn header_len(first: &[u8], len: u64, path: &Path) -> Result<u64, String> {
    let not_ours = |otherwise: String| Err(foreign::what_is_it(first, path).unwrap_or(otherwise));
    if len == 0 {
        return Err("the file is empty; download it again".into());
    }
    let Some(&bytes) = first.first_chunk::<8>() else {
        return not_ours(format!("truncated: the file has {len} bytes; download it again"));
    };
    let header_len = u64::from_le_bytes(bytes);
    if header_len > header::MAX_LEN {
        return not_ours(format!(
            "not a safetensors file (its header would be {header_len} bytes long); give one, or convert this first"
        ));
    }
    if first.get(8).is_some_and(|&b| b != b'{') || header_len == 0 {
        return not_ours(
            "not a safetensors file (no header follows the first 8 bytes); give one, or convert this first".into(),
        );
    }
    if header_len > len - 8 {
        let rest = len - 8;
        return Err(format!(
            "truncated: its header is {header_len} bytes long, the file has {rest} of them; download it again"
        ));
    }
    Ok(header_len)
}

/// Which file holds each tensor of a sharded checkpoint, as its index tells and its files confirm.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) path: PathBuf,
    bytes: Vec<u8>,
    /// Tensor and the name of its file, in the index's order.
    weight_map: Vec<(String, String)>,
}

impl Index {
    pub(super) fn read(path: PathBuf) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Text {
            weight_map: WeightMap,
        }
        let bytes = json::read_bytes(&path)?;
        // Before all else, since a list of the fields' values would pass for the map.
        if bytes.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Error::checkpoint(path, "not valid JSON: an index begins with {"));
        }
        let Text { weight_map: WeightMap(weight_map) } = json::parse(&path, &bytes)?;
        Ok(Self { path, bytes, weight_map })
    }

    /// The files that it names, sorted: all of them plain names, since nothing outside of the folder is even looked at.
    pub(super) fn files(&self) -> Result<BTreeSet<&str>> {
        let wrong = |what: String| Error::checkpoint(&self.path, what);
        let files: BTreeSet<&str> = self.weight_map.iter().map(|(_, file)| file.as_str()).collect();
        if files.is_empty() {
            return Err(wrong("its weight_map names no file".into()));
        }
        if files.len() > MAX_SHARDS {
            return Err(wrong(format!("names {} files, more than {MAX_SHARDS}", files.len())));
        }
        if let Some(outside) = files.iter().find(|file| !is_plain(file)) {
            let what = "a shard must be a file in the index's own folder";
            return Err(wrong(format!("names the file {:?}: {what}", quote(outside))));
        }
        Ok(files)
    }

    /// Opens every file that it names, sorted by name, and checks that they hold what it says. A tensor that it does
    /// not name is part of the checkpoint all the same: other readers take all that the files hold.
    pub(super) fn open_shards(&self) -> Result<Vec<Shard>> {
        let wrong = |what: String| Error::checkpoint(&self.path, what);
        let files = self.files()?;
        let mut shards: Vec<Shard> = Vec::new();
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for file in &files {
            let path = self.path.with_file_name(file);
            if !path.exists() {
                return Err(wrong(format!("its shard {file} is missing; download it again")));
            }
            shards.push(Shard::open(path)?);
        }
        for (file, shard) in files.iter().zip(&shards) {
            for tensor in &shard.header.tensors {
                if let Some(other) = seen.insert(&tensor.name, file) {
                    return Err(wrong(format!("tensor {} is in two shards, {other} and {file}", tensor.name)));
                }
            }
        }
        for (tensor, file) in &self.weight_map {
            match seen.get(tensor.as_str()) {
                Some(found) if found == file => {}
                Some(found) => {
                    return Err(wrong(format!("tensor {tensor} should be in {file}, but is in {found}")));
                }
                None => {
                    return Err(wrong(format!("tensor {} is in no shard; it should be in {file}", quote(tensor))));
                }
            }
        }
        Ok(shards)
    }

    /// The index of the same shards with other tensors, `(name, file)`, of `total` bytes: as it stands where that says
    /// the same.
    pub(super) fn updated(&self, tensors: &[(&str, &str)], total: u64, was: u64) -> Result<Vec<u8>> {
        let known: BTreeMap<&str, &str> = self.weight_map.iter().map(|(t, f)| (t.as_str(), f.as_str())).collect();
        let now: BTreeMap<&str, &str> = tensors.iter().copied().collect();
        if known == now && total == was {
            return Ok(self.bytes.clone());
        }
        let mut text: serde_json::Value = json::parse(&self.path, &self.bytes)?;
        text["weight_map"] = serde_json::to_value(now).expect("a map of strings");
        if let Some(size) = text.get_mut("metadata").and_then(|m| m.get_mut("total_size")) {
            *size = total.into();
        }
        let mut bytes = serde_json::to_vec_pretty(&text).expect("the JSON that was read");
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// Whether a name stays in its folder, on every system.
fn is_plain(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        && !file.contains(|c: char| "/\\:".contains(c) || c.is_control())
}

/// Bytes that so many elements take, which a checked header has found to be whole.
pub(super) fn size_of(dtype: Dtype, shape: &[usize]) -> u64 {
    (shape.iter().product::<usize>() as u64) * dtype.bitsize() as u64 / 8
}

/// Tensors and files, no tensor twice.
struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WeightMapVisitor;

        impl<'de> Visitor<'de> for WeightMapVisitor {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map from tensors to files")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let (mut entries, mut seen) = (Vec::new(), HashSet::new());
                while let Some((tensor, file)) = map.next_entry::<String, String>()? {
                    if !seen.insert(tensor.clone()) {
                        return Err(A::Error::custom(format!("weight_map has {} twice", quote(&tensor))));
                    }
                    entries.push((tensor, file));
                }
                Ok(WeightMap(entries))
            }
        }

        deserializer.deserialize_map(WeightMapVisitor)
    }
}
