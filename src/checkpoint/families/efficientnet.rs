//! EfficientNet, MobileNetV2 and MobileNetV3 by timm's names, which are our own. Strides, activations and padding stand in no
//! tensor: they come from the architecture that the configuration names, or from what we have saved ourselves.

use super::described::{Described, told_or_saved};
use super::efficientnet_parts::config;
use super::inputs::IMAGENET;
use super::tensors::Tensors;
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::known::Keys;
use crate::checkpoint::metadata;
use crate::checkpoint::timm_config::Class;
use crate::checkpoint::{Overrides, Recognised};
use crate::data::resize::Interpolation;
use crate::error::Result;
use crate::model::ModelConfig;

pub(super) const FAMILY: Family = Family {
    slug: "efficientnet",
    name: "EfficientNet",
    layout: "conv_stem, bn1, blocks.N.N.conv_pw, .conv_dw, .se.conv_reduce, .conv_pwl, conv_head, classifier",
    anchors: &["conv_stem.weight", "bn1.weight", "bn1.bias", "bn1.running_mean"],
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
        "head_norm",
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
    only: &[
        ("aa_layer", &["\"avg\"", "\"avgpool\"", "\"blur\"", "\"blurpc\"", "\"blurpool\""]),
        ("pad_type", &["\"same\""]),
    ],
};

const CLASSES: &[Class] = &[Class { name: "EfficientNet", keys: KEYS }, Class { name: "MobileNetV3", keys: KEYS }];

fn read(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let tensors = Tensors::new(checkpoint, prefixes, &[]);
    let facts = Facts::timm(checkpoint, CLASSES)?;
    let own = metadata::read(checkpoint)?;
    let saved = own.config.clone().filter(|config| matches!(config, ModelConfig::EfficientNet(_)));
    let told = config(&tensors, &facts)?.map(ModelConfig::from);
    let (config, source) = told_or_saved(&tensors, told, saved, "an EfficientNet")?;
    let described = Described {
        tensors: &tensors,
        overrides,
        facts,
        own,
        family: FAMILY.name,
        what: "an EfficientNet",
        head: format!("{}classifier", prefixes.prefix),
        usual: (0.875, Interpolation::Bicubic, IMAGENET),
    };
    described.recognised(config, source)
}
