//! ConvNeXt and ConvNeXt V2 by timm's names, which are our own; by torchvision's and transformers'; and the towers that OpenCLIP
//! has of timm.

use std::collections::{BTreeMap, BTreeSet};

use super::convnext_parts::{config, described, projection};
use super::inputs::{self, IMAGENET};
use super::names::Table;
use super::tensors::{ASSUMED, Tensors, class_names, first, misfit, of_tower, preprocessing_assumed};
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::known::Keys;
use crate::checkpoint::metadata;
use crate::checkpoint::timm_config::Class;
use crate::checkpoint::transformers_config::Model;
use crate::checkpoint::zero_shot::ZeroShot;
use crate::checkpoint::{OVERRIDE, Overrides, Recognised};
use crate::data::preprocess::{CropMode, Preprocess, crop_share};
use crate::data::resize::Interpolation;
use crate::error::{Error, Help, Result, Setting};
use crate::model::Network;
use crate::model::config::Pool;
use crate::model::convnext_config::ConvNextConfig;
use crate::shapes::Activation;

pub(super) const FAMILY: Family = Family {
    slug: "convnext",
    name: "ConvNeXt",
    layout: "stem.N, stages.N.downsample.N, stages.N.blocks.N.conv_dw, .norm, .mlp.fcN, .gamma, head.norm, head.fc",
    anchors: &[
        "stem.0.weight",
        "stages.0.blocks.0.conv_dw.weight",
        "stages.0.blocks.0.norm.weight",
        "stages.0.blocks.0.mlp.fc1.weight",
        "stages.1.downsample.1.weight",
    ],
    enough: 4,
    bases: &[""],
    timm: CLASSES,
    read: read_timm,
};

pub(super) const TORCHVISION: Family = Family {
    slug: "torchvision-convnext",
    name: "torchvision ConvNeXt",
    layout: "features.N.N.block.N, .layer_scale, classifier.N",
    anchors: &[
        "features.0.0.weight",
        "features.1.0.block.0.weight",
        "features.1.0.layer_scale",
        "features.1.0.block.5.weight",
    ],
    enough: 3,
    bases: &[""],
    timm: &[],
    read: read_torchvision,
};

pub(super) const TRANSFORMERS: Family = Family {
    slug: "hf-convnext",
    name: "transformers ConvNeXt",
    layout: "convnext.embeddings.patch_embeddings, .encoder.stages.N.layers.N.dwconv, .pwconvN, .layernorm, classifier",
    anchors: &[
        "embeddings.patch_embeddings.weight",
        "encoder.stages.0.layers.0.dwconv.weight",
        "encoder.stages.0.layers.0.pwconv1.weight",
        "encoder.stages.1.downsampling_layer.1.weight",
    ],
    enough: 3,
    bases: &["convnext.", "convnextv2.", ""],
    timm: &[],
    read: read_transformers,
};

pub(super) const DINOV3: Family = Family {
    slug: "hf-convnext",
    name: "transformers DINOv3 ConvNeXt",
    layout: "stages.N.downsample_layers.N, stages.N.layers.N.depthwise_conv, .pointwise_convN, .gamma, layer_norm",
    anchors: &[
        "stages.0.downsample_layers.0.weight",
        "stages.0.layers.0.depthwise_conv.weight",
        "stages.0.layers.0.pointwise_conv1.weight",
        "stages.1.downsample_layers.1.weight",
        "layer_norm.weight",
    ],
    enough: 4,
    bases: &[""],
    timm: &[],
    read: read_dinov3,
};

/// As a model has them in memory. What it saves has the names above.
pub(super) const DINOV3_IN_MEMORY: Family = Family {
    layout: "model.stages.N.downsample_layers.N, model.stages.N.layers.N.depthwise_conv, layer_norm",
    anchors: &[
        "model.stages.0.downsample_layers.0.weight",
        "model.stages.0.layers.0.depthwise_conv.weight",
        "model.stages.0.layers.0.pointwise_conv1.weight",
        "model.stages.1.downsample_layers.1.weight",
        "layer_norm.weight",
    ],
    enough: 5,
    ..DINOV3
};

