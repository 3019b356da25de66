//! Batches in an order that depends on the seed alone, made ahead of their use on other threads.
//!
//! One thread per loader makes batch after batch, with the images of each decoded in parallel on rayon's pool, and
//! hands them over through a bounded channel: the channel is full after `prefetch` batches, which bounds the memory.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use rayon::prelude::*;

use super::augment::{Mixed, Transforms, batch_rng, item_rng};
use super::corrupt::Corruption;
use super::dataset::Dataset;
use super::decode::{RgbImage, decode};
use super::preprocess::Preprocess;
use super::sampler::{Draw, Sampler};
use crate::error::{Error, Result};
use crate::ranks::part;

/// The batches that wait ready, by default.
pub const PREFETCH: usize = 4;

/// Decoded images kept in memory, by default: 512 MiB.
pub const CACHE_BYTES: usize = 512 << 20;

/// Images on their way to the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[B, 3, H, W]`, normalised; H and W are the preprocessing's image size. Or [features](ImageCache::with_features) of each. With
    /// several [ranks](LoaderConfig::rank), those of this rank's [part] of the batch alone.
    pub images: Vec<f32>,
    /// `[B]`, indices into the data set's classes.
    pub labels: Vec<u32>,
    /// `[B]`, indices into the data set's items.
    pub indices: Vec<usize>,
    /// The other labels of images that were mixed with others of the batch.
    pub mixed: Option<Mixed>,
}

impl Batch {
    /// The number of images, B.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image; a loader makes no such batch.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// A data set with its decoded images, each kept the first time it is needed as long as the budget lasts. Loaders
/// over the same data set may share one.
pub struct ImageCache {
    decoded: Arc<Decoded>,
    corruption: Option<Corruption>,
    features: Option<Arc<Vec<Vec<f32>>>>,
}

struct Decoded {
    dataset: Dataset,
    images: Vec<OnceLock<Arc<RgbImage>>>,
    bytes_left: AtomicUsize,
}

impl ImageCache {
    /// An empty cache that will keep at most `budget` bytes of pixels.
    pub fn new(dataset: Dataset, budget: usize) -> Arc<Self> {
        let images = dataset.items.iter().map(|_| OnceLock::new()).collect();
        let decoded = Arc::new(Decoded { dataset, images, bytes_left: AtomicUsize::new(budget) });
        Arc::new(Self { decoded, corruption: None, features: None })
    }

    /// The same data set with its images corrupted on their way to the model, in place of any augmentation. The decoded
    /// images, which stay as they are, are shared.
    pub fn corrupted(&self, corruption: Corruption) -> Arc<Self> {
        Arc::new(Self { decoded: self.decoded.clone(), corruption: Some(corruption), features: None })
    }

    /// The same data set with what a network gave for each of its images, in their order: batches have these in place of images.
    pub fn with_features(&self, features: Vec<Vec<f32>>) -> Arc<Self> {
        assert_eq!(features.len(), self.dataset().items.len(), "features of each image");
        Arc::new(Self { decoded: self.decoded.clone(), corruption: None, features: Some(Arc::new(features)) })
    }

    /// The corruption that was given to [`Self::corrupted`].
    pub fn corruption(&self) -> Option<Corruption> {
        self.corruption
    }

    /// The data set.
    pub fn dataset(&self) -> &Dataset {
        &self.decoded.dataset
    }

    /// The decoded image of item `index`.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn get(&self, index: usize) -> Result<Arc<RgbImage>> {
        let Decoded { dataset, images, bytes_left } = &*self.decoded;
        let slot = &images[index];
        if let Some(image) = slot.get() {
            return Ok(image.clone());
        }
        let image = Arc::new(decode(&dataset.items[index].path)?);
        let bytes = image.as_raw().len();
        let reserve = |left: usize| left.checked_sub(bytes);
        if bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_ok()
            && slot.set(image.clone()).is_err()
        {
            // Another loader was quicker with the same image.
            bytes_left.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(image)
    }
}

/// What becomes of the images of an epoch that are no full batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rest {
    /// They are a smaller batch.
    #[default]
    Kept,
    /// The same, but a single image joins the batch before it: batch norm has no variance over one.
    Joined,
    /// They are left out.
    Dropped,
}

