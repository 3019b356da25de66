//! Host wrapper of `shaders/cross_entropy.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Recorder, check};

static SHADER: Shader = shader!("cross_entropy", REDUCE, STEP);

/// Shape and settings of a loss.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Samples.
    pub batch: usize,
    /// Classes.
    pub classes: usize,
    /// Label smoothing ε.
    pub smoothing: f32,
    /// 1 / samples of the whole step, over all its micro-batches.
    pub grad_scale: f32,
}

/// What a ring entry holds, by channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// The training loss.
    Train = 0,
    /// The global gradient norm (written by `norm_clip`).
    GradNorm = 1,
    /// The validation loss at the projected weights.
    Radius = 2,
    /// The loss scale, negative where the step was skipped; 0 without one (written by `loss_scale`).
    Scale = 3,
}

/// Values of a ring entry.
pub const CHANNELS: usize = 4;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    batch: u32,
    classes: u32,
    smoothing: f32,
    grad_scale: f32,
    channel: u32,
}

impl Dims {
    fn params(self, channel: Channel) -> Params {
        Params {
            batch: self.batch as u32,
            classes: self.classes as u32,
            smoothing: self.smoothing,
            grad_scale: self.grad_scale,
            channel: channel as u32,
        }
    }
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).with("WG", LANES)]
}

/// `loss` `[batch] = `, `dlogits` `[batch, classes] = ` from `logits` and `labels` (u32 `[batch]`).
pub fn forward(r: &mut Recorder, loss: &View, dlogits: &View, logits: &View, labels: &View, dims: Dims) -> Result<()> {
    check("cross_entropy", "loss", loss, dims.batch);
    check("cross_entropy", "dlogits", dlogits, dims.batch * dims.classes);
    check("cross_entropy", "logits", logits, dims.batch * dims.classes);
    check("cross_entropy", "labels", labels, dims.batch);
    let kernel = r.kernel(&SHADER, "forward", &[("WG", r.reduce_lanes() as f64)])?;
    let views = [("loss", loss), ("dlogits", dlogits), ("logits", logits), ("labels", labels)];
    r.push(&kernel, &views, &dims.params(Channel::Train), [dims.batch as u32, 1, 1]);
    Ok(())
}

/// As [`forward`], with `dlogits` multiplied by `scale[0]`, the first value of a [loss scale](crate::ops::loss_scale).
pub fn forward_scaled(
    r: &mut Recorder,
    loss: &View,
    dlogits: &View,
    logits: &View,
    labels: &View,
    scale: &View,
    dims: Dims,
) -> Result<()> {
    check("cross_entropy::forward_scaled", "dlogits", dlogits, dims.batch * dims.classes);
    check("cross_entropy::forward_scaled", "logits", logits, dims.batch * dims.classes);
    let kernel = r.kernel(&SHADER, "forward_scaled", &[("WG", r.reduce_lanes() as f64)])?;
    let views = [("loss", loss), ("dlogits", dlogits), ("logits", logits), ("labels", labels), ("loss_scale", scale)];
    r.push(&kernel, &views, &dims.params(Channel::Train), [dims.batch as u32, 1, 1]);
    Ok(())
}

/// As [`forward`], from `targets` (f32 `[batch, classes]`) in place of labels; `dims.smoothing` plays no part. With a `scale`,
/// `dlogits` are multiplied by its first value.
pub fn forward_targets(
    r: &mut Recorder,
    loss: &View,
    dlogits: &View,
    logits: &View,
    targets: &View,
    scale: Option<&View>,
    dims: Dims,
) -> Result<()> {
    check("cross_entropy::forward_targets", "loss", loss, dims.batch);
    for (name, view) in [("dlogits", dlogits), ("logits", logits), ("targets", targets)] {
        check("cross_entropy::forward_targets", name, view, dims.batch * dims.classes);
    }
    let entry = if scale.is_some() { "forward_targets_scaled" } else { "forward_targets" };
    let kernel = r.kernel(&SHADER, entry, &[("WG", r.reduce_lanes() as f64)])?;
    let mut views = vec![("loss", loss), ("dlogits", dlogits), ("logits", logits), ("targets", targets)];
    views.extend(scale.map(|scale| ("loss_scale", scale)));
    r.push(&kernel, &views, &dims.params(Channel::Train), [dims.batch as u32, 1, 1]);
    Ok(())
}

/// `ring[step.slot][channel] (+)= grad_scale · Σ loss`.
pub fn record(r: &mut Recorder, ring: &View, loss: &View, step: &View, channel: Channel, dims: Dims) -> Result<()> {
    check("cross_entropy::record", "loss", loss, dims.batch);
    let kernel = r.kernel(&SHADER, "record", &[("WG", r.reduce_lanes() as f64)])?;
    r.push(&kernel, &[("ring", ring), ("losses", loss), ("step", step)], &dims.params(channel), [1, 1, 1]);
    Ok(())
}
