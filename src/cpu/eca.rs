//! A convolution along the channels of one row per image (Wang et al. 2020, efficient channel attention).
//!
//! ```text
//! out[b, c] = Σ_j inp[b, c + j − h] · weight[j]      h = (k − 1)/2, zero outside
//! dinp[b, c] = Σ_j dout[b, c − j + h] · weight[j]
//! dweight[j] += Σ_{b, c} dout[b, c] · inp[b, c + j − h]
//! ```

use super::{Float, check_len};

/// Calls `each` with the indices of an element of `out`, one of `inp`, and the tap between them.
fn products(batch: usize, channels: usize, kernel: usize, mut each: impl FnMut(usize, usize, usize)) {
    for b in 0..batch {
        for c in 0..channels {
            for j in 0..kernel {
                let from = c + j;
                if from >= kernel / 2 && from < channels + kernel / 2 {
                    each(b * channels + c, b * channels + from - kernel / 2, j);
                }
            }
        }
    }
}

/// Assigns `out [batch, channels]`; `inp` has its shape.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], weight: &[T], batch: usize, channels: usize) {
    check_len("eca::forward", "out", out.len(), batch * channels);
    check_len("eca::forward", "inp", inp.len(), batch * channels);
    out.fill(T::ZERO);
    products(batch, channels, weight.len(), |o, i, j| out[o] += inp[i] * weight[j]);
}

/// Assigns `dinp [batch, channels]`; `dout` has its shape.
pub fn backward_input<T: Float>(dinp: &mut [T], dout: &[T], weight: &[T], batch: usize, channels: usize) {
    check_len("eca::backward_input", "dinp", dinp.len(), batch * channels);
    check_len("eca::backward_input", "dout", dout.len(), batch * channels);
    dinp.fill(T::ZERO);
    products(batch, channels, weight.len(), |o, i, j| dinp[i] += dout[o] * weight[j]);
}

/// Adds to `dweight`; `dout` and `inp [batch, channels]`.
pub fn backward_weight<T: Float>(dweight: &mut [T], dout: &[T], inp: &[T], batch: usize, channels: usize) {
    check_len("eca::backward_weight", "dout", dout.len(), batch * channels);
    check_len("eca::backward_weight", "inp", inp.len(), batch * channels);
    let kernel = dweight.len();
    products(batch, channels, kernel, |o, i, j| dweight[j] += dout[o] * inp[i]);
}
