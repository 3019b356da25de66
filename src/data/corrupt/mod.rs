//! Built-in corruptions in the manner of ImageNet-C (Hendrycks & Dietterich, *Benchmarking Neural Network Robustness to
//! Common Corruptions and Perturbations*, ICLR 2019, arXiv:1903.12261): any test set becomes out-of-distribution ones,
//! without another label.
//!
//! A corruption is applied to the 8-bit image at the model's input size, after resizing and cropping, as ImageNet-C's were.
//! Its parameters are ImageNet-C's at 224 pixels; lengths in pixels are scaled by the shorter side over 224. Random
//! numbers are drawn from the image's own pixels, the kind and a seed: neither batches nor threads nor the other images
//! change them, and the five severities of a kind share their draws.
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
pub enum CorruptionKind {
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

impl CorruptionKind {
    /// All of them, in the order of tables.
    pub const ALL: [CorruptionKind; 17] = [
        CorruptionKind::GaussianNoise,
        CorruptionKind::ShotNoise,
        CorruptionKind::ImpulseNoise,
        CorruptionKind::SpeckleNoise,
        CorruptionKind::DefocusBlur,
        CorruptionKind::GaussianBlur,
        CorruptionKind::GlassBlur,
        CorruptionKind::MotionBlur,
        CorruptionKind::ZoomBlur,
        CorruptionKind::Fog,
        CorruptionKind::Snow,
        CorruptionKind::Brightness,
        CorruptionKind::Contrast,
        CorruptionKind::Saturate,
        CorruptionKind::ElasticTransform,
        CorruptionKind::Pixelate,
        CorruptionKind::JpegCompression,
    ];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            CorruptionKind::GaussianNoise => "gaussian_noise",
            CorruptionKind::ShotNoise => "shot_noise",
            CorruptionKind::ImpulseNoise => "impulse_noise",
            CorruptionKind::SpeckleNoise => "speckle_noise",
            CorruptionKind::DefocusBlur => "defocus_blur",
            CorruptionKind::GaussianBlur => "gaussian_blur",
            CorruptionKind::GlassBlur => "glass_blur",
            CorruptionKind::MotionBlur => "motion_blur",
            CorruptionKind::ZoomBlur => "zoom_blur",
            CorruptionKind::Fog => "fog",
            CorruptionKind::Snow => "snow",
            CorruptionKind::Brightness => "brightness",
            CorruptionKind::Contrast => "contrast",
            CorruptionKind::Saturate => "saturate",
            CorruptionKind::ElasticTransform => "elastic_transform",
            CorruptionKind::Pixelate => "pixelate",
            CorruptionKind::JpegCompression => "jpeg_compression",
        }
    }
}

/// The severities: 1 is mild, 5 is harsh.
pub const SEVERITIES: RangeInclusive<u8> = 1..=5;

/// One kind at one severity. Prints as `fog3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// What happens to an image.
    pub kind: CorruptionKind,
    severity: u8,
    seed: u64,
}

impl Corruption {
    /// `kind` at `severity` 1 to 5, with the random draws of `seed`.
    ///
    /// # Errors
    /// [`Error::Usage`] for another severity.
    pub fn new(kind: CorruptionKind, severity: u8, seed: u64) -> Result<Corruption> {
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
            CorruptionKind::GaussianNoise => noise::gaussian(canvas, level, &mut rng),
            CorruptionKind::ShotNoise => noise::shot(canvas, level, &mut rng),
            CorruptionKind::ImpulseNoise => noise::impulse(canvas, level, &mut rng),
            CorruptionKind::SpeckleNoise => noise::speckle(canvas, level, &mut rng),
            CorruptionKind::DefocusBlur => blur::defocus(&canvas, level),
            CorruptionKind::GaussianBlur => blur::gaussian(&canvas, level),
            CorruptionKind::GlassBlur => blur::glass(&canvas, level, &mut rng),
            CorruptionKind::MotionBlur => blur::motion(&canvas, level, &mut rng),
            CorruptionKind::ZoomBlur => blur::zoom(&canvas, level),
            CorruptionKind::Fog => weather::fog(canvas, level, &mut rng),
            CorruptionKind::Snow => weather::snow(canvas, level, &mut rng),
            CorruptionKind::Brightness => weather::brightness(canvas, level),
            CorruptionKind::Contrast => digital::contrast(canvas, level),
            CorruptionKind::Saturate => digital::saturate(canvas, level),
            CorruptionKind::ElasticTransform => digital::elastic(&canvas, level, &mut rng),
            CorruptionKind::Pixelate => digital::pixelate(&canvas, level),
            CorruptionKind::JpegCompression => return digital::jpeg(image, level),
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

/// [`CorruptionKind::MotionBlur`] at `degrees` from the horizontal rather than a random angle.
///
/// # Errors
/// [`Error::Usage`] for a severity other than 1 to 5.
pub fn motion_blur(image: &RgbImage, severity: u8, degrees: f64) -> Result<RgbImage> {
    let corruption = Corruption::new(CorruptionKind::MotionBlur, severity, 0)?;
    Ok(blur::motion_along(&Canvas::of(image), usize::from(corruption.severity - 1), degrees).to_rgb())
}

/// The corruptions that `words` name, by kind and severity, each once: `fog:3`, `motion_blur:1..5` (both ends belong to it),
/// `fog` (all five), `all` and `all:3`.
///
/// # Errors
/// [`Error::Usage`] naming the word that can't be understood, with the kinds there are.
pub fn parse(words: &[String], seed: u64) -> Result<Vec<Corruption>> {
    let mut found: Vec<(CorruptionKind, u8)> = Vec::new();
    for word in words {
        let (name, severities) = word.split_once(':').map_or((word.as_str(), None), |(name, s)| (name, Some(s)));
        let kinds: Vec<CorruptionKind> =
            CorruptionKind::ALL.into_iter().filter(|kind| name == "all" || kind.name() == name).collect();
        if kinds.is_empty() {
            let names = CorruptionKind::ALL.map(CorruptionKind::name).join(", ");
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
        for kind in CorruptionKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
