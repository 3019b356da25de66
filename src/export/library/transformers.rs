//! Networks that transformers has: ViT, DINOv2, ResNet and ConvNeXt, each from what it is made of.

use serde_json::{Value, json};

use super::{Described, Tensors, inputs, label_maps, labels, tensors};
use crate::checkpoint::{Layout, Weight};
use crate::model::ModelConfig;
use crate::model::config::{Block, LastNorm, Pool, Positions, VitConfig, VitParts};
use crate::model::convnext_config::{ConvNextConfig, ConvNextStem};
use crate::model::resnet_config::{self, ChannelAttention, Downsample, Pooling, ResNetConfig};
use crate::shapes::{Activation, Pointwise};
use crate::train::source::Source;

/// A network as transformers names and shapes it.
struct Network {
    class: &'static str,
    config: Value,
    layout: Layout,
    tensors: Vec<Weight>,
    /// Under its own names already.
    more: Vec<Weight>,
}

/// # Errors
/// Why transformers has no such network.
pub(super) fn describe(source: &Source) -> Result<Described, String> {
    let config = &source.recognised.config;
    if config.normalize() {
        return Err("it has no classifier on features of unit length".into());
    }
    let Network { class, config: mut root, layout, tensors, more } = match config {
        ModelConfig::Vit(c) if c.layer_scale => dinov2(c, source)?,
        ModelConfig::Vit(c) => vit(c, source)?,
        ModelConfig::ResNet(c) => resnet(c, source)?,
        ModelConfig::ConvNext(c) => convnext(c, source)?,
        _ => return Err("it has no counterpart of this network".into()),
    };
    let counters = tensors::counters(&tensors);
    let named = |name: &str| layout.name(name).ok_or_else(|| format!("its {class} has no tensor like {name}"));
    let counters = counters.iter().map(|name| named(name)).collect::<Result<_, _>>()?;
    let named = tensors.into_iter().map(|(name, shape, values)| Ok((named(&name)?, shape, values)));
    let tensors: Result<Vec<Weight>, String> = named.chain(more.into_iter().map(Ok)).collect();
    let (id2label, label2id) = label_maps(&labels(source));
    let input = &source.recognised.preprocess;
    let (processor, remark) = inputs::transformers(input)?;
    for (key, value) in [
        ("architectures", json!([class])),
        ("image_size", json!(input.image_size)),
        ("num_channels", json!(if config.grey() { 1 } else { 3 })),
        ("dtype", json!("float32")),
        ("id2label", id2label),
        ("label2id", label2id),
    ] {
        root[key] = value;
    }
    Ok(Described {
        tensors: Tensors::Named(tensors?, counters),
        files: vec![("config.json", root), ("preprocessor_config.json", processor)],
        architecture: class.into(),
        python: python(),
        remarks: remark.into_iter().collect(),
    })
}

/// How a folder is loaded, whichever class it is.
pub(super) fn python() -> String {
    "from transformers import AutoImageProcessor, AutoModelForImageClassification\n\n\
     processor = AutoImageProcessor.from_pretrained(\"FOLDER\")\n\
     model = AutoModelForImageClassification.from_pretrained(\"FOLDER\")\n\
     logits = model(**processor(image, return_tensors=\"pt\")).logits\n"
        .into()
}

fn activation(kind: Activation) -> Result<&'static str, String> {
    match kind {
        Activation::Gelu => Ok("gelu"),
        Activation::GeluTanh => Ok("gelu_pytorch_tanh"),
        Activation::QuickGelu => Ok("quick_gelu"),
        Activation::SwiGlu | Activation::GeGlu => Err("its counterpart has no gated MLP".into()),
    }
}

/// An error naming the first part that a plain vision transformer does not have.
pub(super) fn plain(c: &VitConfig) -> Result<(), String> {
    let p = &c.parts;
    let VitParts { block, stem, backbone, projection, pooler, attention_pool, rope, .. } = p;
    let parts = [
        (p.distilled, "a distillation token"),
        (*block != Block::PreNorm, "other blocks"),
        (p.rms_norm, "RMS norms"),
        (stem.is_some() || backbone.is_some(), "convolutions before its blocks"),
        (projection.is_some(), "a projection (CLIP)"),
        (pooler.is_some() || attention_pool.is_some(), "an attention pool"),
        (p.patch_norm || p.attn_norm || p.mlp_norm || p.gate_norm, "more norms"),
        (p.last_norm != LastNorm::One, "other last norms"),
        (p.keyless_bias || p.unbiased, "other biases"),
        (rope.is_some() || p.relative || p.positions == Positions::Absent, "other positions"),
        (p.pool_prefix, "a mean over all tokens"),
    ];
    match parts.into_iter().find(|(has, _)| *has) {
        Some((_, what)) => Err(format!("its vision transformer has none with {what}")),
        None => Ok(()),
    }
}

