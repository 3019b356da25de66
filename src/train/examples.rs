//! Which images a run's page shows of what its model answers: the surest mistakes and the least sure answers on each test set, some of
//! each class, and some of the classes that are taken for each other most. They are kept small in the run directory, so that the page
//! can be written again without the images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::atomic::atomic_write;
use crate::data::ImageCache;
use crate::data::picture::{jpeg_bytes, thumbnail};
use crate::error::{Error, Result, quote};
use crate::train::evaluate::{Answer, Evaluation};
use crate::train::records::Weights;

/// The file of a run directory that has them.
pub const EXAMPLES: &str = "examples.json";

/// How wide and high an image is at most, in pixels.
const SIDE: u32 = 96;
/// Bytes of all images together at most, in base64.
const BYTES: usize = 2_000_000;
/// Test sets, and images of each: of mistakes, and of answers that the model is not sure of.
const SETS: usize = 8;
const OF_SET: usize = 8;
/// Classes, and images of each: of right ones, and of wrong ones.
const CLASSES: usize = 20;
const OF_CLASS: usize = 3;
/// Pairs of classes, and images of each class.
const PAIRS: usize = 8;
const OF_PAIR: usize = 3;

/// An image with what the model takes it for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Its file.
    pub path: PathBuf,
    /// Its class.
    pub class: String,
    /// What the model takes it for.
    pub predicted: String,
    /// The probability that the model gives to that, 0 to 1.
    pub confidence: f64,
    /// A JPEG in base64.
    pub jpeg: String,
}

/// Images of one test set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfSet {
    /// The set.
    pub set: String,
    /// Its images, and how many of them are wrong.
    pub images: usize,
    /// See there.
    pub wrong: usize,
    /// Those that the model is wrong about and surest of.
    pub mistakes: Vec<Example>,
    /// Those that it is least sure of.
    pub unsure: Vec<Example>,
}

/// Images of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfClass {
    /// The class.
    pub class: String,
    /// Its images in all sets, and how many of them are right.
    pub images: usize,
    /// See there.
    pub right: usize,
    /// Right ones, then wrong ones, of each those that the model is surest of.
    pub examples: Vec<Example>,
}

/// Two classes that are taken for each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfPair {
    /// The classes.
    pub classes: [String; 2],
    /// How many images of each are taken for the other.
    pub wrong: [usize; 2],
    /// Images of each: those taken for the other, then right ones.
    pub examples: [Vec<Example>; 2],
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Examples {
    /// Whose answers these are.
    pub model: Weights,
    /// By test set.
    pub sets: Vec<OfSet>,
    /// By class: all, or those that are right least often.
    pub classes: Vec<OfClass>,
    /// The pairs that are confused most.
    pub pairs: Vec<OfPair>,
    /// Images that there was no room for.
    pub left_out: usize,
}

impl Examples {
    /// What the file at `path` holds; none without such a file.
    ///
    /// # Errors
    /// A file that can't be read or understood.
    pub fn read(path: &Path) -> Result<Option<Examples>> {
        read(path, |examples: &Examples| examples.all().map(|example| example.jpeg.as_str()).collect())
    }

    fn all(&self) -> impl Iterator<Item = &Example> {
        let sets = self.sets.iter().flat_map(|of| of.mistakes.iter().chain(&of.unsure));
        let classes = self.classes.iter().flat_map(|of| &of.examples);
        sets.chain(classes).chain(self.pairs.iter().flat_map(|of| of.examples.iter().flatten()))
    }
}

/// What the file at `path` holds, whose images `jpegs` gives; none without such a file.
///
/// # Errors
/// A file that can't be read or understood.
pub(super) fn read<T: DeserializeOwned>(path: &Path, jpegs: impl Fn(&T) -> Vec<&str>) -> Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "cannot read", e))?;
    let wrong = |what: String| Error::data(path, format!("can't be understood: {}", quote(&what)));
    let examples: T = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let bad = jpegs(&examples).into_iter().find_map(|jpeg| BASE64_STANDARD.decode(jpeg).err());
    match bad {
        Some(e) => Err(wrong(e.to_string())),
        None => Ok(Some(examples)),
    }
}

