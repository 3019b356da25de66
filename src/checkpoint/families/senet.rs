//! timm's legacy SENets, SE-ResNets and SE-ResNeXts: ResNets with other names, whose stem pools without padding. Where the stride
//! of a bottleneck is taken, no tensor tells.

use super::names::Table;
use super::resnet::{self, Dialect};
use super::resnet_parts::Told;
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

pub(super) const FAMILY: Family = Family {
    slug: "legacy-senet",
    name: "legacy SENet",
    layout: "layer0.conv1, layerN.N.convN, .bnN, .se_module, .downsample.N, last_linear",
    anchors: &[
        "layer0.conv1.weight",
        "layer0.bn1.weight",
        "layer1.0.se_module.fc1.weight",
        "layer1.0.se_module.fc2.weight",
        "layer2.0.conv1.weight",
    ],
    enough: 4,
    bases: &[""],
    timm: CLASSES,
    read,
};

const CLASSES: &[Class] = &[Class {
    name: "SENet",
    keys: Keys {
        followed: &[
            "block",
            "downsample_kernel_size",
            "downsample_padding",
            "global_pool",
            "groups",
            "in_chans",
            "inplanes",
            "input_3x3",
            "layers",
            "num_classes",
            "reduction",
        ],
        idle: &["drop_rate"],
        only: &[],
    },
}];

const NAMES: &Table = &[
    ("conv#.*", "layer0.conv#.*"),
    ("bn#.*", "layer0.bn#.*"),
    ("layer#.#.se.*", "layer#.#.se_module.*"),
    ("fc.*", "last_linear.*"),
    ("*", "*"),
];

fn read(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let (facts, tensors) = (Facts::timm(checkpoint, CLASSES)?, Tensors::new(checkpoint, prefixes, NAMES));
    let told = facts.timm_config().is_some_and(|timm| timm.is_built()) || metadata::read(checkpoint)?.config.is_some();
    if !told && tensors.has("layer1.0.conv3.weight") {
        let what = "a legacy SENet's strides stand in no tensor: timm's config.json, which names the architecture, must stand \
                    beside it";
        return Err(checkpoint.error(what));
    }
    let head = format!("{}last_linear", prefixes.prefix);
    let told = Told { legacy: true, ..Told::PLAIN };
    let interpolation = Some(Interpolation::Bilinear);
    resnet::read(tensors, overrides, facts, Dialect { name: FAMILY.name, head, interpolation, told })
}
