//! timm's `VisionTransformer`: the family whose names are our own.

use std::collections::{BTreeMap, BTreeSet};

use super::Family;
use super::tensors::{ASSUMED, Tensors, class_names, first};
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::metadata::{self, Own};
use crate::checkpoint::timm_config::{TimmConfig, timm_vit_preprocess, usual_heads};
use crate::checkpoint::{Overrides, Recognised};
use crate::data::preprocess::Preprocess;
use crate::error::{Error, Result};
use crate::model::config::{Activation, Pool, VitConfig};

pub(super) const FAMILY: Family = Family {
    name: "timm ViT",
    layout: "cls_token, pos_embed, patch_embed.proj, blocks.N.norm1, .attn.qkv, .attn.proj, .norm2, .mlp.fc1, .mlp.fc2, \
             norm or fc_norm, head",
    anchors: &[
        "patch_embed.proj.weight",
        "blocks.0.norm1.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.mlp.fc1.weight",
    ],
    enough: 3,
    read,
};

/// Parts of names that stand for a computation we don't have yet, and what it is called.
const UNSUPPORTED: [(&str, &str); 13] = [
    ("dist_token", "a distillation token (DeiT)"),
    ("reg_token", "register tokens"),
    ("norm_pre.", "a norm before the blocks (CLIP)"),
    ("attn_pool.", "attention pooling (SigLIP)"),
    ("patch_embed.backbone.", "a convolutional stem (hybrid ViT)"),
    ("patch_embed.norm.", "a norm in the patch embedding"),
    (".q_norm.", "query-key normalisation"),
    (".k_norm.", "query-key normalisation"),
    ("mlp.w12.", "SwiGLU"),
    ("mlp.fc1_g.", "SwiGLU"),
    ("rel_pos", "relative positions"),
    ("relative_position", "relative positions"),
    ("rope.", "rotary positions"),
];

fn read(checkpoint: &Checkpoint, prefix: &str, overrides: &Overrides) -> Result<Recognised> {
    let tensors = Tensors::new(checkpoint, prefix);
    let timm = TimmConfig::of(checkpoint);
    let own = metadata::read(checkpoint)?;
    let mut notes = Vec::new();
    reject_unsupported(&tensors)?;
    timm.check_blocks()?;

    let mut sources = BTreeMap::new();
    let config = config(&tensors, &timm, &own, overrides, &mut notes, &mut sources)?;
    let names = tensors.names_of(config.parameters())?;
    let ignored = ignored(&tensors, &names, &mut notes)?;
    let preprocess = preprocess(config.image_size, &timm, own.preprocess, &mut notes, &mut sources)?;
    let classes = class_names(own.classes, &timm, config.classes, &mut notes);
    let head_names = ["head.weight", "head.bias"].map(|name| format!("{prefix}{name}"));
    let family = FAMILY.name;
    Ok(Recognised {
        family,
        config: config.into(),
        preprocess,
        names,
        buffers: Vec::new(),
        counters: Vec::new(),
        head_names,
        initialised: Vec::new(),
        ignored,
        notes,
        sources,
        classes,
    })
}

fn reject_unsupported(tensors: &Tensors) -> Result<()> {
    for (name, info) in &tensors.by_name {
        if let Some((_, what)) = UNSUPPORTED.iter().find(|(part, _)| name.contains(part)) {
            return Err(tensors.error(info, format!("means {what}: not supported yet")));
        }
    }
    if tensors.has("norm.weight") && tensors.has("fc_norm.weight") {
        return Err(tensors.error(tensors.get("fc_norm.weight")?, "stands beside norm.weight: not supported yet"));
    }
    Ok(())
}

