//! Which images a run's page shows of the labels that its model gives, where an image may have any number of them: on each test set the
//! surest mistakes and the least sure answers, some of each label, and some of the labels that are wrong on the same images most.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::train::examples::{Judged, Room, read};
use crate::train::json_lines::or_nan;
use crate::train::labels::{average_precision, entropy, probability};
use crate::train::records::Weights;

/// The file of a run directory that has them.
pub const LABEL_EXAMPLES: &str = "label_examples.json";

/// Test sets, and images of each: of mistakes, and of answers that the model is not sure of.
const SETS: usize = 8;
const OF_SET: usize = 8;
/// Labels, and images of each: of those that have it and are given it, of those that it is missed on, of others that are given it.
const LABELS: usize = 20;
const OF_LABEL: usize = 2;
/// Pairs of labels, and images of each.
const PAIRS: usize = 8;
const OF_PAIR: usize = 6;
/// Wrong labels of an image that pairs are made of: those that the model is surest of.
const WRONG: usize = 32;
/// Labels that are told of an image.
const TOLD: usize = 12;

/// What a model says of a label of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// The label.
    pub label: String,
    /// The probability that the model gives to it, 0 to 1.
    pub probability: f64,
    /// Whether the image has it.
    pub has: bool,
    /// Whether the image is given it, at the label's threshold.
    pub given: bool,
}

impl Said {
    /// Whether the image is given it and has it, or neither.
    pub fn is_right(&self) -> bool {
        self.has == self.given
    }
}

/// An image with the labels that it has or is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelExample {
    /// Its file.
    pub path: PathBuf,
    /// The labels: first the ones that it is an example of, then the others by falling probability.
    pub labels: Vec<Said>,
    /// Labels that it has or is given besides.
    pub more: usize,
    /// Whether the image is given exactly the labels that it has.
    pub exact: bool,
    /// A JPEG in base64.
    pub jpeg: String,
}

/// Images of one test set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfSet {
    /// The set.
    pub set: String,
    /// Its images.
    pub images: usize,
    /// Those of them that have a wrong label.
    pub wrong: usize,
    /// Those with a wrong label that the model is surest of, which stands first.
    pub mistakes: Vec<LabelExample>,
    /// Those that it is least sure of: by the mean entropy of all labels.
    pub unsure: Vec<LabelExample>,
}

/// Images of one label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfLabel {
    /// The label.
    pub label: String,
    /// Images of all sets that have it, that are given it, and that have it and are given it.
    pub images: usize,
    /// See there.
    pub given: usize,
    /// See there.
    pub right: usize,
    /// Average precision over all sets; NaN where no image has it.
    #[serde(deserialize_with = "or_nan")]
    pub average_precision: f64,
    /// Images that have it and are given it, then those that it is missed on, then others that are given it; of each those that
    /// the model is surest of.
    pub examples: Vec<LabelExample>,
}

/// Two labels that are wrong on the same images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfPair {
    /// The labels.
    pub labels: [String; 2],
    /// Images that are given the second in the place of the first, and the other way round.
    pub swapped: [usize; 2],
    /// Images that are given both and have neither.
    pub given: usize,
    /// Images that have both and are given neither.
    pub missed: usize,
    /// Some of them.
    pub examples: Vec<LabelExample>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelExamples {
    /// Whose answers these are.
    pub model: Weights,
    /// By test set.
    pub sets: Vec<OfSet>,
    /// By label: all, or those of lowest average precision.
    pub labels: Vec<OfLabel>,
    /// The pairs that are wrong together most.
    pub pairs: Vec<OfPair>,
    /// The most wrong labels of an image that pairs were counted of, where an image has more.
    pub counted: Option<usize>,
    /// Images that there was no room for.
    pub left_out: usize,
}

impl LabelExamples {
    /// What the file at `path` holds; none without such a file.
    ///
    /// # Errors
    /// A file that can't be read or understood.
    pub fn read(path: &Path) -> Result<Option<LabelExamples>> {
        read(path, |examples: &LabelExamples| examples.all().map(|example| example.jpeg.as_str()).collect())
    }

    fn all(&self) -> impl Iterator<Item = &LabelExample> {
        let sets = self.sets.iter().flat_map(|of| of.mistakes.iter().chain(&of.unsure));
        let labels = self.labels.iter().flat_map(|of| &of.examples);
        sets.chain(labels).chain(self.pairs.iter().flat_map(|of| &of.examples))
    }
}

