//! ResNets by torchvision's, timm's and OpenCLIP's names, which are our own; ResNet-D, MoCo-v3's and CLIP's among them.

use std::collections::{BTreeMap, BTreeSet};

use super::inputs::{self, IMAGENET};
use super::names::Table;
use super::resnet_parts::{Told, agrees, config};
use super::resnet_pool::{attention, grid, resize};
use super::tensors::{ASSUMED, Tensors, class_names, first, misfit, of_tower, preprocessing_assumed};
use super::transformers::CLIP_MODEL;
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::known::Keys;
use crate::checkpoint::metadata;
use crate::checkpoint::open_clip_config::OpenClipConfig;
use crate::checkpoint::timm_config::Class;
use crate::checkpoint::transformers_config::Model;
use crate::checkpoint::zero_shot::ZeroShot;
use crate::checkpoint::{Note, OVERRIDE, Overrides, Recognised};
use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;
use crate::error::{Error, Help, Result, Setting};
use crate::model::Network;
use crate::model::config::Pool;
use crate::model::resnet_config::{ResNetConfig, Stem};

pub(super) const FAMILY: Family = Family {
    slug: "resnet",
    name: "ResNet",
    layout: "conv1, bn1, layerN.N.convN, .bnN, .downsample.N, fc; CLIP's with conv2, conv3, attnpool",
    anchors: &[
        "layer1.0.conv1.weight",
        "layer1.0.bn1.weight",
        "layer1.0.conv2.weight",
        "layer2.0.conv1.weight",
        "layer2.0.bn2.weight",
        "layer1.0.conv2.conv.weight",
    ],
    enough: 4,
    bases: &["visual.", ""],
    timm: CLASSES,
    read: read_plain,
};

pub(super) const TRANSFORMERS: Family = Family {
    slug: "hf-resnet",
    name: "transformers ResNet",
    layout: "resnet.embedder.embedder, resnet.encoder.stages.N.layers.N.layer.N, .shortcut, classifier.1",
    anchors: &[
        "embedder.embedder.convolution.weight",
        "encoder.stages.0.layers.0.layer.0.convolution.weight",
        "encoder.stages.0.layers.0.layer.1.normalization.weight",
        "encoder.stages.1.layers.0.layer.0.convolution.weight",
    ],
    enough: 3,
    bases: &["resnet.", ""],
    timm: &[],
    read: read_transformers,
};

pub(super) const NAMES: &Table = &[
    ("conv1.*", "embedder.embedder.convolution.*"),
    ("bn1.*", "embedder.embedder.normalization.*"),
    ("layer+.#.conv+.*", "encoder.stages.#.layers.#.layer.#.convolution.*"),
    ("layer+.#.bn+.*", "encoder.stages.#.layers.#.layer.#.normalization.*"),
    ("layer+.#.downsample.0.*", "encoder.stages.#.layers.#.shortcut.convolution.*"),
    ("layer+.#.downsample.1.*", "encoder.stages.#.layers.#.shortcut.normalization.*"),
    ("fc.*", "^classifier.1.*"),
];

/// Channel attention as timm's blocks are given it; the tensors tell its widths.
const SE: &str = r#"{"attn_layer":"se"}"#;
const SE_QUARTER: &str = r#"{"attn_layer":"SEModule(rd_ratio=0.25)"}"#;
const ECA: &str = r#"{"attn_layer":"eca"}"#;

/// The blocks of timm's ResNeSts.
const SPLIT: [&str; 4] = [
    r#"{"avd":true,"avd_first":false,"radix":2}"#,
    r#"{"avd":true,"avd_first":true,"radix":1}"#,
    r#"{"avd":true,"avd_first":true,"radix":2}"#,
    r#"{"avd":true,"avd_first":true,"radix":4}"#,
];

/// The activations of timm's ResNets that are computed.
const ACTIVATIONS: &[&str] = &["\"relu\"", "\"silu\"", "\"swish\"", "\"gelu\"", "\"hard_swish\"", "\"relu6\""];

