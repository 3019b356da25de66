//! Host wrapper of `shaders/column_sum.wgsl`.

use crate::error::Result;
use crate::gpu::{View, shaders};
use crate::ops::{ROWS_PER_CHUNK, Recorder, WG, check, elem, stored};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    chunk: u32,
}

/// `out[c] += Σ_r inp[r, c]`: `inp` `[rows, cols]`, of f32 or f16, `out` `[cols]`.
pub fn forward(r: &mut Recorder, out: &View, inp: &View, rows: usize, cols: usize) -> Result<()> {
    check("column_sum", "out", out, cols);
    check("column_sum", "inp", inp, rows * cols);
    if rows <= 2 * ROWS_PER_CHUNK {
        return add_rows(r, out, inp, rows, cols);
    }
    let chunks = rows.div_ceil(ROWS_PER_CHUNK);
    let [partial, _] = r.scratch("column_sum", chunks * cols);
    let (width, alias) = elem(cols);
    let tail = alias.to_string() + stored(inp.element, width);
    let kernel = r.gpu.kernel(&shaders::COLUMN_SUM, "partial", &[], &tail)?;
    let params = Params { rows: rows as u32, cols: (cols / width) as u32, chunk: ROWS_PER_CHUNK as u32 };
    let grid = [(cols / width).div_ceil(WG) as u32, chunks as u32, 1];
    r.push(&kernel, &[("inp", inp), ("out", &partial)], &params, grid);
    add_rows(r, out, &partial, chunks, cols)
}

/// The last stage: `out += ` the sum of a few rows.
pub(super) fn add_rows(r: &mut Recorder, out: &View, inp: &View, rows: usize, cols: usize) -> Result<()> {
    let (width, alias) = elem(cols);
    let tail = alias.to_string() + stored(inp.element, width);
    let kernel = r.gpu.kernel(&shaders::COLUMN_SUM, "forward", &[], &tail)?;
    let params = Params { rows: rows as u32, cols: (cols / width) as u32, chunk: rows as u32 };
    r.push(&kernel, &[("inp", inp), ("out", out)], &params, [(cols / width).div_ceil(WG) as u32, 1, 1]);
    Ok(())
}

/// The reverse: `out` `[rows, cols] = ` the row `inp` `[cols]`, again and again.
pub fn spread(r: &mut Recorder, out: &View, inp: &View, rows: usize, cols: usize) -> Result<()> {
    check("column_sum::spread", "out", out, rows * cols);
    check("column_sum::spread", "inp", inp, cols);
    let (width, alias) = elem(cols);
    let tail = alias.to_string() + stored(inp.element, width);
    let kernel = r.gpu.kernel(&shaders::COLUMN_SUM, "spread", &[], &tail)?;
    let params = Params { rows: rows as u32, cols: (cols / width) as u32, chunk: rows as u32 };
    let grid = [(cols / width).div_ceil(WG) as u32, rows as u32, 1];
    r.push(&kernel, &[("inp", inp), ("out", out)], &params, grid);
    Ok(())
}