fn config(
    tensors: &Tensors,
    timm: &TimmConfig,
    own: &Own,
    overrides: &Overrides,
    notes: &mut Vec<String>,
    sources: &mut BTreeMap<&'static str, String>,
) -> Result<VitConfig> {
    let [dim, channels, patch_size, width] = tensors.dims("patch_embed.proj.weight", "[dim, 3, patch, patch]")?;
    if channels != 3 || width != patch_size {
        let info = tensors.get("patch_embed.proj.weight")?;
        let shape = &info.shape;
        return Err(
            tensors.error(info, format!("has shape {shape:?}, only square patches of RGB images are supported"))
        );
    }
    let class_token = tensors.has("cls_token");
    let image_size = image_size(tensors, dim, patch_size, class_token, timm, notes)?;
    if let Some(size) = overrides.image_size.filter(|&size| size != image_size) {
        return Err(tensors.checkpoint.error(format!(
            "its positions are for images of {image_size} pixels, and resizing them to {size} is not supported yet; \
             use --image-size {image_size}"
        )));
    }
    let depth = depth(tensors)?;
    let [mlp_dim, _] = tensors.dims("blocks.0.mlp.fc1.weight", "[mlp_dim, dim]")?;
    let classes = if tensors.has("head.weight") {
        tensors.dims::<2>("head.weight", "[classes, dim]")?[0]
    } else if tensors.has("head.bias") {
        return Err(tensors.get("head.weight").err().unwrap_or_else(|| tensors.checkpoint.error("head is incomplete")));
    } else {
        0
    };

    let fc_norm = tensors.has("fc_norm.weight");
    let by_tensors = if fc_norm || !class_token { Pool::Mean } else { Pool::Cls };
    let said = [(overrides.pool, "--pool"), (own.pool, "metadata tpgm.pool"), (timm.pool()?, "config.json")];
    let pool = first(said, sources, "pool").unwrap_or_else(|| {
        sources.insert("pool", "tensor names".into());
        by_tensors
    });
    if pool == Pool::Cls && !class_token {
        return Err(tensors.checkpoint.error("pools the class token, but has no tensor cls_token; use mean pooling"));
    }
    let said = [
        (overrides.activation, "--activation"),
        (own.activation, "metadata tpgm.activation"),
        (timm.activation()?, "config.json"),
    ];
    let activation = match first(said, sources, "activation") {
        Some(activation) => activation,
        None => {
            sources.insert("activation", ASSUMED.into());
            notes.push("activation assumed: GELU with erf, as timm's ViTs have; --activation changes it".into());
            Activation::Gelu
        }
    };
    let eps = first([(own.eps, "metadata tpgm.eps")], sources, "eps").unwrap_or_else(|| {
        sources.insert("eps", "every timm ViT's".into());
        1e-6
    });
    Ok(VitConfig {
        image_size,
        patch_size,
        dim,
        depth,
        heads: heads(tensors, dim, timm, own, overrides, notes, sources)?,
        mlp_dim,
        classes,
        eps,
        activation,
        pool,
        class_token,
        layer_scale: tensors.any(".ls1.gamma") || tensors.any(".ls2.gamma"),
        fc_norm,
        qkv_bias: tensors.any(".attn.qkv.bias"),
        patch_bias: tensors.has("patch_embed.proj.bias"),
        head_bias: tensors.has("head.bias"),
    })
}

/// From the number of positions: they lie on a square grid of patches.
fn image_size(
    tensors: &Tensors,
    dim: usize,
    patch_size: usize,
    class_token: bool,
    timm: &TimmConfig,
    notes: &mut Vec<String>,
) -> Result<usize> {
    let [_, positions, _] = tensors.dims("pos_embed", &format!("[1, positions, {dim}]"))?;
    let info = tensors.get("pos_embed")?;
    let square = |n: usize| n > 0 && n.isqrt().pow(2) == n;
    let patches = positions - usize::from(class_token);
    if !square(patches) {
        return Err(if class_token && square(positions) {
            tensors.error(info, format!("has {positions} positions and none for the class token: not supported yet"))
        } else {
            tensors.error(info, format!("has {patches} positions for patches, no square grid: not supported yet"))
        });
    }
    let grid = patches.isqrt();
    let size = grid * patch_size;
    if let Some([height, width]) = timm.input_size() {
        if height != width {
            return Err(tensors.error(info, format!("is for images of {height} x {width} by config.json: not square")));
        }
        if width != size as u64 {
            if width / patch_size as u64 == grid as u64 {
                return Err(tensors.checkpoint.error(format!(
                    "its images of {width} pixels (config.json) are no multiple of the patch size {patch_size}: not \
                     supported yet"
                )));
            }
            notes.push(format!("config.json says {width} pixels, the positions are for {size}: {size} is used"));
        }
    }
    Ok(size)
}