/// What timm's ConvNeXts are built from. The tensors tell most of it.
const CLASSES: &[Class] = &[Class {
    name: "ConvNeXt",
    keys: Keys {
        followed: &[
            "act_layer",
            "conv_mlp",
            "depths",
            "dims",
            "global_pool",
            "head_hidden_size",
            "head_norm_first",
            "in_chans",
            "kernel_sizes",
            "ls_init_value",
            "norm_eps",
            "num_classes",
            "patch_size",
            "use_grn",
        ],
        idle: &["drop_path_rate", "drop_rate", "head_init_scale"],
        only: &[
            ("norm_layer", &["\"layernorm\"", "\"layernorm2d\""]),
            ("stem_type", &["\"patch\"", "\"overlap\"", "\"overlap_tiered\""]),
        ],
    },
}];

/// What transformers' ConvNeXts are built from.
const TRANSFORMERS_KEYS: Keys = Keys {
    followed: &[
        "depths",
        "hidden_act",
        "hidden_sizes",
        "image_size",
        "layer_norm_eps",
        "layer_scale_init_value",
        "num_channels",
        "num_stages",
        "patch_size",
    ],
    idle: &["drop_path_rate", "initializer_range", "out_features", "out_indices", "stage_names"],
    only: &[],
};

const TRANSFORMERS_MODEL: Model =
    Model { types: &["convnext", "convnextv2"], keys: TRANSFORMERS_KEYS, heads: 0, activation: "gelu", eps: 1e-12 };

const DINOV3_MODEL: Model =
    Model { types: &["dinov3_convnext"], keys: TRANSFORMERS_KEYS, heads: 0, activation: "gelu", eps: 1e-6 };

macro_rules! dinov3_names {
    ($base:literal) => {
        &[
            ("stem.#.*", concat!($base, "stages.0.downsample_layers.#.*")),
            ("stages.#.downsample.#.*", concat!($base, "stages.#.downsample_layers.#.*")),
            ("stages.#.blocks.#.conv_dw.*", concat!($base, "stages.#.layers.#.depthwise_conv.*")),
            ("stages.#.blocks.#.norm.*", concat!($base, "stages.#.layers.#.layer_norm.*")),
            ("stages.#.blocks.#.mlp.fc1.*", concat!($base, "stages.#.layers.#.pointwise_conv1.*")),
            ("stages.#.blocks.#.mlp.fc2.*", concat!($base, "stages.#.layers.#.pointwise_conv2.*")),
            ("stages.#.blocks.#.gamma", concat!($base, "stages.#.layers.#.gamma")),
            ("head.norm.*", "layer_norm.*"),
            ("head.fc.*", "^head.*"),
        ]
    };
}

/// On disk and in memory.
const DINOV3_NAMES: [&Table; 2] = [dinov3_names!(""), dinov3_names!("model.")];

pub(super) const TRANSFORMERS_NAMES: &Table = &[
    ("stem.0.*", "embeddings.patch_embeddings.*"),
    ("stem.1.*", "embeddings.layernorm.*"),
    ("stages.#.downsample.#.*", "encoder.stages.#.downsampling_layer.#.*"),
    ("stages.#.blocks.#.conv_dw.*", "encoder.stages.#.layers.#.dwconv.*"),
    ("stages.#.blocks.#.norm.*", "encoder.stages.#.layers.#.layernorm.*"),
    ("stages.#.blocks.#.mlp.fc1.*", "encoder.stages.#.layers.#.pwconv1.*"),
    ("stages.#.blocks.#.mlp.grn.*", "encoder.stages.#.layers.#.grn.*"),
    ("stages.#.blocks.#.mlp.fc2.*", "encoder.stages.#.layers.#.pwconv2.*"),
    ("stages.#.blocks.#.gamma", "encoder.stages.#.layers.#.layer_scale_parameter"),
    ("head.norm.*", "layernorm.*"),
    ("head.fc.*", "^classifier.*"),
];