/// An image of a set with its answer.
#[derive(Clone, Copy)]
struct One<'a> {
    set: usize,
    image: usize,
    /// `[labels]`
    logits: &'a [f32],
    thresholds: &'a [f32],
    own: &'a [u32],
    unsure: f64,
}

impl One<'_> {
    fn has(&self, label: usize) -> bool {
        self.own.binary_search(&(label as u32)).is_ok()
    }

    fn probability(&self, label: usize) -> f64 {
        probability(self.logits[label])
    }

    fn given(&self, label: usize) -> bool {
        self.probability(label) >= f64::from(self.thresholds[label])
    }

    fn is_right(&self, label: usize) -> bool {
        self.has(label) == self.given(label)
    }

    /// The probability of the answer, right or not.
    fn sureness(&self, label: usize) -> f64 {
        if self.given(label) { self.probability(label) } else { 1.0 - self.probability(label) }
    }

    /// The wrong labels, those that the model is surest of first.
    fn wrong(&self) -> Vec<usize> {
        let mut wrong: Vec<usize> = (0..self.logits.len()).filter(|label| !self.is_right(*label)).collect();
        wrong.sort_by(|a, b| self.sureness(*b).total_cmp(&self.sureness(*a)));
        wrong
    }
}

/// The images of the set number `set` that have an answer.
fn answered<'a>(set: usize, judged: &'a Judged) -> Vec<One<'a>> {
    let dataset = judged.images.dataset();
    let Some(sets) = &dataset.sets else { return Vec::new() };
    let rows = judged.evaluation.logits.chunks(judged.thresholds.len().max(1));
    let one = |(image, (item, logits)): (usize, (&crate::data::Item, &'a [f32]))| {
        let unsure = logits.iter().map(|logit| entropy(*logit)).sum::<f64>();
        let one = One { set, image, logits, thresholds: &judged.thresholds, own: sets.get(item.label), unsure };
        logits.iter().all(|logit| logit.is_finite()).then_some(one)
    };
    dataset.items.iter().zip(rows).enumerate().filter_map(one).collect()
}

/// Takes images in, as long as there is room.
struct Album<'a> {
    sets: &'a [Judged<'a>],
    names: &'a [String],
    room: Room,
}

impl Album<'_> {
    /// Images, each with the labels that it is an example of.
    fn take<'o>(&mut self, chosen: impl IntoIterator<Item = (&'o One<'o>, Vec<usize>)>) -> Result<Vec<LabelExample>> {
        let mut taken = Vec::new();
        for (one, first) in chosen {
            let images = self.sets[one.set].images;
            let Some(jpeg) = self.room.take(images, one.image)? else { continue };
            let mut others: Vec<usize> = (0..one.logits.len())
                .filter(|label| !first.contains(label) && (one.has(*label) || one.given(*label)))
                .collect();
            others.sort_by(|a, b| one.probability(*b).total_cmp(&one.probability(*a)));
            let all = [first, others].concat();
            let said = |label: &usize| Said {
                label: self.names[*label].clone(),
                probability: one.probability(*label),
                has: one.has(*label),
                given: one.given(*label),
            };
            taken.push(LabelExample {
                path: images.dataset().items[one.image].path.clone(),
                labels: all.iter().take(TOLD).map(said).collect(),
                more: all.len().saturating_sub(TOLD),
                exact: (0..one.logits.len()).all(|label| one.is_right(label)),
                jpeg,
            });
        }
        Ok(taken)
    }

    fn set(&mut self, judged: &Judged, answers: &[One]) -> Result<OfSet> {
        let surest = |one: &One| one.wrong().first().copied();
        let mut wrong: Vec<(&One, usize)> = answers.iter().filter_map(|one| Some((one, surest(one)?))).collect();
        wrong.sort_by(|a, b| b.0.sureness(b.1).total_cmp(&a.0.sureness(a.1)));
        let mut unsure: Vec<&One> = answers.iter().collect();
        unsure.sort_by(|a, b| b.unsure.total_cmp(&a.unsure));
        Ok(OfSet {
            set: judged.name.into(),
            images: answers.len(),
            wrong: wrong.len(),
            mistakes: self.take(wrong.into_iter().take(OF_SET).map(|(one, label)| (one, vec![label])))?,
            unsure: self.take(unsure.into_iter().take(OF_SET).map(|one| (one, Vec::new())))?,
        })
    }

    fn label(&mut self, (label, average_precision): (usize, f64), answers: &[One]) -> Result<OfLabel> {
        let of = |has: bool, given: bool| {
            let mut own: Vec<&One> =
                answers.iter().filter(|one| one.has(label) == has && one.given(label) == given).collect();
            own.sort_by(|a, b| b.sureness(label).total_cmp(&a.sureness(label)));
            own
        };
        let [right, missed, other] = [of(true, true), of(true, false), of(false, true)];
        let shown = [&right, &missed, &other].into_iter().flat_map(|own| own.iter().take(OF_LABEL));
        Ok(OfLabel {
            label: self.names[label].clone(),
            images: right.len() + missed.len(),
            given: right.len() + other.len(),
            right: right.len(),
            average_precision,
            examples: self.take(shown.map(|one| (*one, vec![label])))?,
        })
    }

    fn pair(&mut self, (labels, counts): ([usize; 2], Counts), answers: &[One]) -> Result<OfPair> {
        let mut both: Vec<&One> =
            answers.iter().filter(|one| labels.iter().all(|label| !one.is_right(*label))).collect();
        let sureness = |one: &One| labels.iter().map(|label| one.sureness(*label)).sum::<f64>();
        both.sort_by(|a, b| sureness(b).total_cmp(&sureness(a)));
        Ok(OfPair {
            labels: labels.map(|label| self.names[label].clone()),
            swapped: [counts[1], counts[2]],
            given: counts[3],
            missed: counts[0],
            examples: self.take(both.into_iter().take(OF_PAIR).map(|one| (one, labels.to_vec())))?,
        })
    }
}