/// The number of blocks, which are numbered without a gap.
fn depth(tensors: &Tensors) -> Result<usize> {
    let number = |name: &&str| name.strip_prefix("blocks.")?.split('.').next()?.parse::<usize>().ok();
    let blocks: BTreeSet<usize> = tensors.by_name.keys().filter_map(number).collect();
    for (i, &block) in blocks.iter().enumerate() {
        if i != block {
            return Err(tensors
                .checkpoint
                .error(format!("tensor {}blocks.{i}.norm1.weight is missing", tensors.prefix)));
        }
    }
    Ok(blocks.len())
}

fn heads(
    tensors: &Tensors,
    dim: usize,
    timm: &TimmConfig,
    own: &Own,
    overrides: &Overrides,
    notes: &mut Vec<String>,
    sources: &mut BTreeMap<&'static str, String>,
) -> Result<usize> {
    let fits = |heads: usize| heads > 0 && dim.is_multiple_of(heads);
    if let Some(heads) = overrides.heads {
        sources.insert("heads", "--heads".into());
        let wrong = || Error::Usage(format!("--heads {heads} does not divide the model's width {dim}"));
        return fits(heads).then_some(heads).ok_or_else(wrong);
    }
    let written = match own.heads {
        Some(heads) => Some((heads, "metadata tpgm.heads".to_string())),
        None => timm.heads()?,
    };
    if let Some((heads, place)) = written {
        let wrong = || {
            let what = format!("{heads} heads ({place}) do not divide the width {dim}; say how many with --heads");
            tensors.checkpoint.error(what)
        };
        sources.insert("heads", if own.heads.is_some() { place.clone() } else { format!("config.json, {place}") });
        return fits(heads).then_some(heads).ok_or_else(wrong);
    }
    let Some(heads) = usual_heads(dim) else {
        let what = format!("its width {dim} is no multiple of 64, so the number of heads can't be told; use --heads");
        return Err(tensors.checkpoint.error(what));
    };
    sources.insert("heads", ASSUMED.into());
    notes.push(format!("heads assumed: {heads}, as timm's models of width {dim} have; --heads changes it"));
    Ok(heads)
}

/// The tensors that are left over; an error where one would change what the model computes.
fn ignored(tensors: &Tensors, names: &[(String, String)], notes: &mut Vec<String>) -> Result<Vec<String>> {
    let used: BTreeSet<&str> = names.iter().map(|(_, in_file)| in_file.as_str()).collect();
    for (name, info) in &tensors.by_name {
        let inside =
            ["blocks.", "patch_embed.", "norm.", "fc_norm.", "head."].iter().any(|part| name.starts_with(part));
        if inside && !used.contains(info.name.as_str()) {
            return Err(tensors.error(info, "belongs to a part that a timm ViT does not have: not supported yet"));
        }
    }
    if tensors.by_name.keys().any(|name| name.starts_with("pre_logits.")) {
        notes.push("pre_logits is left out, as timm leaves it out".into());
    }
    Ok(tensors.unused(&used))
}

/// The input: what our own metadata says, else `config.json`, else timm's default.
fn preprocess(
    image_size: usize,
    timm: &TimmConfig,
    own: Option<Preprocess>,
    notes: &mut Vec<String>,
    sources: &mut BTreeMap<&'static str, String>,
) -> Result<Preprocess> {
    if let Some(own) = own {
        sources.insert("preprocess", "metadata tpgm.preprocess".into());
        return Ok(Preprocess { image_size, ..own });
    }
    if let Some(written) = timm.preprocess(timm_vit_preprocess(image_size), notes)? {
        sources.insert("preprocess", "config.json".into());
        return Ok(written);
    }
    sources.insert("preprocess", ASSUMED.into());
    let what = "preprocessing assumed: mean and std 0.5, bicubic, crop 0.9, as most timm ViTs have";
    notes.push(format!("{what}; --mean, --std, --interpolation and --crop-pct change it"));
    Ok(timm_vit_preprocess(image_size))
}
