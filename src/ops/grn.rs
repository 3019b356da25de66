//! Host wrapper of `shaders/grn.wgsl`.

use crate::error::Result;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::columns::{self, Columns};
use crate::ops::elem::Elem;
use crate::ops::variants::{LANES, Variants};
use crate::ops::{Recorder, check, column_sum};

pub use crate::ops::columns::Dims;

static SHADER: Shader = shader!("grn", REDUCE, FOLD, SEAT);

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(Elem::ALL.map(Elem::tail)).with("WG", LANES)]
}

/// Elements of scratch that forward and the gradients need.
pub fn scratch_len(dims: Dims) -> usize {
    columns::scratch_len(dims, 2)
}

#[track_caller]
fn check_all(op: &str, images: &[(&str, &View)], norm: &View, inverse: &View, weight: &View, dims: Dims) {
    for (name, view) in images {
        check(op, name, view, dims.len());
        assert_eq!(view.element, images[0].1.element, "{op}: {name} and {} of one kind", images[0].0);
    }
    check(op, "norm", norm, dims.batch * dims.cols);
    check(op, "inverse", inverse, dims.batch);
    check(op, "weight", weight, dims.cols);
}

/// `out = inp·(1 + weight·norm/(mean norm + eps)) + bias`, where `norm` is that of each channel of each image. Images are
/// `[batch, rows, cols]`, both f32 or both f16; `weight` and `bias` are `[cols]`. Saves `norm` (`[batch, cols]`) and `inverse`
/// (`[batch]`) for backward.
pub fn forward(
    r: &mut Recorder,
    out: &View,
    norm: &View,
    inverse: &View,
    inp: &View,
    weight: &View,
    bias: &View,
    eps: f32,
    dims: Dims,
) -> Result<()> {
    let op = "grn";
    check_all(op, &[("inp", inp), ("out", out)], norm, inverse, weight, dims);
    check(op, "bias", bias, dims.cols);
    let columns = Columns::new(r, dims, inp.element);
    let [partial] = r.scratch(op, columns.partial_len());
    columns.walk(r, (&SHADER, "squares", &[]), &[("inp", inp), ("partial", &partial)])?;
    let kernel = columns.kernel(r, &SHADER, "finish_norms", &[])?;
    let views = [("sums", &partial), ("norm", norm), ("inverse", inverse)];
    r.push(&kernel, &views, &columns.params(1, eps), fold(dims.batch));
    let views = [
        ("out", out),
        ("inp", inp),
        ("saved_norm", norm),
        ("saved_inverse", inverse),
        ("weight", weight),
        ("bias", bias),
    ];
    columns.walk(r, (&SHADER, "forward", &[]), &views)
}

/// `dinp = `, `dweight += `, `dbias += ` (`[cols]`). `room`, three times `[batch, cols]`, is
/// scratch.
pub fn backward(
    r: &mut Recorder,
    dinp: &View,
    dweight: &View,
    dbias: &View,
    room: [&View; 3],
    dout: &View,
    inp: &View,
    weight: &View,
    norm: &View,
    inverse: &View,
    dims: Dims,
) -> Result<()> {
    let op = "grn::backward";
    check_all(op, &[("inp", inp), ("dinp", dinp), ("dout", dout)], norm, inverse, weight, dims);
    let all = dims.batch * dims.cols;
    check(op, "dweight", dweight, dims.cols);
    check(op, "dbias", dbias, dims.cols);
    room.iter().for_each(|view| check(op, "room", view, all));
    let [slope, weight_share, bias_share] = room;
    let columns = Columns::new(r, dims, inp.element);
    let [partial] = r.scratch(op, 2 * columns.partial_len());
    columns.walk(r, (&SHADER, "products", &[]), &[("dout", dout), ("inp", inp), ("partial", &partial)])?;
    let kernel = columns.kernel(r, &SHADER, "finish_products", &[])?;
    let views = [
        ("sums", &partial),
        ("norm_of", norm),
        ("inverse_of", inverse),
        ("weight_of", weight),
        ("slope", slope),
        ("weight_share", weight_share),
        ("bias_share", bias_share),
    ];
    r.push(&kernel, &views, &columns.params(1, 0.0), fold(dims.batch));
    let views = [
        ("dinp", dinp),
        ("dout_of", dout),
        ("inp", inp),
        ("saved_norm", norm),
        ("saved_inverse", inverse),
        ("weight", weight),
        ("slope_of", slope),
    ];
    columns.walk(r, (&SHADER, "backward_input", &[]), &views)?;
    column_sum::add_rows(r, dweight, weight_share, dims.batch, dims.cols)?;
    column_sum::add_rows(r, dbias, bias_share, dims.batch, dims.cols)
}
