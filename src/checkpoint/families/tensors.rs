//! What families share in reading a file: its tensors under canonical names, checked one by one.

use std::collections::{BTreeMap, BTreeSet};

use super::Prefixes;
use super::names::{self, Table};
use crate::checkpoint::Note;
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::{Checkpoint, is_float};
use crate::checkpoint::header::TensorInfo;
use crate::error::{Error, Help, Result, Setting};

/// The file's tensors under their canonical names.
pub(super) struct Tensors<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) by_name: BTreeMap<String, &'a TensorInfo>,
    /// Tensors under the family's prefix for which it has no name, without that prefix.
    pub(super) unnamed: BTreeMap<&'a str, &'a TensorInfo>,
    prefixes: Prefixes<'a>,
    table: &'static Table,
    /// The file's names by ours, of a network whose names no table tells.
    renamed: BTreeMap<String, String>,
}

impl<'a> Tensors<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint, prefixes: Prefixes<'a>, table: &'static Table) -> Self {
        let (mut by_name, mut unnamed) = (BTreeMap::new(), BTreeMap::new());
        for tensor in checkpoint.tensors() {
            let inside = tensor.name.strip_prefix(prefixes.prefix);
            let outside =
                || tensor.name.strip_prefix(prefixes.outer).and_then(|name| names::canonical(table, name, true));
            // Of two tensors under one name the second has none.
            match inside.and_then(|name| names::canonical(table, name, false)).or_else(outside) {
                Some(name) if !by_name.contains_key(&name) => {
                    by_name.insert(name, tensor);
                }
                _ => unnamed.extend(inside.map(|name| (name, tensor))),
            }
        }
        Self { checkpoint, by_name, unnamed, prefixes, table, renamed: BTreeMap::new() }
    }

    /// Gives the tensors our names: pairs of ours and the one that each has now. All others are left without one.
    pub(super) fn rename(&mut self, pairs: Vec<(String, String)>) {
        let mut before = std::mem::take(&mut self.by_name);
        for (ours, now) in &pairs {
            self.by_name.extend(before.remove(now).map(|info| (ours.clone(), info)));
        }
        let prefix = self.prefixes.prefix;
        self.unnamed.extend(before.into_values().filter_map(|info| Some((info.name.strip_prefix(prefix)?, info))));
        self.renamed = pairs.into_iter().collect();
    }

    /// The whole name in the file that a canonical one has, or would have.
    pub(super) fn in_file(&self, name: &str) -> String {
        if let Some(name) = self.renamed.get(name) {
            return format!("{}{name}", self.prefixes.prefix);
        }
        match names::in_file(self.table, name) {
            Some((name, true)) => format!("{}{name}", self.prefixes.outer),
            Some((name, false)) => format!("{}{name}", self.prefixes.prefix),
            None => format!("{}{name}", self.prefixes.prefix),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whether any block has it: one that lacks it is then reported.
    pub(super) fn any(&self, ending: &str) -> bool {
        self.by_name.keys().any(|name| name.starts_with("blocks.") && name.ends_with(ending))
    }

    pub(super) fn get(&self, name: &str) -> Result<&'a TensorInfo> {
        let missing = || self.checkpoint.error(format!("tensor {} is missing", self.in_file(name)));
        self.by_name.get(name).copied().ok_or_else(missing)
    }

    /// The shape of a tensor of `N` dimensions, none of them 0.
    pub(super) fn dims<const N: usize>(&self, name: &str, expected: &str) -> Result<[usize; N]> {
        let info = self.get(name)?;
        match <[usize; N]>::try_from(info.shape.as_slice()) {
            Ok(shape) if !shape.contains(&0) => Ok(shape),
            _ => Err(self.error(info, format!("has shape {:?}, expected {expected}", info.shape))),
        }
    }

    pub(super) fn error(&self, info: &TensorInfo, what: impl AsRef<str>) -> Error {
        self.checkpoint.error(format!("tensor {} {}", info.name, what.as_ref()))
    }

    /// The name in the file of each of `parameters`: every one is there, in its shape, as floating-point numbers.
    pub(super) fn names_of(&self, parameters: Vec<(String, Vec<usize>)>) -> Result<Vec<(String, String)>> {
        let mut names = Vec::new();
        for (name, shape) in parameters {
            let info = self.get(&name)?;
            if info.shape != shape {
                return Err(self.error(info, format!("has shape {:?}, expected {shape:?}", info.shape)));
            }
            if !is_float(info.dtype) {
                return Err(self.error(info, format!("is {}, weights must be F32, F16, BF16 or F64", info.dtype)));
            }
            names.push((name, info.name.clone()));
        }
        Ok(names)
    }

    /// The tensors of the file that are not `used`, sorted.
    pub(super) fn unused(&self, used: &BTreeSet<&str>) -> Vec<String> {
        let all = self.checkpoint.tensors().iter().map(|t| &t.name);
        let mut unused: Vec<String> = all.filter(|name| !used.contains(name.as_str())).cloned().collect();
        unused.sort();
        unused
    }
}

