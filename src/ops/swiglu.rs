//! Host wrapper of `shaders/swiglu.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::Elem;
use crate::ops::variants::{FLAG, LANES, Variants};
use crate::ops::{Recorder, check, flag};

pub use crate::cpu::swiglu::Gate;

static SHADER: Shader = shader!("swiglu", FOLD);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    len: u32,
    cols: u32,
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    let of = Variants::of(&SHADER).append(Elem::ALL.map(Elem::tail)).with("WG", LANES);
    vec![of.with_in(&["forward_pair", "backward_pair"], "PLAIN", FLAG)]
}

fn run(
    r: &mut Recorder,
    (entry, constants): (&str, &[(&str, f64)]),
    views: &[(&str, &View)],
    rows: usize,
    cols: usize,
) -> Result<()> {
    let element = views[0].1.element;
    for (name, view) in views {
        assert_eq!(view.element, element, "swiglu: {name} holds other elements than {}", views[0].0);
    }
    let elem = Elem::of(cols, element);
    let params = |len| Params { len, cols: (cols / elem.width) as u32 };
    r.push_spread((&SHADER, entry, constants, &elem.tail()), views, rows * cols, elem.width, params)
}

/// `out = a·σ(a)·b` where a row of `inp` `[rows, 2·cols]` is a, then b; `out` `[rows, cols]`. Both f32, or both f16.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, rows: usize, cols: usize) -> Result<()> {
    check("swiglu", "out", out, rows * cols);
    check("swiglu", "inp", inp, 2 * rows * cols);
    run(r, ("forward", &[]), &[("out", out), ("inp", inp)], rows, cols)
}

/// `dinp = ` `[rows, 2·cols]` from `dout` `[rows, cols]` and forward's `inp`; all f32, or all f16.
pub fn backward(r: &mut Recorder, dinp: &View, dout: &View, inp: &View, rows: usize, cols: usize) -> Result<()> {
    check("swiglu::backward", "dinp", dinp, 2 * rows * cols);
    check("swiglu::backward", "dout", dout, rows * cols);
    check("swiglu::backward", "inp", inp, 2 * rows * cols);
    run(r, ("backward", &[]), &[("dinp", dinp), ("dout", dout), ("inp", inp)], rows, cols)
}

/// As [`forward`], of a and b as tensors of their own, `gate` and `value` `[rows, cols]`; gated as `by` says.
pub fn forward_pair(
    r: &mut Recorder,
    out: &View,
    gate: &View,
    value: &View,
    by: Gate,
    rows: usize,
    cols: usize,
) -> Result<()> {
    let views = [("out", out), ("gate", gate), ("value", value)];
    views.iter().for_each(|(name, view)| check("swiglu::forward_pair", name, view, rows * cols));
    run(r, ("forward_pair", &plain(by)), &views, rows, cols)
}

/// `dgate = `, `dvalue = ` from `dout` and what [`forward_pair`] read; all `[rows, cols]`, f32 or f16.
pub fn backward_pair(
    r: &mut Recorder,
    dgate: &View,
    dvalue: &View,
    dout: &View,
    gate: &View,
    value: &View,
    by: Gate,
    rows: usize,
    cols: usize,
) -> Result<()> {
    let views = [("dgate", dgate), ("dvalue", dvalue), ("dout", dout), ("gate", gate), ("value", value)];
    views.iter().for_each(|(name, view)| check("swiglu::backward_pair", name, view, rows * cols));
    run(r, ("backward_pair", &plain(by)), &views, rows, cols)
}

fn plain(by: Gate) -> [(&'static str, f64); 1] {
    [("PLAIN", flag(by == Gate::Plain))]
}
