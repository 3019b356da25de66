//! A part of a data set set apart for validation.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::check::Looks;
use super::dataset::Dataset;
use super::item::Item;

/// Divides `dataset` into what is left and a share of it, from (0, 1): from each class that share of its images, rounded, but at
/// least one image to each side where the class has two. Which images they are, the seed decides. Files of the same pixels stay
/// together, so that none is on both sides. An image with several labels counts for the rarest of its classes.
pub fn split_off(dataset: &Dataset, looks: &Looks, share: f64, seed: u64) -> (Dataset, Dataset) {
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
    let mut apart = vec![false; dataset.items.len()];
    for (label, groups) in groups {
        let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
        groups.sort();
        let images: usize = groups.iter().map(Vec::len).sum();
        groups.shuffle(&mut rng(seed, label));
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
    let side = |wanted: bool| {
        let items = dataset.items.iter().zip(&apart).filter(|(_, apart)| **apart == wanted);
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
