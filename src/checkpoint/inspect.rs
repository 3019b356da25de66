//! A checkpoint on one screen.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::json::quote;
use super::{AdaptersOf, Checkpoint, Delta, Recognised};
use crate::data::preprocess::Preprocess;
use crate::error::Result;
use crate::model::Network;
use crate::model::config::Positions;
use crate::model::convnext_config::{ConvNextStage, ConvNextStem};
use crate::model::efficientnet_config::MobileBlock;
use crate::model::resnet_config::{ChannelAttention, Downsample, Pooling, ResNetConfig, Stem};
use crate::model::resnetv2_config::{NormKind, StemPool};
use crate::model::{ConvNextConfig, EfficientNetConfig, ModelConfig, ResNetV2Config, VggConfig, VitConfig};

/// How many names of a list are shown; the JSON has all.
const SHOWN: usize = 6;

/// What `tpgm inspect` says: [`fmt::Display`] for people, [`Serialize`] for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Description {
    /// The safetensors file, or the index of its shards.
    pub path: PathBuf,
    /// How many safetensors files it is: more than one where it has shards.
    pub files: usize,
    /// Bytes of all tensors, also of those that the model does not use.
    pub bytes: u64,
    /// The `config.json` that was read with it.
    pub config_path: Option<PathBuf>,
    /// The family's name.
    pub family: &'static str,
    /// Shapes, heads, activation, eps, pooling.
    pub config: ModelConfig,
    /// Length of the sequence, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Number of the model's values.
    pub parameters: usize,
    /// Tensors of the model by type, such as 150 of F32.
    pub dtypes: BTreeMap<String, usize>,
    /// The input.
    pub preprocess: Preprocess,
    /// Where each fact comes from that the weights' shapes don't tell, as [`Recognised::sources`] says.
    pub sources: BTreeMap<&'static str, String>,
    /// Class names by output, where they are known.
    pub classes: Option<Vec<String>>,
    /// Of a model that gives an image any number of labels, the probability from which on each is given.
    pub thresholds: Option<Vec<f32>>,
    /// Parameters that are newly initialised.
    pub initialised: Vec<String>,
    /// Tensors of the file that are not used; saving carries them along.
    pub ignored: Vec<String>,
    /// Assumptions and omissions.
    pub notes: Vec<String>,
}

/// Describes a checkpoint that was recognised.
pub fn describe(checkpoint: &Checkpoint, recognised: &Recognised) -> Description {
    let Recognised {
        family, config, preprocess, names, initialised, ignored, notes, classes, thresholds, sources, ..
    } = recognised;
    let mut dtypes = BTreeMap::new();
    for tensor in names.iter().filter_map(|(_, in_file)| checkpoint.tensor(in_file)) {
        *dtypes.entry(tensor.dtype.to_string()).or_default() += 1;
    }
    Description {
        path: checkpoint.path().into(),
        files: checkpoint.files().len(),
        bytes: checkpoint.data_len(),
        config_path: checkpoint.config_path().map(Into::into),
        family,
        config: config.clone(),
        tokens: config.vit().map(VitConfig::tokens),
        parameters: config.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum(),
        dtypes,
        preprocess: preprocess.clone(),
        sources: sources.clone(),
        classes: classes.clone(),
        thresholds: thresholds.clone(),
        initialised: initialised.clone(),
        ignored: ignored.clone(),
        notes: notes.iter().map(|note| note.what.clone()).collect(),
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let p = &self.preprocess;
        let mut line = |label: &str, text: String| writeln!(f, "{label:<14}{text}");
        let shards = if self.files > 1 { format!(", {} shards", self.files) } else { String::new() };
        line("file", format!("{}{shards}", self.path.display()))?;
        if let Some(path) = &self.config_path {
            line("config", path.display().to_string())?;
        }
        let from = |fact: &str| self.sources.get(fact).map_or_else(String::new, |place| format!(" ({place})"));
        let words = match &self.config {
            ModelConfig::Vit(c) => vit_words(c, from),
            ModelConfig::ResNet(c) => resnet_words(c, from),
            ModelConfig::ConvNext(c) => convnext_words(c, from),
            ModelConfig::EfficientNet(c) => efficientnet_words(c, from),
            ModelConfig::ResNetV2(c) => resnetv2_words(c, from),
            ModelConfig::Vgg(c) => vgg_words(c, from),
        };
        line("family", self.family.into())?;
        for (label, text) in words.shape {
            line(label, text)?;
        }
        let dtypes: Vec<String> = self.dtypes.iter().map(|(dtype, n)| format!("{n} tensors of {dtype}")).collect();
        line("parameters", format!("{} in {}", thousands(self.parameters), dtypes.join(", ")))?;
        let grey = if p.grey { ", one channel: the luma" } else { "" };
        line("input", words.input + grey)?;
        let (filter, crop) = (word(&p.interpolation), word(&p.crop_mode));
        line(
            "preprocessing",
            format!("{filter}, crop {} ({crop}), mean {:?}, std {:?}{}", p.crop_pct, p.mean, p.std, from("preprocess")),
        )?;
        for (label, text) in words.computation {
            line(label, text)?;
        }
        if let Some(classes) = &self.classes {
            line("classes", shown(classes))?;
        }
        if let Some(thresholds) = &self.thresholds {
            let own: Vec<String> = thresholds.iter().map(|t| format!("{t:.3}")).collect();
            let place = from("answers");
            line("answers", format!("any number of labels, from these probabilities on: {}{place}", shown(&own)))?;
        }
        line("initialised", shown(&self.initialised))?;
        let carried = if self.ignored.is_empty() { "" } else { " (carried along when saving)" };
        line("ignored", format!("{}{carried}", shown(&self.ignored)))?;
        for note in &self.notes {
            line("note", note.clone())?;
        }
        Ok(())
    }
}

