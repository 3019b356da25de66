//! A loss that keeps a model's outputs near those of another with the same layout, its teacher.

use super::Learner;
use crate::error::Result;
use crate::gpu::View;
use crate::method::snapshot::Snapshot;
use crate::method::teacher::Teacher;
use crate::model::{Part, Phase, Recording};
use crate::ops::cross_entropy::Channel;
use crate::ops::{Recorder, distill, slice};

impl Learner<'_> {
    /// Counts from now on how far the outputs that the model [distills](crate::model::Model::distilling) move from those at `values`,
    /// `weight` times: before anything is recorded.
    pub fn attend(&mut self, values: &Snapshot, weight: f32, temperature: f32) -> Result<()> {
        assert!(self.gradients.is_empty(), "a teacher comes before the first step");
        let (w, stats) = values.upload(self.gpu, &self.model)?;
        self.teacher = Some(Teacher { w, stats, weight, temperature });
        Ok(())
    }

    /// Records the teacher's pass over `batch` images, and keeps what it gives. `w` are the weights that the next pass reads.
    pub(super) fn record_teacher(&self, r: &mut Recorder, w: &View, channel: Channel, batch: usize) -> Result<()> {
        let Some(teacher) = self.teacher.as_ref().filter(|_| channel == Channel::Train) else { return Ok(()) };
        self.acts.cast_weights(r, &teacher.w)?;
        let (w0, stats) = (&teacher.w, &teacher.stats);
        let recording = self.acts.forward_part(&self.model, r, batch, w0, stats, Phase::Eval, Part::Whole)?;
        if let Some(taught) = recording.taught() {
            let cols = taught.teacher.len / batch;
            let dims = slice::Dims { rows: batch, pitch: cols, first: 0, count: cols };
            slice::forward(r, &taught.teacher, &taught.student, dims)?;
        }
        self.acts.cast_weights(r, w)
    }

    /// Adds the teacher's part to `loss` `[batch]` and to the gradients: on validation images nothing.
    pub(super) fn record_distance(
        &self,
        r: &mut Recorder,
        recording: &Recording,
        loss: &View,
        channel: Channel,
        (batch, of): (usize, usize),
    ) -> Result<()> {
        let Some(taught) = recording.taught() else { return Ok(()) };
        let own = self.teacher.as_ref().filter(|_| channel == Channel::Train);
        let (weight, temperature) = own.map_or((0.0, 1.0), |teacher| (teacher.weight, teacher.temperature));
        let cols = taught.teacher.len / batch;
        let dims = distill::Dims { batch, cols, weight, temperature, grad_scale: 1.0 / of as f32 };
        let dlogits = self.acts.dlogits(batch);
        let gradient = taught.gradient.as_ref().unwrap_or(&dlogits);
        let pair = (&taught.student, &taught.teacher);
        distill::forward(r, taught.on, (loss, gradient), pair, self.scale.as_ref(), dims)
    }
}
