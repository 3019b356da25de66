//! transformers' DINOv2 and the image towers of CLIP and SigLIP. Query, key and value are tensors
//! of their own there, each with a radius of its own.

use super::inputs;
use super::names::Table;
use super::vit::{self, Classifier, Dialect};
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::known::Keys;
use crate::checkpoint::positions::Relative;
use crate::checkpoint::transformers_config::{Model, TransformersConfig};
use crate::checkpoint::{Overrides, Recognised};
use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;
use crate::error::Result;
use crate::model::config::Pool;
use crate::shapes::Activation;

pub(super) const DINOV2: Family = Family {
    slug: "hf-dinov2",
    name: "transformers DINOv2",
    layout: "embeddings.*, encoder.layer.N.norm1, .layer_scale1.lambda1",
    anchors: &[
        "embeddings.patch_embeddings.projection.weight",
        "encoder.layer.0.attention.attention.query.weight",
        "encoder.layer.0.norm1.weight",
        "encoder.layer.0.layer_scale1.lambda1",
    ],
    enough: 3,
    bases: &["dinov2.", "dinov2_with_registers.", ""],
    timm: &[],
    read: read_dinov2,
};

pub(super) const CLIP_VISION: Family = Family {
    slug: "hf-clip",
    name: "transformers CLIP vision",
    layout: "vision_model.embeddings.class_embedding, .pre_layrnorm, .encoder.layers.N, visual_projection",
    anchors: &[
        "embeddings.class_embedding",
        "embeddings.patch_embedding.weight",
        "pre_layrnorm.weight",
        "encoder.layers.0.layer_norm1.weight",
    ],
    enough: 3,
    bases: &["vision_model.", ""],
    timm: &[],
    read: read_clip,
};

pub(super) const SIGLIP_VISION: Family = Family {
    slug: "hf-siglip",
    name: "transformers SigLIP vision",
    layout: "vision_model.embeddings.*, .encoder.layers.N, .head.probe",
    anchors: &[
        "embeddings.patch_embedding.weight",
        "encoder.layers.0.layer_norm1.weight",
        "head.probe",
        "head.attention.in_proj_weight",
    ],
    enough: 3,
    bases: &["vision_model.", ""],
    timm: &[],
    read: read_siglip,
};

