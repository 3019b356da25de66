//! L2-SP (Li, Grandvalet & Davoine, ICML 2018): `lambda/2 · ‖θ − θ₀‖²` is added to the loss of the tensors that have a
//! pre-trained counterpart, in place of their weight decay; the others keep plain decay.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::flag::in_range;
use crate::gpu::Program;
use crate::method::active::Owned;
use crate::method::stage::{Stage, Trained};
use crate::method::{Anchor, Around, Learner, Method, MethodArgs, Started};
use crate::model::Model;
use crate::ops::l2_sp;

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// Weight of l2-sp's penalty, half the squared distance from the pre-trained weights
    #[arg(long, value_name = "LAMBDA", default_value_t = 0.01)]
    pub anchor_decay: f32,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "l2-sp"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["anchor-decay", "exclude"]
    }

    fn check(&self, args: &MethodArgs) -> Result<()> {
        in_range("anchor-decay", args.l2_sp.anchor_decay, |d| d >= 0.0 && d.is_finite(), "at least 0")
    }

    /// Tensors with an anchor are not decayed toward zero.
    fn stages(&self, _: &MethodArgs, whole: Stage, of: &Trained) -> Result<Vec<Stage>> {
        let decays = whole.weight_decays.iter().zip(of.excluded);
        let weight_decays = decays.map(|(decay, excluded)| if *excluded { *decay } else { 0.0 }).collect();
        Ok(vec![Stage { weight_decays, ..whole }])
    }

    fn bytes(&self, _: &MethodArgs, model: &Model) -> u64 {
        model.layout().arena_bytes()
    }

    /// The penalty's gradient is added before each update.
    fn start(&self, args: &MethodArgs, learner: &Learner, anchor: &Anchor) -> Result<Started> {
        let (layout, most) = (learner.model.layout(), learner.gpu.limits.max_storage_buffer_binding_size);
        let w0 = anchor.upload(learner)?;
        let pulled = layout.segments_of(most, |t| (!anchor.excluded[t]).then_some(()))?;
        let segments: Vec<_> = pulled.into_iter().map(|(_, segment)| segment).collect();
        let (mut r, lambda) = (learner.recorder(), args.l2_sp.anchor_decay);
        l2_sp::backward(&mut r, &learner.dw, &learner.w, &w0, learner.scale(), &segments, lambda)?;
        Ok(Started::new(Around { before: r.program, after: Program::new() }, Owned(w0)))
    }
}
