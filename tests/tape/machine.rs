//! What a network of these tests is made of, whether a tape or the f64 reference goes through it.

use tpgm::model::tape::Shape;
use tpgm::shapes::{Activation, Pointwise};

pub const CLASSES: usize = 3;
pub const HEADS: usize = 2;
pub const EPS: f32 = 1e-2;

/// The layers that a network may have. Names are those of parameters.
pub trait Machine: Sized {
    type V: Copy;
    fn shape(&self, x: Self::V) -> Shape;
    fn embed(&mut self) -> Self::V;
    fn pixels(&mut self) -> Self::V;
    fn norm(&mut self, x: Self::V, name: &str) -> Self::V;
    fn linear(&mut self, x: Self::V, name: &str, n: usize, bias: bool) -> Self::V;
    fn gelu(&mut self, x: Self::V, name: &str, n: usize, kind: Activation) -> Self::V;
    fn onto(&mut self, stream: Self::V, x: Self::V, name: &str, scaled: bool) -> Self::V;
    fn swiglu(&mut self, x: Self::V, name: &str) -> Self::V;
    fn attention(&mut self, qkv: Self::V, name: &str) -> Self::V;
    /// Query, key and value turned by fixed angles, or by learned ones, with biases of query and value.
    fn rope(&mut self, qkv: Self::V, name: &str, learned: bool) -> Self::V;
    fn rms_norm(&mut self, x: Self::V, name: &str) -> Self::V;
    fn swiglu_pair(&mut self, gate: Self::V, value: Self::V, name: &str) -> Self::V;
    fn add(&mut self, stream: Self::V, branch: Self::V, name: &str, scaled: bool) -> Self::V;
    fn average(&mut self, a: Self::V, b: Self::V, name: &str) -> Self::V;
    fn unit(&mut self, x: Self::V, name: &str) -> Self::V;
    fn project(&mut self, x: Self::V, name: &str, n: usize) -> Self::V;
    fn pool(&mut self, x: Self::V, name: &str, first: usize, count: usize) -> Self::V;
    fn tokens_of_pixels(&mut self, x: Self::V, name: &str) -> Self::V;
    fn spread(&mut self, name: &str, cols: usize) -> Self::V;
    fn attend(&mut self, qkv: [Self::V; 3], name: &str) -> Self::V;
    fn conv(&mut self, x: Self::V, name: &str, outputs: usize, groups: usize) -> Self::V;
    fn batch_norm(&mut self, x: Self::V, name: &str, activation: Option<Pointwise>) -> Self::V;
    fn batch_norm_onto(&mut self, shortcut: Self::V, x: Self::V, name: &str) -> Self::V;
    fn gate_onto(&mut self, shortcut: Self::V, x: Self::V, name: &str, neighbours: bool) -> Self::V;
    fn gate(&mut self, x: Self::V, name: &str) -> Self::V;
    fn depthwise(&mut self, x: Self::V, name: &str) -> Self::V;
    fn windows(&mut self, x: Self::V, name: &str) -> Self::V;
    fn grn(&mut self, x: Self::V, name: &str) -> Self::V;
    fn max_pool(&mut self, x: Self::V, name: &str, stride: usize) -> Self::V;
    fn avg_pool(&mut self, x: Self::V, name: &str, ceil_mode: bool) -> Self::V;
    fn segment(&mut self, write: impl FnOnce(&mut Self) -> Self::V) -> Self::V;
    fn aside(&mut self, write: impl FnOnce(&mut Self) -> Self::V) -> Self::V;
    fn recall(&mut self);
}

