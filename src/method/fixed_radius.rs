//! Projected gradient method with one radius for all tensors, given by the user: MARS-PGM, or L2-PGM (Gouk, Hospedales &
//! Pontil, ICLR 2021). After every step each tensor is projected onto its ball around the anchor.

use crate::error::Result;
use crate::gpu::Program;
use crate::method::learner::{Around, Learner};
use crate::ops::mars::Mars;
use crate::shapes::Norm;
use crate::shapes::ParamLayout;

/// The projection around `anchor` (an arena image) after each update; `excluded` tensors are free.
pub fn around(learner: &Learner, anchor: &[f32], excluded: &[bool], norm: Norm, radius: f32) -> Result<Around> {
    let (gpu, layout) = (learner.gpu, learner.model.layout());
    let w0 = layout.arena(gpu, "anchor weights")?;
    gpu.write(&w0, anchor);
    let mars = Mars::new(gpu, layout, norm, excluded)?;
    mars.hold(gpu, radius);
    let mut r = learner.recorder();
    mars.measure(&mut r, &learner.w, &w0)?;
    mars.apply(&mut r, &learner.w, &w0)?;
    Ok(Around { before: Program::new(), after: r.program })
}

/// Bytes on the device beyond the learner's and an arena.
pub fn tables(layout: &ParamLayout, norm: Norm) -> u64 {
    Mars::bytes(layout, norm)
}