/// What timm's ResNets are built from. The tensors tell widths, depths and the stem.
const CLASSES: &[Class] = &[Class {
    name: "ResNet",
    keys: Keys {
        followed: &[
            "avg_down",
            "base_width",
            "block",
            "block_reduce_first",
            "cardinality",
            "channels",
            "down_kernel_size",
            "global_pool",
            "in_chans",
            "layers",
            "num_classes",
            "pruned",
            "replace_stem_pool",
            "stem_type",
            "stem_width",
        ],
        idle: &["drop_block_rate", "drop_path_rate", "drop_rate", "zero_init_last"],
        only: &[
            ("act_layer", ACTIVATIONS),
            ("norm_layer", &["\"batchnorm\"", "\"batchnorm2d\"", "\"groupnorm\""]),
            ("aa_layer", &["\"AvgPool2d\"", "\"BlurPool2d\"", "\"avg\"", "\"avgpool\""]),
            ("block_args", &["{}", SE, SE_QUARTER, ECA, SPLIT[0], SPLIT[1], SPLIT[2], SPLIT[3]]),
        ],
    },
}];

/// What transformers' ResNets are built from.
const TRANSFORMERS_KEYS: Keys = Keys {
    followed: &["depths", "embedding_size", "hidden_sizes", "image_size", "layer_type", "num_channels"],
    idle: &["out_features", "out_indices", "stage_names"],
    only: &[
        ("downsample_in_bottleneck", &["false"]),
        ("downsample_in_first_stage", &["false"]),
        ("hidden_act", &["\"relu\""]),
    ],
};

const TRANSFORMERS_MODEL: Model =
    Model { types: &["resnet"], keys: TRANSFORMERS_KEYS, heads: 0, activation: "relu", eps: 1e-5 };

/// Where all of torchvision's and timm's ResNets were trained, unless their files say otherwise.
const IMAGE_SIZE: usize = 224;

fn read_plain(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let mut tensors = Tensors::new(checkpoint, prefixes, &[]);
    // The head of an image tower stands beside it.
    for name in ["head.weight", "head.bias"] {
        if let Some(info) = checkpoint.tensor(&format!("{}{name}", prefixes.outer)) {
            tensors.by_name.insert(name.into(), info);
        }
    }
    // CLIP's have OpenCLIP's configuration beside them, if any.
    let facts = match OpenClipConfig::of(checkpoint)? {
        Some(_) if tensors.has("attnpool.c_proj.weight") => Facts::open_clip(checkpoint, &CLIP_MODEL)?,
        None if checkpoint.config().is_none() => Facts::torchvision(checkpoint),
        _ => Facts::timm(checkpoint, CLASSES)?,
    };
    let head = if tensors.has("attnpool.c_proj.weight") { "head" } else { "fc" };
    let head = format!("{}{head}", prefixes.outer);
    read(tensors, overrides, facts, Dialect { name: FAMILY.name, head, interpolation: None, told: Told::PLAIN })
}

fn read_transformers(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let facts = Facts::transformers(checkpoint, &TRANSFORMERS_MODEL)?;
    let tensors = Tensors::new(checkpoint, prefixes, NAMES);
    let inside = |name: &&&str| ["embedder.", "encoder."].iter().any(|part| name.starts_with(part));
    if let Some(name) = tensors.unnamed.keys().find(inside) {
        return Err(
            tensors.error(tensors.unnamed[name], "belongs to a part that a ResNet does not have: not supported")
        );
    }
    let head = format!("{}classifier.1", prefixes.outer);
    read(tensors, overrides, facts, Dialect { name: TRANSFORMERS.name, head, interpolation: None, told: Told::PLAIN })
}

/// What only one of the families has that share their network with ResNets.
pub(super) struct Dialect {
    /// The family's name.
    pub(super) name: &'static str,
    /// The name in the file that a head has.
    pub(super) head: String,
    /// How images are resized where no file says it, if not as for other ResNets.
    pub(super) interpolation: Option<Interpolation>,
    /// What kind of ResNet it is.
    pub(super) told: Told,
}

