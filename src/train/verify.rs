//! A model's logits against those that its home library gave.

use std::path::Path;

use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::train::evaluate::{Classifier, Predictor};
use crate::train::source::Source;

/// Images that pass through the adapter at once.
const BATCH: usize = 32;

/// What somebody has computed elsewhere: the tensors `images` `[N, 3, S, S]`, preprocessed, and `logits` `[N, C]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    count: usize,
    /// Height and width of the images.
    pub image_size: usize,
    classes: usize,
    images: Vec<f32>,
    logits: Vec<f32>,
}

impl Golden {
    /// Reads a safetensors file with these tensors, of a floating-point type each.
    ///
    /// # Errors
    /// Where one is missing, of another shape, or not of finite numbers.
    pub fn open(path: &Path) -> Result<Golden> {
        let file = Checkpoint::open(path)?;
        let shape = |name: &str| {
            let missing = || file.error(format!("tensor {name} is missing: a golden file has images and logits"));
            file.tensor(name).map(|t| t.shape.clone()).ok_or_else(missing)
        };
        let (images, logits) = (shape("images")?, shape("logits")?);
        let &[count, 3, image_size, width] = images.as_slice() else {
            return Err(file.error(format!("images has shape {images:?}, expected [N, 3, S, S]")));
        };
        if count == 0 || image_size == 0 || width != image_size {
            return Err(file.error(format!("images has shape {images:?}, expected [N, 3, S, S]")));
        }
        let classes = match logits.as_slice() {
            &[rows, classes] if rows == count && classes > 0 => classes,
            _ => return Err(file.error(format!("logits has shape {logits:?}, expected [{count}, C]"))),
        };
        let (images, logits) = (file.read_f32("images")?, file.read_f32("logits")?);
        Ok(Golden { count, image_size, classes, images, logits })
    }
}

/// How far a model's logits are from the golden ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// The adapter that computed them.
    pub adapter: String,
    /// Images.
    pub images: usize,
    /// The largest difference of two logits; infinite (null in JSON) where one is not a number.
    pub absolute: f32,
    /// The same over the largest golden logit's absolute value.
    pub relative: f32,
    /// What `relative` may be.
    pub tolerance: f32,
    /// Whether it is at most that.
    pub passed: bool,
    /// Image and class where the difference is largest.
    pub at: [usize; 2],
}

/// Runs the model on the golden images.
///
/// # Errors
/// Where the golden file is for images of another size or another number of classes, and where the adapter can't.
pub fn verify(gpu: &Gpu, source: &Source, golden: &Golden, path: &Path, tolerance: f32) -> Result<Verification> {
    let config = &source.recognised.config;
    let wrong = |what: String| Err(Error::checkpoint(path, what));
    if config.classes() == 0 {
        return Err(source.checkpoint.error("this model has no head: there are no logits to compare"));
    }
    if config.classes() != golden.classes {
        return wrong(format!("has {} logits per image, the model {}", golden.classes, config.classes()));
    }
    if config.image_size() != golden.image_size {
        let (has, wants) = (golden.image_size, config.image_size());
        return wrong(format!("has images of {has} pixels, the model takes {wants}: see --image-size"));
    }
    let mut model = Predictor::new(gpu, source.model(), &source.snapshot(), golden.count.min(BATCH))?;
    let (mut worst, mut at) = (0.0f32, 0);
    let size = golden.images.len() / golden.count;
    let batches = golden.images.chunks(BATCH * size).zip(golden.logits.chunks(BATCH * golden.classes));
    for (b, (images, want)) in batches.enumerate() {
        let got = model.logits(images, images.len() / size)?;
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let error = (got - want).abs();
            let error = if error.is_nan() { f32::INFINITY } else { error };
            if error > worst {
                (worst, at) = (error, b * BATCH * golden.classes + i);
            }
        }
    }
    let scale = golden.logits.iter().fold(f32::MIN_POSITIVE, |most, logit| most.max(logit.abs()));
    let relative = worst / scale;
    Ok(Verification {
        adapter: gpu.info.name.clone(),
        images: golden.count,
        absolute: worst,
        relative,
        tolerance,
        passed: relative <= tolerance,
        at: [at / golden.classes, at % golden.classes],
    })
}
