//! Advice: what a run's own figures say about its settings, and what to try next. Each rule is one function of [`Course`]; the
//! command line prints what they say at the end of a run.

use crate::train::optim_args::OptimArgs;
use crate::train::records::EvaluationLine;
use crate::train::schedule::Warmup;

/// The figures and settings of a run so far.
#[derive(Clone, Debug)]
pub struct Course<'a> {
    /// Training loss of each step so far.
    pub losses: &'a [f32],
    /// Outputs of the head.
    pub classes: usize,
    /// How the weights are trained.
    pub settings: &'a OptimArgs,
    /// Steps of the whole run.
    pub steps: u64,
    /// The last evaluation on held-out images, once the run is over.
    pub held_out: Option<HeldOut<'a>>,
    /// All evaluations on those images, in order, once the run is over.
    pub evaluations: &'a [EvaluationLine],
}

/// An evaluation on images that were not trained on.
#[derive(Clone, Copy, Debug)]
pub struct HeldOut<'a> {
    /// The split's name.
    pub name: &'a str,
    /// Share of its images that are right.
    pub top1: f64,
    /// Images of each class, whether any or none.
    pub per_class: &'a [(usize, usize)],
}

/// The share that a model gets right which always answers with the most frequent class, and how many images there are.
fn chance(per_class: &[(usize, usize)]) -> (f64, usize) {
    let images: usize = per_class.iter().map(|class| class.0).sum();
    let largest = per_class.iter().map(|class| class.0).max().unwrap_or(0);
    (largest as f64 / images.max(1) as f64, images)
}

/// Whether `top1` is no better than guessing: within two standard errors of always answering with the most frequent class.
/// `per_class` has images and right ones of each class.
pub fn is_at_chance(top1: f64, per_class: &[(usize, usize)]) -> bool {
    let (chance, images) = chance(per_class);
    let error = (chance * (1.0 - chance) / images.max(1) as f64).sqrt();
    images > 0 && chance < 1.0 && top1 <= chance + 2.0 * error
}

/// The first steps of a run, in which it shows whether the learning rate is far too large.
fn beginning(steps: u64) -> usize {
    usize::try_from(steps / 10).unwrap_or(usize::MAX).clamp(5, 50)
}

impl Course<'_> {
    /// The loss of guessing, ln C.
    fn guess(&self) -> f64 {
        (self.classes.max(2) as f64).ln()
    }

    /// The settings that tame a loss that explodes.
    fn gentler(&self) -> String {
        let s = self.settings;
        let mut flags = vec![format!("--lr {}", rounded(s.lr / 10.0))];
        let (warmup, tenth) = (s.warmup_steps.steps(self.steps), Warmup::Percent(10.0));
        // One that is longer than the run holds the rate down as well, by chance.
        let other = warmup > self.steps || (warmup == 0 && tenth.steps(self.steps) > 0);
        flags.extend(other.then(|| format!("--warmup-steps {tenth}")));
        flags.extend((s.clip_norm == 0.0).then(|| "--clip-norm 1".to_string()));
        flags.join(" ")
    }
}

/// A number with one digit that counts.
fn rounded(value: f64) -> String {
    format!("{value:.0e}").parse::<f64>().unwrap_or(value).to_string()
}

fn mean(losses: &[f32]) -> f64 {
    losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / losses.len().max(1) as f64
}

/// The loss explodes in the first steps: it rises above twice what it began with, and above twice that of guessing.
fn explodes(run: &Course) -> Option<String> {
    let first = run.losses.get(..beginning(run.steps))?;
    let least = 2.0 * run.guess().max(f64::from(first[0]));
    let (at, peak) = first.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
    (f64::from(*peak) > least).then(|| {
        let begun = first[0];
        format!(
            "the loss explodes: from {begun:.3} to {peak:.3} within {at} steps, where guessing has {:.3}; try {}",
            run.guess(),
            run.gentler()
        )
    })
}