/// What a model's family has to say, in the places where it belongs.
struct Words {
    shape: Vec<(&'static str, String)>,
    input: String,
    computation: Vec<(&'static str, String)>,
}

fn vit_words(c: &VitConfig, from: impl Fn(&str) -> String) -> Words {
    let scale = if c.layer_scale { ", layer scale" } else { "" };
    let bias = if c.qkv_bias { "" } else { ", no qkv bias" };
    let class_token = prefix_words(c);
    let (size, patch, grid, tokens) = (c.image_size, c.patch_size, c.grid(), c.tokens());
    let norm = if c.fc_norm { "then fc_norm" } else { "after norm" };
    let stem = if c.parts.stem.is_some() { "convolutions to patches" } else { "patches" };
    let attended = c.parts.pooler.map_or("", |_| " of what attention pools");
    let pre = if c.parts.norm_pre { ", a norm before the blocks" } else { "" };
    let split = if c.parts.split_qkv { ", q, k and v apart" } else { "" };
    let projection = c.parts.projection.map_or(String::new(), |p| format!(", projected to {}", p.features));
    let unit = if c.parts.normalize { ", at unit length" } else { "" };
    let two = if c.parts.distilled { ", the mean of two heads" } else { "" };
    let head_bias = if c.head_bias { "" } else { ", no bias" };
    Words {
        shape: vec![
            (
                "architecture",
                format!("{} blocks, width {}, MLP {}{scale}{bias}{split}{pre}", c.depth, c.dim, c.mlp_dim),
            ),
            ("heads", format!("{} of {} dimensions{}", c.heads, c.dim / c.heads, from("heads"))),
        ],
        input: format!("{size} x {size}, {stem} of {patch}: {grid} x {grid}{class_token}, {tokens} tokens"),
        computation: vec![
            ("activation", format!("{}, layer norm eps {:e}{}", word(&c.activation), c.eps, both(&from))),
            ("pooling", format!("{}{attended}, {norm}{projection}{unit}{}", word(&c.pool), from("pool"))),
            ("head", if c.classes == 0 { "none".into() } else { format!("{} classes{head_bias}{two}", c.classes) }),
        ],
    }
}

/// What comes before the patches.
fn prefix_words(c: &VitConfig) -> String {
    let places = match c.parts.positions {
        _ if !c.class_token && c.parts.registers == 0 => return String::new(),
        _ if !c.class_token => return format!(" and {} registers", c.parts.registers),
        Positions::All => "",
        Positions::Class if c.parts.registers > 0 => " (without positions)",
        Positions::Class => "",
        Positions::Patches | Positions::Absent => " (without positions)",
    };
    match (c.parts.distilled, c.parts.registers) {
        (true, _) => format!(", a class token and a distillation token{places}"),
        (_, 0) => format!(" and a class token{places}"),
        (_, n) => format!(", a class token and {n} registers{places}"),
    }
}

fn resnet_words(c: &ResNetConfig, from: impl Fn(&str) -> String) -> Words {
    let depths: Vec<String> = c.stages.iter().map(|blocks| blocks.len().to_string()).collect();
    let widths: Vec<String> = c.stages.iter().filter_map(|b| Some(b.last()?.out.to_string())).collect();
    let (stem, pool) = match c.stem {
        Stem::Conv => ("a 7x7 convolution", "max pool"),
        Stem::Deep => ("three 3x3 convolutions", "max pool"),
        Stem::Halved | Stem::Small => ("a 3x3 convolution", "no pool"),
        Stem::Three => ("three 3x3 convolutions", "max pool"),
        Stem::Clip => ("three 3x3 convolutions", "average pool"),
    };
    let shortcut = match c.downsample {
        Downsample::Conv => "",
        Downsample::Avg => ", average-pooled shortcuts",
        Downsample::AntiAliased => ", anti-aliased strides",
    };
    let pool = match (c.stem_pool_conv, c.anti_alias) {
        (true, _) => "a 3x3 convolution in place of a pool",
        (_, true) => "average pool",
        _ => pool,
    };
    let strides = match (c.anti_alias, c.blur) {
        (true, _) => ", anti-aliased strides",
        (_, true) => ", blurred strides",
        _ => "",
    };
    let attention = match c.stages.iter().flatten().next().map_or(ChannelAttention::None, |block| block.attention) {
        ChannelAttention::None => "",
        ChannelAttention::Squeeze { .. } => ", squeeze and excitation",
        ChannelAttention::Neighbours { .. } => ", efficient channel attention",
    };
    let pooling = match c.pooling {
        Pooling::Mean => "mean".into(),
        Pooling::Attention { heads, features } => {
            let dims = c.width() / heads;
            format!("attention, {heads} heads of {dims} dimensions{}, {features} features", from("heads"))
        }
    };
    let norm = match c.norm_groups {
        None => format!("batch norm eps {:e}, momentum {}", c.eps, c.momentum),
        Some(groups) => format!("group norm of {groups} groups, eps {:e}", c.eps),
    };
    let groups = if c.groups > 1 { format!(", {} groups", c.groups) } else { String::new() };
    let block = word(&c.block);
    let bias = if c.head_bias { "" } else { ", no bias" };
    let unit = if c.normalize { ", of features at unit length" } else { "" };
    Words {
        shape: vec![
            (
                "architecture",
                format!("{block} blocks {} of {} channels{groups}{attention}", depths.join("-"), widths.join(", ")),
            ),
            (
                "stem",
                format!("{stem} of {} channels, {pool}{shortcut}{strides}", c.stem_widths[c.stem_widths.len() - 1]),
            ),
        ],
        input: format!("{0} x {0}, stride {1}{2}", c.image_size, c.stride(), from("image_size")),
        computation: vec![
            ("activation", format!("{}, {norm}{}", word(&c.activation), from("eps"))),
            ("pooling", pooling),
            ("head", if c.classes == 0 { "none".into() } else { format!("{} classes{bias}{unit}", c.classes) }),
        ],
    }
}

fn resnetv2_words(c: &ResNetV2Config, from: impl Fn(&str) -> String) -> Words {
    let depths: Vec<String> = c.stages.iter().map(|blocks| blocks.len().to_string()).collect();
    let widths: Vec<String> = c.stages.iter().filter_map(|blocks| Some(blocks.last()?.out.to_string())).collect();
    let block = if c.basic { "basic" } else { "bottleneck" };
    let norm = match c.norm {
        NormKind::Batch => format!("batch norm eps {:e}", c.eps),
        NormKind::Group { groups } => format!("group norm of {groups} groups, eps {:e}", c.eps),
    };
    let standard = c.standard.map_or(String::new(), |eps| format!(", weights standardised with eps {eps:e}"));
    let average = if c.avg_down { ", average-pooled shortcuts" } else { "" };
    let pool = match c.stem_pool {
        StemPool::Usual => "max pool",
        StemPool::Zeros => "max pool with zeros around it",
        StemPool::Same => "max pool padded as TensorFlow's same",
    };
    let convolutions = if c.stem_chs.len() > 1 { "three 3x3 convolutions" } else { "a 7x7 convolution" };
    let (bias, unit) = (if c.head_bias { "" } else { ", no bias" }, if c.normalize { ", at unit length" } else { "" });
    let shape =
        format!("pre-activation {block} blocks {} of {} channels{average}", depths.join("-"), widths.join(", "));
    Words {
        shape: vec![
            ("architecture", shape),
            ("stem", format!("{convolutions} of {} channels, {pool}", c.stem_chs.last().copied().unwrap_or(0))),
        ],
        input: format!("{0} x {0}, stride {1}{2}", c.image_size, c.stride(), from("image_size")),
        computation: vec![
            ("activation", format!("relu, {norm}{standard}{}", from("eps"))),
            ("pooling", format!("mean, {} features{unit}", c.features())),
            ("head", if c.classes == 0 { "none".into() } else { format!("{} classes{bias}", c.classes) }),
        ],
    }
}

fn vgg_words(c: &VggConfig, from: impl Fn(&str) -> String) -> Words {
    let depths: Vec<String> = c.widths.iter().map(|widths| widths.len().to_string()).collect();
    let widths: Vec<String> = c.widths.iter().filter_map(|widths| Some(widths.last()?.to_string())).collect();
    let norm = if c.norm { format!(", batch norm eps {:e}", c.eps) } else { String::new() };
    let (bias, unit) = (if c.head_bias { "" } else { ", no bias" }, if c.normalize { ", at unit length" } else { "" });
    Words {
        shape: vec![(
            "architecture",
            format!(
                "3x3 convolutions {} of {} channels, a max pool behind each run",
                depths.join("-"),
                widths.join(", ")
            ),
        )],
        input: format!("{0} x {0}, stride {1}{2}", c.image_size, c.stride(), from("image_size")),
        computation: vec![
            ("activation", format!("relu{norm}")),
            ("pooling", format!("none: hidden layers of {} and {} over all pixels{unit}", c.hidden[0], c.hidden[1])),
            ("head", if c.classes == 0 { "none".into() } else { format!("{} classes{bias}", c.classes) }),
        ],
    }
}

fn efficientnet_words(c: &EfficientNetConfig, from: impl Fn(&str) -> String) -> Words {
    let list = |of: fn(&Vec<MobileBlock>) -> usize, between: &str| {
        c.stages.iter().map(|blocks| of(blocks).to_string()).collect::<Vec<_>>().join(between)
    };
    let (depths, widths) = (list(Vec::len, "-"), list(|blocks| blocks.last().map_or(0, |block| block.out), ", "));
    let squeezed = c.stages.iter().flatten().any(|block| block.squeeze > 0);
    let squeezed = if squeezed { ", squeeze and excitation" } else { "" };
    let same = if c.same { ", padded as TensorFlow's same" } else { "" };
    let (bias, unit) = (if c.head_bias { "" } else { ", no bias" }, if c.normalize { ", at unit length" } else { "" });
    let (size, stride, [width, kernel]) = (c.image_size, c.stride(), c.stem);
    Words {
        shape: vec![
            ("architecture", format!("blocks {depths} of {widths} channels{squeezed}{same}")),
            ("stem", format!("a {kernel}x{kernel} convolution of {width} channels")),
        ],
        input: format!("{size} x {size}, stride {stride}{}", from("image_size")),
        computation: vec![
            ("activation", format!("{}, batch norm eps {:e}{}", word(&c.activation), c.eps, from("eps"))),
            ("pooling", format!("mean, {} features{unit}", c.features())),
            ("head", if c.classes == 0 { "none".into() } else { format!("{} classes{bias}", c.classes) }),
        ],
    }
}

fn convnext_words(c: &ConvNextConfig, from: impl Fn(&str) -> String) -> Words {
    let list = |of: fn(&ConvNextStage) -> usize, between: &str| {
        c.stages.iter().map(|stage| of(stage).to_string()).collect::<Vec<_>>().join(between)
    };
    let stem = match c.stem {
        ConvNextStem::Patch { size } => format!("patches of {size}"),
        ConvNextStem::Overlap { middle } => format!("two 3x3 convolutions, {middle} channels between them"),
    };
    let scale = if c.layer_scale { ", layer scale" } else { "" };
    let response = if c.response_norm { ", response normalisation" } else { "" };
    let norm = if c.norm_first { "after norm_pre" } else { "then head.norm" };
    let hidden = if c.head_hidden > 0 { format!(", a hidden layer of {}", c.head_hidden) } else { String::new() };
    let projected = if c.projection.is_some() { format!(", projected to {}", c.features()) } else { String::new() };
    let (bias, unit) = (if c.head_bias { "" } else { ", no bias" }, if c.normalize { ", at unit length" } else { "" });
    let (depths, widths) = (list(|stage| stage.depth, "-"), list(|stage| stage.width, ", "));
    let kernels = list(|stage| stage.kernel, ", ");
    Words {
        shape: vec![
            ("architecture", format!("blocks {depths} of {widths} channels, kernels of {kernels}{scale}{response}")),
            ("stem", stem),
        ],
        input: format!("{0} x {0}, stride {1}{2}", c.image_size, c.stride(), from("image_size")),
        computation: vec![
            ("activation", format!("{}, layer norm eps {:e}{}", word(&c.activation), c.eps, both(&from))),
            ("pooling", format!("mean, {norm}{hidden}{projected}{unit}")),
            ("head", if c.classes == 0 { "none".into() } else { format!("{} classes{bias}", c.classes) }),
        ],
    }
}

/// Where activation and eps come from, which share a line.
fn both(from: impl Fn(&str) -> String) -> String {
    match (from("activation"), from("eps")) {
        (one, other) if one == other => one,
        (one, other) => format!("; activation{one}, eps{other}"),
    }
}

/// The first few of a list and how many more there are.
fn shown(list: &[String]) -> String {
    match list.len().saturating_sub(SHOWN) {
        _ if list.is_empty() => "nothing".into(),
        0 => list.join(", "),
        more => format!("{} and {more} more", list[..SHOWN].join(", ")),
    }
}

/// An enum's name as the command line spells it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => unreachable!("unit variants serialise as strings"),
    }
}

