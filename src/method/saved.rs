//! What a run keeps on disk to go on from: arrays by name, on their way from the device to a file and back.

use std::collections::BTreeMap;

use crate::checkpoint::{Checkpoint, Values};
use crate::error::Result;
use crate::gpu::{Gpu, View};
use crate::method::learner::Learner;
use crate::method::snapshot::Snapshot;

#[derive(Debug)]
enum Array {
    F32(Vec<f32>),
    U32(Vec<u32>),
}

/// Arrays by name, read from the device once.
#[derive(Debug, Default)]
pub struct Saved(BTreeMap<&'static str, Array>);

impl Saved {
    /// Reads `view` as floats. An empty one is left out. Waits.
    ///
    /// # Errors
    /// Where the device is lost.
    pub fn add_f32(&mut self, gpu: &Gpu, name: &'static str, view: &View) -> Result<()> {
        if view.len > 0 {
            self.0.insert(name, Array::F32(gpu.read(view)?));
        }
        Ok(())
    }

    /// Reads `view` as whole numbers, or as bits of whatever kind. Waits.
    ///
    /// # Errors
    /// Where the device is lost.
    pub fn add_u32(&mut self, gpu: &Gpu, name: &'static str, view: &View) -> Result<()> {
        self.0.insert(name, Array::U32(gpu.read(view)?));
        Ok(())
    }

    /// The floats called `name`; none where they were empty.
    pub fn f32(&self, name: &str) -> &[f32] {
        match self.0.get(name) {
            Some(Array::F32(values)) => values,
            _ => &[],
        }
    }

    /// The arrays as a file has them.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, usize, Values<'_>)> {
        self.0.iter().map(|(name, array)| match array {
            Array::F32(values) => (*name, values.len(), Values::F32(values)),
            Array::U32(values) => (*name, values.len(), Values::U32(values)),
        })
    }
}

/// Writes the floats `name` of `file` to `view`; an empty one stays as it is.
///
/// # Errors
/// Where the file has none, or not as many.
pub fn read_f32(file: &Checkpoint, name: &str, gpu: &Gpu, view: &View) -> Result<()> {
    if view.len > 0 {
        let values = file.read_f32(name)?;
        fits(file, name, values.len(), view)?;
        gpu.write(view, &values);
    }
    Ok(())
}

/// Writes the whole numbers `name` of `file` to `view`.
///
/// # Errors
/// Where the file has none, or not as many.
pub fn read_u32(file: &Checkpoint, name: &str, gpu: &Gpu, view: &View) -> Result<()> {
    let values = file.read_u32(name)?;
    fits(file, name, values.len(), view)?;
    gpu.write(view, &values);
    Ok(())
}

fn fits(file: &Checkpoint, name: &str, len: usize, view: &View) -> Result<()> {
    match len == view.len {
        true => Ok(()),
        false => Err(file.error(format!("{name} has another length than the model's"))),
    }
}

const MOMENTS: [&str; 2] = ["moment0", "moment1"];

impl Learner<'_> {
    /// Adds weights, statistics and the optimiser's state to `saved`. Waits.
    ///
    /// # Errors
    /// Where the device is lost.
    pub fn save(&self, saved: &mut Saved) -> Result<()> {
        saved.add_f32(self.gpu, "w", &self.w)?;
        saved.add_f32(self.gpu, "stats", &self.stats)?;
        for (name, moments) in MOMENTS.into_iter().zip(&self.moments) {
            saved.add_f32(self.gpu, name, moments)?;
        }
        self.scale().map_or(Ok(()), |scale| saved.add_u32(self.gpu, "loss_scale", scale))
    }

    /// Goes on from the `file` that [`Learner::save`] has gone into, as if `steps` steps had been taken, whose `batches` are in the
    /// running statistics.
    ///
    /// # Errors
    /// Where the file has other arrays than the model's.
    pub fn restore(&mut self, file: &Checkpoint, steps: u64, batches: u64) -> Result<()> {
        read_f32(file, "w", self.gpu, &self.w)?;
        read_f32(file, "stats", self.gpu, &self.stats)?;
        for (name, moments) in MOMENTS.into_iter().zip(&self.moments) {
            read_f32(file, name, self.gpu, moments)?;
        }
        if let Some(scale) = self.scale() {
            read_u32(file, "loss_scale", self.gpu, scale)?;
        }
        self.resume_at(steps, batches);
        Ok(())
    }

    /// The weights and running statistics among what [`Learner::save`] has added.
    pub fn own(&self, saved: &Saved) -> Snapshot {
        Snapshot { w: saved.f32("w").into(), stats: saved.f32("stats").into(), batches: self.batches }
    }
}