impl Rest {
    /// Batches of an epoch over `count` images, `size` each.
    pub fn batches(self, count: usize, size: usize) -> usize {
        match self {
            Rest::Dropped => count / size,
            Rest::Joined if self.longest(count, size) > size => count / size,
            Rest::Joined | Rest::Kept => count.div_ceil(size),
        }
    }

    /// Images of the longest batch.
    pub fn longest(self, count: usize, size: usize) -> usize {
        let joins = self == Rest::Joined && size > 1 && count > size && count % size == 1;
        if joins { size + 1 } else { size.min(count) }
    }

    /// Images of the last batch of an epoch.
    pub fn last(self, count: usize, size: usize) -> usize {
        let before = (self.batches(count, size) - 1) * size;
        if self == Rest::Dropped { size } else { count - before }
    }
}

/// How a [`Loader`] goes through its data set.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderConfig {
    /// Images per batch.
    pub batch_size: usize,
    /// A fresh order every epoch, from the seed and the epoch; otherwise the data set's own order.
    pub shuffle: bool,
    /// Which images an epoch has.
    pub sampler: Sampler,
    /// What order and augmentation are drawn from.
    pub seed: u64,
    /// The transforms of images and batches.
    pub augment: Transforms,
    /// What becomes of the images that are no full batch.
    pub rest: Rest,
    /// The first batch to make, counted from the start of training: how a resumed run goes on. Those before it are
    /// not decoded.
    pub start_batch: u64,
    /// Which rank's part of each batch is made, of how many ranks.
    pub rank: (usize, usize),
    /// The most batches that wait ready.
    pub prefetch: usize,
    /// The most bytes of decoded images to keep.
    pub cache_bytes: usize,
}

impl Default for LoaderConfig {
    /// Unshuffled batches of 64 without augmentation, from the first.
    fn default() -> Self {
        Self {
            batch_size: 64,
            shuffle: false,
            sampler: Sampler::Once,
            seed: 0,
            augment: Transforms::default(),
            rest: Rest::Kept,
            start_batch: 0,
            rank: (0, 1),
            prefetch: PREFETCH,
            cache_bytes: CACHE_BYTES,
        }
    }
}

/// Endless batches for training: epoch after epoch, as the sampler has them. The same data set, preprocessing and
/// configuration give the same batches, whatever the number of threads.
pub struct Loader {
    batches: Prefetch,
    batches_per_epoch: u64,
}

impl Loader {
    /// Starts to make batches of `dataset`.
    ///
    /// # Errors
    /// [`Error::Usage`] where the preprocessing makes no sense or there is no batch in an epoch.
    pub fn new(dataset: &Dataset, preprocess: &Preprocess, config: LoaderConfig) -> Result<Self> {
        Self::with_cache(ImageCache::new(dataset.clone(), config.cache_bytes), preprocess, config)
    }