pub(super) const TORCHVISION_NAMES: &Table = &[
    ("stem.0.*", "features.0.0.*"),
    ("stem.1.*", "features.0.1.*"),
    ("stages.0.blocks.#.gamma", "features.1.#.layer_scale"),
    ("stages.0.blocks.#.conv_dw.*", "features.1.#.block.0.*"),
    ("stages.0.blocks.#.norm.*", "features.1.#.block.2.*"),
    ("stages.0.blocks.#.mlp.fc1.*", "features.1.#.block.3.*"),
    ("stages.0.blocks.#.mlp.fc2.*", "features.1.#.block.5.*"),
    ("stages.1.downsample.#.*", "features.2.#.*"),
    ("stages.1.blocks.#.gamma", "features.3.#.layer_scale"),
    ("stages.1.blocks.#.conv_dw.*", "features.3.#.block.0.*"),
    ("stages.1.blocks.#.norm.*", "features.3.#.block.2.*"),
    ("stages.1.blocks.#.mlp.fc1.*", "features.3.#.block.3.*"),
    ("stages.1.blocks.#.mlp.fc2.*", "features.3.#.block.5.*"),
    ("stages.2.downsample.#.*", "features.4.#.*"),
    ("stages.2.blocks.#.gamma", "features.5.#.layer_scale"),
    ("stages.2.blocks.#.conv_dw.*", "features.5.#.block.0.*"),
    ("stages.2.blocks.#.norm.*", "features.5.#.block.2.*"),
    ("stages.2.blocks.#.mlp.fc1.*", "features.5.#.block.3.*"),
    ("stages.2.blocks.#.mlp.fc2.*", "features.5.#.block.5.*"),
    ("stages.3.downsample.#.*", "features.6.#.*"),
    ("stages.3.blocks.#.gamma", "features.7.#.layer_scale"),
    ("stages.3.blocks.#.conv_dw.*", "features.7.#.block.0.*"),
    ("stages.3.blocks.#.norm.*", "features.7.#.block.2.*"),
    ("stages.3.blocks.#.mlp.fc1.*", "features.7.#.block.3.*"),
    ("stages.3.blocks.#.mlp.fc2.*", "features.7.#.block.5.*"),
    ("head.norm.*", "classifier.0.*"),
    ("head.fc.*", "classifier.2.*"),
];

/// Where almost all of them were trained, unless their files say otherwise.
const IMAGE_SIZE: usize = 224;
const EPS: f32 = 1e-6;

/// What only one of the libraries has.
struct Dialect<'a> {
    name: &'static str,
    facts: Facts<'a>,
    /// Of all norms, and where that is written, if it is not timm's configuration that tells.
    eps: Option<(f32, String)>,
    /// Of the last norm, if it is another than that of the others.
    head_eps: Option<f32>,
    /// The names in the file that a head's weight and bias have.
    head_names: [String; 2],
    /// What the input is where no file says it, and in words.
    input: (Preprocess, String),
}

fn read_timm(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let mut tensors = Tensors::new(checkpoint, prefixes, &[]);
    let tower = projection(&mut tensors, prefixes.prefix)?;
    let facts = Facts::timm(checkpoint, CLASSES)?;
    let head = match &tower {
        Some(root) => format!("{root}head"),
        None => format!("{}head.fc", prefixes.prefix),
    };
    let input = match tower {
        Some(_) => (inputs::clip(IMAGE_SIZE), "CLIP's mean and std, bicubic, crop 1".to_string()),
        None => usual(0.875, Interpolation::Bicubic, CropMode::Center),
    };
    let name = if tower.is_some() { "OpenCLIP ConvNeXt" } else { FAMILY.name };
    let head_names = ["weight", "bias"].map(|what| format!("{head}.{what}"));
    read(tensors, overrides, Dialect { name, facts, eps: None, head_eps: None, head_names, input })
}

