//! What the measured peak computes: rounds of multiply-adds on three values.
//!
//! ```text
//! x ← a·x + b   rounds times, for x = inp, inp + 1 and inp + 2;   out = the sum of the three
//! ```

use super::{Float, check_len};

/// Assigns `out`, as long as `inp`.
pub fn multiply_add<T: Float>(out: &mut [T], inp: &[T], rounds: usize, a: f64, b: f64) {
    check_len("peak::multiply_add", "out", out.len(), inp.len());
    let (a, b) = (T::from_f64(a), T::from_f64(b));
    for i in 0..inp.len() {
        out[i] = T::ZERO;
        for start in [0.0, 1.0, 2.0] {
            let mut x = inp[i] + T::from_f64(start);
            for _ in 0..rounds {
                x = a * x + b;
            }
            out[i] += x;
        }
    }
}