/// A step of a network: from values before it, by their places, to one of the same shape.
#[derive(Clone, Debug)]
pub enum Op {
    Norm(usize),
    Linear(usize),
    /// Two linear layers with an activation between; if `twice`, a norm reads the activation, too.
    Mlp {
        inp: usize,
        kind: Activation,
        twice: bool,
    },
    Gated(usize),
    Attention(usize),
    /// The same, with biases of query and value, and turned by fixed angles or by learned ones.
    Turned {
        inp: usize,
        learned: bool,
    },
    RmsNorm(usize),
    /// A gate of two linear layers.
    Pair(usize),
    Add {
        stream: usize,
        branch: usize,
        scaled: bool,
    },
    /// A linear layer added to a stream.
    Onto {
        stream: usize,
        inp: usize,
        scaled: bool,
    },
    Average(usize, usize),
    Unit(usize),
    Project(usize),
    Conv {
        inp: usize,
        grouped: bool,
    },
    BatchNorm {
        inp: usize,
        activation: Option<Pointwise>,
    },
    /// relu(norm(conv(inp)) + shortcut), whose shortcut may have a convolution of its own, put aside.
    Join {
        shortcut: usize,
        inp: usize,
        own: bool,
    },
    MaxPool(usize),
    /// The value itself, each channel times a gate.
    Weighed(usize),
    Depthwise(usize),
    /// A convolution as a linear layer over windows.
    Windows(usize),
    Grn(usize),
    /// relu(conv(inp)·gate + shortcut), the gate from two linear layers, or from neighbouring channels.
    Gate {
        shortcut: usize,
        inp: usize,
        neighbours: bool,
    },
    /// Steps that see the values before; only the last one's result is seen behind.
    Segment(Vec<Op>),
}

/// How images become the first value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    Patches,
    Pixels,
}

/// How the last value becomes features.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Mean,
    /// The first and the second token, each with a head: the mean of both.
    TwoHeads,
    /// A learned query's attention.
    Learned,
    /// The mean's attention, behind pools that halve the pixels.
    Clip,
}

#[derive(Clone, Debug)]
pub struct Net {
    pub start: Start,
    pub ops: Vec<Op>,
    pub end: End,
}

impl Net {
    pub fn run<M: Machine>(&self, m: &mut M) -> M::V {
        let first = match self.start {
            Start::Patches => m.embed(),
            Start::Pixels => m.pixels(),
        };
        let mut values = vec![first];
        steps(m, &self.ops, &mut values, "");
        let last = *values.last().unwrap();
        let features = match self.end {
            End::Mean => m.pool(last, "mean", 0, m.shape(last).pixels()),
            End::TwoHeads => {
                let first = m.aside(|m| m.pool(last, "first", 0, 1));
                let second = m.pool(last, "second", 1, 1);
                m.recall();
                let first = m.linear(first, "head", CLASSES, true);
                let second = m.linear(second, "second head", CLASSES, true);
                return m.average(first, second, "both");
            }
            End::Learned => {
                let cols = m.shape(last).cols;
                let query = m.aside(|m| {
                    let query = m.spread("latent", cols);
                    m.linear(query, "q", cols, true)
                });
                self.attend(m, query, last)
            }
            End::Clip => {
                let smaller = m.max_pool(last, "max", 2);
                let smaller = m.avg_pool(smaller, "avg", true);
                let tokens = m.tokens_of_pixels(smaller, "positions");
                let query = m.aside(|m| {
                    let query = m.pool(tokens, "query", 0, 1);
                    let cols = m.shape(query).cols;
                    m.linear(query, "q", cols, true)
                });
                self.attend(m, query, tokens)
            }
        };
        m.linear(features, "head", CLASSES, true)
    }

    fn attend<M: Machine>(&self, m: &mut M, query: M::V, x: M::V) -> M::V {
        let cols = m.shape(x).cols;
        let k = m.aside(|m| m.linear(x, "k", cols, true));
        let v = m.linear(x, "v", cols, true);
        m.recall();
        m.attend([query, k, v], "attended")
    }
}

