//! transformers' DINOv3 vision transformers.

use super::inputs;
use super::names::Table;
use super::transformers::head_names;
use super::vit::{self, Dialect};
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::known::Keys;
use crate::checkpoint::metadata;
use crate::checkpoint::positions::Relative;
use crate::checkpoint::transformers_config::{Model, TransformersConfig};
use crate::checkpoint::{Overrides, Recognised};
use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;
use crate::error::Result;
use crate::model::rope::{Angles, Rope};
use crate::shapes::Activation;

pub(super) const FAMILY: Family = Family {
    slug: "hf-dinov3",
    name: "transformers DINOv3",
    layout: "embeddings.*, layer.N.norm1, .attention.q_proj, .layer_scale1.lambda1",
    anchors: &[
        "embeddings.cls_token",
        "embeddings.patch_embeddings.weight",
        "embeddings.register_tokens",
        "layer.0.norm1.weight",
        "layer.0.attention.q_proj.weight",
        "layer.0.layer_scale1.lambda1",
    ],
    enough: 5,
    bases: &[""],
    timm: &[],
    read,
};

/// As a model has them in memory. What it saves has the names above.
pub(super) const IN_MEMORY: Family = Family {
    layout: "embeddings.*, model.layer.N.norm1, .attention.q_proj, .layer_scale1.lambda1",
    anchors: &[
        "embeddings.cls_token",
        "embeddings.patch_embeddings.weight",
        "embeddings.register_tokens",
        "model.layer.0.norm1.weight",
        "model.layer.0.attention.q_proj.weight",
        "model.layer.0.layer_scale1.lambda1",
    ],
    ..FAMILY
};

/// The names, with what comes before the layers', and those of the MLP's first layer: its value and its gate, if there is one.
macro_rules! names {
    ($layer:literal, $fc1:literal) => {
        &[
            ("cls_token", "embeddings.cls_token"),
            ("reg_token", "embeddings.register_tokens"),
            ("patch_embed.proj.*", "embeddings.patch_embeddings.*"),
            ("blocks.#.norm1.*", concat!($layer, "norm1.*")),
            ("blocks.#.attn.q.*", concat!($layer, "attention.q_proj.*")),
            ("blocks.#.attn.k.*", concat!($layer, "attention.k_proj.*")),
            ("blocks.#.attn.v.*", concat!($layer, "attention.v_proj.*")),
            ("blocks.#.attn.proj.*", concat!($layer, "attention.o_proj.*")),
            ("blocks.#.ls1.gamma", concat!($layer, "layer_scale1.lambda1")),
            ("blocks.#.norm2.*", concat!($layer, "norm2.*")),
            (concat!("blocks.#.mlp.", $fc1, ".*"), concat!($layer, "mlp.up_proj.*")),
            ("blocks.#.mlp.fc1_g.*", concat!($layer, "mlp.gate_proj.*")),
            ("blocks.#.mlp.fc2.*", concat!($layer, "mlp.down_proj.*")),
            ("blocks.#.ls2.gamma", concat!($layer, "layer_scale2.lambda1")),
            ("norm.*", "norm.*"),
            ("head.*", "^head.*"),
        ]
    };
}

/// On disk and in memory, and by whether the MLPs are gated.
const NAMES: [[&Table; 2]; 2] = [
    [names!("layer.#.", "fc1"), names!("layer.#.", "fc1_x")],
    [names!("model.layer.#.", "fc1"), names!("model.layer.#.", "fc1_x")],
];

const MODEL: Model = Model { types: &["dinov3_vit"], keys: KEYS, heads: 12, activation: "gelu", eps: 1e-5 };

const KEYS: Keys = Keys {
    followed: &[
        "hidden_act",
        "hidden_size",
        "image_size",
        "intermediate_size",
        "key_bias",
        "layer_norm_eps",
        "layerscale_value",
        "mlp_bias",
        "num_attention_heads",
        "num_channels",
        "num_hidden_layers",
        "num_register_tokens",
        "patch_size",
        "proj_bias",
        "query_bias",
        "rope_theta",
        "use_gated_mlp",
        "value_bias",
    ],
    // Of the backbone, and what training does to positions.
    idle: &[
        "apply_layernorm",
        "attention_dropout",
        "drop_path_rate",
        "out_features",
        "out_indices",
        "pos_embed_jitter",
        "pos_embed_rescale",
        "pos_embed_shift",
        "reshape_hidden_states",
        "return_class_token",
        "stage_names",
    ],
    only: &[],
};

/// The base of the angles' periods that all published models have.
const THETA: f64 = 100.0;

fn read(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let prefix = prefixes.prefix;
    let in_memory = checkpoint.tensor(&format!("{prefix}model.layer.0.norm1.weight")).is_some();
    let layer = if in_memory { "model.layer.0." } else { "layer.0." };
    let has = |name: &str| checkpoint.tensor(&format!("{prefix}{layer}{name}")).is_some();
    let gated = has("mlp.gate_proj.weight");
    let facts = Facts::transformers(checkpoint, &MODEL)?;
    let config = TransformersConfig::of(checkpoint, MODEL.usual())?;
    for (key, usual, found) in [
        ("query_bias", true, has("attention.q_proj.bias")),
        ("key_bias", false, has("attention.k_proj.bias")),
        ("value_bias", true, has("attention.v_proj.bias")),
        ("proj_bias", true, has("attention.o_proj.bias")),
        ("mlp_bias", true, has("mlp.up_proj.bias")),
        ("use_gated_mlp", false, gated),
    ] {
        config.agree(key, usual, found)?;
    }
    if gated {
        config.check_gate()?;
    }
    let own = metadata::read(checkpoint)?.parts.and_then(|parts| parts.rope);
    let written = config.number("rope_theta")?.map(rope);
    let dialect = Dialect {
        name: FAMILY.name,
        table: NAMES[usize::from(in_memory)][usize::from(gated)],
        facts,
        eps: 1e-5,
        eps_noted: true,
        activation: Some((Activation::Gelu, "transformers' DINOv3 models")),
        told: None,
        input: (
            |size| Preprocess {
                crop_pct: 1.0,
                crop_mode: CropMode::SquashFloor,
                interpolation: Interpolation::Bilinear,
                ..inputs::imagenet(size)
            },
            "ImageNet's mean and std, bilinear, both sides resized",
        ),
        rope: Some(written.or(own).unwrap_or(rope(THETA))),
        whose: "transformers",
        unsupported: &[],
        unneeded: &["embeddings.mask_token"],
        classifier: None,
        head_names: head_names(prefixes, "head"),
        antialias: true,
        relative: Relative::Bilinear,
    };
    vit::read(checkpoint, prefixes, overrides, dialect)
}

fn rope(temperature: f64) -> Rope {
    Rope { angles: Angles::Centered { offset: 0.0 }, temperature, transposed: false, halves: true }
}
