//! Whether the images are ready when the adapter is.

use std::path::Path;
use std::time::Instant;

use crate::bench::models::{Net, check_losses, net, step};
use crate::bench::timer::timed;
use crate::bench::{Bench, Figures, Work};
use crate::data::{Augment, CropMode, Dataset, Interpolation, Loader, LoaderConfig, Preprocess, Rest};
use crate::error::{Error, Result};

/// The demo's training images, here or beside the program's source.
fn images() -> Result<Dataset> {
    let beside_source = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let folders = [Path::new("assets").to_path_buf(), beside_source].map(|assets| assets.join("google/train"));
    match folders.iter().find(|dir| dir.is_dir()) {
        Some(dir) => Dataset::open(dir, None),
        None => Err(Error::data(&folders[0], "no such folder: run data_loading from the repository")),
    }
}

/// Batches as a training run on photographs has them: decoded anew (no image is kept), cropped, resized, mirrored.
fn loader(dataset: &Dataset, net: &Net) -> Result<Loader> {
    let preprocess = Preprocess {
        image_size: (net.config)().image_size(),
        crop_pct: 0.9,
        crop_mode: CropMode::Center,
        interpolation: Interpolation::Bicubic,
        mean: [0.5; 3],
        std: [0.5; 3],
        grey: false,
    };
    let config = LoaderConfig {
        batch_size: net.batch,
        shuffle: true,
        rest: Rest::Dropped,
        augment: Augment::CROP_FLIP.into(),
        cache_bytes: 0,
        ..LoaderConfig::default()
    };
    Loader::new(dataset, &preprocess, config)
}

/// The loader alone, then ahead of training steps of ViT-Tiny: `images_per_s` of the first, and the share of a step for
/// which the adapter would wait for its batch, `wait_share`, of the second.
pub fn data_loading(b: &Bench) -> Result<Figures> {
    let (net, dataset) = (net("vit_tiny"), images()?);
    let mut alone = loader(&dataset, net)?;
    // A batch of the loader alone says nothing of the next: those that wait ready come at once. 16 of them do.
    const AT_ONCE: usize = 16;
    let load = b.budget.time(|| (0..AT_ONCE).try_for_each(|_| alone.next().map(drop)))?.divided(AT_ONCE);
    drop(alone);

    let mut learner = net.learner(b, net.settings())?;
    let classes = (net.config)().classes() as u32;
    let mut ahead = loader(&dataset, net)?;
    let [wait, steps] = b.budget.spend(|| {
        let start = Instant::now();
        let batch = ahead.next()?;
        let wait = start.elapsed().as_secs_f64() * 1e3;
        let labels: Vec<u32> = batch.labels.iter().map(|label| label % classes).collect();
        let step = timed(|| step(&mut learner, &batch.images, &labels, net.lr))?;
        learner.records(false)?;
        Ok([wait, step])
    })?;
    check_losses(&mut learner, "data_loading")?;
    let images_per_s = net.batch as f64 / load.median() * 1e3;
    let share = wait.median() / (wait.median() + steps.median());
    Ok(Figures::new(format!("{} × 224 px, decode, crop, flip", net.batch), load, Work::None)
        .with("images_per_s", images_per_s)
        .with("step_ms", steps.median())
        .with("wait_ms", wait.median())
        .with("wait_share", share))
}
