//! The gradient of L2-SP's penalty (Li, Grandvalet & Davoine, ICML 2018, eq. 3), `lambda/2 · ‖w − w0‖²`.

use super::{Float, check_len};

/// The penalty.
pub fn forward<T: Float>(w: &[T], w0: &[T], lambda: f64) -> T {
    check_len("l2_sp::forward", "w0", w0.len(), w.len());
    let square = w.iter().zip(w0).fold(T::ZERO, |sum, (w, w0)| sum + (*w - *w0) * (*w - *w0));
    T::from_f64(lambda / 2.0) * square
}

/// Adds the penalty's gradient, times `scale`, to `dw [n]`.
pub fn backward<T: Float>(dw: &mut [T], w: &[T], w0: &[T], lambda: f64, scale: T) {
    check_len("l2_sp::backward", "w", w.len(), dw.len());
    check_len("l2_sp::backward", "w0", w0.len(), dw.len());
    let pull = T::from_f64(lambda) * scale;
    for i in 0..dw.len() {
        dw[i] += pull * (w[i] - w0[i]);
    }
}
