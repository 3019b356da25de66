//! Group norm (Wu & He 2018): over the pixels of an image and the channels of a group.
//!
//! ```text
//! out = relu(x̂ · weight + bias),   x̂ = (inp − mean) · rstd,   rstd = 1 / √(var + eps), var biased
//!
//! g = dout where out > 0 (all of it without the ReLU)
//! dinp = rstd · (g · weight − mean_group(g · weight) − x̂ · mean_group(g · weight · x̂))
//! dweight += Σ g · x̂,   dbias += Σ g
//! ```
//!
//! A group is `cols / groups` channels side by side.

use super::{Float, check_len};

/// Assigns `out [batch, rows, cols]`, and `mean` and `rstd [batch, cols]`, those of a group for each of its channels;
/// `inp [batch, rows, cols]`, `weight` and `bias [cols]`.
pub fn forward<T: Float>(
    out: &mut [T],
    mean: &mut [T],
    rstd: &mut [T],
    inp: &[T],
    weight: &[T],
    bias: &[T],
    relu: bool,
    [batch, rows, cols, groups]: [usize; 4],
    eps: f64,
) {
    check_len("group_norm::forward", "out", out.len(), batch * rows * cols);
    check_len("group_norm::forward", "mean", mean.len(), batch * cols);
    check_len("group_norm::forward", "rstd", rstd.len(), batch * cols);
    check_len("group_norm::forward", "inp", inp.len(), batch * rows * cols);
    check_len("group_norm::forward", "weight", weight.len(), cols);
    check_len("group_norm::forward", "bias", bias.len(), cols);
    let width = cols / groups;
    let count = T::from_f64((rows * width) as f64);
    for (b, group) in (0..batch).flat_map(|b| (0..groups).map(move |group| (b, group))) {
        let channels = || group * width..(group + 1) * width;
        let at = |row: usize, c: usize| (b * rows + row) * cols + c;
        let all = || (0..rows).flat_map(|row| channels().map(move |c| (row, c)));
        let (mut sum, mut squares) = (T::ZERO, T::ZERO);
        all().for_each(|(row, c)| sum += inp[at(row, c)]);
        let mu = sum / count;
        all().for_each(|(row, c)| squares += (inp[at(row, c)] - mu) * (inp[at(row, c)] - mu));
        let r = T::ONE / (squares / count + T::from_f64(eps)).sqrt();
        for c in channels() {
            (mean[b * cols + c], rstd[b * cols + c]) = (mu, r);
        }
        for (row, c) in all() {
            let y = (inp[at(row, c)] - mu) * r * weight[c] + bias[c];
            out[at(row, c)] = if relu && y < T::ZERO { T::ZERO } else { y };
        }
    }
}

/// Assigns `dinp`; adds to `dweight` and `dbias`. `out` is the saved result of a ReLU, if there is one; the rest is as in
/// [`forward`].
pub fn backward<T: Float>(
    dinp: &mut [T],
    dweight: &mut [T],
    dbias: &mut [T],
    dout: &[T],
    out: Option<&[T]>,
    inp: &[T],
    weight: &[T],
    mean: &[T],
    rstd: &[T],
    [batch, rows, cols, groups]: [usize; 4],
) {
    check_len("group_norm::backward", "dinp", dinp.len(), batch * rows * cols);
    check_len("group_norm::backward", "dout", dout.len(), batch * rows * cols);
    check_len("group_norm::backward", "dweight", dweight.len(), cols);
    check_len("group_norm::backward", "dbias", dbias.len(), cols);
    let width = cols / groups;
    let count = T::from_f64((rows * width) as f64);
    let gradient = |i: usize| if out.is_some_and(|out| out[i] <= T::ZERO) { T::ZERO } else { dout[i] };
    for (b, group) in (0..batch).flat_map(|b| (0..groups).map(move |group| (b, group))) {
        let at = |row: usize, c: usize| (b * rows + row) * cols + c;
        let normal = |row: usize, c: usize| (inp[at(row, c)] - mean[b * cols + c]) * rstd[b * cols + c];
        let all = || (0..rows).flat_map(|row| (group * width..(group + 1) * width).map(move |c| (row, c)));
        let (mut through_mean, mut through_var) = (T::ZERO, T::ZERO);
        for (row, c) in all() {
            let g = gradient(at(row, c));
            dweight[c] += g * normal(row, c);
            dbias[c] += g;
            through_mean += g * weight[c] / count;
            through_var += g * weight[c] * normal(row, c) / count;
        }
        for (row, c) in all() {
            let g = gradient(at(row, c)) * weight[c];
            dinp[at(row, c)] = rstd[b * cols + c] * (g - through_mean - normal(row, c) * through_var);
        }
    }
}
