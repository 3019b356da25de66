//! Batch norm over the rows of a matrix (Ioffe & Szegedy 2015, algorithms 1 and 2): one row per pixel, one column per channel.
//!
//! ```text
//! x̂ = (inp − mean) · rstd,   out = x̂ · weight + bias,   rstd = 1 / √(var + eps), var biased
//!
//! train   mean and var of the batch;  running = (1 − momentum) · running + momentum · batch's, with the unbiased variance
//! eval    mean and var are the running ones
//!
//! dweight += Σ_rows dout · x̂
//! dbias   += Σ_rows dout
//! dinp = rstd · weight · (dout − Σ dout / rows − x̂ · Σ(dout · x̂) / rows)     train: through the statistics too
//! dinp = rstd · weight · dout                                                eval
//! ```

use super::{Float, check_len};

/// The batch's mean and biased variance of each column, into `mean` and `var [cols]`; `inp [rows, cols]`.
pub fn statistics<T: Float>(mean: &mut [T], var: &mut [T], inp: &[T], rows: usize, cols: usize) {
    let op = "batch_norm::statistics";
    check_len(op, "mean", mean.len(), cols);
    check_len(op, "var", var.len(), cols);
    check_len(op, "inp", inp.len(), rows * cols);
    let count = T::from_f64(rows as f64);
    for c in 0..cols {
        let mut sum = T::ZERO;
        for r in 0..rows {
            sum += inp[r * cols + c];
        }
        mean[c] = sum / count;
        let mut squares = T::ZERO;
        for r in 0..rows {
            squares += (inp[r * cols + c] - mean[c]) * (inp[r * cols + c] - mean[c]);
        }
        var[c] = squares / count;
    }
}

/// The mean and biased variance `[cols]` of the rows of several ranks, from how many each has, their mean and their biased variance
/// (Chan, Golub & `LeVeque` 1979); returns the number of all rows.
pub fn shared_statistics<T: Float>(mean: &mut [T], var: &mut [T], ranks: &[(usize, &[T], &[T])]) -> usize {
    mean.fill(T::ZERO);
    var.fill(T::ZERO);
    let mut count = 0;
    for &(rows, own_mean, own_var) in ranks {
        let [before, own] = [count, rows].map(|rows: usize| T::from_f64(rows as f64));
        let all = before + own;
        for c in 0..mean.len() {
            let delta = own_mean[c] - mean[c];
            mean[c] += delta * (own / all);
            var[c] = (var[c] * before + own_var[c] * own) / all + delta * delta * (before * own / (all * all));
        }
        count += rows;
    }
    count
}

/// Moves `running_mean` and `running_var [cols]` towards the batch's `mean` and biased `var [cols]` of `rows` rows, at
/// least two, as PyTorch does.
pub fn update_running<T: Float>(
    running_mean: &mut [T],
    running_var: &mut [T],
    mean: &[T],
    var: &[T],
    rows: usize,
    momentum: f64,
) {
    assert!(rows > 1, "batch_norm: one row has no variance");
    let (keep, take) = (T::from_f64(1.0 - momentum), T::from_f64(momentum));
    let unbiased = T::from_f64(rows as f64 / (rows as f64 - 1.0));
    for c in 0..mean.len() {
        running_mean[c] = keep * running_mean[c] + take * mean[c];
        running_var[c] = keep * running_var[c] + take * (var[c] * unbiased);
    }
}

/// Assigns `out [rows, cols]` and `rstd [cols]` from `mean` and `var`, the batch's or the running ones; `inp`, `shortcut
/// [rows, cols]`, `weight`, `bias [cols]`. `shortcut` is added, then with `relu` negative values become zero.
pub fn normalise<T: Float>(
    out: &mut [T],
    rstd: &mut [T],
    inp: &[T],
    mean: &[T],
    var: &[T],
    weight: &[T],
    bias: &[T],
    shortcut: Option<&[T]>,
    relu: bool,
    rows: usize,
    cols: usize,
    eps: f64,
) {
    let op = "batch_norm::normalise";
    check_len(op, "out", out.len(), rows * cols);
    check_len(op, "rstd", rstd.len(), cols);
    check_len(op, "inp", inp.len(), rows * cols);
    for (name, tensor) in [("mean", mean), ("var", var), ("weight", weight), ("bias", bias)] {
        check_len(op, name, tensor.len(), cols);
    }
    check_len(op, "shortcut", shortcut.map_or(rows * cols, <[T]>::len), rows * cols);
    for c in 0..cols {
        rstd[c] = T::ONE / (var[c] + T::from_f64(eps)).sqrt();
    }
    for r in 0..rows {
        for c in 0..cols {
            let i = r * cols + c;
            let normed = (inp[i] - mean[c]) * rstd[c] * weight[c] + bias[c];
            let sum = shortcut.map_or(normed, |shortcut| normed + shortcut[i]);
            out[i] = if relu { sum.max(T::ZERO) } else { sum };
        }
    }
}

/// Assigns `dinp [rows, cols]`, adds to `dweight` and `dbias [cols]`; `dout`, `inp [rows, cols]`, `weight`, `mean`, `rstd
/// [cols]`. `train` says whether mean and rstd were the batch's. A ReLU after the norm masks `dout` beforehand.
pub fn backward<T: Float>(
    dinp: &mut [T],
    dweight: &mut [T],
    dbias: &mut [T],
    dout: &[T],
    inp: &[T],
    weight: &[T],
    mean: &[T],
    rstd: &[T],
    train: bool,
    rows: usize,
    cols: usize,
) {
    let op = "batch_norm::backward";
    for (name, len) in [("dinp", dinp.len()), ("dout", dout.len()), ("inp", inp.len())] {
        check_len(op, name, len, rows * cols);
    }
    for (name, tensor) in [("dweight", &*dweight), ("dbias", dbias), ("weight", weight), ("mean", mean), ("rstd", rstd)]
    {
        check_len(op, name, tensor.len(), cols);
    }
    let count = T::from_f64(rows as f64);
    for c in 0..cols {
        let x_hat = |r: usize| (inp[r * cols + c] - mean[c]) * rstd[c];
        let (mut sum, mut sum_x) = (T::ZERO, T::ZERO);
        for r in 0..rows {
            sum += dout[r * cols + c];
            sum_x += dout[r * cols + c] * x_hat(r);
        }
        dweight[c] += sum_x;
        dbias[c] += sum;
        for r in 0..rows {
            let g = dout[r * cols + c];
            let through = if train { g - sum / count - x_hat(r) * (sum_x / count) } else { g };
            dinp[r * cols + c] = rstd[c] * weight[c] * through;
        }
    }
}