/// Whether a name without the tower's prefix is, by its first part, one of a tower's block, stem, norm or tokens. What training
/// puts beside a tower (a decoder, a predictor, another head) is not.
pub(super) fn of_tower(name: &str) -> bool {
    const PARTS: [&str; 20] = [
        "adapter",
        "attn",
        "block",
        "bn",
        "conv",
        "downsample",
        "embed",
        "encoder",
        "layer",
        "ln_",
        "lora_",
        "norm",
        "pool",
        "pos",
        "prompt",
        "rel_",
        "rope",
        "stem",
        "token",
        "transformer",
    ];
    const BESIDE: [&str; 9] =
        ["classifier", "decoder", "fc", "head", "mask_token", "momentum", "predictor", "pre_logits", "projector"];
    let first = name.split('.').next().unwrap_or(name);
    let first = if BESIDE.iter().any(|beside| first.starts_with(beside)) { "" } else { first };
    PARTS.iter().any(|part| first.contains(part))
}

/// What [`crate::checkpoint::Recognised::sources`] says where no file and no override tells.
pub(super) const ASSUMED: &str = "assumed";

/// The settings that change how images are made ready for a model.
const PREPROCESSING: &[Setting] = &[Setting::Mean, Setting::Std, Setting::Interpolation, Setting::CropPct];

/// The note for preprocessing that no file tells.
pub(super) fn preprocessing_assumed(what: &str) -> Note {
    Note { what: format!("preprocessing assumed: {what}"), settings: PREPROCESSING }
}

/// The error for a value of the caller's that does not fit.
pub(super) fn misfit(setting: Setting, what: impl Into<String>) -> Error {
    Error::Usage(what.into()).with_help(Help::Setting(setting))
}

/// The first that is said of a fact, which `sources` then attributes.
pub(super) fn first<T, const N: usize>(
    said: [(Option<T>, &str); N],
    sources: &mut BTreeMap<&'static str, String>,
    fact: &'static str,
) -> Option<T> {
    let (value, place) = said.into_iter().find_map(|(value, place)| Some((value?, place)))?;
    sources.insert(fact, place.into());
    Some(value)
}

/// Class names: our own metadata's, else the configuration's, if there is one for each of `outputs`.
pub(super) fn class_names(
    own: Option<Vec<String>>,
    facts: &Facts,
    outputs: usize,
    notes: &mut Vec<Note>,
) -> Option<Vec<String>> {
    match own {
        Some(list) if list.len() == outputs => Some(list),
        Some(list) => {
            let named = list.len();
            notes.push(format!("class names left out: the file has {named} of them for {outputs} outputs").into());
            None
        }
        None if outputs > 0 => facts.classes(outputs),
        None => None,
    }
}
