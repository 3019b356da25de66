//! A ResNet (He et al. 2016) as torchvision, timm and CLIP build it. Images are NHWC inside.

use crate::gpu::buffer::Element;
use crate::model::layers::{ConvParams, LinearParams, NormParams};
use crate::model::resnet_config::{
    Block, BlockConfig, ChannelAttention, Downsample, Pooling, ResNetConfig, Splits, Stem,
};
use crate::model::tape::{Act, Network, ParamRef, Tape};
use crate::ops::blur::Filter;
use crate::ops::conv2d::Padding;
use crate::ops::gate::Kind;
use crate::shapes::Pointwise;

impl Network for ResNetConfig {
    fn forward(&self, t: &mut Tape) -> Act {
        let images = t.images(self.image_size);
        let x = t.pixels(images, "images with channels last", self.in_channels());
        let mut x = self.stem(t, x);
        let mut channels = *self.stem_widths.last().expect("a stem has convolutions");
        let (mut place, last) = (0, self.stages.iter().map(Vec::len).sum::<usize>().saturating_sub(1));
        for (stage, blocks) in self.stages.iter().enumerate() {
            for (i, block) in blocks.iter().enumerate() {
                let name = format!("layer{}.{i}", stage + 1);
                let write = |t: &mut Tape| self.residual_block(t, x, channels, block);
                x = t.at_depth(place, last, |t| t.segment(|t| t.within(&name, write)));
                place += 1;
                channels = block.out;
            }
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
        let features = t.head_dropout(features, self.head());
        t.linear(features, self.head(), head, Element::Word)
    }
}

/// A convolution without a bias and its norm, declared.
struct Unit<'a> {
    conv: ConvParams,
    norm: NormParams,
    activation: Pointwise,
    /// Of either.
    names: [&'a str; 2],
}

impl Unit<'_> {
    fn convolved(&self, t: &mut Tape, x: Act) -> Act {
        t.conv2d(x, self.names[0], self.conv)
    }

    /// norm(conv(x)), through the activation if it is `active`.
    fn forward(&self, t: &mut Tape, x: Act, active: bool) -> Act {
        let (x, name) = (self.convolved(t, x), self.names[1]);
        t.pixel_norm_then(x, name, self.norm, active.then_some(self.activation))
    }

    /// act(norm(conv(x)) + shortcut)
    fn onto(&self, t: &mut Tape, shortcut: Act, x: Act) -> Act {
        match self.norm {
            NormParams::Batch(norm) if self.activation == Pointwise::Relu && !t.drops_paths() => {
                let x = self.convolved(t, x);
                t.batch_norm_onto(shortcut, x, self.names[1], norm)
            }
            _ => {
                let x = self.forward(t, x, false);
                let x = t.drop_path(x, "branch");
                t.recall();
                added(t, shortcut, x, self.activation)
            }
        }
    }
}

/// act(shortcut + x)
fn added(t: &mut Tape, shortcut: Act, x: Act, activation: Pointwise) -> Act {
    let sum = t.add(shortcut, x, "sum", None);
    t.activation(sum, "act", activation)
}

/// A 1×1 convolution of `groups` groups with a bias, over one pixel.
fn dense(t: &mut Tape, x: Act, name: &str, outputs: usize, groups: usize) -> Act {
    let inputs = t.shape(x).cols;
    if groups == 1 {
        let layer = t.pointwise_params(name, outputs, inputs, true);
        return t.linear(x, name, layer, Element::Word);
    }
    let weight = t.param(&format!("{name}.weight"), &[outputs, inputs / groups, 1, 1]);
    let bias = t.param(&format!("{name}.bias"), &[outputs]);
    let (kernel, stride, padding) = (1, 1, Padding::Even(0));
    let x = t.conv2d(x, name, ConvParams { weight, inputs, outputs, kernel, stride, padding, groups });
    t.bias(x, &format!("{name}.biased"), bias, false)
}

/// The parameters of what weighs a branch's channels.
enum Attention {
    Squeeze([LinearParams; 2]),
    Neighbours(ParamRef),
}

impl Attention {
    fn declare(t: &mut Tape, attention: ChannelAttention, channels: usize) -> Option<Attention> {
        match attention {
            ChannelAttention::None => None,
            ChannelAttention::Squeeze { hidden } => {
                let layers = [("se.fc1", hidden, channels), ("se.fc2", channels, hidden)];
                Some(Attention::Squeeze(layers.map(|(name, n, k)| t.pointwise_params(name, n, k, true))))
            }
            ChannelAttention::Neighbours { kernel } => {
                Some(Attention::Neighbours(t.param("se.conv.weight", &[1, 1, kernel])))
            }
        }
    }

