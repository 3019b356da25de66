//! ResNetV2 and BiT by timm's names, which are our own. Neither strides, nor the stem's pool, nor weight standardisation stand in a
//! tensor: they come from the architecture that the configuration names, or from what we have saved ourselves.

use super::described::{Described, told_or_saved};
use super::inputs::HALF;
use super::resnet_parts::numbered;
use super::tensors::Tensors;
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::known::Keys;
use crate::checkpoint::metadata;
use crate::checkpoint::timm_config::{Class, TimmConfig};
use crate::checkpoint::{Overrides, Recognised};
use crate::data::resize::Interpolation;
use crate::error::Result;
use crate::model::ModelConfig;
use crate::model::resnetv2_config::{NormKind, PreBlock, ResNetV2Config, StemPool};

pub(super) const FAMILY: Family = Family {
    slug: "resnetv2",
    name: "ResNetV2",
    layout: "stem.conv, stages.N.blocks.N.normN, .convN, .downsample.conv, norm, head.fc",
    anchors: &[
        "stages.0.blocks.0.norm1.weight",
        "stages.0.blocks.0.conv1.weight",
        "stages.0.blocks.0.norm2.weight",
        "stages.0.blocks.0.conv2.weight",
        "norm.weight",
    ],
    enough: 4,
    bases: &[""],
    timm: CLASSES,
    read,
};

const CLASSES: &[Class] = &[Class {
    name: "ResNetV2",
    keys: Keys {
        followed: &[
            "avg_down",
            "basic",
            "bottle_ratio",
            "channels",
            "conv_layer",
            "global_pool",
            "in_chans",
            "layers",
            "norm_layer",
            "num_classes",
            "stem_chs",
            "stem_type",
            "width_factor",
        ],
        idle: &["drop_path_rate", "drop_rate", "zero_init_last"],
        only: &[("act_layer", &["\"ReLU\"", "\"relu\""])],
    },
}];

fn read(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let tensors = Tensors::new(checkpoint, prefixes, &[]);
    let facts = Facts::timm(checkpoint, CLASSES)?;
    let own = metadata::read(checkpoint)?;
    let told = match facts.timm_config().filter(|timm| timm.is_built()) {
        Some(timm) => Some(config(&tensors, timm)?.into()),
        None => None,
    };
    let saved = own.config.clone().filter(|config| matches!(config, ModelConfig::ResNetV2(_)));
    let (config, source) = told_or_saved(&tensors, told, saved, "a ResNetV2")?;
    let described = Described {
        tensors: &tensors,
        overrides,
        facts,
        own,
        family: FAMILY.name,
        what: "a ResNetV2",
        head: format!("{}head.fc", prefixes.prefix),
        usual: (0.875, Interpolation::Bilinear, HALF),
    };
    described.recognised(config, source)
}

/// The model, but for image size and head.
fn config(tensors: &Tensors, timm: &TimmConfig) -> Result<ResNetV2Config> {
    let convolution = |name: &str| tensors.dims::<4>(name, "[outputs, inputs, kernel, kernel]");
    let word = |key: &str| timm.word(key).unwrap_or_default();
    let deep = tensors.has("stem.conv1.weight");
    let stem: &[&str] =
        if deep { &["stem.conv1.weight", "stem.conv2.weight", "stem.conv3.weight"] } else { &["stem.conv.weight"] };
    let stem_chs = stem.iter().map(|name| Ok(convolution(name)?[0])).collect::<Result<Vec<usize>>>()?;
    let stem_pool = match word("stem_type").as_str() {
        "" | "deep" | "tiered" => StemPool::Usual,
        "fixed" | "deep_fixed" => StemPool::Zeros,
        "same" | "deep_same" => StemPool::Same,
        other => return Err(timm.error(format!("stem_type is {other:?}: not supported yet"))),
    };
    let (standard, same) = standard(timm)?;
    let basic = timm.flag("basic")?;
    let stages = stages(tensors, "", *stem_chs.last().expect("a stem has convolutions"), basic)?;
    Ok(ResNetV2Config {
        image_size: 0,
        stem_chs,
        stem_pool,
        basic,
        preact: true,
        stages,
        avg_down: timm.flag("avg_down")?,
        norm: norm(timm)?,
        standard,
        same,
        eps: 1e-5,
        momentum: 0.1,
        classes: 0,
        head_bias: false,
        normalize: false,
        grey: convolution(stem[0])?[1] == 1,
    })
}

