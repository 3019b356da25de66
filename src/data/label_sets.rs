//! What images with any number of labels have: sets of classes.

use std::collections::BTreeMap;

/// The different sets of classes that the images of a data set have; an image's label is then a place among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSets(Vec<Vec<u32>>);

impl LabelSets {
    /// The sets of `images`, each once and in order, and the place of each image's. Classes of a set may come in any order; one that
    /// comes twice counts once.
    pub fn of(images: impl Iterator<Item = Vec<u32>>) -> (LabelSets, Vec<u32>) {
        let sorted = images.map(|mut set| {
            set.sort_unstable();
            set.dedup();
            set
        });
        let sorted: Vec<Vec<u32>> = sorted.collect();
        let mut places: BTreeMap<&[u32], u32> = sorted.iter().map(|set| (set.as_slice(), 0)).collect();
        places.values_mut().zip(0..).for_each(|(place, own)| *place = own);
        let labels = sorted.iter().map(|set| places[set.as_slice()]).collect();
        let sets = places.into_keys().map(<[u32]>::to_vec).collect();
        (LabelSets(sets), labels)
    }

    /// The classes of the set at the place `label`, in order.
    ///
    /// # Panics
    /// If no set has this place.
    pub fn get(&self, label: u32) -> &[u32] {
        &self.0[label as usize]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_one_label() {
        let images = [vec![3, 1], vec![], vec![1, 3, 3], vec![0]];
        let (sets, labels) = LabelSets::of(images.into_iter());
        assert_eq!((labels, sets.len()), (vec![2, 0, 2, 1], 3));
        assert_eq!([sets.get(0), sets.get(1), sets.get(2)], [&[][..], &[0], &[1, 3]]);
    }
}