    /// [`Self::new`] on images that others use as well; `config.cache_bytes` plays no part.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_cache(images: Arc<ImageCache>, preprocess: &Preprocess, config: LoaderConfig) -> Result<Self> {
        preprocess.validate()?;
        let (count, size) = (images.dataset().items.len(), check_batch_size(config.batch_size)?);
        let batches_per_epoch = config.rest.batches(count, size) as u64;
        if batches_per_epoch == 0 {
            let name = &images.dataset().name;
            return Err(Error::Usage(format!(
                "{name} has {count} images, no full batch of {size}: use smaller batches"
            )));
        }
        let labels = images.dataset().items.iter().map(|item| item.label).collect();
        let LoaderConfig { augment, seed, rank, .. } = config;
        let maker = BatchMaker { images, preprocess: preprocess.clone(), augment, seed, rank };
        let plans = plan_epochs(labels, batches_per_epoch, &config);
        Ok(Self { batches: Prefetch::start(maker, config.prefetch, plans), batches_per_epoch })
    }

    /// The next batch; waits for it if need be.
    ///
    /// # Errors
    /// The [`decode`] error of the batch's first image that has one, which names the file. The call after it goes on
    /// with the batch after.
    #[expect(clippy::should_implement_trait, reason = "it never ends, so that an Option would only be in the way")]
    pub fn next(&mut self) -> Result<Batch> {
        self.batches.next().expect("a loader is endless")
    }

    /// Batches per epoch, the last partial one included where it is kept.
    pub fn batches_per_epoch(&self) -> u64 {
        self.batches_per_epoch
    }
}

/// Every image once, in the data set's order, with the evaluation transform; the last batch may be smaller. Images
/// are not kept after use.
///
/// # Errors
/// [`Error::Usage`] where the preprocessing makes no sense or `batch_size` is 0. A broken image is an error of the
/// batch that has it.
pub fn eval_batches(dataset: &Dataset, preprocess: &Preprocess, batch_size: usize) -> Result<EvalBatches> {
    EvalBatches::new(ImageCache::new(dataset.clone(), 0), preprocess, batch_size)
}

/// The images that pass at once, of `count`: `ranks` batches of `batch_size`, one on each rank.
pub fn blocks(count: usize, batch_size: usize, ranks: usize) -> impl Iterator<Item = Range<usize>> + Send + 'static {
    let size = batch_size.saturating_mul(ranks);
    (0..count).step_by(size).map(move |start| start..count.min(start.saturating_add(size)))
}

/// The iterator of [`eval_batches`].
pub struct EvalBatches(Prefetch);

impl EvalBatches {
    /// [`eval_batches`] on images that others use as well, for a data set that is evaluated again and again.
    ///
    /// # Errors
    /// As [`eval_batches`].
    pub fn new(images: Arc<ImageCache>, preprocess: &Preprocess, batch_size: usize) -> Result<Self> {
        Self::on_rank(images, preprocess, batch_size, (0, 1))
    }

    /// Those of a rank, of how many: each takes its part of each [block](blocks). A part without images is no batch.
    ///
    /// # Errors
    /// As [`eval_batches`].
    pub fn on_rank(
        images: Arc<ImageCache>,
        preprocess: &Preprocess,
        batch_size: usize,
        (rank, ranks): (usize, usize),
    ) -> Result<Self> {
        preprocess.validate()?;
        let (count, size) = (images.dataset().items.len(), check_batch_size(batch_size)?);
        let own = move |block: Range<usize>| {
            let own = part(block.len(), rank, ranks);
            block.start + own.start..block.start + own.end
        };
        let parts = blocks(count, size, ranks).map(own).filter(|own| !own.is_empty());
        let plans = parts.enumerate().map(|(batch, own)| Plan { epoch: 0, batch, draws: own.collect() });
        let maker = BatchMaker {
            images,
            preprocess: preprocess.clone(),
            augment: Transforms::default(),
            seed: 0,
            rank: (0, 1),
        };
        Ok(Self(Prefetch::start(maker, PREFETCH, plans)))
    }
}

impl Iterator for EvalBatches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

fn check_batch_size(size: usize) -> Result<usize> {
    if size == 0 { Err(Error::Usage("batch size 0: it must be 1 or more".into())) } else { Ok(size) }
}

/// Which images a batch has.
struct Plan {
    epoch: u64,
    /// Its number in the epoch.
    batch: usize,
    draws: Vec<Draw>,
}

