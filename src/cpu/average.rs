//! The mean of two tensors.
//!
//! ```text
//! out = (a + b) / 2,   da = db = dout / 2
//! ```

use super::{Float, check_len};

/// Assigns `out`, of the length of `a` and `b`.
pub fn forward<T: Float>(out: &mut [T], a: &[T], b: &[T]) {
    check_len("average", "a", a.len(), out.len());
    check_len("average", "b", b.len(), out.len());
    for (out, (&a, &b)) in out.iter_mut().zip(a.iter().zip(b)) {
        *out = T::from_f64(0.5) * (a + b);
    }
}

/// Assigns `dinp`, the gradient of both.
pub fn backward<T: Float>(dinp: &mut [T], dout: &[T]) {
    check_len("average::backward", "dinp", dinp.len(), dout.len());
    for (dinp, &dout) in dinp.iter_mut().zip(dout) {
        *dinp = T::from_f64(0.5) * dout;
    }
}
