//! One file per family of checkpoints: how to know it, and how to read it.

use std::collections::{BTreeMap, BTreeSet};

use super::file::Checkpoint;
use super::json::quote;
use super::metadata;
use super::open_clip_config::OpenClipConfig;
use super::stem;
use super::timm_config::{Class, TimmConfig};
use super::torchvision_table::Weights;
use super::{Overrides, Recognised};
use crate::error::{Error, Help, Result, Setting};

mod convnext;
mod convnext_parts;
mod described;
mod efficientnet;
mod efficientnet_parts;
mod inputs;
mod layouts;
mod names;
mod open_clip;
mod regnet;
mod resnet;
mod resnet_parts;
mod resnet_pool;
mod resnetv2;
mod senet;
mod tensors;
pub(super) mod text;
mod timm_vit;
mod torchvision;
mod torchvision_mobile;
mod transformers;
mod transformers_dinov3;
mod transformers_vit;
mod vgg;
mod vit;
mod vit_facts;
mod vit_parts;
mod vit_positions;
mod vit_stem;

use tensors::misfit;

pub use layouts::Layout;

/// A family: add a file, and its constant to [`FAMILIES`].
pub(super) struct Family {
    /// Its short name, by which [`Overrides::family`] calls it.
    slug: &'static str,
    /// What users call it.
    name: &'static str,
    /// Its names, for the message that lists the supported families.
    layout: &'static str,
    /// Tensors without whose like it is another family.
    anchors: &'static [&'static str],
    /// How many of the anchors suffice: one fewer than all, so that a missing one is reported as missing.
    enough: usize,
    /// Its own prefixes, of which a file has one before the anchors; what stands beside them has none.
    bases: &'static [&'static str],
    /// What it computes of timm's; nothing if its names are not timm's.
    timm: &'static [Class],
    /// Reads a checkpoint whose names begin with the given prefix.
    read: fn(&Checkpoint, Prefixes, &Overrides) -> Result<Recognised>,
}

/// Where a model stands in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefixes<'a> {
    /// Before every name of the family's.
    prefix: &'a str,
    /// Before what stands beside them: the same without the family's own prefix.
    outer: &'a str,
}

const FAMILIES: &[Family] = &[
    timm_vit::FAMILY,
    transformers_vit::VIT,
    transformers_vit::VIT_5,
    transformers_dinov3::FAMILY,
    transformers_dinov3::IN_MEMORY,
    transformers::DINOV2,
    torchvision::VIT,
    open_clip::FAMILY,
    transformers::CLIP_VISION,
    transformers::SIGLIP_VISION,
    senet::FAMILY,
    resnet::FAMILY,
    resnet::TRANSFORMERS,
    regnet::FAMILY,
    regnet::TORCHVISION,
    convnext::FAMILY,
    convnext::TRANSFORMERS,
    convnext::DINOV3_IN_MEMORY,
    convnext::DINOV3,
    convnext::TORCHVISION,
    efficientnet::FAMILY,
    resnetv2::FAMILY,
    torchvision_mobile::EFFICIENTNET,
    torchvision_mobile::MOBILENET_V2,
    torchvision_mobile::MOBILENET_V3,
    torchvision_mobile::MNASNET,
    vgg::FAMILY,
    vgg::TORCHVISION,
];

/// What training wrappers and models with an image tower put before every name.
const WRAPPERS: [&str; 7] = ["module", "model", "_orig_mod", "timm_model", "base_encoder", "visual", "trunk"];

pub(super) fn recognise(checkpoint: &Checkpoint, overrides: &Overrides) -> Result<Recognised> {
    let asked = overrides.family.as_deref();
    if let Some(slug) = asked.filter(|slug| FAMILIES.iter().all(|f| f.slug != *slug)) {
        let mut slugs: Vec<&str> = FAMILIES.iter().map(|f| f.slug).collect();
        slugs.dedup();
        return Err(misfit(Setting::Family, format!("{slug} is no family: there are {}", slugs.join(", "))));
    }
    if asked.is_none() {
        check_architecture(checkpoint)?;
    }
    for family in FAMILIES.iter().filter(|f| asked.is_none_or(|slug| slug == f.slug)) {
        let prefixes = prefixes(checkpoint, family);
        match prefixes.as_slice() {
            [] => {}
            [prefix] => {
                let base = family.bases.iter().find(|base| fits(prefix, base)).unwrap_or(&"");
                let outer = prefix.strip_suffix(base).unwrap_or(prefix);
                let mut recognised = (family.read)(checkpoint, Prefixes { prefix, outer }, overrides)?;
                check_outputs(checkpoint, &recognised, overrides)?;
                stem::follow(&mut recognised, overrides)?;
                return projected(checkpoint, prefix, recognised);
            }
            several => {
                let several: Vec<String> = several.iter().map(|p| format!("{p:?}")).collect();
                return Err(checkpoint.error(format!(
                    "holds {} models, under the prefixes {}; keep one of them",
                    several.len(),
                    several.join(" and ")
                )));
            }
        }
    }
    match asked {
        Some(slug) => {
            let error = checkpoint.error(format!("is no {slug}: {}", unknown(checkpoint)));
            Err(error.with_help(Help::Setting(Setting::Family)))
        }
        None => match Weights::of(checkpoint.path()) {
            Some(weights) => {
                let name = weights.architecture();
                Err(checkpoint.error(format!("is torchvision's {name}, by the file's name: not supported yet")))
            }
            None => Err(checkpoint.error(unknown(checkpoint))),
        },
    }
}

