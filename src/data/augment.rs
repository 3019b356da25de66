//! Training transforms. What is drawn depends on the seed, the epoch and the image's index alone, so that neither
//! threads nor a resumed run change it.

use std::fmt;

use image::imageops;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::decode::RgbImage;
use super::preprocess::Preprocess;
use super::resize::resize;

/// What is done to a training image before normalisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Augment {
    /// The evaluation transform.
    #[default]
    None,
    /// The evaluation transform, mirrored left to right half of the time.
    Flip,
    /// A [`RandomResizedCrop`] with its default ranges, mirrored left to right half of the time.
    Crop,
}

impl Augment {
    /// The transformed and normalised image, `[3, image_size, image_size]`.
    pub fn apply(self, image: &RgbImage, preprocess: &Preprocess, rng: &mut impl Rng) -> Vec<f32> {
        let cropped = match self {
            Self::None => return preprocess.apply(image),
            Self::Flip => preprocess.crop(image),
            Self::Crop => RandomResizedCrop::default().apply(image, preprocess, rng),
        };
        preprocess.normalise(&cropped, rng.random_bool(0.5))
    }
}

impl fmt::Display for Augment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Flip => "flip",
            Self::Crop => "crop",
        })
    }
}

/// torchvision's `RandomResizedCrop`: a part of the image, of random area and shape, at the model's input size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomResizedCrop {
    /// The least and the greatest share of the image's area.
    pub scale: [f64; 2],
    /// The least and the greatest width by height, drawn uniformly in the logarithm.
    pub ratio: [f64; 2],
}

impl Default for RandomResizedCrop {
    /// A share of 0.35 to 1 and a shape of 3:4 to 4:3. Fine-tuning wants a gentler crop than the 0.08 of training from
    /// scratch.
    fn default() -> Self {
        Self { scale: [0.35, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }
}

impl RandomResizedCrop {
    /// The part to keep of a `width` × `height` image: `[left, top, width, height]`, in whole pixels inside it.
    pub fn sample(&self, width: u32, height: u32, rng: &mut impl Rng) -> [u32; 4] {
        let (w, h) = (f64::from(width), f64::from(height));
        let [log_min, log_max] = self.ratio.map(f64::ln);
        for _ in 0..10 {
            let area = w * h * rng.random_range(self.scale[0]..=self.scale[1]);
            let ratio = rng.random_range(log_min..=log_max).exp();
            let crop_w = (area * ratio).sqrt().round_ties_even();
            let crop_h = (area / ratio).sqrt().round_ties_even();
            if (1.0..=w).contains(&crop_w) && (1.0..=h).contains(&crop_h) {
                let (crop_w, crop_h) = (crop_w as u32, crop_h as u32);
                let top = rng.random_range(0..=height - crop_h);
                let left = rng.random_range(0..=width - crop_w);
                return [left, top, crop_w, crop_h];
            }
        }
        // An image too long for any such part: the largest part of an allowed shape, from the centre.
        let [min, max] = self.ratio;
        let (crop_w, crop_h) = if w / h < min {
            (w, (w / min).round_ties_even())
        } else if w / h > max {
            ((h * max).round_ties_even(), h)
        } else {
            (w, h)
        };
        let (crop_w, crop_h) = (crop_w.clamp(1.0, w) as u32, crop_h.clamp(1.0, h) as u32);
        [(width - crop_w) / 2, (height - crop_h) / 2, crop_w, crop_h]
    }

    fn apply(&self, image: &RgbImage, preprocess: &Preprocess, rng: &mut impl Rng) -> RgbImage {
        let [left, top, width, height] = self.sample(image.width(), image.height(), rng);
        // Cut first and resized then, as in torchvision: the filter sees nothing outside the crop.
        let part = imageops::crop_imm(image, left, top, width, height).to_image();
        let size = preprocess.image_size as u32;
        resize(&part, size, size, preprocess.interpolation)
    }
}

/// The random stream of one image in one epoch; `index` is its place in the data set's items.
pub fn item_rng(seed: u64, epoch: u64, index: usize) -> ChaCha8Rng {
    stream([seed, epoch, index as u64, 1])
}

/// The random stream of an epoch's order. The last word of the key keeps it apart from every image's.
pub(crate) fn order_rng(seed: u64, epoch: u64) -> ChaCha8Rng {
    stream([seed, epoch, 0, 0])
}

fn stream(words: [u64; 4]) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