/// Room for small images.
pub(super) struct Room {
    bytes: usize,
    /// Images that there was none for.
    pub(super) left_out: usize,
}

impl Room {
    /// For all images of a page.
    pub(super) fn new() -> Room {
        Room { bytes: BYTES, left_out: 0 }
    }

    /// The image number `image` as a small JPEG in base64, while there is room.
    ///
    /// # Errors
    /// An image that can't be decoded any more.
    pub(super) fn take(&mut self, images: &ImageCache, image: usize) -> Result<Option<String>> {
        let jpeg = BASE64_STANDARD.encode(jpeg_bytes(&thumbnail(&*images.get(image)?, SIDE)));
        match self.bytes.checked_sub(jpeg.len()) {
            Some(bytes) => self.bytes = bytes,
            None => {
                self.left_out += 1;
                return Ok(None);
            }
        }
        Ok(Some(jpeg))
    }
}

/// A test set with the answers to its images.
pub(super) struct Judged<'a> {
    pub(super) name: &'a str,
    pub(super) images: &'a ImageCache,
    pub(super) evaluation: &'a Evaluation,
    /// The probabilities `[labels]` from which on labels are given; empty where images have one class.
    pub(super) thresholds: Vec<f32>,
}

/// An image of a set with its answer.
#[derive(Clone, Copy)]
struct One {
    set: usize,
    image: usize,
    class: u32,
    predicted: u32,
    confidence: f32,
}

impl One {
    fn is_right(&self) -> bool {
        self.class == self.predicted
    }
}

/// The images of the set number `set` that have an answer.
fn answered(set: usize, judged: &Judged) -> Vec<One> {
    let items = judged.images.dataset().items.iter().zip(&judged.evaluation.answers).enumerate();
    let one = |(image, (item, answer)): (usize, (&crate::data::Item, &Answer))| {
        let confidence = Some(answer.confidence).filter(|confidence| confidence.is_finite())?;
        Some(One { set, image, class: item.label, predicted: answer.class?, confidence })
    };
    items.filter_map(one).collect()
}

/// Takes images in, as long as there is room.
struct Album<'a> {
    sets: &'a [Judged<'a>],
    names: &'a [String],
    room: Room,
}

impl Album<'_> {
    fn take<'o>(&mut self, chosen: impl IntoIterator<Item = &'o One>) -> Result<Vec<Example>> {
        let mut taken = Vec::new();
        for one in chosen {
            let images = self.sets[one.set].images;
            let Some(jpeg) = self.room.take(images, one.image)? else { continue };
            taken.push(Example {
                path: images.dataset().items[one.image].path.clone(),
                class: self.names[one.class as usize].clone(),
                predicted: self.names[one.predicted as usize].clone(),
                confidence: one.confidence.into(),
                jpeg,
            });
        }
        Ok(taken)
    }

    fn set(&mut self, judged: &Judged, answers: &[One]) -> Result<OfSet> {
        Ok(OfSet {
            set: judged.name.into(),
            images: answers.len(),
            wrong: answers.iter().filter(|one| !one.is_right()).count(),
            mistakes: self.take(answers.iter().filter(|one| !one.is_right()).take(OF_SET))?,
            unsure: self.take(answers.iter().rev().take(OF_SET))?,
        })
    }

    fn pair(&mut self, (classes, wrong): ([u32; 2], [usize; 2]), answers: &[One]) -> Result<OfPair> {
        let mut of = |own: u32, other: u32| {
            let mistakes = answers.iter().filter(|one| one.class == own && one.predicted == other);
            let right = answers.iter().filter(|one| one.class == own && one.is_right());
            self.take(mistakes.chain(right).take(OF_PAIR))
        };
        let examples = [of(classes[0], classes[1])?, of(classes[1], classes[0])?];
        Ok(OfPair { classes: classes.map(|class| self.names[class as usize].clone()), wrong, examples })
    }

    fn class(&mut self, (class, images, right): (u32, usize, usize), answers: &[One]) -> Result<OfClass> {
        let of = |is_right: bool| {
            answers.iter().filter(move |one| one.class == class && one.is_right() == is_right).take(OF_CLASS)
        };
        let examples = self.take(of(true).chain(of(false)))?;
        Ok(OfClass { class: self.names[class as usize].clone(), images, right, examples })
    }
}

