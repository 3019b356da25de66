//! A network of these tests in f64, by the CPU references, forward alone.

use std::collections::HashMap;

use tpgm::cpu::depthwise::Padding;
use tpgm::cpu::matmul::matmul;
use tpgm::cpu::{attention, attention_pool, average, avg_pool, batch_norm, conv2d, gelu, l2_normalize, layer_norm};
use tpgm::cpu::{
    depthwise, eca, gate, grn, hard_swish, max_pool, patch_embed, pool, relu, relu6, residual, rms_norm, rope, silu,
    swiglu, unfold,
};
use tpgm::model::tape::Shape;
use tpgm::shapes::{Activation, Pointwise};

use crate::machine::{EPS, HEADS, Machine};
use crate::written::{LEARNED, PREFIX, angles};

pub const BATCH: usize = 2;
pub const SIZE: usize = 6;
pub const PATCH: usize = 2;
pub const COLS: usize = 8;

/// Goes through a network with these parameters and images.
pub struct Reference<'a> {
    pub params: &'a HashMap<String, Vec<f64>>,
    pub images: &'a [f64],
    values: Vec<(Shape, Vec<f64>)>,
}

impl<'a> Reference<'a> {
    pub fn new(params: &'a HashMap<String, Vec<f64>>, images: &'a [f64]) -> Reference<'a> {
        Reference { params, images, values: Vec::new() }
    }

    pub fn value(&self, x: usize) -> &[f64] {
        &self.values[x].1
    }

    fn param(&self, name: &str) -> &'a [f64] {
        self.params.get(name).unwrap_or_else(|| panic!("no parameter {name}"))
    }

    /// A value that `write` assigns: what it leaves out is NaN.
    fn push(&mut self, shape: Shape, write: impl FnOnce(&Self, &mut [f64])) -> usize {
        let mut out = vec![f64::NAN; shape.len()];
        write(self, &mut out);
        self.values.push((shape, out));
        self.values.len() - 1
    }

    fn product(&self, out: &mut [f64], inp: &[f64], name: &str, bias: bool) {
        let weight = self.param(&format!("{name}.weight"));
        let bias = bias.then(|| self.param(&format!("{name}.bias")));
        // rows·n and n·k are known, and rows·k.
        let (rn, nk, rk) = (out.len() as f64, weight.len() as f64, inp.len() as f64);
        let k = (nk * rk / rn).sqrt().round() as usize;
        matmul(out, inp, weight, bias, inp.len() / k, weight.len() / k, k, false, true, false, 1);
    }

    fn norm(&mut self, x: usize, name: &str, relu: bool, shortcut: Option<usize>) -> usize {
        let shape = self.shape(x);
        let (rows, cols) = (shape.rows(), shape.cols);
        self.push(shape, |m, out| {
            let [mut mean, mut var, mut rstd] = [0; 3].map(|_| vec![f64::NAN; cols]);
            let inp = m.value(x);
            batch_norm::statistics(&mut mean, &mut var, inp, rows, cols);
            let (weight, bias) = (m.param(&format!("{name}.weight")), m.param(&format!("{name}.bias")));
            let (shortcut, eps) = (shortcut.map(|x| m.value(x)), f64::from(EPS));
            batch_norm::normalise(out, &mut rstd, inp, &mean, &var, weight, bias, shortcut, relu, rows, cols, eps);
        })
    }

    fn convolved(&mut self, x: usize, name: &str, outputs: usize, groups: usize) -> usize {
        let Shape { batch, height, width, cols } = self.shape(x);
        let dims = conv2d::Dims {
            batch,
            height,
            width,
            in_channels: cols,
            out_channels: outputs,
            kernel: 3,
            stride: 1,
            padding: Padding::Even(1),
            groups,
        };
        let shape = self.shape(x).with_cols(outputs);
        self.push(shape, |m, out| conv2d::forward(out, m.value(x), m.param(&format!("{name}.weight")), dims))
    }
}

