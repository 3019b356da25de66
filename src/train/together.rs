//! What several ranks see to before they train one model together.

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::method::{BatchNorm, Learner};
use crate::train::config::TrainConfig;
use crate::train::events::Event;
use crate::train::inputs::Inputs;
use crate::train::place::Place;
use crate::train::splits::Splits;
use crate::train::tuning;
use crate::version::VERSION;

/// Errors where ranks have been given different things, or there are more of them than images of a batch. Tells how they train.
pub(super) fn check(
    place: &Place,
    gpu: &Gpu,
    config: &TrainConfig,
    inputs: &Inputs,
    events: &mut dyn FnMut(Event),
) -> Result<()> {
    let (size, batch) = (place.size(), config.optim.batch_size);
    if size == 1 {
        return Ok(());
    }
    let setup = config.to_toml();
    let settings = setup.lines().filter_map(|line| line.split_once(" = "));
    let settings: Vec<_> = settings.map(|(name, value)| (format!("setting {name}"), value)).collect();
    let settings = settings.iter().map(|(name, value)| (name.as_str(), *value));
    let inputs = inputs.digests().iter().map(|(name, digest)| (name.trim_start_matches("the "), digest.as_str()));
    place.same(&std::iter::once(("version", VERSION)).chain(settings).chain(inputs).collect::<Vec<_>>())?;
    if batch < size {
        let what = format!("--batch-size {batch} on {size} ranks: each rank needs an image of every batch");
        return Err(Error::Usage(what));
    }
    let parts = match batch.is_multiple_of(size) {
        true => (batch / size).to_string(),
        false => format!("{} or {}", batch / size, batch / size + 1),
    };
    events(Event::Note(format!("{size} ranks train one model: each takes {parts} images of every batch of {batch}")));
    let adapters = place.told(&gpu.identity())?;
    if let Some(rank) = adapters.iter().position(|adapter| *adapter != adapters[0]) {
        let what = format!(
            "rank {rank} is on another adapter or driver than rank 0: if they round differently, the ranks' weights part, which ends the run"
        );
        events(Event::Warning(what));
    }
    Ok(())
}

/// All ranks compute products as the first does: what it has measured is not measured again.
pub(super) fn share_choices(place: &Place, gpu: &Gpu, learner: &Learner, events: &mut dyn FnMut(Event)) -> Result<()> {
    if place.size() == 1 {
        return Ok(());
    }
    let first = place.from_first(|| Ok(gpu.identity().into_bytes()))?;
    let choices = tuning::from_json(&place.from_first(|| tuning::to_json(&gpu.choices()))?);
    match place.writes() || first == gpu.identity().as_bytes() {
        true => gpu.replace_variants(choices),
        false => tuning::confirm(gpu, &learner.untuned()?, &choices, events)?,
    }
    Ok(())
}

/// Errors where batch norm can't take its statistics over all ranks.
pub(super) fn check_sync_bn(learner: &Learner, config: &TrainConfig, splits: &Splits) -> Result<()> {
    if config.optim.bn == BatchNorm::Frozen {
        return Err(Error::Usage(
            "--sync-bn makes no sense with --bn frozen, whose statistics stay as they are".into(),
        ));
    }
    if learner.stats.len == 0 {
        return Err(Error::Usage("--sync-bn is for models with batch norm, this one has none".into()));
    }
    let check = |images: usize, batch: usize| {
        let rest = config.rest(images, batch);
        [batch.min(images), rest.last(images, batch)].into_iter().try_for_each(|count| learner.check_in_step(count))
    };
    check(splits.train.items.len(), config.optim.batch_size)?;
    config.method.val_batch().map_or(Ok(()), |batch| check(splits.val.items.len(), batch))
}
