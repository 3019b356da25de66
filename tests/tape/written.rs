//! A network of these tests, written on a tape.

use tpgm::gpu::buffer::Element;
use tpgm::model::layers::{ConvParams, DepthwiseParams, EmbedParams, TokenParams, Turns};
use tpgm::model::rope::{Angles, Rope};
use tpgm::model::tape::{Act, Network, ParamRef, Shape, Tape};
use tpgm::ops::depthwise::Padding;
use tpgm::ops::gate::Kind;
use tpgm::ops::rope::Learned;
use tpgm::ops::swiglu::Gate;
use tpgm::shapes::Prefix;
use tpgm::shapes::{Activation, Pointwise};

use crate::machine::{EPS, HEADS, Machine, Net};
use crate::reference::{COLS, PATCH, SIZE};

/// The prefix of the tests' tokens.
pub const PREFIX: Prefix = Prefix { class_token: true, registers: 1, class_position: true, register_positions: false };

/// Blocks that learn angles, and which of them a network's are.
pub const BLOCKS: usize = 2;
pub const LEARNED: Learned = Learned { block: 1, blocks: BLOCKS, grid: SIZE / PATCH, transposed: true };

/// Fixed angles of the grid.
pub fn angles() -> Vec<f32> {
    let angles = Angles::Axial { offset: 1.0, reference: Some(2) };
    let rope = Rope { angles, temperature: 10.0, transposed: false, halves: true };
    rope.table(SIZE / PATCH, COLS / HEADS).expect("fixed angles")
}

impl Network for Net {
    fn forward(&self, t: &mut Tape) -> Act {
        self.run(t)
    }
}

// A tape's own methods come before those of this trait.
impl Machine for Tape {
    type V = Act;

    fn shape(&self, x: Act) -> Shape {
        self.shape(x)
    }

    fn embed(&mut self) -> Act {
        let t = self;
        let images = t.images(SIZE);
        let rows = (SIZE / PATCH).pow(2) + PREFIX.positions();
        let class_token = Some(t.param("class", &[COLS]));
        let registers = Some(t.param("registers", &[PREFIX.registers, COLS]));
        let positions = Some(t.param("positions", &[rows, COLS]));
        let projection = t.linear_params("patches", COLS, 3 * PATCH * PATCH, true);
        let tokens = TokenParams { class_token, registers, positions, prefix: PREFIX };
        t.patch_embed(images, "tokens", EmbedParams { tokens, projection, channels: 3, patch: PATCH, dim: COLS })
    }

    fn pixels(&mut self) -> Act {
        let images = self.images(SIZE);
        let x = self.pixels(images, "pixels", 3);
        let weight = self.param("stem.weight", &[COLS, 3, 3, 3]);
        self.conv2d(x, "stem", convolution(weight, 3, COLS, 1))
    }

    fn norm(&mut self, x: Act, name: &str) -> Act {
        self.layer_norm(x, name, EPS, Element::Word)
    }

    fn linear(&mut self, x: Act, name: &str, n: usize, bias: bool) -> Act {
        let layer = self.linear_params(name, n, self.shape(x).cols, bias);
        self.linear(x, name, layer, Element::Word)
    }

    fn gelu(&mut self, x: Act, name: &str, n: usize, kind: Activation) -> Act {
        let layer = self.linear_params(name, n, self.shape(x).cols, true);
        self.linear_gelu(x, name, layer, kind)
    }

    fn onto(&mut self, stream: Act, x: Act, name: &str, scaled: bool) -> Act {
        let cols = self.shape(stream).cols;
        let layer = self.linear_params(name, cols, self.shape(x).cols, true);
        let gamma = scaled.then(|| self.param(&format!("{name}.gamma"), &[cols]));
        self.linear_onto(stream, x, name, layer, gamma)
    }

    fn swiglu(&mut self, x: Act, name: &str) -> Act {
        self.swiglu(x, name)
    }

    fn attention(&mut self, qkv: Act, name: &str) -> Act {
        self.attention(qkv, name, HEADS)
    }

    fn rope(&mut self, qkv: Act, name: &str, learned: bool) -> Act {
        let cols = self.shape(qkv).cols / 3;
        let biases = ["q", "v"].map(|part| self.param(&format!("{name}.{part}.bias"), &[cols]));
        let turns = match learned {
            true => {
                let freqs = self.param(&format!("{name}.freqs"), &[2, BLOCKS, HEADS, cols / HEADS / 2]);
                Turns::Learned { freqs, of: LEARNED }
            }
            false => Turns::Table { values: self.constant(&format!("{name}.constant"), angles()), halves: true },
        };
        self.rope(qkv, name, HEADS, PREFIX.tokens(), Some(turns), Some(biases))
    }

    fn rms_norm(&mut self, x: Act, name: &str) -> Act {
        self.rms_norm(x, name, EPS, Element::Word)
    }

    fn swiglu_pair(&mut self, gate: Act, value: Act, name: &str) -> Act {
        self.swiglu_pair(gate, value, name, Gate::Silu)
    }

    fn add(&mut self, stream: Act, branch: Act, name: &str, scaled: bool) -> Act {
        let gamma = scaled.then(|| self.param(&format!("{name}.gamma"), &[self.shape(stream).cols]));
        self.add(stream, branch, name, gamma)
    }

    fn average(&mut self, a: Act, b: Act, name: &str) -> Act {
        self.average(a, b, name)
    }

