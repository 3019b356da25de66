//! Training transforms. The draws for an image depend on the seed, the epoch and the image's index alone, and those
//! for a batch on the seed, the epoch and the batch's number, so that neither threads nor a resumed run change them.
//!
//! [`Transforms`] is all of them, in their order; [`Augment`] is the first two.

mod affine;
mod colour;
pub mod erasing;
mod jitter;
pub mod mix;
pub mod policy;
mod transforms;

pub use jitter::ColorJitter;
pub use mix::{Mix, Mixed};
pub use policy::Policy;
pub use transforms::Transforms;

use std::fmt;

use image::imageops;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::data::decode::RgbImage;
use crate::data::preprocess::Preprocess;
use crate::data::resize::resize;

/// Augmentations of a training image before normalisation: any of these together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// A [`RandomResizedCrop`] with its default ranges, in the place of the evaluation transform.
    pub crop: bool,
    /// Mirrored left to right half of the time.
    pub flip: bool,
}

impl Augment {
    /// The evaluation transform.
    pub const NONE: Augment = Augment { crop: false, flip: false };
    /// The evaluation transform, mirrored half of the time.
    pub const FLIP: Augment = Augment { crop: false, flip: true };
    /// A random crop, mirrored half of the time.
    pub const CROP_FLIP: Augment = Augment { crop: true, flip: true };

    /// The transformed image, `image_size` square.
    fn apply(self, image: &RgbImage, preprocess: &Preprocess, rng: &mut impl Rng) -> RgbImage {
        // The crop is drawn before the flip.
        let mut cropped = match self.crop {
            true => RandomResizedCrop::default().apply(image, preprocess, rng),
            false => preprocess.crop(image),
        };
        if self.flip && rng.random_bool(0.5) {
            imageops::flip_horizontal_in_place(&mut cropped);
        }
        cropped
    }

    fn words(self) -> Vec<&'static str> {
        [(self.crop, "crop"), (self.flip, "flip")].into_iter().filter_map(|(on, word)| on.then_some(word)).collect()
    }

    fn of_words<'a>(words: impl Iterator<Item = &'a str>) -> Result<Augment, String> {
        let words: Vec<&str> = words.map(str::trim).collect();
        let mut augment = Augment::NONE;
        for word in &words {
            match *word {
                "crop" => augment.crop = true,
                "flip" => augment.flip = true,
                "none" if words.len() == 1 => {}
                "none" => return Err("none goes with nothing else".into()),
                other => {
                    return Err(format!("unknown transform {other:?}: none, or any of crop and flip, as in crop,flip"));
                }
            }
        }
        Ok(augment)
    }
}

impl std::str::FromStr for Augment {
    type Err = String;

    fn from_str(text: &str) -> Result<Augment, String> {
        Augment::of_words(text.split(','))
    }
}

impl fmt::Display for Augment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.words();
        f.write_str(&if words.is_empty() { "none".into() } else { words.join(",") })
    }
}

impl Serialize for Augment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.words().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Augment {
    /// A list of words. A single word is how earlier versions wrote it, whose `crop` flipped as well.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Augment, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a list of transforms, as [\"crop\", \"flip\"]")]
        enum Written {
            List(Vec<String>),
            Word(String),
        }
        let augment = match Written::deserialize(deserializer)? {
            Written::List(words) => Augment::of_words(words.iter().map(String::as_str)),
            Written::Word(word) if word == "crop" => Ok(Augment::CROP_FLIP),
            Written::Word(words) => words.parse(),
        };
        augment.map_err(D::Error::custom)
    }
}

/// Why a flip may change what images of these classes show, if it may.
pub fn flip_doubt(classes: &[String]) -> Option<&'static str> {
    const DIGITS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let sign = |name: &String| {
        let mut chars = name.chars();
        matches!((chars.next(), chars.next()), (Some(c), None) if c.is_alphanumeric())
            || DIGITS.contains(&name.as_str())
    };
    let sided = |name: &String| {
        let name = name.to_lowercase();
        name.split(|c: char| !c.is_alphabetic()).any(|word| ["left", "right"].contains(&word))
    };
    if !classes.is_empty() && classes.iter().all(sign) {
        return Some("the classes are called by digits or letters, and a mirrored one may be another or none");
    }
    classes.iter().any(sided).then_some("classes are called by left or right, and a mirrored image has the other")
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
        resize(&preprocess.colours(&part), size, size, preprocess.interpolation)
    }
}

/// The random stream of one image in one epoch; `index` is its place in the data set's items.
pub fn item_rng(seed: u64, epoch: u64, index: usize) -> ChaCha8Rng {
    stream([seed, epoch, index as u64, 1])
}

/// The random stream of one batch; `batch` is its number in the epoch.
pub(crate) fn batch_rng(seed: u64, epoch: u64, batch: usize) -> ChaCha8Rng {
    stream([seed, epoch, batch as u64, 2])
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