/// Nothing was learned: held-out images are answered as by guessing, and the training loss has not left that of guessing.
fn nothing_learned(run: &Course) -> Option<String> {
    let HeldOut { name, top1, per_class } = run.held_out?;
    let last = mean(&run.losses[run.losses.len() - run.losses.len().min(beginning(run.steps))..]);
    let (chance, _) = chance(per_class);
    if run.losses.is_empty() || !is_at_chance(top1, per_class) || last < 0.9 * run.guess() {
        return None;
    }
    let (top1, chance, guess) = (100.0 * top1, 100.0 * chance, run.guess());
    let what = format!(
        "nothing was learned: {top1:.1} % of {name} are right, always answering with one class gives {chance:.1} %, and the training \
         loss ended at {last:.3}, where guessing has {guess:.3}"
    );
    Some(format!(
        "{what}; check that images and labels belong together, then try --optimizer adamw {}, or the rate that `tpgm lr-find` suggests",
        run.gentler()
    ))
}

/// It learns by heart: the loss on held-out images ended above its least by more than a tenth, and by more than a fiftieth of what
/// guessing costs, while the training loss fell.
fn overfitted(run: &Course) -> Option<String> {
    let lines = || run.evaluations.iter().filter_map(|e| Some((e.step, e.loss.filter(|loss| loss.is_finite())?)));
    let (last_step, last) = lines().next_back()?;
    let (step, least) = lines().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let window = beginning(run.steps);
    let until = |step: u64| {
        let end = usize::try_from(step).unwrap_or(usize::MAX).min(run.losses.len());
        mean(&run.losses[end.saturating_sub(window)..end])
    };
    let (before, after) = (until(step), until(last_step));
    let rises = last > 1.1 * least && last - least > 0.02 * run.guess();
    (rises && step < last_step && after < before).then(|| {
        let name = run.held_out.map_or("val", |held_out| held_out.name);
        format!(
            "overfitted: the loss on {name} rose from {least:.3} after {step} steps to {last:.3} at the end, while the training loss fell \
             from {before:.3} to {after:.3}; try --early-stop 3, fewer steps (--steps {step}), or more augmentation (--rand-augment, \
             --mixup 0.2)"
        )
    })
}

/// The loss still falls steeply at the end: by more than a twentieth of what guessing costs from the third quarter of the steps to
/// the fourth, by more than its noise, and there is a good part of it left.
fn still_falls(run: &Course) -> Option<String> {
    let quarter = run.losses.len() / 4;
    if quarter < 3 {
        return None;
    }
    let (third, fourth) = run.losses[run.losses.len() - 2 * quarter..].split_at(quarter);
    let (before, after) = (mean(third), mean(fourth));
    let variance = |losses: &[f32], mean: f64| {
        losses.iter().map(|loss| (f64::from(*loss) - mean).powi(2)).sum::<f64>() / (quarter - 1) as f64
    };
    let noise = ((variance(third, before) + variance(fourth, after)) / quarter as f64).sqrt();
    let (fall, guess) = (before - after, run.guess());
    (fall > 0.05 * guess && fall > 2.0 * noise && after > 0.1 * guess).then(|| {
        let longer = match run.settings.steps {
            Some(steps) => format!("--steps {}", 2 * steps),
            None => format!("--epochs {}", 2 * run.settings.epochs.unwrap_or(1)),
        };
        format!("the training loss still falls: from {before:.3} to {after:.3} in the last quarter of the steps; try {longer}")
    })
}

/// The rules about a run that is over, the gravest first.
const RULES: [fn(&Course) -> Option<String>; 3] = [nothing_learned, overfitted, still_falls];

/// What to know after the first steps of a run, once: none before, and none if all is well.
pub fn early(run: &Course) -> Option<String> {
    if run.losses.len() == beginning(run.steps) { explodes(run) } else { None }
}

/// What to know of a run that is over, and what to try next.
pub fn advice(run: &Course) -> Vec<String> {
    RULES.iter().find_map(|rule| rule(run)).into_iter().collect()
}

