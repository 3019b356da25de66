//! timm's `VisionTransformer`: the family whose names are our own. DeiT, DINO, MAE, DINOv2, CLIP and SigLIP as timm has them
//! among them.

use super::inputs;
use super::names::Table;
use super::tensors::Tensors;
use super::vit::{self, Dialect};
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::known::Keys;
use crate::checkpoint::timm_config::Class;
use crate::checkpoint::timm_input::timm_vit_preprocess;
use crate::checkpoint::zero_shot::ZeroShot;
use crate::checkpoint::{Overrides, Recognised};
use crate::data::preprocess::Preprocess;
use crate::error::Result;
use crate::shapes::Activation;

pub(super) const FAMILY: Family = Family {
    slug: "timm-vit",
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
    bases: &["trunk.", ""],
    timm: CLASSES,
    read,
};

/// What timm's vision transformers are built from. The tensors tell most of it.
const KEYS: Keys = Keys {
    followed: &[
        "act_layer",
        "class_token",
        "depth",
        "embed_dim",
        "fc_norm",
        "global_pool",
        "img_size",
        "in_chans",
        "init_values",
        "mlp_ratio",
        "no_embed_class",
        "norm_layer",
        "num_classes",
        "num_heads",
        "patch_size",
        "pre_norm",
        "qkv_bias",
        "reg_tokens",
    ],
    idle: &[
        "attn_drop_rate",
        "drop_path_rate",
        "drop_rate",
        "dynamic_img_pad",
        "dynamic_img_size",
        "fix_init",
        "patch_drop_rate",
        "pos_drop_rate",
        "proj_drop_rate",
        "strict_img_size",
        "weight_init",
    ],
    only: &[("mlp_layer", &["\"Mlp\"", "\"GluMlp(act_layer=SiLU, gate_last=False)\""])],
};

/// The classes that these networks are in timm.
const CLASSES: &[Class] =
    &[Class { name: "VisionTransformer", keys: KEYS }, Class { name: "VisionTransformerDistilled", keys: KEYS }];

/// Parts of names that stand for a computation we don't have, and what it is called.
const UNSUPPORTED: [(&str, &str); 9] = [
    ("patch_embed.backbone.", "a convolutional stem (hybrid ViT)"),
    ("patch_embed.norm.", "a norm in the patch embedding"),
    (".q_norm.", "query-key normalisation"),
    (".k_norm.", "query-key normalisation"),
    ("mlp.fc1_g.", "SwiGLU in two tensors (EVA)"),
    ("rel_pos", "relative positions"),
    ("relative_position", "relative positions"),
    ("rope.", "rotary positions"),
    ("attn_pool.pos_embed", "positions in the attention pool"),
];

/// A CLIP model's head as its projection, with a classifier behind it.
const PROJECTED: &Table = &[("proj.*", "head.*"), ("head.*", "classifier.*"), ("*", "*")];

/// A tower of OpenCLIP's that timm has, with OpenCLIP's own projection behind it.
const TRUNK: &Table = &[("proj.*", "^head.proj.*"), ("*", "*")];

/// DINOv2's own names, where they are not timm's. Its registers follow the class token, which has a position.
const DINOV2: &Table = &[
    ("reg_token", "register_tokens"),
    ("blocks.#.mlp.fc1.*", "blocks.#.mlp.w12.*"),
    ("blocks.#.mlp.fc2.*", "blocks.#.mlp.w3.*"),
    ("*", "*"),
];

fn read(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let facts = Facts::timm(checkpoint, CLASSES)?;
    let tensors = Tensors::new(checkpoint, prefixes, &[]);
    let original = tensors.has("register_tokens") || tensors.any(".mlp.w12.weight");
    let clip = tensors.has("norm_pre.weight");
    let siglip = tensors.by_name.keys().any(|name| name.starts_with("attn_pool."));
    // OpenCLIP takes the head of a tower of timm's for its projection, unless it has one of its own.
    let in_clip = clip || prefixes.prefix != prefixes.outer;
    let has = |name: &str| tensors.has(name);
    let projected = in_clip && (has("classifier.weight") || (has("head.weight") && behind(&tensors, overrides)?));
    let head = if projected { "classifier" } else { "head" };
    let known = |name| Some((Activation::Gelu, name));
    let timm_input: (fn(usize) -> Preprocess, _) =
        (timm_vit_preprocess, "mean and std 0.5, bicubic, crop 0.9, as most timm ViTs have");
    let (name, activation, input) = if clip {
        ("timm CLIP ViT", None, (inputs::clip as fn(usize) -> Preprocess, "CLIP's mean and std, bicubic, crop 1"))
    } else if siglip {
        let input = (inputs::siglip as fn(usize) -> Preprocess, "mean and std 0.5, bicubic, both sides resized");
        ("timm SigLIP ViT", None, input)
    } else if original {
        (
            FAMILY.name,
            known("DINOv2's ViTs"),
            (inputs::imagenet as fn(usize) -> Preprocess, "ImageNet's mean and std, bicubic, crop 0.875"),
        )
    } else {
        let name = if tensors.has("dist_token") { "distilled DeiT" } else { FAMILY.name };
        (name, known("timm's ViTs"), timm_input)
    };
    let trunk = prefixes.prefix != prefixes.outer
        && checkpoint.tensor(&format!("{}head.proj.weight", prefixes.outer)).is_some();
    if let Some(info) = checkpoint.tensor(&format!("{}head.mlp.fc1.weight", prefixes.outer)) {
        return Err(tensors.error(info, "means an MLP as projection (OpenCLIP): not supported yet"));
    }
    let dialect = Dialect {
        name,
        table: match (projected, original) {
            (true, _) => PROJECTED,
            (false, true) => DINOV2,
            (false, false) if trunk => TRUNK,
            (false, false) => &[],
        },
        facts,
        eps: if clip { 1e-5 } else { 1e-6 },
        eps_noted: false,
        activation,
        told: None,
        input,
        whose: "timm",
        unsupported: &UNSUPPORTED,
        unneeded: &[],
        classifier: None,
        head_names: ["weight", "bias"].map(|what| format!("{}{head}.{what}", prefixes.prefix)),
        antialias: true,
    };
    vit::read(checkpoint, prefixes, overrides, dialect)
}

/// Whether a new head is to read what leaves the checkpoint's own head, which then is CLIP's projection: one that fits it
/// ([`Overrides::head`]), or any on normalised features, which is how CLIP's are compared.
fn behind(tensors: &Tensors, overrides: &Overrides) -> Result<bool> {
    let Some(path) = &overrides.head else { return Ok(overrides.normalize == Some(true)) };
    let [features, dim] = tensors.dims("head.weight", "[features, dim]")?;
    let head = ZeroShot::open(path)?;
    Ok(head.features == features || head.features != dim)
}
