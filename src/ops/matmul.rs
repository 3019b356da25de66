//! Host wrapper of `shaders/matmul.wgsl` and `shaders/matmul_direct.wgsl`: one product, three layouts.

use crate::error::Result;
use crate::gpu::{View, shaders};
use crate::ops::{Recorder, check, rows};

/// Side of the tiled kernel's tile, in both directions.
const TILE: usize = 64;
/// Columns of the direct kernel's tile.
const DIRECT_COLS: usize = 32;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    m: u32,
    n: u32,
    k: u32,
}

/// A product's shape: `out` is `[m, n]`, the sum runs over `k`.
#[derive(Clone, Copy)]
struct Dims {
    m: usize,
    n: usize,
    k: usize,
}

/// The product in as many dispatches as its work asks for. Parts of the rows of `out` give the same bits as the whole; a
/// weight's gradient is cut along its sum, and its parts add up.
fn run(
    r: &mut Recorder,
    entry: &str,
    out: &View,
    [a, b]: [&View; 2],
    bias: Option<&View>,
    accumulate: bool,
    dims: Dims,
) -> Result<()> {
    let Dims { m, n, k } = dims;
    let along_sum = entry == "backward_weight";
    let (count, strides) = if along_sum { (k, [m, n]) } else { (m, [k, n]) };
    let parts = r.parts(count, 2 * (m * n * k / count) as u64, &strides);
    for part in parts {
        let len = part.len();
        if along_sum {
            let (a, b) = (rows(a, &part, m), rows(b, &part, n));
            dispatch(r, entry, out, [&a, &b], bias, accumulate, Dims { k: len, ..dims })?;
        } else {
            let (out, a) = (rows(out, &part, n), rows(a, &part, k));
            dispatch(r, entry, &out, [&a, b], bias, accumulate, Dims { m: len, ..dims })?;
        }
    }
    Ok(())
}

fn dispatch(
    r: &mut Recorder,
    entry: &str,
    out: &View,
    [a, b]: [&View; 2],
    bias: Option<&View>,
    accumulate: bool,
    dims: Dims,
) -> Result<()> {
    let Dims { m, n, k } = dims;
    // Vector loads run along the operands' rows: k and n long, or m and n where a is read across.
    let vec4 = n.is_multiple_of(4) && if entry == "backward_weight" { m } else { k }.is_multiple_of(4);
    let entry = if vec4 { format!("{entry}_vec4") } else { entry.to_string() };
    let mut constants =
        vec![("ACCUMULATE", f64::from(u8::from(accumulate))), ("HAS_BIAS", f64::from(u8::from(bias.is_some())))];
    let (shader, grid) = if r.for_cpu && r.gpu.has_wide_subgroups() {
        // A tall tile is faster where it divides m, and wasteful where m barely passes a multiple of it.
        let tile = if m % 64 == 0 || m > 512 { 64 } else { 32 };
        constants.push(("ROWS", tile as f64));
        (&shaders::MATMUL_DIRECT, [n.div_ceil(DIRECT_COLS), m.div_ceil(tile)])
    } else {
        (&shaders::MATMUL, [n.div_ceil(TILE), m.div_ceil(TILE)])
    };
    let kernel = r.kernel(shader, &entry, &constants)?;
    // The shader sees one buffer as scalars or as vectors, under two names; without a bias any readable buffer will do.
    let view = |name: &'static str, vector: &'static str| if vec4 { vector } else { name };
    let views = [
        (view("out", "out4"), out),
        (view("a", "a4"), a),
        (view("b", "b4"), b),
        (view("bias", "bias4"), bias.unwrap_or(b)),
    ];
    let params = Params { m: m as u32, n: n as u32, k: k as u32 };
    r.push(&kernel, &views, &params, [grid[0] as u32, grid[1] as u32, 1]);
    r.work(2 * (m * n * k) as u64);
    Ok(())
}

/// A linear layer: `out = inp·weightᵀ + bias`. `inp` `[m, k]`, `weight` `[n, k]`, `bias` `[n]`, `out` `[m, n]`.
pub fn forward(
    r: &mut Recorder,
    out: &View,
    inp: &View,
    weight: &View,
    bias: Option<&View>,
    m: usize,
    n: usize,
    k: usize,
) -> Result<()> {
    check("matmul", "out", out, m * n);
    check("matmul", "inp", inp, m * k);
    check("matmul", "weight", weight, n * k);
    run(r, "forward", out, [inp, weight], bias, false, Dims { m, n, k })
}

/// Gradient of a linear layer's input: `dinp = dout·weight`. `dout` `[m, n]`, `weight` `[n, k]`, `dinp` `[m, k]`.
pub fn backward_input(
    r: &mut Recorder,
    dinp: &View,
    dout: &View,
    weight: &View,
    m: usize,
    n: usize,
    k: usize,
) -> Result<()> {
    check("matmul::backward_input", "dinp", dinp, m * k);
    check("matmul::backward_input", "dout", dout, m * n);
    check("matmul::backward_input", "weight", weight, n * k);
    run(r, "backward_input", dinp, [dout, weight], None, false, Dims { m, n: k, k: n })
}

/// Gradient of a linear layer's weight: `dweight += doutᵀ·inp`. `dout` `[m, n]`, `inp` `[m, k]`, `dweight` `[n, k]`.
pub fn backward_weight(
    r: &mut Recorder,
    dweight: &View,
    dout: &View,
    inp: &View,
    m: usize,
    n: usize,
    k: usize,
) -> Result<()> {
    check("matmul::backward_weight", "dweight", dweight, n * k);
    check("matmul::backward_weight", "dout", dout, m * n);
    check("matmul::backward_weight", "inp", inp, m * k);
    run(r, "backward_weight", dweight, [dout, inp], None, true, Dims { m: n, n: k, k: m })
}
