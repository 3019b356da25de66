//! The state to resume from: what a stopped run needs to go on as if it had not stopped.

use std::collections::BTreeMap;
use std::path::Path;

use crate::checkpoint::{Checkpoint, Values, write_safetensors};
use crate::error::Result;
use crate::method::{Learner, Snapshot};
use crate::ops::mars::RADIUS_WORDS;
use crate::train::config::TrainConfig;
use crate::train::parts::Parts;

/// The metadata's word for it.
const MICRO_BATCH: &str = "micro-batch";

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Fine-tuning steps taken.
    pub steps: u64,
    /// Outer iterations run.
    pub iterations: u64,
    /// Top-1 accuracy and loss of the best evaluation so far, where there is one.
    pub best: Option<(f64, f64)>,
    /// Fine-tuning steps taken when it was found.
    pub best_steps: u64,
}

/// Writes weights, optimiser state and what the method keeps with `progress` to `path`. `setup` identifies the run.
pub fn save(path: &Path, learner: &Learner, parts: &Parts, progress: Progress, setup: &str) -> Result<()> {
    let mut arenas = vec![("w".to_string(), learner.gpu.read::<f32>(&learner.w)?)];
    if learner.stats.len > 0 {
        arenas.push(("stats".into(), learner.gpu.read(&learner.stats)?));
    }
    for (i, m) in learner.moments.iter().enumerate() {
        arenas.push((format!("moment{i}"), learner.gpu.read(m)?));
    }
    let mut radii = parts.tpgm.as_ref().map(|t| t.save_radii(learner)).transpose()?;
    if let Some(ftp) = &parts.ftp {
        radii = Some(ftp.save_radii(learner)?);
        arenas.push(("w_prev".into(), learner.gpu.read(&ftp.w_prev)?));
    }
    if let Some(ema) = &parts.ema {
        let average = ema.snapshot(learner)?;
        arenas.push(("average".into(), average.w));
        if !average.stats.is_empty() {
            arenas.push(("average_stats".into(), average.stats));
        }
    }
    let scale = learner.scale().map(|scale| learner.gpu.read::<u32>(scale)).transpose()?;
    let mut tensors: Vec<(String, Vec<usize>, Values)> =
        arenas.iter().map(|(name, v)| (name.clone(), vec![v.len()], Values::F32(v))).collect();
    if let Some(radii) = &radii {
        tensors.push(("radii".into(), vec![radii.len()], Values::U32(radii)));
    }
    if let Some(scale) = &scale {
        tensors.push(("loss_scale".into(), vec![scale.len()], Values::U32(scale)));
    }
    let (top1, loss) = progress.best.unwrap_or((f64::NAN, f64::NAN));
    let best = [top1.to_bits(), loss.to_bits(), progress.best_steps];
    let counts = [progress.steps, progress.iterations, u64::from(progress.best.is_some()), learner.batches];
    tensors.push(("progress".into(), vec![4], Values::U64(&counts)));
    tensors.push(("best".into(), vec![3], Values::U64(&best)));
    let metadata = BTreeMap::from([
        ("setup".into(), setup.to_string()),
        (MICRO_BATCH.to_string(), learner.capacity().to_string()),
    ]);
    write_safetensors(path, &tensors, &metadata)
}

/// Images that passed through at once in the run that [`save`] wrote `path` of: with batch norm the results depend on it.
pub fn micro_batch(path: &Path) -> Result<usize> {
    let file = Checkpoint::open(path)?;
    let size = file.metadata().get(MICRO_BATCH).and_then(|size| size.parse().ok()).filter(|size| *size > 0);
    size.ok_or_else(|| file.error("it does not say how many images passed through at once: give --micro-batch N"))
}

/// Refuses the state at `path` if it belongs to a run with other settings than `config`, naming the first.
pub fn check(path: &Path, config: &TrainConfig) -> Result<()> {
    let file = Checkpoint::open(path)?;
    match config.difference(file.metadata().get("setup").map_or("", String::as_str)) {
        None => Ok(()),
        Some(what) => Err(file.error(format!(
            "this state belongs to a run with other settings ({what}): resume with the flags of its config.toml \
             (--config DIR/config.toml), or start anew in another --out"
        ))),
    }
}

/// Restores what [`save`] wrote.
///
/// `anchor` is the arena image that the method holds the weights near.
pub fn restore(path: &Path, learner: &mut Learner, parts: &mut Parts, anchor: &[f32]) -> Result<Progress> {
    let file = Checkpoint::open(path)?;
    let image = |name: &str, len: usize| {
        let values = file.read_f32(name)?;
        if values.len() == len {
            Ok(values)
        } else {
            Err(file.error(format!("{name} has another length than the model")))
        }
    };
    let (len, tensors, stats_len) =
        (learner.model.layout().len, learner.model.layout().params.len(), learner.stats.len);
    let arena = |name: &str| image(name, len);
    learner.gpu.write(&learner.w, &arena("w")?);
    if learner.stats.len > 0 {
        learner.gpu.write(&learner.stats, &image("stats", learner.stats.len)?);
    }
    for (i, m) in learner.moments.iter().enumerate() {
        learner.gpu.write(m, &arena(&format!("moment{i}"))?);
    }
    let (counts, best) = (file.read_u64("progress")?, file.read_u64("best")?);
    let (&[steps, iterations, has_best, batches], &[top1, loss, best_steps]) = (counts.as_slice(), best.as_slice())
    else {
        return Err(file.error("progress should have four numbers, and best three"));
    };
    let radii = || {
        let radii = file.read_u32("radii")?;
        match radii.len() == tensors * RADIUS_WORDS {
            true => Ok(radii),
            false => Err(file.error("radii has another length than the model's")),
        }
    };
    if let Some(tpgm) = &mut parts.tpgm {
        tpgm.restore_radii(learner, &radii()?, iterations);
    }
    if let Some(ema) = &parts.ema {
        let stats = if stats_len > 0 { image("average_stats", stats_len)? } else { Vec::new() };
        ema.restore(learner, &Snapshot { w: arena("average")?, stats, batches });
    }
    if let Some(ftp) = &mut parts.ftp {
        let (radii, w_prev) = (radii()?, arena("w_prev")?);
        ftp.restore(learner, &radii, &w_prev, anchor, steps)?;
    }
    if let Some(scale) = learner.scale() {
        let words = file.read_u32("loss_scale")?;
        if words.len() != scale.len {
            return Err(file.error("loss_scale should have five numbers"));
        }
        learner.gpu.write(scale, &words);
    }
    learner.resume_at(steps, batches);
    let best = (has_best != 0).then(|| (f64::from_bits(top1), f64::from_bits(loss)));
    Ok(Progress { steps, iterations, best, best_steps })
}
