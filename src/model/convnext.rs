//! A ConvNeXt (Liu et al. 2022), or a ConvNeXt V2 (Woo et al. 2023), as timm builds it. Images are NHWC inside.

use crate::gpu::buffer::Element;
use crate::model::convnext_config::{ConvNextConfig, ConvNextProjection, ConvNextStage, ConvNextStem};
use crate::model::layers::{DepthwiseParams, LinearParams};
use crate::model::tape::{Act, Network, Tape};
use crate::ops::depthwise::Padding;
use crate::shapes::Activation;

/// The residual stream, pooled features and logits are f32 whatever branches off the stream.
const WIDE: Element = Element::Word;
/// Of the response normalisation, in every library.
const RESPONSE_EPS: f32 = 1e-6;

impl Network for ConvNextConfig {
    fn forward(&self, t: &mut Tape) -> Act {
        let images = t.images(self.image_size);
        let x = t.pixels(images, "images with channels last", self.in_channels());
        let mut x = t.within("stem", |t| self.stem(t, x));
        let (mut place, last) = (0, self.stages.iter().map(|stage| stage.depth).sum::<usize>().saturating_sub(1));
        for (i, stage) in self.stages.iter().enumerate() {
            if i > 0 {
                x = t.within(&format!("stages.{i}.downsample"), |t| self.downsample(t, x, stage.width));
            }
            for block in 0..stage.depth {
                let name = format!("stages.{i}.blocks.{block}");
                x = t.at_depth(place, last, |t| t.segment(|t| t.within(&name, |t| self.block(t, x, stage))));
                place += 1;
            }
        }
        let features = self.tail(t, x);
        if self.classes == 0 {
            return features;
        }
        let head = t.linear_params(self.head(), self.classes, self.features(), self.head_bias);
        let features = if self.normalize { t.unit_length(features, "features at unit length") } else { features };
        let features = t.head_dropout(features, self.head());
        t.linear(features, self.head(), head, WIDE)
    }
}

/// A convolution with a bias, `[outputs, inputs, kernel, kernel]`, as a linear layer over windows.
fn convolution(t: &mut Tape, name: &str, outputs: usize, inputs: usize, kernel: usize) -> LinearParams {
    let weight = t.param(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel]);
    LinearParams { weight, bias: Some(t.param(&format!("{name}.bias"), &[outputs])) }
}

impl ConvNextConfig {
    fn stem(&self, t: &mut Tape, x: Act) -> Act {
        let (width, channels) = (self.stages.first().map_or(0, |stage| stage.width), self.in_channels());
        match self.stem {
            ConvNextStem::Patch { size } => {
                // Products with a width that is no multiple of 4 are f32: a patch's, if its side is odd.
                let element = if size.is_multiple_of(2) { t.element() } else { WIDE };
                let conv = convolution(t, "0", width, channels, size);
                let x = t.unfold(x, "patches", channels, (size, size, Padding::Even(0)), element);
                let x = t.linear(x, "0", conv, WIDE);
                t.layer_norm(x, "1", self.eps, WIDE)
            }
            ConvNextStem::Overlap { middle } => {
                let first = convolution(t, "0", middle, channels, 3);
                let x = t.unfold(x, "0.windows", channels, (3, 2, Padding::Even(1)), WIDE);
                let x = t.linear(x, "0", first, WIDE);
                let second = convolution(t, "1", width, middle, 3);
                let x = t.unfold(x, "1.windows", middle, (3, 2, Padding::Even(1)), WIDE);
                let x = t.linear(x, "1", second, WIDE);
                t.layer_norm(x, "2", self.eps, WIDE)
            }
        }
    }

    /// A norm, then a convolution over patches of 2 × 2 pixels.
    fn downsample(&self, t: &mut Tape, x: Act, width: usize) -> Act {
        let before = t.shape(x).cols;
        let x = t.layer_norm(x, "0", self.eps, t.element());
        let conv = convolution(t, "1", width, before, 2);
        let x = t.unfold(x, "1.patches", before, (2, 2, Padding::Even(0)), t.element_of(x));
        t.linear(x, "1", conv, WIDE)
    }

    /// `x + gamma·fc2(grn(act(fc1(norm(depthwise(x))))))`
    fn block(&self, t: &mut Tape, x: Act, stage: &ConvNextStage) -> Act {
        let ConvNextStage { width, hidden, kernel, .. } = *stage;
        let shapes = self.shapes;
        let scale: &[usize] = if shapes.flat_scale { &[width, 1, 1] } else { &[width] };
        let gamma = self.layer_scale.then(|| t.param("gamma", scale));
        let weight = t.param("conv_dw.weight", &[width, 1, kernel, kernel]);
        let bias = Some(t.param("conv_dw.bias", &[width]));
        let padding = Padding::Even(kernel / 2);
        let h = t.depthwise(x, "conv_dw", DepthwiseParams { weight, bias, kernel, stride: 1, padding });
        let h = t.layer_norm(h, "norm", self.eps, t.element());
        let linear = |t: &mut Tape, name: &str, n, k| match shapes.conv_mlp {
            true => t.pointwise_params(name, n, k, true),
            false => t.linear_params(name, n, k, true),
        };
        let fc1 = linear(t, "mlp.fc1", hidden, width);
        let mut h = t.linear_gelu(h, "mlp.fc1", fc1, self.activation);
        if self.response_norm {
            let response: &[usize] = if shapes.flat_response { &[1, 1, 1, hidden] } else { &[hidden] };
            let [weight, bias] = ["weight", "bias"].map(|what| t.param(&format!("mlp.grn.{what}"), response));
            h = t.grn(h, "mlp.grn", weight, bias, RESPONSE_EPS);
        }
        let fc2 = linear(t, "mlp.fc2", width, hidden);
        t.branch_onto(x, h, "mlp.fc2", fc2, gamma)
    }

    /// Pixels to features.
    fn tail(&self, t: &mut Tape, x: Act) -> Act {
        let (width, pixels) = (self.width(), t.shape(x).pixels());
        let mut x = if self.norm_first {
            let x = t.layer_norm(x, "norm_pre", self.head_eps, WIDE);
            t.pool(x, "pooled", 0, pixels, WIDE)
        } else {
            let x = t.pool(x, "pooled", 0, pixels, WIDE);
            t.layer_norm(x, "head.norm", self.head_eps, WIDE)
        };
        if self.head_hidden > 0 {
            let fc = t.linear_params("head.pre_logits.fc", self.head_hidden, width, true);
            x = t.linear_gelu(x, "head.pre_logits.fc", fc, Activation::Gelu);
        }
        let entering = t.shape(x).cols;
        match self.projection {
            None => x,
            Some(ConvNextProjection::Linear { features }) => {
                let proj = t.linear_params("proj", features, entering, false);
                t.linear(x, "proj", proj, WIDE)
            }
            Some(ConvNextProjection::Mlp { hidden, features }) => {
                let fc1 = t.linear_params("mlp.fc1", hidden, entering, true);
                let x = t.linear_gelu(x, "mlp.fc1", fc1, Activation::Gelu);
                let fc2 = t.linear_params("mlp.fc2", features, hidden, false);
                t.linear(x, "mlp.fc2", fc2, WIDE)
            }
        }
    }
}
