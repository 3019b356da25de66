//! ResNets by torchvision's and timm's names, which are our own; ResNet-D and MoCo-v3's among them.

use std::collections::BTreeSet;

use super::Family;
use super::tensors::{Tensors, class_names};
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::metadata;
use crate::checkpoint::timm_config::TimmConfig;
use crate::checkpoint::{Overrides, Recognised};
use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;
use crate::error::{Error, Result};
use crate::model::config::Pool;
use crate::model::resnet_config::{Block, BlockConfig, Downsample, ResNetConfig, Stem};

pub(super) const FAMILY: Family = Family {
    name: "ResNet",
    layout: "conv1, bn1, layerN.N.convN, .bnN, .downsample.N, fc",
    anchors: &[
        "layer1.0.conv1.weight",
        "layer1.0.bn1.weight",
        "layer1.0.conv2.weight",
        "layer2.0.conv1.weight",
        "layer2.0.bn2.weight",
    ],
    enough: 4,
    read,
};

/// Where all of torchvision's and timm's ResNets were trained, unless their files say otherwise.
const IMAGE_SIZE: usize = 224;

fn read(checkpoint: &Checkpoint, prefix: &str, overrides: &Overrides) -> Result<Recognised> {
    if overrides.heads.is_some() || overrides.activation.is_some() || overrides.pool.is_some() {
        let what = "--heads, --activation and --pool are for vision transformers, this model is a ResNet";
        return Err(Error::Usage(what.into()));
    }
    let tensors = Tensors::new(checkpoint, prefix);
    let timm = TimmConfig::of(checkpoint);
    let own = metadata::read(checkpoint)?;
    let mut notes = Vec::new();
    if timm.pool()? == Some(Pool::Cls) {
        return Err(checkpoint.error("global_pool token of config.json is not for a ResNet"));
    }

    let written = timm.input_size().map(|[height, width]| height.min(width) as usize);
    let image_size =
        overrides.image_size.or(own.preprocess.as_ref().map(|p| p.image_size)).or(written).unwrap_or(IMAGE_SIZE);
    let config = config(&tensors, image_size, own.eps)?;
    if image_size < config.stride() {
        let stride = config.stride();
        let what = format!(
            "images of {image_size} pixels are smaller than the network's stride of {stride}: use --image-size {stride} \
             or more"
        );
        return Err(if overrides.image_size.is_some() { Error::Usage(what) } else { checkpoint.error(what) });
    }
    let names = tensors.names_of(config.parameters())?;
    let buffers = tensors.names_of(config.buffers())?;
    let (counters, ignored) = leftover(&tensors, &config, &names, &buffers, &mut notes)?;
    let preprocess = match (own.preprocess, timm.preprocess(usual(&config), &mut notes)?) {
        (Some(own), _) => Preprocess { image_size, ..own },
        (None, Some(written)) => written,
        (None, None) => {
            let p = usual(&config);
            let filter = if p.interpolation == Interpolation::Bicubic { "bicubic" } else { "bilinear" };
            let what = format!("preprocessing assumed: ImageNet's mean and std, {filter}, crop 0.875");
            notes.push(format!("{what}; --mean, --std, --interpolation and --crop-pct change it"));
            p
        }
    };
    let classes = class_names(own.classes, &timm, config.classes, &mut notes);
    Ok(Recognised {
        family: FAMILY.name,
        config: config.into(),
        preprocess,
        names,
        buffers,
        counters,
        head_names: ["fc.weight", "fc.bias"].map(|name| format!("{prefix}{name}")),
        initialised: Vec::new(),
        ignored,
        notes,
        classes,
    })
}

/// What torchvision's first weights and timm's ResNet-D expect.
fn usual(config: &ResNetConfig) -> Preprocess {
    let deep = config.stem == Stem::Deep;
    Preprocess {
        image_size: config.image_size,
        crop_pct: 0.875,
        crop_mode: CropMode::Center,
        interpolation: if deep { Interpolation::Bicubic } else { Interpolation::Bilinear },
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    }
}

