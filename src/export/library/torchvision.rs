//! Networks that torchvision has: `ResNet` and `ConvNeXt`, built by the lines of Python that go with them.

use std::path::Path;

use serde_json::json;

use super::transformers::{plain_convnext, plain_resnet};
use super::{Described, Tensors, labels, tensors};
use crate::checkpoint::{Layout, Weight, torchvision_architecture};
use crate::model::ModelConfig;
use crate::model::convnext_config::ConvNextConfig;
use crate::model::resnet_config::{Block, ResNetConfig};
use crate::shapes::Activation;
use crate::train::source::Source;

/// # Errors
/// Why torchvision has no such network.
pub(super) fn describe(source: &Source) -> Result<Described, String> {
    let config = &source.recognised.config;
    if config.normalize() || config.grey() {
        return Err("it has no classifier on features of unit length, and none of grey images".into());
    }
    let (architecture, import, built, tensors) = match config {
        ModelConfig::ResNet(c) => resnet(c, source)?,
        ModelConfig::ConvNext(c) => convnext(c, source)?,
        _ => return Err("only its ResNet and its ConvNeXt are described".into()),
    };
    let counters = tensors::counters(&tensors);
    let python = format!(
        "from safetensors.torch import load_file\n{import}\n\n\
         model = {built}.eval()\nmodel.load_state_dict(load_file(\"FOLDER/model.safetensors\"), strict=True)\n"
    );
    let input = json!({"preprocess": source.recognised.preprocess, "classes": labels(source)});
    Ok(Described {
        tensors: Tensors::Named(tensors, counters),
        files: vec![("config.json", input)],
        architecture: architecture.into(),
        python,
        remarks: Vec::new(),
    })
}

/// A model of torchvision's own, under its names.
///
/// # Errors
/// Where it is none.
pub(super) fn kept(source: &Source, pretrained: &Path) -> Result<Described, String> {
    let recognised = &source.recognised;
    if !recognised.family.starts_with("torchvision") || recognised.config.normalize() || recognised.config.grey() {
        return Err("it does not come from torchvision".into());
    }
    let known = torchvision_architecture(pretrained);
    let architecture = known.clone().unwrap_or_else(|| "ARCHITECTURE".into());
    let python = format!(
        "import torchvision\nfrom safetensors.torch import load_file\n\n\
         model = torchvision.models.get_model(\"{architecture}\", num_classes={}).eval()\n\
         model.load_state_dict(load_file(\"FOLDER/model.safetensors\"), strict=True)\n",
        recognised.config.classes()
    );
    let unknown =
        "no file says which architecture it is: put its name, such as efficientnet_b0, in the place of ARCHITECTURE";
    let input = json!({"preprocess": recognised.preprocess, "classes": labels(source)});
    Ok(Described {
        tensors: Tensors::Kept(Vec::new()),
        files: vec![("config.json", input)],
        architecture,
        python,
        remarks: if known.is_none() { vec![unknown.into()] } else { Vec::new() },
    })
}

type Network = (&'static str, &'static str, String, Vec<Weight>);

fn resnet(c: &ResNetConfig, source: &Source) -> Result<Network, String> {
    plain_resnet(c)?;
    let bottleneck = c.block == Block::Bottleneck;
    let spread = if bottleneck { 4 } else { 1 };
    let base = c.stages[0][0].inner / c.groups;
    let even = c.stages.iter().enumerate().all(|(i, stage)| {
        let width = 64 << i;
        stage.iter().enumerate().all(|(j, block)| {
            let stride = if i > 0 && j == 0 { 2 } else { 1 };
            let inner = if bottleneck { width * base / 64 * c.groups } else { width };
            block.out == width * spread && block.inner == inner && block.stride == stride && block.groups.is_none()
        })
    });
    if !even || c.stages.len() != 4 || c.stem_widths != [64] || (c.eps - 1e-5).abs() > 1e-9 {
        return Err("its ResNet has four stages that begin with 64 channels, twice as many in each".into());
    }
    let depths: Vec<usize> = c.stages.iter().map(Vec::len).collect();
    let block = if bottleneck { "Bottleneck" } else { "BasicBlock" };
    let width = if bottleneck { format!(", groups={}, width_per_group={base}", c.groups) } else { String::new() };
    let built = format!("ResNet({block}, {depths:?}, num_classes={}{width})", c.classes);
    let mut tensors = tensors::canonical(source);
    tensors::zeros_unless(&mut tensors, "fc.bias", &[c.classes]);
    Ok(("ResNet", "from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet", built, tensors))
}

fn convnext(c: &ConvNextConfig, source: &Source) -> Result<Network, String> {
    let patch_size = plain_convnext(c)?;
    let near = |eps: f32| (eps - 1e-6).abs() < 1e-8;
    if patch_size != 4
        || c.response_norm
        || !c.layer_scale
        || !near(c.eps)
        || !near(c.head_eps)
        || c.activation != Activation::Gelu
    {
        return Err("its ConvNeXt has patches of 4 pixels, GELU, layer scales, and an eps of 1e-6".into());
    }
    let stage = |i: usize| {
        let next = c.stages.get(i + 1).map_or("None".into(), |next| next.width.to_string());
        format!("CNBlockConfig({}, {next}, {})", c.stages[i].width, c.stages[i].depth)
    };
    let stages: Vec<String> = (0..c.stages.len()).map(stage).collect();
    let built = format!("ConvNeXt([{}], num_classes={})", stages.join(", "), c.classes);
    let mut tensors = tensors::canonical(source);
    tensors::convnext_shapes(&mut tensors, &[1, 1], &[]);
    tensors::zeros_unless(&mut tensors, "head.fc.bias", &[c.classes]);
    let named = |(name, shape, values): Weight| {
        let name =
            Layout::TorchvisionConvNext.name(&name).ok_or_else(|| format!("its ConvNeXt has no tensor like {name}"))?;
        Ok((name, shape, values))
    };
    let tensors = tensors.into_iter().map(named).collect::<Result<_, String>>()?;
    Ok(("ConvNeXt", "from torchvision.models.convnext import CNBlockConfig, ConvNeXt", built, tensors))
}
