//! A ResNetV2 (He et al. 2016; BiT, Kolesnikov et al. 2020) as timm builds it. Images are NHWC inside.

use crate::gpu::buffer::Element;
use crate::model::layers::ConvParams;
use crate::model::resnetv2_config::{PreBlock, ResNetV2Config};
use crate::model::tape::{Act, Network, Tape};
use crate::ops::conv2d::Padding;
use crate::shapes::Pointwise;

impl Network for ResNetV2Config {
    fn forward(&self, t: &mut Tape) -> Act {
        let images = t.images(self.image_size);
        let x = self.map(t, images);
        let x = match self.preact {
            true => self.norm(t, x, "norm", true),
            false => x,
        };
        let features = t.pool(x, "features", 0, t.shape(x).pixels(), Element::Word);
        if self.classes == 0 {
            return features;
        }
        let head = t.pointwise_params("head.fc", self.classes, self.features(), self.head_bias);
        let features = if self.normalize { t.unit_length(features, "features at unit length") } else { features };
        let features = t.head_dropout(features, "head.fc");
        t.linear(features, "head.fc", head, Element::Word)
    }
}

impl ResNetV2Config {
    /// What leaves the last block, `[B, H, W, features]`, without the norm that stands behind it.
    pub(super) fn map(&self, t: &mut Tape, images: Act) -> Act {
        let x = t.pixels(images, "images with channels last", self.in_channels());
        let mut x = t.within("stem", |t| self.stem(t, x));
        let (mut place, last) = (0, self.stages.iter().map(Vec::len).sum::<usize>().saturating_sub(1));
        for (stage, blocks) in self.stages.iter().enumerate() {
            for (i, block) in blocks.iter().enumerate() {
                let name = format!("stages.{stage}.blocks.{i}");
                let write = |t: &mut Tape| match self.preact {
                    true => self.pre_block(t, x, block),
                    false => self.post_block(t, x, block),
                };
                x = t.at_depth(place, last, |t| t.segment(|t| t.within(&name, write)));
                place += 1;
            }
        }
        x
    }

    fn conv(&self, t: &mut Tape, x: Act, name: &str, outputs: usize, window: [usize; 2]) -> Act {
        self.conv_of(t, x, name, [t.shape(x).cols, outputs], window)
    }

    fn conv_of(
        &self,
        t: &mut Tape,
        x: Act,
        name: &str,
        [inputs, outputs]: [usize; 2],
        [kernel, stride]: [usize; 2],
    ) -> Act {
        let weight = t.param(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel]);
        let padding = if self.same { Padding::Same } else { Padding::Even(kernel / 2) };
        let own = ConvParams { weight, inputs, outputs, kernel, stride, padding, groups: 1 };
        match self.standard {
            Some(eps) => t.std_conv2d(x, name, own, eps),
            None => t.conv2d(x, name, own),
        }
    }

    fn norm(&self, t: &mut Tape, x: Act, name: &str, relu: bool) -> Act {
        let own = t.pixel_norm_params(name, t.shape(x).cols, self.norm.groups(), (self.eps, self.momentum));
        t.pixel_norm(x, name, own, relu)
    }

    fn stem(&self, t: &mut Tape, mut x: Act) -> Act {
        let last = self.stem_chs.len() - 1;
        for (i, &width) in self.stem_chs.iter().enumerate() {
            let number = if last > 0 { (i + 1).to_string() } else { String::new() };
            let window = [if last > 0 { 3 } else { 7 }, if i == 0 { 2 } else { 1 }];
            // The images' pixels are stored with a fourth channel.
            let inputs = if i == 0 { self.in_channels() } else { t.shape(x).cols };
            x = self.conv_of(t, x, &format!("conv{number}"), [inputs, width], window);
            if i < last || !self.preact {
                x = self.norm(t, x, &format!("norm{number}"), true);
            }
        }
        let (padding, zeros) = self.stem_pool.windows();
        t.max_pool(x, "pool", (3, 2, padding), zeros)
    }

    /// The shortcut of a block: of what enters it, or of that behind its first norm.
    fn shortcut(&self, t: &mut Tape, x: Act, block: &PreBlock) -> Act {
        let pooled = self.avg_down && block.stride > 1;
        let x = if pooled { t.avg_pool(x, "downsample.pool", block.stride, true) } else { x };
        self.conv(t, x, "downsample.conv", block.out, [1, if self.avg_down { 1 } else { block.stride }])
    }

    /// shortcut + branch(relu(norm(x)))
    fn pre_block(&self, t: &mut Tape, x: Act, block: &PreBlock) -> Act {
        let PreBlock { inner, out, stride, downsample } = *block;
        let bare = self.norm(t, x, "norm1", true);
        let shortcut = if downsample { self.shortcut(t, bare, block) } else { x };
        let windows = match self.basic {
            true => vec![(inner, [3, stride]), (out, [3, 1])],
            false => vec![(inner, [1, 1]), (inner, [3, stride]), (out, [1, 1])],
        };
        let mut h = bare;
        for (i, (width, window)) in windows.into_iter().enumerate() {
            if i > 0 {
                h = self.norm(t, h, &format!("norm{}", i + 1), true);
            }
            h = self.conv(t, h, &format!("conv{}", i + 1), width, window);
        }
        let h = t.drop_path(h, "branch");
        t.add(shortcut, h, "sum", None)
    }

    /// relu(shortcut + branch(x)), each convolution with a norm behind it.
    fn post_block(&self, t: &mut Tape, x: Act, block: &PreBlock) -> Act {
        let PreBlock { inner, out, stride, downsample } = *block;
        let shortcut = match downsample {
            true => {
                let shortcut = self.shortcut(t, x, block);
                self.norm(t, shortcut, "downsample.norm", false)
            }
            false => x,
        };
        let mut h = x;
        for (i, (width, window)) in [(inner, [1, 1]), (inner, [3, stride]), (out, [1, 1])].into_iter().enumerate() {
            h = self.conv(t, h, &format!("conv{}", i + 1), width, window);
            h = self.norm(t, h, &format!("norm{}", i + 1), i < 2);
        }
        let h = t.drop_path(h, "branch");
        let sum = t.add(shortcut, h, "sum", None);
        t.activation(sum, "act3", Pointwise::Relu)
    }
}
