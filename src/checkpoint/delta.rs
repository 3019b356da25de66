//! A delta: only the tensors of a checkpoint that differ from those of another, its base.
//!
//! It is a safetensors file with the whole checkpoint's `__metadata__`, and in it what it takes to put the two together
//! again: the base's files with their SHA-256, and which of the base's tensors the whole checkpoint lacks. In place of weights that
//! differ by a product of low rank alone, it may hold the two factors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::low_rank::{AdaptersOf, LowRank};
use super::save::{encode, write_like};
use super::shards::size_of;
use super::write::{Planned, Values, arrange, write_file};
use super::{Checkpoint, Dtype};
use crate::atomic::AtomicFile;
use crate::error::{Help, Result};
use crate::model::Adapters;

/// The metadata entry by which a file is a delta: a [`Delta`] as JSON.
const KEY: &str = "tpgm.delta";

/// What a delta says of its base.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delta {
    /// SHA-256 of each of the base's files, in hexadecimal, by the name that it had.
    pub base_sha256: BTreeMap<String, String>,
    /// Tensors of the base that the whole checkpoint does not have.
    pub removed: BTreeSet<String>,
    /// The weights that it has adapters for in place of their values, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapters: Option<AdaptersOf>,
}

impl Delta {
    /// What `checkpoint` says of its base, where it is a delta.
    ///
    /// # Errors
    /// Where it says so and can't be understood.
    pub fn of(checkpoint: &Checkpoint) -> Result<Option<Delta>> {
        let parse = |text: &String| {
            serde_json::from_str(text)
                .map_err(|e| checkpoint.error(format!("metadata {KEY}: {}", super::json::quote(&e.to_string()))))
        };
        checkpoint.metadata().get(KEY).map(parse).transpose()
    }

    /// The base's files in words, such as "model.safetensors".
    pub fn base(&self) -> String {
        let names: Vec<&str> = self.base_sha256.keys().map(String::as_str).collect();
        match names.as_slice() {
            [] => "nothing".into(),
            [one] => super::json::quote(one),
            [first, .., last] => super::json::quote(&format!("{first} to {last}")),
        }
    }
}

/// How many tensors a delta stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaSize {
    /// Tensors that differ from the base's.
    pub changed: usize,
    /// Those of them that have an adapter in the place of their values.
    pub adapted: usize,
    /// Tensors of the whole checkpoint.
    pub of: usize,
    /// Bytes that the tensors of the delta take.
    pub bytes: u64,
}

/// Writes the tensors of `whole` that differ from those of `base` in type, shape or any bit. [`apply_delta`] gives back
/// `whole`.
///
/// # Errors
/// Where a file can't be read, or `path` not be written; and where `base` is a delta itself.
pub fn write_delta(path: impl AsRef<Path>, base: &Checkpoint, whole: &Checkpoint) -> Result<DeltaSize> {
    write_with(path.as_ref(), base, whole, None)
}

/// As [`write_delta`], with `adapters` in the place of the weights that have one. [`apply_delta`] gives back `whole`, but for what
/// rounding does to the weights that have one.
///
/// # Errors
/// As [`write_delta`], and where an adapter's weight is in `base` or `whole` not, or of different shapes.
pub fn write_adapters(
    path: impl AsRef<Path>,
    base: &Checkpoint,
    whole: &Checkpoint,
    adapters: &LowRank,
) -> Result<DeltaSize> {
    write_with(path.as_ref(), base, whole, Some(adapters))
}