fn steps<M: Machine>(m: &mut M, ops: &[Op], values: &mut Vec<M::V>, scope: &str) {
    for (i, op) in ops.iter().enumerate() {
        let name = |what: &str| format!("{scope}{i}.{what}");
        let cols = m.shape(values[0]).cols;
        let value = match op {
            Op::Norm(x) => m.norm(values[*x], &name("norm")),
            Op::Linear(x) => m.linear(values[*x], &name("linear"), cols, false),
            Op::Mlp { inp, kind, twice } => {
                let h = m.gelu(values[*inp], &name("fc1"), 2 * cols, *kind);
                let out = m.linear(h, &name("fc2"), cols, true);
                if *twice {
                    let other = m.norm(h, &name("norm"));
                    let other = m.linear(other, &name("fc3"), cols, true);
                    m.average(out, other, &name("average"))
                } else {
                    out
                }
            }
            Op::Gated(x) => {
                let h = m.linear(values[*x], &name("fc1"), 4 * cols, true);
                let h = m.swiglu(h, &name("gate"));
                m.linear(h, &name("fc2"), cols, true)
            }
            Op::Attention(x) => {
                let qkv = m.linear(values[*x], &name("qkv"), 3 * cols, true);
                m.attention(qkv, &name("attention"))
            }
            Op::Turned { inp, learned } => {
                let qkv = m.linear(values[*inp], &name("qkv"), 3 * cols, false);
                let qkv = m.rope(qkv, &name("rope"), *learned);
                m.attention(qkv, &name("attention"))
            }
            Op::RmsNorm(x) => m.rms_norm(values[*x], &name("norm")),
            Op::Pair(x) => {
                let [gate, value] = ["gate", "value"].map(|what| m.linear(values[*x], &name(what), 2 * cols, true));
                let h = m.swiglu_pair(gate, value, &name("pair"));
                m.linear(h, &name("fc2"), cols, true)
            }
            Op::Add { stream, branch, scaled } => m.add(values[*stream], values[*branch], &name("add"), *scaled),
            Op::Onto { stream, inp, scaled } => m.onto(values[*stream], values[*inp], &name("onto"), *scaled),
            Op::Average(a, b) => m.average(values[*a], values[*b], &name("average")),
            Op::Unit(x) => m.unit(values[*x], &name("unit")),
            Op::Project(x) => m.project(values[*x], &name("project"), cols),
            Op::Conv { inp, grouped } => m.conv(values[*inp], &name("conv"), cols, if *grouped { 2 } else { 1 }),
            Op::BatchNorm { inp, activation } => {
                let x = m.conv(values[*inp], &name("conv"), cols, 1);
                m.batch_norm(x, &name("norm"), *activation)
            }
            Op::Join { shortcut, inp, own } => {
                let shortcut = match own {
                    true => m.aside(|m| {
                        let x = m.conv(values[*shortcut], &name("shortcut"), cols, 1);
                        m.batch_norm(x, &name("shortcut norm"), None)
                    }),
                    false => values[*shortcut],
                };
                let x = m.conv(values[*inp], &name("conv"), cols, 1);
                m.batch_norm_onto(shortcut, x, &name("norm"))
            }
            Op::MaxPool(x) => m.max_pool(values[*x], &name("pool"), 1),
            Op::Weighed(x) => m.gate(values[*x], &name("gate")),
            Op::Depthwise(x) => m.depthwise(values[*x], &name("depthwise")),
            Op::Windows(x) => m.windows(values[*x], &name("windows")),
            Op::Grn(x) => m.grn(values[*x], &name("grn")),
            Op::Gate { shortcut, inp, neighbours } => {
                let x = m.conv(values[*inp], &name("conv"), cols, 1);
                m.gate_onto(values[*shortcut], x, &name("gate"), *neighbours)
            }
            Op::Segment(inside) => m.segment(|m| {
                let mut seen = values.clone();
                steps(m, inside, &mut seen, &format!("{scope}{i}."));
                *seen.last().unwrap()
            }),
        };
        values.push(value);
    }
}
