//! VGG by timm's names, which are our own, and by torchvision's.

use super::described::Described;
use super::inputs::IMAGENET;
use super::names::Table;
use super::tensors::Tensors;
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::known::Keys;
use crate::checkpoint::metadata;
use crate::checkpoint::timm_config::Class;
use crate::checkpoint::{Overrides, Recognised};
use crate::data::resize::Interpolation;
use crate::error::{Error, Help, Result};
use crate::model::vgg_config::{GRID, VggConfig};

pub(super) const FAMILY: Family = Family {
    slug: "vgg",
    name: "VGG",
    layout: "features.N, pre_logits.fc1, pre_logits.fc2, head.fc",
    anchors: &["features.0.weight", "features.0.bias", "pre_logits.fc1.weight", "pre_logits.fc2.weight"],
    enough: 3,
    bases: &[""],
    timm: CLASSES,
    read: read_timm,
};

pub(super) const TORCHVISION: Family = Family {
    slug: "torchvision-vgg",
    name: "torchvision VGG",
    layout: "features.N, classifier.0, classifier.3, classifier.6",
    anchors: &[
        "features.0.weight",
        "features.0.bias",
        "classifier.0.weight",
        "classifier.3.weight",
        "classifier.6.weight",
    ],
    enough: 4,
    bases: &[""],
    timm: &[],
    read: read_torchvision,
};

/// What timm's VGGs are built from.
const CLASSES: &[Class] = &[Class {
    name: "VGG",
    keys: Keys {
        followed: &["cfg", "global_pool", "in_chans", "mlp_ratio", "norm_layer", "num_classes"],
        idle: &["drop_rate"],
        only: &[("act_layer", &["\"ReLU\"", "\"relu\""]), ("conv_layer", &["\"Conv2d\""])],
    },
}];

const NAMES: &Table = &[
    ("features.#.*", "features.#.*"),
    ("pre_logits.fc1.*", "classifier.0.*"),
    ("pre_logits.fc2.*", "classifier.3.*"),
    ("head.fc.*", "classifier.6.*"),
];

fn read_timm(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let facts = Facts::timm(checkpoint, CLASSES)?;
    if let Some(timm) = facts.timm_config()
        && let Some((value, place)) = timm.value("norm_layer")
        && value != "BatchNorm2d"
    {
        return Err(timm.error(format!("norm_layer is {value} ({place}): not supported yet")));
    }
    read(Tensors::new(checkpoint, prefixes, &[]), overrides, facts, &FAMILY, format!("{}head.fc", prefixes.prefix))
}

fn read_torchvision(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let (facts, tensors) = (Facts::torchvision(checkpoint), Tensors::new(checkpoint, prefixes, NAMES));
    read(tensors, overrides, facts, &TORCHVISION, format!("{}classifier.6", prefixes.prefix))
}

fn read(
    tensors: Tensors,
    overrides: &Overrides,
    facts: Facts,
    family: &'static Family,
    head: String,
) -> Result<Recognised> {
    let checkpoint = tensors.checkpoint;
    let own = metadata::read(checkpoint)?;
    let config = config(&tensors)?;
    let stride = config.stride();
    let described = Described {
        tensors: &tensors,
        overrides,
        facts,
        own,
        family: family.name,
        what: "a VGG",
        head,
        usual: (0.875, Interpolation::Bilinear, IMAGENET),
    };
    // Its hidden layers read a grid of one size.
    let recognised = described.sized(config.into(), "every VGG's", |size| match size / stride {
        GRID => Ok(()),
        _ => Err(format!(
            "images of {size} pixels: its hidden layers read a grid of {GRID} x {GRID}, so {} are needed",
            GRID * stride
        )),
    });
    recognised.map_err(|error| if overrides.image_size.is_none() { error.with_help(Help::ImageSize) } else { error })
}

/// What the tensors tell: all but image size and head.
fn config(tensors: &Tensors) -> Result<VggConfig> {
    let at = |place: usize| tensors.by_name.get(&format!("features.{place}.weight")).map(|info| info.shape.len());
    let norm = at(1) == Some(1);
    let step = if norm { 3 } else { 2 };
    let (mut widths, mut place) = (vec![Vec::new()], 0);
    let grey = tensors.dims::<4>("features.0.weight", "[outputs, channels, 3, 3]")?[1] == 1;
    loop {
        match (at(place), at(place + 1)) {
            (Some(4), _) => {
                let [outputs, _, height, width] =
                    tensors.dims::<4>(&format!("features.{place}.weight"), "[outputs, inputs, 3, 3]")?;
                if [height, width] != [3, 3] {
                    return Err(unfit(tensors, place));
                }
                widths.last_mut().expect("one stage at least").push(outputs);
                place += step;
            }
            // A pool has no tensor.
            (None, Some(4)) => {
                widths.push(Vec::new());
                place += 1;
            }
            (None, None) => break,
            _ => return Err(unfit(tensors, place)),
        }
    }
    let hidden = ["pre_logits.fc1.weight", "pre_logits.fc2.weight"].map(|name| tensors.get(name));
    let [fc1, fc2] = hidden;
    let (fc1, fc2) = (fc1?, fc2?);
    let rows = [fc1, fc2].map(|info| info.shape.first().copied().unwrap_or(0));
    Ok(VggConfig {
        image_size: 0,
        widths,
        norm,
        hidden: rows,
        flat: fc1.shape.len() == 2,
        eps: 1e-5,
        momentum: 0.1,
        classes: 0,
        head_bias: false,
        normalize: false,
        grey,
    })
}

fn unfit(tensors: &Tensors, place: usize) -> Error {
    tensors
        .checkpoint
        .error(format!("features.{place} is no layer of a VGG: 3x3 convolutions, perhaps batch norms, and pools"))
}