fn plan_epochs(labels: Vec<u32>, per_epoch: u64, config: &LoaderConfig) -> impl Iterator<Item = Plan> + Send + 'static {
    let &LoaderConfig { batch_size, rest, shuffle, sampler, seed, start_batch, .. } = config;
    let count = labels.len();
    let (first_epoch, first_batch) = (start_batch / per_epoch, (start_batch % per_epoch) as usize);
    (first_epoch..).flat_map(move |epoch| {
        let order = sampler.epoch(&labels, shuffle, seed, epoch);
        let skipped = if epoch == first_epoch { first_batch } else { 0 };
        (skipped..per_epoch as usize).map(move |batch| {
            let start = batch * batch_size;
            let len = if batch + 1 == per_epoch as usize { rest.last(count, batch_size) } else { batch_size };
            Plan { epoch, batch, draws: order[start..start + len].to_vec() }
        })
    })
}

struct BatchMaker {
    images: Arc<ImageCache>,
    preprocess: Preprocess,
    augment: Transforms,
    seed: u64,
    rank: (usize, usize),
}

impl BatchMaker {
    /// `None` where `stop` was set midway.
    fn make(&self, Plan { epoch, batch, draws }: Plan, stop: &AtomicBool) -> Option<Result<Batch>> {
        let count = self.images.dataset().items.len();
        let image = |&draw: &Draw| {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(features) = &self.images.features {
                return Some(Ok(features[draw % count].clone()));
            }
            // An image that comes again is augmented in another way.
            let (index, mut rng) = (draw % count, item_rng(self.seed, epoch, draw));
            Some(self.images.get(index).map(|image| match self.images.corruption {
                Some(corruption) => self.preprocess.normalise(&corruption.apply(&self.preprocess.crop(&image)), false),
                None => self.augment.apply(&image, &self.preprocess, &mut rng),
            }))
        };
        let side = self.preprocess.image_size;
        let mixing = self.augment.mix.draw(side, &mut batch_rng(self.seed, epoch, batch));
        let own = part(draws.len(), self.rank.0, self.rank.1);
        // What images are mixed with may be another rank's.
        let made = if mixing.is_some() { 0..draws.len() } else { own.clone() };
        let images: Vec<Result<Vec<f32>>> = draws[made.clone()].par_iter().map(image).collect::<Option<_>>()?;
        let indices: Vec<usize> = draws.iter().map(|draw| draw % count).collect();
        // Joined in order, so that of several broken images it is always the first that is named.
        Some(images.into_iter().collect::<Result<Vec<_>>>().map(|images| {
            let mut images = images.concat();
            let labels: Vec<u32> = indices.iter().map(|&index| self.images.dataset().items[index].label).collect();
            let mixed = mixing.map(|mixing| mixing.apply(&mut images, &labels, side));
            if made != own {
                let each = images.len() / made.len();
                images = images[own.start * each..own.end * each].to_vec();
            }
            Batch { images, labels, indices, mixed }
        }))
    }
}

/// Batches made ahead on a thread of their own, which ends when this is dropped.
struct Prefetch {
    receiver: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Prefetch {
    fn start(maker: BatchMaker, prefetch: usize, plans: impl Iterator<Item = Plan> + Send + 'static) -> Self {
        // The thread holds one finished batch more while the channel is full.
        let (sender, receiver) = sync_channel(prefetch.saturating_sub(1));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            for plan in plans {
                let Some(batch) = maker.make(plan, &stopped) else { return };
                if sender.send(batch).is_err() {
                    return;
                }
            }
        });
        Self { receiver: Some(receiver), thread: Some(thread), stop }
    }

    /// The next batch, or `None` after the last.
    fn next(&mut self) -> Option<Result<Batch>> {
        let batch = self.receiver.as_ref().and_then(|receiver| receiver.recv().ok());
        if batch.is_none()
            && let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
        {
            // A bug on the other thread must not look like the end of the data.
            std::panic::resume_unwind(panic);
        }
        batch
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that waits for room in the channel wakes up when the receiver goes.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            // Nobody is left to tell of a panic, and panicking here might abort.
            let _ = thread.join();
        }
    }
}
