//! Sharpness-aware minimisation (Foret et al., ICLR 2021): the weights up the slope, `w + rho · dw / (‖dw‖ + 1e-12)`.

use super::{Float, check_len};

/// `climbed [n]` from `w [n]` and its gradient `dw [n]`; as `w` where the gradient's norm is not finite.
pub fn climb<T: Float>(climbed: &mut [T], w: &[T], dw: &[T], rho: f64) {
    check_len("sam", "w", w.len(), climbed.len());
    check_len("sam", "dw", dw.len(), climbed.len());
    let norm = dw.iter().fold(T::ZERO, |sum, dw| sum + *dw * *dw).sqrt();
    climbed.copy_from_slice(w);
    if norm.to_f64().is_finite() {
        let factor = T::from_f64(rho) / (norm + T::from_f64(1e-12));
        for i in 0..w.len() {
            climbed[i] = w[i] + factor * dw[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::climb;

    #[test]
    fn the_way_up_has_the_length_of_rho() {
        let mut up = [0.0f64; 2];
        climb(&mut up, &[1.0, 2.0], &[3.0, 4.0], 0.5);
        assert!((up[0] - 1.3).abs() < 1e-12 && (up[1] - 2.4).abs() < 1e-12);
        climb(&mut up, &[1.0, 2.0], &[0.0, 0.0], 0.5);
        assert_eq!(up, [1.0, 2.0]);
        climb(&mut up, &[1.0, 2.0], &[f64::NAN, 4.0], 0.5);
        assert_eq!(up, [1.0, 2.0]);
    }
}
