//! torchvision's EfficientNets, MobileNets and MNASNets. Its files have no configuration: blocks, widths and kernels are told by the
//! tensors, strides and activations by the network, of which torchvision has one design each.

use super::described::Described;
use super::inputs::IMAGENET;
use super::tensors::Tensors;
use super::{Family, Prefixes};
use crate::checkpoint::facts::Facts;
use crate::checkpoint::file::Checkpoint;
use crate::checkpoint::metadata;
use crate::checkpoint::{Overrides, Recognised};
use crate::data::resize::Interpolation;
use crate::error::{Error, Result};
use crate::model::ModelConfig;
use crate::model::efficientnet_config::{AntiAlias, EfficientNetConfig, Mixed, MobileBlock, MobileHead, MobileKind};
use crate::ops::gate::Kind;
use crate::shapes::Pointwise;

/// A family of this file: its names, and what it is.
macro_rules! family {
    ($name:ident, $slug:literal, $what:literal, $layout:literal, $anchors:expr, $design:expr) => {
        pub(super) const $name: Family = Family {
            slug: $slug,
            name: $what,
            layout: $layout,
            anchors: &$anchors,
            enough: $anchors.len() - 1,
            bases: &[""],
            timm: &[],
            read: |checkpoint, prefixes, overrides| read(checkpoint, prefixes, overrides, &$name, $design),
        };
    };
}

family!(
    EFFICIENTNET,
    "torchvision-efficientnet",
    "torchvision EfficientNet",
    "features.0.N, features.N.N.block.N.N, classifier.1",
    [
        "features.0.0.weight",
        "features.0.1.running_mean",
        "features.1.0.block.0.0.weight",
        "features.2.0.block.0.0.weight"
    ],
    Design::EfficientNet
);
family!(
    MOBILENET_V2,
    "torchvision-mobilenetv2",
    "torchvision MobileNetV2",
    "features.0.N, features.N.conv.N.N, classifier.1",
    ["features.0.0.weight", "features.0.1.running_mean", "features.1.conv.0.0.weight", "features.2.conv.0.0.weight"],
    Design::MobileNetV2
);
family!(
    MOBILENET_V3,
    "torchvision-mobilenetv3",
    "torchvision MobileNetV3",
    "features.0.N, features.N.block.N.N, classifier.0, classifier.3",
    ["features.0.0.weight", "features.0.1.running_mean", "features.1.block.0.0.weight", "features.2.block.0.0.weight"],
    Design::MobileNetV3
);
family!(
    MNASNET,
    "torchvision-mnasnet",
    "torchvision MNASNet",
    "layers.N, layers.N.N.layers.N, classifier.1",
    ["layers.0.weight", "layers.1.running_mean", "layers.8.0.layers.0.weight", "layers.9.0.layers.0.weight"],
    Design::MnasNet
);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Design {
    EfficientNet,
    MobileNetV2,
    MobileNetV3,
    MnasNet,
}

impl Design {
    /// The strides of its stages; of MobileNets, whose stages have one block each, those of its blocks if it has `count` of them.
    fn strides(self, count: usize) -> Option<&'static [usize]> {
        match (self, count) {
            (Design::EfficientNet, ..=7) => Some(&[1, 2, 2, 2, 1, 2, 1]),
            (Design::MnasNet, ..=6) => Some(&[2, 2, 2, 1, 2, 1]),
            (Design::MobileNetV2, 17) => Some(&[1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]),
            (Design::MobileNetV3, 15) => Some(&[1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1]),
            (Design::MobileNetV3, 11) => Some(&[2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1]),
            _ => None,
        }
    }

    /// The activation of a block, which is that of the whole but in the first blocks of a MobileNetV3 of `count`.
    fn activation(self, block: usize, count: usize) -> Pointwise {
        match self {
            Design::EfficientNet => Pointwise::Silu,
            Design::MobileNetV2 => Pointwise::Relu6,
            Design::MobileNetV3 if block < if count > 11 { 6 } else { 3 } => Pointwise::Relu,
            Design::MobileNetV3 => Pointwise::HardSwish,
            Design::MnasNet => Pointwise::Relu,
        }
    }

    /// Where the blocks of a stage, counted from 0, stand in the file.
    fn block(self, stage: usize, block: usize) -> String {
        match self {
            Design::EfficientNet => format!("features.{}.{block}.block", stage + 1),
            Design::MobileNetV2 => format!("features.{}.conv", stage + 1),
            Design::MobileNetV3 => format!("features.{}.block", stage + 1),
            Design::MnasNet => format!("layers.{}.{block}.layers", stage + 8),
        }
    }
}

/// Names of the network, ours beside the file's, as far as they have been told.
struct Names<'a> {
    tensors: &'a Tensors<'a>,
    pairs: Vec<(String, String)>,
}

