//! How many images pass through the device at once: as many as were asked for, or as fit its memory.

use crate::data::{Dataset, LoaderConfig};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::gpu::buffer::mib;
use crate::method::{Active, Anchor, BatchNorm, Learner, Memory, MethodArgs, Settings, Snapshot, Targets};
use crate::model::Model;
use crate::ranks::part;
use crate::train::config::TrainConfig;
use crate::train::events::Event;
use crate::train::micro_batch::MicroBatch;
use crate::train::place::Place;
use crate::train::splits::Splits;

/// The sizes that a batch can be cut into, largest first: the whole, halves, thirds, …, rounded up.
fn sizes(batch: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = (1..=batch).map(|parts| batch.div_ceil(parts)).collect();
    sizes.dedup();
    sizes
}

/// Bytes that a run may take: `--memory-limit` where it is given, else what the adapter has, where that is known. Where the
/// size of micro-batches is the program's to choose, a part of it is left to others: a quarter of a CPU's, a tenth of a GPU's.
fn limit(gpu: &Gpu, memory_limit: Option<u64>, choosing: bool) -> Option<u64> {
    let part = |bytes: u64| match (choosing, gpu.is_cpu()) {
        (false, _) => bytes,
        (true, true) => bytes / 4 * 3,
        (true, false) => bytes / 10 * 9,
    };
    memory_limit.map(|mebibytes| mebibytes.saturating_mul(1 << 20)).or_else(|| gpu.memory().map(part))
}

/// The sizes to try for `batch` images, and the limit to keep to.
pub fn choices(
    gpu: &Gpu,
    micro_batch: MicroBatch,
    batch: usize,
    memory_limit: Option<u64>,
) -> (Vec<usize>, Option<u64>) {
    match micro_batch {
        MicroBatch::Images(images) => (vec![images.min(batch)], limit(gpu, memory_limit, false)),
        MicroBatch::Fitting(_) => (sizes(batch), limit(gpu, memory_limit, true)),
    }
}

/// The sizes to try for a run of `model` with `micro_batch` images at once, and the limit to keep to.
pub(super) fn of_run(
    gpu: &Gpu,
    config: &TrainConfig,
    model: &Model,
    splits: &Splits,
    micro_batch: MicroBatch,
    place: &Place,
) -> (Vec<usize>, Option<u64>) {
    let batch = config.optim.batch_size;
    let loader = LoaderConfig { rank: place.of(), ..config.loader(splits.train.items.len()) };
    let longest = loader.rest.longest(splits.train.items.len(), batch);
    let micro_batch = match micro_batch {
        // The whole batch, with the image that joins the last one.
        MicroBatch::Images(images) if images == batch => MicroBatch::Images(batch.max(longest)),
        as_asked => as_asked,
    };
    let images = splits.train.items.len().max(splits.val.items.len());
    let own = batch.min(images).max(longest).div_ceil(place.size());
    let (mut sizes, limit) = choices(gpu, micro_batch, own, config.memory.memory_limit);
    if sizes.len() > 1 && config.optim.bn == BatchNorm::Train {
        let fits = |micro: &usize| {
            let pass = smallest_pass(&splits.train, &loader, *micro);
            model.norm_pixels().is_none_or(|pixels| pixels * pass > 1)
        };
        let whole = sizes[0];
        sizes.retain(|size| *size == whole || fits(size));
    }
    (sizes, limit)
}

/// What `make` builds for the first of `sizes` whose plan is inside `limit` and which the device has room for.
///
/// Errors with what the last of them needs where none fits.
pub fn largest<T>(
    sizes: &[usize],
    limit: Option<u64>,
    mut plan: impl FnMut(usize) -> Result<Memory>,
    mut make: impl FnMut(&Memory) -> Result<T>,
) -> Result<T> {
    for (i, &size) in sizes.iter().enumerate() {
        let memory = plan(size)?;
        let last = i + 1 == sizes.len();
        match limit.filter(|limit| memory.total() > *limit) {
            Some(limit) if last => {
                let smaller = if size > 1 { "--micro-batch auto or a smaller one, " } else { "" };
                return Err(Error::Limit(format!(
                    "{memory}; the limit is {}: use {smaller}--recompute, a smaller --image-size or model, or a higher \
                     --memory-limit",
                    mib(limit)
                )));
            }
            Some(_) => continue,
            None => {}
        }
        match make(&memory) {
            Err(error) if !last && matches!(error.facts(), Error::Limit(_)) => continue,
            made => return made,
        }
    }
    Err(Error::Usage("a batch of no images".into()))
}

