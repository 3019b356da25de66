//! L2-SP (Li, Grandvalet & Davoine, ICML 2018): `lambda/2 · ‖θ − θ₀‖²` is added to the loss of the tensors that have a
//! pre-trained counterpart, in place of their weight decay; the others keep plain decay.

use crate::error::Result;
use crate::gpu::Program;
use crate::method::learner::{Around, Learner};
use crate::method::stage::Stage;
use crate::ops::l2_sp;

/// `whole`, whose tensors with an anchor are not decayed toward zero.
pub fn stage(whole: Stage, excluded: &[bool]) -> Stage {
    let decays = whole.weight_decays.iter().zip(excluded);
    Stage { weight_decays: decays.map(|(decay, excluded)| if *excluded { *decay } else { 0.0 }).collect(), ..whole }
}

/// The penalty's gradient around `anchor` (an arena image), added before each update; `excluded` tensors have none.
pub fn around(learner: &Learner, anchor: &[f32], excluded: &[bool], lambda: f32) -> Result<Around> {
    let (gpu, layout) = (learner.gpu, learner.model.layout());
    let w0 = layout.arena(gpu, "anchor weights")?;
    gpu.write(&w0, anchor);
    let pulled = layout.segments_of(gpu.limits.max_storage_buffer_binding_size, |t| (!excluded[t]).then_some(()))?;
    let segments: Vec<_> = pulled.into_iter().map(|(_, segment)| segment).collect();
    let mut r = learner.recorder();
    l2_sp::backward(&mut r, &learner.dw, &learner.w, &w0, learner.scale(), &segments, lambda)?;
    Ok(Around { before: r.program, after: Program::new() })
}