/// DINOv2's names: the attention's four layers, and the MLP's two, which depend on whether it is gated.
macro_rules! dinov2_names {
    ($q:literal, $k:literal, $v:literal, $o:literal, $fc1:literal, $fc2:literal) => {
        &[
            ("cls_token", "embeddings.cls_token"),
            ("reg_token", "embeddings.register_tokens"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("patch_embed.proj.*", "embeddings.patch_embeddings.projection.*"),
            ("blocks.#.norm1.*", "encoder.layer.#.norm1.*"),
            ("blocks.#.attn.q.*", concat!("encoder.layer.#.attention.", $q, ".*")),
            ("blocks.#.attn.k.*", concat!("encoder.layer.#.attention.", $k, ".*")),
            ("blocks.#.attn.v.*", concat!("encoder.layer.#.attention.", $v, ".*")),
            ("blocks.#.attn.proj.*", concat!("encoder.layer.#.attention.", $o, ".*")),
            ("blocks.#.ls1.gamma", "encoder.layer.#.layer_scale1.lambda1"),
            ("blocks.#.norm2.*", "encoder.layer.#.norm2.*"),
            ("blocks.#.mlp.fc1.*", concat!("encoder.layer.#.mlp.", $fc1, ".*")),
            ("blocks.#.mlp.fc2.*", concat!("encoder.layer.#.mlp.", $fc2, ".*")),
            ("blocks.#.ls2.gamma", "encoder.layer.#.layer_scale2.lambda1"),
            ("norm.*", "layernorm.*"),
            ("head.*", "^classifier.*"),
            ("head.*", "^head.*"),
        ]
    };
}

macro_rules! dinov2_4 {
    ($fc1:literal, $fc2:literal) => {
        dinov2_names!("attention.query", "attention.key", "attention.value", "output.dense", $fc1, $fc2)
    };
}

macro_rules! dinov2_5 {
    ($fc1:literal, $fc2:literal) => {
        dinov2_names!("q_proj", "k_proj", "v_proj", "o_proj", $fc1, $fc2)
    };
}

/// By version, and whether the MLPs are gated.
const DINOV2_NAMES: [[&Table; 2]; 2] = [
    [dinov2_4!("fc1", "fc2"), dinov2_4!("weights_in", "weights_out")],
    [dinov2_5!("fc1", "fc2"), dinov2_5!("weights_in", "weights_out")],
];

/// Of a DINOv2 with plain MLPs, as all versions read it from a file.
pub(super) const NAMES: &Table = DINOV2_NAMES[0][0];

const CLIP_NAMES: &Table = &[
    ("cls_token", "embeddings.class_embedding"),
    ("pos_embed", "embeddings.position_embedding.weight"),
    ("patch_embed.proj.*", "embeddings.patch_embedding.*"),
    ("norm_pre.*", "pre_layrnorm.*"),
    ("blocks.#.norm1.*", "encoder.layers.#.layer_norm1.*"),
    ("blocks.#.attn.q.*", "encoder.layers.#.self_attn.q_proj.*"),
    ("blocks.#.attn.k.*", "encoder.layers.#.self_attn.k_proj.*"),
    ("blocks.#.attn.v.*", "encoder.layers.#.self_attn.v_proj.*"),
    ("blocks.#.attn.proj.*", "encoder.layers.#.self_attn.out_proj.*"),
    ("blocks.#.norm2.*", "encoder.layers.#.layer_norm2.*"),
    ("blocks.#.mlp.fc1.*", "encoder.layers.#.mlp.fc1.*"),
    ("blocks.#.mlp.fc2.*", "encoder.layers.#.mlp.fc2.*"),
    ("norm.*", "post_layernorm.*"),
    ("attn_pool.latent", "head.probe"),
    ("attn_pool.in_proj_weight", "head.attention.in_proj_weight"),
    ("attn_pool.in_proj_bias", "head.attention.in_proj_bias"),
    ("attn_pool.proj.*", "head.attention.out_proj.*"),
    ("attn_pool.norm.*", "head.layernorm.*"),
    ("attn_pool.mlp.*", "head.mlp.*"),
    ("proj.weight", "^visual_projection.weight"),
    ("head.*", "^classifier.*"),
    ("head.weight", "^head.weight"),
    ("head.bias", "^head.bias"),
];

const DINOV2_MODEL: Model =
    Model { types: &["dinov2", "dinov2_with_registers"], keys: DINOV2_KEYS, heads: 12, activation: "gelu", eps: 1e-6 };

pub(super) const CLIP_MODEL: Model =
    Model { types: &["clip", "clip_vision_model"], keys: CLIP_KEYS, heads: 12, activation: "quick_gelu", eps: 1e-5 };

const SIGLIP_MODEL: Model = Model {
    types: &["siglip", "siglip_vision_model"],
    keys: CLIP_KEYS,
    heads: 12,
    activation: "gelu_pytorch_tanh",
    eps: 1e-6,
};

const DINOV2_KEYS: Keys = Keys {
    followed: &[
        "hidden_act",
        "hidden_size",
        "image_size",
        "layer_norm_eps",
        "layerscale_value",
        "mlp_ratio",
        "num_attention_heads",
        "num_channels",
        "num_hidden_layers",
        "num_register_tokens",
        "patch_size",
        "qkv_bias",
        "use_swiglu_ffn",
    ],
    // Of the backbone, which returns the values between the blocks.
    idle: &[
        "apply_layernorm",
        "attention_probs_dropout_prob",
        "drop_path_rate",
        "hidden_dropout_prob",
        "out_features",
        "out_indices",
        "reshape_hidden_states",
        "stage_names",
        "use_mask_token",
    ],
    only: &[("interpolate_antialias", &["false"])],
};

/// The image towers of CLIP and of SigLIP.
const CLIP_KEYS: Keys = Keys {
    followed: &[
        "hidden_act",
        "hidden_size",
        "image_size",
        "intermediate_size",
        "layer_norm_eps",
        "num_attention_heads",
        "num_channels",
        "num_hidden_layers",
        "patch_size",
        "projection_dim",
    ],
    idle: &["attention_dropout", "dropout"],
    only: &[("vision_use_head", &["true"])],
};

pub(super) const UNSUPPORTED: &[(&str, &str)] = &[("mlp.weights_in.", "SwiGLU"), ("mlp.weights_out.", "SwiGLU")];

pub(super) fn head_names(prefixes: Prefixes, head: &str) -> [String; 2] {
    ["weight", "bias"].map(|what| format!("{}{head}.{what}", prefixes.outer))
}

fn read_dinov2(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let config = TransformersConfig::of(checkpoint, DINOV2_MODEL.usual())?;
    let gated = checkpoint.tensors().iter().any(|tensor| tensor.name.ends_with(".mlp.weights_in.weight"));
    if !gated && config.entry("use_swiglu_ffn").and_then(|v| v.as_bool()) == Some(true) {
        return Err(checkpoint.error("use_swiglu_ffn is set (config.json), but no block has mlp.weights_in"));
    }
    let in_memory = checkpoint.tensor(&format!("{}encoder.layer.0.attention.q_proj.weight", prefixes.prefix)).is_some();
    let (classifier, head) = classifier(checkpoint, prefixes, Pool::ClsMean, &[]);
    let dialect = Dialect {
        name: DINOV2.name,
        table: DINOV2_NAMES[usize::from(in_memory)][usize::from(gated)],
        facts: Facts::transformers(checkpoint, &DINOV2_MODEL)?,
        eps: 1e-6,
        eps_noted: true,
        activation: Some((Activation::Gelu, "transformers' DINOv2 models")),
        told: None,
        input: (inputs::imagenet, "ImageNet's mean and std, bicubic, crop 0.875"),
        rope: None,
        whose: "transformers",
        unsupported: &[],
        unneeded: &["embeddings.mask_token"],
        classifier,
        head_names: head_names(prefixes, head),
        // Its own way, since it resizes at every call.
        antialias: false,
        relative: Relative::Bilinear,
    };
    vit::read(checkpoint, prefixes, overrides, dialect)
}

/// transformers' own classifiers of these towers do not read what the tower pools. Ours do, and are called `head`.
fn classifier(
    checkpoint: &Checkpoint,
    prefixes: Prefixes,
    pool: Pool,
    skips: &'static [&'static str],
) -> (Option<Classifier>, &'static str) {
    match checkpoint.tensor(&format!("{}classifier.weight", prefixes.outer)) {
        Some(_) => (Some(Classifier { pool, skips }), "classifier"),
        None => (None, "head"),
    }
}

