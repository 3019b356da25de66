//! Host wrapper of `shaders/column_sum.wgsl`.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::shaders::{Shader, shader};
use crate::ops::elem::Elem;
use crate::ops::variants::Variants;
use crate::ops::{ROWS_PER_CHUNK, Recorder, WG, check};

static SHADER: Shader = shader!("column_sum");

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    rows: u32,
    cols: u32,
    chunk: u32,
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    vec![Variants::of(&SHADER).append(Elem::ALL.map(Elem::tail))]
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
    let elem = Elem::of(cols, inp.element);
    let kernel = r.kernel_with(&SHADER, "partial", &[], &elem.tail())?;
    let params = Params { rows: rows as u32, cols: (cols / elem.width) as u32, chunk: ROWS_PER_CHUNK as u32 };
    let grid = [(cols / elem.width).div_ceil(WG) as u32, chunks as u32, 1];
    r.push(&kernel, &[("inp", inp), ("out", &partial)], &params, grid);
    add_rows(r, out, &partial, chunks, cols)
}

/// The last stage: `out += ` the sum of a few rows.
pub(super) fn add_rows(r: &mut Recorder, out: &View, inp: &View, rows: usize, cols: usize) -> Result<()> {
    let elem = Elem::of(cols, inp.element);
    let kernel = r.kernel_with(&SHADER, "forward", &[], &elem.tail())?;
    let params = Params { rows: rows as u32, cols: (cols / elem.width) as u32, chunk: rows as u32 };
    r.push(&kernel, &[("inp", inp), ("out", out)], &params, [(cols / elem.width).div_ceil(WG) as u32, 1, 1]);
    Ok(())
}

/// The reverse: `out` `[rows, cols] = ` the row `inp` `[cols]`, again and again.
pub fn spread(r: &mut Recorder, out: &View, inp: &View, rows: usize, cols: usize) -> Result<()> {
    check("column_sum::spread", "out", out, rows * cols);
    check("column_sum::spread", "inp", inp, cols);
    let elem = Elem::of(cols, inp.element);
    let kernel = r.kernel_with(&SHADER, "spread", &[], &elem.tail())?;
    let params = Params { rows: rows as u32, cols: (cols / elem.width) as u32, chunk: rows as u32 };
    let grid = [(cols / elem.width).div_ceil(WG) as u32, rows as u32, 1];
    r.push(&kernel, &[("inp", inp), ("out", out)], &params, grid);
    Ok(())
}
