//! What a run takes on the device, part by part: known before anything is allocated, and kept to.

use std::fmt;

use crate::error::Result;
use crate::gpu::Gpu;
use crate::gpu::buffer::mib;
use crate::method::learner::{IN_FLIGHT, Learner};
use crate::method::settings::Settings;
use crate::model::Model;

/// Bytes of each part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Images that pass through at once.
    pub micro_batch: usize,
    /// The weights, their copy in f16 if there is one, and the running statistics.
    pub weights: u64,
    /// The gradient of the weights.
    pub gradient: u64,
    /// The optimiser's state.
    pub optimizer: u64,
    /// What the methods keep: anchor, projected weights, tables, averages.
    pub projection: u64,
    /// Activations and their gradients, images and labels.
    pub activations: u64,
    /// Partial sums and packed weights, and other small buffers.
    pub scratch: u64,
    /// The most that is on its way to or from the host: batches that wait for the device, or an arena to be saved.
    pub staging: u64,
}

impl Memory {
    /// The plan of a [`Learner`] beside methods that keep `projection` bytes.
    ///
    /// Errors where an arena is larger than a buffer of this adapter can be.
    pub fn plan(gpu: &Gpu, model: &Model, settings: &Settings, projection: u64) -> Result<Memory> {
        let layout = model.layout();
        // Gradient, anchor and optimiser state are as long.
        gpu.check_arena("all weights together", layout.len)?;
        let arena = layout.arena_bytes();
        let acts = Learner::plan(gpu, model, settings)?;
        let images = settings.micro_batch as u64 * 3 * (model.image_size() as u64).pow(2) * 4;
        Ok(Memory {
            micro_batch: settings.micro_batch,
            weights: arena + model.buffers().arena_bytes() + acts.weight_bytes(),
            gradient: arena,
            optimizer: settings.optimizer.arenas() as u64 * arena,
            projection,
            activations: acts.plan.bytes() - acts.scratch_bytes() - acts.weight_bytes(),
            scratch: acts.scratch_bytes() + Learner::small_buffers(gpu, layout, settings)?,
            staging: arena.max((IN_FLIGHT as u64 + 1) * images),
        })
    }

    /// Bytes of the buffers on the device.
    pub fn buffers(&self) -> u64 {
        self.weights + self.gradient + self.optimizer + self.projection + self.activations + self.scratch
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.buffers() + self.staging
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("weights", self.weights),
            ("gradient", self.gradient),
            ("optimizer", self.optimizer),
            ("projection", self.projection),
            ("activations", self.activations),
            ("scratch", self.scratch),
            ("staging", self.staging),
        ];
        let images = if self.micro_batch == 1 { "image" } else { "images" };
        write!(f, "{} planned for {} {images} at once:", mib(self.total()), self.micro_batch)?;
        for (i, (name, bytes)) in parts.iter().filter(|(_, bytes)| *bytes > 0).enumerate() {
            write!(f, "{} {name} {}", if i == 0 { "" } else { "," }, mib(*bytes))?;
        }
        Ok(())
    }
}
