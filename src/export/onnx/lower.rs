//! Each operation of the tape as nodes: those of pixels are in `pixels`, those of tokens in `tokens`.

use super::proto::Attribute;
use super::writer::Writer;
use crate::error::Result;
use crate::model::operation::{LinearEnd, Operation};
use crate::model::tape::{Act, ParamRef};
use crate::ops::swiglu;
use crate::shapes::{Activation, Pointwise};

impl Writer<'_> {
    /// Writes an operation.
    ///
    /// # Errors
    /// Where a weight does not fit the format that was asked for.
    pub(super) fn write(&mut self, operation: Operation) -> Result<()> {
        if let Some(out) = operation.result() {
            let label = self.tape.label(out).to_string();
            self.graph.enter(&label);
        }
        match operation {
            Operation::Nothing => {}
            Operation::Activation { inp, out, kind } => {
                let image = self.as_images(&[inp]);
                let x = self.get(inp, image);
                let y = self.pointwise(&x, kind);
                self.set(out, image, y);
            }
            Operation::Add { stream, branch, gamma, out } => {
                let image = self.as_images(&[stream, branch]);
                let branch = self.get(branch, image);
                self.onto(&branch, stream, gamma, out, image);
            }
            Operation::Average { inputs: [a, b], out } => {
                let image = self.as_images(&[a, b]);
                let [a, b] = [a, b].map(|act| self.get(act, image));
                let sum = self.graph.two("Add", &a, &b);
                let half = self.graph.by("Mul", &sum, 0.5);
                self.set(out, image, half);
            }
            Operation::Linear { inp, out, weight, bias, end } => self.linear(inp, out, weight, bias, end)?,
            Operation::Projection { inp, out, weight } => {
                let cols = self.shape(out).cols;
                let x = self.rows(inp);
                let dims = [self.shape(inp).cols, cols];
                let weight = self.product(weight, true, cols, (&dims, 1, false))?;
                let y = self.graph.two("MatMul", &x, &weight);
                self.set_rows(out, y);
            }
            Operation::SwiGlu { inp, out } => {
                let half = self.shape(out).cols;
                let image = self.as_images(&[inp]);
                let x = self.get(inp, image);
                let axis = if image { 1 } else { -1 };
                let [gate, value] = [0, half].map(|first| self.graph.slice(&x, axis, first, half));
                let gate = self.pointwise(&gate, Pointwise::Silu);
                let y = self.graph.two("Mul", &gate, &value);
                self.set(out, image, y);
            }
            Operation::Gated { gate, value, out, by } => {
                let image = self.as_images(&[gate, value]);
                let [gate, value] = [gate, value].map(|act| self.get(act, image));
                let gate = match by {
                    swiglu::Gate::Plain => gate,
                    swiglu::Gate::Silu => self.pointwise(&gate, Pointwise::Silu),
                };
                let y = self.graph.two("Mul", &gate, &value);
                self.set(out, image, y);
            }
            Operation::Slice { inp, out, first, count } => {
                let image = self.as_images(&[inp]);
                let x = self.get(inp, image);
                let y = self.graph.slice(&x, if image { 1 } else { -1 }, first, count);
                self.set(out, image, y);
            }
            Operation::Beside { parts, out } => {
                let image = self.as_images(&parts);
                let parts: Vec<String> = parts.iter().map(|part| self.get(*part, image)).collect();
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                let y = self.graph.concat(&parts, if image { 1 } else { -1 });
                self.set(out, image, y);
            }
            pixels @ (Operation::AvgPool { .. }
            | Operation::BatchNorm { .. }
            | Operation::Bias { .. }
            | Operation::Blur { .. }
            | Operation::Conv { .. }
            | Operation::Depthwise { .. }
            | Operation::Eca { .. }
            | Operation::Gate { .. }
            | Operation::Grn { .. }
            | Operation::GroupNorm { .. }
            | Operation::MaxPool { .. }
            | Operation::Pixels { .. }
            | Operation::SplitAttention { .. }
            | Operation::Unfold { .. }) => self.write_pixels(pixels)?,
            tokens => self.write_tokens(tokens)?,
        }
        Ok(())
    }

    /// `out = stream + gamma·branch`
    fn onto(&mut self, branch: &str, stream: Act, gamma: Option<ParamRef>, out: Act, image: bool) {
        let stream = self.get(stream, image);
        let branch = match gamma {
            Some(gamma) => {
                let gamma = self.per_channel(gamma, image);
                self.graph.two("Mul", branch, &gamma)
            }
            None => branch.to_string(),
        };
        let sum = self.graph.two("Add", &stream, &branch);
        self.set(out, image, sum);
    }

    /// A linear layer: a convolution if it reads windows or an image, else a product.
    fn linear(&mut self, inp: Act, out: Act, weight: ParamRef, bias: Option<ParamRef>, end: LinearEnd) -> Result<()> {
        let (inputs, outputs) = (self.shape(inp).cols, self.shape(out).cols);
        let windows = self.windows(inp);
        let image = windows.is_some() || self.as_images(&[inp]);
        let y = match (windows, image) {
            (Some(windows), _) => {
                let dims = [outputs, windows.channels, windows.kernel, windows.kernel];
                let weight = self.product(weight, false, outputs, (&dims, 0, false))?;
                let bias = bias.map(|bias| self.plain(bias, &[outputs]));
                self.convolve(windows, &weight, bias.as_deref(), 1)
            }
            (None, true) => {
                let x = self.image(inp);
                let weight = self.product(weight, false, outputs, (&[outputs, inputs, 1, 1], 0, false))?;
                let bias = bias.map(|bias| self.plain(bias, &[outputs]));
                let inputs: Vec<&str> = [x.as_str(), weight.as_str()].into_iter().chain(bias.as_deref()).collect();
                self.graph.node("Conv", &inputs, vec![Attribute::ints("kernel_shape", &[1, 1])])
            }
            (None, false) => {
                let x = self.rows(inp);
                let weight = self.product(weight, false, outputs, (&[inputs, outputs], 1, true))?;
                let y = self.graph.two("MatMul", &x, &weight);
                match bias {
                    Some(bias) => {
                        let bias = self.plain(bias, &[outputs]);
                        self.graph.two("Add", &y, &bias)
                    }
                    None => y,
                }
            }
        };
        match end {
            LinearEnd::Plain => self.set(out, image, y),
            LinearEnd::Through(kind) => {
                let y = self.activation(&y, kind);
                self.set(out, image, y);
            }
            LinearEnd::Onto { stream, gamma } => {
                self.onto(&y, stream, gamma, out, image);
            }
        }
        Ok(())
    }

    /// An MLP's activation that has no gate.
    fn activation(&mut self, x: &str, kind: Activation) -> String {
        match kind {
            Activation::Gelu => self.pointwise(x, Pointwise::Gelu),
            Activation::GeluTanh => {
                let square = self.graph.two("Mul", x, x);
                let cube = self.graph.two("Mul", &square, x);
                let cube = self.graph.by("Mul", &cube, 0.044715);
                let sum = self.graph.two("Add", x, &cube);
                let sum = self.graph.by("Mul", &sum, (2.0 / std::f64::consts::PI).sqrt() as f32);
                let tanh = self.graph.one("Tanh", &sum);
                self.half_of(x, &tanh)
            }
            Activation::QuickGelu => {
                let scaled = self.graph.by("Mul", x, 1.702);
                let gate = self.graph.one("Sigmoid", &scaled);
                self.graph.two("Mul", x, &gate)
            }
            Activation::SwiGlu | Activation::GeGlu => unreachable!("a gate is an operation of its own"),
        }
    }

    /// `x·(1 + by)/2`
    fn half_of(&mut self, x: &str, by: &str) -> String {
        let sum = self.graph.by("Add", by, 1.0);
        let product = self.graph.two("Mul", x, &sum);
        self.graph.by("Mul", &product, 0.5)
    }

    pub(super) fn pointwise(&mut self, x: &str, kind: Pointwise) -> String {
        match kind {
            Pointwise::Relu => self.graph.one("Relu", x),
            Pointwise::Relu6 => {
                let [low, high] = [0.0, 6.0].map(|bound| self.graph.float(bound));
                self.graph.node("Clip", &[x, &low, &high], vec![])
            }
            Pointwise::Silu => {
                let gate = self.graph.one("Sigmoid", x);
                self.graph.two("Mul", x, &gate)
            }
            Pointwise::HardSwish => self.graph.one("HardSwish", x),
            Pointwise::Gelu => {
                let scaled = self.graph.by("Div", x, std::f32::consts::SQRT_2);
                let erf = self.graph.one("Erf", &scaled);
                self.half_of(x, &erf)
            }
        }
    }
}
