//! Figures in which each class counts as much as any other, however many images it has.

use std::collections::BTreeMap;

/// Balanced accuracy: the mean, over the classes with images, of the share of its images that are right; NaN without images.
/// `per_class` has images and right ones.
pub fn balanced(per_class: &[(usize, usize)]) -> f64 {
    let there: Vec<f64> =
        per_class.iter().filter(|class| class.0 > 0).map(|(n, right)| *right as f64 / *n as f64).collect();
    there.iter().sum::<f64>() / there.len() as f64
}

/// The mean of F1 = 2·tp / (2·tp + fp + fn) over the classes that have images or are predicted, as scikit-learn's
/// `f1_score(average="macro")`; NaN without images. `confusion` has images by class and predicted class.
pub fn macro_f1(per_class: &[(usize, usize)], confusion: &BTreeMap<(u32, u32), u32>) -> f64 {
    let mut predicted = vec![0usize; per_class.len()];
    let mut right = vec![0usize; per_class.len()];
    for ((label, guess), images) in confusion {
        predicted[*guess as usize] += *images as usize;
        if label == guess {
            right[*guess as usize] += *images as usize;
        }
    }
    let of = |(class, (images, _)): (usize, &(usize, usize))| {
        let both = images + predicted[class];
        (both > 0).then(|| 2.0 * right[class] as f64 / both as f64)
    };
    let there: Vec<f64> = per_class.iter().enumerate().filter_map(of).collect();
    match per_class.iter().any(|class| class.0 > 0) {
        true => there.iter().sum::<f64>() / there.len() as f64,
        false => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // y, p = [0]*6 + [1]*2 + [2]*1, [0,0,0,0,0,1, 1,3, 0]
    // balanced_accuracy_score(y, p) = 0.4444444444444444; f1_score(y, p, average="macro") = 0.33333333333333337
    #[test]
    fn agrees_with_scikit_learn() {
        let per_class = [(6, 5), (2, 1), (1, 0), (0, 0), (0, 0)];
        let confusion = BTreeMap::from([((0, 0), 5), ((0, 1), 1), ((1, 1), 1), ((1, 3), 1), ((2, 0), 1)]);
        assert!((balanced(&per_class) - 0.4444444444444444).abs() < 1e-15);
        assert!(
            (macro_f1(&per_class, &confusion) - 0.33333333333333337).abs() < 1e-15,
            "{}",
            macro_f1(&per_class, &confusion)
        );
    }

    #[test]
    fn equal_classes_have_the_plain_accuracy() {
        assert_eq!(balanced(&[(4, 3), (4, 1), (0, 0)]), 0.5);
    }

    #[test]
    fn nothing_is_no_number() {
        assert!(balanced(&[(0, 0)]).is_nan() && macro_f1(&[(0, 0)], &BTreeMap::new()).is_nan());
    }
}
