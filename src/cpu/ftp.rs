//! Fast trainable projection (Tian et al., NeurIPS 2023), one tensor at a time: the radius is learned from the training
//! gradient. `c` is the drift of the weights after the optimiser's update and before their projection.
//!
//! ```text
//! n_r    = Σ_c |c_rc| + 1e-8
//! dgamma = Σ_r ⟨dw_r, c_r⟩ / n_r        c and n of the step before; times k where positive; then Adam, counted by step
//! gamma ← clamp(gamma, 1e-8, max_r n_r);   w_r = w0_r + clamp(gamma / n_r, 0, 1) · c_r
//! ```

use super::mars::{RADIUS_BETAS, RADIUS_EPS, TINY};
use super::{Float, adamw, check_len};

/// A tensor's radius and the moments of its Adam.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Radius<T> {
    /// γ.
    pub gamma: T,
    /// First moment.
    pub m: T,
    /// Second moment.
    pub v: T,
}

/// The norms `n [rows]` of `c [rows, cols]`.
fn norms<T: Float>(c: &[T], cols: usize) -> Vec<T> {
    let sum = |row: &[T]| row.iter().fold(T::ZERO, |sum, c| sum + c.abs());
    c.chunks(cols).map(|row| sum(row) + T::from_f64(TINY)).collect()
}

/// The radius's step number `t`, counted from 1: at the first the smallest radius, then an Adam step of rate `lr` by the
/// training gradient `dw [rows, cols]` and the drift `c [rows, cols]` of the step before. Returns its gradient.
pub fn learn<T: Float>(radius: &mut Radius<T>, dw: &[T], c: &[T], cols: usize, lr: f64, k: f64, t: u32) -> T {
    check_len("ftp::learn", "dw", dw.len(), c.len());
    if t == 1 {
        *radius = Radius { gamma: T::from_f64(TINY), ..Radius::default() };
        return T::ZERO;
    }
    let mut gradient = T::ZERO;
    for ((dw, c), n) in dw.chunks(cols).zip(c.chunks(cols)).zip(norms(c, cols)) {
        gradient += dw.iter().zip(c).fold(T::ZERO, |sum, (dw, c)| sum + *dw * *c) / n;
    }
    if gradient > T::ZERO {
        gradient = gradient * T::from_f64(k);
    }
    let ([mut gamma, mut m, mut v], (beta1, beta2)) = ([radius.gamma, radius.m, radius.v].map(|x| [x]), RADIUS_BETAS);
    adamw::step(&mut gamma, &mut m, &mut v, &[gradient], lr, beta1, beta2, RADIUS_EPS, 0.0, t, T::ONE);
    *radius = Radius { gamma: gamma[0], m: m[0], v: v[0] };
    gradient
}

/// Projects `w [rows, cols]` after the optimiser's update; returns its drift before that.
pub fn apply<T: Float>(radius: &mut Radius<T>, w: &mut [T], w0: &[T], cols: usize) -> Vec<T> {
    check_len("ftp::apply", "w0", w0.len(), w.len());
    let c: Vec<T> = w.iter().zip(w0).map(|(w, w0)| *w - *w0).collect();
    let n = norms(&c, cols);
    let largest = n.iter().fold(T::ZERO, |a, b| a.max(*b));
    let tiny = T::from_f64(TINY);
    if radius.gamma < tiny {
        radius.gamma = tiny;
    } else if radius.gamma > largest {
        radius.gamma = largest;
    }
    for i in 0..w.len() {
        let ratio = radius.gamma / n[i / cols];
        w[i] = w0[i] + if ratio > T::ONE { T::ONE } else { ratio } * c[i];
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_are_those_worked_out_by_hand() {
        // Rows (1, −1) and (0, 3): norms 2 and 3. The first radius is 1e-8.
        let (w0, mut w, mut radius) = ([1.0; 4], [2.0, 0.0, 1.0, 4.0], Radius::<f64>::default());
        assert_eq!(learn(&mut radius, &[0.0; 4], &[0.0; 4], 2, 0.01, 1.0, 1), 0.0);
        let c = apply(&mut radius, &mut w, &w0, 2);
        assert_eq!((c.as_slice(), radius.gamma), ([1.0, -1.0, 0.0, 3.0].as_slice(), 1e-8));
        assert!((w[3] - 1.0 - 1e-8).abs() < 1e-15, "{}", w[3]);
        // ⟨(1, 1), (1, −1)⟩/2 + ⟨(0, 2), (0, 3)⟩/3 = 2, halved by k.
        let gradient = learn(&mut radius, &[1.0, 1.0, 0.0, 2.0], &c, 2, 0.01, 0.5, 2);
        assert!((gradient - 1.0).abs() < 1e-7, "{gradient}");
        // m = 0.1, v = 0.001, corrected by 1 − 0.9² and 1 − 0.999²: a step of 0.01 · 0.52632 / 0.70728 down.
        let step = 0.01 * (0.1 / 0.19) / ((0.001f64 / (1.0 - 0.999 * 0.999)).sqrt() + 1e-8);
        assert!((radius.gamma - (1e-8 - step)).abs() < 1e-9, "{}", radius.gamma);
        let mut w = [2.0, 0.0, 1.0, 4.0];
        apply(&mut radius, &mut w, &w0, 2);
        assert_eq!(radius.gamma, 1e-8);
    }

    #[test]
    fn a_wide_radius_lets_everything_through() {
        let (w0, mut w, mut radius) = ([0.0; 2], [0.5, -2.0], Radius { gamma: 9.0, m: 0.0, v: 0.0 });
        apply(&mut radius, &mut w, &w0, 1);
        assert_eq!((w, radius.gamma), ([0.5, -2.0], 2.0 + TINY));
    }
}