fn config(tensors: &Tensors, image_size: usize, eps: Option<f32>) -> Result<ResNetConfig> {
    let width = |name: &str, kernel: usize| {
        let expected = format!("[channels, channels, {kernel}, {kernel}]");
        tensors.dims::<4>(&format!("{name}.weight"), &expected).map(|shape| shape[0])
    };
    let (stem, stem_widths) = if tensors.has("conv1.0.weight") {
        (Stem::Deep, vec![width("conv1.0", 3)?, width("conv1.3", 3)?, width("conv1.6", 3)?])
    } else {
        (Stem::Conv, vec![width("conv1", 7)?])
    };
    let (block, groups) = kind(tensors, "layer1.0")?;
    let is_avg = |name: &&str| name.ends_with(".downsample.2.weight");
    let downsample = if tensors.by_name.keys().any(is_avg) { Downsample::Avg } else { Downsample::Conv };
    let mut stages: Vec<Vec<BlockConfig>> = Vec::new();
    let mut entering = *stem_widths.last().expect("a stem has convolutions");
    for stage in 1..=numbered(tensors, "layer") {
        let mut blocks = Vec::new();
        for i in 0..=numbered(tensors, &format!("layer{stage}.")) {
            let name = format!("layer{stage}.{i}");
            if kind(tensors, &name)? != (block, groups) {
                return Err(unfit(tensors, &format!("{name}.conv1.weight")));
            }
            let inner = width(&format!("{name}.conv1"), 1)?;
            let last = if block == Block::Basic { "conv2" } else { "conv3" };
            let out = width(&format!("{name}.{last}"), 3)?;
            let stride = if stage > 1 && i == 0 { 2 } else { 1 };
            let has_conv = [0, 1].iter().any(|n| tensors.has(&format!("{name}.downsample.{n}.weight")));
            let downsample = has_conv || entering != out || stride > 1;
            blocks.push(BlockConfig { inner, out, stride, downsample });
            entering = out;
        }
        stages.push(blocks);
    }
    let classes = if tensors.has("fc.weight") { tensors.dims::<2>("fc.weight", "[classes, width]")?[0] } else { 0 };
    Ok(ResNetConfig {
        image_size,
        block,
        stem,
        stem_widths,
        stages,
        downsample,
        groups,
        eps: eps.unwrap_or(1e-5),
        momentum: 0.1,
        classes,
        head_bias: tensors.has("fc.bias"),
    })
}

/// The kind of a block and its groups, by its kernels.
fn kind(tensors: &Tensors, name: &str) -> Result<(Block, usize)> {
    let conv = |i: usize| format!("{name}.conv{i}.weight");
    let shape = |i: usize| tensors.dims::<4>(&conv(i), "four dimensions");
    let ([_, _, h1, w1], [_, in2, h2, w2]) = (shape(1)?, shape(2)?);
    let bottleneck = tensors.has(&conv(3));
    match ([h1, w1], [h2, w2], bottleneck) {
        ([3, 3], [3, 3], false) => Ok((Block::Basic, 1)),
        ([1, 1], [3, 3], true) => {
            let inner = shape(1)?[0];
            if !inner.is_multiple_of(in2) {
                return Err(unfit(tensors, &conv(2)));
            }
            Ok((Block::Bottleneck, inner / in2))
        }
        ([3, 3] | [1, 1], _, _) => Err(unfit(tensors, &conv(2))),
        _ => Err(unfit(tensors, &conv(1))),
    }
}

fn unfit(tensors: &Tensors, name: &str) -> Error {
    let shape = tensors.by_name.get(name).map(|info| &info.shape);
    tensors.checkpoint.error(format!(
        "a ResNet whose tensors fit no known block: {}{name} has shape {:?}; supported are basic blocks (3x3, 3x3) and \
         bottlenecks (1x1, 3x3, 1x1), the same throughout",
        tensors.prefix,
        shape.map_or(&[][..], Vec::as_slice)
    ))
}

/// The largest number that follows `start` in a name: `layer3.0.conv1.weight` has a 3 after `layer`.
fn numbered(tensors: &Tensors, start: &str) -> usize {
    let number = |name: &&str| name.strip_prefix(start)?.split('.').next()?.parse::<usize>().ok();
    // A number far beyond the tensors' count is a block that is missing in any case.
    tensors.by_name.keys().filter_map(number).max().unwrap_or(0).min(tensors.by_name.len())
}

/// The counters and the tensors that are left over; an error where one would change what the model computes.
fn leftover(
    tensors: &Tensors,
    config: &ResNetConfig,
    names: &[(String, String)],
    buffers: &[(String, String)],
    notes: &mut Vec<String>,
) -> Result<(Vec<String>, Vec<String>)> {
    let mut used: BTreeSet<&str> = names.iter().chain(buffers).map(|(_, in_file)| in_file.as_str()).collect();
    let mut counters = Vec::new();
    for unit in config.units() {
        let counter = tensors.by_name.get(format!("{}.num_batches_tracked", unit.norm).as_str());
        counters.extend(counter.map(|info| info.name.clone()));
    }
    used.extend(counters.iter().map(String::as_str));
    let mut projector = false;
    for (name, info) in &tensors.by_name {
        let inside = ["conv1.", "bn1.", "layer", "fc."].iter().any(|part| name.starts_with(part));
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
