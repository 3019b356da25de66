//! Host wrapper of `shaders/rms_norm.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::Element;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::Elem;
use crate::ops::layer_norm::{self, Dims};
use crate::ops::variants::{FLAG, Variants};
use crate::ops::{ROWS_PER_CHUNK, Recorder, WG, check, column_sum, flag};

static SHADER: Shader = shader!("rms_norm", REDUCE, FOLD);

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(layer_norm::tails()).with("ACCUMULATE", FLAG)]
}

/// `out = inp·rstd·weight` over rows, from f32 or f16 as f32 or f16; saves `rstd` (`[rows]`) for backward.
pub fn forward(r: &mut Recorder, out: &View, rstd: &View, inp: &View, weight: &View, dims: Dims) -> Result<()> {
    let Dims { rows, cols, .. } = dims;
    let lengths =
        [("out", out, rows * cols), ("rstd", rstd, rows), ("inp", inp, rows * cols), ("weight", weight, cols)];
    lengths.into_iter().for_each(|(name, view, len)| check("rms_norm", name, view, len));
    let (entry, grid) = layer_norm::variant(r, "forward", rows);
    let kernel = r.kernel_with(&SHADER, &entry, &[], &layer_norm::tail(cols, inp.element, out.element))?;
    let views = [("out", out), ("rstd", rstd), ("inp", inp), ("weight", weight)];
    r.push(&kernel, &views, &layer_norm::params(dims), grid);
    Ok(())
}

/// `dinp = ` the gradient through the norm; with `accumulate` it is added, as the residual stream needs it. `dinp` and `inp` are
/// f32, or both f16; so is `dout`.
pub fn backward_input(
    r: &mut Recorder,
    dinp: &View,
    dout: &View,
    inp: &View,
    weight: &View,
    rstd: &View,
    dims: Dims,
    accumulate: bool,
) -> Result<()> {
    let Dims { rows, cols, .. } = dims;
    let lengths = [("dinp", dinp, rows * cols), ("dout", dout, rows * cols), ("inp", inp, rows * cols)];
    for (name, view, len) in lengths.into_iter().chain([("weight", weight, cols), ("rstd", rstd, rows)]) {
        check("rms_norm::backward_input", name, view, len);
    }
    let (entry, grid) = layer_norm::variant(r, "backward_input", rows);
    let constants = [("ACCUMULATE", flag(accumulate))];
    let kernel = r.kernel_with(&SHADER, &entry, &constants, &layer_norm::tail(cols, inp.element, dout.element))?;
    let views = [("dinp", dinp), ("dout", dout), ("inp", inp), ("weight", weight), ("saved_rstd", rstd)];
    r.push(&kernel, &views, &layer_norm::params(dims), grid);
    Ok(())
}

/// `dweight += ` (`[cols]`).
pub fn backward_params(
    r: &mut Recorder,
    dweight: &View,
    dout: &View,
    inp: &View,
    rstd: &View,
    dims: Dims,
) -> Result<()> {
    let Dims { rows, cols, .. } = dims;
    check("rms_norm::backward_params", "dweight", dweight, cols);
    let chunks = rows.div_ceil(ROWS_PER_CHUNK);
    let [partial] = r.scratch("rms_norm::backward_params", chunks * cols);
    let kernel = r.kernel_with(&SHADER, "backward_params", &[], &layer_norm::tail(cols, inp.element, dout.element))?;
    let views = [("dweight", &partial), ("dout", dout), ("inp", inp), ("saved_rstd", rstd)];
    let width = Elem::of(cols, Element::Word).width;
    r.push(&kernel, &views, &layer_norm::params(dims), [(cols / width).div_ceil(WG) as u32, chunks as u32, 1]);
    column_sum::add_rows(r, dweight, &partial, chunks, cols)
}
