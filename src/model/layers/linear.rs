//! Linear layers: `out = inp·weightᵀ + bias`, alone, with an activation behind it, or added to a residual stream. Activation,
//! layer scale and sum are the ends of the product's kernel.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::Element;
use crate::model::operation::{LinearEnd, Operation};
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Shape, Tape};
use crate::ops::{Recorder, cast, column_sum, gelu, matmul, residual, scratch_len};
use crate::shapes::Activation;

/// The parameters of a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct LinearParams {
    /// `[outputs, inputs]`
    pub weight: ParamRef,
    /// `[outputs]`
    pub bias: Option<ParamRef>,
}

impl LinearParams {
    /// `count` outputs from `first` on, of a layer with `inputs`.
    pub fn outputs(self, first: usize, count: usize, inputs: usize) -> LinearParams {
        LinearParams {
            weight: self.weight.part(first * inputs, count * inputs),
            bias: self.bias.map(|bias| bias.part(first, count)),
        }
    }
}

#[derive(Debug)]
struct Product {
    inp: Act,
    out: Act,
    weight: ParamRef,
    bias: Option<ParamRef>,
    end: End,
    /// `inp` is `[rows, k]`, `out` `[rows, n]`.
    rows: usize,
    n: usize,
    k: usize,
    /// What the product reads.
    element: Element,
}

/// What becomes of a product in the same kernel.
#[derive(Debug)]
enum End {
    Plain,
    /// `out = gelu(hidden)`.
    Gelu {
        hidden: Act,
        kind: Activation,
    },
    /// `out = stream + gamma·branch`; without `gamma`, `branch` may not be written.
    Onto {
        stream: Act,
        gamma: Option<ParamRef>,
        branch: Act,
    },
}

impl Tape {
    /// Declares `name.weight` `[n, k]` and, with `bias`, `name.bias` `[n]`.
    pub fn linear_params(&mut self, name: &str, n: usize, k: usize, bias: bool) -> LinearParams {
        let weight = self.param(&format!("{name}.weight"), &[n, k]);
        LinearParams { weight, bias: bias.then(|| self.param(&format!("{name}.bias"), &[n])) }
    }

    /// The same as a convolution of single pixels: `name.weight` is `[n, k, 1, 1]`.
    pub fn pointwise_params(&mut self, name: &str, n: usize, k: usize, bias: bool) -> LinearParams {
        let weight = self.param(&format!("{name}.weight"), &[n, k, 1, 1]);
        LinearParams { weight, bias: bias.then(|| self.param(&format!("{name}.bias"), &[n])) }
    }

    /// `out = inp·weightᵀ + bias`, which holds `element`.
    pub fn linear(&mut self, inp: Act, name: &str, layer: LinearParams, element: Element) -> Act {
        let shape = self.linear_shape(inp, layer);
        let out = self.act(name, shape, element);
        self.push_product(inp, out, layer, End::Plain)
    }

    /// `out = gelu(inp·weightᵀ + bias)`, of a kind that has no gate.
    pub fn linear_gelu(&mut self, inp: Act, name: &str, layer: LinearParams, kind: Activation) -> Act {
        let (shape, element) = (self.linear_shape(inp, layer), self.element_of(inp));
        let hidden = self.act(name, shape, element);
        let out = self.act(&format!("{name}.act"), shape, element);
        self.values[out.0].activates = Some((hidden, kind));
        self.push_product(inp, out, layer, End::Gelu { hidden, kind })
    }

    /// `out = stream + gamma·(inp·weightᵀ + bias)`, in f32; without `gamma`, plainly the sum.
    pub fn linear_onto(
        &mut self,
        stream: Act,
        inp: Act,
        name: &str,
        layer: LinearParams,
        gamma: Option<ParamRef>,
    ) -> Act {
        let shape = self.linear_shape(inp, layer);
        let branch = self.act(&format!("{name}.branch"), shape, Element::Word);
        let out = self.act(name, shape, Element::Word);
        self.push_product(inp, out, layer, End::Onto { stream, gamma, branch })
    }

    fn linear_shape(&self, inp: Act, layer: LinearParams) -> Shape {
        let shape = self.shape(inp);
        shape.with_cols(layer.weight.len / shape.cols.max(1))
    }

    fn push_product(&mut self, inp: Act, out: Act, LinearParams { weight, bias }: LinearParams, end: End) -> Act {
        let (shape, element) = (self.shape(inp), self.element_of(inp));
        self.product(weight, element);
        let (more, stream, gamma) = match end {
            End::Plain => (None, None, None),
            End::Gelu { hidden, .. } => (Some(hidden), None, None),
            End::Onto { stream, gamma, branch } => (Some(branch), Some(stream), gamma),
        };
        let (rows, n, k) = (shape.rows(), self.shape(out).cols, shape.cols);
        let reads: Vec<Act> = [inp].into_iter().chain(stream).collect();
        let params: Vec<ParamRef> = [weight].into_iter().chain(bias).chain(gamma).collect();
        let writes: Vec<Act> = [out].into_iter().chain(more).collect();
        self.push(Product { inp, out, weight, bias, end, rows, n, k, element }, &reads, &params, &writes);
        out
    }
}

