//! The share of each image in the figure that a choice is made by, so that two models can be compared image by image.
//!
//! The values' mean is the figure. For accuracy, balanced accuracy and the loss they are plain: the averaged terms. Mean average precision
//! and F1 are no means over images: theirs are jackknife pseudo-values (Tukey 1958), n·θ − (n − 1)·θ₋ᵢ with the figure θ₋ᵢ of all images but one,
//! shifted so that their mean is θ (the jackknife's mean differs by its estimate of the bias).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::train::calibration::{self, Logits};
use crate::train::evaluate::argmax;
use crate::train::imbalance_args::BestBy;
use crate::train::labels::{LabelLogits, LabelTally, THRESHOLD, probability};

/// The share `[images]` of each image in what `best_by` scores, of which more is better: of the loss its negative. None for top-1 accuracy,
/// where it is whether the image is right.
pub fn by_image(best_by: BestBy, logits: &Logits) -> Option<Vec<f32>> {
    let values = match (best_by, logits.of_labels()) {
        (BestBy::Loss, _) => losses(logits).into_iter().map(|loss| -loss).collect(),
        (BestBy::Auto | BestBy::Map, Some(labels)) => map(&labels),
        (BestBy::F1, Some(labels)) => f1(&labels.rows().map(|(row, own)| of_labels(row, own)).collect::<Vec<_>>()),
        (BestBy::F1, None) => f1(&logits.rows().map(|(row, label)| of_class(row, label)).collect::<Vec<_>>()),
        (BestBy::Balanced, None) => balanced(logits),
        _ => return None,
    };
    Some(values.into_iter().map(|value| value as f32).collect())
}

/// The loss of each image, in nats: cross-entropy; of labels the mean of their binary cross-entropies.
fn losses(logits: &Logits) -> Vec<f64> {
    if let Some(labels) = logits.of_labels() {
        let of = |(row, own): (&[f32], &[u32])| {
            let mut tally = LabelTally::new(row.len(), 1.0);
            tally.add(row, own);
            tally.finish().0
        };
        return labels.rows().map(of).collect();
    }
    let of = |(row, label): (&[f32], usize)| {
        let mut tally = calibration::Tally::new(1.0);
        tally.add(row, label, false);
        tally.finish().loss
    };
    logits.rows().map(of).collect()
}

/// Whether an image is right, weighed so that all classes that have images count alike.
fn balanced(logits: &Logits) -> Vec<f64> {
    let mut counts: Vec<usize> = Vec::new();
    for label in &logits.labels {
        counts.resize(counts.len().max(*label as usize + 1), 0);
        counts[*label as usize] += 1;
    }
    let classes = counts.iter().filter(|n| **n > 0).count() as f64;
    let weight = |label: usize| logits.labels.len() as f64 / (classes * counts[label] as f64);
    logits.rows().map(|(row, label)| if argmax(row) == Some(label) { weight(label) } else { 0.0 }).collect()
}

/// Pseudo-values of a mean over classes, from the sum and the number of classes of all images, and of all images but each.
fn pseudo_values(all: (f64, usize), without: &[(f64, usize)]) -> Vec<f64> {
    let n = without.len() as f64;
    // Without a class there is nothing to be right about.
    let mean = |(sum, classes): (f64, usize)| if classes == 0 { 0.0 } else { sum / classes as f64 };
    let figure = mean(all);
    let values: Vec<f64> = without.iter().map(|own| n * figure - (n - 1.0) * mean(*own)).collect();
    let bias = figure - values.iter().sum::<f64>() / n;
    values.into_iter().map(|value| value + bias).collect()
}

/// What an image means for a class: whether it has it, and whether it is given it.
type Mark = (usize, bool, bool);

fn of_labels(row: &[f32], own: &[u32]) -> Vec<Mark> {
    let mark = |(class, logit): (usize, &f32)| {
        (class, own.binary_search(&(class as u32)).is_ok(), probability(*logit) >= f64::from(THRESHOLD))
    };
    row.iter().enumerate().map(mark).filter(|(_, has, given)| *has || *given).collect()
}

fn of_class(row: &[f32], label: usize) -> Vec<Mark> {
    let given = argmax(row);
    let wrong = given.filter(|given| *given != label).map(|given| (given, false, true));
    std::iter::once((label, true, given == Some(label))).chain(wrong).collect()
}

