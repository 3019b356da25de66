//! The evaluation transform, pixel for pixel that of torchvision and timm on Pillow images.

use image::imageops;
use serde::{Deserialize, Serialize};

use super::decode::RgbImage;
use super::resize::{Interpolation, Span, resize_window};
use crate::error::{Error, Result};

/// How an image of any shape becomes a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CropMode {
    /// The shorter side goes to `floor(image_size / crop_pct)`, then the centre is cropped.
    Center,
    /// Both sides go to `floor(image_size / crop_pct)`, whatever the shape, then the centre is cropped; at a
    /// `crop_pct` of 1 there is nothing to crop.
    Squash,
}

/// The input a checkpoint was trained for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Height and width of the model's input, in pixels.
    pub image_size: usize,
    /// The share of the resized image that the crop keeps along a side.
    pub crop_pct: f32,
    /// How the image becomes a square.
    pub crop_mode: CropMode,
    /// The resampling filter.
    pub interpolation: Interpolation,
    /// Subtracted from each channel, in units where white is 1.
    pub mean: [f32; 3],
    /// Divides each channel after the mean is subtracted.
    pub std: [f32; 3],
}

/// torchvision's `CenterCrop` along one axis: which of the resized pixels are kept, and where they stand in the output.
/// The offset is rounded half to even; what is missing is padded, the smaller half first.
fn center_crop(resized: usize, size: usize) -> (Span, usize) {
    let start = (resized.saturating_sub(size) as f64 / 2.0).round_ties_even() as usize;
    (Span { resized, start, len: resized.min(size) }, size.saturating_sub(resized) / 2)
}

impl Preprocess {
    /// Whether the numbers make sense, for those that come from a file or a flag.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the first field that does not.
    pub fn validate(&self) -> Result<()> {
        let Self { image_size, crop_pct, mean, std, .. } = self;
        if *image_size == 0 || *image_size > 1 << 14 {
            return Err(Error::Usage(format!("image size {image_size}: it must be 1 to {}", 1 << 14)));
        }
        if !(crop_pct.is_finite() && *crop_pct > 0.0 && (1..1 << 20).contains(&self.scale_size())) {
            return Err(Error::Usage(format!("crop pct {crop_pct}: it must be above 0, and is 0.8 to 1 as a rule")));
        }
        if !mean.iter().all(|m| m.is_finite()) {
            return Err(Error::Usage(format!("mean {mean:?}: it must be three numbers, as a rule between 0 and 1")));
        }
        if !std.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Err(Error::Usage(format!("std {std:?}: it must be three numbers above 0")));
        }
        Ok(())
    }

    /// The evaluation transform: `[3, image_size, image_size]`, normalised.
    ///
    /// # Panics
    /// Where [`Self::validate`] would fail.
    pub fn apply(&self, image: &RgbImage) -> Vec<f32> {
        self.normalise(&self.crop(image), false)
    }

    /// The resized and cropped image, `image_size` square, before normalisation.
    pub(crate) fn crop(&self, image: &RgbImage) -> RgbImage {
        let (width, height) = image.dimensions();
        let scale_size = self.scale_size();
        // The longer side is truncated as in torchvision's `Resize`.
        let long = |side: u32| (scale_size as u64 * u64::from(side) / u64::from(width.min(height))) as usize;
        let [(x, left), (y, top)] = match self.crop_mode {
            CropMode::Center => [long(width), long(height)],
            CropMode::Squash => [scale_size; 2],
        }
        .map(|resized| center_crop(resized, self.image_size));

        // Only what the crop keeps is computed: less work, and an image a pixel high takes no gigabytes.
        let kept = resize_window(image, x, y, self.interpolation);
        if x.len == self.image_size && y.len == self.image_size {
            return kept;
        }
        let mut padded = RgbImage::new(self.image_size as u32, self.image_size as u32);
        imageops::replace(&mut padded, &kept, left as i64, top as i64);
        padded
    }

    /// `[3, H, W]` of `(v / 255 − mean) / std`, mirrored left to right where `flip` says so.
    pub(crate) fn normalise(&self, image: &RgbImage, flip: bool) -> Vec<f32> {
        let (pixels, width) = (image.as_raw(), image.width() as usize);
        let mut planes = Vec::with_capacity(pixels.len());
        for channel in 0..3 {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let levels: [f32; 256] = std::array::from_fn(|v| (v as f32 / 255.0 - mean) / std);
            for row in pixels.chunks_exact(width * 3) {
                let values = row[channel..].iter().step_by(3).map(|&v| levels[usize::from(v)]);
                if flip { planes.extend(values.rev()) } else { planes.extend(values) }
            }
        }
        planes
    }

    /// timm's `floor(image_size / crop_pct)`.
    fn scale_size(&self) -> usize {
        // Through the decimal that was written: 0.8 as f32 is a little above 0.8, and 224 / 0.8 would be 279.
        let crop_pct: f64 = self.crop_pct.to_string().parse().expect("a float prints as a float");
        (self.image_size as f64 / crop_pct).floor() as usize
    }
}
