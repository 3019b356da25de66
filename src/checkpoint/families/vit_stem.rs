//! What stands in place of a patch's projection in a vision transformer, and how large its patches are: the tensors tell.

use super::resnetv2;
use super::vit::Reader;
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

impl Reader<'_> {
    /// What makes patches of images.
    pub(super) fn embedding(&self) -> Result<Embedding> {
        let tensors = self.tensors;
        let stem = if tensors.has(&format!("{BACKBONE}stem.conv1.weight")) {
            self.bottlenecks()?
        } else if tensors.has(&format!("{BACKBONE}0.conv.weight")) {
            self.patches()?
        } else {
            return self.projected();
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
    fn projected(&self) -> Result<Embedding> {
        let tensors = self.tensors;
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

    /// How many there are of `name`, whose `#` is a number from 0 on.
    fn count(&self, name: &str) -> usize {
        let has = |i: &usize| self.tensors.has(&format!("{BACKBONE}{}", name.replace('#', &i.to_string())));
        (0..).take_while(has).count()
    }

    fn patches(&self) -> Result<(Stem, usize)> {
        let layer = |i: usize| {
            let name = format!("{BACKBONE}{i}.conv.weight");
            let [outputs, _, size, _] = self.tensors.dims(&name, "[outputs, inputs, patch, patch]")?;
            Ok([outputs, size])
        };
        let layers = (0..self.count("#.conv.weight")).map(layer).collect::<Result<Vec<_>>>()?;
        let dim = layers.last().map_or(0, |[outputs, _]| *outputs);
        Ok((Stem::Patches { layers }, dim))
    }

    fn bottlenecks(&self) -> Result<(Stem, usize)> {
        let width = |name: &str, expected: &str| -> Result<usize> {
            Ok(self.tensors.dims::<4>(&format!("{BACKBONE}{name}"), expected)?[0])
        };
        let (mut stages, mut hidden) = (Vec::new(), Vec::new());
        for stage in 0..self.count("stages.#.0.conv1_1x1.weight") {
            let depth = self.count(&format!("stages.{stage}.#.conv1_1x1.weight"));
            hidden.push(width(&format!("stages.{stage}.0.conv1_1x1.weight"), "[hidden, inputs, 1, 1]")?);
            stages.push([width(&format!("stages.{stage}.0.conv3_1x1.weight"), "[width, hidden, 1, 1]")?, depth]);
        }
        let first = width("stem.conv1.weight", "[width, 3, 3, 3]")?;
        let dim = width("pool.proj.weight", "[dim, width, 3, 3]")?;
        Ok((Stem::Bottlenecks { width: first, stages, hidden }, dim))
    }
}