fn write_with(path: &Path, base: &Checkpoint, whole: &Checkpoint, adapters: Option<&LowRank>) -> Result<DeltaSize> {
    refuse(base)?;
    let (adapted, rank) = adapters.map_or((&[][..], 1), |low| (low.of.as_slice(), low.rank));
    let mut parts = BTreeMap::new();
    for one in adapted {
        let shape = |file: &Checkpoint| file.tensor(&one.target).map(|t| t.shape.clone());
        if shape(base).is_none() || shape(base) != shape(whole) {
            return Err(base.error(format!("tensor {} is not of the shape that its adapter goes with", one.target)));
        }
        let [a, b] = Adapters::names(&one.target);
        parts.insert(a, ([rank, one.a.len() / rank], one.a.as_slice()));
        parts.insert(b, ([one.b.len() / rank, rank], one.b.as_slice()));
    }
    let mut plan = Vec::new();
    for tensor in whole.tensors().iter().filter(|tensor| adapted.iter().all(|one| one.target != tensor.name)) {
        if parts.contains_key(&tensor.name) {
            return Err(whole.error(format!("has a tensor {} of its own", tensor.name)));
        }
        if !whole.same_tensor(&tensor.name, base)? {
            plan.push(Planned::new(&tensor.name, tensor.dtype, &tensor.shape));
        }
    }
    let changed = plan.len() + adapted.len();
    plan.extend(parts.iter().map(|(name, (shape, _))| Planned::new(name, Dtype::F32, shape)));
    arrange(&mut plan, None);
    let removed = base.tensors().iter().filter(|t| whole.tensor(&t.name).is_none());
    let adapters = adapters.map(|low| AdaptersOf {
        rank,
        alpha: low.alpha,
        targets: adapted.iter().map(|one| one.target.clone()).collect(),
    });
    let delta = Delta { base_sha256: base.sha256()?, removed: removed.map(|t| t.name.clone()).collect(), adapters };
    let mut metadata = whole.metadata().clone();
    metadata.insert(KEY.into(), serde_json::to_string(&delta).expect("maps and sets of strings"));
    let body = &mut |t: &Planned, file: &mut AtomicFile| match parts.get(t.name) {
        Some((_, values)) => file.write(&Values::F32(values).bytes()),
        None => whole.stream(t.name, |bytes| file.write(bytes)),
    };
    write_file(path, &plan, &metadata, body)?.commit()?;
    let bytes = plan.iter().map(|t| size_of(t.dtype, t.shape)).sum();
    Ok(DeltaSize { changed, adapted: adapted.len(), of: whole.tensors().len(), bytes })
}

/// Writes the whole checkpoint that `delta` was made of: its tensors, the weights that it has adapters for, which are summed in
/// f64 and rounded once, and all others from `base`, as one file or, as [`super::save`] tells, in the base's shards.
///
/// # Errors
/// Where `delta` is none or belongs to another base, by SHA-256; where a file can't be read, or `path` not be written.
pub fn apply_delta(path: impl AsRef<Path>, base: &Checkpoint, delta: &Checkpoint) -> Result<DeltaSize> {
    refuse(base)?;
    let Some(about) = Delta::of(delta)? else {
        return Err(delta.error("not a delta (no tpgm.delta in its metadata): it may be a whole model already"));
    };
    let found = base.sha256()?;
    // By content alone: files are renamed all the time.
    let sums = |files: &BTreeMap<String, String>| files.values().cloned().collect::<BTreeSet<_>>();
    if sums(&found) != sums(&about.base_sha256) {
        let start = |files: &BTreeMap<String, String>| {
            files.values().next().map_or_else(String::new, |sum| sum.chars().take(12).collect::<String>())
        };
        return Err(delta.error(format!(
            "belongs to another base: {} with SHA-256 {}..., but {} has {}...",
            about.base(),
            start(&about.base_sha256),
            base.path().display(),
            start(&found)
        )));
    }
    let adapters = about.adapters.unwrap_or_default();
    let kept = base.tensors().iter().filter(|t| delta.tensor(&t.name).is_none() && !about.removed.contains(&t.name));
    let own = delta.tensors().iter().filter(|t| !adapters.is_part(&t.name));
    let plan: Vec<Planned> = kept.chain(own.clone()).map(|t| Planned::new(&t.name, t.dtype, &t.shape)).collect();
    let mut metadata = delta.metadata().clone();
    metadata.remove(KEY);
    let adapted = adapters.targets.len();
    let changed = own.count() + adapted;
    let size = DeltaSize { changed, adapted, of: plan.len(), bytes: delta.data_len() };
    write_like(path.as_ref(), base, plan, &metadata, &mut |t, file| {
        if adapters.targets.contains(t.name) {
            let values = adapters.merged(t.name, base, delta)?;
            let bytes = encode(t.dtype, &values)
                .map_err(|what| delta.error(format!("tensor {} {what} with its adapter", t.name)))?;
            return file.write(&bytes);
        }
        let from = if delta.tensor(t.name).is_some() { delta } else { base };
        from.stream(t.name, |bytes| file.write(bytes))
    })?;
    Ok(size)
}

/// A delta where a whole model is wanted.
pub(super) fn refuse(checkpoint: &Checkpoint) -> Result<()> {
    match Delta::of(checkpoint)? {
        Some(delta) => {
            let (base, path) = (delta.base(), checkpoint.path().into());
            let error = checkpoint.error(format!("a delta, which holds only what differs from {base}"));
            Err(error.with_help(Help::Delta { base, delta: path }))
        }
        None => Ok(()),
    }
}

/// Where the delta of `path` stands: `best.delta.safetensors` beside `best.safetensors`.
pub fn delta_path(path: &Path) -> PathBuf {
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    path.with_file_name(format!("{}.delta.safetensors", name.strip_suffix(".safetensors").unwrap_or(&name)))
}
