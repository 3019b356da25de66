//! Parts of a data set that are set apart: for validation, or as one fold of several.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::check::Looks;
use super::dataset::Dataset;
use super::item::Item;

/// Divides `dataset` into a rest and a share of it, from (0, 1): from each class that share of its images, rounded, but at
/// least one image to each side where the class has two. Which images they are, the seed decides. Files of the same pixels stay
/// together, so that none is on both sides. An image with several labels counts for the rarest of its classes.
pub fn split_off(dataset: &Dataset, looks: &Looks, share: f64, seed: u64) -> (Dataset, Dataset) {
    let mut apart = vec![false; dataset.items.len()];
    for (_, groups) in shuffled(dataset, looks, seed) {
        let images: usize = groups.iter().map(Vec::len).sum();
        let wanted = ((share * images as f64).round() as usize).max(1);
        let (mut taken, last) = (0, groups.len() - 1);
        for group in &groups[..last] {
            if taken >= wanted {
                break;
            }
            taken += group.len();
            group.iter().for_each(|&i| apart[i] = true);
        }
    }
    sides(dataset, &apart)
}

/// The name of the test set that a held-out fold is.
pub const FOLD: &str = "fold";

/// One of several parts, as `2/5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fold {
    /// Which, from 1.
    pub index: usize,
    /// Of how many, 2 at least.
    pub of: usize,
}

impl std::str::FromStr for Fold {
    type Err = String;

    fn from_str(text: &str) -> Result<Fold, String> {
        match text.split_once('/').map(|(index, of)| (index.trim().parse(), of.trim().parse())) {
            Some((Ok(index), Ok(of))) if of >= 2 && (1..=of).contains(&index) => Ok(Fold { index, of }),
            _ => Err(format!("{text:?} is not K/N with N at least 2 and K from 1 to N, as in 2/5")),
        }
    }
}

impl TryFrom<String> for Fold {
    type Error = String;

    fn try_from(text: String) -> Result<Fold, String> {
        text.parse()
    }
}

impl From<Fold> for String {
    fn from(Fold { index, of }: Fold) -> String {
        format!("{index}/{of}")
    }
}

/// Divides `dataset` into a rest and the images of `fold`: of each class alike, each image in one fold of all, files of the same
/// pixels in the same. The seed decides which. The only image of a class is in none, so that no fold leaves a class without images.
pub fn hold_out(dataset: &Dataset, looks: &Looks, fold: Fold, seed: u64) -> (Dataset, Dataset) {
    let mut apart = vec![false; dataset.items.len()];
    for (number, (_, groups)) in shuffled(dataset, looks, seed).into_iter().enumerate() {
        // Each class begins at another fold: the images left over of each go to different ones.
        let own = groups.iter().enumerate().filter(|(at, _)| (at + number) % fold.of == fold.index - 1);
        for &i in own.filter(|_| groups.len() > 1).flat_map(|(_, group)| group) {
            apart[i] = true;
        }
    }
    sides(dataset, &apart)
}

/// The images of each class in random order, those of the same pixels together.
fn shuffled(dataset: &Dataset, looks: &Looks, seed: u64) -> Vec<(u32, Vec<Vec<usize>>)> {
    let counts = dataset.counts();
    // Of several classes the rarest, of which an image can least be spared; images without any are a group of their own.
    let class = |item: &Item| {
        let classes = dataset.classes_of(&item.label).iter();
        classes.min_by_key(|class| (counts[**class as usize], **class)).map_or(u32::MAX, |class| *class)
    };
    let mut groups: BTreeMap<u32, BTreeMap<Vec<u8>, Vec<usize>>> = BTreeMap::new();
    for (i, item) in dataset.items.iter().enumerate() {
        // The first place of these pixels: in the order of the items, whatever the hashes are.
        let key = looks
            .get(&item.path)
            .map_or_else(|| item.path.as_os_str().as_encoded_bytes().into(), |l| l.pixels.to_vec());
        groups.entry(class(item)).or_default().entry(key).or_default().push(i);
    }
    let in_order = |(label, groups): (u32, BTreeMap<Vec<u8>, Vec<usize>>)| {
        let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
        groups.sort();
        groups.shuffle(&mut rng(seed, label));
        (label, groups)
    };
    groups.into_iter().map(in_order).collect()
}

fn sides(dataset: &Dataset, apart: &[bool]) -> (Dataset, Dataset) {
    let side = |wanted: bool| {
        let items = dataset.items.iter().zip(apart).filter(|(_, apart)| **apart == wanted);
        let items: Vec<Item> = items.map(|(item, _)| item.clone()).collect();
        Dataset { items, ..dataset.clone() }
    };
    (side(false), side(true))
}

fn rng(seed: u64, label: u32) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from(label));
    rng
}
