//! What all families of vision transformers share in being read: shapes tell most, a configuration or an override the rest.

use std::collections::{BTreeMap, BTreeSet};

use super::Prefixes;
use super::names::Table;
use super::tensors::{ASSUMED, Tensors, class_names, first, misfit, of_tower, preprocessing_assumed};
use super::vit_stem::Embedding;
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::metadata;
use crate::checkpoint::positions::Relative;
use crate::checkpoint::zero_shot::ZeroShot;
use crate::checkpoint::{Note, OVERRIDE, Overrides, Recognised};
use crate::data::preprocess::Preprocess;
use crate::error::{Error, Help, Result, Setting};
use crate::model::Network;
use crate::model::config::{AttentionPool, Block, LastNorm, Pool, Pooler, Positions, Projection, VitConfig, VitParts};
use crate::model::rope::Rope;
use crate::shapes::Activation;

/// Where each fact comes from: [`Recognised::sources`].
pub(super) type Sources = BTreeMap<&'static str, String>;

/// What a family has that its tensors don't tell.
pub(super) struct Dialect<'a> {
    pub(super) name: &'static str,
    /// Its names; none where they are ours.
    pub(super) table: &'static Table,
    /// The configuration beside it.
    pub(super) facts: Facts<'a>,
    /// If nobody says otherwise. A note reports it if `eps_noted`.
    pub(super) eps: f32,
    pub(super) eps_noted: bool,
    /// The activation that all of the family have, and whose convention that is; none where some have one, some another.
    pub(super) activation: Option<(Activation, &'static str)>,
    /// The activation that tensors beside the model's tell for certain, and how.
    pub(super) told: Option<(Activation, &'static str)>,
    /// What its models are trained on, at an image size, and in words.
    pub(super) input: (fn(usize) -> Preprocess, &'static str),
    /// Rotary positions that the library's models of this kind all have.
    pub(super) rope: Option<Rope>,
    /// Whose widths tell the heads.
    pub(super) whose: &'static str,
    /// Parts of names (the file's) that stand for a computation we don't have, and what it is called.
    pub(super) unsupported: &'static [(&'static str, &'static str)],
    /// Tensors within the family's prefix that the image features don't depend on.
    pub(super) unneeded: &'static [&'static str],
    /// What the library's own classifier reads of the tower, if the file has it.
    pub(super) classifier: Option<Classifier>,
    /// The head's weight and bias, in the file.
    pub(super) head_names: [String; 2],
    /// Whether its library resizes positions with a filter against aliasing, as timm does.
    pub(super) antialias: bool,
    /// How its library resizes relative positions.
    pub(super) relative: Relative,
}

/// A classifier that reads other than what its tower pools.
pub(super) struct Classifier {
    pub(super) pool: Pool,
    /// What it leaves out of the tower, by how the canonical names begin.
    pub(super) skips: &'static [&'static str],
}

