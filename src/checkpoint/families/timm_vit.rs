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
use crate::checkpoint::positions::Relative;
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
        "blocks.0.attn.proj.weight",
        "blocks.0.mlp.fc2.weight",
        "blocks.0.mlp.w2.weight",
        "patch_embed.backbone.stem.conv1.weight",
        "patch_embed.backbone.0.conv.weight",
        "blocks.0.in_norm.weight",
        "blocks.0.attn_out_proj.weight",
        "blocks.0.mlp_out_proj.weight",
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
        "embed_norm_layer",
        "fc_norm",
        "final_norm",
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
        "pool_include_prefix",
        "pre_norm",
        "proj_bias",
        "qkv_bias",
        "reg_tokens",
        "scale_attn_norm",
        "scale_mlp_norm",
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
    only: &[
        ("block_fn", &["\"Block\"", "\"ResPostBlock\"", "\"ParallelScalingBlock\""]),
        (
            "embed_layer",
            &[
                "\"PatchEmbed\"",
                "\"HybridEmbed(backbone=ConvStem, proj=False)\"",
                "\"HybridEmbed(backbone=MbConvStages, proj=False)\"",
                "\"HybridEmbed(backbone=ResNetV2)\"",
                "\"HybridEmbed(backbone=Sequential)\"",
            ],
        ),
        ("pos_embed", &["\"learn\"", "\"none\"", "\"\""]),
        ("mlp_layer", &["\"Mlp\"", "\"GeGluMlp\"", "\"GluMlp(act_layer=SiLU, gate_last=False)\"", "\"SwiGLU\""]),
    ],
};

/// The same of timm's `Eva`.
const EVA_KEYS: Keys = Keys {
    followed: &[
        "attn_pool_mlp_ratio",
        "attn_pool_num_heads",
        "attn_type",
        "class_token",
        "depth",
        "embed_dim",
        "global_pool",
        "img_size",
        "in_chans",
        "init_values",
        "mlp_ratio",
        "no_embed_class",
        "norm_layer",
        "num_classes",
        "num_heads",
        "num_reg_tokens",
        "patch_size",
        "qkv_bias",
        "qkv_fused",
        "ref_feat_shape",
        "rope_grid_indexing",
        "rope_grid_offset",
        "rope_rotate_half",
        "rope_temperature",
        "rope_type",
        "scale_attn_inner",
        "scale_mlp",
        "swiglu_align_to",
        "swiglu_mlp",
        "use_abs_pos_emb",
        "use_fc_norm",
        "use_post_norm",
        "use_post_transformer_norm",
        "use_pre_transformer_norm",
        "use_rot_pos_emb",
    ],
    idle: &[
        "attn_drop_rate",
        "drop_path_rate",
        "drop_rate",
        "dynamic_img_pad",
        "dynamic_img_size",
        "head_init_scale",
        "patch_drop_rate",
        "pos_drop_rate",
        "proj_drop_rate",
        "rope_jitter_coords",
        "rope_rescale_coords",
        "rope_shift_coords",
    ],
    only: &[],
};

/// The same of timm's `Beit`.
const BEIT_KEYS: Keys = Keys {
    followed: &[
        "depth",
        "embed_dim",
        "global_pool",
        "img_size",
        "in_chans",
        "init_values",
        "mlp_ratio",
        "norm_layer",
        "num_classes",
        "num_heads",
        "patch_size",
        "qkv_bias",
        "scale_mlp",
        "swiglu_mlp",
        "use_abs_pos_emb",
        "use_fc_norm",
        "use_rel_pos_bias",
    ],
    idle: &["attn_drop_rate", "drop_path_rate", "drop_rate", "head_init_scale", "pos_drop_rate", "proj_drop_rate"],
    only: &[],
};

/// The classes that these networks are in timm.
const CLASSES: &[Class] = &[
    Class { name: "VisionTransformer", keys: KEYS },
    Class { name: "VisionTransformerDistilled", keys: KEYS },
    Class { name: "Eva", keys: EVA_KEYS },
    Class { name: "Beit", keys: BEIT_KEYS },
];

/// Parts of names that stand for a computation we don't have, and what it is called.
const UNSUPPORTED: [(&str, &str); 6] = [
    (".q_norm.", "query-key normalisation"),
    (".k_norm.", "query-key normalisation"),
    ("lambda_q1", "differential attention"),
    ("attn.gate.", "gated attention"),
    ("rel_pos", "relative positions that blocks share"),
    ("attn_pool.pos_embed", "positions in the attention pool"),
];

