//! A ResNet (He et al. 2016) as torchvision, timm and CLIP build it. Images are NHWC inside.

use crate::gpu::buffer::Element;
use crate::model::layers::{BatchNorm, Convolution};
use crate::model::resnet_config::{BlockUnits, Downsample, Pooling, ResNetConfig, Stem, Unit};
use crate::model::tape::{Act, Network, Tape};

/// A convolution and its norm, declared.
struct Layer<'a> {
    unit: &'a Unit,
    conv: Convolution,
    norm: BatchNorm,
}

impl Layer<'_> {
    fn convolved(&self, t: &mut Tape, x: Act) -> Act {
        t.conv2d(x, &self.unit.conv, self.conv)
    }

    /// norm(conv(x)), through a ReLU if `relu`.
    fn forward(&self, t: &mut Tape, x: Act, relu: bool) -> Act {
        let x = self.convolved(t, x);
        t.batch_norm(x, &self.unit.norm, self.norm, relu)
    }
}

impl Network for ResNetConfig {
    fn forward(&self, t: &mut Tape) -> Act {
        let images = t.images(self.image_size);
        let mut x = t.pixels(images, "images with channels last");
        for unit in &self.stem_units() {
            x = self.layer(t, unit).forward(t, x, true);
        }
        x = match self.stem {
            Stem::Conv | Stem::Deep => t.max_pool(x, "stem", 3, 2, 1),
            Stem::Clip => t.avg_pool(x, "stem", 2, false),
            // Windows of one pixel, which is no pool.
            Stem::Small => t.max_pool(x, "stem", 1, 1, 0),
        };
        for units in &self.block_units() {
            x = t.segment(|t| self.residual_block(t, units, x));
        }
        let features = match self.pooling {
            Pooling::Attention { heads, features } => {
                t.within("attnpool", |t| self.attention_pool(t, x, heads, features))
            }
            Pooling::Mean => t.pool(x, "features", 0, t.shape(x).pixels(), Element::Word),
        };
        if self.classes == 0 {
            return features;
        }
        let head = t.linear_params(self.head(), self.classes, self.features(), self.head_bias);
        let features = if self.normalize { t.unit_length(features, "features at unit length") } else { features };
        t.linear(features, self.head(), head, Element::Word)
    }
}

impl ResNetConfig {
    fn layer<'a>(&self, t: &mut Tape, unit: &'a Unit) -> Layer<'a> {
        let &Unit { inp: inputs, out: outputs, kernel, stride, groups, .. } = unit;
        let weight = t.param(&format!("{}.weight", unit.conv), &[outputs, inputs / groups, kernel, kernel]);
        let conv = Convolution { weight, inputs, outputs, kernel, stride, padding: unit.padding(), groups };
        Layer { unit, conv, norm: t.batch_norm_params(&unit.norm, outputs, self.eps, self.momentum) }
    }

    /// relu(branch(x) + shortcut(x))
    fn residual_block(&self, t: &mut Tape, units: &BlockUnits, x: Act) -> Act {
        let layers: Vec<Layer> = units.units.iter().map(|unit| self.layer(t, unit)).collect();
        let shortcut = units.shortcut.as_ref().map(|unit| self.layer(t, unit));
        let pool = |t: &mut Tape, x: Act, name: &str, stride: usize| match stride {
            1 => x,
            _ => t.avg_pool(x, name, stride, self.downsample == Downsample::Avg),
        };
        // In reverse it comes before the branch, which is the longer of the two.
        let shortcut = shortcut.map_or(x, |layer| {
            t.aside(|t| {
                let pooled = pool(t, x, &format!("{} pooled", layer.unit.conv), units.shortcut_pool);
                layer.forward(t, pooled, false)
            })
        });
        let (last, first) = layers.split_last().expect("a block has convolutions");
        let inside = first.iter().fold(x, |x, layer| layer.forward(t, x, true));
        let inside = pool(t, inside, &format!("{} pooled", last.unit.conv), units.branch_pool);
        let inside = last.convolved(t, inside);
        t.batch_norm_onto(shortcut, inside, &last.unit.norm, last.norm)
    }

    /// CLIP's (Radford et al. 2021): attention with the pixels' mean as the query, and a projection.
    fn attention_pool(&self, t: &mut Tape, x: Act, heads: usize, features: usize) -> Act {
        let (d, narrow) = (self.width(), t.element());
        let positions = t.param("positional_embedding", &[1 + t.shape(x).pixels(), d]);
        let [k, q, v, c] = [("k", d), ("q", d), ("v", d), ("c", features)]
            .map(|(part, out)| t.linear_params(&format!("{part}_proj"), out, d, true));
        let tokens = t.tokens_of_pixels(x, "tokens", positions);
        // In reverse the query's share of the tokens' gradient comes first, then the keys', then the values'.
        let q = t.aside(|t| {
            let query = t.pool(tokens, "query", 0, 1, narrow);
            t.linear(query, "q", q, narrow)
        });
        let k = t.aside(|t| t.linear(tokens, "k", k, narrow));
        let v = t.linear(tokens, "v", v, narrow);
        t.recall();
        let attended = t.attend([q, k, v], "attended", heads);
        t.linear(attended, "features", c, Element::Word)
    }
}
