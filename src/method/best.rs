//! Which of several models is the best.

/// The best of several (accuracy, loss): the most accurate, of these the one with the least loss, of these the first. An
/// accuracy that is not a number is never the best; none without another.
pub fn best(scores: &[(f64, f64)]) -> Option<usize> {
    let sound = scores.iter().enumerate().filter(|(_, (top1, _))| top1.is_finite());
    let mut best: Option<(usize, (f64, f64))> = None;
    for (i, &(top1, loss)) in sound {
        let better = |(_, (best_top1, best_loss)): (usize, (f64, f64))| {
            top1 > best_top1 || (top1 == best_top1 && (loss < best_loss || (best_loss.is_nan() && !loss.is_nan())))
        };
        if best.is_none_or(better) {
            best = Some((i, (top1, loss)));
        }
    }
    best.map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn accuracy_decides_then_loss_then_order() {
        assert_eq!(best(&[(0.5, 1.0), (0.7, 2.0), (0.7, 1.5), (0.7, 1.5)]), Some(2));
        assert_eq!(best(&[(f64::NAN, 0.1), (0.2, f64::NAN), (0.2, 3.0)]), Some(2));
        assert_eq!(best(&[(f64::NAN, 0.1)]), None);
        assert_eq!(best(&[]), None);
    }
}
