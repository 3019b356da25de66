//! SwiGLU (Shazeer 2020): one half of a row gates the other.
//!
//! ```text
//! inp = [a | b]   out = a·s·b                      s = σ(a)
//!                 da = dout · b·s·(1 + a·(1 − s))
//!                 db = dout · a·s
//! ```

use super::{Float, check_len};

/// By what a pair's value is gated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `a·σ(a)`
    Silu,
    /// `a` as it is: an activation has been applied to it already.
    Plain,
}

/// Assigns `out` `[rows, cols]`; `inp` is `[rows, 2·cols]`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], rows: usize, cols: usize) {
    check_len("swiglu::forward", "out", out.len(), rows * cols);
    check_len("swiglu::forward", "inp", inp.len(), 2 * rows * cols);
    for row in 0..rows {
        for col in 0..cols {
            let at = 2 * row * cols + col;
            let (a, b) = (inp[at], inp[at + cols]);
            out[row * cols + col] = a * sigmoid(a) * b;
        }
    }
}

/// Assigns `dinp` `[rows, 2·cols]`; `dout` is `[rows, cols]`, `inp` forward's.
pub fn backward<T: Float>(dinp: &mut [T], dout: &[T], inp: &[T], rows: usize, cols: usize) {
    check_len("swiglu::backward", "dinp", dinp.len(), 2 * rows * cols);
    check_len("swiglu::backward", "dout", dout.len(), rows * cols);
    check_len("swiglu::backward", "inp", inp.len(), 2 * rows * cols);
    for row in 0..rows {
        for col in 0..cols {
            let at = 2 * row * cols + col;
            let (a, b, d) = (inp[at], inp[at + cols], dout[row * cols + col]);
            let s = sigmoid(a);
            dinp[at] = d * b * s * (T::ONE + a * (T::ONE - s));
            dinp[at + cols] = d * a * s;
        }
    }
}

/// As [`forward`], with a and b as tensors of their own: `out`, `gate`, `value` `[rows, cols]`.
pub fn forward_pair<T: Float>(out: &mut [T], gate: &[T], value: &[T], by: Gate) {
    check_len("swiglu::forward_pair", "gate", gate.len(), out.len());
    check_len("swiglu::forward_pair", "value", value.len(), out.len());
    for (out, (&a, &b)) in out.iter_mut().zip(gate.iter().zip(value)) {
        *out = if by == Gate::Plain { a * b } else { a * sigmoid(a) * b };
    }
}

/// Assigns `dgate` and `dvalue`; `dout`, `gate` and `value` have their length.
pub fn backward_pair<T: Float>(dgate: &mut [T], dvalue: &mut [T], dout: &[T], gate: &[T], value: &[T], by: Gate) {
    let op = "swiglu::backward_pair";
    check_len(op, "dvalue", dvalue.len(), dgate.len());
    check_len(op, "dout", dout.len(), dgate.len());
    check_len(op, "gate", gate.len(), dgate.len());
    check_len(op, "value", value.len(), dgate.len());
    for i in 0..dout.len() {
        if by == Gate::Plain {
            (dgate[i], dvalue[i]) = (dout[i] * value[i], dout[i] * gate[i]);
            continue;
        }
        let s = sigmoid(gate[i]);
        dgate[i] = dout[i] * value[i] * s * (T::ONE + gate[i] * (T::ONE - s));
        dvalue[i] = dout[i] * gate[i] * s;
    }
}

fn sigmoid<T: Float>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}
