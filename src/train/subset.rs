//! Test sets with fewer classes than the model: ImageNet-A and -R have 200 of ImageNet's 1,000. Their published accuracies
//! let a model answer with those classes only.

use std::sync::Arc;

use crate::data::{ClassMap, Dataset, ImageCache, Preprocess, name_some};
use crate::error::Result;
use crate::train::evaluate::{Classifier, Evaluation, Fitted, evaluate_at};
use crate::train::place::Place;

/// The logit of a class that can't be the answer: its probability is 0 beside any other, and yet a number that can be
/// multiplied by 0.
const NEVER: f32 = -1e30;

/// A classifier whose answers are held to some of its classes.
struct Subset<'a> {
    model: &'a mut dyn Classifier,
    /// Whether a class may be the answer.
    allowed: Vec<bool>,
}

impl Classifier for Subset<'_> {
    fn place(&self) -> Place {
        self.model.place()
    }

    fn capacity(&self) -> usize {
        self.model.capacity()
    }

    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        let mut logits = self.model.logits(images, batch)?;
        for row in logits.chunks_mut(self.allowed.len()) {
            row.iter_mut().zip(&self.allowed).filter(|(_, allowed)| !**allowed).for_each(|(logit, _)| *logit = NEVER);
        }
        Ok(logits)
    }
}

/// Which of the classes a data set has images of.
fn present(dataset: &Dataset) -> Vec<bool> {
    dataset.counts().into_iter().map(|images| images > 0).collect()
}

/// How many of its classes a data set has images of.
pub fn classes_with_images(dataset: &Dataset) -> usize {
    present(dataset).iter().filter(|present| **present).count()
}

/// [`evaluate_at`]; with `subset`, as if the model had only the classes that `images` has: accuracy, loss and calibration
/// are those of the logits of these classes.
///
/// # Errors
/// As [`evaluate_at`].
pub fn evaluate_among(
    model: &mut dyn Classifier,
    images: &Arc<ImageCache>,
    preprocess: &Preprocess,
    classes: usize,
    subset: bool,
    chosen: Fitted,
) -> Result<Evaluation> {
    if !subset {
        return evaluate_at(model, images, preprocess, classes, chosen);
    }
    let mut model = Subset { model, allowed: present(images.dataset()) };
    evaluate_at(&mut model, images, preprocess, classes, chosen)
}

/// One sentence where a data set lacks some of the model's classes.
pub fn lacking(name: &str, dataset: &Dataset, classes: &ClassMap) -> Option<String> {
    let (lacking, of) = (classes.lacking(dataset), classes.len());
    let has = of - lacking.len();
    let missing = || name_some(lacking.iter().copied());
    (has < of).then(|| format!("{name} has images of {has} of the model's {of} classes, none of {}", missing()))
}

/// [`lacking`] for a test set, and what that means for its figures.
pub fn note(name: &str, dataset: &Dataset, classes: &ClassMap, subset: bool) -> Option<String> {
    let what = if subset {
        "its answers are held to those"
    } else {
        "any class may be the answer, --subset allows only those that it has"
    };
    lacking(name, dataset, classes).map(|lacking| format!("{lacking}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<f32>);

    impl Classifier for Fixed {
        fn place(&self) -> Place {
            Place::default()
        }

        fn capacity(&self) -> usize {
            4
        }

        fn logits(&mut self, _: &[f32], batch: usize) -> Result<Vec<f32>> {
            Ok(self.0.repeat(batch))
        }
    }

    #[test]
    fn answers_are_held_to_the_classes_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/1.png", "c/1.png", "c/2.png"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::new(2, 2).save(path).unwrap();
        }
        let names = ["a", "b", "c"].map(String::from);
        let model = crate::data::Outputs { model: "m".as_ref(), count: 3, names: Some(&names) };
        let dataset = Dataset::open(dir.path(), None).unwrap();
        let classes = ClassMap::of_model(model, None, &[&dataset]).unwrap();
        let dataset = classes.label(&dataset).unwrap();
        assert_eq!(classes_with_images(&dataset), 2);
        let note = note("t", &dataset, &classes, false).unwrap();
        assert!(note.contains("2 of the model's 3 classes, none of \"b\""), "{note}");
        let images = ImageCache::new(dataset, 0);
        let preprocess = Preprocess {
            image_size: 2,
            crop_pct: 1.0,
            crop_mode: crate::data::CropMode::Center,
            interpolation: crate::data::Interpolation::Bilinear,
            mean: [0.5; 3],
            std: [0.5; 3],
            grey: false,
        };
        // Class b, which the set lacks, scores highest.
        let mut model = Fixed(vec![1.0, 5.0, 2.0]);
        let open = evaluate_among(&mut model, &images, &preprocess, 3, false, Fitted::default()).unwrap();
        assert_eq!((open.top1, open.images), (0.0, 3));
        let held = evaluate_among(&mut model, &images, &preprocess, 3, true, Fitted::default()).unwrap();
        assert_eq!(held.top1, 2.0 / 3.0);
        // The softmax over 1 and 2 alone: ln(1 + e⁻¹) for c, 1 more for a.
        let c = (1.0 + (-1.0f64).exp()).ln();
        assert!((held.loss - (3.0 * c + 1.0) / 3.0).abs() < 1e-6, "{}", held.loss);
    }
}