impl Machine for Reference<'_> {
    type V = usize;

    fn shape(&self, x: usize) -> Shape {
        self.values[x].0
    }

    fn embed(&mut self) -> usize {
        let count = (SIZE / PATCH).pow(2);
        let shape = Shape { batch: BATCH, height: count + PREFIX.tokens(), width: 1, cols: COLS };
        self.push(shape, |m, out| {
            let mut cols = vec![f64::NAN; BATCH * count * 3 * PATCH * PATCH];
            patch_embed::unfold(&mut cols, m.images, BATCH, 3, [SIZE; 2], PATCH);
            let mut patches = vec![f64::NAN; BATCH * count * COLS];
            m.product(&mut patches, &cols, "patches", true);
            let [positions, class, registers] = ["positions", "class", "registers"].map(|name| m.param(name));
            patch_embed::assemble(out, &patches, positions, class, registers, PREFIX, BATCH, count, COLS);
        })
    }

    fn pixels(&mut self) -> usize {
        let shape = Shape { batch: BATCH, height: SIZE, width: SIZE, cols: 3 };
        let x = self.push(shape, |m, out| conv2d::to_nhwc(out, m.images, BATCH, [3, 3], SIZE * SIZE, 3));
        self.convolved(x, "stem", COLS, 1)
    }

    fn norm(&mut self, x: usize, name: &str) -> usize {
        let shape = self.shape(x);
        let (rows, cols) = (shape.rows(), shape.cols);
        self.push(shape, |m, out| {
            let [mut mean, mut rstd] = [0; 2].map(|_| vec![f64::NAN; rows]);
            let (weight, bias) = (m.param(&format!("{name}.weight")), m.param(&format!("{name}.bias")));
            layer_norm::forward(out, &mut mean, &mut rstd, m.value(x), weight, bias, rows, cols, f64::from(EPS));
        })
    }

    fn linear(&mut self, x: usize, name: &str, n: usize, bias: bool) -> usize {
        self.push(self.shape(x).with_cols(n), |m, out| m.product(out, m.value(x), name, bias))
    }

    fn gelu(&mut self, x: usize, name: &str, n: usize, kind: Activation) -> usize {
        let hidden = self.linear(x, name, n, true);
        self.push(self.shape(hidden), |m, out| gelu::forward(out, m.value(hidden), kind))
    }

    fn onto(&mut self, stream: usize, x: usize, name: &str, scaled: bool) -> usize {
        let shape = self.shape(stream);
        let branch = self.linear(x, name, shape.cols, true);
        self.push(shape, |m, out| {
            let gamma = scaled.then(|| m.param(&format!("{name}.gamma")));
            residual::forward(out, m.value(stream), m.value(branch), gamma, shape.rows(), shape.cols);
        })
    }

    fn swiglu(&mut self, x: usize, _: &str) -> usize {
        let shape = self.shape(x).with_cols(self.shape(x).cols / 2);
        self.push(shape, |m, out| swiglu::forward(out, m.value(x), shape.rows(), shape.cols))
    }

    fn attention(&mut self, qkv: usize, _: &str) -> usize {
        let shape = self.shape(qkv).with_cols(self.shape(qkv).cols / 3);
        self.push(shape, |m, out| {
            let mut lse = vec![f64::NAN; shape.rows() * HEADS];
            attention::forward(out, &mut lse, m.value(qkv), BATCH, shape.height, HEADS, shape.cols / HEADS);
        })
    }

    fn rope(&mut self, qkv: usize, name: &str, learned: bool) -> usize {
        let shape = self.shape(qkv);
        let (tokens, prefix, head_dim) = (shape.height, PREFIX.tokens(), shape.cols / 3 / HEADS);
        let dims = rope::Dims { batch: BATCH, tokens, prefix, heads: HEADS, head_dim, halves: !learned };
        self.push(shape, |m, out| {
            let biases = ["q", "v"].map(|part| m.param(&format!("{name}.{part}.bias")));
            let table = match learned {
                true => rope::angles(m.param(&format!("{name}.freqs")), LEARNED, dims),
                false => angles().into_iter().map(f64::from).collect(),
            };
            rope::forward(out, m.value(qkv), Some(&table), Some(biases), dims);
        })
    }

    fn rms_norm(&mut self, x: usize, name: &str) -> usize {
        let shape = self.shape(x);
        self.push(shape, |m, out| {
            let mut rstd = vec![f64::NAN; shape.rows()];
            let weight = m.param(&format!("{name}.weight"));
            rms_norm::forward(out, &mut rstd, m.value(x), weight, shape.rows(), shape.cols, f64::from(EPS));
        })
    }

    fn swiglu_pair(&mut self, gate: usize, value: usize, _: &str) -> usize {
        self.push(self.shape(gate), |m, out| {
            swiglu::forward_pair(out, m.value(gate), m.value(value), swiglu::Gate::Silu)
        })
    }

    fn add(&mut self, stream: usize, branch: usize, name: &str, scaled: bool) -> usize {
        let shape = self.shape(stream);
        self.push(shape, |m, out| {
            let gamma = scaled.then(|| m.param(&format!("{name}.gamma")));
            residual::forward(out, m.value(stream), m.value(branch), gamma, shape.rows(), shape.cols);
        })
    }

    fn average(&mut self, a: usize, b: usize, _: &str) -> usize {
        self.push(self.shape(a), |m, out| average::forward(out, m.value(a), m.value(b)))
    }

    fn unit(&mut self, x: usize, _: &str) -> usize {
        let shape = self.shape(x);
        self.push(shape, |m, out| {
            let mut scale = vec![f64::NAN; shape.rows()];
            l2_normalize::forward(out, &mut scale, m.value(x), shape.rows(), shape.cols);
        })
    }

    fn project(&mut self, x: usize, name: &str, n: usize) -> usize {
        let shape = self.shape(x);
        self.push(shape.with_cols(n), |m, out| {
            let weight = m.param(&format!("{name}.weight"));
            matmul(out, m.value(x), weight, None, shape.rows(), n, shape.cols, false, false, false, 1);
        })
    }

    fn pool(&mut self, x: usize, _: &str, first: usize, count: usize) -> usize {
        let shape = self.shape(x);
        self.push(shape.pooled(shape.cols), |m, out| {
            pool::forward(out, m.value(x), first..first + count, BATCH, shape.pixels(), shape.cols);
        })
    }

    fn tokens_of_pixels(&mut self, x: usize, name: &str) -> usize {
        let pixels = self.shape(x);
        let shape = Shape { height: 1 + pixels.pixels(), width: 1, ..pixels };
        let dims = attention_pool::Dims { batch: BATCH, tokens: shape.height, heads: 1, head_dim: shape.cols };
        self.push(shape, |m, out| attention_pool::assemble(out, m.value(x), m.param(name), dims))
    }

    fn spread(&mut self, name: &str, cols: usize) -> usize {
        let shape = Shape { batch: BATCH, height: 1, width: 1, cols };
        self.push(shape, |m, out| out.chunks_mut(cols).for_each(|row| row.copy_from_slice(m.param(name))))
    }

    fn attend(&mut self, [q, k, v]: [usize; 3], _: &str) -> usize {
        let Shape { height: tokens, cols, .. } = self.shape(k);
        let dims = attention_pool::Dims { batch: BATCH, tokens, heads: HEADS, head_dim: cols / HEADS };
        self.push(self.shape(q), |m, out| {
            let mut prob = vec![f64::NAN; dims.prob_len()];
            attention_pool::forward(out, &mut prob, m.value(q), m.value(k), m.value(v), dims);
        })
    }

    fn conv(&mut self, x: usize, name: &str, outputs: usize, groups: usize) -> usize {
        self.convolved(x, name, outputs, groups)
    }

    fn batch_norm(&mut self, x: usize, name: &str, activation: Option<Pointwise>) -> usize {
        let x = Reference::norm(self, x, name, false, None);
        let through: fn(&mut [f64], &[f64]) = match activation {
            None => return x,
            Some(Pointwise::Relu) => relu::forward,
            Some(Pointwise::Relu6) => relu6::forward,
            Some(Pointwise::Silu) => silu::forward,
            Some(Pointwise::HardSwish) => hard_swish::forward,
            Some(Pointwise::Gelu) => |out, inp| gelu::forward(out, inp, Activation::Gelu),
        };
        self.push(self.shape(x), |m, out| through(out, m.value(x)))
    }

    fn batch_norm_onto(&mut self, shortcut: usize, x: usize, name: &str) -> usize {
        Reference::norm(self, x, name, true, Some(shortcut))
    }

    fn gate_onto(&mut self, shortcut: usize, x: usize, name: &str, neighbours: bool) -> usize {
        let shape = self.shape(x);
        let pooled = Machine::pool(self, x, "", 0, shape.pixels());
        let scale = if neighbours {
            self.push(self.shape(pooled), |m, out| {
                eca::forward(out, m.value(pooled), m.param(&format!("{name}.eca.weight")), BATCH, shape.cols);
            })
        } else {
            let h = Machine::linear(self, pooled, &format!("{name}.fc1"), 3, true);
            let h = self.push(self.shape(h), |m, out| relu::forward(out, m.value(h)));
            Machine::linear(self, h, &format!("{name}.fc2"), shape.cols, true)
        };
        self.push(shape, |m, out| {
            let shortcut = Some(m.value(shortcut));
            gate::forward(
                out,
                m.value(x),
                m.value(scale),
                shortcut,
                true,
                gate::Kind::Sigmoid,
                BATCH,
                shape.pixels(),
                shape.cols,
            );
        })
    }

    fn gate(&mut self, x: usize, name: &str) -> usize {
        let shape = self.shape(x);
        let pooled = Machine::pool(self, x, "", 0, shape.pixels());
        let scale = Machine::linear(self, pooled, name, shape.cols, true);
        self.push(shape, |m, out| {
            let (kind, rows) = (gate::Kind::HardSigmoid, shape.pixels());
            gate::forward(out, m.value(x), m.value(scale), None, false, kind, BATCH, rows, shape.cols);
        })
    }

    fn depthwise(&mut self, x: usize, name: &str) -> usize {
        let Shape { batch, height, width, cols: channels } = self.shape(x);
        let padding = depthwise::Padding::Even(2);
        let dims = depthwise::Dims { batch, height, width, channels, kernel: 5, stride: 1, padding };
        self.push(self.shape(x), |m, out| {
            let (weight, bias) = (m.param(&format!("{name}.weight")), m.param(&format!("{name}.bias")));
            depthwise::forward(out, m.value(x), weight, Some(bias), dims);
        })
    }

    fn windows(&mut self, x: usize, name: &str) -> usize {
        let shape = self.shape(x);
        let Shape { batch, height, width, cols: channels } = shape;
        let dims =
            unfold::Dims { batch, height, width, channels, kernel: 3, stride: 1, padding: depthwise::Padding::Even(1) };
        let windows = self.push(shape.with_cols(9 * channels), |m, out| unfold::forward(out, m.value(x), dims));
        Machine::linear(self, windows, name, channels, true)
    }

    fn grn(&mut self, x: usize, name: &str) -> usize {
        let shape = self.shape(x);
        self.push(shape, |m, out| {
            let (mut norm, mut inverse) = (vec![f64::NAN; BATCH * shape.cols], vec![f64::NAN; BATCH]);
            let (weight, bias) = (m.param(&format!("{name}.weight")), m.param(&format!("{name}.bias")));
            let (eps, rows) = (f64::from(EPS), shape.pixels());
            grn::forward(out, &mut norm, &mut inverse, m.value(x), weight, bias, eps, BATCH, rows, shape.cols);
        })
    }

    fn max_pool(&mut self, x: usize, _: &str, stride: usize) -> usize {
        let Shape { batch, height, width, cols: channels } = self.shape(x);
        let dims = max_pool::Dims {
            batch,
            height,
            width,
            channels,
            kernel: 3,
            stride,
            padding: Padding::Even(1),
            zeros: false,
        };
        let shape = Shape { height: dims.out_height(), width: dims.out_width(), ..self.shape(x) };
        self.push(shape, |m, out| {
            let mut tap = vec![0; out.len()];
            max_pool::forward(out, &mut tap, m.value(x), dims);
        })
    }

    fn avg_pool(&mut self, x: usize, _: &str, ceil_mode: bool) -> usize {
        let Shape { batch, height, width, cols: channels } = self.shape(x);
        let dims = avg_pool::Dims { batch, height, width, channels, kernel: 2, stride: 2, padding: 0, ceil_mode };
        let shape = Shape { height: dims.out_height(), width: dims.out_width(), ..self.shape(x) };
        self.push(shape, |m, out| avg_pool::forward(out, m.value(x), dims))
    }

    fn segment(&mut self, write: impl FnOnce(&mut Self) -> usize) -> usize {
        write(self)
    }

    fn aside(&mut self, write: impl FnOnce(&mut Self) -> usize) -> usize {
        write(self)
    }

    fn recall(&mut self) {}
}
