//! Global response normalisation (Woo et al. 2023, ConvNeXt V2).
//!
//! ```text
//! out = inp · (1 + weight · s) + bias      s[b, c] = norm[b, c] / (mean_c norm[b, c] + eps),   norm = √(Σ_rows inp²)
//!
//! dinp = dout · (1 + weight · s) + inp · dnorm / norm
//! dnorm[b, c] = r · weight / m − Σ_c (r · weight · norm) / (cols · m²)      r = Σ_rows dout · inp,   m = mean_c norm + eps
//! dweight += Σ_b r · s,   dbias += Σ dout
//! ```
//!
//! Where a channel is zero everywhere, its norm has no gradient.

use super::{Float, check_len};

/// Assigns `out [batch, rows, cols]`, `norm [batch, cols]` and `inverse [batch]`, 1 / m; `inp [batch, rows, cols]`, `weight` and
/// `bias [cols]`.
pub fn forward<T: Float>(
    out: &mut [T],
    norm: &mut [T],
    inverse: &mut [T],
    inp: &[T],
    weight: &[T],
    bias: &[T],
    eps: f64,
    batch: usize,
    rows: usize,
    cols: usize,
) {
    check_len("grn::forward", "out", out.len(), batch * rows * cols);
    check_len("grn::forward", "inp", inp.len(), batch * rows * cols);
    check_len("grn::forward", "norm", norm.len(), batch * cols);
    check_len("grn::forward", "inverse", inverse.len(), batch);
    for b in 0..batch {
        let mut mean = T::ZERO;
        for c in 0..cols {
            let mut squares = T::ZERO;
            for row in 0..rows {
                let x = inp[(b * rows + row) * cols + c];
                squares += x * x;
            }
            norm[b * cols + c] = squares.sqrt();
            mean += norm[b * cols + c] / T::from_f64(cols as f64);
        }
        inverse[b] = T::ONE / (mean + T::from_f64(eps));
        for row in 0..rows {
            for c in 0..cols {
                let i = (b * rows + row) * cols + c;
                out[i] = inp[i] * (T::ONE + weight[c] * norm[b * cols + c] * inverse[b]) + bias[c];
            }
        }
    }
}

/// Assigns `dinp [batch, rows, cols]`; adds to `dweight` and `dbias [cols]`. The rest is forward's.
pub fn backward<T: Float>(
    dinp: &mut [T],
    dweight: &mut [T],
    dbias: &mut [T],
    dout: &[T],
    inp: &[T],
    weight: &[T],
    norm: &[T],
    inverse: &[T],
    batch: usize,
    rows: usize,
    cols: usize,
) {
    check_len("grn::backward", "dinp", dinp.len(), batch * rows * cols);
    check_len("grn::backward", "dout", dout.len(), batch * rows * cols);
    check_len("grn::backward", "inp", inp.len(), batch * rows * cols);
    for b in 0..batch {
        let (mut products, mut through_mean) = (vec![T::ZERO; cols], T::ZERO);
        for c in 0..cols {
            for row in 0..rows {
                let i = (b * rows + row) * cols + c;
                products[c] += dout[i] * inp[i];
                dbias[c] += dout[i];
            }
            let n = norm[b * cols + c];
            dweight[c] += products[c] * n * inverse[b];
            through_mean += products[c] * weight[c] * n * inverse[b] * inverse[b] / T::from_f64(cols as f64);
        }
        for row in 0..rows {
            for c in 0..cols {
                let (i, n) = ((b * rows + row) * cols + c, norm[b * cols + c]);
                let dnorm = products[c] * weight[c] * inverse[b] - through_mean;
                let slope = if n > T::ZERO { dnorm / n } else { T::ZERO };
                dinp[i] = dout[i] * (T::ONE + weight[c] * n * inverse[b]) + inp[i] * slope;
            }
        }
    }
}