/// The pairs of classes that are taken for each other most, with how many images of each.
fn pairs(answers: &[One]) -> Vec<([u32; 2], [usize; 2])> {
    let mut counts: BTreeMap<[u32; 2], [usize; 2]> = BTreeMap::new();
    for one in answers.iter().filter(|one| !one.is_right()) {
        let (low, high) = (one.class.min(one.predicted), one.class.max(one.predicted));
        counts.entry([low, high]).or_default()[usize::from(one.class == high)] += 1;
    }
    let mut ranked: Vec<_> = counts.into_iter().collect();
    ranked.sort_by_key(|(_, [a, b])| std::cmp::Reverse(a + b));
    ranked.truncate(PAIRS);
    ranked
}

/// All classes that have images with how many these are and how many are right, in their order; of many, those that are right least
/// often.
fn classes(answers: &[One]) -> Vec<(u32, usize, usize)> {
    let mut counts: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
    for one in answers {
        let (images, right) = counts.entry(one.class).or_default();
        *images += 1;
        *right += usize::from(one.is_right());
    }
    let mut all: Vec<_> = counts.into_iter().map(|(class, (images, right))| (class, images, right)).collect();
    if all.len() > CLASSES {
        let share = |(_, images, right): &(u32, usize, usize)| *right as f64 / *images as f64;
        all.sort_by(|a, b| share(a).total_cmp(&share(b)));
        all.truncate(CLASSES);
    }
    all
}

/// Chooses images of `sets`, which the `model` weights have answered; `names` are those of the outputs.
///
/// # Errors
/// An image that can't be decoded any more.
pub(super) fn choose(model: Weights, sets: &[Judged], names: &[String]) -> Result<Examples> {
    // The surest first, by set and place among equals.
    let by_confidence = |answers: &mut Vec<One>| answers.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let mut by_set: Vec<Vec<One>> = sets.iter().enumerate().map(|(nth, judged)| answered(nth, judged)).collect();
    by_set.iter_mut().for_each(by_confidence);
    let mut all = by_set.concat();
    by_confidence(&mut all);
    let mut album = Album { sets, names, room: Room::new() };
    let shown = sets.iter().zip(&by_set).take(SETS);
    let sets = shown.map(|(judged, answers)| album.set(judged, answers)).collect::<Result<Vec<_>>>()?;
    let pairs = pairs(&all).into_iter().map(|pair| album.pair(pair, &all)).collect::<Result<Vec<_>>>()?;
    let classes = classes(&all).into_iter().map(|class| album.class(class, &all)).collect::<Result<Vec<_>>>()?;
    Ok(Examples { model, sets, classes, pairs, left_out: album.room.left_out })
}

