//! Clipping by the global norm, as `torch.nn.utils.clip_grad_norm_`.
//!
//! ```text
//! norm  = √(Σ over all elements of all gradients of g²)
//! scale = min(max_norm / (norm + 1e-6), 1)
//! ```

use super::Float;

/// The L2 norm of all gradients together; each of `grads` is one tensor of any length.
pub fn norm<T: Float>(grads: &[&[T]]) -> T {
    let mut squares = T::ZERO;
    for grad in grads {
        for &g in *grad {
            squares += g * g;
        }
    }
    squares.sqrt()
}

/// What every gradient is to be multiplied by. A norm that is not a number gives a scale that is not a number.
pub fn scale<T: Float>(norm: T, max_norm: f64) -> T {
    let scale = T::from_f64(max_norm) / (norm + T::from_f64(1e-6));
    if scale > T::ONE { T::ONE } else { scale }
}

#[cfg(test)]
mod tests {
    use super::{norm, scale};

    // p = [torch.zeros(2, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]
    // p[0].grad, p[1].grad = torch.tensor([1., -2.], dtype=torch.float64), torch.tensor([2.], dtype=torch.float64)
    // print(torch.nn.utils.clip_grad_norm_(p, 1.5), p[0].grad[0])
    #[test]
    fn agrees_with_pytorch() {
        let norm: f64 = norm(&[&[1.0, -2.0], &[2.0]]);
        assert_eq!(norm, 3.0);
        assert!((scale(norm, 1.5) - 0.4999998333333889).abs() <= 1e-16);
        assert_eq!(scale(norm, 3.5), 1.0, "a small gradient is left alone");
        assert!(scale(f64::NAN, 1.0).is_nan(), "a broken gradient must not look like a fine one");
    }
}