/// A warning about a temperature, fitted on the split `fitted`, that makes confidence match accuracy worse on sets out of
/// distribution: `sets` has the name of each, and its expected calibration error without the temperature and with it.
pub fn temperature_harms(fitted: &str, temperature: f64, sets: &[(&str, f64, f64)]) -> Option<String> {
    let worse: Vec<&(&str, f64, f64)> = sets.iter().filter(|(_, plain, at)| at - plain > 0.005).collect();
    let (name, plain, at) = worse.iter().max_by(|a, b| (a.2 - a.1).total_cmp(&(b.2 - b.1)))?;
    let others = match worse.len() {
        1 => String::new(),
        n => format!(" (the worst of {n})"),
    };
    Some(format!(
        "temperature {temperature:.3}, fitted on {fitted}, makes calibration worse out of distribution: ECE {:.1} to {:.1} % on \
         {name}{others}; use the figures without it there",
        100.0 * plain,
        100.0 * at
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Flags;

    fn settings(flags: &str) -> OptimArgs {
        let words = format!("--model m --train t {flags}");
        Flags::parse(words.split_whitespace()).unwrap().resolve(None).unwrap().optim
    }

    fn course<'a>(losses: &'a [f32], settings: &'a OptimArgs) -> Course<'a> {
        Course { losses, classes: 26, settings, steps: losses.len() as u64, held_out: None, evaluations: &[] }
    }

    const ALIKE: [(usize, usize); 26] = [(8, 0); 26];

    #[test]
    fn a_loss_that_explodes_is_told_once_after_the_first_steps() {
        let plain = settings("--optimizer sgd --lr 0.01 --warmup-steps 0 --clip-norm 0");
        let losses = [3.3, 4.1, 9.0, 12.5, 8.0, 5.0, 4.0, 3.4, 3.3, 3.3];
        let text = early(&Course { losses: &losses[..5], ..course(&losses, &plain) }).unwrap();
        assert!(text.contains("from 3.300 to 12.500 within 3 steps"), "{text}");
        assert!(text.ends_with("try --lr 0.001 --warmup-steps 10% --clip-norm 1"), "{text}");
        for until in [4, 6, 10] {
            assert_eq!(early(&Course { losses: &losses[..until], ..course(&losses, &plain) }), None);
        }
        // A run with both in use is told of the rate alone; a loss that merely wanders, nothing.
        let both = settings("--optimizer sgd --lr 0.01 --clip-norm 1");
        let text = early(&Course { losses: &losses[..5], steps: 40, ..course(&losses, &both) }).unwrap();
        assert!(text.ends_with("try --lr 0.001"), "{text}");
        assert_eq!(early(&course(&[3.3, 3.9, 5.0, 4.0, 3.0], &plain)), None);
    }

    #[test]
    fn a_run_that_learned_nothing_is_told_what_to_try() {
        let s = settings("--optimizer sgd --lr 0.01 --warmup-steps 0 --clip-norm 0 --steps 36");
        let flat = [3.3; 36];
        let of = |top1, per_class| Some(HeldOut { name: "val", top1, per_class });
        let told = advice(&Course { held_out: of(0.038, &ALIKE), ..course(&flat, &s) });
        assert!(told.len() == 1 && told[0].starts_with("nothing was learned: 3.8 % of val"), "{told:?}");
        assert!(told[0].contains("--optimizer adamw --lr 0.001 --warmup-steps 10% --clip-norm 1"), "{told:?}");
        // Better than guessing, or guessing on new images after the training images were learned by heart.
        assert!(advice(&Course { held_out: of(0.10, &ALIKE), ..course(&flat, &s) }).is_empty());
        assert!(advice(&Course { held_out: of(0.04, &ALIKE), ..course(&[0.1; 36], &s) }).is_empty());
        assert!(advice(&Course { held_out: of(0.04, &ALIKE), ..course(&[], &s) }).is_empty());
    }

    #[test]
    fn a_run_that_learns_by_heart_is_told_where_it_was_best() {
        let s = settings("--epochs 4");
        let falling: Vec<f32> = (0..40).map(|step| 3.0 - 0.07 * step as f32).collect();
        let lines = |losses: [f64; 4]| -> Vec<EvaluationLine> {
            let line = |(i, loss): (u64, f64)| {
                let line = format!("{{\"step\":{},\"eval\":\"val\",\"loss\":{loss}}}", 10 * (i + 1));
                serde_json::from_str(&line).unwrap()
            };
            (0..).zip(losses).map(line).collect()
        };
        let of = |losses: &[f32], evaluations: &[EvaluationLine]| {
            let held_out = Some(HeldOut { name: "val", top1: 0.5, per_class: &ALIKE });
            advice(&Course { held_out, evaluations, ..course(losses, &s) })
        };
        let told = of(&falling, &lines([2.5, 2.0, 2.2, 2.6]));
        assert_eq!(told.len(), 1, "not to go on as well: {told:?}");
        let text = "overfitted: the loss on val rose from 2.000 after 20 steps to 2.600 at the end, while the training loss fell from";
        assert!(told[0].starts_with(text) && told[0].contains("(--steps 20)"), "{told:?}");
        // It ends near its least, it ends at its least, or the training loss rose as well.
        for losses in [[2.5, 2.0, 2.2, 2.19], [2.5, 2.4, 2.2, 2.0]] {
            assert!(!of(&falling, &lines(losses)).iter().any(|told| told.starts_with("overfitted")), "{losses:?}");
        }
        let rising: Vec<f32> = falling.iter().rev().copied().collect();
        assert!(of(&rising, &lines([2.5, 2.0, 2.2, 2.6])).is_empty());
    }

    #[test]
    fn chance_is_the_largest_class() {
        assert!(is_at_chance(0.90, &[(90, 90), (10, 0)]) && !is_at_chance(0.97, &[(90, 90), (10, 7)]));
        assert!(is_at_chance(0.5, &[(50, 50), (50, 0)]) && is_at_chance(0.59, &[(50, 30), (50, 29)]));
        assert!(!is_at_chance(1.0, &[(50, 50)]), "one class is no guess");
        assert!(!is_at_chance(0.0, &[]));
    }

    #[test]
    fn a_loss_that_still_falls_asks_for_a_longer_run() {
        let falling: Vec<f32> = (0..36).map(|step| 3.3 - 0.06 * step as f32).collect();
        let (steps, epochs) = (settings("--steps 36"), settings("--epochs 4"));
        let told = advice(&course(&falling, &steps));
        assert!(told[0].ends_with("in the last quarter of the steps; try --steps 72"), "{told:?}");
        assert!(advice(&course(&falling, &epochs))[0].ends_with("try --epochs 8"));
        // Flat, nearly gone, too noisy, too short.
        assert!(advice(&course(&[1.0; 36], &steps)).is_empty());
        let gone: Vec<f32> = falling.iter().map(|loss| loss * 0.1).collect();
        assert!(advice(&course(&gone, &steps)).is_empty());
        let noisy: Vec<f32> = (0..36).map(|step| [1.0, 3.0][step % 2] - 0.012 * step as f32).collect();
        assert!(advice(&course(&noisy, &steps)).is_empty());
        assert!(advice(&course(&falling[..8], &steps)).is_empty());
    }

    #[test]
    fn a_temperature_that_harms_names_the_worst_set() {
        let sets = [("serif", 0.125, 0.236), ("mono", 0.10, 0.12), ("display", 0.3, 0.2)];
        let text = temperature_harms("val", 0.412, &sets).unwrap();
        assert!(text.contains("ECE 12.5 to 23.6 % on serif (the worst of 2)"), "{text}");
        assert_eq!(temperature_harms("val", 1.5, &sets[2..]), None);
    }
}
