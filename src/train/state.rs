//! The state to resume from: what a stopped run needs to go on as if it had not stopped.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;

use crate::checkpoint::{Checkpoint, Values, write_safetensors};
use crate::error::{Error, Result};
use crate::method::{Active, Held, Learner, Saved};
use crate::shapes::ParamLayout;
use crate::train::config::TrainConfig;
use crate::train::inputs::Inputs;
use crate::train::place::Place;

/// The metadata's words.
const MICRO_BATCH: &str = "micro-batch";
const SETUP: &str = "setup";
const INPUTS: &str = "inputs";
const LAST_STAGE: &str = "last-stage";
const DELTA: &str = "delta";
/// The adapters of the best weights: `best.safetensors` has them merged.
const BEST_ADAPTERS: &str = "best_adapters";

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Fine-tuning steps taken.
    pub steps: u64,
    /// Validation batches that the method has learned from.
    pub taken: u64,
    /// Top-1 accuracy and loss of the best evaluation so far, if there is one.
    pub best: Option<(f64, f64)>,
    /// Fine-tuning steps taken when it was found.
    pub best_steps: u64,
}

impl Progress {
    /// Whether the evaluation at this step was the `after`th in a row, `every` steps apart, without a better one; 0 is never. Those
    /// before `since`, the beginning of the last stage, don't count: a head that is trained alone first may be done long before.
    pub fn stalls(&self, after: u64, every: u64, since: u64) -> bool {
        let known = after > 0 && every > 0 && self.best.is_some() && self.steps.is_multiple_of(every);
        known && self.steps.saturating_sub(since.max(self.best_steps)) >= after * every
    }
}

/// Reads from the device what the learner and its methods keep. Waits.
pub fn capture(learner: &Learner, active: &Active) -> Result<Saved> {
    let mut saved = Saved::default();
    learner.save(&mut saved)?;
    active.save(learner, &mut saved)?;
    Ok(saved)
}

/// Errors where another rank keeps something else than the first after `steps` steps, naming the rank and the tensor. All ranks err alike.
pub(super) fn agree(place: &Place, saved: &Saved, layout: &ParamLayout, steps: u64) -> Result<()> {
    let Some(ranks) = place.ranks() else { return Ok(()) };
    let (mut names, mut own) = (Vec::new(), Vec::new());
    let mut add = |name: String, bytes: &[u8]| {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        names.push(name);
        own.extend(hasher.finish().to_le_bytes());
    };
    for (name, len, values) in saved.values() {
        match values {
            Values::F32(values) if len == layout.len => layout
                .unpack(values)
                .for_each(|(param, values)| add(format!("{name} of {}", param.name), bytemuck::cast_slice(values))),
            values => add(name.to_string(), &values.bytes()),
        }
    }
    let all = ranks.gather(&own)?;
    for (rank, other) in all.iter().enumerate() {
        let differ = all[0].chunks(8).zip(other.chunks(8)).position(|(first, other)| first != other);
        if let Some(at) = differ.or((other.len() != all[0].len()).then_some(0)) {
            return Err(Error::Train(format!(
                "after step {steps}, {} has another {} than {}: the ranks no longer train one model; all need the same kind of adapter \
                 and driver",
                ranks.name(rank),
                names[at],
                ranks.name(0)
            )));
        }
    }
    Ok(())
}

/// What a run is: it goes on with these, or not at all.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Its settings, the text of `config.toml`.
    pub setup: String,
    /// What it reads.
    pub inputs: Inputs,
    /// Steps before its last stage.
    pub last_stage: u64,
    /// Whether it is to leave deltas as well.
    pub delta: bool,
}

