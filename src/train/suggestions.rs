//! What to try next, for the page of a run that is over: the rules of [`advice`](crate::train::advice), and those that need the
//! evaluations of the whole run. docs/advice.md has all of them in words.

use std::cmp::Ordering;

use crate::train::advice::{Course, advice};
use crate::train::events::TestResult;
use crate::train::records::{EvaluationLine, Weights, from_bits};

/// The figures and settings of a run that is over.
pub(super) struct Story<'a> {
    pub(super) course: Course<'a>,
    /// Results on the test sets.
    pub(super) tests: &'a [TestResult],
    /// Whether the method is plain fine-tuning.
    pub(super) plain: bool,
    /// A note about classes of very unequal size, if they are.
    pub(super) unequal: Option<String>,
    /// Whether the best weights are those with the highest top-1.
    pub(super) by_top1: bool,
}

/// Half of the 95 % interval of a share that was `right` of `images` (Agresti and Coull 1998).
fn half_width(right: f64, images: f64) -> f64 {
    let share = (right + 2.0) / (images + 4.0);
    1.96 * (share * (1.0 - share) / (images + 4.0)).sqrt()
}

/// Too little validation data: accuracy on it is known to no better than 5 points.
fn few_images(run: &Story) -> Option<String> {
    let held_out = run.course.held_out?;
    let images: usize = held_out.per_class.iter().map(|class| class.0).sum();
    let half = half_width(held_out.top1 * images as f64, images as f64);
    (images > 0 && half > 0.05).then(|| {
        format!(
            "too little validation data: {} has {images} images, so that an accuracy of {:.1} % is known to ±{:.1} points; choices made \
             on it are partly chance: give it more images (--val-share, or a larger --val)",
            held_out.name,
            100.0 * held_out.top1,
            100.0 * half
        )
    })
}

/// Mean of `a` minus `b` in images that are right, and the standard error of that, image by image.
fn paired(a: &[bool], b: &[bool]) -> Option<(f64, f64)> {
    let n = a.len() as f64;
    let each = || a.iter().zip(b).map(|(a, b)| f64::from(u8::from(*a)) - f64::from(u8::from(*b)));
    let mean = each().sum::<f64>() / n;
    let variance = each().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (a.len() == b.len() && n > 1.0).then(|| (mean, (variance / n).sqrt()))
}

/// Validation can't tell the best evaluation from the last: it is better, and not by two standard errors.
fn cannot_tell(run: &Story) -> Option<String> {
    if !run.by_top1 {
        return None;
    }
    let known = |e: &&EvaluationLine| e.top1.is_some_and(f64::is_finite);
    let evaluations: Vec<&EvaluationLine> = run.course.evaluations.iter().filter(known).collect();
    let last = *evaluations.last()?;
    // As the run chooses: of equals the one with less loss, then the first.
    let score = |e: &EvaluationLine| (e.top1, e.loss.map(|loss| -loss));
    let better = |a: &&EvaluationLine, b: &&EvaluationLine| score(a).partial_cmp(&score(b)).unwrap_or(Ordering::Equal);
    let best = evaluations.iter().rev().copied().max_by(better)?;
    let right = |e: &EvaluationLine| from_bits(e.right.as_ref()?, usize::try_from(e.images?).ok()?);
    let (gain, error) = paired(&right(best)?, &right(last)?)?;
    (gain > 0.0 && gain < 2.0 * error).then(|| {
        format!(
            "{} can't tell its best evaluation (step {}, {:.1} %) from the last ({:.1} %): they differ by {:.1} ± {:.1} points; give it \
             more images, or take last.safetensors",
            last.set,
            best.step,
            100.0 * best.top1.unwrap_or(f64::NAN),
            100.0 * last.top1.unwrap_or(f64::NAN),
            100.0 * gain,
            200.0 * error
        )
    })
}

