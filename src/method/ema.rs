//! Exponential moving average of the weights (Polyak & Juditsky 1992), from the pre-trained ones on: after every step
//! `average ← decay · average + (1 − decay) · θ`. Running statistics are averaged along.

use crate::error::Result;
use crate::gpu::buffer::align;
use crate::gpu::{Program, View};
use crate::method::learner::Learner;
use crate::method::snapshot::Snapshot;
use crate::model::Model;
use crate::ops::lerp;

/// The averages, on the device.
#[derive(Debug)]
pub struct Ema {
    w: View,
    stats: View,
    update: Program,
}

impl Ema {
    /// Bytes on the device.
    pub fn bytes(model: &Model) -> u64 {
        (align(model.layout().len.max(1)) + align(model.buffers().len.max(1))) as u64 * 4
    }

    /// Averages that start at `start`.
    pub fn new(learner: &Learner, start: &Snapshot, decay: f64) -> Result<Ema> {
        let (gpu, layout, buffers) = (learner.gpu, learner.model.layout(), learner.model.buffers());
        let (w, stats) = start.upload(gpu, &learner.model)?;
        let most = gpu.limits.max_storage_buffer_binding_size;
        let share = (1.0 - decay) as f32;
        let mut r = learner.recorder();
        lerp::forward(&mut r, &w, &learner.w, &layout.segments(most)?, share)?;
        lerp::forward(&mut r, &stats, &learner.stats, &buffers.segments(most)?, share)?;
        let update = r.program;
        Ok(Ema { w, stats, update })
    }

    /// Takes the weights as they are into the averages. Does not wait.
    pub fn update(&self, learner: &mut Learner) -> Result<()> {
        learner.submit(&self.update)
    }

    /// The averages. Waits.
    pub fn snapshot(&self, learner: &Learner) -> Result<Snapshot> {
        let stats = if self.stats.len == 0 { Vec::new() } else { learner.gpu.read(&self.stats)? };
        Ok(Snapshot { w: learner.gpu.read(&self.w)?, stats, batches: learner.batches })
    }

    /// Goes on from `values`.
    pub fn restore(&self, learner: &Learner, values: &Snapshot) {
        learner.gpu.write(&self.w, &values.w);
        if self.stats.len > 0 {
            learner.gpu.write(&self.stats, &values.stats);
        }
    }
}
