//! Host wrapper of `shaders/sam.wgsl`: the weights at which a sharpness-aware step takes its gradient.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::{Recorder, check, flag, norm_clip};
use crate::shapes::Segment;

static SHADER: Shader = shader!("sam", REDUCE, FOLD);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    rho: f32,
}

/// Every variant that [`climb`] records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).with("WG", LANES).with_in(&["climb"], "CLIMBS", FLAG)]
}

/// `climbed = ` the arena `w`, and in the `trained` segments the point `rho` up the slope of its gradient `dw`; the others are
/// `still`. `partials` ([`norm_clip::partials_len`] of the trained ones) and `factor` (one word) are scratch.
pub fn climb(
    r: &mut Recorder,
    climbed: &View,
    w: &View,
    dw: &View,
    (partials, factor): (&View, &View),
    (trained, still): (&[Segment], &[Segment]),
    rho: f32,
) -> Result<()> {
    check("sam", "climbed", climbed, w.len);
    check("sam", "factor", factor, 1);
    let count = norm_clip::squares(r, dw, partials, trained)?;
    let measure = r.kernel(&SHADER, "measure", &[("WG", r.reduce_lanes() as f64)])?;
    r.push(&measure, &[("sums", partials), ("factor", factor)], &Params { len: count, rho }, [1, 1, 1]);
    let arenas = [("climbed", climbed), ("w", w), ("dw", dw)];
    for (segments, climbs) in [(trained, true), (still, false)] {
        let own = [("CLIMBS", flag(climbs))];
        r.push_segments((&SHADER, "climb", &own), &arenas, &[("measured", factor)], segments, |len| Params {
            len,
            rho,
        })?;
    }
    Ok(())
}