impl Names<'_> {
    /// A convolution and its norm.
    fn unit(&mut self, [conv, norm]: [&str; 2], [conv_in_file, norm_in_file]: [&str; 2]) {
        self.pairs.push((format!("{conv}.weight"), format!("{conv_in_file}.weight")));
        for part in ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"] {
            self.pairs.push((format!("{norm}.{part}"), format!("{norm_in_file}.{part}")));
        }
    }

    /// A layer with a bias.
    fn layer(&mut self, ours: &str, in_file: &str) {
        for part in ["weight", "bias"] {
            self.pairs.push((format!("{ours}.{part}"), format!("{in_file}.{part}")));
        }
    }

    fn shape(&self, conv: &str) -> Result<[usize; 4]> {
        self.tensors.dims(&format!("{conv}.weight"), "[outputs, inputs, kernel, kernel]")
    }

    fn is_conv(&self, name: &str) -> bool {
        self.tensors.by_name.get(&format!("{name}.weight")).is_some_and(|info| info.shape.len() == 4)
    }

    /// The convolutions of a block, each with its norm, and where its squeeze stands.
    fn parts(&self, block: &str) -> (Vec<[String; 2]>, Option<String>) {
        let (mut units, mut squeeze) = (Vec::new(), None);
        for i in 0..8 {
            let name = format!("{block}.{i}");
            if self.tensors.has(&format!("{name}.fc1.weight")) {
                squeeze = Some(name);
            } else if self.is_conv(&format!("{name}.0")) {
                units.push([format!("{name}.0"), format!("{name}.1")]);
            } else if self.is_conv(&name) {
                units.push([name, format!("{block}.{}", i + 1)]);
            }
        }
        (units, squeeze)
    }

    /// The block that stands under `in_file`, as ours under `ours`.
    fn block(
        &mut self,
        ours: &str,
        in_file: &str,
        entering: usize,
        stride: usize,
        activation: Pointwise,
    ) -> Result<MobileBlock> {
        let (units, squeeze) = self.parts(in_file);
        let shapes = units.iter().map(|[conv, _]| self.shape(conv)).collect::<Result<Vec<_>>>()?;
        let depthwise = shapes.iter().position(|shape| shape[1] == 1);
        let (kind, own): (MobileKind, &[[&str; 2]]) = match (shapes.len(), depthwise) {
            (3, Some(1)) => (MobileKind::Inverted, &[["conv_pw", "bn1"], ["conv_dw", "bn2"], ["conv_pwl", "bn3"]]),
            (2, Some(0)) => (MobileKind::Separable, &[["conv_dw", "bn1"], ["conv_pw", "bn2"]]),
            (2, None) => (MobileKind::Fused, &[["conv_exp", "bn1"], ["conv_pwl", "bn2"]]),
            (1, None) => (MobileKind::Conv, &[["conv", "bn1"]]),
            _ => return Err(self.unfit(in_file)),
        };
        for (own, unit) in own.iter().zip(&units) {
            let own = own.map(|part| format!("{ours}.{part}"));
            self.unit(own.each_ref().map(String::as_str), unit.each_ref().map(String::as_str));
        }
        let squeezed = match &squeeze {
            Some(name) => {
                self.layer(&format!("{ours}.se.conv_reduce"), &format!("{name}.fc1"));
                self.layer(&format!("{ours}.se.conv_expand"), &format!("{name}.fc2"));
                self.shape(&format!("{name}.fc1"))?[0]
            }
            None => 0,
        };
        let out = shapes[shapes.len() - 1][0];
        Ok(MobileBlock {
            kind,
            middle: if kind == MobileKind::Separable { entering } else { shapes[0][0] },
            out,
            kernel: shapes[depthwise.unwrap_or(0)][2],
            group_size: 0,
            mixed: Mixed::default(),
            start: 0,
            stride,
            squeeze: squeezed,
            activation,
            twice_active: false,
            skip: entering == out && stride == 1,
        })
    }

    fn unfit(&self, block: &str) -> Error {
        self.tensors.checkpoint.error(format!("{block} is no block that torchvision has in such a network"))
    }
}

fn read(
    checkpoint: &Checkpoint,
    prefixes: Prefixes,
    overrides: &Overrides,
    family: &'static Family,
    design: Design,
) -> Result<Recognised> {
    let mut tensors = Tensors::new(checkpoint, prefixes, &[]);
    let own = metadata::read(checkpoint)?;
    let (told, pairs) = config(&tensors, design)?;
    tensors.rename(pairs);
    let facts = Facts::torchvision(checkpoint);
    let saved = own.config.clone().filter(|config| matches!(config, ModelConfig::EfficientNet(_)));
    let source = if saved.is_some() { "metadata tpgm.config" } else { "torchvision's design" };
    let head = if design == Design::MobileNetV3 { "classifier.3" } else { "classifier.1" };
    let described = Described {
        tensors: &tensors,
        overrides,
        facts,
        own,
        family: family.name,
        what: "such a network of torchvision's",
        head: format!("{}{head}", prefixes.prefix),
        usual: (0.875, Interpolation::Bilinear, IMAGENET),
    };
    described.recognised(saved.unwrap_or(told.into()), source)
}

