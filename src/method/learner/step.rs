//! A step: passes over the micro-batches, and the update.

use super::Learner;
use crate::data::Mixed;
use crate::error::Result;
use crate::gpu::{Program, View};
use crate::method::settings::{BatchNorm, WINDOW};
use crate::ops::cross_entropy::Channel;
use crate::ops::dropout::State;
use crate::ops::step_state::StepState;

/// What a step is taken on: images of the own part, labels of the whole batch.
struct StepBatch<'a> {
    images: &'a [f32],
    labels: &'a [u32],
    mixed: Option<&'a Mixed>,
    lr: f64,
}

/// Where the gradient is taken.
#[derive(Clone, Copy, PartialEq)]
enum Pass {
    /// At the weights.
    Own,
    /// Up the slope from them: a second pass on the same images, with the same parts dropped at random.
    Climbed,
}

impl Learner<'_> {
    /// One step of the optimiser with learning rate `lr` on a batch: images `[batch, 3, size, size]`, labels `[batch]`.
    /// Returns without waiting for it; the loss comes with [`Learner::records`].
    pub fn step(&mut self, images: &[f32], labels: &[u32], lr: f64) -> Result<()> {
        self.step_mixed(images, labels, None, lr)
    }

    /// As [`Learner::step`], for images that are perhaps mixed, with the labels that they have besides. With [others](Learner::join), the
    /// images are those of the own [part](Learner::part); labels are of the whole batch.
    pub fn step_mixed(&mut self, images: &[f32], labels: &[u32], mixed: Option<&Mixed>, lr: f64) -> Result<()> {
        let of = labels.len();
        assert!(of > 0, "a step on an empty batch");
        self.check_in_step(of)?;
        let batch = StepBatch { images, labels, mixed, lr };
        self.pass(&batch, Pass::Own)?;
        if self.ascent.is_some() {
            self.pass(&batch, Pass::Climbed)?;
        }
        self.steps += 1;
        if self.steps.is_multiple_of(WINDOW as u64) {
            self.request_records();
        }
        Ok(())
    }

    /// The gradient on a batch, micro-batch by micro-batch and over all ranks, and what follows it.
    fn pass(&mut self, batch: &StepBatch, pass: Pass) -> Result<()> {
        let &StepBatch { images, labels, mixed, lr } = batch;
        let of = labels.len();
        let part = self.part(of);
        let per_image = images.len() / part.len().max(1);
        let micro = self.settings.micro_batch;
        let alone = self.joined.is_none();
        for (i, start) in part.clone().step_by(micro).enumerate() {
            let own = start..part.end.min(start + micro);
            self.prepare_gradient(own.len(), of)?;
            let mut joined = self.joined.take();
            let at = (start - part.start) * per_image;
            let pixels = &images[at..at + own.len() * per_image];
            self.upload(pixels, &labels[own.clone()], labels, mixed.map(|mixed| (mixed, start)), Channel::Train);
            self.gpu.write(&self.state, &self.step_state(lr, i).words());
            if let Some(random) = self.acts.random() {
                let state: State = [self.seed as u32, (self.seed >> 32) as u32, self.steps as u32, start as u32];
                self.gpu.write(&random, &state);
            }
            let clear: &[&View] = if i == 0 { &[&self.dw] } else { &[] };
            let (cast, gradients) = match (pass, &self.ascent) {
                (Pass::Climbed, Some(ascent)) => (None, &ascent.gradients),
                _ => (Some(&self.cast), &self.gradients),
            };
            let gradient = &gradients[&(own.len(), of)];
            let mut programs: Vec<&Program> = cast.filter(|_| i == 0).into_iter().chain([gradient]).collect();
            if alone && own.end == part.end {
                programs.extend(self.follows(pass));
            }
            let index = match &mut joined {
                Some(joined) if gradient.exchanges() => joined.run(self.gpu, clear, &programs),
                Some(joined) if own.end == part.end => joined.run_last((self.gpu, &self.dw), clear, &programs),
                _ => Program::run(self.gpu, clear, &programs),
            };
            self.joined = joined;
            let index = index?;
            self.batches += u64::from(pass == Pass::Own && self.settings.batch_norm == BatchNorm::Train);
            self.submitted(index)?;
        }
        if !alone {
            if part.is_empty() {
                self.gpu.write(&self.state, &self.step_state(lr, 0).words());
                self.pass_over_nothing()?;
            }
            self.add_up(of, pass == Pass::Own)?;
            let index = Program::run(self.gpu, &[], &self.follows(pass))?;
            self.submitted(index)?;
        }
        Ok(())
    }

    /// What follows the gradient of a pass: the way up the slope to the next pass, or the update.
    fn follows(&self, pass: Pass) -> Vec<&Program> {
        match (pass, &self.ascent) {
            (Pass::Own, Some(ascent)) => vec![&ascent.climb],
            _ => self.updates().collect(),
        }
    }

    /// What follows a complete gradient: the optimiser's update, and what methods do before and after it.
    pub(super) fn updates(&self) -> impl Iterator<Item = &Program> {
        let (before, after) = (self.around.iter().map(|a| &a.before), self.around.iter().map(|a| &a.after));
        before.chain([&self.update]).chain(after)
    }

    fn step_state(&self, lr: f64, micro: usize) -> StepState {
        let t = (self.steps - self.stage.since) as i32 + 1;
        // 1 for decays of 0. A step that f16 overflowed counts here; the device then keeps its own corrections.
        let [beta1, beta2] = self.settings.optimizer.betas();
        let (correction1, correction2) = (1.0 - beta1.powi(t), (1.0 - beta2.powi(t)).sqrt());
        StepState {
            lr: lr as f32,
            bias_correction1: correction1 as f32,
            bias_correction2_sqrt: correction2 as f32,
            step: t as u32,
            slot: (self.steps % WINDOW as u64) as u32,
            first: u32::from(t == 1),
            micro: micro as u32,
        }
    }
}
