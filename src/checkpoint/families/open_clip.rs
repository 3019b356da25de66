//! The image towers of OpenAI's CLIP and OpenCLIP that are vision transformers.

use super::inputs;
use super::names::Table;
use super::transformers::CLIP_MODEL;
use super::vit::{self, Dialect};
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::positions::Relative;
use crate::checkpoint::{Overrides, Recognised};
use crate::error::Result;
use crate::shapes::Activation;

pub(super) const FAMILY: Family = Family {
    slug: "clip-vit",
    name: "CLIP ViT",
    layout: "visual.class_embedding, .conv1, .ln_pre, .transformer.resblocks.N, .ln_post, .proj",
    anchors: &[
        "class_embedding",
        "conv1.weight",
        "ln_pre.weight",
        "ln_post.weight",
        "transformer.resblocks.0.ln_1.weight",
    ],
    // The text tower has blocks and positions of the same names.
    enough: 4,
    bases: &["visual.", ""],
    timm: &[],
    read,
};

/// CLIP's names; the last norm stands before the pooling or behind it.
macro_rules! names {
    ($norm:literal) => {
        &[
            ("cls_token", "class_embedding"),
            ("pos_embed", "positional_embedding"),
            ("patch_embed.proj.weight", "conv1.weight"),
            ("norm_pre.*", "ln_pre.*"),
            ("blocks.#.norm1.*", "transformer.resblocks.#.ln_1.*"),
            ("blocks.#.attn.qkv.weight", "transformer.resblocks.#.attn.in_proj_weight"),
            ("blocks.#.attn.qkv.bias", "transformer.resblocks.#.attn.in_proj_bias"),
            ("blocks.#.attn.proj.*", "transformer.resblocks.#.attn.out_proj.*"),
            ("blocks.#.ls1.gamma", "transformer.resblocks.#.ls_1.gamma"),
            ("blocks.#.norm2.*", "transformer.resblocks.#.ln_2.*"),
            ("blocks.#.mlp.fc1.*", "transformer.resblocks.#.mlp.c_fc.*"),
            ("blocks.#.mlp.fc2.*", "transformer.resblocks.#.mlp.c_proj.*"),
            ("blocks.#.ls2.gamma", "transformer.resblocks.#.ls_2.gamma"),
            ($norm, "ln_post.*"),
            ("attn_pool.*", "attn_pool.*"),
            ("proj", "proj"),
            ("head.*", "^head.*"),
        ]
    };
}

const NAMES: &Table = names!("norm.*");
const NORM_AFTER_POOL: &Table = names!("fc_norm.*");

/// What stands in the archives that OpenAI released, and in no other CLIP: all of these have QuickGELU.
const OPENAI: [&str; 3] = ["input_resolution", "context_length", "vocab_size"];

/// Whether a checkpoint is one of OpenAI's own, with `outer` before its names.
pub(super) fn is_openai(checkpoint: &Checkpoint, outer: &str) -> bool {
    OPENAI.iter().all(|name| checkpoint.tensor(&format!("{outer}{name}")).is_some())
}

fn read(checkpoint: &Checkpoint, prefixes: Prefixes, overrides: &Overrides) -> Result<Recognised> {
    let openai = is_openai(checkpoint, prefixes.outer);
    let facts = Facts::open_clip(checkpoint, &CLIP_MODEL)?;
    let pooler = checkpoint.tensor(&format!("{}attn_pool.query", prefixes.prefix)).is_some();
    if let Facts::OpenClip(config) = &facts
        && config.attentional_pool()? != pooler
    {
        let what = format!("vision_cfg.attentional_pool is {}, which is not what the tensors are of", !pooler);
        return Err(config.error(what));
    }
    let dialect = Dialect {
        name: FAMILY.name,
        table: if pooler || facts.norm_after_pool()? { NORM_AFTER_POOL } else { NAMES },
        facts,
        eps: 1e-5,
        eps_noted: false,
        activation: None,
        told: openai
            .then_some((Activation::QuickGelu, "input_resolution, context_length, vocab_size: OpenAI's own file")),
        input: (inputs::clip, "CLIP's mean and std, bicubic, crop 1"),
        rope: None,
        whose: "CLIP",
        unsupported: &[("attn_pool_contrastive.", "two attention pools"), ("patchnorm", "a norm of patches")],
        unneeded: &[],
        classifier: None,
        head_names: ["weight", "bias"].map(|what| format!("{}head.{what}", prefixes.outer)),
        antialias: true,
        relative: Relative::Stretched,
    };
    vit::read(checkpoint, prefixes, overrides, dialect)
}
