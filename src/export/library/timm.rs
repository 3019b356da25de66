//! Networks that timm has, described by the arguments of one of its architectures: `VisionTransformer`, `ResNet` and `ConvNeXt`.

use serde_json::{Value, json};

use super::transformers::{plain, plain_convnext, plain_resnet};
use super::{Described, Tensors, inputs, labels, tensors};
use crate::checkpoint::Weight;
use crate::model::ModelConfig;
use crate::model::config::{Pool, Positions, VitConfig};
use crate::model::convnext_config::ConvNextConfig;
use crate::model::resnet_config::{Block, ResNetConfig};
use crate::shapes::Activation;
use crate::train::source::Source;

/// A network as timm builds it.
struct Network {
    architecture: &'static str,
    arguments: Value,
    pool: &'static str,
    tensors: Vec<Weight>,
    remark: Option<String>,
}

/// # Errors
/// Why timm has no such network.
pub(super) fn describe(source: &Source) -> Result<Described, String> {
    let config = &source.recognised.config;
    if config.normalize() {
        return Err("it has no classifier on features of unit length".into());
    }
    let Network { architecture, mut arguments, pool, tensors, remark } = match config {
        ModelConfig::Vit(c) => vit(c, source)?,
        ModelConfig::ResNet(c) => resnet(c, source)?,
        ModelConfig::ConvNext(c) => convnext(c, source)?,
        _ => return Err("only its ViT, ResNet and ConvNeXt are described without a config.json".into()),
    };
    if config.grey() {
        arguments["in_chans"] = json!(1);
    }
    let (input, rounding) = inputs::timm(&source.recognised.preprocess, config.classes())?;
    let root = json!({
        "architecture": architecture,
        "num_classes": config.classes(),
        "num_features": config.width(),
        "global_pool": pool,
        "model_args": arguments,
        "label_names": labels(source),
        "pretrained_cfg": input,
    });
    let counters = tensors::counters(&tensors);
    Ok(Described {
        tensors: Tensors::Named(tensors, counters),
        files: vec![("config.json", root)],
        architecture: architecture.into(),
        python: python(),
        remarks: remark.into_iter().chain(rounding).collect(),
    })
}

/// How a folder is loaded, whichever architecture it is.
pub(super) fn python() -> String {
    "import timm\n\n\
     model = timm.create_model(\"local-dir:FOLDER\", pretrained=True).eval()\n\
     transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))\n\
     logits = model(transform(image).unsqueeze(0))\n"
        .into()
}

/// The share `of / to` as `int(to · share)` gives `of` again.
fn share(of: usize, to: usize) -> Result<f64, String> {
    let near = of as f64 / to as f64;
    let found = [near, near.next_up(), near.next_down()].into_iter().find(|share| (to as f64 * share) as usize == of);
    found.ok_or_else(|| format!("no mlp_ratio makes {of} of {to}"))
}

fn vit(c: &VitConfig, source: &Source) -> Result<Network, String> {
    plain(c)?;
    let p = &c.parts;
    let pool = match c.pool {
        Pool::Cls => "token",
        Pool::Mean => "avg",
        Pool::ClsMean | Pool::Attention => return Err("it has no pooling like this model's".into()),
    };
    if c.patch_bias == p.norm_pre {
        return Err("its patches have a bias, or a norm behind them".into());
    }
    let act = match c.activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
        Activation::QuickGelu => "quick_gelu",
        Activation::SwiGlu | Activation::GeGlu => return Err("its gated MLPs are those of few architectures".into()),
    };
    // The two that its architectures have.
    let architecture = match c.eps {
        eps if (eps - 1e-5).abs() < 1e-7 => "vit_base_patch16_clip_224",
        eps if eps < 2e-6 => "vit_base_patch16_224",
        eps => return Err(format!("its layer norms have an eps of 1e-6 or 1e-5, not {eps}")),
    };
    let close = (c.eps - 1e-6).abs() < 1e-8 || (c.eps - 1e-5).abs() < 1e-7;
    let remark = (!close).then(|| format!("timm's layer norms add 1e-6 to the variance, this model's {}", c.eps));
    let mut tensors = tensors::join_qkv(tensors::canonical(source));
    tensors::unflatten_tokens(&mut tensors, c.dim);
    if p.positions == Positions::Class && p.registers > 0 {
        tensors::pad_positions(&mut tensors, c.dim, 1, p.registers);
    }
    tensors::zeros_unless(&mut tensors, "head.bias", &[c.classes]);
    let arguments = json!({
        "img_size": c.image_size,
        "patch_size": c.patch_size,
        "embed_dim": c.dim,
        "depth": c.depth,
        "num_heads": c.heads,
        "mlp_ratio": share(c.mlp_dim, c.dim)?,
        "class_token": c.class_token,
        "reg_tokens": p.registers,
        "no_embed_class": p.positions == Positions::Patches,
        "global_pool": pool,
        "fc_norm": c.fc_norm,
        "qkv_bias": c.qkv_bias,
        "pre_norm": p.norm_pre,
        "init_values": c.layer_scale.then_some(1e-5),
        "act_layer": act,
    });
    Ok(Network { architecture, arguments, pool, tensors, remark })
}

