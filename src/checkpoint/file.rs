//! Opening a checkpoint: what is in it, and its tensors as numbers.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};
use safetensors::tensor::Dtype;

use super::header::{self, Header, TensorInfo};
use crate::error::{Error, Result};

/// Bytes read at a time; a multiple of every element's size.
const CHUNK: usize = 1 << 20;

/// A safetensors file that was found whole, with the `config.json` beside it where there is one.
///
/// Tensors are read when asked for. They are read and not mapped: a file that somebody cuts short meanwhile is then
/// an error, where a mapping would end the process.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    file: Mutex<File>,
    /// Where the tensors begin in the file.
    data_start: u64,
    header: Header,
    index: HashMap<String, usize>,
    config: Option<(PathBuf, serde_json::Value)>,
}

impl Checkpoint {
    /// Opens a `.safetensors` file, or a folder with `model.safetensors` and perhaps `config.json`. The file
    /// `model.safetensors` named directly has its `config.json` read too; under any other name a `config.json` beside
    /// it may belong to something else.
    ///
    /// # Errors
    /// Where the file can't be read, is no safetensors file, is truncated or contradicts itself; and where
    /// `config.json` is no JSON.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let mut path = path.as_ref().to_path_buf();
        let mut kind = fs::metadata(&path).map_err(|e| Error::io(&path, "cannot read", e))?;
        if kind.is_dir() {
            let inside = path.join("model.safetensors");
            kind = fs::metadata(&inside).map_err(|_| Error::checkpoint(&path, no_model_in(&path)))?;
            path = inside;
        }
        if !kind.is_file() {
            return Err(Error::checkpoint(&path, "neither a file nor a folder with model.safetensors"));
        }
        let wrong = |what: String| Error::checkpoint(&path, what);
        let unreadable = |e| Error::io(&path, "cannot read", e);

        let mut file = File::open(&path).map_err(unreadable)?;
        let len = file.metadata().map_err(unreadable)?.len();
        let mut first = Vec::new();
        (&mut file).take(64).read_to_end(&mut first).map_err(unreadable)?;
        let header_len = header_len(&first, len).map_err(wrong)?;
        let mut json = vec![0; header_len as usize];
        file.seek(SeekFrom::Start(8)).and_then(|_| file.read_exact(&mut json)).map_err(unreadable)?;
        let header = header::parse(&json, len - 8 - header_len).map_err(wrong)?;
        let index = header.tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();

