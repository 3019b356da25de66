//! A gate for each channel of each image (Hu et al. 2018, squeeze and excitation), with a shortcut and a ReLU behind it.
//!
//! ```text
//! out = relu(inp · σ(scale) + shortcut)      σ as `kind` says
//!
//! dinp = g · σ(scale)      g = dout where out > 0
//! dscale = σ'(scale) · Σ_rows g · inp
//! ```
//!
//! The shortcut's gradient is g itself.

use super::{Float, check_len};

/// Which function of a scale the gate is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `1 / (1 + exp(−x))`
    #[default]
    Sigmoid,
    /// `min(max(x + 3, 0), 6) / 6` (Howard et al. 2019)
    HardSigmoid,
}

impl Kind {
    /// The gate, and its slope.
    fn at<T: Float>(self, x: T) -> [T; 2] {
        match self {
            Self::Sigmoid => {
                let gate = T::ONE / (T::ONE + (-x).exp());
                [gate, gate * (T::ONE - gate)]
            }
            Self::HardSigmoid => {
                let [three, six] = [3.0, 6.0].map(T::from_f64);
                let slope = if x.abs() < three { T::ONE / six } else { T::ZERO };
                [(x + three).max(T::ZERO).min(six) / six, slope]
            }
        }
    }
}

/// Assigns `out [batch, rows, cols]`; `inp` and `shortcut` have its shape, `scale [batch, cols]`.
pub fn forward<T: Float>(
    out: &mut [T],
    inp: &[T],
    scale: &[T],
    shortcut: Option<&[T]>,
    relu: bool,
    kind: Kind,
    batch: usize,
    rows: usize,
    cols: usize,
) {
    check_len("gate::forward", "out", out.len(), batch * rows * cols);
    check_len("gate::forward", "inp", inp.len(), batch * rows * cols);
    check_len("gate::forward", "scale", scale.len(), batch * cols);
    for i in 0..inp.len() {
        let y = inp[i] * kind.at(scale[i / (rows * cols) * cols + i % cols])[0];
        let y = shortcut.map_or(y, |shortcut| y + shortcut[i]);
        out[i] = if relu { y.max(T::ZERO) } else { y };
    }
}

/// Assigns `dinp [batch, rows, cols]` and `dscale [batch, cols]`. With `out`, the output of a ReLU, `dout` counts only where that is
/// positive.
pub fn backward<T: Float>(
    dinp: &mut [T],
    dscale: &mut [T],
    dout: &[T],
    out: Option<&[T]>,
    inp: &[T],
    scale: &[T],
    kind: Kind,
    batch: usize,
    rows: usize,
    cols: usize,
) {
    check_len("gate::backward", "dinp", dinp.len(), batch * rows * cols);
    check_len("gate::backward", "dscale", dscale.len(), batch * cols);
    check_len("gate::backward", "dout", dout.len(), batch * rows * cols);
    check_len("gate::backward", "inp", inp.len(), batch * rows * cols);
    check_len("gate::backward", "scale", scale.len(), batch * cols);
    dscale.fill(T::ZERO);
    for i in 0..inp.len() {
        let channel = i / (rows * cols) * cols + i % cols;
        let [gate, slope] = kind.at(scale[channel]);
        let g = if out.is_some_and(|out| out[i] <= T::ZERO) { T::ZERO } else { dout[i] };
        dinp[i] = g * gate;
        dscale[channel] += g * inp[i] * slope;
    }
}