pub(super) fn read(tensors: Tensors, overrides: &Overrides, facts: Facts, dialect: Dialect) -> Result<Recognised> {
    let checkpoint = tensors.checkpoint;
    let has_attention = tensors.by_name.keys().any(|name| name.starts_with("attnpool."));
    let foreign = [
        (overrides.heads.is_some() && !has_attention, Setting::Heads, "which has no attention heads"),
        (overrides.activation.is_some(), Setting::Activation, "whose activation is always ReLU"),
        (overrides.pool.is_some(), Setting::Pool, "whose pooling its tensors tell"),
    ];
    if let Some((_, setting, what)) = foreign.into_iter().find(|(given, ..)| *given) {
        return Err(misfit(setting, format!("this model is a ResNet, {what}")));
    }
    let own = metadata::read(checkpoint)?;
    let mut notes = Vec::new();
    if facts.pool()? == Some(Pool::Cls) {
        return Err(checkpoint.error("global_pool token of config.json is not for a ResNet"));
    }

    let mut sources = BTreeMap::new();
    let eps = first([(own.eps, "metadata tpgm.eps")], &mut sources, "eps").unwrap_or_else(|| {
        sources.insert("eps", "every ResNet's".into());
        1e-5
    });
    if !facts.written() && own.eps.is_none() {
        let what = "no configuration names its architecture: a plain ResNet was assumed, with ReLU, without anti-aliasing, \
                    and with the usual strides and stem";
        notes.push(what.into());
    }
    let mut config = config(&tensors, eps, dialect.told.with(&facts, own.config.as_ref())?)?;
    agrees(&facts, &config, &tensors)?;
    config.anti_alias = own.anti_alias.unwrap_or_else(|| facts.anti_alias());
    if (config.anti_alias || config.blur) && config.stem_pool_conv {
        return Err(
            checkpoint.error("a stem with a convolution in place of its pool, and anti-aliasing: not supported yet")
        );
    }
    let grid = if has_attention {
        let written = match own.heads {
            Some(heads) => Some((heads, "metadata tpgm.heads".to_string())),
            None => facts.heads()?.map(|(heads, place)| (heads, format!("{}, {place}", facts.file()))),
        };
        config.pooling = attention(&tensors, config.width(), written, overrides, &mut notes, &mut sources)?;
        Some(grid(&tensors)?)
    } else {
        None
    };
    config.classes = match tensors.has(&format!("{}.weight", config.head())) {
        true => tensors.dims::<2>(&format!("{}.weight", config.head()), "[classes, width]")?[0],
        false => 0,
    };
    config.head_bias = tensors.has(&format!("{}.bias", config.head()));
    let own_size = grid.map_or(IMAGE_SIZE, |grid| grid * config.stride());
    let fits = |size: &usize| grid.is_none_or(|grid| config.at(*size).final_size() == grid);
    let written = facts.square_input(checkpoint)?;
    let ours = own.preprocess.is_some() || overrides.image_size.is_some();
    if let Some(size) = written.filter(|size| !ours && !fits(size)) {
        let file = facts.file();
        let what = format!("{file} says {size} pixels, but the attention pool's positions are for {own_size}");
        return Err(checkpoint.error(what).with_help(Help::ImageSize));
    }
    let said = [
        (overrides.image_size, OVERRIDE),
        (own.preprocess.as_ref().map(|p| p.image_size).filter(fits), "metadata tpgm.preprocess"),
        (facts.processed_size().filter(fits), facts.preprocess_file()),
        (written.filter(fits), facts.file()),
        (grid.map(|_| own_size), "tensor shapes"),
    ];
    let image_size = first(said, &mut sources, "image_size").unwrap_or_else(|| {
        sources.insert("image_size", ASSUMED.into());
        own_size
    });
    if image_size < config.stride() {
        let stride = config.stride();
        let what = format!("images of {image_size} pixels are smaller than the network's stride of {stride}");
        let error = if overrides.image_size.is_some() { Error::Usage(what) } else { checkpoint.error(what) };
        return Err(error.with_help(Help::ImagesTooSmall { at_least: stride }));
    }
    if config.anti_alias && !image_size.is_multiple_of(config.stride()) {
        let what = format!(
            "an anti-aliased ResNet takes images of a multiple of {} pixels, not {image_size}",
            config.stride()
        );
        return Err(if overrides.image_size.is_some() { Error::Usage(what) } else { checkpoint.error(what) });
    }
    // Of any size that the network can take; positions alone depend on it.
    let names = tensors.names_of(config.at(own_size.max(config.stride())).parameters())?;
    config = config.at(image_size);
    let resize = match grid {
        Some(grid) => resize(grid, own_size, &config, &mut notes)?,
        None => None,
    };
    let buffers = tensors.names_of(config.buffers())?;
    let (counters, ignored) = leftover(&tensors, &config, &names, &buffers, &mut notes)?;
    let clip = config.stem == Stem::Clip;
    let preprocess = match (own.preprocess, facts.preprocess(usual(&config, dialect.interpolation), &mut notes)?) {
        (Some(own), _) => {
            sources.insert("preprocess", "metadata tpgm.preprocess".into());
            Preprocess { image_size, ..own }
        }
        (None, Some(written)) => {
            sources.insert("preprocess", facts.preprocess_file().into());
            written
        }
        (None, None) => {
            sources.insert("preprocess", ASSUMED.into());
            let p = usual(&config, dialect.interpolation);
            let filter = if p.interpolation == Interpolation::Bicubic { "bicubic" } else { "bilinear" };
            let whose = if clip { "CLIP" } else { "ImageNet" };
            let what = format!("{whose}'s mean and std, {filter}, crop {}", p.crop_pct);
            notes.push(preprocessing_assumed(&what));
            p
        }
    };
    let mut classes = class_names(own.classes, &facts, config.classes, &mut notes);
    let head = config.head();
    let head_names = ["weight", "bias"].map(|what| format!("{}.{what}", dialect.head));
    config.normalize = overrides.normalize.or(own.normalize).unwrap_or(false);
    let mut names = names;
    let mut head_file = None;
    if let Some(path) = &overrides.head {
        let zero_shot = ZeroShot::open(path)?;
        zero_shot.check(config.features())?;
        let own = [format!("{head}.weight"), format!("{head}.bias")];
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
        family: if clip { "CLIP ResNet" } else { dialect.name },
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
        thresholds: None,
        resize,
        stem: None,
        head_file,
    })
}

