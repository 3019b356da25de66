//! What a ResNet's tensors tell of it, and whether timm's configuration agrees.

use serde_json::Value;

use super::tensors::Tensors;
use crate::checkpoint::facts::Facts;
use crate::error::{Error, Result};
use crate::model::ModelConfig;
use crate::model::resnet_config::{
    Block, BlockConfig, ChannelAttention, Downsample, Pooling, ResNetConfig, Splits, Stem,
};
use crate::shapes::Pointwise;

/// What no tensor tells of a ResNet.
#[derive(Clone, Copy)]
pub(super) struct Told {
    /// Whether it is a RegNet.
    pub(super) regnet: bool,
    /// Whether it is one of timm's legacy SENets.
    pub(super) legacy: bool,
    /// Whether bottlenecks have their stride on the first convolution.
    pub(super) stride_first: bool,
    /// Groups of channels, of group norms.
    pub(super) norm_groups: Option<usize>,
    /// Whether blurs take the place of strides.
    pub(super) blur: bool,
    /// Whether the pool of a ResNeSt stands before the 3×3 convolution, if that is known.
    pub(super) pool_first: Option<bool>,
    /// The activation.
    pub(super) activation: Pointwise,
}

impl Told {
    /// A plain ResNet.
    pub(super) const PLAIN: Told = Told {
        regnet: false,
        legacy: false,
        stride_first: false,
        norm_groups: None,
        blur: false,
        pool_first: None,
        activation: Pointwise::Relu,
    };

    /// With what we have saved ourselves, or else timm's configuration.
    pub(super) fn with(self, facts: &Facts, saved: Option<&ModelConfig>) -> Result<Told> {
        if let Some(ModelConfig::ResNet(saved)) = saved {
            let ResNetConfig { stride_first, norm_groups, blur, activation, .. } = *saved;
            let splits = saved.stages.iter().flatten().find_map(|block| block.splits);
            let pool_first = splits.map(|splits| splits.pool_first);
            return Ok(Told { stride_first, norm_groups, blur, pool_first, activation, ..self });
        }
        let Some(timm) = facts.timm_config() else { return Ok(self) };
        let word = |key: &str| timm.word(key).unwrap_or_default().to_ascii_lowercase();
        let norm_groups = if word("norm_layer").starts_with("groupnorm") { Some(32) } else { self.norm_groups };
        let activation = match word("act_layer").as_str() {
            "silu" | "swish" => Pointwise::Silu,
            "gelu" => Pointwise::Gelu,
            "hardswish" | "hard_swish" => Pointwise::HardSwish,
            "relu6" => Pointwise::Relu6,
            _ => self.activation,
        };
        let stride_first = self.legacy && word("block") == "seresnetbottleneck";
        let args = timm.value("block_args").map(|(args, _)| args).unwrap_or_default();
        let pool_first = args.get("avd").and_then(|_| args.get("avd_first")?.as_bool());
        Ok(Told { stride_first, norm_groups, blur: timm.blurs(), pool_first, activation, ..self })
    }
}

