//! All that is done to training images and batches.

use rand::Rng;

use super::affine::rotate;
use super::erasing::erase;
use super::{Augment, ColorJitter, Mix, Policy};
use crate::data::decode::RgbImage;
use crate::data::preprocess::Preprocess;

/// Transforms of training images, in this order, and of batches of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Transforms {
    /// Random crop and flip.
    pub words: Augment,
    /// Turned about the centre by at most so many degrees to either side; what comes from outside is black.
    pub rotation: f64,
    /// Changed colours.
    pub jitter: ColorJitter,
    /// Operations of a policy.
    pub policy: Option<Policy>,
    /// How often a rectangle is erased, after normalisation.
    pub erasing: f64,
    /// How batches are mixed.
    pub mix: Mix,
}

impl From<Augment> for Transforms {
    fn from(words: Augment) -> Transforms {
        Transforms { words, ..Transforms::default() }
    }
}

impl Transforms {
    /// Whether an image is the same every time that it comes.
    pub fn keeps_images(&self) -> bool {
        let Transforms { words, rotation, jitter, policy, erasing, mix } = *self;
        let same = words == Augment::NONE && rotation == 0.0 && jitter == ColorJitter::NONE;
        same && policy.is_none() && erasing == 0.0 && !mix.is_on()
    }

    /// The transformed and normalised image, `[3, image_size, image_size]`. The draws for one transform depend on those before
    /// it alone.
    pub fn apply(&self, image: &RgbImage, preprocess: &Preprocess, rng: &mut impl Rng) -> Vec<f32> {
        let mut image = self.words.apply(image, preprocess, rng);
        if self.rotation > 0.0 {
            image = rotate(&image, rng.random_range(-self.rotation..=self.rotation));
        }
        self.jitter.apply(&mut image, rng);
        if let Some(policy) = self.policy {
            image = policy.apply(image, rng);
        }
        let mut values = preprocess.normalise(&image, false);
        erase(&mut values, preprocess.image_size, self.erasing, rng);
        values
    }
}