/// The blocks under `prefix`, stage by stage, behind a stem of this many channels.
fn stages(tensors: &Tensors, prefix: &str, mut entering: usize, basic: bool) -> Result<Vec<Vec<PreBlock>>> {
    let mut stages = Vec::new();
    if !tensors.by_name.keys().any(|name| name.starts_with(&format!("{prefix}stages."))) {
        return Ok(stages);
    }
    for stage in 0..=numbered(tensors, &format!("{prefix}stages.")) {
        let mut blocks = Vec::new();
        for i in 0..=numbered(tensors, &format!("{prefix}stages.{stage}.blocks.")) {
            let rows = |part: &str| {
                let name = format!("{prefix}stages.{stage}.blocks.{i}.{part}.weight");
                tensors.dims::<4>(&name, "[outputs, inputs, kernel, kernel]").map(|shape| shape[0])
            };
            let (inner, out) = (rows("conv1")?, rows(if basic { "conv2" } else { "conv3" })?);
            let stride = if stage > 0 && i == 0 { 2 } else { 1 };
            // A bottleneck stage's first block always has one.
            let downsample = i == 0 && (!basic || stride > 1 || entering != out);
            blocks.push(PreBlock { inner, out, stride, downsample });
            entering = out;
        }
        stages.push(blocks);
    }
    Ok(stages)
}

/// The network in front of a hybrid ViT, under `prefix`: norms behind standardised convolutions, which are padded as TensorFlow's
/// "same". timm builds no other there.
pub(super) fn backbone(tensors: &Tensors, prefix: &str) -> Result<ResNetV2Config> {
    let [width, channels, _, _] =
        tensors.dims::<4>(&format!("{prefix}stem.conv.weight"), "[outputs, channels, 7, 7]")?;
    Ok(ResNetV2Config {
        image_size: 0,
        stem_chs: vec![width],
        stem_pool: StemPool::Same,
        basic: false,
        preact: false,
        stages: stages(tensors, prefix, width, false)?,
        avg_down: false,
        norm: NormKind::Group { groups: 32 },
        standard: Some(1e-8),
        same: true,
        eps: 1e-5,
        momentum: 0.1,
        classes: 0,
        head_bias: false,
        normalize: false,
        grey: channels == 1,
    })
}

/// What weight standardisation adds to the variance, if there is any, and whether convolutions are padded as TensorFlow's "same".
fn standard(timm: &TimmConfig) -> Result<(Option<f32>, bool)> {
    let word = timm.word("conv_layer").unwrap_or_default();
    let wrong = || timm.error(format!("conv_layer is {word:?}: not supported yet"));
    if word == "create_conv2d" {
        return Ok((None, false));
    }
    let rest = word.strip_prefix("StdConv2d").ok_or_else(wrong)?;
    let (rest, same) = rest.strip_prefix("Same").map_or((rest, false), |rest| (rest, true));
    let eps = match rest {
        "" => 1e-6,
        args => {
            let number = args.strip_prefix("(eps=").and_then(|args| args.strip_suffix(')')?.parse().ok());
            number.ok_or_else(wrong)?
        }
    };
    Ok((Some(eps), same))
}

fn norm(timm: &TimmConfig) -> Result<NormKind> {
    let word = timm.word("norm_layer").unwrap_or_default();
    match word.to_ascii_lowercase().as_str() {
        "batchnormact2d" | "batchnorm2d" | "batchnorm" => Ok(NormKind::Batch),
        "groupnormact" | "groupnormact(num_groups=32)" | "groupnorm" => Ok(NormKind::Group { groups: 32 }),
        _ => {
            Err(timm.error(format!("norm_layer is {word:?}: not supported yet, only BatchNormAct2d and GroupNormAct")))
        }
    }
}
