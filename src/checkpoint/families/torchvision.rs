//! torchvision's vision transformers: `vit_b_16` and its relatives.

use super::inputs;
use super::names::Table;
use super::vit::{self, Dialect};
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::positions::Relative;
use crate::checkpoint::{Overrides, Recognised};
use crate::error::Result;
use crate::shapes::Activation;

pub(super) const VIT: Family = Family {
    slug: "torchvision-vit",
    name: "torchvision ViT",
    layout: "class_token, conv_proj, encoder.pos_embedding, encoder.layers.encoder_layer_N, encoder.ln, heads.head",
    anchors: &[
        "class_token",
        "conv_proj.weight",
        "encoder.pos_embedding",
        "encoder.layers.encoder_layer_0.ln_1.weight",
        "encoder.layers.encoder_layer_0.self_attention.in_proj_weight",
    ],
    enough: 4,
    bases: &[""],
    timm: &[],
    read,
};

/// The names, with those of the MLP's two layers.
macro_rules! names {
    ($fc1:literal, $fc2:literal) => {
        &[
            ("cls_token", "class_token"),
            ("pos_embed", "encoder.pos_embedding"),
            ("patch_embed.proj.*", "conv_proj.*"),
            ("blocks.#.norm1.*", "encoder.layers.encoder_layer_#.ln_1.*"),
            ("blocks.#.attn.qkv.weight", "encoder.layers.encoder_layer_#.self_attention.in_proj_weight"),
            ("blocks.#.attn.qkv.bias", "encoder.layers.encoder_layer_#.self_attention.in_proj_bias"),
            ("blocks.#.attn.proj.*", "encoder.layers.encoder_layer_#.self_attention.out_proj.*"),
            ("blocks.#.norm2.*", "encoder.layers.encoder_layer_#.ln_2.*"),
            ("blocks.#.mlp.fc1.*", concat!("encoder.layers.encoder_layer_#.mlp.", $fc1, ".*")),
            ("blocks.#.mlp.fc2.*", concat!("encoder.layers.encoder_layer_#.mlp.", $fc2, ".*")),
            ("norm.*", "encoder.ln.*"),
            ("head.*", "heads.head.*"),
        ]
    };
}

const NAMES: &Table = names!("0", "3");
/// The published files have an earlier release's names.
const EARLIER: &Table = names!("linear_1", "linear_2");

fn read(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let earlier = format!("{}encoder.layers.encoder_layer_0.mlp.linear_1.weight", prefixes.prefix);
    let dialect = Dialect {
        name: VIT.name,
        table: if checkpoint.tensor(&earlier).is_some() { EARLIER } else { NAMES },
        facts: Facts::torchvision(checkpoint),
        eps: 1e-6,
        eps_noted: false,
        activation: Some((Activation::Gelu, "torchvision's ViTs")),
        told: None,
        input: (
            inputs::torchvision_vit,
            "ImageNet's mean and std; bilinear and crop 0.875 at 224 pixels, else bicubic and crop 1",
        ),
        rope: None,
        whose: "torchvision",
        unsupported: &[("heads.pre_logits.", "a layer before the head"), ("conv_proj.conv_", "a convolutional stem")],
        unneeded: &[],
        classifier: None,
        head_names: ["weight", "bias"].map(|what| format!("{}heads.head.{what}", prefixes.prefix)),
        antialias: true,
        relative: Relative::Stretched,
    };
    vit::read(checkpoint, prefixes, overrides, dialect)
}