    fn unit(&mut self, x: Act, name: &str) -> Act {
        self.unit_length(x, name)
    }

    fn project(&mut self, x: Act, name: &str, n: usize) -> Act {
        let weight = self.param(&format!("{name}.weight"), &[self.shape(x).cols, n]);
        self.projection(x, name, weight)
    }

    fn pool(&mut self, x: Act, name: &str, first: usize, count: usize) -> Act {
        self.pool(x, name, first, count, Element::Word)
    }

    fn tokens_of_pixels(&mut self, x: Act, name: &str) -> Act {
        let shape = self.shape(x);
        let positions = self.param(name, &[1 + shape.pixels(), shape.cols]);
        self.tokens_of_pixels(x, &format!("{name}.tokens"), positions)
    }

    fn spread(&mut self, name: &str, cols: usize) -> Act {
        let latent = self.param(name, &[cols]);
        self.spread(latent, &format!("{name}.query"))
    }

    fn attend(&mut self, qkv: [Act; 3], name: &str) -> Act {
        self.attend(qkv, name, HEADS)
    }

    fn conv(&mut self, x: Act, name: &str, outputs: usize, groups: usize) -> Act {
        let inputs = self.shape(x).cols;
        let weight = self.param(&format!("{name}.weight"), &[outputs, inputs / groups, 3, 3]);
        self.conv2d(x, name, convolution(weight, inputs, outputs, groups))
    }

    fn batch_norm(&mut self, x: Act, name: &str, activation: Option<Pointwise>) -> Act {
        let norm = self.batch_norm_params(name, self.shape(x).cols, EPS, 0.1);
        self.batch_norm_then(x, name, norm, activation)
    }

    fn batch_norm_onto(&mut self, shortcut: Act, x: Act, name: &str) -> Act {
        let norm = self.batch_norm_params(name, self.shape(x).cols, EPS, 0.1);
        self.batch_norm_onto(shortcut, x, name, norm)
    }

    fn gate_onto(&mut self, shortcut: Act, x: Act, name: &str, neighbours: bool) -> Act {
        let shape = self.shape(x);
        let pooled = self.pool(x, &format!("{name}.pool"), 0, shape.pixels(), Element::Word);
        let scale = if neighbours {
            let weight = self.param(&format!("{name}.eca.weight"), &[3]);
            self.eca(pooled, &format!("{name}.eca"), weight)
        } else {
            let [fc1, fc2] = ["fc1", "fc2"].map(|layer| format!("{name}.{layer}"));
            let layer = self.pointwise_params(&fc1, 3, shape.cols, true);
            let h = self.linear(pooled, &fc1, layer, Element::Word);
            let h = self.activation(h, &format!("{name}.relu"), Pointwise::Relu);
            let layer = self.pointwise_params(&fc2, shape.cols, 3, true);
            self.linear(h, &fc2, layer, Element::Word)
        };
        self.gate_onto(shortcut, x, scale, name)
    }

    fn gate(&mut self, x: Act, name: &str) -> Act {
        let shape = self.shape(x);
        let pooled = self.pool(x, &format!("{name}.pool"), 0, shape.pixels(), Element::Word);
        let layer = self.linear_params(name, shape.cols, shape.cols, true);
        let scale = self.linear(pooled, &format!("{name}.scale"), layer, Element::Word);
        self.gate(x, scale, name, Kind::HardSigmoid)
    }

    fn depthwise(&mut self, x: Act, name: &str) -> Act {
        let cols = self.shape(x).cols;
        let weight = self.param(&format!("{name}.weight"), &[cols, 1, 5, 5]);
        let bias = Some(self.param(&format!("{name}.bias"), &[cols]));
        let (kernel, stride, padding) = (5, 1, Padding::Even(2));
        self.depthwise(x, name, DepthwiseParams { weight, bias, kernel, stride, padding })
    }

    fn windows(&mut self, x: Act, name: &str) -> Act {
        let cols = self.shape(x).cols;
        let layer = self.linear_params(name, cols, 9 * cols, true);
        let windows = self.unfold(x, &format!("{name}.windows"), cols, (3, 1, Padding::Even(1)), Element::Word);
        self.linear(windows, name, layer, Element::Word)
    }

    fn grn(&mut self, x: Act, name: &str) -> Act {
        let cols = self.shape(x).cols;
        let [weight, bias] = ["weight", "bias"].map(|what| self.param(&format!("{name}.{what}"), &[cols]));
        self.grn(x, name, weight, bias, EPS)
    }

    fn max_pool(&mut self, x: Act, name: &str, stride: usize) -> Act {
        self.max_pool(x, name, (3, stride, Padding::Even(1)), false)
    }

    fn avg_pool(&mut self, x: Act, name: &str, ceil_mode: bool) -> Act {
        self.avg_pool(x, name, 2, ceil_mode)
    }

    fn segment(&mut self, write: impl FnOnce(&mut Self) -> Act) -> Act {
        self.segment(write)
    }

    fn aside(&mut self, write: impl FnOnce(&mut Self) -> Act) -> Act {
        self.aside(write)
    }

    fn recall(&mut self) {
        self.recall();
    }
}

fn convolution(weight: ParamRef, inputs: usize, outputs: usize, groups: usize) -> ConvParams {
    ConvParams { weight, inputs, outputs, kernel: 3, stride: 1, padding: Padding::Even(1), groups }
}
