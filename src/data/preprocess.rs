//! The evaluation transform, pixel for pixel that of timm, torchvision, OpenCLIP and transformers on Pillow images.

use std::borrow::Cow;

use image::{Rgb, imageops};
use serde::{Deserialize, Serialize};

use super::decode::RgbImage;
use super::resize::{Interpolation, Order, Span, resize_window};
use crate::error::{Error, Result};

/// How an image of any shape becomes a square.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CropMode {
    /// The shorter side goes to `floor(image_size / crop_pct)`, then the centre is cropped: timm, torchvision, OpenCLIP.
    /// Where an odd number of pixels is cut, half of it is rounded to even.
    Center,
    /// As `Center`, but half of the cut is rounded down and resizing goes across first: transformers.
    CenterFloor,
    /// Both sides go to `floor(image_size / crop_pct)`, whatever the shape, then the centre is cropped; at a
    /// `crop_pct` of 1 there is nothing to crop.
    Squash,
    /// As `Squash`, with the roundings of `CenterFloor`: transformers.
    SquashFloor,
    /// The longer side goes to `floor(image_size / crop_pct)`, the rest of the square is filled with the mean:
    /// timm's `border`.
    Border,
    /// As `Border`, filled with black: OpenCLIP's `longest`.
    Longest,
}

/// The input a checkpoint was trained for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Height and width of the model's input, in pixels.
    pub image_size: usize,
    /// The share of the resized image that the crop keeps along a side. As precise as in the libraries' files, because
    /// the size that follows from it is rounded down.
    pub crop_pct: f64,
    /// How the image becomes a square.
    pub crop_mode: CropMode,
    /// The resampling filter.
    pub interpolation: Interpolation,
    /// Subtracted from each channel, in units where white is 1.
    pub mean: [f32; 3],
    /// Divides each channel after the mean is subtracted.
    pub std: [f32; 3],
    /// Whether the model reads one channel: all three planes are the image's luma then, as Pillow's `convert("L")` gives it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grey: bool,
}

/// The luma of a colour as Pillow's `convert("L")` gives it: ITU-R 601-2 in 16 bits, rounded.
pub(super) fn luma(colour: [u8; 3]) -> u8 {
    let [r, g, b] = colour.map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
}

