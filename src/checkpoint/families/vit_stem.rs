//! What stands in place of a patch's projection in a vision transformer, and how large its patches are: the tensors tell.

use super::resnetv2;
use super::tensors::Tensors;
use crate::error::Result;
use crate::model::resnetv2_config::ResNetV2Config;
use crate::model::vit_stem::Stem;

/// Where timm has a stem of convolutions.
const BACKBONE: &str = "patch_embed.backbone.";

/// What makes patches of images.
pub(super) struct Embedding {
    /// A stem of convolutions that leaves patches.
    pub(super) stem: Option<Stem>,
    /// A network whose pixels are embedded.
    pub(super) backbone: Option<Box<ResNetV2Config>>,
    /// Width of tokens.
    pub(super) dim: usize,
    /// Pixels of the image along a patch's side.
    pub(super) patch_size: usize,
    /// Whether it reads one channel.
    pub(super) grey: bool,
}

impl Embedding {
    /// What makes patches of images, by the tensors that there are.
    pub(super) fn read(tensors: &Tensors) -> Result<Embedding> {
        let stem = if tensors.has(&format!("{BACKBONE}stem.conv1.weight")) {
            bottlenecks(tensors)?
        } else if tensors.has(&format!("{BACKBONE}0.conv.weight")) {
            patches(tensors)?
        } else {
            return Self::projected(tensors);
        };
        let (stem, dim) = stem;
        let channels = tensors.dims::<4>(stem.weight(), "[width, 3 or 1, height, width]")?[1];
        if ![1, 3].contains(&channels) {
            let what = format!("reads {channels} channels, only one or three are supported");
            return Err(tensors.error(tensors.get(stem.weight())?, what));
        }
        let (patch_size, grey) = (stem.patch_size(), channels == 1);
        Ok(Embedding { stem: Some(stem), backbone: None, dim, patch_size, grey })
    }

    /// A projection of patches, or of a network's pixels.
    fn projected(tensors: &Tensors) -> Result<Embedding> {
        let name = "patch_embed.proj.weight";
        let [dim, channels, patch_size, width] = tensors.dims(name, "[dim, 3 or 1, patch, patch]")?;
        let backbone = match tensors.has(&format!("{BACKBONE}stem.conv.weight")) {
            true => Some(Box::new(resnetv2::backbone(tensors, BACKBONE)?)),
            false => None,
        };
        let fits = match &backbone {
            Some(backbone) => channels == backbone.features(),
            None => [1, 3].contains(&channels),
        };
        if !fits || width != patch_size {
            let shape = &tensors.get(name)?.shape;
            let what = format!("has shape {shape:?}, only square patches of one or three channels are supported");
            return Err(tensors.error(tensors.get(name)?, what));
        }
        let grey = backbone.as_ref().map_or(channels == 1, |backbone| backbone.grey);
        let patch_size = patch_size * backbone.as_ref().map_or(1, |backbone| backbone.stride());
        Ok(Embedding { stem: None, backbone, dim, patch_size, grey })
    }
}

/// How many there are of `name`, whose `#` is a number from 0 on.
fn count(tensors: &Tensors, name: &str) -> usize {
    let has = |i: &usize| tensors.has(&format!("{BACKBONE}{}", name.replace('#', &i.to_string())));
    (0..).take_while(has).count()
}

fn patches(tensors: &Tensors) -> Result<(Stem, usize)> {
    let layer = |i: usize| {
        let name = format!("{BACKBONE}{i}.conv.weight");
        let [outputs, _, size, _] = tensors.dims(&name, "[outputs, inputs, patch, patch]")?;
        Ok([outputs, size])
    };
    let layers = (0..count(tensors, "#.conv.weight")).map(layer).collect::<Result<Vec<_>>>()?;
    let dim = layers.last().map_or(0, |[outputs, _]| *outputs);
    Ok((Stem::Patches { layers }, dim))
}

fn bottlenecks(tensors: &Tensors) -> Result<(Stem, usize)> {
    let width = |name: &str, expected: &str| -> Result<usize> {
        Ok(tensors.dims::<4>(&format!("{BACKBONE}{name}"), expected)?[0])
    };
    let (mut stages, mut hidden) = (Vec::new(), Vec::new());
    for stage in 0..count(tensors, "stages.#.0.conv1_1x1.weight") {
        let depth = count(tensors, &format!("stages.{stage}.#.conv1_1x1.weight"));
        hidden.push(width(&format!("stages.{stage}.0.conv1_1x1.weight"), "[hidden, inputs, 1, 1]")?);
        stages.push([width(&format!("stages.{stage}.0.conv3_1x1.weight"), "[width, hidden, 1, 1]")?, depth]);
    }
    let first = width("stem.conv1.weight", "[width, 3, 3, 3]")?;
    let dim = width("pool.proj.weight", "[dim, width, 3, 3]")?;
    Ok((Stem::Bottlenecks { width: first, stages, hidden }, dim))
}
