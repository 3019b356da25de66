//! Layer norm over the last dimension (Ba et al. 2016, eq. 4).
//!
//! ```text
//! x̂ = (inp − mean) · rstd,   out = x̂ · weight + bias,   rstd = 1 / √(var + eps), var biased
//!
//! dinp    += rstd · (g − mean(g) − x̂ · mean(g · x̂)),   g = dout · weight
//! dweight += Σ_rows dout · x̂
//! dbias   += Σ_rows dout
//! ```

use super::{Float, check_len};

/// Assigns `out [rows, cols]`, and for backward `mean [rows]` and `rstd [rows]`; `inp [rows, cols]`, `weight [cols]`,
/// `bias [cols]`.
pub fn forward<T: Float>(
    out: &mut [T],
    mean: &mut [T],
    rstd: &mut [T],
    inp: &[T],
    weight: &[T],
    bias: &[T],
    rows: usize,
    cols: usize,
    eps: f64,
) {
    let op = "layer_norm::forward";
    check_len(op, "out", out.len(), rows * cols);
    check_len(op, "mean", mean.len(), rows);
    check_len(op, "rstd", rstd.len(), rows);
    check_len(op, "inp", inp.len(), rows * cols);
    check_len(op, "weight", weight.len(), cols);
    check_len(op, "bias", bias.len(), cols);
    let count = T::from_f64(cols as f64);
    for r in 0..rows {
        let x = &inp[r * cols..][..cols];
        let mut sum = T::ZERO;
        for c in 0..cols {
            sum += x[c];
        }
        mean[r] = sum / count;
        let mut squares = T::ZERO;
        for c in 0..cols {
            squares += (x[c] - mean[r]) * (x[c] - mean[r]);
        }
        rstd[r] = T::ONE / (squares / count + T::from_f64(eps)).sqrt();
        for c in 0..cols {
            out[r * cols + c] = (x[c] - mean[r]) * rstd[r] * weight[c] + bias[c];
        }
    }
}

/// `dinp [rows, cols]` is added to, for the residual stream has other gradients; `dout`, `inp [rows, cols]`,
/// `weight [cols]`, `mean`, `rstd [rows]` from forward.
pub fn backward_input<T: Float>(
    dinp: &mut [T],
    dout: &[T],
    inp: &[T],
    weight: &[T],
    mean: &[T],
    rstd: &[T],
    rows: usize,
    cols: usize,
) {
    let op = "layer_norm::backward_input";
    check_len(op, "dinp", dinp.len(), rows * cols);
    check_len(op, "dout", dout.len(), rows * cols);
    check_len(op, "inp", inp.len(), rows * cols);
    check_len(op, "weight", weight.len(), cols);
    check_len(op, "mean", mean.len(), rows);
    check_len(op, "rstd", rstd.len(), rows);
    let count = T::from_f64(cols as f64);
    for r in 0..rows {
        let g = |c: usize| dout[r * cols + c] * weight[c];
        let x_hat = |c: usize| (inp[r * cols + c] - mean[r]) * rstd[r];
        let (mut sum_g, mut sum_gx) = (T::ZERO, T::ZERO);
        for c in 0..cols {
            sum_g += g(c);
            sum_gx += g(c) * x_hat(c);
        }
        for c in 0..cols {
            dinp[r * cols + c] += rstd[r] * (g(c) - sum_g / count - x_hat(c) * (sum_gx / count));
        }
    }
}

/// `dweight [cols]` and `dbias [cols]` are added to; `dout`, `inp [rows, cols]`, `mean`, `rstd [rows]` from forward.
pub fn backward_params<T: Float>(
    dweight: &mut [T],
    dbias: &mut [T],
    dout: &[T],
    inp: &[T],
    mean: &[T],
    rstd: &[T],
    rows: usize,
    cols: usize,
) {
    let op = "layer_norm::backward_params";
    check_len(op, "dweight", dweight.len(), cols);
    check_len(op, "dbias", dbias.len(), cols);
    check_len(op, "dout", dout.len(), rows * cols);
    check_len(op, "inp", inp.len(), rows * cols);
    check_len(op, "mean", mean.len(), rows);
    check_len(op, "rstd", rstd.len(), rows);
    for r in 0..rows {
        for c in 0..cols {
            let i = r * cols + c;
            dweight[c] += dout[i] * ((inp[i] - mean[r]) * rstd[r]);
            dbias[c] += dout[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::forward;

    // x = torch.tensor([[1., 2., 4.], [-0.5, 0., 0.25]], dtype=torch.float64)
    // w, b = torch.tensor([1., 2., -1.], dtype=torch.float64), torch.tensor([0., 0.5, 1.], dtype=torch.float64)
    // print(torch.native_layer_norm(x, [3], w, b, 1e-2))
    #[test]
    fn agrees_with_pytorch() {
        let (mut out, mut mean, mut rstd) = ([f64::NAN; 6], [f64::NAN; 2], [f64::NAN; 2]);
        let inp = [1.0, 2.0, 4.0, -0.5, 0.0, 0.25];
        forward(&mut out, &mut mean, &mut rstd, &inp, &[1.0, 2.0, -1.0], &[0.0, 0.5, 1.0], 2, 3, 1e-2);
        let want = [
            -1.0656252308941638,
            -0.03281261544708214,
            -0.3320315386177046,
            -1.2724664963982188,
            1.0089865985592876,
            -0.017973197118575257,
            2.3333333333333335,
            -0.08333333333333334,
            0.7992189231706228,
            3.0539195913557253,
        ];
        for (got, want) in out.iter().chain(&mean).chain(&rstd).zip(want) {
            assert!((got - want).abs() <= 1e-14, "{got} should be {want}");
        }
    }
}