/// Reads a checkpoint of a family.
pub(super) fn read(
    checkpoint: &Checkpoint,
    prefixes: Prefixes,
    overrides: &Overrides,
    dialect: Dialect,
) -> Result<Recognised> {
    let tensors = Tensors::new(checkpoint, prefixes, dialect.table);
    let own = metadata::read(checkpoint)?;
    let (mut notes, mut sources) = (Vec::new(), BTreeMap::new());
    reject_unsupported(&tensors, &dialect)?;

    let reader = Reader { tensors: &tensors, dialect: &dialect, own: &own, overrides };
    let mut config = reader.config(&mut notes, &mut sources)?;
    if !dialect.facts.written() && own.heads.is_none() {
        let plain = "no configuration names its architecture: a plain vision transformer was assumed, its blocks one after \
                     the other with their norms before them";
        notes.push(match &dialect.rope {
            Some(rope) if own.parts.is_none() => {
                format!("rotary positions assumed: with a base of {}, as {}s have", rope.temperature, dialect.name)
                    .into()
            }
            _ => plain.into(),
        });
    }
    let mut names = tensors.names_of(config.parameters())?;
    let buffers = tensors.names_of(config.buffers())?;
    let counted =
        |(name, _): (String, Vec<usize>)| Some(format!("{}.num_batches_tracked", name.strip_suffix(".running_mean")?));
    let counters: Vec<String> = config
        .buffers()
        .into_iter()
        .filter_map(counted)
        .filter_map(|name| Some(tensors.by_name.get(&name)?.name.clone()))
        .collect();
    let used = names.iter().chain(&buffers).map(|(_, in_file)| in_file).chain(&counters).map(String::as_str).collect();
    let mut ignored = ignored(&tensors, &used, &dialect, own.fc_norm, &mut notes)?;
    let initialised = new_fc_norm(&tensors, overrides, &mut config, &mut names, &mut ignored, &mut notes)?;
    let resize = reader.resize(&mut config, &mut notes)?;
    let usual = (dialect.input.0)(config.image_size);
    let preprocess = match own.preprocess {
        Some(own) => {
            sources.insert("preprocess", "metadata tpgm.preprocess".into());
            Preprocess { image_size: config.image_size, ..own }
        }
        None => match dialect.facts.preprocess(usual.clone(), &mut notes)? {
            Some(written) => {
                sources.insert("preprocess", dialect.facts.preprocess_file().into());
                written
            }
            None => {
                sources.insert("preprocess", ASSUMED.into());
                notes.push(preprocessing_assumed(dialect.input.1));
                usual
            }
        },
    };
    let mut classes = class_names(own.classes, &dialect.facts, config.classes, &mut notes);
    let mut head_file = None;
    if let Some(path) = &overrides.head {
        let head = ZeroShot::open(path)?;
        head.check(config.features())?;
        if config.parts.distilled {
            let error = checkpoint.error("has two heads (DeiT, distilled): one head can't take their place");
            return Err(error.with_help(Help::Setting(Setting::Head)));
        }
        names.retain(|(name, _)| name != "head.weight" && name != "head.bias");
        // A bias that the file has stays, as zeros: its library expects one.
        config.head_bias = head.bias.is_some() || (config.classes > 0 && config.head_bias);
        config.classes = head.classes;
        let count = 1 + usize::from(config.head_bias);
        for (name, in_file) in ["head.weight", "head.bias"].iter().zip(&dialect.head_names).take(count) {
            names.push((name.to_string(), in_file.clone()));
        }
        notes.push(head.note());
        classes = head.names.clone();
        head_file = Some(head);
    }
    Ok(Recognised {
        family: dialect.name,
        config: config.into(),
        preprocess,
        names,
        buffers,
        counters,
        head_names: dialect.head_names,
        initialised,
        ignored,
        notes,
        sources,
        classes,
        thresholds: None,
        resize,
        stem: None,
        head_file,
    })
}

fn reject_unsupported(tensors: &Tensors, dialect: &Dialect) -> Result<()> {
    for (name, info) in
        tensors.by_name.iter().map(|(n, i)| (n.as_str(), i)).chain(tensors.unnamed.iter().map(|(n, i)| (*n, i)))
    {
        if let Some((_, what)) = dialect.unsupported.iter().find(|(part, _)| name.contains(part)) {
            return Err(tensors.error(info, format!("means {what}: not supported yet")));
        }
    }
    Ok(())
}

/// MAE's way to fine-tune: the norm behind the blocks goes, and a new one stands after the mean. Returns its tensors.
fn new_fc_norm(
    tensors: &Tensors,
    overrides: &Overrides,
    config: &mut VitConfig,
    names: &mut [(String, String)],
    ignored: &mut Vec<String>,
    notes: &mut Vec<Note>,
) -> Result<Vec<String>> {
    if !overrides.fc_norm || config.fc_norm {
        return Ok(Vec::new());
    }
    if config.pool != Pool::Mean {
        let what = "a new norm after the mean needs mean pooling, which this model does not have";
        return Err(Error::Usage(what.into()).with_help(Help::MeanPooling));
    }
    if config.parts.last_norm == LastNorm::Absent {
        let what = "a new norm after the mean takes the place of one behind the blocks, which this model does not have";
        return Err(Error::Usage(what.into()));
    }
    config.fc_norm = true;
    let mut initialised = Vec::new();
    for what in ["weight", "bias"] {
        let (own, new) = (format!("norm.{what}"), format!("fc_norm.{what}"));
        for entry in names.iter_mut().filter(|(name, _)| *name == own) {
            ignored.push(std::mem::replace(&mut entry.1, tensors.in_file(&new)));
            entry.0 = new.clone();
        }
        initialised.push(new);
    }
    ignored.sort();
    notes.push("norm is left out: a new fc_norm stands after the mean, as MAE is fine-tuned".into());
    Ok(initialised)
}