/// Of macro F1: the mean of F1 = 2·tp / (2·tp + fp + fn) over the classes that an image has or is given.
fn f1(images: &[Vec<Mark>]) -> Vec<f64> {
    let classes = images.iter().flatten().map(|mark| mark.0 + 1).max().unwrap_or(0);
    // Right ones, and those that have it with those that are given it.
    let mut counts = vec![(0usize, 0usize); classes];
    for (class, has, given) in images.iter().flatten() {
        counts[*class].0 += usize::from(*has && *given);
        counts[*class].1 += usize::from(*has) + usize::from(*given);
    }
    let of = |(right, both): (usize, usize)| if both > 0 { (2.0 * right as f64 / both as f64, 1) } else { (0.0, 0) };
    let all = counts.iter().map(|count| of(*count)).fold((0.0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    let without = |marks: &Vec<Mark>| {
        marks.iter().fold(all, |sum, (class, has, given)| {
            let count = counts[*class];
            let rest = (count.0 - usize::from(*has && *given), count.1 - usize::from(*has) - usize::from(*given));
            let (with, without) = (of(count), of(rest));
            (sum.0 - with.0 + without.0, sum.1 - with.1 + without.1)
        })
    };
    pseudo_values(all, &images.iter().map(without).collect::<Vec<_>>())
}

/// Of mean average precision over the classes that an image has.
fn map(logits: &LabelLogits) -> Vec<f64> {
    let images = logits.labels.len();
    let (mut all, mut without) = ((0.0, 0), vec![(0.0, 0); images]);
    for class in 0..logits.classes() {
        let column = logits.column(class);
        let Some((own, rest)) = precision_without(&column) else { continue };
        all = (all.0 + own, all.1 + 1);
        for (sum, rest) in without.iter_mut().zip(rest) {
            *sum = rest.map_or(*sum, |rest| (sum.0 + rest, sum.1 + 1));
        }
    }
    pseudo_values(all, &without)
}

/// Average precision, and that of all scores but each; none where no positive is left.
fn precision_without(scores: &[(f32, bool)]) -> Option<(f64, Vec<Option<f64>>)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let falling = |a: f32, b: f32| b.partial_cmp(&a).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
    order.sort_by(|a, b| falling(scores[*a].0, scores[*b].0));
    // By group of equal scores, from the highest on: positives, positives up to its end, scores up to its end.
    let groups: Vec<&[usize]> = order.chunk_by(|a, b| scores[*a].0 == scores[*b].0).collect();
    let (mut right, mut seen) = (0, 0);
    let mut counts = Vec::new();
    for group in &groups {
        let own = group.iter().filter(|i| scores[**i].1).count();
        (right, seen) = (right + own, seen + group.len());
        counts.push((own as f64, right as f64, seen as f64));
    }
    let positives = right;
    if positives == 0 {
        return None;
    }
    let above: f64 = counts.iter().map(|(own, right, seen)| own * right / seen).sum();
    let whole = above / positives as f64;
    let mut out = vec![None; scores.len()];
    // Of the groups below: Σ own·right / (seen − 1) and Σ own / (seen − 1).
    let (mut above, mut below) = (above, (0.0, 0.0));
    for (group, (own, right, seen)) in groups.iter().zip(&counts).rev() {
        above -= own * right / seen;
        for i in *group {
            let y = f64::from(u8::from(scores[*i].1));
            let left = positives as f64 - y;
            let here = if *seen > 1.0 { (own - y) * (right - y) / (seen - 1.0) } else { 0.0 };
            out[*i] = (left > 0.0).then(|| (above + here + below.0 - y * below.1) / left);
        }
        if *seen > 1.0 {
            below = (below.0 + own * right / (seen - 1.0), below.1 + own / (seen - 1.0));
        }
    }
    Some((whole, out))
}

/// The values as text: f32, little-endian, in base64.
pub fn packed(values: &[f32]) -> String {
    BASE64_STANDARD.encode(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

/// What [`packed`] made of `count` values; none where it is something else.
pub fn unpacked(text: &str, count: usize) -> Option<Vec<f32>> {
    let bytes = BASE64_STANDARD.decode(text).ok().filter(|bytes| bytes.len() == 4 * count)?;
    Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        let values = [0.0, -1.5, f32::MIN_POSITIVE, f32::INFINITY];
        assert_eq!(unpacked(&packed(&values), 4).as_deref(), Some(values.as_slice()));
        assert_eq!(unpacked(&packed(&[]), 0), Some(Vec::new()));
        assert_eq!(unpacked(&packed(&values), 3), None);
        assert_eq!(unpacked("?", 0), None);
    }

    #[test]
    fn one_image_has_the_whole_figure() {
        let logits = Logits { values: vec![1.0, 0.0], labels: vec![0], sets: None };
        assert_eq!(by_image(BestBy::Balanced, &logits), Some(vec![1.0]));
        assert_eq!(by_image(BestBy::F1, &logits), Some(vec![1.0]));
        assert_eq!(by_image(BestBy::Top1, &logits), None);
        let wrong = Logits { labels: vec![1], ..logits };
        assert_eq!(by_image(BestBy::F1, &wrong), Some(vec![0.0]));
        let loss = by_image(BestBy::Loss, &wrong).unwrap()[0];
        assert!((f64::from(loss) + (1.0 + 1f64.exp()).ln()).abs() < 1e-6, "{loss}");
    }
}
