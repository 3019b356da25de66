//! The attention pool behind CLIP's ResNets: what its tensors tell, and what becomes of its positions at another image size.

use std::collections::BTreeMap;

use super::tensors::{ASSUMED, Tensors, misfit};
use super::vit_positions::MAX_SIZE;
use crate::checkpoint::positions::Resize;
use crate::checkpoint::{Note, OVERRIDE, Overrides};
use crate::error::{Help, Result, Setting};
use crate::model::resnet_config::{Pooling, ResNetConfig};

/// Width of a head of every attention pool that OpenAI and OpenCLIP trained.
const HEAD_DIM: usize = 64;

/// Pixels along a side of what the attention pool has positions for.
pub(super) fn grid(tensors: &Tensors) -> Result<usize> {
    let name = "attnpool.positional_embedding";
    let [positions, _] = tensors.dims(name, "[positions, width]")?;
    let grid = (positions - 1).isqrt();
    if grid == 0 || grid * grid != positions - 1 {
        let what = format!("has {positions} positions: one and those of a square grid are expected");
        return Err(tensors.error(tensors.get(name)?, what));
    }
    Ok(grid)
}

/// The attention pool behind `width` channels, whose heads no tensor tells.
pub(super) fn attention(
    tensors: &Tensors,
    width: usize,
    written: Option<(usize, String)>,
    overrides: &Overrides,
    notes: &mut Vec<Note>,
    sources: &mut BTreeMap<&'static str, String>,
) -> Result<Pooling> {
    let fits = |heads: usize| heads > 0 && width.is_multiple_of(heads);
    let heads = match (overrides.heads, written) {
        (Some(heads), _) if !fits(heads) => {
            let what = format!("{heads} heads do not divide the attention pool's width {width}");
            return Err(misfit(Setting::Heads, what));
        }
        (None, Some((heads, place))) if !fits(heads) => {
            let what = format!("{heads} heads ({place}) do not divide the attention pool's width {width}");
            return Err(tensors.checkpoint.error(what).with_help(Help::Heads));
        }
        (Some(heads), _) => {
            sources.insert("heads", OVERRIDE.into());
            heads
        }
        (None, Some((heads, place))) => {
            sources.insert("heads", place);
            heads
        }
        (None, None) if width.is_multiple_of(HEAD_DIM) => {
            let heads = width / HEAD_DIM;
            sources.insert("heads", ASSUMED.into());
            let what = format!("heads assumed: {heads} of {HEAD_DIM} dimensions, as CLIP has");
            notes.push(Note { what, settings: &[Setting::Heads] });
            heads
        }
        (None, None) => {
            let what = format!(
                "its attention pool's width {width} is no multiple of {HEAD_DIM}, so the number of heads can't be told"
            );
            return Err(tensors.checkpoint.error(what).with_help(Help::Heads));
        }
    };
    let [features, _] = tensors.dims("attnpool.c_proj.weight", "[features, width]")?;
    Ok(Pooling::Attention { heads, features })
}

/// What becomes of the positions of a file for images of `own` pixels, `from` along a side, where `config` has others. The
/// first stands for the mean and stays; the others are resized as timm's `AttentionPool2d` does, OpenCLIP's takes one size only.
pub(super) fn resize(from: usize, own: usize, config: &ResNetConfig, notes: &mut Vec<Note>) -> Result<Option<Resize>> {
    let (size, to) = (config.image_size, config.final_size());
    if to == from {
        return Ok(None);
    }
    if size > MAX_SIZE {
        return Err(misfit(Setting::ImageSize, format!("an image size of {size} is more than {MAX_SIZE}")));
    }
    let what = format!("positions resized from {from} x {from} ({own} pixels) to {to} x {to} ({size} pixels)");
    notes.push(what.into());
    Ok(Some(Resize {
        name: "attnpool.positional_embedding".into(),
        prefix: 1,
        from,
        to,
        antialias: true,
        relative: None,
    }))
}
