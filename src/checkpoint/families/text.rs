//! The text towers of OpenAI's CLIP and OpenCLIP, beside an image tower of theirs (`text.` before every name, in a `CustomTextCLIP`), and
//! those of transformers' CLIP and SigLIP.

use super::names::Table;
use super::open_clip::is_openai;
use super::tensors::Tensors;
use super::{Prefixes, is_wrapper};
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::metadata;
use crate::checkpoint::text::{End, TextOverrides, TextTower, TokenizerKind};
use crate::checkpoint::text_config::TextFacts;
use crate::checkpoint::timm_config::usual_heads;
use crate::error::{Help, Result};
use crate::model::Network;
use crate::model::config::Projection;
use crate::model::text::{TextConfig, TextPool};
use crate::shapes::Activation;
use crate::text::Clean;

/// A way to write a text tower.
struct Layout {
    name: &'static str,
    table: &'static Table,
    /// The tensor by which it is known, and what stands before all names, if not what stands beside the tower.
    token: &'static str,
    bases: &'static [&'static str],
}

const OPEN_CLIP: Layout = Layout {
    name: "OpenCLIP text",
    table: &[
        ("token_embedding.weight", "token_embedding.weight"),
        ("positional_embedding", "positional_embedding"),
        ("blocks.#.norm1.*", "transformer.resblocks.#.ln_1.*"),
        ("blocks.#.attn.qkv.weight", "transformer.resblocks.#.attn.in_proj_weight"),
        ("blocks.#.attn.qkv.bias", "transformer.resblocks.#.attn.in_proj_bias"),
        ("blocks.#.attn.proj.*", "transformer.resblocks.#.attn.out_proj.*"),
        ("blocks.#.ls1.gamma", "transformer.resblocks.#.ls_1.gamma"),
        ("blocks.#.norm2.*", "transformer.resblocks.#.ln_2.*"),
        ("blocks.#.mlp.fc1.*", "transformer.resblocks.#.mlp.c_fc.*"),
        ("blocks.#.mlp.fc2.*", "transformer.resblocks.#.mlp.c_proj.*"),
        ("blocks.#.ls2.gamma", "transformer.resblocks.#.ls_2.gamma"),
        ("norm.*", "ln_final.*"),
        ("proj", "text_projection"),
        ("proj.*", "text_projection.*"),
        ("cls_emb", "cls_emb"),
    ],
    token: "token_embedding.weight",
    bases: &["text.", ""],
};

const TRANSFORMERS: Layout = Layout {
    name: "transformers text",
    table: &[
        ("token_embedding.weight", "embeddings.token_embedding.weight"),
        ("positional_embedding", "embeddings.position_embedding.weight"),
        ("blocks.#.norm1.*", "encoder.layers.#.layer_norm1.*"),
        ("blocks.#.attn.q.*", "encoder.layers.#.self_attn.q_proj.*"),
        ("blocks.#.attn.k.*", "encoder.layers.#.self_attn.k_proj.*"),
        ("blocks.#.attn.v.*", "encoder.layers.#.self_attn.v_proj.*"),
        ("blocks.#.attn.proj.*", "encoder.layers.#.self_attn.out_proj.*"),
        ("blocks.#.norm2.*", "encoder.layers.#.layer_norm2.*"),
        ("blocks.#.mlp.fc1.*", "encoder.layers.#.mlp.fc1.*"),
        ("blocks.#.mlp.fc2.*", "encoder.layers.#.mlp.fc2.*"),
        ("norm.*", "final_layer_norm.*"),
        ("proj.weight", "^text_projection.weight"),
        ("proj.*", "head.*"),
    ],
    token: "embeddings.token_embedding.weight",
    bases: &["text_model.", ""],
};

/// What stands before the names of a tower in this layout, and before those beside it.
fn prefixes<'a>(checkpoint: &'a Checkpoint, layout: &Layout) -> Option<Prefixes<'a>> {
    checkpoint.tensors().iter().find_map(|tensor| {
        let prefix = tensor.name.strip_suffix(layout.token)?;
        let base = layout.bases.iter().find(|base| prefix.strip_suffix(**base).is_some_and(is_wrapper))?;
        Some(Prefixes { prefix, outer: prefix.strip_suffix(base)? })
    })
}

/// Reads the text tower of a checkpoint.
pub(in crate::checkpoint) fn read(checkpoint: &Checkpoint, overrides: &TextOverrides) -> Result<TextTower> {
    let found = |layout: &'static Layout| Some((layout, prefixes(checkpoint, layout)?));
    let Some((layout, prefixes)) = found(&TRANSFORMERS).or_else(|| found(&OPEN_CLIP)) else {
        let other =
            checkpoint.tensors().iter().find(|t| ["text.", "text_model."].iter().any(|p| t.name.starts_with(p)));
        let what = match other {
            Some(tensor) => format!("has a text tower that is not supported yet, with tensor {}", tensor.name),
            None => {
                "has no text tower: class names can't become a head with it; models such as CLIP and SigLIP have one"
                    .into()
            }
        };
        return Err(checkpoint.error(what));
    };
    Reader { checkpoint, overrides, layout, prefixes, tensors: Tensors::new(checkpoint, prefixes, layout.table) }.read()
}

struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    overrides: &'a TextOverrides,
    layout: &'static Layout,
    prefixes: Prefixes<'a>,
    tensors: Tensors<'a>,
}

