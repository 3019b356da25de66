//! EfficientNet (Tan & Le 2019, 2021), MobileNetV2 (Sandler et al. 2018) and MobileNetV3 (Howard et al. 2019), as timm builds them.
//! Images are NHWC inside.

use crate::gpu::buffer::Element;
use crate::model::efficientnet_config::{AntiAlias, EfficientNetConfig, Mixed, MobileBlock, MobileHead, MobileKind};
use crate::model::layers::{ConvParams, DepthwiseParams};
use crate::model::tape::{Act, Network, Tape};
use crate::ops::blur::Filter;
use crate::ops::depthwise::Padding;
use crate::shapes::Pointwise;

impl Network for EfficientNetConfig {
    fn forward(&self, t: &mut Tape) -> Act {
        let images = t.images(self.image_size);
        let x = t.pixels(images, "images with channels last", self.in_channels());
        let [width, kernel] = self.stem;
        let x = self.convolution(t, x, "conv_stem", [self.in_channels(), width], [kernel, 2]);
        let mut x = self.norm(t, x, "bn1", Some(self.activation));
        // timm divides by their number, not by that of the last.
        let (mut place, all) = (0, self.stages.iter().map(Vec::len).sum());
        for (stage, blocks) in self.stages.iter().enumerate() {
            for (i, block) in blocks.iter().enumerate() {
                let name = format!("blocks.{stage}.{i}");
                x = t.at_depth(place, all, |t| t.segment(|t| t.within(&name, |t| self.block(t, x, block))));
                place += 1;
            }
        }
        let features = self.tail(t, x);
        if self.classes == 0 {
            return features;
        }
        let head = t.linear_params("classifier", self.classes, self.features(), self.head_bias);
        let features = if self.normalize { t.unit_length(features, "features at unit length") } else { features };
        let features = t.head_dropout(features, "classifier");
        t.linear(features, "classifier", head, Element::Word)
    }
}

impl EfficientNetConfig {
    /// A convolution without a bias.
    fn convolution(
        &self,
        t: &mut Tape,
        x: Act,
        name: &str,
        [inputs, outputs]: [usize; 2],
        [kernel, stride]: [usize; 2],
    ) -> Act {
        self.grouped(t, x, name, [inputs, outputs], [kernel, stride], 1)
    }

    /// The same with groups of channels.
    fn grouped(
        &self,
        t: &mut Tape,
        x: Act,
        name: &str,
        [inputs, outputs]: [usize; 2],
        [kernel, stride]: [usize; 2],
        groups: usize,
    ) -> Act {
        let weight = t.param(&format!("{name}.weight"), &[outputs, inputs / groups, kernel, kernel]);
        let padding = if self.same { Padding::Same } else { Padding::Even(kernel / 2) };
        t.conv2d(x, name, ConvParams { weight, inputs, outputs, kernel, stride, padding, groups })
    }

    fn pointwise(&self, t: &mut Tape, x: Act, name: &str, outputs: usize) -> Act {
        self.convolution(t, x, name, [t.shape(x).cols, outputs], [1, 1])
    }

    /// Several convolutions under `name`, each from its part of the channels to its part of `outputs`.
    fn beside(
        &self,
        t: &mut Tape,
        x: Act,
        name: &str,
        outputs: usize,
        parts: usize,
        one: impl Fn(&mut Tape, Act, &str, usize, usize) -> Act,
    ) -> Act {
        let split = Mixed::split(t.shape(x).cols, parts);
        let made: Vec<Act> = (split.iter().zip(Mixed::split(outputs, parts)).enumerate())
            .map(|(i, (&count, outputs))| {
                let own = t.slice(x, &format!("{name}.{i}.part"), split[..i].iter().sum(), count);
                one(t, own, &format!("{name}.{i}"), outputs, i)
            })
            .collect();
        t.beside(&made, name)
    }

    /// A 1×1 convolution, or `parts` of them.
    fn mixed_pointwise(&self, t: &mut Tape, x: Act, name: &str, outputs: usize, parts: usize) -> Act {
        match parts {
            0 | 1 => self.pointwise(t, x, name, outputs),
            _ => self.beside(t, x, name, outputs, parts, |t, x, name, outputs, _| self.pointwise(t, x, name, outputs)),
        }
    }

    /// A depth-wise convolution, or one for each of the kernels of `mixed`.
    fn mixed_depthwise(&self, t: &mut Tape, x: Act, name: &str, [kernel, stride]: [usize; 2], mixed: &Mixed) -> Act {
        match mixed.kernels.iter().filter(|kernel| **kernel > 0).count() {
            0 | 1 => self.depthwise(t, x, name, [kernel, stride]),
            parts => self.beside(t, x, name, t.shape(x).cols, parts, |t, x, name, _, i| {
                self.depthwise(t, x, name, [mixed.kernels[i], stride])
            }),
        }
    }

    fn depthwise(&self, t: &mut Tape, x: Act, name: &str, [kernel, stride]: [usize; 2]) -> Act {
        let weight = t.param(&format!("{name}.weight"), &[t.shape(x).cols, 1, kernel, kernel]);
        let padding = if self.same { Padding::Same } else { Padding::Even(kernel / 2) };
        t.depthwise(x, name, DepthwiseParams { weight, bias: None, kernel, stride, padding })
    }

    /// The stride of a convolution, where a pool may take its place.
    fn own_stride(&self, stride: usize) -> usize {
        if self.anti_alias == AntiAlias::None { stride } else { 1 }
    }