/// What the convolutions tell: all but the image size, the pooling and the head.
pub(super) fn config(tensors: &Tensors, eps: f32, told: Told) -> Result<ResNetConfig> {
    let Told { regnet, legacy, stride_first, norm_groups, blur, pool_first, activation } = told;
    let width = |name: &str, kernel: usize| {
        let expected = format!("[channels, channels, {kernel}, {kernel}]");
        tensors.dims::<4>(&format!("{name}.weight"), &expected).map(|shape| shape[0])
    };
    let stem_name = if tensors.has("conv1.0.weight") { "conv1.0.weight" } else { "conv1.weight" };
    let (stem, stem_widths) = if tensors.has("conv1.0.weight") {
        (Stem::Deep, vec![width("conv1.0", 3)?, width("conv1.3", 3)?, width("conv1.6", 3)?])
    } else if tensors.has("conv2.weight") || tensors.has("conv3.weight") {
        (
            if legacy { Stem::Three } else { Stem::Clip },
            vec![width("conv1", 3)?, width("conv2", 3)?, width("conv3", 3)?],
        )
    } else if regnet {
        (Stem::Halved, vec![width("conv1", 3)?])
    } else {
        (Stem::Conv, vec![width("conv1", 7)?])
    };
    let (block, groups) = kind(tensors, "layer1.0")?;
    if stem == Stem::Clip && block == Block::Basic {
        return Err(unfit(tensors, "layer1.0.conv1.weight"));
    }
    let is_avg = |name: &String| name.ends_with(".downsample.2.weight");
    let downsample = match stem {
        Stem::Clip => Downsample::AntiAliased,
        _ if tensors.by_name.keys().any(is_avg) => Downsample::Avg,
        _ => Downsample::Conv,
    };
    let mut stages: Vec<Vec<BlockConfig>> = Vec::new();
    let mut entering = *stem_widths.last().expect("a stem has convolutions");
    for stage in 1..=numbered(tensors, "layer") {
        let mut blocks = Vec::new();
        for i in 0..=numbered(tensors, &format!("layer{stage}.")) {
            let name = format!("layer{stage}.{i}");
            let (own, own_groups) = kind(tensors, &name)?;
            // A RegNet has groups of the same width, and more of them in wider stages.
            if own != block || (own_groups != groups && !regnet) {
                return Err(unfit(tensors, &format!("{name}.conv1.weight")));
            }
            let inner = width(&format!("{name}.conv1"), 1)?;
            let last = if block == Block::Basic { "conv2" } else { "conv3" };
            let out = width(&format!("{name}.{last}"), 3)?;
            let stride = if (stage > 1 || regnet) && i == 0 { 2 } else { 1 };
            let shortcut = [0, 1].iter().find_map(|n| tensors.by_name.get(&format!("{name}.downsample.{n}.weight")));
            let conv = shortcut.filter(|info| info.shape.len() == 4);
            let splits = splits(tensors, &name, inner, pool_first)?;
            let second = match (block, splits) {
                (Block::Basic, _) | (_, Some(_)) => inner,
                _ => width(&format!("{name}.conv2"), 3)?,
            };
            blocks.push(BlockConfig {
                inner,
                out,
                stride,
                downsample: shortcut.is_some() || entering != out || stride > 1,
                second: (second != inner).then_some(second),
                wide_shortcut: conv.is_some_and(|info| info.shape[2] == 3),
                attention: channel_attention(tensors, &name)?,
                groups: (own_groups != groups).then_some(own_groups),
                splits,
            });
            entering = out;
        }
        stages.push(blocks);
    }
    Ok(ResNetConfig {
        image_size: 0,
        block,
        stem,
        stem_widths,
        stages,
        downsample,
        pooling: Pooling::Mean,
        anti_alias: false,
        blur,
        attention_inside: regnet,
        stem_pool_conv: tensors.has("maxpool.0.weight"),
        stride_first,
        ceil_pool: legacy,
        active_gate: legacy && block == Block::Basic,
        norm_groups,
        activation,
        groups,
        eps,
        momentum: 0.1,
        classes: 0,
        head_bias: false,
        normalize: false,
        grey: tensors.dims::<4>(stem_name, "[width, channels, height, width]")?[1] == 1,
    })
}

/// An error where timm's configuration says something else than the tensors.
pub(super) fn agrees(facts: &Facts, config: &ResNetConfig, tensors: &Tensors) -> Result<()> {
    let (Facts::Timm(timm) | Facts::Trunk(_, timm)) = facts else { return Ok(()) };
    let blocks = || config.stages.iter().flatten();
    let attention = match blocks().next().map_or(ChannelAttention::None, |block| block.attention) {
        ChannelAttention::None => "",
        ChannelAttention::Squeeze { .. } => "se",
        ChannelAttention::Neighbours { .. } => "eca",
    };
    let reduced = blocks().any(|block| block.second == Some(2 * block.inner));
    let wide = blocks().any(|block| block.wide_shortcut);
    let radix = blocks().next().and_then(|block| block.splits).map(|splits| splits.radix as u64);
    let agrees = |key: &str, value: &Value| match key {
        "block_args" => attention_of(value) == attention && value.get("radix").and_then(Value::as_u64) == radix,
        "norm_layer" => {
            let grouped = value.as_str().is_some_and(|name| name.to_ascii_lowercase().starts_with("group"));
            grouped != tensors.has("bn1.running_mean") || !tensors.has("bn1.weight")
        }
        "replace_stem_pool" => value.as_bool() == Some(config.stem_pool_conv),
        "down_kernel_size" => value.as_u64() == Some(if wide { 3 } else { 1 }),
        _ => value.as_u64() == Some(if reduced { 2 } else { 1 }),
    };
    for key in ["block_args", "norm_layer", "replace_stem_pool", "down_kernel_size", "block_reduce_first"] {
        let Some((value, place)) = timm.value(key).filter(|(value, _)| !agrees(key, value)) else { continue };
        let named = if place.ends_with(key) { place } else { format!("{place}: {key}") };
        return Err(timm.error(format!("{named} is {value}, which the tensors contradict")));
    }
    Ok(())
}