impl Layer for Product {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let &Product { rows, n, k, .. } = self;
        let (inp, out) = (s.view(self.inp), s.view(self.out));
        let (weight, bias) = (s.product_weight(self.weight, self.element), s.maybe(self.bias));
        let bias = bias.as_ref();
        match self.end {
            End::Plain => matmul::forward(r, &out, &inp, &weight, bias, rows, n, k),
            End::Gelu { hidden, kind } => {
                matmul::forward_gelu(r, &out, &s.view(hidden), &inp, &weight, bias, kind, rows, n, k)
            }
            End::Onto { stream, gamma, branch } => {
                let (stream, branch, gamma) = (s.view(stream), s.view(branch), s.maybe(gamma));
                let gamma = gamma.as_ref();
                matmul::forward_residual(r, &out, &branch, &stream, gamma, &inp, &weight, bias, rows, n, k)
            }
        }
    }

    fn again(&self, s: &mut Store, r: &mut Recorder, leaves: bool) -> Result<()> {
        match self.end {
            // A layer scale reads the branch once more; nobody else reads anything of a result that is still there.
            End::Onto { gamma: Some(_), branch, .. } if leaves => {
                s.renew(branch);
                let (weight, bias) = (s.product_weight(self.weight, self.element), s.maybe(self.bias));
                let (branch, inp) = (s.view(branch), s.view(self.inp));
                matmul::forward(r, &branch, &inp, &weight, bias.as_ref(), self.rows, self.n, self.k)
            }
            _ if leaves => Ok(()),
            _ => self.forward(s, r),
        }
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let learns = s.trains(self.weight) || self.bias.is_some_and(|bias| s.trains(bias));
        if learns || s.wants(self.inp) || matches!(self.end, End::Onto { gamma: Some(gamma), .. } if s.trains(gamma)) {
            let dout = self.product_gradient(s, r)?;
            self.product_backward(s, r, &dout)?;
        }
        match self.end {
            End::Onto { stream, .. } => s.pass_on(r, self.out, stream),
            _ => Ok(()),
        }
    }

    fn scratch(&self) -> usize {
        scratch_len(self.rows, self.n).max(matmul::scratch_len(self.rows, self.n, self.k))
    }

    fn macs(&self) -> usize {
        self.rows * self.n * self.k
    }

    fn operation(&self) -> Option<Operation> {
        let end = match self.end {
            End::Plain => LinearEnd::Plain,
            End::Gelu { kind, .. } => LinearEnd::Through(kind),
            End::Onto { stream, gamma, .. } => LinearEnd::Onto { stream, gamma },
        };
        let &Product { inp, out, weight, bias, .. } = self;
        Some(Operation::Linear { inp, out, weight, bias, end })
    }
}

impl Product {
    /// The gradient of the product itself, as products read it.
    fn product_gradient(&self, s: &mut Store, r: &mut Recorder) -> Result<View> {
        let &Product { rows, n, .. } = self;
        let dout = match self.end {
            End::Plain => s.gradient(self.out),
            // The next layer's product has passed the activation by.
            End::Gelu { hidden, .. } if s.has_gradient(hidden) => s.gradient(hidden),
            End::Gelu { hidden, kind } => {
                let dhidden = s.share(hidden);
                gelu::backward(r, &dhidden, &s.gradient(self.out), &s.view(hidden), kind)?;
                dhidden
            }
            End::Onto { gamma: None, .. } => s.gradient(self.out),
            End::Onto { gamma: Some(gamma), branch, .. } => {
                let dout = s.gradient(self.out);
                if s.trains(gamma) {
                    residual::backward_params(r, &s.dparam(gamma), &dout, &s.view(branch), rows, n)?;
                }
                let dbranch = s.share(branch);
                residual::backward_input(r, &dbranch, &dout, &s.param(gamma), rows, n)?;
                dbranch
            }
        };
        if self.element == dout.element {
            return Ok(dout);
        }
        let label = format!("gradient of {} in f16", s.label(self.out));
        let narrow = s.tensor(&label, self.element, dout.len);
        cast::forward(r, &narrow, &dout)?;
        Ok(narrow)
    }

    fn product_backward(&self, s: &mut Store, r: &mut Recorder, dout: &View) -> Result<()> {
        let &Product { inp, rows, n, k, .. } = self;
        let weight = s.product_weight(self.weight, self.element);
        match s.activated(inp).filter(|_| s.wants(inp)) {
            Some((hidden, kind)) => {
                let (dhidden, dinp) = (s.share(hidden), s.share(inp));
                let hidden_view = s.view(hidden);
                matmul::backward_input_gelu(r, &dhidden, &dinp, dout, &weight, &hidden_view, kind, rows, n, k)?;
                s.settle(r, hidden, dhidden)?;
            }
            None => s.add(r, inp, |r, dinp, accumulate| match accumulate {
                true => matmul::backward_input_added(r, dinp, dout, &weight, rows, n, k),
                false => matmul::backward_input(r, dinp, dout, &weight, rows, n, k),
            })?,
        }
        if s.trains(self.weight) {
            matmul::backward_weight(r, &s.dparam(self.weight), dout, &s.view(inp), rows, n, k)?;
        }
        match self.bias.filter(|bias| s.trains(*bias)) {
            Some(bias) => column_sum::forward(r, &s.dparam(bias), dout, rows, n),
            None => Ok(()),
        }
    }
}
