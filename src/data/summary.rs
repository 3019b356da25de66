//! What a data set holds, in a few lines for people and as a part of a run's `data.json`.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::check::{Broken, Looks};
use super::dataset::Dataset;
use super::item::Item;
use super::walk::LeftOut;
use crate::error::shown;

/// How many examples of a kind are kept.
const EXAMPLES: usize = 100;

/// What a data set holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// What the run calls it: train, val, or a test set's name.
    pub name: String,
    /// Images that are used.
    pub images: usize,
    /// Of a multi-label data set: labels of all images together, and images without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<(usize, usize)>,
    /// Images of each class that has any, by the class's name, in the order of the outputs.
    pub classes: Vec<(String, usize)>,
    /// Files and folders that are no images of it, by the reason.
    pub left_out: LeftOut,
    /// Images that can't be read and are left out: how many.
    pub broken: usize,
    /// The first of them, and why.
    pub broken_examples: Vec<(PathBuf, String)>,
    /// Images with 16 bits per value, of which the upper 8 are used.
    pub sixteen_bit: usize,
    /// Images that are there before with the same label.
    pub twice: usize,
    /// Images that are there before with another label: how many.
    pub two_labels: usize,
    /// The first of them, each with the one before.
    pub two_labels_examples: Vec<(PathBuf, PathBuf)>,
    /// Width and height of the smallest image by area, in pixels.
    pub smallest: [u32; 2],
    /// Width and height of the largest image by area, in pixels.
    pub largest: [u32; 2],
    /// The shorter side of the median image, in pixels.
    pub median_side: u32,
}

impl Summary {
    /// Of the images of `dataset`, whose labels are places in `classes`, or that have none; `broken` ones are not among them.
    pub fn new(name: &str, dataset: &Dataset, classes: &[String], looks: &Looks, broken: &[Broken]) -> Summary {
        let counts = if dataset.classes.is_empty() { vec![0; classes.len()] } else { dataset.counts() };
        let labels = dataset.sets.as_ref().map(|sets| {
            let each = dataset.items.iter().map(|item| sets.get(item.label).len());
            (each.clone().sum(), each.filter(|labels| *labels == 0).count())
        });
        let classes = classes.iter().cloned().zip(counts).filter(|(_, count)| *count > 0).collect();
        let mut summary = Summary {
            name: name.into(),
            images: dataset.items.len(),
            labels,
            classes,
            left_out: dataset.left_out.clone(),
            broken: broken.len(),
            broken_examples: broken.iter().take(EXAMPLES).map(|b| (b.path.clone(), b.why.clone())).collect(),
            ..Summary::default()
        };
        let mut first: HashMap<[u8; 32], &Item> = HashMap::new();
        let mut sides = Vec::with_capacity(dataset.items.len());
        let area = |size: [u32; 2]| u64::from(size[0]) * u64::from(size[1]);
        for item in &dataset.items {
            let Some(look) = looks.get(&item.path) else { continue };
            summary.sixteen_bit += usize::from(look.sixteen);
            if sides.is_empty() || area(look.size) < area(summary.smallest) {
                summary.smallest = look.size;
            }
            if area(look.size) > area(summary.largest) {
                summary.largest = look.size;
            }
            sides.push(look.size[0].min(look.size[1]));
            match first.get(&look.pixels) {
                None => _ = first.insert(look.pixels, item),
                Some(before) if before.label == item.label => summary.twice += 1,
                Some(before) => {
                    summary.two_labels += 1;
                    if summary.two_labels_examples.len() < EXAMPLES {
                        summary.two_labels_examples.push((item.path.clone(), before.path.clone()));
                    }
                }
            }
        }
        let middle = sides.len() / 2;
        if !sides.is_empty() {
            summary.median_side = *sides.select_nth_unstable(middle).1;
        }
        summary
    }

    /// The lines that a person is told, and whether each is a warning.
    pub fn lines(&self) -> Vec<(bool, String)> {
        let Summary { name, images, left_out, .. } = self;
        let mut lines = vec![(false, format!("{name}: {}", self.counts()))];
        if left_out.total() > 0 {
            lines.push((false, format!("{name}: {} files or folders left out: {left_out}", left_out.total())));
        }
        if self.broken > 0 {
            let some = examples(self.broken_examples.iter().map(|(path, why)| format!("{} ({why})", shown(path))));
            lines.push((true, format!("{name}: {} images that can't be read are left out: {some}", self.broken)));
        }
        if self.sixteen_bit > 0 {
            let count = self.sixteen_bit;
            lines.push((false, format!("{name}: {count} images have 16 bits per value: the upper 8 are used")));
        }
        if self.twice > 0 {
            lines.push((false, format!("{name}: {} of the {images} images are there twice", self.twice)));
        }
        if self.two_labels > 0 {
            let pair = |(one, other): &(PathBuf, PathBuf)| format!("{} = {}", shown(one), shown(other));
            let some = examples(self.two_labels_examples.iter().map(pair));
            lines.push((true, format!("{name}: {} images are there with two labels: {some}", self.two_labels)));
        }
        lines
    }

    fn counts(&self) -> String {
        let images = if self.images == 1 { "image" } else { "images" };
        let count = |class: &&(String, usize)| class.1;
        let (least, most) = (self.classes.iter().min_by_key(count), self.classes.iter().max_by_key(count));
        let classes = match (least, most) {
            (Some(least), Some(most)) if self.classes.len() > 1 => match least.1 == most.1 {
                true => format!(" of {} classes, {} each", self.classes.len(), least.1),
                false => {
                    let classes = self.classes.len();
                    format!(" of {classes} classes, from {} ({}) to {} ({})", least.1, least.0, most.1, most.0)
                }
            },
            (Some((name, _)), _) => format!(" of one class, {name}"),
            _ => String::new(),
        };
        let by = |[width, height]: [u32; 2]| format!("{width} x {height}");
        let (smallest, largest) = (by(self.smallest), by(self.largest));
        let sizes = if smallest == largest { smallest } else { format!("{smallest} to {largest}") };
        let labels = self.labels.map_or(String::new(), |(labels, without)| {
            let each = labels as f64 / self.images.max(1) as f64;
            format!("; {labels} labels, {each:.2} per image, {without} images without any")
        });
        format!("{} {images}{classes}{labels}; {sizes} pixels", self.images)
    }

    /// A hint where most images are much smaller than the model's input.
    pub fn hint(&self, input: usize) -> Option<String> {
        let side = self.median_side as usize;
        (side > 0 && 2 * side <= input).then(|| {
            format!(
                "{}: half of the images are at most {side} pixels along their shorter side, and are enlarged to the model's \
                 {input}",
                self.name
            )
        })
    }
}

/// The first few of them, and that there are more.
fn examples(mut all: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 3;
    let mut text = all.by_ref().take(SHOWN).collect::<Vec<_>>().join(", ");
    if all.next().is_some() {
        text += ", …";
    }
    text
}
