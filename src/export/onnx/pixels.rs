//! Operations over the pixels of images, `[batch, channels, height, width]`.

use super::graph::Data;
use super::proto::Attribute;
use super::writer::{Windows, Writer, after};
use crate::error::Result;
use crate::model::operation::{Normed, Operation};
use crate::model::tape::{Act, ParamRef, Shape};
use crate::ops::depthwise::Padding;
use crate::ops::{avg_pool, blur, gate, max_pool, split_attention};
use crate::shapes::Pointwise;

/// Windows over an image of this height and width.
fn windows(
    of: Act,
    channels: usize,
    [height, width]: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: Padding,
) -> Windows {
    let [above, left] = [height, width].map(|size| padding.before(size, kernel, stride));
    let count = |size| padding.windows(size, kernel, stride);
    let below = after(height, above, count(height), kernel, stride);
    let right = after(width, left, count(width), kernel, stride);
    Windows { of, channels, kernel, stride, pads: [above, left, below, right] }
}

impl Writer<'_> {
    pub(super) fn write_pixels(&mut self, operation: Operation) -> Result<()> {
        match operation {
            Operation::Pixels { out, .. } => {
                // A fourth channel of zeros is a convenience of the kernels.
                let images = self.images.clone();
                self.set_image(out, images);
            }
            Operation::Conv { inp, out, weight, dims, standardized } => {
                let groups = dims.groups;
                let taps =
                    windows(inp, dims.in_channels, [dims.height, dims.width], dims.kernel, dims.stride, dims.padding);
                let shape = [dims.out_channels, dims.in_channels / groups, dims.kernel, dims.kernel];
                let mut weight = self.product(weight, false, dims.out_channels, (&shape, 0, false))?;
                if let Some(eps) = standardized {
                    weight = self.standardized(&weight, eps);
                }
                let y = self.convolve(taps, &weight, None, groups);
                self.set_image(out, y);
            }
            Operation::Depthwise { inp, out, weight, bias, dims } => {
                let channels = dims.channels;
                let taps = windows(inp, channels, [dims.height, dims.width], dims.kernel, dims.stride, dims.padding);
                let shape = [channels, 1, dims.kernel, dims.kernel];
                let weight = self.product(weight, false, channels, (&shape, 0, false))?;
                let bias = bias.map(|bias| self.plain(bias, &[channels]));
                let y = self.convolve(taps, &weight, bias.as_deref(), channels);
                self.set_image(out, y);
            }
            Operation::Unfold { inp, out, dims } => {
                let size = [dims.height, dims.width];
                self.set_windows(out, windows(inp, dims.channels, size, dims.kernel, dims.stride, dims.padding));
            }
            Operation::BatchNorm { own, inp, out, shortcut, activation } => {
                self.batch_norm(own, inp, out, shortcut, activation);
            }
            Operation::Bias { inp, out, bias, relu } => {
                let image = self.as_images(&[inp]);
                let (x, bias) = (self.get(inp, image), self.per_channel(bias, image));
                let y = self.graph.two("Add", &x, &bias);
                let y = if relu { self.graph.one("Relu", &y) } else { y };
                self.set(out, image, y);
            }
            Operation::GroupNorm { inp, out, weight, bias, groups, eps, relu } => {
                self.group_norm([inp, out], [weight, bias], groups, eps, relu);
            }
            Operation::Grn { inp, out, weight, bias, eps } => self.grn([inp, out], [weight, bias], eps),
            Operation::Eca { inp, out, weight } => {
                let (taps, channels) = (weight.elements(), self.shape(inp).cols as i64);
                let row = self.rows(inp);
                let row = self.graph.reshape(&row, &[0, 1, channels]);
                let weight = self.plain(weight, &[1, 1, taps]);
                let pads = Attribute::ints("pads", &[taps / 2, taps - 1 - taps / 2]);
                let y = self.graph.node("Conv", &[&row, &weight], vec![Attribute::ints("kernel_shape", &[taps]), pads]);
                let y = self.graph.reshape(&y, &[0, channels]);
                self.set_rows(out, y);
            }
            Operation::Gate { inp, scale, out, kind, shortcut } => self.gate([inp, scale, out], kind, shortcut),
            Operation::MaxPool { inp, out, dims } => self.max_pool(inp, out, dims),
            Operation::AvgPool { inp, out, dims } => self.avg_pool(inp, out, dims),
            Operation::Blur { inp, out, dims } => self.blur(inp, out, dims),
            Operation::SplitAttention { inp, logits, out, dims } => self.split_attention(inp, logits, out, dims),
            other => unreachable!("{other:?} is none of pixels"),
        }
        Ok(())
    }

    /// Each output's weights with a mean of 0 and a variance of 1.
    fn standardized(&mut self, weight: &str, eps: f32) -> String {
        let mean = self.graph.reduce("ReduceMean", weight, &[1, 2, 3]);
        let centred = self.graph.two("Sub", weight, &mean);
        let square = self.graph.two("Mul", &centred, &centred);
        let var = self.graph.reduce("ReduceMean", &square, &[1, 2, 3]);
        let var = self.graph.by("Add", &var, eps);
        let deviation = self.graph.one("Sqrt", &var);
        self.graph.two("Div", &centred, &deviation)
    }

    fn batch_norm(&mut self, own: Normed, inp: Act, out: Act, shortcut: Option<Act>, activation: Option<Pointwise>) {
        // Channels come second in rows of a pooled value as well.
        let image = !(self.shape(inp).is_pooled() && self.is_rows(inp));
        let x = self.get(inp, image);
        let cols = self.shape(inp).cols;
        let [weight, bias] = [own.weight, own.bias].map(|param| self.plain(param, &[cols]));
        let [mean, var] = [own.mean, own.var].map(|statistic| self.statistic(self.tape.place_of(statistic)));
        let inputs = [x, weight, bias, mean, var];
        let attributes = vec![Attribute::float("epsilon", own.eps)];
        let mut y = self.graph.node("BatchNormalization", &inputs.each_ref().map(String::as_str), attributes);
        if let Some(shortcut) = shortcut {
            let shortcut = self.get(shortcut, image);
            y = self.graph.two("Add", &y, &shortcut);
        }
        if let Some(kind) = activation {
            y = self.pointwise(&y, kind);
        }
        self.set(out, image, y);
    }

    fn group_norm(&mut self, [inp, out]: [Act; 2], own: [ParamRef; 2], groups: usize, eps: f32, relu: bool) {
        let x = self.image(inp);
        let Shape { height, width, cols, .. } = self.shape(inp);
        let grouped = self.graph.reshape(&x, &[0, groups as i64, -1]);
        let [ones, zeros] = [1.0, 0.0].map(|value| {
            self.graph.constant(format!("{groups} of {value}"), &[groups], Data::F32(vec![value; groups]))
        });
        let attributes = vec![Attribute::float("epsilon", eps)];
        let y = self.graph.node("InstanceNormalization", &[&grouped, &ones, &zeros], attributes);
        let y = self.graph.reshape(&y, &[0, cols as i64, height as i64, width as i64]);
        let [weight, bias] = own.map(|param| self.per_channel(param, true));
        let y = self.graph.two("Mul", &y, &weight);
        let y = self.graph.two("Add", &y, &bias);
        let y = if relu { self.graph.one("Relu", &y) } else { y };
        self.set_image(out, y);
    }

    /// `inp·(1 + weight·s) + bias`, `s` each channel's norm over the pixels beside the mean norm.
    fn grn(&mut self, [inp, out]: [Act; 2], [weight, bias]: [ParamRef; 2], eps: f32) {
        let image = self.as_images(&[inp]);
        let x = if image { self.image(inp) } else { self.tokens(inp) };
        let (pixels, channels): (&[i64], _) = if image { (&[2, 3], 1) } else { (&[1], 2) };
        let norm = self.graph.reduce("ReduceL2", &x, pixels);
        let mean = self.graph.reduce("ReduceMean", &norm, &[channels]);
        let mean = self.graph.by("Add", &mean, eps);
        let share = self.graph.two("Div", &norm, &mean);
        let [weight, bias] = [weight, bias].map(|param| self.per_channel(param, image));
        let share = self.graph.two("Mul", &share, &weight);
        let scale = self.graph.by("Add", &share, 1.0);
        let y = self.graph.two("Mul", &x, &scale);
        let y = self.graph.two("Add", &y, &bias);
        if image { self.set_image(out, y) } else { self.set_tokens(out, y) }
    }

    fn gate(&mut self, [inp, scale, out]: [Act; 3], kind: gate::Kind, shortcut: Option<Act>) {
        let image = self.as_images(&[inp]);
        let (x, scale) = match image {
            true => (self.image(inp), self.image(scale)),
            false => (self.tokens(inp), self.tokens(scale)),
        };
        let gate = match kind {
            gate::Kind::Sigmoid => self.graph.one("Sigmoid", &scale),
            gate::Kind::HardSigmoid => {
                let slope = vec![Attribute::float("alpha", 1.0 / 6.0), Attribute::float("beta", 0.5)];
                self.graph.node("HardSigmoid", &[&scale], slope)
            }
        };
        let mut y = self.graph.two("Mul", &x, &gate);
        if let Some(shortcut) = shortcut {
            let shortcut = if image { self.image(shortcut) } else { self.tokens(shortcut) };
            let sum = self.graph.two("Add", &y, &shortcut);
            y = self.graph.one("Relu", &sum);
        }
        if image { self.set_image(out, y) } else { self.set_tokens(out, y) }
    }

    fn max_pool(&mut self, inp: Act, out: Act, dims: max_pool::Dims) {
        let size = [dims.height, dims.width];
        let mut taps = windows(inp, dims.channels, size, dims.kernel, dims.stride, dims.padding);
        let mut x = self.image(inp);
        if dims.zeros {
            x = self.padded(&x, taps.pads, "constant");
            taps.pads = [0; 4];
        }
        let y = self.graph.node("MaxPool", &[&x], taps.attributes().into());
        self.set_image(out, y);
    }

    /// Pixels around an image: above, to the left, below and to the right.
    fn padded(&mut self, x: &str, pads: [usize; 4], mode: &str) -> String {
        if pads == [0; 4] {
            return x.to_string();
        }
        let [above, left, below, right] = pads.map(|pad| pad as i64);
        let pads = self.graph.ints(&[0, 0, above, left, 0, 0, below, right]);
        self.graph.node("Pad", &[x, &pads], vec![Attribute::text("mode", mode)])
    }

    fn avg_pool(&mut self, inp: Act, out: Act, dims: avg_pool::Dims) {
        let avg_pool::Dims { kernel, stride, padding, .. } = dims;
        let behind = |size, windows| after(size, padding, windows, kernel, stride);
        let pads = [padding, padding, behind(dims.height, dims.out_height()), behind(dims.width, dims.out_width())];
        let taps = Windows { of: inp, channels: dims.channels, kernel, stride, pads };
        let x = self.image(inp);
        // Pixels outside the image are not counted: the default.
        let y = self.graph.node("AveragePool", &[&x], taps.attributes().into());
        self.set_image(out, y);
    }

    fn blur(&mut self, inp: Act, out: Act, dims: blur::Dims) {
        let blur::Dims { channels, stride, filter, .. } = dims;
        let side = filter.side();
        let row = [side, 1.0 - 2.0 * side, side];
        let taps: Vec<f32> = row.iter().flat_map(|down| row.map(|across| (down * across) as f32)).collect();
        let values = taps.repeat(channels);
        let weight =
            self.graph.constant(format!("blur {filter:?} {channels}"), &[channels, 1, 3, 3], Data::F32(values));
        let behind = |size, windows| after(size, 1, windows, 3, stride);
        let pads = [1, 1, behind(dims.height, dims.out_height()), behind(dims.width, dims.out_width())];
        let x = self.image(inp);
        let (x, pads) = if filter.reflects() { (self.padded(&x, pads, "reflect"), [0; 4]) } else { (x, pads) };
        let taps = Windows { of: inp, channels, kernel: 3, stride, pads };
        let attributes = taps.attributes().into_iter().chain([Attribute::int("group", channels as i64)]).collect();
        let y = self.graph.node("Conv", &[&x, &weight], attributes);
        self.set_image(out, y);
    }

    fn split_attention(&mut self, inp: Act, logits: Act, out: Act, dims: split_attention::Dims) {
        let Shape { height, width, .. } = self.shape(out);
        let [channels, radix, groups, pixels] = [dims.channels, dims.radix, dims.groups, dims.pixels].map(|n| n as i64);
        let logits = self.rows(logits);
        let mut weights = logits;
        if groups > 1 {
            let apart = self.graph.reshape(&weights, &[0, groups, radix, channels / groups]);
            weights = self.graph.transpose(&apart, &[0, 2, 1, 3]);
        }
        let weights = self.graph.reshape(&weights, &[0, radix, channels, 1]);
        let weights = match radix {
            1 => self.graph.one("Sigmoid", &weights),
            _ => self.graph.node("Softmax", &[&weights], vec![Attribute::int("axis", 1)]),
        };
        let x = self.image(inp);
        let x = self.graph.reshape(&x, &[0, radix, channels, pixels]);
        let x = self.graph.two("Mul", &x, &weights);
        let sum = self.graph.reduce("ReduceSum", &x, &[1]);
        let y = self.graph.reshape(&sum, &[0, channels, height as i64, width as i64]);
        self.set_image(out, y);
    }
}
