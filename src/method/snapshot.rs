//! A model's values on the host.

use crate::error::Result;
use crate::gpu::{Gpu, View};
use crate::model::Model;

/// A model's values: images of its arenas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The weights, in the order of [`Model::layout`].
    pub w: Vec<f32>,
    /// The running statistics, in the order of [`Model::buffers`].
    pub stats: Vec<f32>,
    /// Training batches that went into the running statistics since the checkpoint was read.
    pub batches: u64,
}

impl Snapshot {
    /// Weights of a model without running statistics.
    pub fn of_weights(w: Vec<f32>) -> Snapshot {
        Snapshot { w, ..Snapshot::default() }
    }

    pub(super) fn check(&self, model: &Model) {
        assert_eq!(self.w.len(), model.layout().len, "weights are an image of the arena");
        assert_eq!(self.stats.len(), model.buffers().len, "running statistics are an image of their arena");
    }

    /// Weights and running statistics on the device.
    pub fn upload(&self, gpu: &Gpu, model: &Model) -> Result<(View, View)> {
        self.check(model);
        let w = model.layout().arena(gpu, "weights")?;
        gpu.write(&w, &self.w);
        let stats = model.buffers().arena(gpu, "running statistics")?;
        gpu.write(&stats, &self.stats);
        Ok((w, stats))
    }
}