/// What torchvision's first weights, timm's ResNet-D and CLIP's expect.
fn usual(config: &ResNetConfig, by: Option<Interpolation>) -> Preprocess {
    let (crop_pct, interpolation, (mean, std)) = match config.stem {
        Stem::Conv | Stem::Halved | Stem::Small | Stem::Three => (0.875, Interpolation::Bilinear, IMAGENET),
        Stem::Deep => (0.875, Interpolation::Bicubic, IMAGENET),
        Stem::Clip => return inputs::clip(config.image_size),
    };
    let interpolation = by.unwrap_or(interpolation);
    Preprocess {
        image_size: config.image_size,
        crop_pct,
        crop_mode: CropMode::Center,
        interpolation,
        mean,
        std,
        grey: false,
    }
}

/// The counters and the tensors that are left over; an error where one would change what the model computes.
fn leftover(
    tensors: &Tensors,
    config: &ResNetConfig,
    names: &[(String, String)],
    buffers: &[(String, String)],
    notes: &mut Vec<Note>,
) -> Result<(Vec<String>, Vec<String>)> {
    let mut used: BTreeSet<&str> = names.iter().chain(buffers).map(|(_, in_file)| in_file.as_str()).collect();
    let mut counters = Vec::new();
    for (name, _) in config.buffers() {
        let Some(norm) = name.strip_suffix(".running_mean") else { continue };
        let counter = tensors.by_name.get(format!("{norm}.num_batches_tracked").as_str());
        counters.extend(counter.map(|info| info.name.clone()));
    }
    used.extend(counters.iter().map(String::as_str));
    let mut projector = false;
    let head = format!("{}.", config.head());
    let parts =
        ["layer0.", "conv1.", "conv2.", "conv3.", "bn1.", "bn2.", "bn3.", "maxpool.", "layer", "attnpool.", &head];
    for (name, info) in &tensors.by_name {
        let inside = of_tower(name) || parts.iter().any(|part| name.starts_with(part));
        if !inside || used.contains(info.name.as_str()) {
            continue;
        }
        // Self-supervised models have an MLP where the head goes.
        if name.strip_prefix("fc.").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
            projector = true;
            continue;
        }
        return Err(tensors.error(info, "belongs to a part that a ResNet does not have: not supported yet"));
    }
    if projector {
        notes.push("fc is a projector of the pre-training, not a head: it is left out".into());
    }
    let ignored = tensors.unused(&used);
    Ok((counters, ignored))
}