fn read_clip(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    // The mean of the patches, before the last norm.
    let (classifier, head) = classifier(checkpoint, prefixes, Pool::Mean, &["norm."]);
    let dialect = Dialect {
        name: CLIP_VISION.name,
        table: CLIP_NAMES,
        facts: Facts::transformers(checkpoint, &CLIP_MODEL)?,
        eps: 1e-5,
        eps_noted: true,
        activation: None,
        told: None,
        input: (
            |size| Preprocess { crop_mode: CropMode::CenterFloor, ..inputs::clip(size) },
            "CLIP's mean and std, bicubic, crop 1",
        ),
        rope: None,
        whose: "CLIP",
        unsupported: UNSUPPORTED,
        unneeded: &["embeddings.position_ids"],
        classifier,
        head_names: head_names(prefixes, head),
        antialias: true,
        relative: Relative::Bilinear,
    };
    vit::read(checkpoint, prefixes, overrides, dialect)
}

fn read_siglip(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    // The mean of the patches, in place of the attention pool.
    let (classifier, head) = classifier(checkpoint, prefixes, Pool::Mean, &["attn_pool."]);
    let dialect = Dialect {
        name: SIGLIP_VISION.name,
        table: CLIP_NAMES,
        facts: Facts::transformers(checkpoint, &SIGLIP_MODEL)?,
        eps: 1e-6,
        eps_noted: true,
        activation: Some((Activation::GeluTanh, "transformers' SigLIP models")),
        told: None,
        input: (
            |size| inputs::squash(size, Interpolation::Bicubic),
            "mean and std 0.5, bicubic, both sides resized, as SigLIP has",
        ),
        rope: None,
        whose: "SigLIP",
        unsupported: UNSUPPORTED,
        unneeded: &["embeddings.position_ids"],
        classifier,
        head_names: head_names(prefixes, head),
        antialias: true,
        relative: Relative::Bilinear,
    };
    vit::read(checkpoint, prefixes, overrides, dialect)
}
