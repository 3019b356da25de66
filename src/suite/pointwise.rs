//! Elementwise kernels.

use super::formats::{formats, prefix, rounded, stored_eps};
use super::harness::{Case, EPS, HALF_EPS, Launch, Random, narrow, sum_tolerance, wide};
use super::{Plan, Stem, Suite, stem};
use crate::cpu;
use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::Element;
use crate::ops::swiglu::Gate;
use crate::ops::{self, Recorder};
use crate::shapes::Activation;

pub(super) const STEMS: &[Stem] = &[
    stem("gelu", gelu, &["gelu::forward", "gelu::backward"]),
    stem("relu", relu, &["relu::forward", "relu::backward"]),
    stem("hard_swish", hard_swish, &["hard_swish::forward", "hard_swish::backward_input"]),
    stem("silu", silu, &["silu::forward", "silu::backward_input"]),
    stem("relu6", relu6, &["relu6::forward", "relu6::backward_input"]),
    stem("swiglu", swiglu, &["swiglu::forward", "swiglu::backward", "swiglu::forward_pair", "swiglu::backward_pair"]),
    stem(
        "residual",
        residual,
        &["residual::forward", "residual::forward_scaled", "residual::backward_input", "residual::backward_params"],
    ),
    stem("average", average, &["average::forward", "average::backward"]),
    stem("cast", cast, &["cast::forward"]),
];

/// An activation `out = f(inp)`: its two kernels, and what computes the same in f64.
trait Unary: Copy + Send + 'static {
    const KERNELS: [&'static str; 2];
    /// Whether backward may add to the values there.
    const ADDS: bool = false;
    fn forward(self, r: &mut Recorder, out: &View, inp: &View) -> Result<()>;
    /// From the gradient of the output, input and output.
    fn backward(self, r: &mut Recorder, dinp: &View, saved: [&View; 3], added: bool) -> Result<()>;
    fn reference(self, out: &mut [f64], inp: &[f64]);
    fn reference_backward(self, dinp: &mut [f64], saved: [&[f64]; 3], added: bool);
    /// What the two may be off by when they read and write this format; none if they can't.
    fn tolerance(self, element: Element) -> Option<[f64; 2]>;
}

const UNARY_LENS: [usize; 17] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 63, 64, 65, 768, 4099, 4100, 5001, 5000];

/// Cases of every variant: half of the values where curves bend, half out to ±30, where naive forms overflow, and a zero.
fn unary(p: &mut Plan, op: impl Unary, kind: &str) {
    for (launch, &element) in Launch::all(p.gpu).into_iter().flat_map(|l| formats(p.gpu).iter().map(move |e| (l, e))) {
        let Some(tolerance) = op.tolerance(element) else { continue };
        for (_, len) in p.pick(&UNARY_LENS, &[13, 14]) {
            let spread = |(i, x): (usize, f32)| if i.is_multiple_of(2) { 3.0 * x } else { 30.0 * x };
            let mut inp: Vec<f32> = Random::new(len as u64).vec(len).into_iter().enumerate().map(spread).collect();
            inp[len / 2] = 0.0;
            let name = format!("{}{kind}len {len}, {}", prefix(element), launch.suffix());
            p.add(move |s| unary_case(s, launch, name, op, rounded(inp, element), element, tolerance));
        }
    }
}

fn unary_case<U: Unary>(
    s: &mut Suite,
    launch: Launch,
    name: String,
    op: U,
    inp: Vec<f32>,
    element: Element,
    [forward, backward]: [f64; 2],
) -> Result<()> {
    let len = inp.len();
    let mut random = Random::new(1 + len as u64);
    let [dout, before] = [0; 2].map(|_| rounded(random.vec(len), element));
    let (inp64, dout64, mut want) = (wide(&inp), wide(&dout), vec![0.0; len]);
    op.reference(&mut want, &inp64);
    // Backward starts from the same saved output as the reference.
    let saved = rounded(narrow(&want), element);
    let mut c = Case::new(s.gpu, name, 0)?;
    let [inp, dout] = [c.input_as("inp", element, &inp)?, c.input_as("dout", element, &dout)?];
    let (saved_out, out) = (c.input_as("saved out", element, &saved)?, c.output_as("out", element, len)?);
    c.run(launch, |r| op.forward(r, &out, &inp))?;
    c.expect(U::KERNELS[0], &out, &want, forward);
    for added in [false, true].into_iter().filter(|added| U::ADDS || !added) {
        let dinp = if added { c.input_as("dinp", element, &before)? } else { c.output_as("dinp", element, len)? };
        let mut want = if added { wide(&before) } else { vec![0.0; len] };
        op.reference_backward(&mut want, [&dout64, &inp64, &wide(&saved)], added);
        c.run(launch, |r| op.backward(r, &dinp, [&dout, &inp, &saved_out], added))?;
        c.expect(U::KERNELS[1], &dinp, &want, backward);
    }
    s.finish(c)
}

