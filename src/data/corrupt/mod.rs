//! Built-in corruptions in the manner of ImageNet-C (Hendrycks & Dietterich, *Benchmarking Neural Network Robustness to
//! Common Corruptions and Perturbations*, ICLR 2019, arXiv:1903.12261): any test set becomes out-of-distribution ones,
//! without another label.
//!
//! A corruption is applied to the 8-bit image at the model's input size, after resizing and cropping, as ImageNet-C's were.
//! Its parameters are ImageNet-C's at 224 pixels; lengths in pixels are scaled by the shorter side over 224. What is
//! random is drawn from the image's own pixels, the kind and a seed: neither batches nor threads nor the other images
//! change it, and the five severities of a kind share their draws.
//!
//! `frost` is not there: it needs photographs of ice.

mod blur;
mod canvas;
mod digital;
mod noise;
mod weather;

use std::fmt;
use std::ops::RangeInclusive;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::canvas::Canvas;
use super::decode::RgbImage;
use crate::error::{Error, Result};

/// What happens to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A normal number is added to every value.
    GaussianNoise,
    /// Few photons are counted.
    ShotNoise,
    /// Some values are black or white.
    ImpulseNoise,
    /// A normal number in proportion to the value is added.
    SpeckleNoise,
    /// Out of focus.
    DefocusBlur,
    /// A Gaussian.
    GaussianBlur,
    /// Seen through frosted glass.
    GlassBlur,
    /// Moved sideways.
    MotionBlur,
    /// Moved forward.
    ZoomBlur,
    /// A plasma fractal over the image.
    Fog,
    /// Flakes, and a whiter scene.
    Snow,
    /// More light.
    Brightness,
    /// Less contrast.
    Contrast,
    /// Less colour, then more.
    Saturate,
    /// Stretched here and there.
    ElasticTransform,
    /// Large pixels.
    Pixelate,
    /// Strongly compressed.
    JpegCompression,
}

impl Kind {
    /// All of them, in the order of tables.
    pub const ALL: [Kind; 17] = [
        Kind::GaussianNoise,
        Kind::ShotNoise,
        Kind::ImpulseNoise,
        Kind::SpeckleNoise,
        Kind::DefocusBlur,
        Kind::GaussianBlur,
        Kind::GlassBlur,
        Kind::MotionBlur,
        Kind::ZoomBlur,
        Kind::Fog,
        Kind::Snow,
        Kind::Brightness,
        Kind::Contrast,
        Kind::Saturate,
        Kind::ElasticTransform,
        Kind::Pixelate,
        Kind::JpegCompression,
    ];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Kind::GaussianNoise => "gaussian_noise",
            Kind::ShotNoise => "shot_noise",
            Kind::ImpulseNoise => "impulse_noise",
            Kind::SpeckleNoise => "speckle_noise",
            Kind::DefocusBlur => "defocus_blur",
            Kind::GaussianBlur => "gaussian_blur",
            Kind::GlassBlur => "glass_blur",
            Kind::MotionBlur => "motion_blur",
            Kind::ZoomBlur => "zoom_blur",
            Kind::Fog => "fog",
            Kind::Snow => "snow",
            Kind::Brightness => "brightness",
            Kind::Contrast => "contrast",
            Kind::Saturate => "saturate",
            Kind::ElasticTransform => "elastic_transform",
            Kind::Pixelate => "pixelate",
            Kind::JpegCompression => "jpeg_compression",
        }
    }
}

/// The severities: 1 is mild, 5 is harsh.
pub const SEVERITIES: RangeInclusive<u8> = 1..=5;

/// One kind at one severity. Prints as `fog3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// What happens to an image.
    pub kind: Kind,
    severity: u8,
    seed: u64,
}

impl Corruption {
    /// `kind` at `severity` 1 to 5, with the random draws of `seed`.
    ///
    /// # Errors
    /// [`Error::Usage`] for another severity.
    pub fn new(kind: Kind, severity: u8, seed: u64) -> Result<Corruption> {
        if !SEVERITIES.contains(&severity) {
            return Err(Error::Usage(format!("{}:{severity}: severities are 1 to 5", kind.name())));
        }
        Ok(Corruption { kind, severity, seed })
    }

    /// 1 to 5.
    pub fn severity(self) -> u8 {
        self.severity
    }

