//! RegNet X and Y by timm's and torchvision's names: ResNets with other names, a gate inside of the branch, and no pool in the stem.

use super::names::Table;
use super::resnet::{self, Dialect};
use super::resnet_parts::Told;
use super::tensors::Tensors;
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::known::Keys;
use crate::checkpoint::timm_config::Class;
use crate::checkpoint::{Overrides, Recognised};
use crate::data::resize::Interpolation;
use crate::error::Result;

pub(super) const FAMILY: Family = Family {
    slug: "regnet",
    name: "RegNet",
    layout: "stem.conv, stem.bn, sN.bN.convN.conv, .convN.bn, .se, .downsample, head.fc",
    anchors: &[
        "stem.conv.weight",
        "s1.b1.conv1.conv.weight",
        "s1.b1.conv2.conv.weight",
        "s1.b1.conv2.bn.weight",
        "s2.b1.conv3.conv.weight",
    ],
    enough: 4,
    bases: &[""],
    timm: CLASSES,
    read: read_timm,
};

pub(super) const TORCHVISION: Family = Family {
    slug: "torchvision-regnet",
    name: "torchvision RegNet",
    layout: "stem.N, trunk_output.blockN.blockN-N.f.a, .f.b, .f.se, .f.c, .proj, fc",
    anchors: &[
        "stem.0.weight",
        "trunk_output.block1.block1-0.f.a.0.weight",
        "trunk_output.block1.block1-0.f.b.0.weight",
        "trunk_output.block2.block2-0.f.c.0.weight",
    ],
    enough: 3,
    bases: &[""],
    timm: &[],
    read: read_torchvision,
};

/// What timm's RegNets are built from.
const CLASSES: &[Class] = &[Class {
    name: "RegNet",
    keys: Keys {
        followed: &["cfg", "global_pool", "in_chans", "num_classes"],
        idle: &["drop_path_rate", "drop_rate", "zero_init_last"],
        only: &[],
    },
}];

/// The entries of `cfg`. The tensors tell widths and depths.
const CFG: Keys = Keys {
    followed: &["bottle_ratio", "depth", "group_min_ratio", "group_size", "se_ratio", "stem_width", "w0", "wa", "wm"],
    idle: &[],
    only: &[
        ("act_layer", &["\"relu\""]),
        ("downsample", &["\"conv1x1\""]),
        ("linear_out", &["false"]),
        ("norm_layer", &["\"batchnorm\""]),
        ("num_features", &["0"]),
        ("preact", &["false"]),
    ],
};

const NAMES: &Table = &[
    ("conv1.*", "stem.conv.*"),
    ("bn1.*", "stem.bn.*"),
    ("layer#.#.conv#.*", "s#.b+.conv#.conv.*"),
    ("layer#.#.bn#.*", "s#.b+.conv#.bn.*"),
    ("layer#.#.se.*", "s#.b+.se.*"),
    ("layer#.#.downsample.0.*", "s#.b+.downsample.conv.*"),
    ("layer#.#.downsample.1.*", "s#.b+.downsample.bn.*"),
    ("fc.*", "head.fc.*"),
];

/// torchvision's names, which say the stage twice.
macro_rules! names {
    ($($stage:literal)*) => {
        &[
            ("conv1.*", "stem.0.*"),
            ("bn1.*", "stem.1.*"),
            ("fc.*", "fc.*"),
            $(
                names!(row $stage, ".#.conv1.*", ".f.a.0.*"),
                names!(row $stage, ".#.bn1.*", ".f.a.1.*"),
                names!(row $stage, ".#.conv2.*", ".f.b.0.*"),
                names!(row $stage, ".#.bn2.*", ".f.b.1.*"),
                names!(row $stage, ".#.se.*", ".f.se.*"),
                names!(row $stage, ".#.conv3.*", ".f.c.0.*"),
                names!(row $stage, ".#.bn3.*", ".f.c.1.*"),
                names!(row $stage, ".#.downsample.0.*", ".proj.0.*"),
                names!(row $stage, ".#.downsample.1.*", ".proj.1.*"),
            )*
        ]
    };
    (row $stage:literal, $ours:literal, $theirs:literal) => {
        (concat!("layer", $stage, $ours), concat!("trunk_output.block", $stage, ".block", $stage, "-#", $theirs))
    };
}

const TORCHVISION_NAMES: &Table = names!("1" "2" "3" "4");

fn read_timm(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let facts = Facts::timm(checkpoint, CLASSES)?;
    if let Facts::Timm(config) | Facts::Trunk(_, config) = &facts
        && let Some((cfg, place)) = config.value("cfg")
    {
        let Some(entries) = cfg.as_object() else {
            return Err(config.error(format!("cfg is {cfg} ({place}), expected an object")));
        };
        let place = format!("{place}: cfg.");
        // Null is a value of its own there: no shortcut where the shape changes.
        let bare = entries.get("downsample").is_some_and(serde_json::Value::is_null);
        let bare = bare.then(|| format!("{place}downsample is null: not supported yet"));
        if let Some(fault) = CFG.fault_in(&place, entries).or(bare) {
            return Err(config.error(fault));
        }
    }
    let tensors = Tensors::new(checkpoint, prefixes, NAMES);
    read(tensors, prefixes, overrides, facts, (&FAMILY, "head.fc", Interpolation::Bicubic))
}

fn read_torchvision(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let (facts, tensors) = (Facts::torchvision(checkpoint), Tensors::new(checkpoint, prefixes, TORCHVISION_NAMES));
    read(tensors, prefixes, overrides, facts, (&TORCHVISION, "fc", Interpolation::Bilinear))
}

fn read(
    tensors: Tensors,
    prefixes: Prefixes,
    overrides: &Overrides,
    facts: Facts,
    (family, head, interpolation): (&Family, &str, Interpolation),
) -> Result<Recognised> {
    const PARTS: [&str; 7] = ["stem.", "trunk_output.", "s1.", "s2.", "s3.", "s4.", "final_conv."];
    if let Some((_, info)) = tensors.unnamed.iter().find(|(name, _)| PARTS.iter().any(|part| name.starts_with(part))) {
        return Err(tensors.error(info, "belongs to a part that a RegNet X or Y does not have: not supported yet"));
    }
    let head = format!("{}{head}", prefixes.prefix);
    resnet::read(
        tensors,
        overrides,
        facts,
        Dialect {
            name: family.name,
            head,
            interpolation: Some(interpolation),
            told: Told { regnet: true, ..Told::PLAIN },
        },
    )
}