/// Which channel attention timm's `block_args` ask for.
fn attention_of(block_args: &Value) -> &'static str {
    match block_args.get("attn_layer").and_then(Value::as_str) {
        None => "",
        Some("eca") => "eca",
        Some(_) => "se",
    }
}

/// What the 3×3 convolution of a bottleneck of `inner` channels is split into, if it is.
fn splits(tensors: &Tensors, name: &str, inner: usize, pool_first: Option<bool>) -> Result<Option<Splits>> {
    let conv = format!("{name}.conv2.conv.weight");
    if !tensors.has(&conv) {
        return Ok(None);
    }
    let [outputs, ..] = tensors.dims::<4>(&conv, "[radix·channels, channels, 3, 3]")?;
    let [hidden, ..] = tensors.dims::<4>(&format!("{name}.conv2.fc1.weight"), "[hidden, channels, 1, 1]")?;
    let info = tensors.get(&conv)?;
    let Some(pool_first) = pool_first else {
        let what = "is of a ResNeSt: where its pools stand can't be told without timm's config.json beside the file";
        return Err(tensors.error(info, what));
    };
    match inner > 0 && outputs >= inner && outputs.is_multiple_of(inner) {
        true => Ok(Some(Splits { radix: outputs / inner, hidden, pool_first })),
        false => Err(tensors.error(info, format!("has {outputs} outputs, no multiple of the {inner} inputs"))),
    }
}

/// What weighs a block's channels, by its tensors.
fn channel_attention(tensors: &Tensors, name: &str) -> Result<ChannelAttention> {
    let [squeeze, neighbours] = ["fc1", "conv"].map(|layer| format!("{name}.se.{layer}.weight"));
    if tensors.has(&squeeze) {
        let [hidden, ..] = tensors.dims::<4>(&squeeze, "[hidden, channels, 1, 1]")?;
        return Ok(ChannelAttention::Squeeze { hidden });
    }
    if tensors.has(&neighbours) {
        let [_, _, kernel] = tensors.dims::<3>(&neighbours, "[1, 1, kernel]")?;
        if kernel % 2 == 0 {
            let info = tensors.get(&neighbours)?;
            return Err(tensors.error(info, format!("has a kernel of {kernel}: only odd ones are supported")));
        }
        return Ok(ChannelAttention::Neighbours { kernel });
    }
    Ok(ChannelAttention::None)
}

/// The kind of a block and its groups, by its kernels.
fn kind(tensors: &Tensors, name: &str) -> Result<(Block, usize)> {
    let split = tensors.has(&format!("{name}.conv2.conv.weight"));
    let conv =
        |i: usize| if i == 2 && split { format!("{name}.conv2.conv.weight") } else { format!("{name}.conv{i}.weight") };
    let shape = |i: usize| tensors.dims::<4>(&conv(i), "four dimensions");
    let ([_, _, h1, w1], [_, in2, h2, w2]) = (shape(1)?, shape(2)?);
    let bottleneck = tensors.has(&conv(3));
    match ([h1, w1], [h2, w2], bottleneck) {
        ([3, 3], [3, 3], false) => Ok((Block::Basic, 1)),
        ([1, 1], [3, 3], true) => {
            let inner = shape(1)?[0];
            // Each split has as many groups.
            let radix = if split { shape(2)?[0] / inner.max(1) } else { 1 };
            if in2 == 0 || !inner.is_multiple_of(in2) || !(inner / in2).is_multiple_of(radix.max(1)) {
                return Err(unfit(tensors, &conv(2)));
            }
            Ok((Block::Bottleneck, inner / in2 / radix.max(1)))
        }
        ([3, 3] | [1, 1], _, _) => Err(unfit(tensors, &conv(2))),
        _ => Err(unfit(tensors, &conv(1))),
    }
}

fn unfit(tensors: &Tensors, name: &str) -> Error {
    let shape = tensors.by_name.get(name).map(|info| &info.shape);
    tensors.checkpoint.error(format!(
        "a ResNet whose tensors fit no known block: {} has shape {:?}; supported are basic blocks (3x3, 3x3) and \
         bottlenecks (1x1, 3x3, 1x1; CLIP has these alone), the same throughout",
        tensors.in_file(name),
        shape.map_or(&[][..], Vec::as_slice)
    ))
}

/// The largest number that follows `start` in a name: `layer3.0.conv1.weight` has a 3 after `layer`.
pub(super) fn numbered(tensors: &Tensors, start: &str) -> usize {
    let number = |name: &String| name.strip_prefix(start)?.split('.').next()?.parse::<usize>().ok();
    // A number far beyond the tensors' count is a block that is missing in any case.
    tensors.by_name.keys().filter_map(number).max().unwrap_or(0).min(tensors.by_name.len())
}
