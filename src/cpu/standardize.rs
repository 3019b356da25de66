//! Weight standardisation (Qiao et al. 2019): each row of a weight with a mean of 0 and a variance of 1.
//!
//! ```text
//! out = (inp − mean) · rstd,   rstd = 1 / √(var + eps), var biased
//!
//! dinp += rstd · (dout − mean(dout) − out · mean(dout · out))
//! ```

use super::{Float, check_len};

/// The row's mean and 1 / √(var + eps).
fn statistics<T: Float>(row: &[T], eps: f64) -> [T; 2] {
    let count = T::from_f64(row.len() as f64);
    let (mut sum, mut squares) = (T::ZERO, T::ZERO);
    row.iter().for_each(|x| sum += *x);
    let mean = sum / count;
    row.iter().for_each(|x| squares += (*x - mean) * (*x - mean));
    [mean, T::ONE / (squares / count + T::from_f64(eps)).sqrt()]
}

/// Assigns `out [rows, cols]`; `inp [rows, cols]`.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], rows: usize, cols: usize, eps: f64) {
    check_len("standardize::forward", "out", out.len(), rows * cols);
    check_len("standardize::forward", "inp", inp.len(), rows * cols);
    for (out, inp) in out.chunks_exact_mut(cols).zip(inp.chunks_exact(cols)) {
        let [mean, rstd] = statistics(inp, eps);
        out.iter_mut().zip(inp).for_each(|(y, x)| *y = (*x - mean) * rstd);
    }
}

/// Adds to `dinp [rows, cols]`; `dout` and `inp [rows, cols]`.
pub fn backward<T: Float>(dinp: &mut [T], dout: &[T], inp: &[T], rows: usize, cols: usize, eps: f64) {
    check_len("standardize::backward", "dinp", dinp.len(), rows * cols);
    check_len("standardize::backward", "dout", dout.len(), rows * cols);
    check_len("standardize::backward", "inp", inp.len(), rows * cols);
    let count = T::from_f64(cols as f64);
    for (dinp, (dout, inp)) in dinp.chunks_exact_mut(cols).zip(dout.chunks_exact(cols).zip(inp.chunks_exact(cols))) {
        let [mean, rstd] = statistics(inp, eps);
        let (mut through_mean, mut through_var) = (T::ZERO, T::ZERO);
        for (g, x) in dout.iter().zip(inp) {
            through_mean += *g / count;
            through_var += *g * (*x - mean) * rstd / count;
        }
        for (d, (g, x)) in dinp.iter_mut().zip(dout.iter().zip(inp)) {
            *d += rstd * (*g - through_mean - (*x - mean) * rstd * through_var);
        }
    }
}
