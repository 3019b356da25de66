//! Host wrapper of `shaders/gate.wgsl`.

use crate::error::Result;
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::{View, program::fold};
use crate::ops::columns::{self, Columns};
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::words::{all_elems, elems};
use crate::ops::{Recorder, check, flag};

pub use crate::cpu::gate::Kind;
pub use crate::ops::columns::Dims;

static SHADER: Shader = shader!("gate", FOLD, SEAT);

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    let formats = all_elems().into_iter().map(|(elem, element, wide)| elems(elem, element, wide));
    let of = Variants::of(&SHADER).append(formats).with("WG", LANES).with("HARD", FLAG);
    vec![of.with_in(&["forward", "backward"], "RELU", FLAG).with_in(&["forward"], "SHORTCUT", FLAG)]
}

/// Elements of scratch that the gradients need.
pub fn scratch_len(dims: Dims) -> usize {
    columns::scratch_len(dims, 1)
}

#[track_caller]
fn check_images(op: &str, views: &[(&str, &View)], scale: &View, dims: Dims) {
    for (name, view) in views {
        check(op, name, view, dims.len());
        assert_eq!(view.element, views[0].1.element, "{op}: {name} and {} of one kind", views[0].0);
    }
    check(op, "scale", scale, dims.batch * dims.cols);
}

fn hard(kind: Kind) -> (&'static str, f64) {
    ("HARD", flag(kind == Kind::HardSigmoid))
}

/// `out = inp·σ(scale)`, σ as `kind` says, plus `shortcut` if there is one, then with `relu` negative values become zero. Images are
/// `[batch, rows, cols]`, all f32 or all f16; `scale` is `[batch, cols]`, f32.
pub fn forward(
    r: &mut Recorder,
    out: &View,
    inp: &View,
    scale: &View,
    shortcut: Option<&View>,
    relu: bool,
    kind: Kind,
    dims: Dims,
) -> Result<()> {
    check_images("gate", &[("inp", inp), ("out", out), ("shortcut", shortcut.unwrap_or(inp))], scale, dims);
    let flags = [hard(kind), ("RELU", flag(relu)), ("SHORTCUT", flag(shortcut.is_some()))];
    let views = [("out", out), ("inp", inp), ("scale", scale), ("shortcut", shortcut.unwrap_or(inp))];
    Columns::in_words(r, dims, inp.element).walk(r, (&SHADER, "forward", &flags), &views)
}

/// `dinp = `, `dscale = `. With `out`, the saved output of a ReLU behind the gate, `dout` counts only where that is positive.
pub fn backward(
    r: &mut Recorder,
    dinp: &View,
    dscale: &View,
    dout: &View,
    out: Option<&View>,
    inp: &View,
    scale: &View,
    kind: Kind,
    dims: Dims,
) -> Result<()> {
    let op = "gate::backward";
    let images = [("dinp", dinp), ("dout", dout), ("out", out.unwrap_or(dout)), ("inp", inp)];
    check_images(op, &images, scale, dims);
    check(op, "dscale", dscale, dims.batch * dims.cols);
    let columns = Columns::in_words(r, dims, inp.element);
    let [partial] = r.scratch(op, columns.partial_len());
    let views = [
        ("dinp", dinp),
        ("partial", &partial),
        ("dout", dout),
        ("saved_out", out.unwrap_or(dout)),
        ("inp", inp),
        ("scale", scale),
    ];
    columns.walk(r, (&SHADER, "backward", &[hard(kind), ("RELU", flag(out.is_some()))]), &views)?;
    let kernel = columns.kernel(r, &SHADER, "finish", &[hard(kind)])?;
    let views = [("dscale", dscale), ("sums", &partial), ("saved_scale", scale)];
    let grid = fold((dims.batch * dims.cols).div_ceil(columns.lanes));
    r.push(&kernel, &views, &columns.params(1, 0.0), grid);
    Ok(())
}
