//! Selective projection decay (Tian et al., NeurIPS 2024): a tensor is pulled back toward the anchor after those steps
//! whose gradient would have it go further away. Adam, whose weight decay is `lambda`.

use crate::error::Result;
use crate::method::learner::{Around, Learner};
use crate::method::stage::Stage;
use crate::ops::spd::Spd;
use crate::shapes::ParamLayout;

/// `whole`, without a decay toward zero.
pub fn stage(whole: Stage) -> Stage {
    Stage { weight_decays: vec![0.0; whole.weight_decays.len()], ..whole }
}

/// The pull toward `anchor` (an arena image) around each update; `excluded` tensors have none.
pub fn around(learner: &Learner, anchor: &[f32], excluded: &[bool], lambda: f32) -> Result<Around> {
    let (gpu, layout) = (learner.gpu, learner.model.layout());
    let w0 = layout.arena(gpu, "anchor weights")?;
    gpu.write(&w0, anchor);
    let spd = Spd::new(gpu, layout, excluded)?;
    let mut before = learner.recorder();
    spd.note(&mut before, &learner.dw, &learner.w, &w0)?;
    let mut after = learner.recorder();
    spd.apply(&mut after, &learner.w, &w0, lambda)?;
    Ok(Around { before: before.program, after: after.program })
}

/// Bytes on the device beyond the learner's and an arena.
pub fn tables(layout: &ParamLayout) -> u64 {
    Spd::bytes(layout)
}
