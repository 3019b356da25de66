//! Saving: a checkpoint again with some tensors replaced, or a model of our own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::Dtype;

use super::file::{Checkpoint, is_float};
use super::shards::{INDEX, Index, size_of};
use super::write::{Planned, Values, arrange, write_file, write_safetensors};
use super::{Recognised, Weight, tpgm_metadata};
use crate::atomic::AtomicFile;
use crate::error::{Error, Result};

/// Saves `source` under `path` with some tensors `replaced` (by their names in the file: shape and values). All names
/// and types stay: values go back to F16 or BF16 where the source has them so, rounded to nearest even. Tensors that
/// are not replaced are carried along byte for byte, and `extra_metadata` is added to what `__metadata__` holds. A
/// tensor that is new takes the type that all the source's floating-point tensors share, else F32. The same input
/// gives the same bytes, and `path` may be the source itself.
///
/// The output is one file, with the metadata of all shards; only where the source has shards and `path` does not
/// end in `.safetensors`, it is a folder of the same shards under the same names, each with its own metadata, and their
/// index. New tensors go into the last shard, and `extra_metadata` into the first.
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
    let mut float_dtypes = source.tensors().iter().map(|t| t.dtype).filter(|&d| is_float(d));
    let shared = float_dtypes.next().filter(|&first| float_dtypes.all(|d| d == first)).unwrap_or(Dtype::F32);

    let mut plan: Vec<Planned> = Vec::new();
    for tensor in source.tensors().iter().filter(|t| !replaced.contains_key(&t.name)) {
        plan.push(Planned::new(&tensor.name, tensor.dtype, &tensor.shape));
    }
    let path = path.as_ref();
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

    write_like(path, source, plan, &metadata, &mut |planned, file| match replaced.get(planned.name) {
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

/// Writes tensors in the form that `source` has, as [`save`] tells; `metadata` is that of one file.
pub(super) fn write_like(
    path: &Path,
    source: &Checkpoint,
    mut plan: Vec<Planned>,
    metadata: &BTreeMap<String, String>,
    body: &mut impl FnMut(&Planned, &mut AtomicFile) -> Result<()>,
) -> Result<()> {
    match source.index() {
        Some(index) if path.extension().is_none_or(|ending| ending != "safetensors") => {
            let made = !path.exists();
            if made {
                fs::create_dir(path).map_err(|e| Error::io(path, "cannot create this folder", e))?;
            }
            let done = write_shards(path, source, index, &plan, metadata, body);
            if made && done.is_err() {
                // Fails where something has been written, which then stays.
                let _ = fs::remove_dir(path);
            }
            done
        }
        index => {
            arrange(&mut plan, index.is_none().then(|| source.tensors()));
            write_file(path, &plan, metadata, body)?.commit()
        }
    }
}

fn write_shards(
    folder: &Path,
    source: &Checkpoint,
    index: &Index,
    plan: &[Planned],
    metadata: &BTreeMap<String, String>,
    body: &mut impl FnMut(&Planned, &mut AtomicFile) -> Result<()>,
) -> Result<()> {
    if folder.join("model.safetensors").exists() {
        let what = "holds a model.safetensors, which would be read before any shards: give another folder";
        return Err(Error::checkpoint(folder, what));
    }
    let last = source.shards().len() - 1;
    let mut files = Vec::new();
    let mut tensors = Vec::new();
    let names: Vec<String> = source.shards().iter().map(|shard| shard.name()).collect();
    for (s, shard) in source.shards().iter().enumerate() {
        let is_here = |t: &&Planned| source.shard_of(t.name).unwrap_or(last) == s;
        let mut here: Vec<Planned> = plan.iter().filter(is_here).copied().collect();
        arrange(&mut here, Some(&shard.header.tensors));
        tensors.extend(here.iter().map(|t| (t.name, names[s].as_str())));
        let mut own = shard.header.metadata.clone();
        if s == 0 {
            let new = metadata.iter().filter(|(key, value)| source.metadata().get(*key) != Some(value));
            own.extend(new.map(|(key, value)| (key.clone(), value.clone())));
        }
        files.push(write_file(&folder.join(&names[s]), &here, &own, body)?);
    }
    let total = plan.iter().map(|t| size_of(t.dtype, t.shape)).sum();
    let text = index.updated(&tensors, total, source.data_len())?;
    let name = index.path.file_name().unwrap_or(format!("model{INDEX}").as_ref()).to_os_string();
    let mut file = AtomicFile::create(folder.join(name))?;
    file.write(&text)?;
    files.push(file);
    // Only now that all of them are whole; the index last.
    files.into_iter().try_for_each(AtomicFile::commit)
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
pub(super) fn encode(dtype: Dtype, values: &[f32]) -> Result<Vec<u8>, String> {
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
