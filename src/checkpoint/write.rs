//! A safetensors file as bytes: its header, the order of its tensors, values of our own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, TensorInfo as RawInfo};
use serde::ser::{SerializeMap, Serializer};

use super::TensorInfo;
use crate::atomic::AtomicFile;
use crate::error::{Error, Result};

/// The values of a tensor to write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values<'a> {
    /// Type F32.
    F32(&'a [f32]),
    /// Type I32.
    I32(&'a [i32]),
    /// Type I64.
    I64(&'a [i64]),
    /// Type U32.
    U32(&'a [u32]),
    /// Type U64.
    U64(&'a [u64]),
}

macro_rules! values_from {
    ($($number:ty => $variant:ident),*) => {$(
        impl<'a> From<&'a [$number]> for Values<'a> {
            fn from(values: &'a [$number]) -> Self {
                Self::$variant(values)
            }
        }
    )*};
}
values_from!(f32 => F32, i32 => I32, i64 => I64, u32 => U32, u64 => U64);

impl Values<'_> {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::I32(_) => Dtype::I32,
            Self::I64(_) => Dtype::I64,
            Self::U32(_) => Dtype::U32,
            Self::U64(_) => Dtype::U64,
        }
    }

    fn len(self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::U64(v) => v.len(),
        }
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        match self {
            Self::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
}

/// Writes tensors (name, shape, values) to a new file: `&[f32]`, or [`Values`] where there are integers among them.
/// The same input gives the same bytes, in whatever order the tensors come.
///
/// # Errors
/// Where the folder can't be written or the disk is full; what stood at `path` then still stands there.
///
/// # Panics
/// Where a shape does not fit its values or a name stands twice.
pub fn write_safetensors<'a, V: Into<Values<'a>> + Copy>(
    path: impl AsRef<Path>,
    tensors: &[(String, Vec<usize>, V)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let mut values = BTreeMap::new();
    let mut plan = Vec::new();
    for (name, shape, v) in tensors {
        let v: Values = (*v).into();
        assert_eq!(shape.iter().product::<usize>(), v.len(), "write_safetensors: {name} has shape {shape:?}");
        assert!(values.insert(name.as_str(), v).is_none(), "write_safetensors: {name} stands twice");
        plan.push(Planned::new(name, v.dtype(), shape));
    }
    arrange(&mut plan, None);
    write_file(path.as_ref(), &plan, metadata, &mut |planned, file| file.write(&values[planned.name].bytes()))?.commit()
}

/// A tensor's entry in the header.
#[derive(Clone, Copy)]
pub(super) struct Planned<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: Dtype,
    pub(super) shape: &'a [usize],
}

impl<'a> Planned<'a> {
    pub(super) fn new(name: &'a str, dtype: Dtype, shape: &'a [usize]) -> Self {
        Self { name, dtype, shape }
    }

    /// The format's usual order: wide types first, so that each tensor is aligned to its own element; then by name.
    fn rank(&self) -> (Reverse<Dtype>, &'a str) {
        (Reverse(self.dtype), self.name)
    }
}

/// Puts tensors in the order that a file has: in the format's usual one, or in that of the file that they come from
/// where it has another. New tensors then stand where their type's alignment holds if the others' did.
pub(super) fn arrange(plan: &mut Vec<Planned>, source: Option<&[TensorInfo]>) {
    plan.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let Some(source) = source else { return };
    let ranks: Vec<_> = source.iter().map(|t| (Reverse(t.dtype), t.name.as_str())).collect();
    if ranks.is_sorted() {
        return;
    }
    let place: HashMap<&str, usize> = source.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
    let (mut kept, new): (Vec<Planned>, Vec<Planned>) = plan.drain(..).partition(|t| place.contains_key(t.name));
    kept.sort_by_key(|t| place[t.name]);
    for tensor in new {
        let at = kept.iter().position(|t| t.dtype < tensor.dtype).unwrap_or(kept.len());
        kept.insert(at, tensor);
    }
    *plan = kept;
}

/// Writes header and tensors in the order of the plan; `body` writes one tensor's bytes. The file still waits to be
/// committed.
pub(super) fn write_file(
    path: &Path,
    plan: &[Planned],
    metadata: &BTreeMap<String, String>,
    body: &mut impl FnMut(&Planned, &mut AtomicFile) -> Result<()>,
) -> Result<AtomicFile> {
    let mut file = AtomicFile::create(path)?;
    let header = header_json(plan, metadata).map_err(|e| Error::checkpoint(path, format!("not written: {e}")))?;
    file.write(&(header.len() as u64).to_le_bytes())?;
    file.write(&header)?;
    for planned in plan {
        body(planned, &mut file)?;
    }
    Ok(file)
}

/// The header, padded so that the tensors begin at a multiple of 8.
fn header_json(plan: &[Planned], metadata: &BTreeMap<String, String>) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut json);
    let mut map = serializer.serialize_map(None)?;
    if !metadata.is_empty() {
        map.serialize_entry("__metadata__", metadata)?;
    }
    let mut start = 0;
    for Planned { name, dtype, shape } in plan {
        let end = start + shape.iter().product::<usize>() * dtype.bitsize() / 8;
        map.serialize_entry(name, &RawInfo { dtype: *dtype, shape: shape.to_vec(), data_offsets: (start, end) })?;
        start = end;
    }
    map.end()?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok(json)
}