fn resnet(c: &ResNetConfig, source: &Source) -> Result<Network, String> {
    plain_resnet(c)?;
    let bottleneck = c.block == Block::Bottleneck;
    let spread = if bottleneck { 4 } else { 1 };
    let channels: Vec<usize> = c.stages.iter().map(|stage| stage[0].out / spread).collect();
    // A block is `channels · base_width / 64 · groups` wide inside.
    let inner = c.stages[0][0].inner;
    let base = inner * 64 / channels[0] / c.groups;
    let even = c.stages.iter().zip(&channels).enumerate().all(|(i, (stage, width))| {
        stage.iter().enumerate().all(|(j, block)| {
            let stride = if i > 0 && j == 0 { 2 } else { 1 };
            let inside = if bottleneck { width * base / 64 * c.groups } else { *width };
            block.inner == inside && block.out == width * spread && block.stride == stride && block.groups.is_none()
        })
    });
    if !even || c.stem_widths != [64] || (c.eps - 1e-5).abs() > 1e-9 {
        return Err("its plain ResNet has a stem of 64 channels, and one width per stage".into());
    }
    let arguments = json!({
        "layers": c.stages.iter().map(Vec::len).collect::<Vec<_>>(),
        "channels": channels,
        "cardinality": c.groups,
        "base_width": if bottleneck { base } else { 64 },
    });
    let mut tensors = tensors::canonical(source);
    tensors::zeros_unless(&mut tensors, "fc.bias", &[c.classes]);
    let architecture = if bottleneck { "resnet50" } else { "resnet18" };
    Ok(Network { architecture, arguments, pool: "avg", tensors, remark: None })
}

fn convnext(c: &ConvNextConfig, source: &Source) -> Result<Network, String> {
    let patch_size = plain_convnext(c)?;
    if c.activation != Activation::Gelu {
        return Err("its ConvNeXt has GELU".into());
    }
    let arguments = json!({
        "depths": c.stages.iter().map(|stage| stage.depth).collect::<Vec<_>>(),
        "dims": c.stages.iter().map(|stage| stage.width).collect::<Vec<_>>(),
        "patch_size": patch_size,
        "norm_eps": c.eps,
        "conv_mlp": false,
        "use_grn": c.response_norm,
        "ls_init_value": c.layer_scale.then_some(1e-6),
    });
    let mut tensors = tensors::canonical(source);
    tensors::convnext_shapes(&mut tensors, &[], &[]);
    tensors::zeros_unless(&mut tensors, "head.fc.bias", &[c.classes]);
    let apart = (c.eps - c.head_eps).abs();
    if apart > 2e-6 {
        return Err(format!("its last norm has the eps of the others, {}, not {}", c.eps, c.head_eps));
    }
    let remark = (apart > 1e-8).then(|| {
        format!("timm's last norm adds {} to the variance as the others do, this model's {}", c.eps, c.head_eps)
    });
    Ok(Network { architecture: "convnext_tiny", arguments, pool: "avg", tensors, remark })
}
