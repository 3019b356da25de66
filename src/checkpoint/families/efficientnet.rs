//! EfficientNet, MobileNetV2 and MobileNetV3 by timm's names, which are our own. Strides, activations and padding stand in no
//! tensor: they come from the architecture that the configuration names, or from what we have saved ourselves.

use std::collections::{BTreeMap, BTreeSet};

use super::efficientnet_parts::config;
use super::inputs::IMAGENET;
use super::tensors::{ASSUMED, Tensors, class_names, first, misfit, of_tower};
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::known::Keys;
use crate::checkpoint::metadata;
use crate::checkpoint::timm_config::Class;
use crate::checkpoint::zero_shot::ZeroShot;
use crate::checkpoint::{OVERRIDE, Overrides, Recognised};
use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;
use crate::error::{Error, Help, Result, Setting};
use crate::model::config::Pool;
use crate::model::{EfficientNetConfig, Network};

pub(super) const FAMILY: Family = Family {
    slug: "efficientnet",
    name: "EfficientNet",
    layout: "conv_stem, bn1, blocks.N.N.conv_pw, .conv_dw, .se.conv_reduce, .conv_pwl, conv_head, classifier",
    anchors: &["conv_stem.weight", "bn1.running_mean", "blocks.1.0.bn1.weight", "blocks.1.0.bn2.weight"],
    enough: 3,
    bases: &[""],
    timm: CLASSES,
    read,
};

const KEYS: Keys = Keys {
    followed: &[
        "act_layer",
        "block_args",
        "fix_stem",
        "global_pool",
        "head_bias",
        "in_chans",
        "norm_layer",
        "num_classes",
        "num_features",
        "pruned",
        "round_chs_fn",
        "se_from_exp",
        "se_layer",
        "stem_kernel_size",
        "stem_size",
    ],
    idle: &["drop_path_rate", "drop_rate"],
    only: &[("pad_type", &["\"same\""])],
};

const CLASSES: &[Class] = &[Class { name: "EfficientNet", keys: KEYS }, Class { name: "MobileNetV3", keys: KEYS }];

/// Where they were trained, unless their files say otherwise.
const IMAGE_SIZE: usize = 224;

