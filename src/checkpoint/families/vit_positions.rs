//! What the position embedding of a vision transformer tells, and what becomes of it at another image size.

use super::tensors;
use super::vit::Reader;
use crate::checkpoint::Note;
use crate::checkpoint::facts::Facts;
use crate::checkpoint::json::quote;
use crate::checkpoint::positions::Resize;
use crate::error::{Help, Result, Setting};
use crate::model::config::{Positions, VitConfig};

/// Pixels along a side, at most: what preprocessing takes.
pub(super) const MAX_SIZE: usize = 1 << 14;

impl Reader<'_> {
    /// From the number of positions, which lie on a square grid of patches: the image size, and which tokens have one.
    pub(super) fn image_size(
        &self,
        dim: usize,
        patch_size: usize,
        class_token: bool,
        extra: usize,
        flat: bool,
        notes: &mut Vec<Note>,
    ) -> Result<(usize, Positions)> {
        let tensors = self.tensors;
        let count = match flat {
            true => tensors.dims::<2>("pos_embed", &format!("[positions, {dim}]"))?[0],
            false => tensors.dims::<3>("pos_embed", &format!("[1, positions, {dim}]"))?[1],
        };
        let info = tensors.get("pos_embed")?;
        let square = |n: &usize| *n > 0 && n.isqrt().pow(2) == *n;
        let class = usize::from(class_token);
        let ways = [(Positions::All, class + extra), (Positions::Class, class), (Positions::Patches, 0)];
        let found = ways.into_iter().find_map(|(positions, prefix)| {
            let patches = count.checked_sub(prefix).filter(square)?;
            Some((positions, patches.isqrt()))
        });
        let Some((positions, grid)) = found else {
            let patches = count.saturating_sub(class + extra);
            return Err(
                tensors.error(info, format!("has {patches} positions for patches, no square grid: not supported yet"))
            );
        };
        let size = grid * patch_size;
        let fits = |size: usize| size / patch_size == grid;
        // What we have saved or are told to take comes before the configuration.
        let ours = self.own.preprocess.is_some() || self.overrides.image_size.is_some();
        if let Some((told, place)) = self.told_size()? {
            if fits(told) {
                return Ok((told, positions));
            }
            if !ours {
                let what = format!(
                    "is for images of {size} pixels, but {place} is {told}: its library resizes the positions or refuses them"
                );
                return Err(tensors.error(info, what).with_help(Help::ImageSize));
            }
        }
        if let Some(written) = self.dialect.facts.square_input(tensors.checkpoint)? {
            if fits(written) {
                return Ok((written, positions));
            }
            let file = self.dialect.facts.file();
            let what = format!("{file} says {written} pixels, the positions are for {size}: {size} is used");
            notes.push(what.into());
        }
        // A patch's worth may be left over at the bottom and on the right, as the convolution leaves it.
        let own = self.own.preprocess.as_ref().map(|p| p.image_size);
        Ok((own.filter(|own| own / patch_size == grid).unwrap_or(size), positions))
    }

    /// The size of the images that the library builds the model for, and where it is written. timm's images have that size,
    /// whatever its `input_size` says.
    fn told_size(&self) -> Result<Option<(usize, String)>> {
        let facts = &self.dialect.facts;
        let Facts::Timm(timm) = facts else {
            // A file's name says how images are prepared.
            if matches!(facts, Facts::Torchvision(_)) {
                return Ok(None);
            }
            let written = facts.square_input(self.tensors.checkpoint)?;
            return Ok(written.map(|size| (size, format!("image_size of {}", facts.file()))));
        };
        let written = timm.written("img_size");
        let fixed = timm.input("fixed_input_size").and_then(serde_json::Value::as_bool) == Some(true);
        if let (None, true, Some(size)) = (&written, fixed, facts.square_input(self.tensors.checkpoint)?) {
            return Ok(Some((size, "input_size of config.json, which is fixed".into())));
        }
        let Some((value, place)) = written.or_else(|| timm.value("img_size").filter(|_| timm.is_built())) else {
            return Ok(None);
        };
        let side = |value: &serde_json::Value| value.as_u64().and_then(|side| usize::try_from(side).ok());
        let size = match value.as_array().map(Vec::as_slice) {
            Some([height, width]) if height == width => side(height),
            Some(_) => None,
            None => side(&value),
        };
        let Some(size) = size else {
            let what = format!(
                "img_size is {} ({place}), supported: a whole number, or two that are equal",
                quote(&value.to_string())
            );
            return Err(timm.error(what));
        };
        Ok(Some((size, if place.starts_with("architecture") { format!("img_size of {place}") } else { place })))
    }

    /// The image size of a model without a position embedding: from the offsets of relative positions, our own metadata, or the
    /// configuration.
    pub(super) fn size_without_positions(&self, patch_size: usize, relative: bool) -> Result<usize> {
        let tensors = self.tensors;
        if relative {
            let name = "blocks.0.attn.relative_position_bias_table";
            let [offsets, _] = tensors.dims::<2>(name, "[offsets, heads]")?;
            let side = offsets.saturating_sub(3).isqrt();
            let grid = side.div_ceil(2);
            if side * side + 3 != offsets || side.is_multiple_of(2) {
                let what =
                    format!("has {offsets} offsets, which is no square grid and a class token: not supported yet");
                return Err(tensors.error(tensors.get(name)?, what));
            }
            return Ok(grid * patch_size);
        }
        if let Some(own) = &self.own.preprocess {
            return Ok(own.image_size);
        }
        let written = match self.dialect.facts.input_size() {
            Some([height, width]) if height == width => Some(width as usize),
            Some([height, width]) => {
                return Err(tensors.checkpoint.error(format!("is for images of {height} x {width}: not square")));
            }
            None => self.overrides.image_size,
        };
        self.check_tower_size(written)?;
        match written {
            Some(size) if size >= patch_size && size.is_multiple_of(patch_size) && size <= MAX_SIZE => Ok(size),
            Some(size) => Err(tensors.checkpoint.error(format!(
                "its images of {size} pixels are no multiple of the patch size {patch_size}: not supported yet"
            ))),
            None => {
                let what = "has no position embedding, and no configuration that gives the size of its images";
                Err(tensors.checkpoint.error(what).with_help(Help::ImageSize))
            }
        }
    }

    /// Checks that a tower of timm's takes the images that OpenCLIP makes.
    fn check_tower_size(&self, written: Option<usize>) -> Result<()> {
        let (Facts::Trunk(_, timm), Some(size)) = (&self.dialect.facts, written) else { return Ok(()) };
        let Some((value, place)) = timm.value("img_size") else { return Ok(()) };
        let own = value.as_u64().or_else(|| value.as_array()?.first()?.as_u64());
        match own.filter(|own| *own != size as u64) {
            Some(own) => Err(timm.error(format!("image_size is {size}, but {place} takes images of {own} pixels"))),
            None => Ok(()),
        }
    }

    /// Puts the image size that is asked for into `config`, and says what becomes of the positions.
    pub(super) fn resize(&self, config: &mut VitConfig, notes: &mut Vec<Note>) -> Result<Option<Resize>> {
        let own = self.own.preprocess.as_ref().map(|p| p.image_size);
        let by_processor = self.dialect.facts.processed_size().filter(|_| own.is_none());
        let Some(size) = self.overrides.image_size.or(by_processor).filter(|size| *size != config.image_size) else {
            return Ok(None);
        };
        let misfit = |what| match self.overrides.image_size {
            Some(_) => tensors::misfit(Setting::ImageSize, what),
            None => self.tensors.checkpoint.error(what).with_help(Help::ImageSize),
        };
        if size > MAX_SIZE {
            return Err(misfit(format!("an image size of {size} is more than {MAX_SIZE}")));
        }
        if self.overrides.image_size.is_none() && size / config.patch_size == config.grid() {
            config.image_size = size;
            return Ok(None);
        }
        if size < config.patch_size || !size.is_multiple_of(config.patch_size) {
            let patch = config.patch_size;
            return Err(misfit(format!("an image size of {size} is no multiple of the patch size {patch}")));
        }
        if config.parts.positions == Positions::Absent && !config.parts.relative {
            if config.parts.rope.is_some() {
                notes.push(format!("rotary positions follow the grid of {size} pixels").into());
            }
            config.image_size = size;
            return Ok(None);
        }
        let from = config.grid();
        let (own, to) = (config.image_size, size / config.patch_size);
        let what = format!("positions resized from {from} x {from} ({own} pixels) to {to} x {to} ({size} pixels)");
        notes.push(what.into());
        config.image_size = size;
        Ok(Some(Resize {
            name: "pos_embed".into(),
            prefix: config.prefix().positions(),
            from,
            to: config.grid(),
            antialias: self.dialect.antialias,
            relative: config.parts.relative.then_some(self.dialect.relative),
        }))
    }
}
