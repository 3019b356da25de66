//! Host wrapper of `shaders/group_norm.wgsl`.

use crate::error::Result;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::columns::{self, Columns};
use crate::ops::elem::Elem;
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::{Recorder, check, column_sum, flag};

static SHADER: Shader = shader!("group_norm", REDUCE, FOLD, SEAT);

/// Shape of a group norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Rows of an image: its pixels.
    pub rows: usize,
    /// Columns: channels.
    pub cols: usize,
    /// Groups of channels; a divisor of `cols`.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
}

/// What the entries are told that take one group each: `Group` of the shader.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Group {
    batch: u32,
    rows: u32,
    cols: u32,
    partials: u32,
    width: u32,
    eps: f32,
}

impl Dims {
    /// Elements of an image's statistics, all images together.
    pub fn statistics(self) -> usize {
        self.batch * self.cols
    }

    fn images(self) -> columns::Dims {
        columns::Dims { batch: self.batch, rows: self.rows, cols: self.cols }
    }

    fn group(self, columns: Columns) -> Group {
        let Dims { batch, rows, cols, groups, eps } = self;
        let partials = columns.partial_len() / (batch * cols);
        let [batch, rows, cols, partials, width] = [batch, rows, cols, partials, cols / groups].map(|n| n as u32);
        Group { batch, rows, cols, partials, width, eps }
    }
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    let of = Variants::of(&SHADER).append(Elem::ALL.map(Elem::tail)).with("WG", LANES);
    let of = of.with_in(&["forward", "products", "backward_input"], "RELU", FLAG);
    vec![of.with_in(&["finish"], "INVERT", FLAG)]
}

/// Elements of scratch that forward and the gradients need.
pub fn scratch_len(dims: Dims) -> usize {
    columns::scratch_len(dims.images(), 2)
}

#[track_caller]
fn check_all(op: &str, images: &[(&str, &View)], [mean, rstd]: [&View; 2], weight: &View, dims: Dims) {
    assert!(dims.groups > 0 && dims.cols.is_multiple_of(dims.groups), "{op}: {dims:?}");
    for (name, view) in images {
        check(op, name, view, dims.images().len());
        assert_eq!(view.element, images[0].1.element, "{op}: {name} and {} of one kind", images[0].0);
    }
    check(op, "mean", mean, dims.statistics());
    check(op, "rstd", rstd, dims.statistics());
    check(op, "weight", weight, dims.cols);
}

/// `out = (inp − mean)·rstd·weight + bias`, with `relu` negative values become zero; mean and variance are those of each group of
/// channels of each image. Images are `[batch, rows, cols]`, both f32 or both f16; `weight` and `bias` are `[cols]`. Saves `mean` and
/// `rstd` (`[batch, cols]`) for backward.
pub fn forward(
    r: &mut Recorder,
    out: &View,
    mean: &View,
    rstd: &View,
    inp: &View,
    weight: &View,
    bias: &View,
    relu: bool,
    dims: Dims,
) -> Result<()> {
    let op = "group_norm";
    check_all(op, &[("inp", inp), ("out", out)], [mean, rstd], weight, dims);
    check(op, "bias", bias, dims.cols);
    let columns = Columns::new(r, dims.images(), inp.element);
    let [partial] = r.scratch(op, columns.partial_len());
    columns.walk(r, (&SHADER, "sums", &[]), &[("inp", inp), ("partial", &partial)])?;
    let finish = |r: &mut Recorder, statistic: &View, invert: bool| -> Result<()> {
        let kernel = columns.kernel(r, &SHADER, "finish", &[("INVERT", flag(invert))])?;
        let views = [("parts", &partial), ("statistic", statistic)];
        r.push(&kernel, &views, &dims.group(columns), fold(dims.batch * dims.groups));
        Ok(())
    };
    finish(r, mean, false)?;
    columns.walk(r, (&SHADER, "squares", &[]), &[("inp", inp), ("saved_mean", mean), ("partial", &partial)])?;
    finish(r, rstd, true)?;
    let views =
        [("out", out), ("inp", inp), ("saved_mean", mean), ("saved_rstd", rstd), ("weight", weight), ("bias", bias)];
    columns.walk(r, (&SHADER, "forward", &[("RELU", flag(relu))]), &views)
}

/// `dinp = `, `dweight += `, `dbias += ` (`[cols]`). With `out`, the saved output of a ReLU behind the norm, `dout` counts only where
/// that is positive. `room` is scratch: twice `[batch, cols]` for the first, once for the others.
pub fn backward(
    r: &mut Recorder,
    dinp: &View,
    dweight: &View,
    dbias: &View,
    room: [&View; 3],
    dout: &View,
    out: Option<&View>,
    inp: &View,
    weight: &View,
    mean: &View,
    rstd: &View,
    dims: Dims,
) -> Result<()> {
    let op = "group_norm::backward";
    let images = [("dinp", dinp), ("dout", dout), ("out", out.unwrap_or(dout)), ("inp", inp)];
    check_all(op, &images, [mean, rstd], weight, dims);
    check(op, "dweight", dweight, dims.cols);
    check(op, "dbias", dbias, dims.cols);
    let [slope, weight_share, bias_share] = room;
    check(op, "slope", slope, 2 * dims.statistics());
    check(op, "weight share", weight_share, dims.statistics());
    check(op, "bias share", bias_share, dims.statistics());
    let columns = Columns::new(r, dims.images(), inp.element);
    let [partial] = r.scratch(op, 2 * columns.partial_len());
    let relu = [("RELU", flag(out.is_some()))];
    let saved = ("saved_out", out.unwrap_or(dout));
    let statistics = [("inp", inp), ("saved_mean", mean), ("saved_rstd", rstd), ("dout", dout)];
    let views = [&statistics[..], &[saved, ("partial", &partial)]].concat();
    columns.walk(r, (&SHADER, "products", &relu), &views)?;
    let kernel = columns.kernel(r, &SHADER, "finish_products", &[])?;
    let views = [
        ("parts", &partial),
        ("weight_of", weight),
        ("slope", slope),
        ("weight_share", weight_share),
        ("bias_share", bias_share),
    ];
    r.push(&kernel, &views, &dims.group(columns), fold(dims.batch * dims.groups));
    let views = [&statistics[..], &[saved, ("weight", weight), ("slope_of", slope), ("dinp", dinp)]].concat();
    columns.walk(r, (&SHADER, "backward_input", &relu), &views)?;
    column_sum::add_rows(r, dweight, weight_share, dims.batch, dims.cols)?;
    column_sum::add_rows(r, dbias, bias_share, dims.batch, dims.cols)
}
