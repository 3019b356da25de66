//! Directional gradient projection (Huang et al., ICLR 2025, algorithm 1), one tensor at a time: where `⟨dw, w − w0⟩ < 0`,
//! `dw −= omega · ⟨dw, d⟩/‖d‖² · d` with `d = w − w0`; omega in [0, 1] by Adam from `cos(dw, proj)`, proj being the last step's.

use super::{Float, check_len};

/// What a tensor keeps from step to step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensor<T> {
    /// The share that is taken out.
    pub omega: T,
    /// Adam's first moment.
    pub m: T,
    /// Adam's second moment.
    pub v: T,
    /// The last step's proj `[n]`; empty before the first.
    pub proj: Vec<T>,
}

fn dot<T: Float>(a: &[T], b: &[T]) -> T {
    a.iter().zip(b).fold(T::ZERO, |sum, (a, b)| sum + *a * *b)
}

/// Step `t`, counted from 1: learns omega at rate `lr`, and projects `dw [n]`, the gradient at `w [n]` near the anchor `w0 [n]`.
pub fn step<T: Float>(tensor: &mut Tensor<T>, dw: &mut [T], w: &[T], w0: &[T], lr: f64, t: u32) {
    check_len("digrap", "w", w.len(), dw.len());
    check_len("digrap", "w0", w0.len(), dw.len());
    let c = T::from_f64;
    let drift: Vec<T> = w.iter().zip(w0).map(|(w, w0)| *w - *w0).collect();
    let (along, distance) = (dot(dw, &drift), dot(&drift, &drift));
    if t > 1 {
        let norms = (dot(dw, dw) * dot(&tensor.proj, &tensor.proj)).sqrt();
        let cosine = if norms > T::ZERO { dot(dw, &tensor.proj) / norms } else { T::ZERO };
        tensor.m = c(0.9) * tensor.m + c(0.1) * cosine;
        tensor.v = c(0.999) * tensor.v + c(0.001) * cosine * cosine;
        let m_hat = tensor.m / c(1.0 - 0.9f64.powi(t as i32));
        let v_hat = tensor.v / c(1.0 - 0.999f64.powi(t as i32));
        let omega = tensor.omega - c(lr) * m_hat / (v_hat.sqrt() + c(1e-8));
        tensor.omega = omega.max(T::ZERO).min(c(1.0));
    }
    let share = if distance > T::ZERO { along / distance } else { T::ZERO };
    tensor.proj = drift.iter().map(|d| share * *d).collect();
    if along < T::ZERO {
        dw.iter_mut().zip(&tensor.proj).for_each(|(dw, proj)| *dw = *dw - tensor.omega * *proj);
    }
}

#[cfg(test)]
mod tests {
    use super::{Tensor, step};

    #[test]
    fn a_full_share_leaves_what_is_orthogonal_to_the_way_from_the_anchor() {
        let tensor = |omega| Tensor { omega, proj: vec![0.0; 2], ..Tensor::default() };
        let after = |omega, mut dw: [f64; 2]| {
            step(&mut tensor(omega), &mut dw, &[3.0, 1.0], &[1.0, 1.0], 0.1, 2);
            dw
        };
        // Against the gradient, on from the anchor.
        assert_eq!(after(1.0, [-4.0, 5.0]), [0.0, 5.0]);
        assert_eq!(after(0.5, [-4.0, 5.0]), [-2.0, 5.0]);
        assert_eq!(after(1.0, [4.0, 5.0]), [4.0, 5.0]);
        // At the anchor nothing conflicts.
        let (mut at, mut dw) = (Tensor::default(), [-4.0, 5.0]);
        step(&mut at, &mut dw, &[1.0, 1.0], &[1.0, 1.0], 0.1, 1);
        assert_eq!((dw, at.omega), ([-4.0, 5.0], 0.0));
    }

    #[test]
    fn omega_grows_where_the_last_projection_was_against_the_gradient_and_stays_within_bounds() {
        let grown = |proj: [f64; 2]| {
            let mut tensor = Tensor { proj: proj.to_vec(), ..Tensor::default() };
            step(&mut tensor, &mut [1.0, 0.0], &[1.0, 1.0], &[0.0, 0.0], 0.1, 2);
            tensor.omega
        };
        assert!(grown([-2.0, 0.0]) > 0.0 && grown([2.0, 0.0]) == 0.0);
        let mut tensor = Tensor { proj: vec![-1.0, 0.0], omega: 0.99, ..Tensor::default() };
        step(&mut tensor, &mut [1.0, 0.0], &[1.0, 1.0], &[0.0, 0.0], 0.5, 2);
        assert_eq!(tensor.omega, 1.0);
    }
}
