//! Matrix product, batched, with either side transposed and an optional bias.
//!
//! ```text
//! out_b (= | +=) op(a_b) · op(b_b) + bias        op(x) = x or xᵀ
//! ```
//!
//! One function serves a linear layer (`weight [D_out, D_in]`, as PyTorch stores it) in all three directions:
//!
//! ```text
//! out     = inp  · weightᵀ + bias    m = rows,  n = D_out, k = D_in,  trans_b
//! dinp    = dout · weight            m = rows,  n = D_in,  k = D_out
//! dweight += doutᵀ · inp             m = D_out, n = D_in,  k = rows,  trans_a, accumulate
//! ```

use super::{Float, check_len};

/// `out [batch, m, n]` is assigned, or added to with `accumulate`.
///
/// `a` is `[batch, m, k]`, or `[batch, k, m]` with `trans_a`; `b` is `[batch, k, n]`, or `[batch, n, k]` with
/// `trans_b`; `bias [n]` is shared by all rows and batches.
pub fn matmul<T: Float>(
    out: &mut [T],
    a: &[T],
    b: &[T],
    bias: Option<&[T]>,
    m: usize,
    n: usize,
    k: usize,
    trans_a: bool,
    trans_b: bool,
    accumulate: bool,
    batch: usize,
) {
    check_len("matmul", "out", out.len(), batch * m * n);
    check_len("matmul", "a", a.len(), batch * m * k);
    check_len("matmul", "b", b.len(), batch * k * n);
    if let Some(bias) = bias {
        check_len("matmul", "bias", bias.len(), n);
    }
    for s in 0..batch {
        for row in 0..m {
            for col in 0..n {
                let mut sum = T::ZERO;
                for i in 0..k {
                    let left = if trans_a { a[(s * k + i) * m + row] } else { a[(s * m + row) * k + i] };
                    let right = if trans_b { b[(s * n + col) * k + i] } else { b[(s * k + i) * n + col] };
                    sum += left * right;
                }
                if let Some(bias) = bias {
                    sum += bias[col];
                }
                let cell = &mut out[(s * m + row) * n + col];
                *cell = if accumulate { *cell + sum } else { sum };
            }
        }
    }
}