/// Writes them to `path`.
///
/// # Errors
/// A file that can't be written.
pub(super) fn write(path: &Path, examples: &impl Serialize) -> Result<()> {
    atomic_write(path, (serde_json::to_string(examples).expect("plain values, paths that are UTF-8") + "\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, Item, LeftOut, RgbImage};
    use crate::train::evaluate::Tally;

    /// `count` images of noise, `side` pixels wide and high, with the classes that `class` gives, and the logits that `logits` gives.
    fn judged(
        folder: &Path,
        (count, side, outputs): (u32, u32, usize),
        class: impl Fn(u32) -> u32,
        logits: impl Fn(u32) -> Vec<f32>,
    ) -> (std::sync::Arc<ImageCache>, Evaluation) {
        let mut tally = Tally::new(outputs, None);
        let mut items = Vec::new();
        for i in 0..count {
            let path = folder.join(format!("{i:05}.png"));
            let noise = |x: u32, y: u32| (x * 7919 + y * 104_729 + i * 1_299_709).wrapping_mul(2_654_435_761) >> 24;
            RgbImage::from_fn(side, side, |x, y| image::Rgb([0, 1, 2].map(|c| noise(x + c, y * c + x) as u8)))
                .save(&path)
                .unwrap();
            items.push(Item { path, label: class(i) });
            tally.add(&logits(i), class(i) as usize);
        }
        let (name, classes, left_out) = ("t".into(), Vec::new(), LeftOut::default());
        let dataset = Dataset { name, classes, items, sets: None, left_out };
        (ImageCache::new(dataset, 0), tally.finish())
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("class {i}")).collect()
    }

    #[test]
    fn the_surest_mistakes_and_the_least_sure_answers_are_chosen() {
        let folder = tempfile::tempdir().unwrap();
        // Image i is of class 0, taken for 0 if i is even and for 1 if not, the surer the larger i is.
        let logits = |i: u32| {
            if i.is_multiple_of(2) { vec![0.1 * i as f32, 0.0, -9.0] } else { vec![0.0, 0.1 * i as f32, -9.0] }
        };
        let (images, evaluation) = judged(folder.path(), (20, 8, 3), |i| u32::from(i == 19), logits);
        let sets = [Judged { name: "t", images: &images, evaluation: &evaluation, thresholds: Vec::new() }];
        let found = choose(Weights::Best, &sets, &names(3)).unwrap();
        let numbers = |examples: &[Example]| -> Vec<u32> {
            examples.iter().map(|e| e.path.file_stem().unwrap().to_str().unwrap().parse().unwrap()).collect()
        };
        let of = &found.sets[0];
        assert_eq!((of.images, of.wrong), (20, 9));
        assert_eq!(numbers(&of.mistakes), [17, 15, 13, 11, 9, 7, 5, 3]);
        assert_eq!(numbers(&of.unsure), [0, 1, 2, 3, 4, 5, 6, 7]);
        let first = &of.mistakes[0];
        assert_eq!((first.class.as_str(), first.predicted.as_str()), ("class 0", "class 1"));
        let expected = 1.0 / (1.0 + (-1.7f64).exp() + (-10.7f64).exp());
        assert!((first.confidence - expected).abs() < 1e-6, "{} {expected}", first.confidence);
        let classes: Vec<_> = found.classes.iter().map(|of| (of.class.as_str(), of.images, of.right)).collect();
        assert_eq!(classes, [("class 0", 19, 10), ("class 1", 1, 1)]);
        assert_eq!(numbers(&found.classes[0].examples), [18, 16, 14, 17, 15, 13]);
        assert_eq!(found.pairs.len(), 1);
        let pair = &found.pairs[0];
        assert_eq!(
            (pair.wrong, numbers(&pair.examples[0]), numbers(&pair.examples[1])),
            ([9, 0], vec![17, 15, 13], vec![19])
        );
        let path = folder.path().join(EXAMPLES);
        write(&path, &found).unwrap();
        assert_eq!(Examples::read(&path).unwrap(), Some(found));
    }

    #[test]
    fn many_classes_of_loud_images_stay_within_the_room() {
        let folder = tempfile::tempdir().unwrap();
        let logits = |i: u32| (0..200).map(|c| if c == (i * 7) % 200 { 3.0 } else { 0.0 }).collect();
        let (images, evaluation) = judged(folder.path(), (400, 96, 200), |i| i % 200, logits);
        let named: Vec<String> = (0..9).map(|i| format!("set {i}")).collect();
        let sets: Vec<Judged> = named
            .iter()
            .map(|name| Judged { name, images: &images, evaluation: &evaluation, thresholds: Vec::new() })
            .collect();
        let found = choose(Weights::Last, &sets, &names(200)).unwrap();
        assert_eq!((found.sets.len(), found.classes.len(), found.pairs.len()), (SETS, CLASSES, PAIRS));
        let bytes: usize = found.all().map(|example| example.jpeg.len()).sum();
        assert!(bytes <= BYTES && (found.left_out > 0) == (bytes > BYTES - 30_000), "{bytes} {}", found.left_out);
        assert!(found.left_out > 0, "noise is large: {bytes}");
    }
}