/// Of both kinds of vision transformers, all but what differs.
fn of_blocks(c: &VitConfig) -> Result<Value, String> {
    Ok(json!({
        "hidden_size": c.dim,
        "num_hidden_layers": c.depth,
        "num_attention_heads": c.heads,
        "hidden_act": activation(c.activation)?,
        "layer_norm_eps": c.eps,
        "patch_size": c.patch_size,
        "qkv_bias": c.qkv_bias,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
    }))
}

fn vit(c: &VitConfig, source: &Source) -> Result<Network, String> {
    plain(c)?;
    let p = &c.parts;
    let fits = c.class_token && c.pool == Pool::Cls && !c.fc_norm && p.registers == 0 && c.patch_bias && !p.norm_pre;
    if !fits || p.positions != Positions::All {
        return Err("its ViT reads the class token, has no registers, and one norm behind the blocks".into());
    }
    let mut config = of_blocks(c)?;
    config["model_type"] = json!("vit");
    config["intermediate_size"] = json!(c.mlp_dim);
    let mut tensors = tensors::split_qkv(tensors::canonical(source));
    tensors::unflatten_tokens(&mut tensors, c.dim);
    tensors::zeros_unless(&mut tensors, "head.bias", &[c.classes]);
    let (class, layout) = ("ViTForImageClassification", Layout::TransformersVit);
    Ok(Network { class, config, layout, tensors, more: Vec::new() })
}

/// Its classifier reads the class token and the mean of the patches: what this model does not read has weights of zero.
fn dinov2(c: &VitConfig, source: &Source) -> Result<Network, String> {
    plain(c)?;
    let p = &c.parts;
    let registers = p.registers > 0;
    let pools = matches!(c.pool, Pool::Cls | Pool::Mean | Pool::ClsMean);
    if !(c.class_token && pools && !c.fc_norm && c.patch_bias && !p.norm_pre) {
        return Err("its DINOv2 has a class token, and one norm behind the blocks".into());
    }
    if !c.mlp_dim.is_multiple_of(c.dim) {
        return Err(format!("its DINOv2 has MLPs of a multiple of its width, not of {} for {}", c.mlp_dim, c.dim));
    }
    let mut tensors = tensors::split_qkv(tensors::canonical(source));
    tensors::unflatten_tokens(&mut tensors, c.dim);
    match p.positions {
        Positions::All if registers => return Err("its registers have no positions".into()),
        Positions::Patches => tensors::pad_positions(&mut tensors, c.dim, 0, 1),
        _ => {}
    }
    for (_, shape, values) in tensors.iter_mut().filter(|(name, ..)| name == "head.weight" && c.pool != Pool::ClsMean) {
        let zeros = vec![0.0; c.dim];
        let row = |own: &[f32]| match c.pool {
            Pool::Cls => [own, zeros.as_slice()].concat(),
            _ => [zeros.as_slice(), own].concat(),
        };
        *values = values.chunks(c.dim).flat_map(row).collect();
        shape[1] = 2 * c.dim;
    }
    tensors::zeros_unless(&mut tensors, "head.bias", &[c.classes]);
    let mut config = of_blocks(c)?;
    for (key, value) in [
        ("model_type", json!(if registers { "dinov2_with_registers" } else { "dinov2" })),
        ("mlp_ratio", json!(c.mlp_dim / c.dim)),
        ("use_swiglu_ffn", json!(false)),
        ("use_mask_token", json!(false)),
    ] {
        config[key] = value;
    }
    let mut more = Vec::new();
    if registers {
        config["num_register_tokens"] = json!(p.registers);
        // Its class has no key for leaving it out.
        let mask = "dinov2_with_registers.embeddings.mask_token";
        more.push((mask.into(), vec![1, c.dim], vec![0.0; c.dim]));
    }
    let class = if registers { "Dinov2WithRegistersForImageClassification" } else { "Dinov2ForImageClassification" };
    Ok(Network { class, config, layout: Layout::TransformersDinov2 { registers }, tensors, more })
}