/// GELU of one kind.
#[derive(Clone, Copy)]
struct Gelu(Activation);

impl Unary for Gelu {
    const KERNELS: [&'static str; 2] = ["gelu::forward", "gelu::backward"];

    fn forward(self, r: &mut Recorder, out: &View, inp: &View) -> Result<()> {
        ops::gelu::forward(r, out, inp, self.0)
    }

    fn backward(self, r: &mut Recorder, dinp: &View, [dout, inp, _]: [&View; 3], _: bool) -> Result<()> {
        ops::gelu::backward(r, dinp, dout, inp, self.0)
    }

    fn reference(self, out: &mut [f64], inp: &[f64]) {
        cpu::gelu::forward(out, inp, self.0);
    }

    fn reference_backward(self, dinp: &mut [f64], [dout, inp, _]: [&[f64]; 3], _: bool) {
        cpu::gelu::backward(dinp, dout, inp, self.0);
    }

    /// Four operations around Φ, of which the fit is within 1.2e-7, or around an exponential, which may be off by
    /// 3 + 2·|argument| units in the last place: up to 4 where the result is not tiny. The slope has twice as many operations;
    /// tanh's has 1 − t², which cancels next to a factor of up to 10.
    fn tolerance(self, element: Element) -> Option<[f64; 2]> {
        let slope = if self.0 == Activation::GeluTanh { 8.0 } else { 2.0 };
        Some([stored_eps(element) + 16.0 * EPS, stored_eps(element) + slope * 16.0 * EPS])
    }
}

fn gelu(p: &mut Plan) -> Result<()> {
    for kind in [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu] {
        unary(p, Gelu(kind), &format!("{kind:?}, "));
    }
    // The left tail on its own, where no large element covers its errors: Φ(x) is exp of an argument around −10, off by
    // 3 + 2·10 units and as much again from rounding it. Not for tanh, whose 1 + tanh(u) cancels there by its definition, in
    // PyTorch too.
    for launch in Launch::all(p.gpu) {
        for kind in [Activation::Gelu, Activation::QuickGelu] {
            let inp: Vec<f32> = Random::new(7).vec(197).into_iter().map(|x| -4.5 + 1.5 * x).collect();
            let name = format!("{kind:?}, −6..−3, {}", launch.suffix());
            p.add(move |s| unary_case(s, launch, name, Gelu(kind), inp, Element::Word, [64.0 * EPS, 128.0 * EPS]));
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Relu;

impl Unary for Relu {
    const KERNELS: [&'static str; 2] = ["relu::forward", "relu::backward"];
    const ADDS: bool = true;

    fn forward(self, r: &mut Recorder, out: &View, inp: &View) -> Result<()> {
        ops::relu::forward(r, out, inp)
    }

    fn backward(self, r: &mut Recorder, dinp: &View, [dout, _, out]: [&View; 3], added: bool) -> Result<()> {
        ops::relu::backward(r, dinp, dout, out, added)
    }

    fn reference(self, out: &mut [f64], inp: &[f64]) {
        cpu::relu::forward(out, inp);
    }

    fn reference_backward(self, dinp: &mut [f64], [dout, _, out]: [&[f64]; 3], added: bool) {
        cpu::relu::backward(dinp, dout, out, added);
    }

    /// A copy, and a copy or one addition.
    fn tolerance(self, element: Element) -> Option<[f64; 2]> {
        Some([0.0, EPS + stored_eps(element)])
    }
}

fn relu(p: &mut Plan) -> Result<()> {
    unary(p, Relu, "");
    Ok(())
}

#[derive(Clone, Copy)]
struct HardSwish;

impl Unary for HardSwish {
    const KERNELS: [&'static str; 2] = ["hard_swish::forward", "hard_swish::backward_input"];

    fn forward(self, r: &mut Recorder, out: &View, inp: &View) -> Result<()> {
        ops::hard_swish::forward(r, out, inp)
    }

    fn backward(self, r: &mut Recorder, dinp: &View, [dout, inp, _]: [&View; 3], _: bool) -> Result<()> {
        ops::hard_swish::backward_input(r, dinp, dout, inp)
    }

    fn reference(self, out: &mut [f64], inp: &[f64]) {
        cpu::hard_swish::forward(out, inp);
    }

    fn reference_backward(self, dinp: &mut [f64], [dout, inp, _]: [&[f64]; 3], _: bool) {
        cpu::hard_swish::backward_input(dinp, dout, inp);
    }

    /// A sum, a product, and a division, good to 2.5 units in the last place; for the slope the same.
    fn tolerance(self, element: Element) -> Option<[f64; 2]> {
        Some([4.0 * EPS + stored_eps(element); 2])
    }
}

fn hard_swish(p: &mut Plan) -> Result<()> {
    unary(p, HardSwish, "");
    Ok(())
}

#[derive(Clone, Copy)]
struct Silu;

impl Unary for Silu {
    const KERNELS: [&'static str; 2] = ["silu::forward", "silu::backward_input"];

    fn forward(self, r: &mut Recorder, out: &View, inp: &View) -> Result<()> {
        ops::silu::forward(r, out, inp)
    }

    fn backward(self, r: &mut Recorder, dinp: &View, [dout, inp, _]: [&View; 3], _: bool) -> Result<()> {
        ops::silu::backward_input(r, dinp, dout, inp)
    }

    fn reference(self, out: &mut [f64], inp: &[f64]) {
        cpu::silu::forward(out, inp);
    }

    fn reference_backward(self, dinp: &mut [f64], [dout, inp, _]: [&[f64]; 3], _: bool) {
        cpu::silu::backward_input(dinp, dout, inp);
    }

    /// As QuickGELU: four operations around an exponential, twice as many for the slope.
    fn tolerance(self, element: Element) -> Option<[f64; 2]> {
        Some([stored_eps(element) + 16.0 * EPS, stored_eps(element) + 32.0 * EPS])
    }
}

fn silu(p: &mut Plan) -> Result<()> {
    unary(p, Silu, "");
    Ok(())
}

#[derive(Clone, Copy)]
struct Relu6;

impl Unary for Relu6 {
    const KERNELS: [&'static str; 2] = ["relu6::forward", "relu6::backward_input"];

    fn forward(self, r: &mut Recorder, out: &View, inp: &View) -> Result<()> {
        ops::relu6::forward(r, out, inp)
    }

    fn backward(self, r: &mut Recorder, dinp: &View, [dout, inp, _]: [&View; 3], _: bool) -> Result<()> {
        ops::relu6::backward_input(r, dinp, dout, inp)
    }

    fn reference(self, out: &mut [f64], inp: &[f64]) {
        cpu::relu6::forward(out, inp);
    }

    fn reference_backward(self, dinp: &mut [f64], [dout, inp, _]: [&[f64]; 3], _: bool) {
        cpu::relu6::backward_input(dinp, dout, inp);
    }

    /// Copies.
    fn tolerance(self, element: Element) -> Option<[f64; 2]> {
        Some([stored_eps(element); 2])
    }
}

fn relu6(p: &mut Plan) -> Result<()> {
    unary(p, Relu6, "");
    Ok(())
}

/// The two halves of each row of `2 * cols` values.
fn halves<T: Copy>(values: &[T], cols: usize) -> (Vec<T>, Vec<T>) {
    values.chunks(2 * cols).map(|row| (&row[..cols], &row[cols..])).fold(
        (Vec::new(), Vec::new()),
        |(mut a, mut b), row| {
            a.extend(row.0);
            b.extend(row.1);
            (a, b)
        },
    )
}

fn swiglu(p: &mut Plan) -> Result<()> {
    let formats = formats(p.gpu);
    for (launch, &element) in Launch::all(p.gpu).into_iter().flat_map(|l| formats.iter().map(move |e| (l, e))) {
        let shapes = [(1, 1), (1, 4), (3, 65), (65, 64), (197, 3), (63, 36), (2, 768), (7, 1028)];
        for (_, (rows, cols)) in p.pick(&shapes, &[2, 5]) {
            p.add(move |s| {
                let mut random = Random::new((rows * cols) as u64);
                // Half of them where the gate bends, half out to ±30.
                let spread = |(i, x): (usize, f32)| if i.is_multiple_of(2) { 3.0 * x } else { 30.0 * x };
                let values =
                    rounded(random.vec(2 * rows * cols).into_iter().enumerate().map(spread).collect(), element);
                let douts = rounded(random.vec(rows * cols), element);
                let (mut want, mut want_grad) = (vec![0.0; rows * cols], vec![0.0; 2 * rows * cols]);
                cpu::swiglu::forward(&mut want, &wide(&values), rows, cols);
                cpu::swiglu::backward(&mut want_grad, &wide(&douts), &wide(&values), rows, cols);
                let name = format!("{}rows {rows}, cols {cols}, {}", prefix(element), launch.suffix());
                let mut c = Case::new(s.gpu, name, 0)?;
                let [inp, dout] = [c.input_as("inp", element, &values)?, c.input_as("dout", element, &douts)?];
                let out = c.output_as("out", element, want.len())?;
                let dinp = c.output_as("dinp", element, want_grad.len())?;
                c.run(launch, |r| {
                    ops::swiglu::forward(r, &out, &inp, rows, cols)?;
                    ops::swiglu::backward(r, &dinp, &dout, &inp, rows, cols)
                })?;
                // As QuickGELU: four operations around an exponential, and one more product; twice as many for the slope.
                c.expect("swiglu::forward", &out, &want, stored_eps(element) + 20.0 * EPS);
                c.expect("swiglu::backward", &dinp, &want_grad, stored_eps(element) + 40.0 * EPS);

                let (gates, factors) = halves(&values, cols);
                let [gate, value] = [c.input_as("gate", element, &gates)?, c.input_as("value", element, &factors)?];
                for by in [Gate::Silu, Gate::Plain] {
                    let (mut want, mut want_gate) = (vec![0.0; rows * cols], vec![0.0; rows * cols]);
                    let mut want_value = want_gate.clone();
                    let [a, b, d] = [&gates, &factors, &douts].map(|values| wide(values));
                    cpu::swiglu::forward_pair(&mut want, &a, &b, by);
                    cpu::swiglu::backward_pair(&mut want_gate, &mut want_value, &d, &a, &b, by);
                    let out = c.output_as("out", element, want.len())?;
                    let [dgate, dvalue] =
                        [c.output_as("dgate", element, want.len())?, c.output_as("dvalue", element, want.len())?];
                    c.run(launch, |r| {
                        ops::swiglu::forward_pair(r, &out, &gate, &value, by, rows, cols)?;
                        ops::swiglu::backward_pair(r, &dgate, &dvalue, &dout, &gate, &value, by, rows, cols)
                    })?;
                    c.expect("swiglu::forward_pair", &out, &want, stored_eps(element) + 20.0 * EPS);
                    c.expect("swiglu::backward_pair", &dgate, &want_gate, stored_eps(element) + 40.0 * EPS);
                    c.expect("swiglu::backward_pair", &dvalue, &want_value, stored_eps(element) + 40.0 * EPS);
                }
                s.finish(c)
            });
        }
    }
    Ok(())
}

fn residual(p: &mut Plan) -> Result<()> {
    for (launch, &element) in Launch::all(p.gpu).into_iter().flat_map(|l| formats(p.gpu).iter().map(move |e| (l, e))) {
        let shapes = [
            (1, 1),
            (3, 65),
            (63, 3),
            (65, 197),
            (197, 63),
            (2, 768),
            (300, 3),
            (5, 4),
            (33, 28),
            (41, 260),
            (7, 1),
            (1030, 8),
            (97, 5),
        ];
        for (_, (rows, cols)) in p.pick(&shapes, &[3, 9]) {
            p.add(move |s| {
                let mut random = Random::new((rows * cols) as u64);
                let n = rows * cols;
                let [inp, branch, dout] = [0; 3].map(|_| rounded(random.vec(n), element));
                let gamma = random.vec(cols);
                let (inp64, branch64, dout64, gamma64) = (wide(&inp), wide(&branch), wide(&dout), wide(&gamma));
                let name = format!("{}rows {rows}, cols {cols}, {}", prefix(element), launch.suffix());
                let mut c = Case::new(s.gpu, name, ops::scratch_len(rows, cols))?;
                let [inp, branch] = [c.input_as("inp", element, &inp)?, c.input_as("branch", element, &branch)?];
                let [dout, gamma] = [c.input_as("dout", element, &dout)?, c.input("gamma", &gamma)?];

                // An addition and a product: each rounds once.
                let kernels = [("residual::forward", None), ("residual::forward_scaled", Some(&gamma))];
                for (kernel, gamma) in kernels {
                    let out = c.output_as("out", element, n)?;
                    let mut want = vec![0.0; n];
                    let gamma64 = gamma.map(|_| gamma64.as_slice());
                    cpu::residual::forward(&mut want, &inp64, &branch64, gamma64, rows, cols);
                    c.run(launch, |r| ops::residual::forward(r, &out, &inp, &branch, gamma, rows, cols))?;
                    c.expect(kernel, &out, &want, stored_eps(element) + 2.0 * EPS);
                }

                let dbranch = c.output_as("dbranch", element, n)?;
                let mut want = vec![0.0; n];
                cpu::residual::backward_input(&mut want, &dout64, Some(&gamma64), rows, cols);
                c.run(launch, |r| ops::residual::backward_input(r, &dbranch, &dout, &gamma, rows, cols))?;
                c.expect("residual::backward_input", &dbranch, &want, stored_eps(element) + EPS);

                let before = random.vec(cols);
                let dgamma = c.input("dgamma", &before)?;
                let mut want = wide(&before);
                cpu::residual::backward_params(&mut want, &dout64, &branch64, rows, cols);
                c.run(launch, |r| ops::residual::backward_params(r, &dgamma, &dout, &branch, rows, cols))?;
                // A sum over rows of products.
                c.expect("residual::backward_params", &dgamma, &want, sum_tolerance(rows, 4.0));
                s.finish(c)
            });
        }
    }
    Ok(())
}

fn average(p: &mut Plan) -> Result<()> {
    for launch in Launch::folded(p.gpu) {
        for (_, len) in p.pick(&[1, 3, 63, 65, 197, 5000], &[4, 5]) {
            p.add(move |s| {
                let mut random = Random::new(len as u64);
                let [a, b, dout] = [0; 3].map(|_| random.vec(len));
                let (mut want, mut want_grad) = (vec![0.0; len], vec![0.0; len]);
                cpu::average::forward(&mut want, &wide(&a), &wide(&b));
                cpu::average::backward(&mut want_grad, &wide(&dout));
                let name = format!("len {len}, {}", launch.suffix());
                let mut c = Case::new(s.gpu, name, 0)?;
                let [a, b, dout] = [c.input("a", &a)?, c.input("b", &b)?, c.input("dout", &dout)?];
                let [out, dinp] = [c.output("out", len)?, c.output("dinp", len)?];
                c.run(launch, |r| {
                    ops::average::forward(r, &out, &a, &b)?;
                    ops::average::backward(r, &dinp, &dout)
                })?;
                // One rounded sum; halving is exact.
                c.expect("average::forward", &out, &want, EPS);
                c.expect("average::backward", &dinp, &want_grad, 0.0);
                s.finish(c)
            });
        }
    }
    Ok(())
}

/// Values of every size that f16 has, zeros of both signs, what becomes infinite, and an odd length. Nothing on an adapter
/// that has none.
fn cast(p: &mut Plan) -> Result<()> {
    if p.gpu.check_f16().is_err() {
        return Ok(());
    }
    for launch in Launch::folded(p.gpu) {
        for (_, len) in p.pick(&[1, 3, 64, 197, 768, 5000], &[3, 5]) {
            p.add(move |s| {
                let mut random = Random::new(len as u64);
                // From 2⁻¹⁴, the smallest normal one, to 65,504.
                let spread = |(i, x): (usize, f32)| x.signum() * (0.5 + x.abs()) * ((i % 29) as f32 - 14.0).exp2();
                let mut inp: Vec<f32> = random.vec(len).into_iter().enumerate().map(spread).collect();
                inp[0] = -0.0;
                let mut want = vec![0.0; len];
                cpu::cast::forward(&mut want, &wide(&inp));
                let mut c = Case::new(s.gpu, format!("len {len}, {}", launch.suffix()), 0)?;
                let (inp32, out) = (c.input("inp", &inp)?, c.half_output("out", len)?);
                c.run(launch, |r| ops::cast::forward(r, &out, &inp32))?;
                // One element at a time: next to the mean of such values the small ones would vanish.
                for (i, want_one) in want.iter().enumerate().take(64) {
                    let mut one = vec![0.0; len];
                    one[i] = *want_one;
                    c.expect_at("cast::forward", &out, &[i..i + 1], &one, HALF_EPS);
                }
                c.expect("cast::forward", &out, &want, HALF_EPS);
                s.finish(c)
            });
        }
    }
    Ok(())
}
