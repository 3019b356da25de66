//! Sharpness-aware steps: a first pass over the batch gives the slope at θ, a second the gradient up that slope, by which θ is updated.

use std::collections::HashMap;

use super::Learner;
use crate::error::Result;
use crate::gpu::buffer::align;
use crate::gpu::{Gpu, Program, View};
use crate::method::settings::{BatchNorm, WINDOW};
use crate::model::Model;
use crate::ops::cross_entropy::CHANNELS;
use crate::ops::{norm_clip, sam};
use crate::shapes::{ParamLayout, Segment};

/// What the second pass of each step reads and writes in the place of the learner's own.
#[derive(Debug)]
pub(super) struct Ascent {
    rho: f32,
    /// The weights up the slope.
    w: View,
    /// Batch norm's running statistics follow the first pass; the second moves these, which nobody reads.
    stats: View,
    /// The losses up the slope: the records have those at θ.
    ring: View,
    partials: View,
    factor: View,
    /// After the first pass: `w`, and its copy in f16.
    pub(super) climb: Program,
    pub(super) gradients: HashMap<(usize, usize), Program>,
}

/// Partial sums of whatever segments of whole tensors are trained.
fn partials_len(layout: &ParamLayout) -> usize {
    let padded = layout.params.iter().map(|param| Segment { offset: param.offset, len: align(param.len) });
    norm_clip::partials_len(&padded.collect::<Vec<_>>())
}

impl Ascent {
    fn new(gpu: &Gpu, model: &Model, rho: f32) -> Result<Ascent> {
        let layout = model.layout();
        Ok(Ascent {
            rho,
            w: layout.arena(gpu, "weights up the slope")?,
            stats: model.buffers().arena(gpu, "running statistics up the slope")?,
            ring: gpu.buffer("loss ring up the slope", WINDOW * CHANNELS)?,
            partials: gpu.buffer("squared slope", partials_len(layout))?,
            factor: gpu.buffer("way up the slope", 1)?,
            climb: Program::new(),
            gradients: HashMap::new(),
        })
    }
}

impl Learner<'_> {
    /// Bytes that [`Learner::sharpen`] allocates for `model`.
    pub(in crate::method) fn ascent_bytes(model: &Model) -> u64 {
        let small = [WINDOW * CHANNELS, partials_len(model.layout()), 1];
        let small: u64 = small.iter().map(|len| align(*len) as u64 * 4).sum();
        model.layout().arena_bytes() + model.buffers().arena_bytes() + small
    }

    /// Takes the gradient of every step from now on at `θ + rho·g/‖g‖`, where g is the gradient at θ: before anything is recorded.
    pub(in crate::method) fn sharpen(&mut self, rho: f32) -> Result<()> {
        assert!(self.gradients.is_empty(), "steps are sharpness-aware from the first on");
        self.ascent = Some(Ascent::new(self.gpu, &self.model, rho)?);
        self.record_climb()
    }

    /// Records anew what depends on the stage.
    pub(super) fn record_climb(&mut self) -> Result<()> {
        let Some(mut ascent) = self.ascent.take() else { return Ok(()) };
        let recorded = self.record_climb_of(&ascent);
        ascent.gradients.clear();
        ascent.climb = recorded?;
        self.ascent = Some(ascent);
        Ok(())
    }

    fn record_climb_of(&self, ascent: &Ascent) -> Result<Program> {
        let most = self.gpu.limits.max_storage_buffer_binding_size;
        let parts = self.model.layout().segments_of(most, |tensor| Some(self.stage.rates[tensor] != 0.0))?;
        let of = |trained| {
            parts.iter().filter(move |(is, _)| *is == trained).map(|(_, part)| *part).collect::<Vec<Segment>>()
        };
        let (trained, still) = (of(true), of(false));
        let mut r = self.recorder();
        let scratch = (&ascent.partials.slice(0, norm_clip::partials_len(&trained)), &ascent.factor);
        sam::climb(&mut r, &ascent.w, &self.w, &self.dw, scratch, (&trained, &still), ascent.rho)?;
        self.acts.cast_weights(&mut r, &ascent.w)?;
        Ok(r.program)
    }

    /// What the second pass reads and writes, if steps have one: weights, running statistics, losses.
    pub(super) fn up_the_slope(&self) -> Option<(&View, &View, &View)> {
        let ascent = self.ascent.as_ref()?;
        let moves = self.settings.batch_norm == BatchNorm::Train;
        Some((&ascent.w, if moves { &ascent.stats } else { &self.stats }, &ascent.ring))
    }
}