        let beside =
            (path.file_name().is_some_and(|n| n == "model.safetensors")).then(|| path.with_file_name("config.json"));
        let config = beside.filter(|p| p.exists()).map(read_config).transpose()?;
        Ok(Self { path, file: Mutex::new(file), data_start: 8 + header_len, header, index, config })
    }

    /// The `.safetensors` file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor, in the order of the file's bytes.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    /// The tensor of that name in the file.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&i| &self.header.tensors[i])
    }

    /// The header's `__metadata__`; empty where there is none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// The `config.json` beside the weights.
    pub fn config(&self) -> Option<&serde_json::Value> {
        self.config.as_ref().map(|(_, value)| value)
    }

    /// Where [`Self::config`] was read from.
    pub fn config_path(&self) -> Option<&Path> {
        self.config.as_ref().map(|(path, _)| path.as_path())
    }

    /// An error about this file.
    pub fn error(&self, what: impl Into<String>) -> Error {
        Error::checkpoint(&self.path, what)
    }

    /// A tensor of floating-point numbers as f32, in row-major order.
    ///
    /// # Errors
    /// Where the tensor is missing or not F32, F16, BF16 or F64, where a value is NaN or infinite (as f32), and where
    /// the file can't be read.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let info = self.expect(name)?;
        if !is_float(info.dtype) {
            return Err(self.error(format!("tensor {name} is {}, weights must be F32, F16, BF16 or F64", info.dtype)));
        }
        let mut values: Vec<f32> = Vec::with_capacity(info.shape.iter().product());
        self.stream(name, |bytes| {
            match info.dtype {
                Dtype::F64 => values.extend(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32)),
                Dtype::F16 => values.extend(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
                Dtype::BF16 => values.extend(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
                _ => values.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            }
            Ok(())
        })?;
        match values.iter().position(|v| !v.is_finite()) {
            Some(i) => {
                Err(self.error(format!("tensor {name} has {} at element {i}: the weights are damaged", values[i])))
            }
            None => Ok(values),
        }
    }

    /// A tensor of type I32, such as labels.
    ///
    /// # Errors
    /// Where the tensor is missing or of another type, and where the file can't be read.
    pub fn read_i32(&self, name: &str) -> Result<Vec<i32>> {
        let mut values = Vec::new();
        self.expect_dtype(name, Dtype::I32)?;
        self.stream(name, |bytes| {
            values.extend(bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)));
            Ok(())
        })?;
        Ok(values)
    }

    /// A tensor of type U32.
    ///
    /// # Errors
    /// Where the tensor is missing or of another type, and where the file can't be read.
    pub fn read_u32(&self, name: &str) -> Result<Vec<u32>> {
        let mut values = Vec::new();
        self.expect_dtype(name, Dtype::U32)?;
        self.stream(name, |bytes| {
            values.extend(bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)));
            Ok(())
        })?;
        Ok(values)
    }

    /// A tensor of type U64, such as the counters of a training state.
    ///
    /// # Errors
    /// Where the tensor is missing or of another type, and where the file can't be read.
    pub fn read_u64(&self, name: &str) -> Result<Vec<u64>> {
        let mut values = Vec::new();
        self.expect_dtype(name, Dtype::U64)?;
        self.stream(name, |bytes| {
            values.extend(bytes.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)));
            Ok(())
        })?;
        Ok(values)
    }

    /// The bytes of a tensor, as they stand in the file, piece by piece.
    pub(super) fn stream(&self, name: &str, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.expect(name)?;
        let (start, end) = self.header.ranges[self.index[name]];
        let mut buffer = vec![0; CHUNK.min((end - start) as usize)];
        let mut at = start;
        while at < end {
            let piece = &mut buffer[..CHUNK.min((end - at) as usize)];
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(self.data_start + at))
                .and_then(|_| file.read_exact(piece))
                .map_err(|e| Error::io(&self.path, format!("cannot read tensor {name}"), e))?;
            drop(file);
            each(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn expect(&self, name: &str) -> Result<&TensorInfo> {
        self.tensor(name).ok_or_else(|| self.error(format!("tensor {name} is missing")))
    }

    fn expect_dtype(&self, name: &str, dtype: Dtype) -> Result<()> {
        match self.expect(name)?.dtype {
            found if found == dtype => Ok(()),
            found => Err(self.error(format!("tensor {name} is {found}, expected {dtype}"))),
        }
    }
}

/// Whether a tensor of this type can hold weights that we read.
pub(super) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64)
}

/// The header's length, from the `first` bytes of a file of `len`. The error is what to tell the user.
fn header_len(first: &[u8], len: u64) -> Result<u64, String> {
    let not_ours = |otherwise: String| Err(guess(first).map_or(otherwise, str::to_string));
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

/// What a file is that is no safetensors file, by its first bytes.
fn guess(first: &[u8]) -> Option<&'static str> {
    match first {
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => {
            Some("not a safetensors file (a pickled .pt/.pth checkpoint? convert it first)")
        }
        [0x89, b'H', b'D', b'F', ..] => Some("not a safetensors file (an HDF5 checkpoint? convert it first)"),
        [b'<', ..] => Some("not a safetensors file but a web page; download it again"),
        _ if first.starts_with(b"version https://git-lfs") => {
            Some("not the weights but a Git LFS pointer to them; run git lfs pull")
        }
        _ => None,
    }
}

/// Why a folder is no checkpoint, from what else lies in it.
fn no_model_in(folder: &Path) -> String {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = names.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    if names.iter().any(|n| n.ends_with(".safetensors.index.json")) {
        return "the checkpoint is split over several files; merge them into one model.safetensors".into();
    }
    let ending = |endings: &[&str]| names.iter().find(|n| endings.iter().any(|e| n.ends_with(e)));
    if let Some(other) = ending(&[".safetensors"]) {
        return format!("no model.safetensors in this folder; name the file itself, such as {other}");
    }
    match ending(&[".bin", ".pt", ".pth", ".ckpt"]) {
        Some(other) => format!("no model.safetensors in this folder; convert {other} to safetensors first"),
        None => "no model.safetensors in this folder".into(),
    }
}

fn read_config(path: PathBuf) -> Result<(PathBuf, serde_json::Value)> {
    let text = fs::read(&path).map_err(|e| Error::io(&path, "cannot read", e))?;
    match serde_json::from_slice(&text) {
        Ok(value) => Ok((path, value)),
        Err(e) => Err(Error::checkpoint(path, format!("not valid JSON: {e}"))),
    }
}
