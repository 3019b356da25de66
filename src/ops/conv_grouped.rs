//! Kernels of `shaders/conv2d_grouped.wgsl`, for groups of several fours of channels; [`conv2d`](super::conv2d) records them.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::Kernel;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::{FORMATS, stored};
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::words::fours;
use crate::ops::{Recorder, flag};

static SHADER: Shader = shader!("conv2d_grouped", PIXELS);

/// Pixels that a lane has, of four channels.
pub(super) const PIXELS: usize = 8;

fn tail(element: Element, wide: bool) -> String {
    fours(element, element, wide) + &stored(element)
}

/// Every variant.
pub(super) fn variants() -> Variants {
    Variants::of(&SHADER)
        .append(FORMATS.into_iter().flat_map(|element| [false, true].map(|wide| tail(element, wide))))
        .with("WG", LANES)
        .with_in(&["pack"], "TRANSPOSED", FLAG)
        .with_in(&["backward_input"], "ACCUMULATE", FLAG)
        .with_in(&["forward", "backward_input"], "ALONG", FLAG)
}

/// A kernel, and how many lanes its workgroups have.
pub(super) fn kernel(
    r: &Recorder,
    entry: &str,
    own: &[(&str, bool)],
    element: Element,
) -> Result<(Arc<Kernel>, usize)> {
    let lanes = r.reduce_lanes();
    let mut constants: Vec<(&str, f64)> = own.iter().map(|(name, on)| (*name, flag(*on))).collect();
    constants.push(("WG", lanes as f64));
    let tail = tail(element, r.for_cpu && r.wide_words);
    Ok((r.kernel_with(&SHADER, entry, &constants, &tail)?, lanes))
}
