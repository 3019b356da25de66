//! Host wrapper of `shaders/distill.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Recorder, check};

pub use crate::cpu::distill::{Dims, On};

static SHADER: Shader = shader!("distill", REDUCE);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    cols: u32,
    weight: f32,
    temperature: f32,
    grad_scale: f32,
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).with("WG", LANES)]
}

/// Adds the loss of each sample to `loss` `[batch]`. Of features `gradient` `[batch, cols]` is assigned, of logits it is added to. With a
/// `scale`, the gradient is multiplied by its first value, that of a [loss scale](crate::ops::loss_scale).
pub fn forward(
    r: &mut Recorder,
    on: On,
    (loss, gradient): (&View, &View),
    (student, teacher): (&View, &View),
    scale: Option<&View>,
    dims: Dims,
) -> Result<()> {
    check("distill", "loss", loss, dims.batch);
    for (name, view) in [("gradient", gradient), ("student", student), ("teacher", teacher)] {
        check("distill", name, view, dims.batch * dims.cols);
    }
    let entry = match (on, scale) {
        (On::Features, None) => "features",
        (On::Features, Some(_)) => "features_scaled",
        (On::Logits, None) => "logits",
        (On::Logits, Some(_)) => "logits_scaled",
    };
    let kernel = r.kernel_with(&SHADER, entry, &[("WG", r.reduce_lanes() as f64)], "")?;
    let mut views = vec![("loss", loss), ("gradient", gradient), ("student", student), ("teacher", teacher)];
    views.extend(scale.map(|scale| ("loss_scale", scale)));
    let Dims { weight, temperature, grad_scale, .. } = dims;
    let params = Params { cols: dims.cols as u32, weight, temperature, grad_scale };
    r.push(&kernel, &views, &params, [dims.batch as u32, 1, 1]);
    Ok(())
}