/// All that a model's configuration is made from.
pub(super) struct Reader<'a> {
    pub(super) tensors: &'a Tensors<'a>,
    pub(super) dialect: &'a Dialect<'a>,
    pub(super) own: &'a metadata::Own,
    pub(super) overrides: &'a Overrides,
}

impl Reader<'_> {
    /// The model at the file's own image size.
    fn config(&self, notes: &mut Vec<Note>, sources: &mut Sources) -> Result<VitConfig> {
        let Reader { tensors, dialect, own, overrides } = *self;
        let Embedding { stem, backbone, dim, patch_size, grey } = Embedding::read(tensors)?;
        let class_token = tensors.has("cls_token");
        let skips = |part| dialect.classifier.as_ref().is_some_and(|c| c.skips.contains(&part));
        let pooler = self.pooler(notes)?;
        let attention_pool = if skips("attn_pool.") || pooler.is_some() { None } else { self.attention_pool(dim)? };
        let distilled = tensors.has("dist_token");
        let registers =
            if tensors.has("reg_token") { tensors.dims::<3>("reg_token", "[1, registers, dim]")?[1] } else { 0 };
        if !class_token && distilled {
            return Err(tensors.get("cls_token").err().unwrap_or_else(|| tensors.checkpoint.error("no class token")));
        }
        let structure = self.structure(skips("norm."))?;
        let other = structure.rope.is_some() || structure.relative || self.has_no_positions();
        let flat = tensors.by_name.get("pos_embed").is_some_and(|info| info.shape.len() == 2);
        let extra = registers + usize::from(distilled);
        let (image_size, positions) = match tensors.has("pos_embed") || !other {
            true => self.image_size(dim, patch_size, class_token, extra, flat, notes)?,
            false => (self.size_without_positions(patch_size, structure.relative)?, Positions::Absent),
        };
        let depth = self.depth()?;
        if let Some((told, place)) = dialect.facts.depth()?.filter(|(told, _)| *told != depth as u64) {
            let file = dialect.facts.file();
            return Err(tensors.checkpoint.error(format!("has {depth} blocks, but {place} is {told} in {file}")));
        }
        let (mlp_dim, gated) = self.mlp()?;
        let classes = if tensors.has("head.weight") {
            tensors.dims::<2>("head.weight", "[classes, dim]")?[0]
        } else if tensors.has("head.bias") || (distilled && tensors.has("head_dist.weight")) {
            return Err(tensors
                .get("head.weight")
                .err()
                .unwrap_or_else(|| tensors.checkpoint.error("head is incomplete")));
        } else {
            0
        };
        let split_qkv = tensors.any(".attn.q.weight") || tensors.any(".attn.k.weight") || tensors.any(".attn.v.weight");
        let fc_norm = tensors.has("fc_norm.weight");
        let by_tensors = match attention_pool {
            Some(_) => Pool::Attention,
            None if pooler.is_some() => Pool::Cls,
            None if fc_norm || !class_token => Pool::Mean,
            None => Pool::Cls,
        };
        let said = [
            (overrides.pool, OVERRIDE),
            (own.pool, "metadata tpgm.pool"),
            (dialect.classifier.as_ref().map(|c| c.pool), "its classifier"),
            (dialect.facts.pool()?, dialect.facts.file()),
        ];
        let pool = first(said, sources, "pool").unwrap_or_else(|| {
            sources.insert("pool", "tensor names".into());
            by_tensors
        });
        if matches!(pool, Pool::Cls | Pool::ClsMean) && !class_token {
            return Err(tensors
                .checkpoint
                .error("pools the class token, but has no tensor cls_token; use mean pooling"));
        }
        if pooler.is_some() && pool != Pool::Cls {
            let info = tensors.get("attn_pool.query")?;
            return Err(
                tensors.error(info, "belongs to an attention pool whose first query is read: pooling must be cls")
            );
        }
        if (pool == Pool::Attention) != attention_pool.is_some() {
            let what = if attention_pool.is_some() { "an attention pool, and no other" } else { "no attention pool" };
            return Err(if overrides.pool.is_some() {
                misfit(Setting::Pool, format!("{} has {what}", tensors.checkpoint.path().display()))
            } else {
                let error = || tensors.checkpoint.error(format!("has {what}"));
                tensors.get("attn_pool.latent").err().unwrap_or_else(error)
            });
        }
        if attention_pool.is_some() && gated {
            let what = "belongs to an attention pool beside gated MLPs (SwiGLU): not supported yet";
            return Err(tensors.error(tensors.get("attn_pool.latent")?, what));
        }
        let pools_all = structure.pool_prefix || structure.rope.is_some() || self.is_eva();
        if attention_pool.is_some() && (class_token || registers > 0) && !pools_all {
            let info = tensors.get(if class_token { "cls_token" } else { "reg_token" })?;
            return Err(tensors.error(info, "stands beside an attention pool: not supported yet"));
        }
        if structure.relative && !(class_token && registers == 0 && structure.block == Block::PreNorm) {
            let name = "blocks.0.attn.relative_position_bias_table";
            let what = "stands beside registers, or without a class token: not supported yet";
            return Err(tensors.error(tensors.get(name)?, what));
        }
        if distilled && (pool != Pool::Cls || tensors.has("fc_norm.weight")) {
            return Err(tensors
                .checkpoint
                .error("has two heads (DeiT, distilled), which read tokens: pooling must be cls, without fc_norm"));
        }
        let parts = VitParts {
            registers,
            distilled,
            positions,
            norm_pre: tensors.has("norm_pre.weight") || tensors.has("norm_pre.bias"),
            split_qkv,
            flat,
            projection: self.projection()?,
            attention_pool,
            pooler,
            stem,
            normalize: overrides.normalize.or(own.normalize).unwrap_or(false),
            grey,
            backbone,
            ..structure
        };
        let structure_gate = parts.gate_norm;
        let config = VitConfig {
            image_size,
            patch_size,
            dim,
            depth,
            heads: self.heads(dim, notes, sources)?,
            mlp_dim,
            classes,
            eps: self.eps(notes, sources)?,
            activation: if structure_gate {
                self.gelu_gate(sources)?
            } else if gated {
                self.gate(sources)?
            } else {
                self.activation(notes, sources)?
            },
            pool,
            class_token,
            layer_scale: tensors.any(".ls1.gamma") || tensors.any(".ls2.gamma") || tensors.any(".ls.gamma"),
            fc_norm,
            qkv_bias: tensors.any(".attn.qkv.bias") || tensors.any(".attn.q.bias") || tensors.any(".in_proj.bias"),
            patch_bias: tensors.has("patch_embed.proj.bias"),
            head_bias: tensors.has("head.bias"),
            parts,
        };
        self.agree(&config.parts, gated)?;
        self.check_rope(&config)?;
        self.check_numbers(&config)?;
        Ok(config)
    }

    /// CoCa's attention pool, of which the first query alone is read.
    fn pooler(&self, notes: &mut Vec<Note>) -> Result<Option<Pooler>> {
        let tensors = self.tensors;
        if !tensors.has("attn_pool.query") {
            return Ok(None);
        }
        let [queries, width] = tensors.dims("attn_pool.query", "[queries, width]")?;
        // OpenCLIP's own norms in the pool have this one, whatever the tower's are told.
        if let Some(eps) = self.dialect.facts.eps()?.filter(|eps| *eps != 1e-5) {
            let what =
                format!("belongs to an attention pool beside norms with an eps of {eps:e}: only 1e-5 is supported");
            return Err(tensors.error(tensors.get("attn_pool.query")?, what));
        }
        let own = self.own.parts.as_ref().and_then(|parts| Some(parts.pooler?.heads));
        let heads = match own.or(self.dialect.facts.pooler_heads()?) {
            Some(heads) => heads,
            None => {
                notes.push("heads of the attention pool assumed: 8, as CoCa has".into());
                8
            }
        };
        if heads == 0 || !width.is_multiple_of(heads) {
            let what = format!("has {width} columns, which {heads} heads do not divide");
            return Err(tensors.error(tensors.get("attn_pool.query")?, what));
        }
        Ok(Some(Pooler { queries, width, heads }))
    }

    fn attention_pool(&self, dim: usize) -> Result<Option<AttentionPool>> {
        let tensors = self.tensors;
        if !tensors.by_name.keys().any(|name| name.starts_with("attn_pool.")) {
            return Ok(None);
        }
        let [mlp_dim, _] = tensors.dims("attn_pool.mlp.fc1.weight", "[mlp_dim, dim]")?;
        let [_, queries, _] = tensors.dims("attn_pool.latent", &format!("[1, 1, {dim}]"))?;
        if queries != 1 {
            let info = tensors.get("attn_pool.latent")?;
            return Err(tensors.error(info, format!("has {queries} queries: only one is supported")));
        }
        let (fused, heads) = (tensors.has("attn_pool.in_proj_weight"), self.pool_heads(dim)?);
        Ok(Some(AttentionPool { mlp_dim, fused, heads }))
    }

    fn projection(&self) -> Result<Option<Projection>> {
        let tensors = self.tensors;
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

    /// Whether it is timm's `Eva`, whose attention pool reads all tokens.
    fn is_eva(&self) -> bool {
        self.timm().is_some_and(|timm| timm.is_class("Eva"))
    }

    /// The number of blocks, which are numbered without a gap.
    fn depth(&self) -> Result<usize> {
        let tensors = self.tensors;
        let number = |name: &String| name.strip_prefix("blocks.")?.split('.').next()?.parse::<usize>().ok();
        let blocks: BTreeSet<usize> = tensors.by_name.keys().filter_map(number).collect();
        for (i, &block) in blocks.iter().enumerate() {
            if i != block {
                let name = tensors.in_file(&format!("blocks.{i}.norm1.weight"));
                return Err(tensors.checkpoint.error(format!("tensor {name} is missing")));
            }
        }
        Ok(blocks.len())
    }
}

