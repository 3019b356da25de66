//! Convolutions that make a vision transformer's patches: MobileCLIP's (Vasu et al. 2024) and ViTamin's (Chen et al. 2024), as timm's
//! `HybridEmbed` has them. Images are NHWC inside, and all of it is f32.

use serde::{Deserialize, Serialize};

use crate::gpu::buffer::Element;
use crate::model::layers::{ConvParams, DepthwiseParams, LinearParams};
use crate::model::tape::{Act, Tape};
use crate::ops::depthwise::Padding;
use crate::shapes::{Activation, Pointwise};

const WIDE: Element = Element::Word;
/// Of the stem's layer norms and batch norms, in every release.
const EPS: f32 = 1e-6;
const BATCH_EPS: f32 = 1e-5;
const MOMENTUM: f32 = 0.1;

/// What stands in place of a patch's projection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// Convolutions over patches, each but the last with a batch norm and GELU behind it.
    Patches {
        /// Outputs and patch size of each.
        layers: Vec<[usize; 2]>,
    },
    /// Two convolutions, stages of inverted bottlenecks each at half the size of its input, and a last convolution.
    Bottlenecks {
        /// Width of the first convolutions.
        width: usize,
        /// Width and blocks of each stage.
        stages: Vec<[usize; 2]>,
        /// Hidden channels of a block, of each stage.
        hidden: Vec<usize>,
    },
}

/// A convolution with a bias, `[outputs, inputs, kernel, kernel]`, as a linear layer over windows.
fn convolution(t: &mut Tape, name: &str, [outputs, inputs, kernel]: [usize; 3]) -> LinearParams {
    let weight = t.param(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel]);
    LinearParams { weight, bias: Some(t.param(&format!("{name}.bias"), &[outputs])) }
}

impl Stem {
    /// Pixels along a side that become one patch.
    pub fn patch_size(&self) -> usize {
        match self {
            Stem::Patches { layers } => layers.iter().map(|[_, size]| size).product(),
            Stem::Bottlenecks { stages, .. } => 4 << stages.len(),
        }
    }

    /// The name of the weight that reads the images' channels.
    pub fn weight(&self) -> &'static str {
        match self {
            Stem::Patches { .. } => "patch_embed.backbone.0.conv.weight",
            Stem::Bottlenecks { .. } => "patch_embed.backbone.stem.conv1.weight",
        }
    }

    /// Images, of which the first `channels` are read, to patches `[B, H', W', dim]`.
    pub(super) fn forward(&self, t: &mut Tape, images: Act, channels: usize, dim: usize) -> Act {
        let x = t.pixels(images, "images with channels last", channels);
        t.within("patch_embed.backbone", |t| match self {
            Stem::Patches { layers } => patches(t, x, channels, layers),
            Stem::Bottlenecks { width, stages, hidden } => {
                let mut x = t.within("stem", |t| bottleneck_stem(t, x, channels, *width));
                for (i, (&[width, depth], &hidden)) in stages.iter().zip(hidden).enumerate() {
                    for block in 0..depth {
                        let name = format!("stages.{i}.{block}");
                        x = t.segment(|t| t.within(&name, |t| bottleneck(t, x, width, hidden, block == 0)));
                    }
                }
                t.within("pool", |t| {
                    let before = t.shape(x).cols;
                    let x = t.layer_norm(x, "norm", EPS, WIDE);
                    let proj = convolution(t, "proj", [dim, before, 3]);
                    let x = t.unfold(x, "windows", before, (3, 2, Padding::Even(1)), WIDE);
                    t.linear(x, "proj", proj, WIDE)
                })
            }
        })
    }
}

fn patches(t: &mut Tape, mut x: Act, channels: usize, layers: &[[usize; 2]]) -> Act {
    let mut inputs = channels;
    for (i, &[outputs, size]) in layers.iter().enumerate() {
        let last = i + 1 == layers.len();
        x = t.within(&i.to_string(), |t| {
            let weight = t.param("conv.weight", &[outputs, inputs, size, size]);
            let conv = LinearParams { weight, bias: last.then(|| t.param("conv.bias", &[outputs])) };
            let x = t.unfold(x, "patches", inputs, (size, size, Padding::Even(0)), WIDE);
            let x = t.linear(x, "conv", conv, WIDE);
            if last {
                return x;
            }
            let norm = t.batch_norm_params("bn", outputs, BATCH_EPS, MOMENTUM);
            let x = t.batch_norm(x, "bn", norm, false);
            t.activation(x, "act", Pointwise::Gelu)
        });
        inputs = outputs;
    }
    x
}

fn bottleneck_stem(t: &mut Tape, x: Act, channels: usize, width: usize) -> Act {
    let conv1 = convolution(t, "conv1", [width, channels, 3]);
    let x = t.unfold(x, "conv1.windows", channels, (3, 2, Padding::Even(1)), WIDE);
    let x = t.linear(x, "conv1", conv1, WIDE);
    let x = t.layer_norm(x, "norm1", EPS, WIDE);
    let x = t.activation(x, "norm1.act", Pointwise::Gelu);
    // Windows of this many pixels would take nine times as much memory.
    let weight = t.param("conv2.weight", &[width, width, 3, 3]);
    let bias = t.param("conv2.bias", &[width]);
    let conv2 = ConvParams {
        weight,
        inputs: width,
        outputs: width,
        kernel: 3,
        stride: 1,
        padding: Padding::Even(1),
        groups: 1,
    };
    let x = t.conv2d(x, "conv2", conv2);
    let shape = t.shape(x);
    let bias = t.spread_over(bias, "conv2.bias of each pixel", shape);
    t.add(bias, x, "conv2.sum", None)
}

/// `shortcut(x) + conv3_1x1(act(conv2_kxk(act(conv1_1x1(pre_norm(x))))))`
fn bottleneck(t: &mut Tape, x: Act, width: usize, hidden: usize, halved: bool) -> Act {
    let before = t.shape(x).cols;
    let shortcut = match halved {
        true => {
            let pooled = t.avg_pool_around(x, "shortcut.pool", 2);
            match before == width {
                true => pooled,
                false => {
                    let expand = t.pointwise_params("shortcut.expand", width, before, true);
                    t.linear(pooled, "shortcut.expand", expand, WIDE)
                }
            }
        }
        false => x,
    };
    let h = t.layer_norm(x, "pre_norm", EPS, WIDE);
    let first = t.pointwise_params("conv1_1x1", hidden, before, true);
    let h = t.linear_gelu(h, "conv1_1x1", first, Activation::Gelu);
    let weight = t.param("conv2_kxk.weight", &[hidden, 1, 3, 3]);
    let bias = Some(t.param("conv2_kxk.bias", &[hidden]));
    let stride = if halved { 2 } else { 1 };
    let own = DepthwiseParams { weight, bias, kernel: 3, stride, padding: Padding::Even(1) };
    let h = t.depthwise(h, "conv2_kxk", own);
    let h = t.activation(h, "conv2_kxk.act", Pointwise::Gelu);
    let last = t.pointwise_params("conv3_1x1", width, hidden, true);
    t.linear_onto(shortcut, h, "conv3_1x1", last, None)
}
