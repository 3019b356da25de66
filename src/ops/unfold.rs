//! Host wrapper of `shaders/unfold.wgsl` and `unfold_quads.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::stored;
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::words::fours;
use crate::ops::{Recorder, check, flag};

pub use crate::cpu::unfold::Dims;

static SHADER: Shader = shader!("unfold");
static QUADS: Shader = shader!("unfold_quads");

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
    channels: u32,
    pitch: u32,
    kernel: u32,
    stride: u32,
    above: u32,
    left: u32,
}

fn tail(image: Element, unfolded: Element) -> String {
    format!("{}alias unfolded = {};\n", stored(image), unfolded.scalar())
}

/// Every variant that this file records: both f32 or both f16, or f16 images as f32 rows.
pub fn variants() -> Vec<Variants> {
    use Element::{Half, Word};
    let kinds = [(Word, Word), (Half, Word), (Half, Half)];
    let quads = kinds.into_iter().chain([(Word, Half)]);
    let quads = quads.flat_map(|(from, to)| [false, true].map(|wide| fours(from, to, wide)));
    let of = |shader| Variants::of(shader).with("WG", LANES).with_in(&["backward"], "ACCUMULATE", FLAG);
    vec![of(&SHADER).append(kinds.map(|(image, rows)| tail(image, rows))), of(&QUADS).append(quads)]
}

/// Whether a lane can own a window's pixels of four channels.
fn in_quads(dims: Dims, pitch: usize) -> bool {
    let whole = dims.kernel == 2 && dims.stride == 2 && dims.before() == [0, 0];
    let inside = 2 * dims.out_height() <= dims.height && 2 * dims.out_width() <= dims.width;
    whole && inside && pitch == dims.channels && pitch.is_multiple_of(4)
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct QuadParams {
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
    cols: u32,
}

/// An entry over `across` × `down` windows; it reads the second view and writes the first.
fn run_quads(
    r: &mut Recorder,
    (entry, own): (&str, &[(&str, f64)]),
    views: [(&str, &View); 2],
    [across, down]: [usize; 2],
    dims: Dims,
) -> Result<()> {
    let lanes = r.reduce_lanes();
    let constants = [&[("WG", lanes as f64)], own].concat();
    let tail = fours(views[1].1.element, views[0].1.element, r.wide_words);
    let kernel = r.kernel_with(&QUADS, entry, &constants, &tail)?;
    let cols = dims.channels / 4;
    let params = QuadParams {
        height: dims.height as u32,
        width: dims.width as u32,
        out_height: dims.out_height() as u32,
        out_width: dims.out_width() as u32,
        cols: cols as u32,
    };
    r.push(&kernel, &views, &params, [(cols * across).div_ceil(lanes) as u32, down as u32, dims.batch as u32]);
    Ok(())
}

fn run(
    r: &mut Recorder,
    (entry, own): (&str, &[(&str, f64)]),
    views: &[(&str, &View)],
    [image, rows]: [&View; 2],
    [width, height]: [usize; 2],
    pitch: usize,
    dims: Dims,
) -> Result<()> {
    let lanes = r.reduce_lanes();
    let constants = [&[("WG", lanes as f64)], own].concat();
    let kernel = r.kernel_with(&SHADER, entry, &constants, &tail(image.element, rows.element))?;
    let [above, left] = dims.before();
    let params = Params {
        height: dims.height as u32,
        width: dims.width as u32,
        out_height: dims.out_height() as u32,
        out_width: dims.out_width() as u32,
        channels: dims.channels as u32,
        pitch: pitch as u32,
        kernel: dims.kernel as u32,
        stride: dims.stride as u32,
        above: above as u32,
        left: left as u32,
    };
    let groups = (dims.channels * width).div_ceil(lanes);
    r.push(&kernel, views, &params, [groups as u32, height as u32, dims.batch as u32]);
    Ok(())
}

/// `out` `[B, H', W', C·k²] = ` the windows of `inp` `[B, H, W, C]`, whose pixels may be stored padded to more channels. Either is
/// f32 or f16; f16 rows are of f16 images.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, dims: Dims) -> Result<()> {
    check("unfold", "out", out, dims.out_len());
    let pixels = dims.batch * dims.height * dims.width;
    let pitch = inp.len / pixels.max(1);
    assert!(inp.len == pixels * pitch && pitch >= dims.channels, "unfold: inp has {} elements for {dims:?}", inp.len);
    let size = [dims.out_width(), dims.out_height()];
    if in_quads(dims, pitch) {
        return run_quads(r, ("forward", &[]), [("out", out), ("inp", inp)], size, dims);
    }
    run(r, ("forward", &[]), &[("out", out), ("inp", inp)], [inp, out], size, pitch, dims)
}

/// `dinp` `[B, H, W, C] = `, or `+= ` with `accumulate`, each pixel's sum over the windows that hold it. Shapes as in [`forward`].
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, dims: Dims, accumulate: bool) -> Result<()> {
    check("unfold::backward", "dout", dout, dims.out_len());
    check("unfold::backward", "dinp", dinp, dims.in_len());
    let own = [("ACCUMULATE", flag(accumulate))];
    let views = [("dinp", dinp), ("dout", dout)];
    if in_quads(dims, dims.channels) {
        let pairs = [dims.width.div_ceil(2), dims.height.div_ceil(2)];
        return run_quads(r, ("backward", &own), views, pairs, dims);
    }
    run(r, ("backward", &own), &views, [dinp, dout], [dims.width, dims.height], dims.channels, dims)
}