/// Parts of a model, by how their canonical names begin.
const PARTS: [&str; 10] = [
    "blocks.",
    "patch_embed.",
    "norm.",
    "fc_norm.",
    "norm_pre.",
    "head.",
    "attn_pool.",
    "reg_token",
    "dist_token",
    "rope.",
];

/// The tensors that are left over; an error where one would change what the model computes.
fn ignored(
    tensors: &Tensors,
    used: &BTreeSet<&str>,
    dialect: &Dialect,
    own_fc_norm: bool,
    notes: &mut Vec<Note>,
) -> Result<Vec<String>> {
    let foreign = |info| {
        tensors.error(info, format!("belongs to a part that a {} does not have: not supported yet", dialect.name))
    };
    for (name, info) in &tensors.by_name {
        let skipped = |c: &Classifier| c.skips.iter().any(|part| name.starts_with(part));
        let dropped = (name.starts_with("norm.") && tensors.has("fc_norm.weight") && own_fc_norm)
            || dialect.classifier.as_ref().is_some_and(skipped);
        let inside = of_tower(name) || PARTS.iter().any(|part| name.starts_with(part));
        if inside && !used.contains(info.name.as_str()) && !dropped {
            return Err(foreign(info));
        }
    }
    if !dialect.table.is_empty() {
        // Beside the families' own parts an unwrapped file has whatever else the model is made of.
        let inside = |name: &str| of_tower(name) || PARTS.iter().any(|part| name.starts_with(part));
        for (name, info) in &tensors.unnamed {
            if dialect.unneeded.iter().any(|part| name.starts_with(part)) {
                notes.push(format!("{} is left out: the features do not depend on it", info.name).into());
            } else if inside(name) {
                return Err(foreign(info));
            }
        }
    }
    if tensors.by_name.keys().any(|name| name.starts_with("pre_logits.")) {
        notes.push("pre_logits is left out, as timm leaves it out".into());
    }
    Ok(tensors.unused(used))
}