/// Images by which of two wrong labels they are given: neither, the second, the first, both.
type Counts = [usize; 4];

/// The pairs of labels that are wrong on the same images most, and whether an image has more wrong labels than are counted.
fn pairs(answers: &[One]) -> (Vec<([usize; 2], Counts)>, bool) {
    let mut counts: BTreeMap<[usize; 2], Counts> = BTreeMap::new();
    let mut cut = false;
    for one in answers {
        let mut wrong = one.wrong();
        cut |= wrong.len() > WRONG;
        wrong.truncate(WRONG);
        wrong.sort_unstable();
        for (i, first) in wrong.iter().enumerate() {
            for second in &wrong[i + 1..] {
                let kind = 2 * usize::from(one.given(*first)) + usize::from(one.given(*second));
                counts.entry([*first, *second]).or_default()[kind] += 1;
            }
        }
    }
    let mut ranked: Vec<_> = counts.into_iter().collect();
    ranked.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.iter().sum::<usize>()));
    ranked.truncate(PAIRS);
    (ranked, cut)
}

/// All labels that an image has or is given with their average precision, in their order; of many, those where it is lowest.
fn labels(answers: &[One]) -> Vec<(usize, f64)> {
    let count = answers.first().map_or(0, |one| one.logits.len());
    let precision = |label: usize| {
        let column: Vec<(f32, bool)> = answers.iter().map(|one| (one.logits[label], one.has(label))).collect();
        average_precision(&column)
    };
    let seen = |label: &usize| answers.iter().any(|one| one.has(*label) || one.given(*label));
    let mut all: Vec<(usize, f64)> = (0..count).filter(seen).map(|label| (label, precision(label))).collect();
    if all.len() > LABELS {
        // Those that no image has come last: NaN.
        all.sort_by(|a, b| a.1.total_cmp(&b.1));
        all.truncate(LABELS);
    }
    all
}