/// Names of `Eva` and `Beit`, where they are not ours; and OpenCLIP's projection behind one of them.
const EVA: &Table = &[
    ("proj.*", "^head.proj.*"),
    ("blocks.#.attn.q.*", "blocks.#.attn.q_proj.*"),
    ("blocks.#.attn.k.*", "blocks.#.attn.k_proj.*"),
    ("blocks.#.attn.v.*", "blocks.#.attn.v_proj.*"),
    ("blocks.#.attn.q.bias", "blocks.#.attn.q_bias"),
    ("blocks.#.attn.v.bias", "blocks.#.attn.v_bias"),
    ("blocks.#.ls1.gamma", "blocks.#.gamma_1"),
    ("blocks.#.ls2.gamma", "blocks.#.gamma_2"),
    ("*", "*"),
];

/// The same, with the head of a CLIP model as its projection and a classifier behind it.
const EVA_PROJECTED: &Table = &[
    ("proj.*", "head.*"),
    ("head.*", "classifier.*"),
    ("blocks.#.attn.q.*", "blocks.#.attn.q_proj.*"),
    ("blocks.#.attn.k.*", "blocks.#.attn.k_proj.*"),
    ("blocks.#.attn.v.*", "blocks.#.attn.v_proj.*"),
    ("blocks.#.attn.q.bias", "blocks.#.attn.q_bias"),
    ("blocks.#.attn.v.bias", "blocks.#.attn.v_bias"),
    ("blocks.#.ls1.gamma", "blocks.#.gamma_1"),
    ("blocks.#.ls2.gamma", "blocks.#.gamma_2"),
    ("*", "*"),
];

/// A hybrid ViT whose backbone is a stem alone.
const STEM: &Table = &[("patch_embed.backbone.stem.*", "patch_embed.backbone.*"), ("*", "*")];

/// ViTamin's MLPs, which begin with a norm; alone, with OpenCLIP's projection, and with a head as projection.
const VITAMIN: &Table = &[
    ("proj.*", "^head.proj.*"),
    ("blocks.#.mlp.first_norm.*", "blocks.#.mlp.norm.*"),
    ("blocks.#.mlp.fc1_g.*", "blocks.#.mlp.w0.*"),
    ("blocks.#.mlp.fc1_x.*", "blocks.#.mlp.w1.*"),
    ("blocks.#.mlp.fc2.*", "blocks.#.mlp.w2.*"),
    ("*", "*"),
];
const VITAMIN_PROJECTED: &Table = &[
    ("proj.*", "head.*"),
    ("head.*", "classifier.*"),
    ("blocks.#.mlp.first_norm.*", "blocks.#.mlp.norm.*"),
    ("blocks.#.mlp.fc1_g.*", "blocks.#.mlp.w0.*"),
    ("blocks.#.mlp.fc1_x.*", "blocks.#.mlp.w1.*"),
    ("blocks.#.mlp.fc2.*", "blocks.#.mlp.w2.*"),
    ("*", "*"),
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
    let eva = [".attn.q_proj.weight", ".attn.q_bias", ".gamma_1"].iter().any(|ending| tensors.any(ending));
    let original = tensors.has("register_tokens") || tensors.any(".mlp.w12.weight");
    let vitamin = tensors.any(".mlp.w2.weight");
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
            (true, _) if vitamin => VITAMIN_PROJECTED,
            (false, _) if vitamin => VITAMIN,
            (true, _) if eva => EVA_PROJECTED,
            (true, _) => PROJECTED,
            (false, true) => DINOV2,
            (false, false) if eva => EVA,
            (false, false) if trunk => TRUNK,
            (false, false) if tensors.has("patch_embed.backbone.conv.weight") => STEM,
            (false, false) => &[],
        },
        facts,
        eps: if clip { 1e-5 } else { 1e-6 },
        eps_noted: false,
        activation,
        told: None,
        input,
        rope: None,
        whose: "timm",
        unsupported: &UNSUPPORTED,
        unneeded: &[],
        classifier: None,
        head_names: ["weight", "bias"].map(|what| format!("{}{head}.{what}", prefixes.prefix)),
        antialias: true,
        relative: Relative::Stretched,
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
