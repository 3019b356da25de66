//! What tells one vision transformer's blocks, norms and positions from another's: tensors where they can, else the configuration
//! or our own metadata.

use super::vit::Reader;
use crate::checkpoint::header::TensorInfo;
use crate::checkpoint::json::quote;
use crate::checkpoint::timm_config::TimmConfig;
use crate::error::{Error, Help, Result};
use crate::model::config::{Block, LastNorm, Positions, VitConfig, VitParts};
use crate::model::rope::{Angles, Rope};

/// The values of timm's `pos_embed` that mean no positions.
const NO_POSITIONS: [&str; 2] = ["none", ""];

/// Whether a value is this number, or a list of it for height and width.
fn is_number(value: &serde_json::Value, number: usize) -> bool {
    match value.as_array() {
        Some(sides) => !sides.is_empty() && sides.iter().all(|side| is_number(side, number)),
        None => value.as_f64() == Some(number as f64),
    }
}

impl Reader<'_> {
    /// The parts that say how blocks are built, which norms stand where, and by which positions attention goes; the others are left as
    /// they are by default. With `no_norm`, what reads the blocks does without their last norm.
    pub(super) fn structure(&self, no_norm: bool) -> Result<VitParts> {
        let tensors = self.tensors;
        let own = self.own.parts.clone().unwrap_or_default();
        let block = self.block(&own)?;
        let rms_norm = self.rms_norm(block, &own)?;
        Ok(VitParts {
            block,
            rms_norm,
            patch_norm: tensors.has("patch_embed.norm.weight"),
            attn_norm: tensors.any(".attn.norm.weight"),
            mlp_norm: tensors.any(".mlp.norm.weight"),
            last_norm: if no_norm { LastNorm::Absent } else { self.last_norm(&own)? },
            keyless_bias: tensors.any(".attn.q.bias") && !tensors.any(".attn.k.bias"),
            unbiased: block == Block::PreNorm
                && !tensors.any(".attn.proj.bias")
                && !tensors.any(".mlp.fc2.bias")
                && tensors.any(".attn.proj.weight"),
            gate_norm: tensors.any(".mlp.first_norm.weight"),
            split_gate: tensors.any(".mlp.fc1_g.weight") || tensors.any(".mlp.fc1_x.weight"),
            rope: self.rope(&own)?,
            relative: tensors.any(".attn.relative_position_bias_table"),
            pool_prefix: match self.timm() {
                Some(timm) => timm.choice("pool_include_prefix")?.unwrap_or(own.pool_prefix),
                None => own.pool_prefix,
            },
            ..VitParts::default()
        })
    }

    /// Whether something says that the model learns no positions.
    pub(super) fn has_no_positions(&self) -> bool {
        let own = self.own.parts.as_ref().is_some_and(|parts| parts.positions == Positions::Absent);
        own || self
            .timm()
            .and_then(|timm| timm.word("pos_embed"))
            .is_some_and(|word| NO_POSITIONS.contains(&word.as_str()))
    }

    /// timm's configuration. One that names no architecture tells what it writes.
    pub(super) fn timm(&self) -> Option<&TimmConfig> {
        self.dialect.facts.timm_config().filter(|timm| timm.root.is_object())
    }

    /// The error of a fact that only a configuration tells, of a model with this tensor.
    fn untold(&self, info: &TensorInfo, what: &str) -> Error {
        self.tensors
            .error(info, format!("is of a model whose {what} can't be told without timm's config.json beside the file"))
    }

    /// Checks that the tensors are of the structure that timm's configuration tells.
    ///
    /// # Errors
    /// Where they are not: the message names the key and its value.
    pub(super) fn agree(&self, parts: &VitParts, gated: bool) -> Result<()> {
        let (Some(timm), tensors) = (self.timm(), self.tensors) else { return Ok(()) };
        let mlp = |name: &str| timm.word("mlp_layer").map(|own| own == name);
        let positions = tensors.has("pos_embed");
        let whole = parts.block != Block::Parallel;
        let hybrid =
            |backbone: &str| timm.word("embed_layer").map(|own| own == format!("HybridEmbed(backbone={backbone})"));
        let stages = parts.backbone.as_ref().map(|backbone| backbone.stages.len());
        let plain = [
            ("embed_layer", timm.word("embed_layer").map(|own| own.ends_with("proj=False)")), parts.stem.is_some()),
            ("embed_layer", hybrid("ResNetV2"), stages.is_some_and(|stages| stages > 0)),
            ("embed_layer", hybrid("Sequential"), stages == Some(0)),
            ("scale_attn_norm", timm.choice("scale_attn_norm")?, parts.attn_norm),
            ("scale_mlp_norm", timm.choice("scale_mlp_norm")?, parts.mlp_norm),
            ("proj_bias", timm.choice("proj_bias")?.filter(|_| whole), !parts.unbiased),
            ("final_norm", timm.choice("final_norm")?.filter(|last| !last), parts.last_norm != LastNorm::Absent),
            ("embed_norm_layer", Some(timm.value("embed_norm_layer").is_some()), parts.patch_norm),
            ("block_fn", Some(timm.word("block_fn").as_deref() == Some("ParallelScalingBlock")), !whole),
            ("pos_embed", timm.word("pos_embed").map(|word| !NO_POSITIONS.contains(&word.as_str())), positions),
            ("mlp_layer", mlp("SwiGLU").filter(|_| whole && !parts.gate_norm), parts.split_gate),
            ("mlp_layer", mlp("GeGluMlp").filter(|_| whole), parts.gate_norm),
            ("mlp_layer", mlp("Mlp").filter(|plain| *plain && whole), !gated),
        ];
        let keyless = match timm.is_class("Beit") || timm.word("attn_type").as_deref() == Some("eva") {
            true => timm.choice("qkv_bias")?,
            false => Some(false),
        };
        let eva = [
            ("use_rel_pos_bias", timm.choice("use_rel_pos_bias")?, parts.relative),
            ("use_abs_pos_emb", timm.choice("use_abs_pos_emb")?, positions),
            ("qkv_bias", keyless, parts.keyless_bias),
            ("qkv_fused", timm.choice("qkv_fused")?, !tensors.any(".attn.q.weight")),
            ("scale_attn_inner", timm.choice("scale_attn_inner")?, parts.attn_norm),
            ("scale_mlp", timm.choice("scale_mlp")?, parts.mlp_norm),
            ("swiglu_mlp", timm.choice("swiglu_mlp")?, gated),
        ];
        let vit = !timm.is_built() || timm.is_class("VisionTransformer") || timm.is_class("VisionTransformerDistilled");
        let told = if vit { &plain[..] } else { &eva };
        let norm = [("norm_layer", Some(timm.rms_norm()), parts.rms_norm)];
        for (key, told, found) in told.iter().chain(&norm) {
            let known = timm.is_built() || timm.value(key).is_some();
            if known && told.is_some_and(|told| told != *found) {
                let (value, place) = timm.value(key).unwrap_or_default();
                let value = quote(&value.to_string());
                let what = if place.starts_with("architecture") { format!("{place}: {key}") } else { place };
                return Err(timm.error(format!("{what} is {value}, which is not what the tensors are of")));
            }
        }
        Ok(())
    }

    fn block(&self, own: &VitParts) -> Result<Block> {
        if self.tensors.any(".in_norm.weight") {
            return Ok(Block::Parallel);
        }
        let Some(timm) = self.timm() else { return Ok(own.block) };
        if timm.flag("use_post_norm")? {
            return Ok(Block::PostNorm);
        }
        Ok(match timm.word("block_fn").as_deref() {
            Some("ResPostBlock") => Block::PostNorm,
            None if !timm.is_built() => own.block,
            _ => Block::PreNorm,
        })
    }

    /// A norm without a bias is a root mean square norm where the configuration says so.
    fn rms_norm(&self, block: Block, own: &VitParts) -> Result<bool> {
        let name = if block == Block::Parallel { "in_norm" } else { "norm1" };
        let tensors = self.tensors;
        if !tensors.any(&format!(".{name}.weight")) || tensors.any(&format!(".{name}.bias")) {
            return Ok(false);
        }
        let told = match self.timm() {
            Some(timm) => timm.rms_norm() || (own.rms_norm && !timm.is_built()),
            None => own.rms_norm,
        };
        match told {
            true => Ok(true),
            false if self.timm().is_none_or(|timm| !timm.is_built()) => {
                Err(self.untold(tensors.get(&format!("blocks.0.{name}.weight"))?, "kind of norm"))
            }
            false => Ok(false),
        }
    }

    /// Where norms stand behind the blocks.
    fn last_norm(&self, own: &VitParts) -> Result<LastNorm> {
        let [before, after] = ["norm.weight", "fc_norm.weight"].map(|name| self.tensors.has(name));
        if before && after && !self.own.fc_norm {
            let known = self.timm().is_some_and(|timm| timm.is_class("Eva")) || own.last_norm == LastNorm::Both;
            return if known {
                Ok(LastNorm::Both)
            } else {
                let info = self.tensors.get("fc_norm.weight")?;
                Err(self.tensors.error(info, "stands beside norm.weight: not supported yet"))
            };
        }
        if before || after {
            return Ok(LastNorm::One);
        }
        let Some(timm) = self.timm() else { return Ok(own.last_norm) };
        if !timm.is_built() {
            let absent = timm.choice("final_norm")? == Some(false);
            return Ok(if absent { LastNorm::Absent } else { own.last_norm });
        }
        let [last, fc] = match timm.is_class("VisionTransformer") {
            true => [timm.flag("final_norm")?, false],
            false => {
                let mean = timm.word("global_pool").as_deref() == Some("avg");
                let fc = timm.choice("use_fc_norm")?.unwrap_or(mean);
                [timm.choice("use_post_transformer_norm")?.unwrap_or(!fc), fc]
            }
        };
        Ok(if last || fc { LastNorm::One } else { LastNorm::Absent })
    }

    fn rope(&self, own: &VitParts) -> Result<Option<Rope>> {
        let tensors = self.tensors;
        let learned = tensors.has("rope.freqs");
        if self.dialect.rope.is_some() {
            return Ok(self.dialect.rope);
        }
        let Some(timm) = self.timm().filter(|timm| timm.is_built()) else {
            // What only timm's `Eva` has: with or without rotary positions.
            let eva = [".attn.q_proj.weight", ".attn.q_bias"];
            let named = |info: &TensorInfo| eva.iter().any(|ending| info.name.ends_with(ending));
            let telling =
                tensors.by_name.get("rope.freqs").or_else(|| tensors.by_name.values().find(|info| named(info)));
            let beit = tensors.any(".attn.relative_position_bias_table");
            return match (telling, own.rope) {
                (Some(info), None) if !beit && self.own.parts.is_none() => Err(self.untold(info, "rotary positions")),
                (_, rope) => Ok(rope),
            };
        };
        if !timm.is_class("Eva") || !timm.flag("use_rot_pos_emb")? {
            return Ok(None);
        }
        let halves = timm.flag("rope_rotate_half")?;
        let number = |key| timm.number(key);
        let offset = number("rope_grid_offset")?.unwrap_or(0.0);
        let reference = match timm.value("ref_feat_shape") {
            None => None,
            Some((value, place)) => {
                let side = |v: &serde_json::Value| v.as_u64().filter(|n| *n > 0);
                let both = value.as_array().and_then(|list| list.iter().map(side).collect::<Option<Vec<_>>>());
                let square = both.filter(|both| both.len() == 2 && both[0] == both[1]).map(|both| both[0]);
                let wrong = || {
                    let value = quote(&value.to_string());
                    timm.error(format!("ref_feat_shape is {value} ({place}), supported: two equal whole numbers"))
                };
                Some(square.or(side(&value)).ok_or_else(wrong)? as usize)
            }
        };
        let kind = timm.word("rope_type");
        let angles = match kind.as_deref() {
            Some("cat") => Angles::Axial { offset, reference },
            Some("dinov3") => Angles::Centered { offset },
            Some("mixed") if halves => {
                return Err(timm.error("rope_rotate_half is true: not supported with a rope_type of mixed"));
            }
            Some("mixed") => Angles::Learned,
            other => {
                let what =
                    format!("rope_type is {}: not supported yet, only cat, dinov3 and mixed", other.unwrap_or("null"));
                return Err(timm.error(what));
            }
        };
        if learned != (angles == Angles::Learned) {
            let what = "rope.freqs is in the file, but rope_type is not mixed";
            return Err(tensors.get("rope.freqs").err().unwrap_or_else(|| tensors.checkpoint.error(what)));
        }
        let transposed = match timm.word("rope_grid_indexing").as_deref() {
            Some("xy") => true,
            Some("ij") => false,
            other => {
                return Err(timm.error(format!("rope_grid_indexing is {}, supported: ij, xy", other.unwrap_or("null"))));
            }
        };
        let temperature = number("rope_temperature")?.unwrap_or(10000.0);
        Ok(Some(Rope { angles, temperature, transposed, halves }))
    }

    /// Checks that a head's elements fall into pairs, and those of rows and columns apart.
    pub(super) fn check_rope(&self, config: &VitConfig) -> Result<()> {
        let Some(rope) = config.parts.rope else { return Ok(()) };
        let (head_dim, of) = (config.dim / config.heads, if rope.angles == Angles::Learned { 2 } else { 4 });
        if head_dim > 0 && head_dim.is_multiple_of(of) {
            return Ok(());
        }
        let heads = config.heads;
        let what = format!("{heads} heads have {head_dim} dimensions each: rotary positions need a multiple of {of}");
        Err(self.tensors.checkpoint.error(what).with_help(Help::Heads))
    }

    /// Checks the numbers that a configuration gives and the tensors tell, too. A library that finds other ones resizes the weights,
    /// or leaves some out.
    pub(super) fn check_numbers(&self, config: &VitConfig) -> Result<()> {
        let registers = config.parts.registers;
        let patch = Some(config.patch_size).filter(|_| config.parts.stem.is_none() && config.parts.backbone.is_none());
        // Our own file may have another stem than the one that it was made from.
        let channels = self.own.preprocess.is_none().then_some(if config.parts.grey { 1 } else { 3 });
        for (keys, found) in [
            (&["patch_size"][..], patch),
            (&["embed_dim", "hidden_size", "width"], Some(config.dim)),
            (&["in_chans", "num_channels"], channels),
            (&["reg_tokens", "num_reg_tokens", "num_register_tokens"], Some(registers)),
        ] {
            for key in keys {
                let told = self.dialect.facts.told(key);
                if let (Some((told, place)), Some(found)) = (told, found)
                    && !is_number(&told, found)
                {
                    let (file, told) = (self.dialect.facts.file(), quote(&told.to_string()));
                    let what = format!("{place} is {told} in {file}, but the tensors are of {found}");
                    return Err(self.tensors.checkpoint.error(what));
                }
            }
        }
        Ok(())
    }

    /// Heads of the attention pool, where they are not the blocks'.
    pub(super) fn pool_heads(&self, dim: usize) -> Result<Option<usize>> {
        let own = self.own.parts.as_ref().and_then(|parts| parts.attention_pool?.heads);
        let Some(timm) = self.timm() else { return Ok(own) };
        let Some(heads) = timm.number("attn_pool_num_heads")? else {
            return Ok(own.filter(|_| !timm.is_built()));
        };
        let whole = heads.fract() == 0.0 && heads >= 1.0 && dim.is_multiple_of(heads as usize);
        let wrong = || timm.error(format!("attn_pool_num_heads is {heads}, which does not divide the width {dim}"));
        whole.then_some(Some(heads as usize)).ok_or_else(wrong)
    }
}