/// The model, but for image size and head, and its names.
fn config(tensors: &Tensors, design: Design) -> Result<(EfficientNetConfig, Vec<(String, String)>)> {
    let mut names = Names { tensors, pairs: Vec::new() };
    let mnasnet = design == Design::MnasNet;
    let stem = if mnasnet { ["layers.0", "layers.1"] } else { ["features.0.0", "features.0.1"] };
    let [width, channels, kernel, _] = names.shape(stem[0])?;
    names.unit(["conv_stem", "bn1"], stem);
    let present = |stage: usize, block: usize| {
        let name = design.block(stage, block);
        names.is_conv(&format!("{name}.0.0")) || names.is_conv(&format!("{name}.0"))
    };
    let count = (0..).take_while(|stage| present(*stage, 0)).count();
    let depths: Vec<usize> = (0..count)
        .map(|stage| match design {
            Design::EfficientNet | Design::MnasNet => (0..).take_while(|block| present(stage, *block)).count(),
            // Without a number for the block, every one is there.
            Design::MobileNetV2 | Design::MobileNetV3 => 1,
        })
        .collect();
    let Some(strides) = design.strides(count) else {
        return Err(tensors
            .checkpoint
            .error(format!("has {count} blocks: torchvision has no such network of this kind")));
    };
    let (mut stages, mut entering) = (Vec::new(), width);
    if mnasnet {
        // A separable block that torchvision writes in one with the stem; nothing is added to it.
        names.unit(["blocks.0.0.conv_dw", "blocks.0.0.bn1"], ["layers.3", "layers.4"]);
        names.unit(["blocks.0.0.conv_pw", "blocks.0.0.bn2"], ["layers.6", "layers.7"]);
        let (kernel, out) = (names.shape("layers.3")?[2], names.shape("layers.6")?[0]);
        stages.push(vec![MobileBlock {
            kind: MobileKind::Separable,
            middle: entering,
            out,
            kernel,
            group_size: 0,
            mixed: Mixed::default(),
            start: 0,
            stride: 1,
            squeeze: 0,
            activation: Pointwise::Relu,
            twice_active: false,
            skip: false,
        }]);
        entering = out;
    }
    let first = stages.len();
    for (stage, &depth) in depths.iter().enumerate() {
        let mut blocks = Vec::new();
        for block in 0..depth {
            let (ours, in_file) = (format!("blocks.{}.{block}", first + stage), design.block(stage, block));
            let stride = if block == 0 { strides[stage] } else { 1 };
            let activation = design.activation(stage, count);
            let block = names.block(&ours, &in_file, entering, stride, activation)?;
            entering = block.out;
            blocks.push(block);
        }
        stages.push(blocks);
    }
    let last = if mnasnet {
        [format!("layers.{}", count + 8), format!("layers.{}", count + 9)]
    } else {
        [0, 1].map(|part| format!("features.{}.{part}", count + 1))
    };
    let last = last.each_ref().map(String::as_str);
    let width_of_last = names.shape(last[0])?[0];
    let v3 = design == Design::MobileNetV3;
    let tail = match v3 {
        false => {
            names.unit(["conv_head", "bn2"], last);
            names.layer("classifier", "classifier.1");
            MobileHead::Conv { width: width_of_last }
        }
        true => {
            let ours = ["conv", "bn1"].map(|part| format!("blocks.{count}.0.{part}"));
            names.unit(ours.each_ref().map(String::as_str), last);
            stages.push(vec![MobileBlock {
                kind: MobileKind::Conv,
                middle: width_of_last,
                out: width_of_last,
                kernel: 1,
                group_size: 0,
                mixed: Mixed::default(),
                start: 0,
                stride: 1,
                squeeze: 0,
                activation: Pointwise::HardSwish,
                twice_active: false,
                skip: false,
            }]);
            names.layer("conv_head", "classifier.0");
            names.layer("classifier", "classifier.3");
            let [width, _] = tensors.dims("classifier.0.weight", "[outputs, inputs]")?;
            MobileHead::Linear { width, bias: tensors.has("classifier.0.bias"), norm: false, flat: true }
        }
    };
    // Its larger EfficientNets, from B5 on, and the second version have another epsilon.
    let fused = stages.iter().flatten().any(|block| matches!(block.kind, MobileKind::Fused | MobileKind::Conv));
    let large = design == Design::EfficientNet && (fused || depths.first().is_some_and(|depth| *depth > 2));
    let (eps, momentum) = match design {
        Design::MobileNetV3 => (1e-3, 0.01),
        Design::EfficientNet if large => (1e-3, 0.01),
        Design::MnasNet => (1e-5, 3e-4),
        _ => (1e-5, 0.1),
    };
    let config = EfficientNetConfig {
        image_size: 0,
        stem: [width, kernel],
        stages,
        tail,
        activation: design.activation(count, count),
        gate: if v3 { Kind::HardSigmoid } else { Kind::Sigmoid },
        squeeze_activation: v3.then_some(Pointwise::Relu),
        same: false,
        anti_alias: AntiAlias::None,
        eps,
        momentum,
        classes: 0,
        head_bias: false,
        normalize: false,
        grey: channels == 1,
    };
    Ok((config, names.pairs))
}
