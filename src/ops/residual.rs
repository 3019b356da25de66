//! Host wrapper of `shaders/residual.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::Elem;
use crate::ops::variants::{LANES, Variants};
use crate::ops::{ROWS_PER_CHUNK, Recorder, WG, check, column_sum};

static SHADER: Shader = shader!("residual", FOLD);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    chunk: u32,
}

fn params(rows: usize, cols: usize) -> Params {
    Params { rows: rows as u32, cols: cols as u32, chunk: ROWS_PER_CHUNK as u32 }
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(Elem::ALL.map(Elem::tail)).with("WG", LANES)]
}

/// Runs an elementwise entry, over what the first of the views holds.
fn run(r: &mut Recorder, entry: &str, views: &[(&str, &View)], rows: usize, cols: usize) -> Result<()> {
    let elem = Elem::of(cols, views[0].1.element);
    let params = |_| params(rows, cols / elem.width);
    r.push_spread((&SHADER, entry, &[], &elem.tail()), views, rows * cols, elem.width, params)
}

/// `out = inp + gamma·branch`, all `[rows, cols]`, all f32 or all f16; `gamma` (`[cols]`, f32) is the layer scale, if there is one.
pub fn forward(
    r: &mut Recorder,
    out: &View,
    inp: &View,
    branch: &View,
    gamma: Option<&View>,
    rows: usize,
    cols: usize,
) -> Result<()> {
    for (name, view) in [("out", out), ("inp", inp), ("branch", branch)] {
        check("residual", name, view, rows * cols);
        assert_eq!(view.element, out.element, "residual: {name} and out of one kind");
    }
    let mut views = vec![("out", out), ("inp", inp), ("branch", branch)];
    match gamma {
        Some(gamma) => {
            check("residual", "gamma", gamma, cols);
            views.push(("gamma", gamma));
            run(r, "forward_scaled", &views, rows, cols)
        }
        // Without columns to tell apart it is one row.
        None => run(r, "forward", &views, 1, rows * cols),
    }
}

/// `dbranch = gamma·dout`. Without a layer scale `dout` itself is the branch's gradient.
pub fn backward_input(
    r: &mut Recorder,
    dbranch: &View,
    dout: &View,
    gamma: &View,
    rows: usize,
    cols: usize,
) -> Result<()> {
    check("residual::backward_input", "dbranch", dbranch, rows * cols);
    check("residual::backward_input", "dout", dout, rows * cols);
    check("residual::backward_input", "gamma", gamma, cols);
    assert_eq!(dbranch.element, dout.element, "residual::backward_input: dbranch and dout of one kind");
    run(r, "backward_input", &[("dbranch", dbranch), ("dout", dout), ("gamma", gamma)], rows, cols)
}

/// `dgamma += Σ_rows dout·branch` (`[cols]`).
pub fn backward_params(
    r: &mut Recorder,
    dgamma: &View,
    dout: &View,
    branch: &View,
    rows: usize,
    cols: usize,
) -> Result<()> {
    check("residual::backward_params", "dgamma", dgamma, cols);
    check("residual::backward_params", "dout", dout, rows * cols);
    check("residual::backward_params", "branch", branch, rows * cols);
    assert_eq!(branch.element, dout.element, "residual::backward_params: branch and dout of one kind");
    let chunks = rows.div_ceil(ROWS_PER_CHUNK);
    let [partial, _] = r.scratch("residual::backward_params", chunks * cols);
    let elem = Elem::of(cols, dout.element);
    let kernel = r.kernel_with(&SHADER, "backward_params", &[], &elem.tail())?;
    let views = [("dgamma", &partial), ("dout", dout), ("branch", branch)];
    let grid = [(cols / elem.width).div_ceil(WG) as u32, chunks as u32, 1];
    r.push(&kernel, &views, &params(rows, cols / elem.width), grid);
    column_sum::add_rows(r, dgamma, &partial, chunks, cols)
}