/// A learner at `start` with the methods of `args` near `anchor`, for as many images at once as `sizes` and `limit` allow, on all ranks.
pub(super) fn allocate<'g>(
    (gpu, place): (&'g Gpu, &Place),
    model: &Model,
    (sizes, limit): (&[usize], Option<u64>),
    (settings, targets): (Settings, Option<Targets>),
    args: &MethodArgs,
    (start, anchor): (&Snapshot, &Anchor),
    events: &mut dyn FnMut(Event),
) -> Result<(Learner<'g>, Active)> {
    let mut make = |sizes: &[usize]| {
        let targets = (settings, targets.clone());
        allocate_here((gpu, place), model, (sizes, limit), targets, args, (start, anchor), events)
    };
    let own = make(sizes)?;
    // All ranks pass as many images at once: batch norm's statistics and the course of evaluations depend on it.
    let (least, capacity) = (place.least(own.0.capacity())?, own.0.capacity());
    if least == capacity {
        return Ok(own);
    }
    drop(own);
    make(&[least])
}

fn allocate_here<'g>(
    (gpu, place): (&'g Gpu, &Place),
    model: &Model,
    (sizes, limit): (&[usize], Option<u64>),
    (settings, targets): (Settings, Option<Targets>),
    args: &MethodArgs,
    (start, anchor): (&Snapshot, &Anchor),
    events: &mut dyn FnMut(Event),
) -> Result<(Learner<'g>, Active)> {
    let plan = |micro_batch| {
        let mut memory = Memory::plan(gpu, model, &Settings { micro_batch, ..settings }, args.bytes(model))?;
        memory.scratch += targets.as_ref().map_or(0, |targets| Learner::target_bytes(targets, micro_batch));
        // The gradient on its way to the other ranks.
        memory.staging += place.ranks().map_or(0, |_| memory.gradient);
        Ok(memory)
    };
    largest(sizes, limit, plan, |memory| {
        events(Event::Note(format!("{}: {memory}", gpu.info.name)));
        events(Event::Planned(*memory));
        let settings = Settings { micro_batch: memory.micro_batch, ..settings };
        let mut learner = Learner::new(gpu, model.clone(), start, settings)?;
        targets.iter().try_for_each(|targets| learner.weigh(targets.clone()))?;
        place.ranks().into_iter().for_each(|ranks| learner.join(ranks.clone()));
        let active = Active::start(args, &mut learner, anchor)?;
        Ok((learner, active))
    })
}

/// The fewest images of a pass: a last partial batch, or what micro-batches or ranks leave of one, is smaller than the others.
pub fn smallest_pass(train: &Dataset, config: &LoaderConfig, micro: usize) -> usize {
    let last = |count: usize, size: usize| if count.is_multiple_of(size) { size.min(count) } else { count % size };
    let count = train.items.len();
    let (batches, size) = ([config.rest.last(count, config.batch_size), config.batch_size.min(count)], config.rank.1);
    let parts = batches.into_iter().flat_map(|batch| [part(batch, 0, size), part(batch, size - 1, size)]);
    let images = parts.map(|part| part.len()).filter(|images| *images > 0);
    images.map(|images| last(images, micro)).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Help;

    #[test]
    fn a_batch_is_cut_into_equal_parts() {
        assert_eq!(sizes(8), [8, 4, 3, 2, 1]);
        assert_eq!(sizes(64)[..5], [64, 32, 22, 16, 13]);
        assert_eq!(sizes(1), [1]);
    }

    #[test]
    fn the_first_size_that_can_be_allocated_is_taken() {
        let plan = |micro_batch: usize| {
            let activations = 100 * micro_batch as u64;
            let (weights, gradient, optimizer, projection, scratch, staging) = (0, 0, 0, 0, 0, 0);
            Ok(Memory { micro_batch, weights, gradient, optimizer, projection, activations, scratch, staging })
        };
        let make = |memory: &Memory| {
            let full = || Error::Limit("out of memory".into()).with_help(Help::BatchTooLarge);
            if memory.micro_batch > 3 { Err(full()) } else { Ok(memory.micro_batch) }
        };
        assert_eq!(largest(&[8, 4, 3, 2, 1], None, plan, make).unwrap(), 3);
        assert_eq!(largest(&[8, 4, 3, 2, 1], Some(200), plan, make).unwrap(), 2);
        assert!(matches!(largest(&[8, 4], None, plan, make).unwrap_err().facts(), Error::Limit(_)));
        let error = largest(&[8, 1], Some(99), plan, make).unwrap_err().to_string();
        assert!(error.contains("1 image at once") && !error.contains('\n'), "{error}");
    }
}
