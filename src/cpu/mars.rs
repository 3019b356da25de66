//! Trainable projected gradient method (Tian et al. 2023), one tensor at a time: keep the drift `Δ = w − w0` of a
//! tensor within a radius `gamma`, and learn that radius.
//!
//! ```text
//! n_r     = Σ_c |Δ_rc|   (MARS: maximum absolute row sum)      or   n = ‖Δ‖₂ of the whole tensor, one row   (L2)
//! gamma  ← clamp(gamma, 1e-8, max_r n_r)                       unless max_r n_r < 1e-8: nothing has moved
//! ratio_r = clamp(gamma / (n_r + 1e-8), 0, 1)
//! out_r   = w0_r + ratio_r · Δ_r
//!
//! dgamma  = Σ_r [0 < gamma / (n_r + 1e-8) < 1] · ⟨g_r, Δ_r⟩ / (n_r + 1e-8)      g = ∂L_val/∂out
//! ```
//!
//! `w`, `w0`, `out` and `g` are `[rows, cols]`, `n` is `[rows]`. [`Norm::rows`] gives the rows for a shape.
//! No derivative flows through the norms, `w` or `w0`. A row whose ratio is exactly 1 gives nothing.

use super::{Float, check_len};
use crate::shapes::Norm;

/// Keeps a ratio finite, and is the smallest radius and the smallest drift that counts.
pub const TINY: f64 = 1e-8;
/// β₁ and β₂ of Adam on the radii.
pub const RADIUS_BETAS: (f64, f64) = (0.9, 0.999);
/// Epsilon of Adam on the radii.
pub const RADIUS_EPS: f64 = 1e-8;

/// Assigns `n [rows]`, the norm of each row's drift. For L2 the whole tensor is the one row.
pub fn norms<T: Float>(n: &mut [T], w: &[T], w0: &[T], rows: usize, cols: usize, norm: Norm) {
    let op = "mars::norms";
    check_len(op, "n", n.len(), rows);
    check_len(op, "w", w.len(), rows * cols);
    check_len(op, "w0", w0.len(), rows * cols);
    assert!(norm == Norm::Mars || rows == 1, "{op}: L2 takes the tensor as one row, not {rows} (Norm::rows)");
    for r in 0..rows {
        let mut sum = T::ZERO;
        for i in r * cols..(r + 1) * cols {
            let delta = w[i] - w0[i];
            sum += match norm {
                Norm::Mars => delta.abs(),
                Norm::L2 => delta * delta,
            };
        }
        n[r] = match norm {
            Norm::Mars => sum,
            Norm::L2 => sum.sqrt(),
        };
    }
}

/// The radius within its bounds, `[1e-8, max_r n_r]`; `None` when the tensor has not moved, and both the radius and
/// the tensor stay as they are. `n [rows]`.
pub fn clip_radius<T: Float>(gamma: T, n: &[T]) -> Option<T> {
    let mut largest = T::ZERO;
    for r in 0..n.len() {
        largest = largest.max(n[r]);
    }
    let tiny = T::from_f64(TINY);
    if largest < tiny { None } else { Some(clamp(gamma, tiny, largest)) }
}

/// The radius that the first update ever starts from, before its bounds: `min_r n_r / 2`. `n [rows]`.
pub fn initial_radius<T: Float>(n: &[T]) -> T {
    let mut smallest = n[0];
    for r in 0..n.len() {
        smallest = smallest.min(n[r]);
    }
    smallest / T::from_f64(2.0)
}

/// Assigns `out [rows, cols]`: each row of `w`, drawn back towards `w0` as far as the radius asks. `n [rows]`.
pub fn project<T: Float>(out: &mut [T], w: &[T], w0: &[T], gamma: T, n: &[T], rows: usize, cols: usize) {
    let op = "mars::project";
    check_len(op, "out", out.len(), rows * cols);
    check_len(op, "w", w.len(), rows * cols);
    check_len(op, "w0", w0.len(), rows * cols);
    check_len(op, "n", n.len(), rows);
    for r in 0..rows {
        let ratio = clamp(gamma / (n[r] + T::from_f64(TINY)), T::ZERO, T::ONE);
        for i in r * cols..(r + 1) * cols {
            out[i] = w0[i] + ratio * (w[i] - w0[i]);
        }
    }
}

/// `(dgamma, active_rows)`: the derivative of the loss in the radius, and how many rows gave to it. With no active
/// row the radius is dead: its gradient is zero until a row leaves the ball. `g [rows, cols]` is the gradient of the
/// loss at the projected weights, `n [rows]`.
pub fn radius_backward<T: Float>(
    g: &[T],
    w: &[T],
    w0: &[T],
    gamma: T,
    n: &[T],
    rows: usize,
    cols: usize,
) -> (T, usize) {
    let op = "mars::radius_backward";
    check_len(op, "g", g.len(), rows * cols);
    check_len(op, "w", w.len(), rows * cols);
    check_len(op, "w0", w0.len(), rows * cols);
    check_len(op, "n", n.len(), rows);
    let (mut dgamma, mut active_rows) = (T::ZERO, 0);
    for r in 0..rows {
        let bound = n[r] + T::from_f64(TINY);
        let ratio = gamma / bound;
        if T::ZERO < ratio && ratio < T::ONE {
            let mut dot = T::ZERO;
            for i in r * cols..(r + 1) * cols {
                dot += g[i] * (w[i] - w0[i]);
            }
            dgamma += dot / bound;
            active_rows += 1;
        }
    }
    (dgamma, active_rows)
}

/// Not by way of `min` and `max`, which lose a NaN: a broken radius would quietly put the tensor back at its anchor.
fn clamp<T: Float>(x: T, low: T, high: T) -> T {
    if x < low {
        low
    } else if x > high {
        high
    } else {
        x
    }
}
