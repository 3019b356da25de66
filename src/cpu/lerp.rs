//! Linear interpolation in place: `out += share · (inp − out)`.

use super::{Float, check_len};

/// Moves `out [n]` by `share` of the way to `inp [n]`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], share: f64) {
    check_len("lerp", "inp", inp.len(), out.len());
    let share = T::from_f64(share);
    for i in 0..out.len() {
        out[i] += share * (inp[i] - out[i]);
    }
}