fn read_torchvision(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let tensors = Tensors::new(checkpoint, prefixes, TORCHVISION_NAMES);
    // Each of its four models was evaluated after another resize.
    let blocks =
        tensors.by_name.keys().filter(|name| name.starts_with("stages.2.") && name.ends_with(".gamma")).count();
    let width = tensors.dims::<4>("stem.0.weight", "[width, 3, patch, patch]")?[0];
    let resized = match (blocks, width) {
        (9, 96) => 236,
        (27, 96) => 230,
        _ => 232,
    };
    let head_names = ["weight", "bias"].map(|what| format!("{}classifier.2.{what}", prefixes.prefix));
    let input = usual(crop_share(IMAGE_SIZE, resized), Interpolation::Bilinear, CropMode::Center);
    let facts = Facts::torchvision(checkpoint);
    read(tensors, overrides, Dialect { name: TORCHVISION.name, facts, eps: None, head_eps: None, head_names, input })
}

fn read_transformers(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let facts = Facts::transformers(checkpoint, &TRANSFORMERS_MODEL)?;
    let tensors = Tensors::new(checkpoint, prefixes, TRANSFORMERS_NAMES);
    if let Facts::Transformers(config) = &facts
        && !tensors.by_name.keys().any(|name| name.contains(".grn."))
    {
        config.agree_scale("layer_scale_init_value", tensors.by_name.keys().any(|name| name.ends_with(".gamma")))?;
    }
    // The others have a fixed one, whatever the configuration says.
    let head_eps = facts.eps()?.or(Some(1e-12));
    let head_names = ["weight", "bias"].map(|what| format!("{}classifier.{what}", prefixes.outer));
    let input = usual(0.875, Interpolation::Bicubic, CropMode::CenterFloor);
    read(tensors, overrides, Dialect { name: TRANSFORMERS.name, facts, eps: None, head_eps, head_names, input })
}

fn read_dinov3(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let facts = Facts::transformers(checkpoint, &DINOV3_MODEL)?;
    let in_memory =
        checkpoint.tensor(&format!("{}model.stages.0.downsample_layers.0.weight", prefixes.prefix)).is_some();
    let tensors = Tensors::new(checkpoint, prefixes, DINOV3_NAMES[usize::from(in_memory)]);
    let eps = facts.eps()?.map(|eps| (eps, "config.json, layer_norm_eps".to_string()));
    let head_names = ["weight", "bias"].map(|what| format!("{}head.{what}", prefixes.outer));
    let input = usual(1.0, Interpolation::Bilinear, CropMode::SquashFloor);
    read(tensors, overrides, Dialect { name: DINOV3.name, facts, eps, head_eps: None, head_names, input })
}

/// An input with ImageNet's statistics, and in words.
fn usual(crop_pct: f64, interpolation: Interpolation, crop_mode: CropMode) -> (Preprocess, String) {
    let (mean, std) = IMAGENET;
    let filter = if interpolation == Interpolation::Bicubic { "bicubic" } else { "bilinear" };
    let words = format!("ImageNet's mean and std, {filter}, crop {crop_pct:.3}");
    (Preprocess { image_size: IMAGE_SIZE, crop_pct, crop_mode, interpolation, mean, std, grey: false }, words)
}