/// 1234567 as 1,234,567.
fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// What `tpgm inspect` says of a delta, which is no model by itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeltaDescription {
    /// The safetensors file.
    pub path: PathBuf,
    /// What it says of its base.
    pub delta: Delta,
    /// Tensors that it holds by type.
    pub dtypes: BTreeMap<String, usize>,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// The tensors that it holds whole.
    pub changed: Vec<String>,
}

/// Describes a delta; nothing where the checkpoint is none.
///
/// # Errors
/// Where it says that it is one and can't be understood.
pub fn describe_delta(checkpoint: &Checkpoint) -> Result<Option<DeltaDescription>> {
    let mut dtypes = BTreeMap::new();
    for tensor in checkpoint.tensors() {
        *dtypes.entry(tensor.dtype.to_string()).or_default() += 1;
    }
    Ok(Delta::of(checkpoint)?.map(|delta| {
        let adapters = delta.adapters.clone().unwrap_or_default();
        let whole = checkpoint.tensors().iter().filter(|t| !adapters.is_part(&t.name));
        DeltaDescription {
            path: checkpoint.path().into(),
            changed: whole.map(|t| t.name.clone()).collect(),
            delta,
            dtypes,
            bytes: checkpoint.data_len(),
        }
    }))
}

impl fmt::Display for DeltaDescription {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut line = |label: &str, text: String| writeln!(f, "{label:<14}{text}");
        line("file", self.path.display().to_string())?;
        line("delta", format!("only what differs from its base, {}", self.delta.base()))?;
        for (name, sum) in &self.delta.base_sha256 {
            line("base", format!("{}, SHA-256 {}", quote(name), quote(sum)))?;
        }
        let dtypes: Vec<String> = self.dtypes.iter().map(|(dtype, n)| format!("{n} tensors of {dtype}")).collect();
        let dtypes = if dtypes.is_empty() { "no tensors".into() } else { dtypes.join(", ") };
        line("holds", format!("{dtypes}, {} bytes", thousands(self.bytes as usize)))?;
        if let Some(AdaptersOf { rank, alpha, targets }) = &self.delta.adapters {
            let of = shown(&targets.iter().cloned().collect::<Vec<_>>());
            line("adapters", format!("rank {rank}, alpha {alpha}, of {of}"))?;
        }
        line("changed", shown(&self.changed))?;
        line("removed", shown(&self.delta.removed.iter().cloned().collect::<Vec<_>>()))
    }
}
