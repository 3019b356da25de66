//! transformers' ViT and models named alike: DeiT, ViT-MSN, I-JEPA, the encoder of ViT-MAE, BEiT and Data2Vec-Vision.

use super::inputs;
use super::names::Table;
use super::transformers::{UNSUPPORTED, head_names};
use super::vit::{self, Dialect};
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::known::Keys;
use crate::checkpoint::positions::Relative;
use crate::checkpoint::transformers_config::{Model, TransformersConfig};
use crate::checkpoint::{Overrides, Recognised};
use crate::data::resize::Interpolation;
use crate::error::Result;
use crate::shapes::Activation;

pub(super) const VIT: Family = Family {
    slug: "hf-vit",
    name: "transformers ViT",
    layout: "vit.embeddings.*, vit.encoder.layer.N.layernorm_before, classifier",
    anchors: &[
        "embeddings.patch_embeddings.projection.weight",
        "encoder.layer.0.attention.attention.query.weight",
        "encoder.layer.0.layernorm_before.weight",
        "encoder.layer.0.intermediate.dense.weight",
    ],
    enough: 3,
    bases: VIT_BASES,
    timm: &[],
    read: read_vit,
};

/// As version 5 has them in memory. What it saves has the names above.
pub(super) const VIT_5: Family = Family {
    layout: "vit.embeddings.*, vit.layers.N.attention.q_proj, classifier",
    anchors: &[
        "embeddings.patch_embeddings.projection.weight",
        "layers.0.attention.q_proj.weight",
        "layers.0.layernorm_before.weight",
        "layers.0.mlp.fc1.weight",
    ],
    ..VIT
};

const VIT_BASES: &[&str] = &["vit.", "deit.", "ijepa.", "beit.", "data2vec_vision.", ""];

/// ViT's names: what the distillation token is to us, the classifier, what stands before the embeddings, and the layers'.
macro_rules! vit_names {
    ($token:literal, $head:literal, $base:literal, $layer:literal, [$q:literal, $k:literal, $v:literal, $o:literal],
     $relative:literal, [$fc1:literal, $fc2:literal]) => {
        &[
            ("cls_token", concat!($base, "embeddings.cls_token")),
            ($token, concat!($base, "embeddings.distillation_token")),
            ("pos_embed", concat!($base, "embeddings.position_embeddings")),
            ("patch_embed.proj.*", concat!($base, "embeddings.patch_embeddings.projection.*")),
            ("blocks.#.norm1.*", concat!($layer, "layernorm_before.*")),
            ("blocks.#.attn.q.*", concat!($layer, $q, ".*")),
            ("blocks.#.attn.k.*", concat!($layer, $k, ".*")),
            ("blocks.#.attn.v.*", concat!($layer, $v, ".*")),
            ("blocks.#.attn.proj.*", concat!($layer, $o, ".*")),
            ("blocks.#.attn.relative_position_bias_table", concat!($layer, $relative, ".relative_position_bias_table")),
            ("blocks.#.ls1.gamma", concat!($layer, "lambda_1")),
            ("blocks.#.norm2.*", concat!($layer, "layernorm_after.*")),
            ("blocks.#.mlp.fc1.*", concat!($layer, $fc1, ".*")),
            ("blocks.#.mlp.fc2.*", concat!($layer, $fc2, ".*")),
            ("blocks.#.ls2.gamma", concat!($layer, "lambda_2")),
            ("norm.*", concat!($base, "layernorm.*")),
            ("fc_norm.*", concat!($base, "pooler.layernorm.*")),
            ("head.*", $head),
            ("head_dist.*", "^distillation_classifier.*"),
        ]
    };
}

/// Of version 4, which version 5 saves, too.
macro_rules! vit_4 {
    ($token:literal, $head:literal, $base:literal) => {
        vit_names!(
            $token,
            $head,
            $base,
            "encoder.layer.#.",
            [
                "attention.attention.query",
                "attention.attention.key",
                "attention.attention.value",
                "attention.output.dense"
            ],
            "attention.attention.relative_position_bias",
            ["intermediate.dense", "output.dense"]
        )
    };
}

macro_rules! vit_5 {
    ($token:literal, $head:literal) => {
        vit_names!(
            $token,
            $head,
            "",
            "layers.#.",
            ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"],
            "relative_position_bias",
            ["mlp.fc1", "mlp.fc2"]
        )
    };
}

/// By version, and whether there are two heads. With one head the distillation token is as good as a register.
const VIT_NAMES: [[&Table; 2]; 2] = [
    [vit_4!("reg_token", "^classifier.*", ""), vit_4!("dist_token", "^cls_classifier.*", "")],
    [vit_5!("reg_token", "^classifier.*"), vit_5!("dist_token", "^cls_classifier.*")],
];

/// Of a model with one head, as all versions read it from a file.
pub(super) const NAMES: &Table = VIT_NAMES[0][0];

/// ViT-MSN as version 5 saves it: `vit.` stands before all tensors but those of the layers.
const MSN_NAMES: &Table = vit_4!("reg_token", "^classifier.*", "vit.");

/// Those whose blocks are ViT's.
const VIT_MODEL: Model = Model {
    types: &["vit", "deit", "ijepa", "vit_mae", "vit_msn"],
    keys: VIT_KEYS,
    heads: 12,
    activation: "gelu",
    eps: 1e-12,
};

const BEIT_MODEL: Model =
    Model { types: &["beit", "data2vec-vision"], keys: BEIT_KEYS, heads: 12, activation: "gelu", eps: 1e-12 };

