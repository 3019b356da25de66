//! Hard swish (Howard et al. 2019, MobileNetV3), elementwise.
//!
//! ```text
//! out = inp · min(max(inp + 3, 0), 6) / 6
//! dinp = dout · s       s = 0 where inp ≤ −3, 1 where inp ≥ 3, else inp/3 + 1/2
//! ```
//!
//! At the two corners the slope is that of the straight side, as in PyTorch.

use super::{Float, check_len};

/// Assigns `out`, of the same length as `inp`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T]) {
    check_len("hard_swish::forward", "out", out.len(), inp.len());
    let [three, six] = [3.0, 6.0].map(T::from_f64);
    for i in 0..inp.len() {
        out[i] = inp[i] * (inp[i] + three).max(T::ZERO).min(six) / six;
    }
}

/// Assigns `dinp`; `dout` and `inp` (forward's input) have its length.
pub fn backward_input<T: Float>(dinp: &mut [T], dout: &[T], inp: &[T]) {
    check_len("hard_swish::backward_input", "dinp", dinp.len(), inp.len());
    check_len("hard_swish::backward_input", "dout", dout.len(), inp.len());
    let three = T::from_f64(3.0);
    for i in 0..inp.len() {
        let slope = if inp[i] <= -three {
            T::ZERO
        } else if inp[i] >= three {
            T::ONE
        } else {
            inp[i] / three + T::from_f64(0.5)
        };
        dinp[i] = dout[i] * slope;
    }
}