fn read(tensors: Tensors, overrides: &Overrides, dialect: Dialect) -> Result<Recognised> {
    let Dialect { name, facts, eps, head_eps, head_names, input } = dialect;
    let checkpoint = tensors.checkpoint;
    for (given, setting, what) in [
        (overrides.heads.is_some(), Setting::Heads, "which has no attention heads"),
        (overrides.pool.is_some(), Setting::Pool, "which always takes the mean"),
    ] {
        if given {
            return Err(misfit(setting, format!("this model is a ConvNeXt, {what}")));
        }
    }
    if facts.pool()?.is_some_and(|pool| pool != Pool::Mean) {
        return Err(checkpoint.error(format!("{} gives another pooling than the mean: not supported", facts.file())));
    }
    let (own, mut notes, mut sources) = (metadata::read(checkpoint)?, Vec::new(), BTreeMap::new());
    let said = described(&facts)?.or(eps);
    let eps = [
        (own.eps, "metadata tpgm.eps".to_string()),
        (said.as_ref().map(|(eps, _)| *eps), said.as_ref().map_or(String::new(), |(_, place)| place.clone())),
    ];
    let eps = eps.into_iter().find_map(|(eps, place)| Some((eps?, place)));
    let (eps, place) = eps.unwrap_or_else(|| (EPS, "every ConvNeXt's but the largest".into()));
    sources.insert("eps", place);
    let said = [
        (overrides.activation, OVERRIDE),
        (own.activation, "metadata tpgm.activation"),
        (facts.activation()?, facts.file()),
    ];
    let activation = first(said, &mut sources, "activation").unwrap_or_else(|| {
        sources.insert("activation", "usual".into());
        Activation::Gelu
    });
    if activation == Activation::SwiGlu {
        return Err(misfit(Setting::Activation, "this model is a ConvNeXt, whose activation has no gate"));
    }
    if !facts.written() && own.eps.is_none() {
        let what =
            format!("no configuration names its architecture: GELU (erf) and a layer norm eps of {eps:e} were assumed");
        notes.push(what.into());
    }
    let mut config = config(&tensors, eps, head_eps.unwrap_or(eps), activation)?;
    let head = config.head();
    let weight = format!("{head}.weight");
    if tensors.has(&weight) {
        config.classes = tensors.dims::<2>(&weight, "[classes, width]")?[0];
        config.head_bias = tensors.has(&format!("{head}.bias"));
    }
    let written = facts.square_input(checkpoint)?;
    let said = [
        (overrides.image_size, OVERRIDE),
        (own.preprocess.as_ref().map(|p| p.image_size), "metadata tpgm.preprocess"),
        (facts.processed_size(), facts.preprocess_file()),
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
    let ignored = leftover(&tensors, &config, &names)?;
    let (usual, words) = input;
    let usual = Preprocess { image_size, ..usual };
    let preprocess = match (own.preprocess, facts.preprocess(usual.clone(), &mut notes)?) {
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
            notes.push(preprocessing_assumed(&words));
            usual
        }
    };
    let mut classes = class_names(own.classes, &facts, config.classes, &mut notes);
    config.normalize = overrides.normalize.or(own.normalize).unwrap_or(false);
    let mut head_file = None;
    if let Some(path) = &overrides.head {
        let zero_shot = ZeroShot::open(path)?;
        zero_shot.check(config.features())?;
        let own = [weight, format!("{head}.bias")];
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
        family: name,
        config: config.into(),
        preprocess,
        names,
        buffers: Vec::new(),
        counters: Vec::new(),
        head_names,
        initialised: Vec::new(),
        ignored,
        notes,
        sources,
        classes,
        thresholds: None,
        resize: None,
        stem: None,
        head_file,
    })
}

/// The tensors that are left over; an error where one would change what the model computes.
fn leftover(tensors: &Tensors, config: &ConvNextConfig, names: &[(String, String)]) -> Result<Vec<String>> {
    let used: BTreeSet<&str> = names.iter().map(|(_, in_file)| in_file.as_str()).collect();
    let head = format!("{}.", config.head());
    let parts =
        ["stem.", "stages.", "norm_pre.", "head.", "features.", "classifier.", "encoder.", "embeddings.", &head];
    let all = tensors.by_name.iter().map(|(name, info)| (name.as_str(), *info));
    for (name, info) in all.chain(tensors.unnamed.iter().map(|(name, info)| (*name, *info))) {
        let inside = of_tower(name) || parts.iter().any(|part| name.starts_with(part));
        if inside && !used.contains(info.name.as_str()) {
            return Err(tensors.error(info, "belongs to a part that a ConvNeXt does not have: not supported yet"));
        }
    }
    Ok(tensors.unused(&used))
}