impl Reader<'_> {
    fn read(self) -> Result<TextTower> {
        let tensors = &self.tensors;
        let mut notes = Vec::new();
        if let Some(info) = tensors.by_name.get("cls_emb") {
            return Err(tensors.error(info, "means a class token behind the text (CoCa): not supported yet"));
        }
        let facts = self.facts()?;
        let [vocabulary, dim] = tensors.dims("token_embedding.weight", "[vocabulary, dim]")?;
        let [context, _] = tensors.dims("positional_embedding", &format!("[context, {dim}]"))?;
        let [mlp_dim, _] = tensors.dims("blocks.0.mlp.fc1.weight", "[mlp_dim, dim]")?;
        let projection = self.projection()?;
        let linear = projection.is_some_and(|p| !p.transposed);
        // SigLIP in OpenCLIP, of which no tensor but its biases tells.
        let siglip = self.layout.table == OPEN_CLIP.table && linear && self.scalar("logit_bias")?.is_some();
        let pool = facts.pool.unwrap_or(if siglip { TextPool::Last } else { TextPool::End });
        if siglip && facts.pool.is_none() {
            notes.push("no configuration: a text tower with a bias behind it was taken to be SigLIP's".into());
        }
        let activation = self.activation(&facts)?;
        let config = TextConfig {
            vocabulary,
            context,
            dim,
            depth: self.depth()?,
            heads: self.heads(dim, &facts)?,
            mlp_dim,
            activation,
            eps: facts.eps.unwrap_or(if siglip { 1e-6 } else { 1e-5 }),
            causal: facts.causal.unwrap_or(!siglip),
            pool,
            split_qkv: tensors.any(".attn.q.weight"),
            layer_scale: tensors.any(".ls1.gamma"),
            projection,
        };
        let names = tensors.names_of(config.parameters())?;
        let usual = if siglip { file_of(Clean::Canonical) } else { TokenizerKind::OpenAi(Clean::Lower) };
        let scale = self.scalar("logit_scale")?;
        if scale.is_none() {
            notes.push("the file has no logit_scale: similarities were multiplied by 100, as CLIP's are".into());
        }
        Ok(TextTower {
            family: self.layout.name,
            config,
            names,
            end: facts.end.unwrap_or(End::Highest),
            tokenizer: facts.tokenizer.unwrap_or(usual),
            logit_scale: scale.unwrap_or(100f32.ln()),
            logit_bias: self.scalar("logit_bias")?,
            notes,
        })
    }

    fn facts(&self) -> Result<TextFacts> {
        if self.layout.table == TRANSFORMERS.table {
            let siglip = self.tensors.has("proj.bias");
            return TextFacts::transformers(self.checkpoint, siglip);
        }
        let facts = TextFacts::open_clip(self.checkpoint)?;
        Ok(facts.unwrap_or_default())
    }

    fn projection(&self) -> Result<Option<Projection>> {
        let tensors = &self.tensors;
        if tensors.has("proj") {
            let [_, features] = tensors.dims("proj", "[dim, features]")?;
            return Ok(Some(Projection { features, transposed: true, bias: false }));
        }
        if !tensors.has("proj.weight") {
            return Ok(None);
        }
        let [features, _] = tensors.dims("proj.weight", "[features, dim]")?;
        Ok(Some(Projection { features, transposed: false, bias: tensors.has("proj.bias") }))
    }

    /// A number beside the towers.
    fn scalar(&self, name: &str) -> Result<Option<f32>> {
        let name = format!("{}{name}", self.prefixes.outer);
        let Some(info) = self.checkpoint.tensor(&name) else { return Ok(None) };
        match self.checkpoint.read_f32(&name)?.as_slice() {
            [value] => Ok(Some(*value)),
            _ => Err(self.tensors.error(info, format!("has shape {:?}, expected one number", info.shape))),
        }
    }

    fn depth(&self) -> Result<usize> {
        let number = |name: &String| name.strip_prefix("blocks.")?.split('.').next()?.parse::<usize>().ok();
        // A gap shows as a missing tensor.
        Ok(self.tensors.by_name.keys().filter_map(number).max().map_or(0, |last| last + 1))
    }

    fn activation(&self, facts: &TextFacts) -> Result<Activation> {
        let openai = is_openai(self.checkpoint, self.prefixes.outer).then_some(Activation::QuickGelu);
        let own = metadata::read(self.checkpoint)?.activation;
        let said = [self.overrides.activation, facts.activation, openai, own].into_iter().flatten().next();
        said.ok_or_else(|| {
            let what = "the activation of its text tower can't be told: some of these models have QuickGELU, some GELU, and the \
                        tensors are the same";
            self.checkpoint.error(what).with_help(Help::Activation)
        })
    }

    fn heads(&self, dim: usize, facts: &TextFacts) -> Result<usize> {
        let heads = self.overrides.heads.or(facts.heads).or(usual_heads(dim));
        match heads.filter(|heads| *heads > 0 && dim.is_multiple_of(*heads)) {
            Some(heads) => Ok(heads),
            None => {
                let what = match heads {
                    Some(heads) => format!("{heads} heads do not divide the width {dim} of its text tower"),
                    None => format!(
                        "the width {dim} of its text tower is no multiple of 64, so the number of heads can't be told"
                    ),
                };
                Err(self.checkpoint.error(what).with_help(Help::Heads))
            }
        }
    }
}

fn file_of(clean: Clean) -> TokenizerKind {
    TokenizerKind::File { clean, pad: None, pad_id: Some(1), left: false }
}