/// Writes the state [captured](capture) of `learner`, with `progress` and the adapters of the best weights, if they have some, to `path`.
pub fn write(
    path: &Path,
    saved: &Saved,
    learner: &Learner,
    (progress, best_adapters): (Progress, &[f32]),
    run: &Identity,
) -> Result<()> {
    let (top1, loss) = progress.best.unwrap_or((f64::NAN, f64::NAN));
    let best = [top1.to_bits(), loss.to_bits(), progress.best_steps];
    let counts = [progress.steps, progress.taken, u64::from(progress.best.is_some()), learner.batches];
    let arrays = saved.values().map(|(name, len, values)| (name.to_string(), vec![len], values));
    let adapters = (BEST_ADAPTERS, best_adapters.len(), Values::F32(best_adapters));
    let own = [("progress", 4, Values::U64(&counts)), ("best", 3, Values::U64(&best)), adapters];
    let own = own.into_iter().filter(|(_, len, _)| *len > 0);
    let own = own.map(|(name, len, values)| (name.to_string(), vec![len], values));
    let metadata = BTreeMap::from([
        (SETUP.into(), run.setup.clone()),
        (INPUTS.into(), serde_json::to_string(&run.inputs).expect("names and digests")),
        (MICRO_BATCH.to_string(), learner.capacity().to_string()),
        (LAST_STAGE.to_string(), run.last_stage.to_string()),
        (DELTA.to_string(), run.delta.to_string()),
    ]);
    write_safetensors(path, &arrays.chain(own).collect::<Vec<_>>(), &metadata)
}

/// Images that passed through at once in the run that [`write()`] wrote `path` of: with batch norm the results depend on it.
pub fn micro_batch(path: &Path) -> Result<usize> {
    let file = Checkpoint::open(path)?;
    let size = file.metadata().get(MICRO_BATCH).and_then(|size| size.parse().ok()).filter(|size| *size > 0);
    size.ok_or_else(|| file.error("it does not say how many images passed through at once: give --micro-batch N"))
}

/// Steps before the last stage of the run whose state is `path`, if it has taken steps in it and had others before. A state of an earlier
/// version does not say.
pub fn last_stage(path: &Path) -> Result<Option<u64>> {
    let file = Checkpoint::open(path)?;
    let steps = file.read_u64("progress")?.first().copied().unwrap_or(0);
    let since = file.metadata().get(LAST_STAGE).and_then(|since| since.parse().ok());
    Ok(since.filter(|since| *since > 0 && *since < steps))
}

/// Whether the run whose state is `path` is to leave deltas as well.
pub fn wants_delta(path: &Path) -> Result<bool> {
    Ok(Checkpoint::open(path)?.metadata().get(DELTA).is_some_and(|delta| delta == "true"))
}

/// Refuses the state at `path` if it belongs to a run with other settings than `config`, naming the first that may not change.
/// Returns those that may and have.
pub fn check(path: &Path, config: &TrainConfig) -> Result<Vec<String>> {
    let file = Checkpoint::open(path)?;
    config.changes(file.metadata().get(SETUP).map_or("", String::as_str)).map_err(|what| {
        file.error(format!(
            "this state belongs to a run with other settings ({what}): leave that flag out to go on, or start anew in another \
             --out"
        ))
    })
}

/// The first input that has changed since the state at `path` was written, if any. A state of an earlier version does not say.
pub fn changed(path: &Path, inputs: &Inputs) -> Result<Option<String>> {
    let file = Checkpoint::open(path)?;
    let then = file.metadata().get(INPUTS).and_then(|text| serde_json::from_str::<Inputs>(text).ok());
    Ok(then.and_then(|then| inputs.difference(&then).map(String::from)))
}

/// Restores what [`write()`] wrote.
pub fn restore(path: &Path, learner: &mut Learner, active: &mut Active) -> Result<Progress> {
    let file = Checkpoint::open(path)?;
    let (counts, best) = (file.read_u64("progress")?, file.read_u64("best")?);
    let (&[steps, taken, has_best, batches], &[top1, loss, best_steps]) = (counts.as_slice(), best.as_slice()) else {
        return Err(file.error("progress should have four numbers, and best three"));
    };
    learner.restore(&file, steps, batches)?;
    active.restore(learner, &file, taken)?;
    let best = (has_best != 0).then(|| (f64::from_bits(top1), f64::from_bits(loss)));
    Ok(Progress { steps, taken, best, best_steps })
}

/// The adapters of the best weights of the run whose state is `path`; empty where [`write()`] was given none.
pub fn best_adapters(path: &Path) -> Result<Vec<f32>> {
    let file = Checkpoint::open(path)?;
    file.tensor(BEST_ADAPTERS).map_or(Ok(Vec::new()), |_| file.read_f32(BEST_ADAPTERS))
}