fn read(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let tensors = Tensors::new(checkpoint, prefixes, &[]);
    for (given, setting, what) in [
        (overrides.heads.is_some(), Setting::Heads, "which has no attention heads"),
        (overrides.activation.is_some(), Setting::Activation, "whose activations its configuration tells"),
        (overrides.pool.is_some(), Setting::Pool, "which always takes the mean"),
    ] {
        if given {
            return Err(misfit(setting, format!("this model is an EfficientNet, {what}")));
        }
    }
    let facts = Facts::timm(checkpoint, CLASSES)?;
    if facts.pool()?.is_some_and(|pool| pool != Pool::Mean) {
        return Err(checkpoint.error(format!("{} gives another pooling than the mean: not supported", facts.file())));
    }
    let (own, mut notes, mut sources) = (metadata::read(checkpoint)?, Vec::new(), BTreeMap::new());
    let told = config(&tensors, &facts)?;
    let source = if told.is_some() { facts.file() } else { "metadata tpgm.config" };
    let Some(mut config) = told.or(own.efficientnet) else {
        return Err(checkpoint.error(
            "an EfficientNet's strides and activations stand in no tensor: timm's config.json, which names the \
             architecture, must stand beside it",
        ));
    };
    sources.insert("eps", source.into());
    let head = "classifier.weight";
    config.classes = if tensors.has(head) { tensors.dims::<2>(head, "[classes, width]")?[0] } else { 0 };
    config.head_bias = tensors.has("classifier.bias");
    let written = facts.input_size().map(|[height, width]| height.min(width) as usize);
    let said = [
        (overrides.image_size, OVERRIDE),
        (own.preprocess.as_ref().map(|p| p.image_size), "metadata tpgm.preprocess"),
        (written, facts.file()),
    ];
    let image_size = first(said, &mut sources, "image_size").unwrap_or_else(|| {
        sources.insert("image_size", ASSUMED.into());
        IMAGE_SIZE
    });
    config = config.at(image_size);
    if image_size < config.stride() {
        let stride = config.stride();
        let what = format!("images of {image_size} pixels are smaller than the network's stride of {stride}");
        let error = if overrides.image_size.is_some() { Error::Usage(what) } else { checkpoint.error(what) };
        return Err(error.with_help(Help::ImagesTooSmall { at_least: stride }));
    }
    let mut names = tensors.names_of(config.parameters())?;
    let buffers = tensors.names_of(config.buffers())?;
    let (counters, ignored) = leftover(&tensors, &config, &names, &buffers)?;
    let (mean, std) = IMAGENET;
    let (crop_mode, interpolation) = (CropMode::Center, Interpolation::Bicubic);
    let usual = Preprocess { image_size, crop_pct: 0.875, crop_mode, interpolation, mean, std, grey: false };
    let preprocess = match (own.preprocess, facts.preprocess(usual.clone(), &mut notes)?) {
        (Some(own), _) => {
            sources.insert("preprocess", "metadata tpgm.preprocess".into());
            Preprocess { image_size, ..own }
        }
        (None, written) => {
            sources.insert("preprocess", if written.is_some() { facts.preprocess_file() } else { ASSUMED }.into());
            written.unwrap_or(usual)
        }
    };
    let mut classes = class_names(own.classes, &facts, config.classes, &mut notes);
    config.normalize = overrides.normalize.or(own.normalize).unwrap_or(false);
    let head_names = ["weight", "bias"].map(|what| format!("{}classifier.{what}", prefixes.prefix));
    let mut head_file = None;
    if let Some(path) = &overrides.head {
        let zero_shot = ZeroShot::open(path)?;
        zero_shot.check(config.features())?;
        let own = ["weight", "bias"].map(|what| format!("classifier.{what}"));
        names.retain(|(name, _)| !own.contains(name));
        // A bias that the file has stays, as zeros: its library expects one.
        config.head_bias = zero_shot.bias.is_some() || (config.classes > 0 && config.head_bias);
        config.classes = zero_shot.classes;
        names.extend(own.into_iter().zip(head_names.clone()).take(1 + usize::from(config.head_bias)));
        notes.push(zero_shot.note());
        classes = zero_shot.names.clone();
        head_file = Some(zero_shot);
    }
    Ok(Recognised {
        family: FAMILY.name,
        config: config.into(),
        preprocess,
        names,
        buffers,
        counters,
        head_names,
        initialised: Vec::new(),
        ignored,
        notes,
        sources,
        classes,
        resize: None,
        stem: None,
        head_file,
    })
}

/// The counters and the tensors that are left over; an error where one would change what the model computes.
fn leftover(
    tensors: &Tensors,
    config: &EfficientNetConfig,
    names: &[(String, String)],
    buffers: &[(String, String)],
) -> Result<(Vec<String>, Vec<String>)> {
    let mut counters = Vec::new();
    for (name, _) in config.buffers() {
        let Some(norm) = name.strip_suffix(".running_mean") else { continue };
        let counter = tensors.by_name.get(format!("{norm}.num_batches_tracked").as_str());
        counters.extend(counter.map(|info| info.name.clone()));
    }
    let named = names.iter().chain(buffers).map(|(_, in_file)| in_file.as_str());
    let used: BTreeSet<&str> = named.chain(counters.iter().map(String::as_str)).collect();
    for (name, info) in &tensors.by_name {
        let inside = of_tower(name) || name.starts_with("classifier.");
        if inside && !used.contains(info.name.as_str()) {
            return Err(tensors.error(info, "belongs to a part that an EfficientNet does not have: not supported yet"));
        }
    }
    let ignored = tensors.unused(&used);
    Ok((counters, ignored))
}
