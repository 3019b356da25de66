//! What augmentation makes of training images: a few of a run's first batches, as a file and for its page.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::atomic::atomic_write;
use crate::data::picture::{grid, jpeg_bytes, thumbnail};
use crate::data::{ImageCache, Loader, LoaderConfig, Preprocess, RgbImage};
use crate::error::{Error, Result, quote};
use crate::gpu::Gpu;
use crate::train::config::TrainConfig;
use crate::train::events::Event;
use crate::train::source::Source;
use crate::train::splits::Splits;

/// How many images are shown, in how many columns, and how wide at most.
const IMAGES: usize = 24;
const COLUMNS: u32 = 6;
const SIDE: u32 = 128;

/// The file of a run directory that has them.
pub const SHOWN: &str = "augmented.json";

/// An image as a model is given it, for a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its class, or both with their shares, if it was mixed with an image of another.
    pub labels: Vec<String>,
    /// A JPEG in base64.
    pub jpeg: String,
}

impl Shown {
    /// The images in `augmented.json` at `path`; none without such a file.
    ///
    /// # Errors
    /// A file that can't be read or understood.
    pub fn read(path: &Path) -> Result<Vec<Shown>> {
        if !path.is_file() {
            return Ok(Vec::new());
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "cannot read", e))?;
        let wrong = |what: String| Error::data(path, format!("can't be understood: {}", quote(&what)));
        let shown: Vec<Shown> = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        match shown.iter().find_map(|image| BASE64_STANDARD.decode(&image.jpeg).err()) {
            Some(e) => Err(wrong(e.to_string())),
            None => Ok(shown),
        }
    }
}

/// The first images that a run over `images` trains on, with their labels by the names of the `classes`.
fn examples(
    images: Arc<ImageCache>,
    classes: &[String],
    preprocess: &Preprocess,
    config: &LoaderConfig,
) -> Result<Vec<(RgbImage, Vec<String>)>> {
    let config = LoaderConfig { prefetch: 1, start_batch: 0, rank: (0, 1), ..config.clone() };
    let sets = images.dataset().sets.clone();
    let mut loader = Loader::with_cache(images, preprocess, config)?;
    let mut shown = Vec::new();
    while shown.len() < IMAGES {
        let batch = loader.next()?;
        let per_image = batch.images.len() / batch.len();
        for (i, values) in batch.images.chunks(per_image).enumerate().take(IMAGES - shown.len()) {
            let name = |label: u32| match &sets {
                Some(sets) if sets.get(label).is_empty() => "(no label)".into(),
                Some(sets) => {
                    sets.get(label).iter().map(|c| classes[*c as usize].as_str()).collect::<Vec<_>>().join(", ")
                }
                None => classes[label as usize].clone(),
            };
            let own = name(batch.labels[i]);
            let labels = match &batch.mixed {
                Some(mixed) if mixed.labels[i] != batch.labels[i] => {
                    both([(mixed.own, own), (1.0 - mixed.own, name(mixed.labels[i]))])
                }
                _ => vec![own],
            };
            shown.push((thumbnail(&preprocess.denormalise(values), SIDE), labels));
        }
    }
    Ok(shown)
}

/// Two labels with their shares; one alone if nothing is left of the other in two digits.
fn both(labels: [(f64, String); 2]) -> Vec<String> {
    match labels.iter().find(|(share, _)| *share > 0.995) {
        Some((_, only)) => vec![only.clone()],
        None => labels.map(|(share, label)| format!("{share:.2} {label}")).to_vec(),
    }
}

/// Writes a PNG with a grid of the images that a run of `config` trains on first, and their labels.
///
/// # Errors
/// As [`Splits::open`]; an image that can't be decoded; a `file` that can't be written, or has another ending than `.png`.
pub fn write_grid(gpu: &Gpu, config: &TrainConfig, file: &Path, events: &mut dyn FnMut(Event)) -> Result<()> {
    if !file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png")) {
        let file = file.display();
        return Err(Error::Usage(format!("--augment-preview {file}: the file has to end in .png")));
    }
    let mut source = Source::open(&config.model, &config.overrides())?;
    let preprocess = config.model_args.preprocess(&source.recognised.preprocess)?;
    source.recognised.preprocess = preprocess.clone();
    let splits = Splits::open(gpu, config, &mut source, events)?;
    events(Event::Note(config.augment.note()));
    let (images, loader) = (ImageCache::new(splits.train.clone(), 0), config.loader(splits.train.items.len()));
    let shown = examples(images, &splits.classes.names(), &preprocess, &loader)?;
    atomic_write(file, &grid(&shown, COLUMNS))
}

/// Writes `augmented.json` at `path`, for the page of a run; returns a PNG with the same images.
///
/// # Errors
/// An image that can't be decoded; a file that can't be written.
pub(super) fn write(
    path: &Path,
    images: Arc<ImageCache>,
    classes: &[String],
    preprocess: &Preprocess,
    config: &LoaderConfig,
) -> Result<Vec<u8>> {
    let pictures = examples(images, classes, preprocess, config)?;
    let shown: Vec<Shown> = pictures
        .iter()
        .map(|(image, labels)| Shown { labels: labels.clone(), jpeg: BASE64_STANDARD.encode(jpeg_bytes(image)) })
        .collect();
    atomic_write(path, (serde_json::to_string(&shown).expect("plain text") + "\n").as_bytes())?;
    Ok(grid(&pictures, COLUMNS))
}