    /// The corrupted image, of the same size.
    ///
    /// # Panics
    /// Where the image has no pixels, or more than 65,535 along a side.
    pub fn apply(self, image: &RgbImage) -> RgbImage {
        let level = usize::from(self.severity - 1);
        let mut rng = self.rng(image);
        let canvas = Canvas::of(image);
        let changed = match self.kind {
            Kind::GaussianNoise => noise::gaussian(canvas, level, &mut rng),
            Kind::ShotNoise => noise::shot(canvas, level, &mut rng),
            Kind::ImpulseNoise => noise::impulse(canvas, level, &mut rng),
            Kind::SpeckleNoise => noise::speckle(canvas, level, &mut rng),
            Kind::DefocusBlur => blur::defocus(&canvas, level),
            Kind::GaussianBlur => blur::gaussian(&canvas, level),
            Kind::GlassBlur => blur::glass(&canvas, level, &mut rng),
            Kind::MotionBlur => blur::motion(&canvas, level, &mut rng),
            Kind::ZoomBlur => blur::zoom(&canvas, level),
            Kind::Fog => weather::fog(canvas, level, &mut rng),
            Kind::Snow => weather::snow(canvas, level, &mut rng),
            Kind::Brightness => weather::brightness(canvas, level),
            Kind::Contrast => digital::contrast(canvas, level),
            Kind::Saturate => digital::saturate(canvas, level),
            Kind::ElasticTransform => digital::elastic(&canvas, level, &mut rng),
            Kind::Pixelate => digital::pixelate(&canvas, level),
            Kind::JpegCompression => return digital::jpeg(image, level),
        };
        changed.to_rgb()
    }

    /// The stream of an image: of its pixels, the kind and the seed, and not of the severity.
    fn rng(self, image: &RgbImage) -> ChaCha8Rng {
        let mut hash = Sha256::new();
        hash.update(self.kind.name());
        hash.update([0]);
        hash.update(self.seed.to_le_bytes());
        hash.update(image.width().to_le_bytes());
        hash.update(image.as_raw());
        ChaCha8Rng::from_seed(hash.finalize().into())
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.name(), self.severity)
    }
}

/// [`Kind::MotionBlur`] at `degrees` from the horizontal rather than a random angle.
///
/// # Errors
/// [`Error::Usage`] for a severity other than 1 to 5.
pub fn motion_blur(image: &RgbImage, severity: u8, degrees: f64) -> Result<RgbImage> {
    let corruption = Corruption::new(Kind::MotionBlur, severity, 0)?;
    Ok(blur::motion_along(&Canvas::of(image), usize::from(corruption.severity - 1), degrees).to_rgb())
}

/// The corruptions that `words` name, by kind and severity, each once: `fog:3`, `motion_blur:1..5` (both ends belong to it),
/// `fog` (all five), `all` and `all:3`.
///
/// # Errors
/// [`Error::Usage`] naming the word that can't be understood, with the kinds there are.
pub fn parse(words: &[String], seed: u64) -> Result<Vec<Corruption>> {
    let mut found: Vec<(Kind, u8)> = Vec::new();
    for word in words {
        let (name, severities) = word.split_once(':').map_or((word.as_str(), None), |(name, s)| (name, Some(s)));
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| name == "all" || kind.name() == name).collect();
        if kinds.is_empty() {
            let names = Kind::ALL.map(Kind::name).join(", ");
            return Err(Error::Usage(format!("{word}: unknown corruption {name:?}: use all, {names}")));
        }
        let range = severities.map_or(Some(SEVERITIES), severity_range).ok_or_else(|| {
            Error::Usage(format!("{word}: severities are 1 to 5: give one, as in fog:3, or a range, as in fog:1..5"))
        })?;
        found.extend(kinds.into_iter().flat_map(|kind| range.clone().map(move |severity| (kind, severity))));
    }
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|(kind, severity)| Corruption::new(kind, severity, seed)).collect()
}

fn severity_range(text: &str) -> Option<RangeInclusive<u8>> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let range = from.parse().ok()?..=to.parse().ok()?;
    (!range.is_empty() && SEVERITIES.contains(range.start()) && SEVERITIES.contains(range.end())).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Vec<String>> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        Ok(parse(&words, 0)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn lists_are_taken_apart() {
        assert_eq!(parsed(&["snow:2", "fog:3", "fog:2..4"]).unwrap(), ["fog2", "fog3", "fog4", "snow2"]);
        assert_eq!(parsed(&["pixelate"]).unwrap().len(), 5);
        assert_eq!(parsed(&["all", "fog"]).unwrap().len(), 17 * 5);
        assert_eq!(parsed(&["all:5"]).unwrap().len(), 17);
        for (word, part) in [("frog", "unknown corruption \"frog\""), ("fog:0", "1 to 5"), ("fog:6", "1 to 5")] {
            assert!(parsed(&[word]).unwrap_err().to_string().contains(part), "{word}");
        }
        for word in ["fog:", "fog:4..2", "fog:1..9", "fog:x", "fog:-1", ""] {
            assert!(matches!(parsed(&[word]), Err(Error::Usage(_))), "{word}");
        }
    }

    #[test]
    fn names_are_those_of_files() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
