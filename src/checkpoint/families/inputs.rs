//! What each family of models expects of its input, where no file beside the checkpoint says it.

pub(super) use crate::checkpoint::open_clip_config::clip;
use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;

/// Mean and standard deviation per channel, red, green and blue.
pub(super) type Normalisation = ([f32; 3], [f32; 3]);

/// ImageNet's training images.
pub(super) const IMAGENET: Normalisation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// From -1 to 1.
pub(super) const HALF: Normalisation = ([0.5; 3], [0.5; 3]);

fn input(
    image_size: usize,
    crop_pct: f64,
    crop_mode: CropMode,
    by: Interpolation,
    normalisation: Normalisation,
) -> Preprocess {
    let (mean, std) = normalisation;
    Preprocess { image_size, crop_pct, crop_mode, interpolation: by, mean, std, grey: false }
}

/// As transformers prepares images for models of ImageNet: 256 pixels for 224, and as much for other sizes.
pub(super) fn imagenet(image_size: usize) -> Preprocess {
    input(image_size, 0.875, CropMode::CenterFloor, Interpolation::Bicubic, IMAGENET)
}

/// As transformers prepares images that are squeezed to a square.
pub(super) fn squash(image_size: usize, interpolation: Interpolation) -> Preprocess {
    input(image_size, 1.0, CropMode::SquashFloor, interpolation, HALF)
}

/// As torchvision prepares images for its vision transformers: those of 224 pixels were mostly trained from the start, those of
/// more were fine-tuned (SWAG).
pub(super) fn torchvision_vit(image_size: usize) -> Preprocess {
    let (share, by) = if image_size <= 224 { (0.875, Interpolation::Bilinear) } else { (1.0, Interpolation::Bicubic) };
    input(image_size, share, CropMode::Center, by, IMAGENET)
}

/// As timm prepares images for SigLIP.
pub(super) fn siglip(image_size: usize) -> Preprocess {
    input(image_size, 1.0, CropMode::Squash, Interpolation::Bicubic, HALF)
}
