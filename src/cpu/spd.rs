//! Selective projection decay (Tian et al., NeurIPS 2024), one tensor at a time: after a step `w → w'` where
//! `⟨dw, w − w0⟩ > 0`, dw being the gradient, so that −dw leads nearer to the anchor: `w' −= lambda · r · (w' − w0)`, `r = clamp((‖w' − w0‖ − ‖w − w0‖) / ‖w' − w0‖, 0, 1)`.

use super::{Float, check_len};

fn distance<T: Float>(w: &[T], w0: &[T]) -> T {
    w.iter().zip(w0).fold(T::ZERO, |sum, (w, w0)| sum + (*w - *w0) * (*w - *w0)).sqrt()
}

/// Pulls back `w [n]`, which was `before [n]` ahead of the optimiser's update by gradient `dw [n]`.
pub fn apply<T: Float>(w: &mut [T], before: &[T], w0: &[T], dw: &[T], lambda: f64) {
    check_len("spd::apply", "before", before.len(), w.len());
    check_len("spd::apply", "w0", w0.len(), w.len());
    check_len("spd::apply", "dw", dw.len(), w.len());
    let mut dot = T::ZERO;
    for i in 0..w.len() {
        dot += dw[i] * (before[i] - w0[i]);
    }
    let (old, new) = (distance(before, w0), distance(w, w0));
    // Then r is above 0, and at most 1 since `old` is no negative number.
    if dot > T::ZERO && new > old {
        let share = T::from_f64(lambda) * ((new - old) / new);
        for i in 0..w.len() {
            w[i] = w[i] - share * (w[i] - w0[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::apply;

    #[test]
    fn only_what_goes_further_away_against_its_gradient_is_pulled_back() {
        let (w0, before) = ([0.0, 0.0], [3.0, 0.0]);
        let pulled = |dw: [f64; 2], mut w: [f64; 2]| {
            apply(&mut w, &before, &w0, &dw, 0.5);
            w
        };
        // From 3 to 5: r = 2/5, half of which is taken.
        let near = |got: [f64; 2], want: [f64; 2]| got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-15);
        assert!(near(pulled([1.0, 0.0], [3.0, 4.0]), [2.4, 3.2]));
        assert_eq!(pulled([-1.0, 0.0], [3.0, 4.0]), [3.0, 4.0]);
        assert_eq!(pulled([1.0, 0.0], [2.0, 0.0]), [2.0, 0.0]);
    }
}
