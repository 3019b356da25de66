//! Host wrapper of `shaders/residual.wgsl`.

use crate::error::Result;
use crate::gpu::{View, shaders};
use crate::ops::{ROWS_PER_CHUNK, Recorder, WG, check, column_sum, elementwise};

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

/// `out = inp + gamma·branch`, all `[rows, cols]`; `gamma` (`[cols]`) is the layer scale, where there is one.
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
    }
    let mut views = vec![("out", out), ("inp", inp), ("branch", branch)];
    let entry = match gamma {
        Some(gamma) => {
            check("residual", "gamma", gamma, cols);
            views.push(("gamma", gamma));
            "forward_scaled"
        }
        None => "forward",
    };
    let kernel = r.kernel(&shaders::RESIDUAL, entry, &[])?;
    r.push(&kernel, &views, &params(rows, cols), elementwise(rows * cols));
    Ok(())
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
    let kernel = r.kernel(&shaders::RESIDUAL, "backward_input", &[])?;
    let views = [("dbranch", dbranch), ("dout", dout), ("gamma", gamma)];
    r.push(&kernel, &views, &params(rows, cols), elementwise(rows * cols));
    Ok(())
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
    let chunks = rows.div_ceil(ROWS_PER_CHUNK);
    let [partial, _] = r.scratch("residual::backward_params", chunks * cols);
    let kernel = r.kernel(&shaders::RESIDUAL, "backward_params", &[])?;
    let views = [("dgamma", &partial), ("dout", dout), ("branch", branch)];
    r.push(&kernel, &views, &params(rows, cols), [cols.div_ceil(WG) as u32, chunks as u32, 1]);
    column_sum::add_rows(r, dgamma, &partial, chunks, cols)
}