    /// The pool in place of a stride, if there is one.
    fn pooled(&self, t: &mut Tape, x: Act, stride: usize) -> Act {
        match self.anti_alias {
            _ if stride == 1 => x,
            AntiAlias::None => x,
            AntiAlias::Average => t.avg_pool(x, "aa", stride, false),
            AntiAlias::Blur => t.blur(x, "aa", stride, Filter::Reflected),
            AntiAlias::BlurAmongZeros => t.blur(x, "aa", stride, Filter::Zeros),
        }
    }

    /// A batch norm, and an activation behind it if one is given.
    fn norm(&self, t: &mut Tape, x: Act, name: &str, activation: Option<Pointwise>) -> Act {
        let own = t.batch_norm_params(name, t.shape(x).cols, self.eps, self.momentum);
        t.batch_norm_then(x, name, own, activation)
    }

    fn block(&self, t: &mut Tape, x: Act, block: &MobileBlock) -> Act {
        let MobileBlock { kind, middle, out, kernel, ref mixed, start, stride, activation, .. } = *block;
        let (entering, window) = (t.shape(x).cols, [kernel, self.own_stride(stride)]);
        let act = Some(activation);
        let h = match kind {
            MobileKind::Conv => {
                let h = self.convolution(t, x, "conv", [entering, out], window);
                let h = self.norm(t, h, "bn1", act);
                self.pooled(t, h, stride)
            }
            MobileKind::Separable => {
                let h = self.depthwise(t, x, "conv_dw", window);
                let h = self.norm(t, h, "bn1", act);
                let h = self.pooled(t, h, stride);
                let h = self.squeeze(t, h, block);
                let h = self.pointwise(t, h, "conv_pw", out);
                self.norm(t, h, "bn2", act.filter(|_| block.twice_active))
            }
            MobileKind::Inverted => {
                let h = self.mixed_pointwise(t, x, "conv_pw", middle, mixed.widen);
                let h = self.norm(t, h, "bn1", act);
                let h = self.mixed_depthwise(t, h, "conv_dw", window, mixed);
                let h = self.norm(t, h, "bn2", act);
                let h = self.pooled(t, h, stride);
                let h = self.squeeze(t, h, block);
                let h = self.mixed_pointwise(t, h, "conv_pwl", out, mixed.narrow);
                self.norm(t, h, "bn3", None)
            }
            MobileKind::Fused => {
                let groups = entering.checked_div(block.group_size).unwrap_or(1);
                let h = self.grouped(t, x, "conv_exp", [entering, middle], window, groups);
                let h = self.norm(t, h, "bn1", act);
                let h = self.pooled(t, h, stride);
                let h = self.squeeze(t, h, block);
                let h = self.pointwise(t, h, "conv_pwl", out);
                self.norm(t, h, "bn2", None)
            }
            MobileKind::Universal => {
                let mut h = x;
                if start > 0 {
                    let stride = if kernel > 0 { 1 } else { stride };
                    h = self.depthwise(t, h, "dw_start.conv", [start, self.own_stride(stride)]);
                    h = self.norm(t, h, "dw_start.bn", None);
                    h = self.pooled(t, h, stride);
                }
                h = self.pointwise(t, h, "pw_exp.conv", middle);
                h = self.norm(t, h, "pw_exp.bn", act);
                if kernel > 0 {
                    h = self.depthwise(t, h, "dw_mid.conv", window);
                    h = self.norm(t, h, "dw_mid.bn", act);
                    h = self.pooled(t, h, stride);
                }
                h = self.squeeze(t, h, block);
                h = self.pointwise(t, h, "pw_proj.conv", out);
                self.norm(t, h, "pw_proj.bn", None)
            }
        };
        if !block.skip {
            return h;
        }
        let h = t.drop_path(h, "branch");
        t.add(x, h, "sum", None)
    }

    /// Each channel times a gate, if the block has any.
    fn squeeze(&self, t: &mut Tape, x: Act, block: &MobileBlock) -> Act {
        if block.squeeze == 0 {
            return x;
        }
        let shape = t.shape(x);
        let pooled = t.pool(x, "se.pool", 0, shape.pixels(), Element::Word);
        let reduce = t.pointwise_params("se.conv_reduce", block.squeeze, shape.cols, true);
        let h = t.linear(pooled, "se.conv_reduce", reduce, Element::Word);
        let h = t.activation(h, "se.act", self.squeeze_activation.unwrap_or(block.activation));
        let expand = t.pointwise_params("se.conv_expand", shape.cols, block.squeeze, true);
        let scale = t.linear(h, "se.conv_expand", expand, Element::Word);
        t.gate(x, scale, "se.gate", self.gate)
    }

    /// Pixels to features.
    fn tail(&self, t: &mut Tape, x: Act) -> Act {
        let pixels = t.shape(x).pixels();
        match self.tail {
            MobileHead::Mean => t.pool(x, "features", 0, pixels, Element::Word),
            MobileHead::Conv { width } => {
                let x = self.pointwise(t, x, "conv_head", width);
                let x = self.norm(t, x, "bn2", Some(self.activation));
                t.pool(x, "features", 0, pixels, Element::Word)
            }
            MobileHead::Linear { width, bias, norm, flat } => {
                let pooled = t.pool(x, "pooled", 0, pixels, Element::Word);
                let params = if flat { Tape::linear_params } else { Tape::pointwise_params };
                let conv = params(t, "conv_head", width, t.shape(pooled).cols, bias);
                let x = t.linear(pooled, "conv_head", conv, Element::Word);
                match norm {
                    true => self.norm(t, x, "norm_head", Some(self.activation)),
                    false => t.activation(x, "features", self.activation),
                }
            }
        }
    }
}
