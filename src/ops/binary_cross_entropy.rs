//! Host wrapper of `shaders/binary_cross_entropy.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Recorder, check};

static SHADER: Shader = shader!("binary_cross_entropy", REDUCE);

/// Shape and scale of a loss.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Samples.
    pub batch: usize,
    /// Classes.
    pub classes: usize,
    /// 1 / samples of the whole step, over all its micro-batches.
    pub grad_scale: f32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    classes: u32,
    grad_scale: f32,
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).with("WG", LANES)]
}

/// `loss` `[batch] = `, `dlogits` `[batch, classes] = ` from `logits` and `targets` `[batch, classes]`, each of these 0 to 1, and the
/// weights of positives, `positive` `[classes]`. With a `scale`, `dlogits` are multiplied by the first value of that
/// [loss scale](crate::ops::loss_scale).
pub fn forward(
    r: &mut Recorder,
    loss: &View,
    dlogits: &View,
    logits: &View,
    (targets, positive): (&View, &View),
    scale: Option<&View>,
    dims: Dims,
) -> Result<()> {
    check("binary_cross_entropy", "loss", loss, dims.batch);
    check("binary_cross_entropy", "positive", positive, dims.classes);
    for (name, view) in [("dlogits", dlogits), ("logits", logits), ("targets", targets)] {
        check("binary_cross_entropy", name, view, dims.batch * dims.classes);
    }
    let entry = if scale.is_some() { "forward_scaled" } else { "forward" };
    let kernel = r.kernel(&SHADER, entry, &[("WG", r.reduce_lanes() as f64)])?;
    let mut views =
        vec![("loss", loss), ("dlogits", dlogits), ("logits", logits), ("targets", targets), ("positive", positive)];
    views.extend(scale.map(|scale| ("loss_scale", scale)));
    let params = Params { classes: dims.classes as u32, grad_scale: dims.grad_scale };
    r.push(&kernel, &views, &params, [dims.batch as u32, 1, 1]);
    Ok(())
}
