//! Passes that begin behind the layers that stay as they are, at features that were computed before.

use super::Learner;
use crate::error::Result;
use crate::gpu::Program;
use crate::method::settings::BatchNorm;
use crate::model::{Cut, Part, Phase};
use crate::ops::cross_entropy::Channel;

impl Learner<'_> {
    /// The cut below all that the stage trains, if what lies below it stays as it is: without batch norm that trains, and without a
    /// method that moves weights by itself.
    pub fn cut(&self) -> Option<Cut> {
        let moves = self.stats.len > 0 && self.settings.batch_norm == BatchNorm::Train;
        let trained = |tensor: usize| self.stage.rates[tensor] != 0.0;
        let acts = self.around.iter().any(|around| !around.before.steps.is_empty() || !around.after.steps.is_empty());
        if moves || acts || self.teacher.is_some() { None } else { self.acts.cut(&self.model, &trained) }
    }

    /// From now on, until the next stage, passes of steps and of [`Learner::logits`] begin at `cut`: images are what
    /// [`Learner::features`] gave for them.
    pub fn begin_at(&mut self, cut: Option<Cut>) {
        self.gradients.clear();
        self.inference.clear();
        self.cut = cut;
    }

    /// What crosses `cut` for `images` `[batch, 3, size, size]`, at most [`Learner::capacity`] of them: `[batch, Cut::words]`, words of
    /// memory whatever they hold. Waits.
    pub fn features(&self, images: &[f32], batch: usize, cut: &Cut) -> Result<Vec<f32>> {
        let mut r = self.recorder();
        let model = &self.model;
        self.acts.forward_part(model, &mut r, batch, &self.w, &self.stats, Phase::Eval, Part::Below(cut))?;
        self.write_input(images, batch, None);
        Program::run(self.gpu, &[], &[&self.cast, &r.program])?;
        let mut rows = vec![Vec::with_capacity(cut.words()); batch];
        for view in self.acts.crossing(cut, batch) {
            let values = self.gpu.read::<f32>(&view)?;
            rows.iter_mut().zip(values.chunks(view.len / batch)).for_each(|(row, own)| row.extend_from_slice(own));
        }
        Ok(rows.concat())
    }

    /// The cut where passes of `channel` begin.
    pub(super) fn begins_at(&self, channel: Channel) -> Option<&Cut> {
        self.cut.as_ref().filter(|_| channel == Channel::Train)
    }

    /// Writes what a pass over `batch` images begins with: the images, or what crosses `cut` for each.
    pub(super) fn write_input(&self, images: &[f32], batch: usize, cut: Option<&Cut>) {
        let Some(cut) = cut else {
            let to = self.acts.images(batch);
            assert_eq!(images.len(), to.len, "images for a batch of {batch}");
            return self.gpu.write(&to, images);
        };
        assert_eq!(images.len(), batch * cut.words(), "features of {batch} images");
        let mut at = 0;
        for view in self.acts.crossing(cut, batch) {
            let words = view.len / batch;
            let own: Vec<f32> = images.chunks(cut.words()).flat_map(|row| &row[at..at + words]).copied().collect();
            self.gpu.write(&view, &own);
            at += words;
        }
    }
}
