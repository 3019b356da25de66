//! Host wrapper of `shaders/layer_norm.wgsl`.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::elem::{Elem, FORMATS};
use crate::ops::variants::{FLAG, Variants};
use crate::ops::{ROWS_PER_CHUNK, Recorder, WG, check, column_sum, flag};

static SHADER: Shader = shader!("layer_norm", REDUCE, FOLD);

/// Shape of a layer norm: statistics over `cols`, for each of `rows`.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Added to the variance.
    pub eps: f32,
}

/// For the shaders.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    rows: u32,
    cols: u32,
    eps: f32,
    chunk: u32,
}

pub(super) fn params(dims: Dims) -> Params {
    let cols = dims.cols / Elem::of(dims.cols, Element::Word).width;
    Params { rows: dims.rows as u32, cols: cols as u32, eps: dims.eps, chunk: ROWS_PER_CHUNK as u32 }
}

/// For rows of `cols` whose norm reads `inp` and writes `out`, or the gradients of both.
pub(super) fn tail(cols: usize, inp: Element, out: Element) -> String {
    let elem = Elem::of(cols, out);
    elem.tail() + &Elem::of(cols, inp).held("taken") + &elem.total()
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(tails()).with("ACCUMULATE", FLAG)]
}

/// All that is appended.
pub(super) fn tails() -> Vec<String> {
    let of_width = |cols| FORMATS.into_iter().flat_map(move |inp| FORMATS.map(|out| tail(cols, inp, out)));
    [4, 1].into_iter().flat_map(of_width).collect()
}

/// The entry point and grid: one lane per row on a CPU, one workgroup per row on a GPU.
pub(super) fn variant(r: &Recorder, entry: &str, rows: usize) -> (String, [u32; 3]) {
    if r.for_cpu { (entry.to_string(), fold(rows.div_ceil(WG))) } else { (format!("{entry}_rows"), fold(rows)) }
}

/// `out = (inp − mean)·rstd·weight + bias` over rows, from f32 or f16 as f32 or f16; saves `mean` and `rstd` (`[rows]`)
/// for backward.
pub fn forward(
    r: &mut Recorder,
    out: &View,
    mean: &View,
    rstd: &View,
    inp: &View,
    weight: &View,
    bias: &View,
    dims: Dims,
) -> Result<()> {
    let Dims { rows, cols, .. } = dims;
    let lengths = [("out", out, rows * cols), ("mean", mean, rows), ("rstd", rstd, rows), ("inp", inp, rows * cols)];
    for (name, view, len) in lengths.into_iter().chain([("weight", weight, cols), ("bias", bias, cols)]) {
        check("layer_norm", name, view, len);
    }
    let (entry, grid) = variant(r, "forward", rows);
    let kernel = r.kernel_with(&SHADER, &entry, &[], &tail(cols, inp.element, out.element))?;
    let views = [("out", out), ("mean", mean), ("rstd", rstd), ("inp", inp), ("weight", weight), ("bias", bias)];
    r.push(&kernel, &views, &params(dims), grid);
    Ok(())
}

/// `dinp = ` the gradient through the norm; with `accumulate` it is added, as the residual stream needs it. `dinp`
/// and `inp` are f32, or both f16; so is `dout`.
pub fn backward_input(
    r: &mut Recorder,
    dinp: &View,
    dout: &View,
    inp: &View,
    weight: &View,
    mean: &View,
    rstd: &View,
    dims: Dims,
    accumulate: bool,
) -> Result<()> {
    let Dims { rows, cols, .. } = dims;
    let lengths = [("dinp", dinp, rows * cols), ("dout", dout, rows * cols), ("inp", inp, rows * cols)];
    for (name, view, len) in lengths.into_iter().chain([("weight", weight, cols), ("mean", mean, rows)]) {
        check("layer_norm::backward_input", name, view, len);
    }
    let (entry, grid) = variant(r, "backward_input", rows);
    let constants = [("ACCUMULATE", flag(accumulate))];
    let kernel = r.kernel_with(&SHADER, &entry, &constants, &tail(cols, inp.element, dout.element))?;
    let views =
        [("dinp", dinp), ("dout", dout), ("inp", inp), ("weight", weight), ("saved_mean", mean), ("saved_rstd", rstd)];
    r.push(&kernel, &views, &params(dims), grid);
    Ok(())
}

/// `dweight += `, `dbias += ` (`[cols]`).
pub fn backward_params(
    r: &mut Recorder,
    dweight: &View,
    dbias: &View,
    dout: &View,
    inp: &View,
    mean: &View,
    rstd: &View,
    dims: Dims,
) -> Result<()> {
    let Dims { rows, cols, .. } = dims;
    check("layer_norm::backward_params", "dweight", dweight, cols);
    check("layer_norm::backward_params", "dbias", dbias, cols);
    let chunks = rows.div_ceil(ROWS_PER_CHUNK);
    let [partial_weight, partial_bias] = r.scratch("layer_norm::backward_params", chunks * cols);
    let kernel = r.kernel_with(&SHADER, "backward_params", &[], &tail(cols, inp.element, dout.element))?;
    let views = [
        ("dweight", &partial_weight),
        ("dbias", &partial_bias),
        ("dout", dout),
        ("inp", inp),
        ("saved_mean", mean),
        ("saved_rstd", rstd),
    ];
    r.push(
        &kernel,
        &views,
        &params(dims),
        [(cols / Elem::of(cols, dout.element).width).div_ceil(WG) as u32, chunks as u32, 1],
    );
    column_sum::add_rows(r, dweight, &partial_weight, chunks, cols)?;
    column_sum::add_rows(r, dbias, &partial_bias, chunks, cols)
}
