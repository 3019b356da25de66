//! Opening a checkpoint: its contents, and its tensors as numbers.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::Dtype;

use super::header::TensorInfo;
use super::shards::{CHUNK, INDEX, Index, Shard};
use super::{foreign, hub, json};
use crate::error::{Error, Result};

/// What a folder's checkpoint is called, whole and in shards.
const MODEL: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];
/// What OpenCLIP calls it, which has its configuration in a file of its own.
const OPEN_CLIP: &str = "open_clip_model.safetensors";

/// A checkpoint that was found whole: a safetensors file, or the shards of one with their index; with the
/// `config.json` beside it if there is one.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    shards: Vec<Shard>,
    index: Option<Index>,
    tensors: Vec<TensorInfo>,
    /// Which shard holds each of `tensors`, and its place among that shard's own.
    places: Vec<(usize, usize)>,
    by_name: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
    config: Option<(PathBuf, serde_json::Value)>,
}

impl Checkpoint {
    /// Opens a `.safetensors` file; or a folder with `model.safetensors`, or else with `model.safetensors.index.json`
    /// and the shards that it names; or else with OpenCLIP's `open_clip_model.safetensors`; or such an index itself. A `config.json` beside a file or index of these names
    /// is read too; beside any other name it may belong to something else. `hf://OWNER/NAME` and `hf://OWNER/NAME@REVISION` are
    /// models of the Hugging Face hub: they are opened in its cache, fetched first if they are not there.
    ///
    /// # Errors
    /// Where a file can't be read, is no safetensors file (what it is, then), is truncated or contradicts itself;
    /// where an index names a file outside of its folder, or a shard or tensor that is not there, or where two shards
    /// hold the same tensor; and where a JSON file is none. Where a model of the hub is neither in the cache nor to be had.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut path = hub::resolve(path)?.unwrap_or_else(|| path.to_path_buf());
        let kind = fs::metadata(&path).map_err(|e| match foreign::hub_name(&path) {
            Some(name) if e.kind() == ErrorKind::NotFound => Error::checkpoint(&path, foreign::not_here(&name)),
            _ => Error::io(&path, "cannot read", e),
        })?;
        if kind.is_dir() {
            let names = MODEL.iter().chain([&OPEN_CLIP]);
            let inside = names.map(|name| path.join(name)).find(|inside| inside.exists());
            path = inside.ok_or_else(|| Error::checkpoint(&path, foreign::no_model_in(&path)))?;
        }
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let (shards, index) = if name.ends_with(INDEX) {
            let index = Index::read(path.clone())?;
            (index.open_shards()?, Some(index))
        } else {
            if let Some(index) = index_beside(&path, &name) {
                let what = format!("one shard of several; give the folder, or {index}");
                return Err(Error::checkpoint(&path, what));
            }
            (vec![Shard::open(path.clone())?], None)
        };
        let (mut tensors, mut places, mut metadata) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (s, shard) in shards.iter().enumerate() {
            places.extend((0..shard.header.tensors.len()).map(|i| (s, i)));
            tensors.extend_from_slice(&shard.header.tensors);
            for (key, value) in &shard.header.metadata {
                metadata.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        let by_name = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        let is_model = MODEL.contains(&name.as_str());
        let beside = is_model.then(|| path.with_file_name("config.json"));
        let config = beside.filter(|p| p.exists()).map(read_config).transpose()?;
        Ok(Self { path, shards, index, tensors, places, by_name, metadata, config })
    }

    /// The `.safetensors` file, or the index of the shards.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The `.safetensors` files: one, or the shards sorted by name.
    pub fn files(&self) -> Vec<&Path> {
        self.shards.iter().map(|shard| shard.path.as_path()).collect()
    }

    /// Every tensor, in the order of the file's bytes; shard after shard.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of that name in the file.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&i| &self.tensors[i])
    }

    /// The header's `__metadata__`; empty without any. Of shards, all that they have: the first counts where
    /// they differ.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Bytes of all tensors.
    pub fn data_len(&self) -> u64 {
        self.shards.iter().map(Shard::data_len).sum()
    }

    /// The `config.json` beside the weights.
    pub fn config(&self) -> Option<&serde_json::Value> {
        self.config.as_ref().map(|(_, value)| value)
    }

    /// Where [`Self::config`] was read from.
    pub fn config_path(&self) -> Option<&Path> {
        self.config.as_ref().map(|(path, _)| path.as_path())
    }

    /// SHA-256 of each file by its name.
    ///
    /// # Errors
    /// Where a file can't be read.
    pub fn sha256(&self) -> Result<BTreeMap<String, String>> {
        self.shards.iter().map(|shard| Ok((shard.name(), shard.sha256()?))).collect()
    }

    pub(super) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    pub(super) fn index(&self) -> Option<&Index> {
        self.index.as_ref()
    }

    /// Which of the shards holds a tensor.
    pub(super) fn shard_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).map(|&i| self.places[i].0)
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
        let mut values: Vec<f32> = Vec::new();
        let count = info.shape.iter().product();
        values
            .try_reserve_exact(count)
            .map_err(|_| self.error(format!("tensor {name} has {count} values, more than fit into memory")))?;
        self.stream(name, |bytes| {
            match info.dtype {
                Dtype::F64 => values.extend(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32)),
                Dtype::F16 => values.extend(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
                Dtype::BF16 => values.extend(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
                _ => values.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            }
            Ok(())
        })?;
        let Some(first) = values.iter().position(|v| !v.is_finite()) else { return Ok(values) };
        let bad = values.iter().filter(|v| !v.is_finite()).count();
        Err(self.error(format!(
            "tensor {name} has {} at element {first} ({bad} of its {count} values are no finite numbers): the weights \
             are damaged",
            values[first]
        )))
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
        let (shard, i) = self.places[self.by_name[name]];
        let (shard, mut at, len) = (&self.shards[shard], 0, self.shards[shard].tensor_len(i));
        let mut buffer = vec![0; CHUNK.min(len as usize)];
        while at < len {
            let piece = &mut buffer[..CHUNK.min((len - at) as usize)];
            shard.read_tensor(i, at, piece)?;
            each(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Whether a tensor has the same type, shape and bytes in another checkpoint.
    pub(super) fn same_tensor(&self, name: &str, other: &Checkpoint) -> Result<bool> {
        let (info, theirs) = (self.expect(name)?, other.tensor(name));
        if theirs != Some(info) {
            return Ok(false);
        }
        let (shard, i) = other.places[other.by_name[name]];
        let (mut buffer, mut at, mut same) = (Vec::new(), 0, true);
        self.stream(name, |bytes| {
            if same {
                buffer.resize(bytes.len(), 0);
                other.shards[shard].read_tensor(i, at, &mut buffer)?;
                same = buffer == bytes;
                at += bytes.len() as u64;
            }
            Ok(())
        })?;
        Ok(same)
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

/// The name of the index that a file named as one of several shards stands beside.
fn index_beside(path: &Path, name: &str) -> Option<String> {
    let (rest, count) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    let index = format!("{stem}{INDEX}");
    (is_number(number) && is_number(count) && path.with_file_name(&index).exists()).then_some(index)
}

fn read_config(path: PathBuf) -> Result<(PathBuf, serde_json::Value)> {
    let value = json::parse(&path, &json::read_bytes(&path)?)?;
    Ok((path, value))
}