/// Chooses images of `sets`, which the `model` weights have answered; `names` are those of the outputs.
///
/// # Errors
/// An image that can't be decoded any more.
pub(super) fn choose(model: Weights, sets: &[Judged], names: &[String]) -> Result<LabelExamples> {
    let by_set: Vec<Vec<One>> = sets.iter().enumerate().map(|(nth, judged)| answered(nth, judged)).collect();
    let all = by_set.concat();
    let mut album = Album { sets, names, room: Room::new() };
    let shown = sets.iter().zip(&by_set).take(SETS);
    let of_sets = shown.map(|(judged, answers)| album.set(judged, answers)).collect::<Result<Vec<_>>>()?;
    let (pairs, cut) = pairs(&all);
    let pairs = pairs.into_iter().map(|pair| album.pair(pair, &all)).collect::<Result<Vec<_>>>()?;
    let labels = labels(&all).into_iter().map(|label| album.label(label, &all)).collect::<Result<Vec<_>>>()?;
    let left_out = album.room.left_out;
    Ok(LabelExamples { model, sets: of_sets, labels, pairs, counted: cut.then_some(WRONG), left_out })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::{Dataset, ImageCache, Item, LabelSets, LeftOut, RgbImage};
    use crate::train::evaluate::{Evaluation, of_labels};
    use crate::train::examples::write;
    use crate::train::labels::LabelLogits;

    /// An image of noise for each of `all`, `side` pixels wide and high: the labels that it has, and its logits.
    fn judged(folder: &Path, side: u32, all: &[(Vec<u32>, Vec<f32>)]) -> (Arc<ImageCache>, Evaluation) {
        let (sets, labels) = LabelSets::of(all.iter().map(|(own, _)| own.clone()));
        let mut items = Vec::new();
        for (i, label) in (0..).zip(&labels) {
            let path = folder.join(format!("{i:05}.png"));
            let noise = |x: u32, y: u32| (x * 7919 + y * 104_729 + i * 1_299_709_u32).wrapping_mul(2_654_435_761) >> 24;
            RgbImage::from_fn(side, side, |x, y| image::Rgb([0, 1, 2].map(|c| noise(x + c, y * c + x) as u8)))
                .save(&path)
                .unwrap();
            items.push(Item { path, label: *label });
        }
        let values: Vec<f32> = all.iter().flat_map(|(_, logits)| logits.clone()).collect();
        let evaluation = of_labels(&LabelLogits { values: &values, labels: &labels, sets: &sets }, None, None);
        let (name, classes, left_out) = ("t".into(), Vec::new(), LeftOut::default());
        let dataset = Dataset { name, classes, items, sets: Some(Arc::new(sets)), left_out };
        (ImageCache::new(dataset, 0), evaluation)
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("label {i}")).collect()
    }

    fn numbers(examples: &[LabelExample]) -> Vec<u32> {
        examples.iter().map(|e| e.path.file_stem().unwrap().to_str().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn mistakes_are_judged_by_the_threshold_of_each_label() {
        let folder = tempfile::tempdir().unwrap();
        let all = [
            (vec![0, 1], vec![3.0, 2.0, -4.0]),  // all right
            (vec![0], vec![-2.0, -1.0, -3.0]),   // 0 missed
            (vec![1], vec![1.0, -3.0, -3.0]),    // 0 in the place of 1
            (vec![], vec![-1.0, -1.0, -0.5]),    // 2 given: its threshold is 0.3
            (vec![0], vec![-4.0, 4.0, -2.0]),    // 1 in the place of 0
            (vec![1], vec![f32::NAN, 0.0, 0.0]), // no answer
        ];
        let (images, evaluation) = judged(folder.path(), 8, &all);
        let thresholds = vec![0.5, 0.5, 0.3];
        let sets = [Judged { name: "t", images: &images, evaluation: &evaluation, thresholds }];
        let found = choose(Weights::Best, &sets, &names(3)).unwrap();
        let of = &found.sets[0];
        assert_eq!((of.images, of.wrong), (5, 4));
        // Sureness: 4 (σ(4) both ways), 2 (σ(3) that 1 is not there), 1 (σ(2)), 3 (σ(-0.5)).
        assert_eq!(numbers(&of.mistakes), [4, 2, 1, 3]);
        let told = |example: &LabelExample| -> Vec<(String, bool, bool)> {
            example.labels.iter().map(|said| (said.label.clone(), said.has, said.given)).collect()
        };
        assert_eq!(told(&of.mistakes[1]), [("label 1".into(), true, false), ("label 0".into(), false, true)]);
        assert_eq!(told(&of.mistakes[3]), [("label 2".into(), false, true)]);
        let p = of.mistakes[3].labels[0].probability;
        assert!((p - 0.377_540_668_798_145_4).abs() < 1e-15, "{p}");
        // Mean entropies in nats: 0.215, 0.379, 0.321, 0.609, 0.182.
        assert_eq!(numbers(&of.unsure), [3, 1, 2, 0, 4]);
        assert!(of.unsure[3].exact && !of.unsure[0].exact);

        let label = &found.labels[0];
        assert_eq!((label.images, label.given, label.right), (3, 2, 1));
        assert_eq!(numbers(&label.examples), [0, 4, 1, 2]);
        // average_precision_score([1, 1, 0, 0, 1], [3, -2, 1, -1, -4]) = 0.7
        assert!((label.average_precision - 0.7).abs() < 1e-12, "{}", label.average_precision);
        assert!(found.labels[2].average_precision.is_nan(), "no image has it");

        assert_eq!(found.pairs.len(), 1);
        let pair = &found.pairs[0];
        assert_eq!((pair.labels.clone(), pair.swapped), (["label 0".into(), "label 1".into()], [1, 1]));
        assert_eq!((pair.given, pair.missed, numbers(&pair.examples)), (0, 0, vec![4, 2]));
        assert_eq!(found.counted, None);
        // NaN is no value of JSON, and equals nothing.
        let path = folder.path().join(LABEL_EXAMPLES);
        write(&path, &found).unwrap();
        let mut read = LabelExamples::read(&path).unwrap().unwrap();
        assert!(read.labels[2].average_precision.is_nan());
        let mut found = found;
        (read.labels[2].average_precision, found.labels[2].average_precision) = (0.0, 0.0);
        assert_eq!(read, found);
    }

    #[test]
    fn labels_that_are_wrong_together_are_counted_by_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let all = [
            (vec![], vec![1.0, 1.0, -9.0]),
            (vec![], vec![1.0, 2.0, -9.0]),
            (vec![0, 1], vec![-1.0, -1.0, -9.0]),
            (vec![1], vec![1.0, -1.0, -9.0]),
            (vec![1, 2], vec![-9.0, 9.0, -1.0]),
        ];
        let (images, evaluation) = judged(folder.path(), 8, &all);
        let sets = [Judged { name: "t", images: &images, evaluation: &evaluation, thresholds: vec![0.5; 3] }];
        let found = choose(Weights::Last, &sets, &names(3)).unwrap();
        assert_eq!(found.pairs.len(), 1, "the last image has one wrong label");
        let OfPair { swapped, given, missed, .. } = found.pairs[0];
        assert_eq!((swapped, given, missed), ([0, 1], 2, 1));
        assert_eq!(found.pairs[0].examples.len(), 4);
    }

    #[test]
    fn many_labels_of_loud_images_stay_within_the_room() {
        let folder = tempfile::tempdir().unwrap();
        // The higher its number, the more often a label is wrong.
        let given = |c: u32, i: u32| (c * 7 + i).is_multiple_of(5);
        let has = |c: u32, i: u32| given(c, i) != ((i * 37 + c * 11) % 200 < c);
        let logit = |c: u32, i: u32| if given(c, i) { 3.0 } else { -1.0 - 0.001 * c as f32 };
        let image = |i: u32| ((0..200).filter(|c| has(*c, i)).collect(), (0..200).map(|c| logit(c, i)).collect());
        let all: Vec<(Vec<u32>, Vec<f32>)> = (0..300).map(image).collect();
        let (images, evaluation) = judged(folder.path(), 96, &all);
        let named: Vec<String> = (0..9).map(|i| format!("set {i}")).collect();
        let judged = |name| Judged { name, images: &images, evaluation: &evaluation, thresholds: vec![0.5; 200] };
        let sets: Vec<Judged> = named.iter().map(|name| judged(name)).collect();
        let found = choose(Weights::Last, &sets, &names(200)).unwrap();
        assert_eq!((found.sets.len(), found.labels.len(), found.pairs.len()), (SETS, LABELS, PAIRS));
        let bytes: usize = found.all().map(|example| example.jpeg.len()).sum();
        assert!(bytes <= 2_000_000 && found.left_out > 0, "noise is large: {bytes}");
        assert!(found.all().all(|example| example.labels.len() <= TOLD && example.more > 0));
        assert_eq!(found.counted, Some(WRONG));
        let highest = found.labels.iter().map(|of| of.average_precision).fold(0.0, f64::max);
        let labels = evaluation.labels.unwrap().labels;
        let below = labels.iter().filter(|label| label.average_precision < highest - 1e-9).count();
        assert!(below < LABELS, "those of lowest average precision");
    }
}
