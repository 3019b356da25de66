//! Writing safetensors: a checkpoint with some tensors replaced, or tensors of our own.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorInfo as RawInfo};
use serde::ser::{SerializeMap, Serializer};

use super::file::{Checkpoint, is_float};
use super::{Recognised, Weight, tpgm_metadata};
use crate::atomic::AtomicFile;
use crate::error::{Error, Result};

/// The values of a tensor to write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values<'a> {
    /// Type F32.
    F32(&'a [f32]),
    /// Type I32.
    I32(&'a [i32]),
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
values_from!(f32 => F32, i32 => I32, u32 => U32, u64 => U64);

impl Values<'_> {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::I32(_) => Dtype::I32,
            Self::U32(_) => Dtype::U32,
            Self::U64(_) => Dtype::U64,
        }
    }

    fn len(self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::U64(v) => v.len(),
        }
    }

    fn bytes(self) -> Vec<u8> {
        match self {
            Self::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
}

/// Saves `source` under `path` with some tensors `replaced` (by their names in the file: shape and values). All names
/// and types stay: values go back to F16 or BF16 where the source has them so, rounded to nearest even. Tensors that
/// are not replaced are carried along byte for byte, and `extra_metadata` is added to what `__metadata__` holds. A
/// tensor that is new takes the type that all the source's floating-point tensors share, else F32. The same input
/// gives the same bytes, and `path` may be the source itself.
///
/// # Errors
/// Where a value is not finite or does not fit its type, an integer tensor would be replaced, the source can't be
/// read or the folder can't be written. What stood at `path` then still stands there.
pub fn save(
    path: impl AsRef<Path>,
    source: &Checkpoint,
    replaced: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    extra_metadata: &BTreeMap<String, String>,
) -> Result<()> {
    save_counted(path, source, replaced, (&[], 0), extra_metadata)
}

/// As [`save`], with a number added to the source's `counters` (I64 or I32; of another type they stay as they are).
///
/// # Errors
/// As [`save`].
pub fn save_counted(
    path: impl AsRef<Path>,
    source: &Checkpoint,
    replaced: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    (counters, added): (&[String], u64),
    extra_metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    let mut float_dtypes = source.tensors().iter().map(|t| t.dtype).filter(|&d| is_float(d));
    let shared = float_dtypes.next().filter(|&first| float_dtypes.all(|d| d == first)).unwrap_or(Dtype::F32);

    let mut plan: Vec<Planned> = Vec::new();
    for tensor in source.tensors().iter().filter(|t| !replaced.contains_key(&t.name)) {
        plan.push(Planned::new(&tensor.name, tensor.dtype, &tensor.shape));
    }
    for (name, (shape, values)) in replaced {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "save: {name} has shape {shape:?}");
        let dtype = source.tensor(name).map_or(shared, |t| t.dtype);
        if !is_float(dtype) {
            return Err(source.error(format!("tensor {name} is {dtype} and can't take weights")));
        }
        plan.push(Planned::new(name, dtype, shape));
    }
    let mut metadata = source.metadata().clone();
    metadata.extend(extra_metadata.iter().map(|(k, v)| (k.clone(), v.clone())));

    write_planned(path, plan, &metadata, |planned, file| match replaced.get(planned.name) {
        Some((_, values)) => {
            let bytes = encode(planned.dtype, values)
                .map_err(|what| Error::checkpoint(path, format!("not written: tensor {} {what}", planned.name)))?;
            file.write(&bytes)
        }
        None if added > 0 && counters.iter().any(|c| c == planned.name) => {
            source.stream(planned.name, |bytes| file.write(&counted(planned.dtype, bytes, added)))
        }
        None => source.stream(planned.name, |bytes| file.write(bytes)),
    })
}

/// Writes a model that has no source: `weights` as F32 under timm's names, with all that is needed to run it again.
///
/// # Errors
/// Where a weight is not finite or the folder can't be written.
pub fn write_model(path: impl AsRef<Path>, recognised: &Recognised, weights: &[Weight]) -> Result<()> {
    let path = path.as_ref();
    for (name, _, values) in weights {
        encode(Dtype::F32, values)
            .map_err(|what| Error::checkpoint(path, format!("not written: tensor {name} {what}")))?;
    }
    let tensors: Vec<_> = weights.iter().map(|(n, shape, v)| (n.clone(), shape.clone(), v.as_slice())).collect();
    let mut metadata = tpgm_metadata(recognised);
    // Some loaders refuse a file that does not say whose tensor layout it follows.
    metadata.insert("format".into(), "pt".into());
    write_safetensors(path, &tensors, &metadata)
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
    write_planned(path.as_ref(), plan, metadata, |planned, file| file.write(&values[planned.name].bytes()))
}

/// A tensor's entry in the header.
struct Planned<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: &'a [usize],
}

impl<'a> Planned<'a> {
    fn new(name: &'a str, dtype: Dtype, shape: &'a [usize]) -> Self {
        Self { name, dtype, shape }
    }
}

/// Writes header and tensors; `body` writes one tensor's bytes.
fn write_planned(
    path: &Path,
    mut plan: Vec<Planned>,
    metadata: &BTreeMap<String, String>,
    mut body: impl FnMut(&Planned, &mut AtomicFile) -> Result<()>,
) -> Result<()> {
    // The format's usual order: wide types first, so that each tensor is aligned to its own element.
    plan.sort_by_key(|t| (Reverse(t.dtype), t.name));
    let mut file = AtomicFile::create(path)?;
    let header = header_json(&plan, metadata).map_err(|e| Error::checkpoint(path, format!("not written: {e}")))?;
    file.write(&(header.len() as u64).to_le_bytes())?;
    file.write(&header)?;
    for planned in &plan {
        body(planned, &mut file)?;
    }
    file.commit()
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

/// Integers with `added`.
fn counted(dtype: Dtype, bytes: &[u8], added: u64) -> Vec<u8> {
    match dtype {
        Dtype::I64 => {
            let sum = |b: &[u8; 8]| i64::from_le_bytes(*b).saturating_add_unsigned(added).to_le_bytes();
            bytes.as_chunks().0.iter().flat_map(sum).collect()
        }
        Dtype::I32 => {
            let added = u32::try_from(added).unwrap_or(u32::MAX);
            let sum = |b: &[u8; 4]| i32::from_le_bytes(*b).saturating_add_unsigned(added).to_le_bytes();
            bytes.as_chunks().0.iter().flat_map(sum).collect()
        }
        _ => bytes.to_vec(),
    }
}

/// The values in the file's type; the error says what is wrong with them.
fn encode(dtype: Dtype, values: &[f32]) -> Result<Vec<u8>, String> {
    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
        return Err(format!("has {} at element {i}", values[i]));
    }
    let (bytes, fits): (Vec<u8>, bool) = match dtype {
        Dtype::F64 => (values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect(), true),
        Dtype::F16 => {
            let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
            (halves.iter().flat_map(|h| h.to_le_bytes()).collect(), halves.iter().all(|h| h.is_finite()))
        }
        Dtype::BF16 => {
            let halves: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
            (halves.iter().flat_map(|h| h.to_le_bytes()).collect(), halves.iter().all(|h| h.is_finite()))
        }
        _ => (Values::F32(values).bytes(), true),
    };
    if fits { Ok(bytes) } else { Err(format!("has values too large for {dtype}")) }
}