/// Fine-tuning cost accuracy out of distribution: by more than two standard errors over all images of those sets.
fn lost_out_of_distribution(run: &Story) -> Option<String> {
    let ood = |model: Weights| {
        run.tests.iter().filter(move |t| t.model == model && t.id == Some(false) && t.corruption.is_none())
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for old in ood(Weights::Pretrained) {
        let new = ood(Weights::Best).chain(ood(Weights::Last)).find(|new| new.name == old.name)?;
        before.extend(&old.evaluation.right);
        after.extend(&new.evaluation.right);
    }
    let (change, error) = paired(&after, &before)?;
    let share = |right: &[bool]| 100.0 * right.iter().filter(|right| **right).count() as f64 / right.len() as f64;
    (change < -2.0 * error).then(|| {
        let next = match run.plain {
            true => "--method tpgm holds the weights nearer, and `tpgm wise` looks for a place between both",
            false => "`tpgm wise` looks for a place between both, and `tpgm compare` tries other methods",
        };
        format!(
            "fine-tuning cost {:.1} ± {:.1} points out of distribution ({:.1} % before, {:.1} % after): {next}",
            -100.0 * change,
            200.0 * error,
            share(&before),
            share(&after)
        )
    })
}

/// All that the run's figures suggest, the gravest first.
pub(super) fn suggestions(run: &Story) -> Vec<String> {
    let rules = [lost_out_of_distribution, few_images, cannot_tell];
    let course = advice(&run.course);
    course.into_iter().chain(run.unequal.clone()).chain(rules.iter().filter_map(|rule| rule(run))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Flags;
    use crate::train::advice::HeldOut;
    use crate::train::evaluate::{Evaluation, Tally};
    use crate::train::optim_args::OptimArgs;
    use crate::train::records::bits;
    use crate::train::tta::Tta;

    /// Of images of which the first `right` of `of` are right.
    fn evaluation(right: usize, of: usize) -> Evaluation {
        let mut tally = Tally::new(2, None);
        (0..of).for_each(|i| tally.add(&[1.0, 0.0], usize::from(i >= right)));
        tally.finish()
    }

    fn settings() -> OptimArgs {
        Flags::parse("--model m --train t --epochs 2".split_whitespace()).unwrap().resolve(None).unwrap().optim
    }

    /// A test set's result.
    fn result(name: &str, model: Weights, id: bool, right: usize, of: usize) -> TestResult {
        let (name, id, evaluation) = (name.into(), Some(id), evaluation(right, of));
        TestResult { name, model, id, corruption: None, subset: None, tta: Tta::None, evaluation }
    }

    fn told(
        top1: f64,
        per_class: &[(usize, usize)],
        evaluations: &[EvaluationLine],
        tests: &[TestResult],
    ) -> Vec<String> {
        let settings = settings();
        let held_out = Some(HeldOut { name: "val", top1, per_class });
        let course = Course { losses: &[0.5; 8], classes: 2, settings: &settings, steps: 8, held_out, evaluations };
        suggestions(&Story { course, tests, plain: true, unequal: None, by_top1: true })
    }

    #[test]
    fn too_few_images_are_told_with_what_they_can_say() {
        let text = told(0.75, &[(20, 15), (20, 15)], &[], &[]);
        assert!(text.len() == 1 && text[0].starts_with("too little validation data: val has 40 images"), "{text:?}");
        // Agresti and Coull: (30 + 2) / 44 = 0.727, 1.96 · √(0.727 · 0.273 / 44) = 0.132.
        assert!(text[0].contains("an accuracy of 75.0 % is known to ±13.2 points"), "{text:?}");
        assert!(told(0.75, &[(1000, 750), (1000, 750)], &[], &[]).is_empty());
    }

    #[test]
    fn evaluations_are_told_apart_image_by_image() {
        let line = |step: u64, right: &dyn Fn(usize) -> bool| -> EvaluationLine {
            let right: Vec<bool> = (0..2000).map(right).collect();
            let top1 = right.iter().filter(|right| **right).count() as f64 / 2000.0;
            let line =
                serde_json::json!({"step": step, "eval": "val", "images": 2000, "top1": top1, "right": bits(&right)});
            serde_json::from_value(line).unwrap()
        };
        let of = |evaluations: &[EvaluationLine]| told(0.7, &[(1000, 700), (1000, 700)], evaluations, &[]);
        // One image more, of others: that says nothing. A hundred more of the same: that does.
        let (some, others) = (line(4, &|i| i < 1401), line(8, &|i| i >= 600));
        let text = of(&[some.clone(), others]);
        assert!(
            text.len() == 1 && text[0].starts_with("val can't tell its best evaluation (step 4, 70.0 %)"),
            "{text:?}"
        );
        assert!(of(&[some.clone(), line(8, &|i| i < 1301)]).is_empty());
        assert!(of(&[some.clone(), some]).is_empty(), "as good as the last");
    }

    #[test]
    fn what_was_lost_out_of_distribution_is_told() {
        let enough = [(1000, 700), (1000, 700)];
        let tests = |after: usize| {
            [
                result("id", Weights::Pretrained, true, 100, 400),
                result("ood", Weights::Pretrained, false, 300, 400),
                result("id", Weights::Last, true, 10, 400),
                result("ood", Weights::Last, false, after, 400),
            ]
        };
        let text = told(0.7, &enough, &[], &tests(200));
        assert!(
            text.len() == 1
                && text[0].contains("cost 25.0 ± 4.3 points out of distribution (75.0 % before, 50.0 % after)"),
            "{text:?}"
        );
        assert!(text[0].contains("--method tpgm"), "{text:?}");
        assert!(told(0.7, &enough, &[], &tests(298)).is_empty() && told(0.7, &enough, &[], &tests(350)).is_empty());
    }
}