/// The `crop_pct` at which images go to exactly `resized` pixels for a crop of `size`: their ratio, or the number next to
/// it where the division would end below `resized`.
pub(crate) fn crop_share(size: usize, resized: usize) -> f64 {
    let (size, resized) = (size as f64, resized as f64);
    let share = size / resized;
    if size / share < resized { share.next_down() } else { share }
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
        let in_range = *crop_pct > 0.0 && *crop_pct <= 2.0 && (1..1 << 20).contains(&self.scale_size());
        if !in_range {
            let what = "it must be a share above 0 and at most 2, and is 0.8 to 1 as a rule";
            return Err(Error::Usage(format!("crop pct {crop_pct}: {what}")));
        }
        if !mean.iter().all(|m| m.is_finite()) {
            return Err(Error::Usage(format!("mean {mean:?}: it must be three numbers from 0 (black) to 1 (white)")));
        }
        if !std.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Err(Error::Usage(format!("std {std:?}: it must be three numbers above 0")));
        }
        Ok(())
    }

    /// A doubt about the numbers, though they can be computed with: above all a mean or std for values where white is 255.
    pub fn doubt(&self) -> Option<String> {
        let odd = |what: &str, values: &[f32; 3], ok: &dyn Fn(f32) -> bool| {
            let scaled = values.map(|v| (v / 0.255).round() / 1000.0);
            let hint = match values.iter().all(|v| (1.0..=255.0).contains(v)) {
                true => format!("; where white is 255, {values:?} stand for {scaled:?}"),
                false => String::new(),
            };
            (!values.iter().all(|v| ok(*v)))
                .then(|| format!("{what} {values:?}: white is 1 here, as a rule it is 0 to 1{hint}"))
        };
        odd("mean", &self.mean, &|v| (0.0..=1.0).contains(&v))
            .or_else(|| odd("std", &self.std, &|v| v > 0.0 && v <= 1.0))
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
        let image = &*self.colours(image);
        let (width, height) = image.dimensions();
        let [(x, left), (y, top)] = self.resized(width, height).map(|resized| self.center_crop(resized));

        // Only what the crop keeps is computed: less work, and an image of one pixel's height takes no gigabytes.
        let order = if self.floors() { Order::Across } else { Order::Pillow };
        let kept = resize_window(image, x, y, self.interpolation, order);
        if x.len == self.image_size && y.len == self.image_size {
            return kept;
        }
        let fill = match self.crop_mode {
            CropMode::Border => self.mean.map(|mean| (255.0 * mean).round_ties_even() as u8),
            _ => [0; 3],
        };
        let mut padded = RgbImage::from_pixel(self.image_size as u32, self.image_size as u32, Rgb(fill));
        imageops::replace(&mut padded, &kept, left as i64, top as i64);
        padded
    }

    /// The image in the colours that the model sees.
    pub(super) fn colours<'a>(&self, image: &'a RgbImage) -> Cow<'a, RgbImage> {
        if !self.grey {
            return Cow::Borrowed(image);
        }
        let mut grey = image.clone();
        for pixel in grey.pixels_mut() {
            pixel.0 = [luma(pixel.0); 3];
        }
        Cow::Owned(grey)
    }

    /// Whether the rounding is transformers'.
    fn floors(&self) -> bool {
        matches!(self.crop_mode, CropMode::CenterFloor | CropMode::SquashFloor)
    }

    /// Width and height that an image is resized to, before the crop.
    fn resized(&self, width: u32, height: u32) -> [usize; 2] {
        let (size, sides) = (self.scale_size(), [width, height]);
        match self.crop_mode {
            // The longer side is truncated as in torchvision's `Resize`.
            CropMode::Center | CropMode::CenterFloor => {
                sides.map(|side| (size as u64 * u64::from(side) / u64::from(width.min(height))) as usize)
            }
            CropMode::Squash | CropMode::SquashFloor => [size; 2],
            // timm and OpenCLIP divide by the ratio of the longer side and round half to even.
            CropMode::Border | CropMode::Longest => {
                let ratio = f64::from(width.max(height)) / size as f64;
                sides.map(|side| ((f64::from(side) / ratio).round_ties_even() as usize).max(1))
            }
        }
    }

    /// The centre crop along one axis: which of the resized pixels are kept, and where they stand in the output. Missing
    /// pixels are padded, the smaller half first.
    fn center_crop(&self, resized: usize) -> (Span, usize) {
        let (size, half) = (self.image_size, resized.saturating_sub(self.image_size) as f64 / 2.0);
        let start = if self.floors() { half.floor() } else { half.round_ties_even() };
        (Span { resized, start: start as usize, len: resized.min(size) }, size.saturating_sub(resized) / 2)
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

    /// The image of `[3, image_size, image_size]` normalised values; a mixture of two has values between levels, which are rounded.
    pub fn denormalise(&self, planes: &[f32]) -> RgbImage {
        let side = self.image_size;
        assert_eq!(planes.len(), 3 * side * side, "one image");
        RgbImage::from_fn(side as u32, side as u32, |x, y| {
            let at = y as usize * side + x as usize;
            let level = |c: usize| (planes[c * side * side + at] * self.std[c] + self.mean[c]) * 255.0;
            Rgb(std::array::from_fn(|channel| level(channel).round() as u8))
        })
    }

    /// timm's `floor(image_size / crop_pct)`.
    pub(crate) fn scale_size(&self) -> usize {
        (self.image_size as f64 / self.crop_pct).floor() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // print([Image.new("RGB", (1, 1), c).convert("L").getpixel((0, 0)) for c in COLOURS])   (Pillow 12)
    #[test]
    fn grey_is_the_luma_of_pillow() {
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [1, 2, 3], [200, 17, 93], [77, 77, 77]];
        let luma = [76, 150, 29, 255, 2, 80, 77];
        let (crop_mode, interpolation) = (CropMode::Squash, Interpolation::Bilinear);
        let (mean, std) = ([0.5; 3], [0.5; 3]);
        let grey = Preprocess { image_size: 1, crop_pct: 1.0, crop_mode, interpolation, mean, std, grey: true };
        for (colour, luma) in colours.into_iter().zip(luma) {
            let image = RgbImage::from_pixel(1, 1, Rgb(colour));
            assert_eq!(grey.crop(&image).get_pixel(0, 0).0, [luma; 3], "{colour:?}");
            assert_eq!(Preprocess { grey: false, ..grey.clone() }.crop(&image).get_pixel(0, 0).0, colour);
        }
    }

    #[test]
    fn a_crop_share_gives_the_size_that_it_was_made_from() {
        for resized in 1..=1024 {
            for size in 1..=resized {
                let share = crop_share(size, resized);
                assert_eq!((size as f64 / share).floor() as usize, resized, "{size} of {resized}");
                let written = serde_json::to_string(&share).unwrap();
                assert_eq!(serde_json::from_str::<f64>(&written).unwrap(), share, "{written}");
            }
        }
    }
}