/// An error where a configuration gives the head another number of outputs than the file has: its library starts a new head, or
/// none. What we have saved ourselves, and a head of another file, are told otherwise.
fn check_outputs(checkpoint: &Checkpoint, recognised: &Recognised, overrides: &Overrides) -> Result<()> {
    let (Some(root), outputs) = (checkpoint.config(), recognised.config.classes()) else { return Ok(()) };
    let ours = overrides.head.is_some() || metadata::read(checkpoint)?.preprocess.is_some();
    if ours || outputs == 0 || root.get("model_cfg").is_some() {
        return Ok(());
    }
    let count = |place: &str| root.pointer(place).filter(|value| !value.is_null());
    let (place, told) = if root.get("model_type").is_some() {
        // The names are the library's own for whatever it classifies with, and with none it classifies nothing.
        let Some(names) = root.get("id2label").and_then(serde_json::Value::as_object) else { return Ok(()) };
        ("the length of id2label", serde_json::Value::from(names.len()))
    } else {
        let places = ["/model_args/num_classes", "/num_classes", "/pretrained_cfg/num_classes"];
        let Some(place) = places.into_iter().find(|place| count(place).is_some()) else { return Ok(()) };
        (&place[1..], count(place).cloned().unwrap_or_default())
    };
    if told.as_u64() == Some(outputs as u64) {
        return Ok(());
    }
    let (place, told) = (place.replace('/', "."), quote(&told.to_string()));
    let path = checkpoint.config_path().unwrap_or(checkpoint.path());
    Err(Error::checkpoint(path, format!("{place} is {told}, but the file's head has {outputs} outputs")))
}

/// An error where OpenCLIP projects what leaves a tower of timm's, and the family does not.
fn projected(checkpoint: &Checkpoint, prefix: &str, recognised: Recognised) -> Result<Recognised> {
    let Some(outer) = prefix.strip_suffix("trunk.") else { return Ok(recognised) };
    match recognised.ignored.iter().find(|name| name.strip_prefix(outer).is_some_and(|name| name.starts_with("head.")))
    {
        Some(name) => {
            let what = "stands behind the tower (OpenCLIP), which is not supported yet for this family";
            Err(checkpoint.error(format!("tensor {name} {what}")))
        }
        None => Ok(recognised),
    }
}

/// An error for an architecture that nobody here computes, by its name, whichever tensor would be missing first.
fn check_architecture(checkpoint: &Checkpoint) -> Result<()> {
    let timm = match OpenClipConfig::of(checkpoint)? {
        Some(clip) => clip.trunk()?,
        None => Some(TimmConfig::of(checkpoint)),
    };
    let Some(timm) = timm else { return Ok(()) };
    let Some(class) = timm.class()? else { return Ok(()) };
    match FAMILIES.iter().find(|family| family.timm.iter().any(|own| own.name == class)) {
        Some(family) => timm.check(family.timm),
        None => Err(timm.other(class)),
    }
}

/// The wrapper prefixes under which enough of the family's anchors stand.
fn prefixes(checkpoint: &Checkpoint, family: &Family) -> Vec<String> {
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in checkpoint.tensors() {
        for anchor in family.anchors {
            if let Some(prefix) = tensor.name.strip_suffix(anchor).filter(|p| family.bases.iter().any(|b| fits(p, b))) {
                *found.entry(prefix).or_default() += 1;
            }
        }
    }
    found.into_iter().filter(|&(_, n)| n >= family.enough).map(|(p, _)| p.to_string()).collect()
}

/// Whether `prefix` is that of wrappers, if any, and `base`.
fn fits(prefix: &str, base: &str) -> bool {
    prefix.strip_suffix(base).is_some_and(is_wrapper)
}

pub(super) fn is_wrapper(prefix: &str) -> bool {
    match prefix.strip_suffix('.') {
        Some(parts) => parts.split('.').all(|part| WRAPPERS.contains(&part)),
        None => prefix.is_empty(),
    }
}

/// The message about an unknown file: its names, and the families that are supported.
fn unknown(checkpoint: &Checkpoint) -> String {
    let tensors = checkpoint.tensors();
    if tensors.is_empty() {
        return "holds no tensors".into();
    }
    // blocks.0 to blocks.11 say the same thing once.
    let pattern = |name: &str| {
        let parts = name.split('.').map(|p| if p.parse::<u32>().is_ok() { "N" } else { p });
        parts.collect::<Vec<_>>().join(".")
    };
    let patterns: Vec<String> = tensors.iter().map(|t| pattern(&t.name)).collect::<BTreeSet<_>>().into_iter().collect();
    // Spread over the alphabet, since neighbours in it tell the same.
    let shown = patterns.len().min(6);
    let seen: Vec<String> =
        (0..shown).map(|i| patterns[i * patterns.len() / shown].chars().take(60).collect()).collect();
    let more = if patterns.len() > shown { ", ..." } else { "" };
    let mut supported: Vec<&str> = FAMILIES.iter().map(|f| f.name).collect();
    supported.dedup();
    // Of the families that share most words with the file, a reader wants to see what else they have.
    let alike = |family: &Family| {
        let words = family.layout.split([',', ';', ' ']).map(|word| word.trim_matches(['.', '*']));
        words.filter(|word| word.len() > 3 && patterns.iter().any(|pattern| pattern.contains(word))).count()
    };
    let mut near: Vec<(usize, String)> =
        FAMILIES.iter().map(|f| (alike(f), format!("{} ({})", f.name, f.layout))).filter(|f| f.0 > 0).collect();
    near.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let near: Vec<String> = near.into_iter().take(3).map(|(_, family)| family).collect();
    let near = if near.is_empty() { String::new() } else { format!("; those with names alike: {}", near.join("; ")) };
    format!(
        "unknown architecture: its {} tensors have names such as {}{more}; supported: {}{near}",
        tensors.len(),
        seen.join(", "),
        supported.join(", ")
    )
}