const VIT_KEYS: Keys = Keys {
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
        "qkv_bias",
    ],
    // Keys of parts such as the pooler and the decoder, which do not enter a classifier.
    idle: &[
        "attention_probs_dropout_prob",
        "decoder_hidden_size",
        "decoder_intermediate_size",
        "decoder_num_attention_heads",
        "decoder_num_hidden_layers",
        "encoder_stride",
        "hidden_dropout_prob",
        "mask_ratio",
        "norm_pix_loss",
        "pooler_act",
        "pooler_output_size",
    ],
    only: &[],
};

const BEIT_KEYS: Keys = Keys {
    followed: &[
        "hidden_act",
        "hidden_size",
        "image_size",
        "intermediate_size",
        "layer_norm_eps",
        "layer_scale_init_value",
        "num_attention_heads",
        "num_channels",
        "num_hidden_layers",
        "patch_size",
        "use_absolute_position_embeddings",
        "use_mean_pooling",
        "use_relative_position_bias",
    ],
    // Of the backbone, of segmentation and of the tokens that pre-training predicts.
    idle: &[
        "add_fpn",
        "attention_probs_dropout_prob",
        "auxiliary_channels",
        "auxiliary_concat_input",
        "auxiliary_loss_weight",
        "auxiliary_num_convs",
        "drop_path_rate",
        "hidden_dropout_prob",
        "out_features",
        "out_indices",
        "pool_scales",
        "reshape_hidden_states",
        "semantic_loss_ignore_index",
        "stage_names",
        "use_auxiliary_head",
        "use_mask_token",
        "vocab_size",
    ],
    only: &[("use_shared_relative_position_bias", &["false"])],
};

const BEIT_UNSUPPORTED: &[(&str, &str)] = &[
    ("encoder.relative_position_bias.", "relative positions that blocks share"),
    ("shared_position_bias.", "relative positions that blocks share"),
];

/// Whether it is BEiT, or Data2Vec-Vision, which is built like it: by its configuration, else by what ViT does not have.
fn is_beit(checkpoint: &Checkpoint, prefixes: Prefixes) -> bool {
    let own_type = checkpoint.config().and_then(|root| root.get("model_type")).and_then(|name| name.as_str());
    if let Some(own_type) = own_type {
        return BEIT_MODEL.types.contains(&own_type);
    }
    let telling = ["relative_position_bias", ".lambda_1", "pooler.layernorm"];
    let within = |name: &str| name.starts_with(prefixes.prefix) && telling.iter().any(|part| name.contains(part));
    ["beit.", "data2vec_vision."].iter().any(|base| prefixes.prefix.ends_with(base))
        || checkpoint.tensors().iter().any(|tensor| within(&tensor.name))
}

/// Checks that the tensors are those that BEiT's configuration tells.
fn check_beit(checkpoint: &Checkpoint, prefixes: Prefixes) -> Result<()> {
    let names = || checkpoint.tensors().iter().filter_map(|tensor| tensor.name.strip_prefix(prefixes.prefix));
    let any = |part: &str| names().any(|name| name.contains(part));
    let pools = any("pooler.layernorm.") || names().any(|name| name == "layernorm.weight");
    let config = TransformersConfig::of(checkpoint, BEIT_MODEL.usual())?;
    config.agree_scale("layer_scale_init_value", any(".lambda_1"))?;
    config.agree("use_mean_pooling", true, any("pooler.layernorm.") || !pools)?;
    config.agree("use_relative_position_bias", false, any(".relative_position_bias_table"))?;
    config.agree("use_absolute_position_embeddings", false, any("embeddings.position_embeddings"))
}

fn read_vit(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let has = |prefix: &str, name: &str| checkpoint.tensor(&format!("{prefix}{name}")).is_some();
    let in_memory = has(prefixes.prefix, "layers.0.attention.q_proj.weight");
    let two_heads = has(prefixes.outer, "cls_classifier.weight");
    let msn = has(prefixes.prefix, "vit.embeddings.cls_token");
    let beit = is_beit(checkpoint, prefixes);
    let head = if two_heads { "cls_classifier" } else { "classifier" };
    let model = if beit { &BEIT_MODEL } else { &VIT_MODEL };
    let facts = Facts::transformers(checkpoint, model)?;
    if beit {
        check_beit(checkpoint, prefixes)?;
    } else {
        let query =
            if in_memory { "layers.0.attention.q_proj.bias" } else { "encoder.layer.0.attention.attention.query.bias" };
        let config = TransformersConfig::of(checkpoint, model.usual())?;
        config.agree("qkv_bias", true, has(prefixes.prefix, query))?;
    }
    let input: (fn(usize) -> _, _) = (
        |size| inputs::squash(size, Interpolation::Bilinear),
        "mean and std 0.5, bilinear, both sides resized, as transformers' ViTs have",
    );
    let dialect = Dialect {
        name: if beit { "transformers BEiT" } else { VIT.name },
        table: if msn { MSN_NAMES } else { VIT_NAMES[usize::from(in_memory)][usize::from(two_heads)] },
        facts,
        eps: 1e-12,
        eps_noted: true,
        activation: Some((Activation::Gelu, "transformers' ViTs")),
        told: None,
        input,
        whose: "transformers",
        rope: None,
        unsupported: if beit { BEIT_UNSUPPORTED } else { UNSUPPORTED },
        unneeded: if beit { &["embeddings.mask_token"] } else { &["pooler.", "embeddings.mask_token"] },
        classifier: None,
        head_names: head_names(prefixes, head),
        antialias: true,
        relative: Relative::Bilinear,
    };
    vit::read(checkpoint, prefixes, overrides, dialect)
}