    /// What the gate of each channel takes the sigmoid of, from the pixels' mean.
    fn scale(&self, t: &mut Tape, x: Act) -> Act {
        let pooled = t.pool(x, "se.pool", 0, t.shape(x).pixels(), Element::Word);
        match *self {
            Attention::Squeeze([fc1, fc2]) => {
                let h = t.linear(pooled, "se.fc1", fc1, Element::Word);
                let h = t.activation(h, "se.act", Pointwise::Relu);
                t.linear(h, "se.fc2", fc2, Element::Word)
            }
            Attention::Neighbours(weight) => t.eca(pooled, "se.conv", weight),
        }
    }
}

impl ResNetConfig {
    fn unit<'a>(
        &self,
        t: &mut Tape,
        names: [&'a str; 2],
        [inputs, outputs]: [usize; 2],
        [kernel, stride]: [usize; 2],
        groups: usize,
    ) -> Unit<'a> {
        let weight = t.param(&format!("{}.weight", names[0]), &[outputs, inputs / groups, kernel, kernel]);
        let conv = ConvParams { weight, inputs, outputs, kernel, stride, padding: Padding::Even(kernel / 2), groups };
        let norm = t.pixel_norm_params(names[1], outputs, self.norm_groups, (self.eps, self.momentum));
        Unit { conv, norm, activation: self.activation, names }
    }

    fn stem(&self, t: &mut Tape, mut x: Act) -> Act {
        let (names, first): (&[[&str; 2]], [usize; 2]) = match self.stem {
            Stem::Conv => (&[["conv1", "bn1"]], [7, 2]),
            Stem::Halved => (&[["conv1", "bn1"]], [3, 2]),
            Stem::Small => (&[["conv1", "bn1"]], [3, 1]),
            Stem::Deep => (&[["conv1.0", "conv1.1"], ["conv1.3", "conv1.4"], ["conv1.6", "bn1"]], [3, 2]),
            Stem::Clip | Stem::Three => (&[["conv1", "bn1"], ["conv2", "bn2"], ["conv3", "bn3"]], [3, 2]),
        };
        assert_eq!(names.len(), self.stem_widths.len(), "a stem {:?} of widths {:?}", self.stem, self.stem_widths);
        let mut channels = self.in_channels();
        for (i, (names, &width)) in names.iter().zip(&self.stem_widths).enumerate() {
            let window = if i == 0 { first } else { [3, 1] };
            x = self.unit(t, *names, [channels, width], window, 1).forward(t, x, true);
            channels = width;
        }
        match self.stem {
            Stem::Conv | Stem::Deep | Stem::Three if self.stem_pool_conv => {
                self.unit(t, ["maxpool.0", "maxpool.1"], [channels; 2], [3, 2], 1).forward(t, x, true)
            }
            Stem::Conv | Stem::Deep | Stem::Three if self.anti_alias => t.avg_pool(x, "stem", 2, false),
            Stem::Conv | Stem::Deep | Stem::Three if self.blur => {
                let x = t.max_pool(x, "stem", (3, 1, Padding::Even(1)), false);
                t.blur(x, "stem.aa", 2, Filter::Reflected)
            }
            Stem::Conv | Stem::Deep | Stem::Three => {
                let padding = if self.ceil_pool { Padding::Over } else { Padding::Even(1) };
                t.max_pool(x, "stem", (3, 2, padding), false)
            }
            Stem::Clip => t.avg_pool(x, "stem", 2, false),
            Stem::Halved => x,
            // Windows of one pixel, which is no pool.
            Stem::Small => t.max_pool(x, "stem", (1, 1, Padding::Even(0)), false),
        }
    }

    /// relu(branch(x) + shortcut(x))
    fn residual_block(&self, t: &mut Tape, x: Act, channels: usize, block: &BlockConfig) -> Act {
        let BlockConfig { inner, out, stride, downsample, .. } = *block;
        let second = block.second.unwrap_or(inner);
        // An anti-aliased branch has a pool in place of the stride.
        let pooled = self.downsample == Downsample::AntiAliased || self.anti_alias || self.blur;
        let (conv_stride, pool_stride) = if pooled { (1, stride) } else { (stride, 1) };
        let [first_stride, middle_stride] = if self.stride_first { [conv_stride, 1] } else { [1, conv_stride] };
        let units = match self.block {
            Block::Basic => vec![
                self.unit(t, ["conv1", "bn1"], [channels, inner], [3, conv_stride], 1),
                self.unit(t, ["conv2", "bn2"], [inner, out], [3, 1], 1),
            ],
            Block::Bottleneck if block.splits.is_some() => vec![
                self.unit(t, ["conv1", "bn1"], [channels, inner], [1, 1], 1),
                self.unit(t, ["conv3", "bn3"], [second, out], [1, 1], 1),
            ],
            Block::Bottleneck => vec![
                self.unit(t, ["conv1", "bn1"], [channels, inner], [1, first_stride], 1),
                self.unit(
                    t,
                    ["conv2", "bn2"],
                    [inner, second],
                    [3, middle_stride],
                    block.groups.unwrap_or(self.groups),
                ),
                self.unit(t, ["conv3", "bn3"], [second, out], [1, 1], 1),
            ],
        };
        let weighed = if self.attention_inside { second } else { out };
        let attention = Attention::declare(t, block.attention, weighed);
        let pool = |t: &mut Tape, x: Act, name: &str, stride: usize, ceil_mode: bool| match stride {
            1 => x,
            _ => t.avg_pool(x, name, stride, ceil_mode),
        };
        let shortcut = if downsample {
            // ResNet-D counts its pool among the parts, CLIP does not.
            let (names, conv_stride, pool_stride) = match self.downsample {
                Downsample::Conv => (["downsample.0", "downsample.1"], stride, 1),
                Downsample::Avg => (["downsample.1", "downsample.2"], 1, stride),
                Downsample::AntiAliased => (["downsample.0", "downsample.1"], 1, stride),
            };
            let kernel = if block.wide_shortcut { 3 } else { 1 };
            let unit = self.unit(t, names, [channels, out], [kernel, conv_stride], 1);
            // In reverse it comes before the branch, which is the longer of the two.
            t.aside(|t| {
                let x = pool(t, x, "downsample.pool", pool_stride, self.downsample == Downsample::Avg);
                unit.forward(t, x, false)
            })
        } else {
            x
        };
        let (last, first) = units.split_last().expect("a block has convolutions");
        let x = first.iter().fold(x, |x, unit| unit.forward(t, x, true));
        let x = match block.splits {
            Some(splits) => self.split(t, x, splits, stride, block.groups.unwrap_or(self.groups)),
            None => x,
        };
        let x = match pool_stride {
            2.. if self.blur => t.blur(x, "aa", pool_stride, Filter::Reflected),
            _ => pool(t, x, "pool", pool_stride, false),
        };
        match attention {
            None => last.onto(t, shortcut, x),
            Some(attention) if self.attention_inside => {
                let scale = attention.scale(t, x);
                let x = t.gate(x, scale, "se.gate", Kind::Sigmoid);
                last.onto(t, shortcut, x)
            }
            Some(attention) => {
                let x = last.forward(t, x, self.active_gate);
                let scale = attention.scale(t, x);
                match self.activation {
                    Pointwise::Relu if !t.drops_paths() => t.gate_onto(shortcut, x, scale, "se.gate"),
                    activation => {
                        let x = t.gate(x, scale, "se.gate", Kind::Sigmoid);
                        let x = t.drop_path(x, "branch");
                        t.recall();
                        added(t, shortcut, x, activation)
                    }
                }
            }
        }
    }

    /// The splits of a 3×3 convolution of this many groups, weighed and summed. Behind it or before it stands a pool in place of a stride.
    fn split(&self, t: &mut Tape, x: Act, splits: Splits, stride: usize, groups: usize) -> Act {
        let Splits { radix, hidden, pool_first } = splits;
        let pool = |t: &mut Tape, x: Act, here: bool| match stride {
            2.. if here => t.blur(x, "avd", stride, Filter::Mean),
            _ => x,
        };
        let x = pool(t, x, pool_first);
        let channels = t.shape(x).cols;
        let names = ["conv2.conv", "conv2.bn0"];
        let x = self.unit(t, names, [channels, radix * channels], [3, 1], groups * radix).forward(t, x, true);
        let pooled = t.pool(x, "conv2.pool", 0, t.shape(x).pixels(), Element::Word);
        let part = |t: &mut Tape, r: usize| t.slice(pooled, &format!("conv2.pool.{r}"), r * channels, channels);
        let first = if radix == 1 { pooled } else { part(t, 0) };
        let sum = (1..radix).fold(first, |sum, r| {
            let own = part(t, r);
            t.add(sum, own, &format!("conv2.sum.{r}"), None)
        });
        let h = dense(t, sum, "conv2.fc1", hidden, groups);
        let norm = t.batch_norm_params("conv2.bn1", hidden, self.eps, self.momentum);
        let h = t.batch_norm(h, "conv2.bn1", norm, true);
        let logits = dense(t, h, "conv2.fc2", radix * channels, groups);
        let x = t.split_attention(x, logits, "conv2.split", radix, groups);
        pool(t, x, !pool_first)
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