/// An error naming the first part that a plain ResNet does not have.
pub(super) fn plain_resnet(c: &ResNetConfig) -> Result<(), String> {
    let any = |what: fn(&resnet_config::BlockConfig) -> bool| c.stages.iter().flatten().any(what);
    let parts = [
        (c.stem != resnet_config::Stem::Conv || c.stem_pool_conv || c.ceil_pool, "another stem"),
        (c.downsample != Downsample::Conv, "pools in its shortcuts"),
        (c.pooling != Pooling::Mean, "an attention pool"),
        (c.anti_alias || c.blur, "anti-aliasing"),
        (c.norm_groups.is_some(), "group norms"),
        (c.activation != Pointwise::Relu, "another activation than ReLU"),
        (c.stride_first, "strides on the first convolution"),
        (any(|b| b.attention != ChannelAttention::None || b.splits.is_some()), "channel attention"),
        (any(|b| b.second.is_some() || b.wide_shortcut), "other blocks"),
    ];
    match parts.into_iter().find(|(has, _)| *has) {
        Some((_, what)) => Err(format!("its plain ResNet has none with {what}")),
        None => Ok(()),
    }
}

fn resnet(c: &ResNetConfig, source: &Source) -> Result<Network, String> {
    plain_resnet(c)?;
    let bottleneck = c.block == resnet_config::Block::Bottleneck;
    let widths: Vec<usize> = c.stages.iter().map(|stage| stage[0].out).collect();
    let even = c.stages.iter().enumerate().all(|(i, stage)| {
        stage.iter().enumerate().all(|(j, block)| {
            let stride = if i > 0 && j == 0 { 2 } else { 1 };
            let inner = if bottleneck { widths[i] / 4 } else { widths[i] };
            block.out == widths[i] && block.inner == inner && block.stride == stride
        })
    });
    if !even || c.groups != 1 || c.stages.iter().flatten().any(|block| block.groups.is_some_and(|groups| groups != 1)) {
        return Err("its ResNet has one width per stage, a quarter of it inside, and no groups".into());
    }
    if (c.eps - 1e-5).abs() > 1e-9 {
        return Err(format!("its ResNet's batch norms have an eps of 1e-5, not {}", c.eps));
    }
    let config = json!({
        "model_type": "resnet",
        "embedding_size": c.stem_widths[0],
        "hidden_sizes": widths,
        "depths": c.stages.iter().map(Vec::len).collect::<Vec<_>>(),
        "layer_type": if bottleneck { "bottleneck" } else { "basic" },
        "hidden_act": "relu",
        "downsample_in_first_stage": false,
        "downsample_in_bottleneck": false,
    });
    let mut tensors = tensors::canonical(source);
    tensors::zeros_unless(&mut tensors, "fc.bias", &[c.classes]);
    let (class, layout) = ("ResNetForImageClassification", Layout::TransformersResNet);
    Ok(Network { class, config, layout, tensors, more: Vec::new() })
}

/// An error naming the first part that a plain ConvNeXt does not have.
pub(super) fn plain_convnext(c: &ConvNextConfig) -> Result<usize, String> {
    let ConvNextStem::Patch { size } = c.stem else {
        return Err("its ConvNeXt has a stem of patches".into());
    };
    let even = c.stages.iter().all(|stage| stage.hidden == 4 * stage.width && stage.kernel == 7);
    if !even || c.norm_first || c.head_hidden > 0 || c.projection.is_some() {
        return Err(
            "its ConvNeXt has 7 x 7 kernels, MLPs of four times the width, and a head of a norm and one layer".into()
        );
    }
    Ok(size)
}

fn convnext(c: &ConvNextConfig, source: &Source) -> Result<Network, String> {
    let patch_size = plain_convnext(c)?;
    let v2 = c.response_norm;
    if (c.eps - 1e-6).abs() > 1e-9
        || c.activation != Activation::Gelu
        || (v2 && c.layer_scale)
        || (!v2 && !c.layer_scale)
    {
        return Err("its ConvNeXt has GELU and an eps of 1e-6, and layer scales or, as V2, response norms".into());
    }
    let config = json!({
        "model_type": if v2 { "convnextv2" } else { "convnext" },
        "num_stages": c.stages.len(),
        "hidden_sizes": c.stages.iter().map(|stage| stage.width).collect::<Vec<_>>(),
        "depths": c.stages.iter().map(|stage| stage.depth).collect::<Vec<_>>(),
        "patch_size": patch_size,
        "hidden_act": "gelu",
        "layer_norm_eps": c.head_eps,
        "layer_scale_init_value": 1e-6,
        "drop_path_rate": 0.0,
    });
    let mut tensors = tensors::canonical(source);
    tensors::convnext_shapes(&mut tensors, &[], &[1, 1, 1]);
    tensors::zeros_unless(&mut tensors, "head.fc.bias", &[c.classes]);
    let class = if v2 { "ConvNextV2ForImageClassification" } else { "ConvNextForImageClassification" };
    Ok(Network { class, config, layout: Layout::TransformersConvNext { v2 }, tensors, more: Vec::new() })
}
