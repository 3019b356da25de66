//! A VGG (Simonyan & Zisserman 2015) as timm and torchvision build it. Images are NHWC inside.

use crate::gpu::buffer::Element;
use crate::model::layers::{ConvParams, LinearParams};
use crate::model::tape::{Act, Network, Tape};
use crate::model::vgg_config::{GRID, VggConfig};
use crate::ops::conv2d::Padding;
use crate::shapes::Pointwise;

impl Network for VggConfig {
    fn forward(&self, t: &mut Tape) -> Act {
        let images = t.images(self.image_size);
        let mut x = t.pixels(images, "images with channels last", self.in_channels());
        let (mut inputs, mut place) = (self.in_channels(), 0);
        for widths in &self.widths {
            x = t.segment(|t| {
                t.within("features", |t| {
                    for &width in widths {
                        x = self.convolution(t, x, &mut place, [inputs, width]);
                        inputs = width;
                    }
                    let pooled = t.max_pool(x, &place.to_string(), (2, 2, Padding::Even(0)), false);
                    place += 1;
                    pooled
                })
            });
        }
        let features = t.within("pre_logits", |t| self.hidden(t, x));
        if self.classes == 0 {
            return features;
        }
        let head = t.linear_params("head.fc", self.classes, self.features(), self.head_bias);
        let features = if self.normalize { t.unit_length(features, "features at unit length") } else { features };
        let features = t.head_dropout(features, "head.fc");
        t.linear(features, "head.fc", head, Element::Word)
    }
}

impl VggConfig {
    /// A convolution with a bias, its norm if there is one, and a ReLU, in the places from `place` on.
    fn convolution(&self, t: &mut Tape, x: Act, place: &mut usize, [inputs, outputs]: [usize; 2]) -> Act {
        let name = place.to_string();
        let weight = t.param(&format!("{name}.weight"), &[outputs, inputs, 3, 3]);
        let bias = t.param(&format!("{name}.bias"), &[outputs]);
        let padding = Padding::Even(1);
        let x = t.conv2d(x, &name, ConvParams { weight, inputs, outputs, kernel: 3, stride: 1, padding, groups: 1 });
        let x = t.bias(x, &format!("{name}.biased"), bias, !self.norm);
        if !self.norm {
            *place += 2;
            return x;
        }
        let name = (*place + 1).to_string();
        *place += 3;
        let own = t.batch_norm_params(&name, outputs, self.eps, self.momentum);
        t.batch_norm(x, &name, own, true)
    }

    /// Two layers over all pixels at once, each with a ReLU.
    fn hidden(&self, t: &mut Tape, x: Act) -> Act {
        let width = self.width();
        let weight = |t: &mut Tape, name: &str, shape: [usize; 4]| {
            let [outputs, inputs, height, width] = shape;
            let flat = [outputs, inputs * height * width];
            let weight = t.param(&format!("{name}.weight"), if self.flat { &flat } else { &shape });
            LinearParams { weight, bias: Some(t.param(&format!("{name}.bias"), &[outputs])) }
        };
        let fc1 = weight(t, "fc1", [self.hidden[0], width, GRID, GRID]);
        let fc2 = weight(t, "fc2", [self.hidden[1], self.hidden[0], 1, 1]);
        // Products with a width that is no multiple of 4 are f32.
        let element = if width.is_multiple_of(4) { t.element() } else { Element::Word };
        let x = t.unfold(x, "pixels", width, (GRID, GRID, Padding::Even(0)), element);
        let x = t.linear(x, "fc1", fc1, Element::Word);
        let x = t.activation(x, "act1", Pointwise::Relu);
        let x = t.linear(x, "fc2", fc2, Element::Word);
        t.activation(x, "act2", Pointwise::Relu)
    }
}
