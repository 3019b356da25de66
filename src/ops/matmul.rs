//! Host wrapper of `shaders/matmul.wgsl` and its other algorithms, `shaders/matmul_*.wgsl`: one product, three layouts, and what
//! happens to its sums on their way out.
//!
//! A layer's activations and its weight may be f16, all of them; with an epilogue only where 4 divides its widths. Sums are f32
//! whatever they are, and biases, the residual stream, layer scales and the weight's gradient always are.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::{Element, align};
use crate::gpu::shaders::{Shader, shader};
use crate::gpu::tiles::{Cooperative, Tile};
use crate::ops::epilogue::Epilogue;
use crate::ops::product::{Pass, Product};
use crate::ops::variants::{FLAG, Needs, Variants};
use crate::ops::words::fours;
use crate::ops::{Recorder, check, column_sum, flag, gelu, residual, rows};
use crate::shapes::Activation;

static SHADER: Shader = shader!("matmul", TILE, STORE);
static COOPERATIVE: Shader = shader!("matmul_cooperative", MATRICES);
static DIRECT: Shader = shader!("matmul_direct", LANES, OPERANDS, STORE);
static SUBGROUP: Shader = shader!("matmul_subgroup", LANES, QUADS, OPERANDS, STORE);

/// Terms of a sum come in steps of so many, whatever the kernel.
const STEP: usize = 16;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    m: u32,
    n: u32,
    k: u32,
    chunk: u32,
}

/// A linear layer's shape: rows, columns of its output, columns of its input.
#[derive(Clone, Copy)]
struct Layer {
    m: usize,
    n: usize,
    k: usize,
}

/// An epilogue, and what it binds by the shader's names.
#[derive(Clone)]
struct End<'a> {
    epilogue: Epilogue,
    views: Vec<(&'static str, &'a View)>,
}

impl Layer {
    /// Whether vector loads, which run along the operands' rows, serve all three products. Only their kernels have epilogues.
    fn vector(self) -> bool {
        self.n.is_multiple_of(4) && self.k.is_multiple_of(4)
    }

    fn product(self, pass: Pass, element: Element) -> Product {
        Product::Linear { pass, rows: self.m, out: self.n, inp: self.k, element }
    }
}

impl End<'_> {
    fn none() -> Self {
        End { epilogue: Epilogue::None, views: Vec::new() }
    }
}

/// The text appended whatever the tile: the epilogue, and the types of operands and result.
fn tail(end: Epilogue, [operand, result]: [Element; 2], wide: bool) -> String {
    let [from, to] = [operand, result].map(Element::scalar);
    format!("{}alias operand = {from};\nalias result = {to};\n{}", end.text(), fours(operand, result, wide))
}

/// The text appended for a tile of `matmul.wgsl`.
fn side(tile: Tile) -> String {
    format!("const TILE = {}u;\n", tile.side())
}

/// Every variant that this file records.
pub fn variants() -> Vec<Variants> {
    use Element::{Half, Word};
    let tails = |formats: &'static [[Element; 2]], words: &'static [bool], of_tile: &[String]| {
        let mut tails = Vec::new();
        for end in Epilogue::all() {
            for (format, wide) in formats.iter().flat_map(|format| words.iter().map(move |wide| (*format, *wide))) {
                tails.extend(of_tile.iter().map(|of_tile| tail(end, format, wide) + of_tile));
            }
        }
        tails
    };
    let (formats, narrow, plain) = (&[[Word, Word], [Half, Half], [Half, Word]], &[false], [String::new()]);
    let sides = [Tile::Tiled, Tile::TiledLarge].map(side);
    let matrices = Cooperative::KNOWN.map(Cooperative::text);
    let with_flags = |shader| Variants::of(shader).with("ACCUMULATE", FLAG).with("HAS_BIAS", FLAG);
    vec![
        with_flags(&SHADER).append(tails(formats, narrow, &sides)),
        with_flags(&COOPERATIVE).append(tails(&formats[1..], narrow, &matrices)).needing(Needs::Matrices),
        with_flags(&DIRECT)
            .append(tails(formats, &[false, true], &plain))
            .with("ROWS", &[32.0, 64.0])
            .needing(Needs::WideSubgroups),
        with_flags(&SUBGROUP).append(tails(formats, narrow, &plain)).needing(Needs::Subgroups),
    ]
}

/// Elements of scratch that the weight's gradient needs, where several workgroups share a sum.
pub fn scratch_len(m: usize, n: usize, k: usize) -> usize {
    let split = Layer { m, n, k }.product(Pass::BackwardWeight, Element::Word).largest_split();
    if split > 1 { align(split * n * k) } else { 0 }
}

/// Records `out = `, or `+= ` with `accumulate`, the sums of a product's two operands, plus the bias, through the epilogue;
/// in as many dispatches as its work asks for. Parts of the rows give the same bits as the whole.
fn assign(
    r: &mut Recorder,
    pass: Pass,
    out: &View,
    [a, b]: [&View; 2],
    bias: Option<&View>,
    accumulate: bool,
    end: End,
    layer: Layer,
) -> Result<()> {
    let element = a.element;
    let tile = r.variant(layer.product(pass, element)).tile;
    let Layer { m, n, k } = layer;
    let (n, k) = if pass == Pass::Forward { (n, k) } else { (k, n) };
    for part in r.parts(m, 2 * (n * k) as u64, element, &[k, n]) {
        let (out, a) = (rows(out, &part, n), rows(a, &part, k));
        // What an epilogue binds has out's rows, or is one row for all of them.
        let own = |view: &View| if view.len == m * n { rows(view, &part, n) } else { view.clone() };
        let views: Vec<(&str, View)> = end.views.iter().map(|(name, view)| (*name, own(view))).collect();
        let end = End { views: views.iter().map(|(name, view)| (*name, view)).collect(), ..end.clone() };
        let params = Params { m: part.len() as u32, n: n as u32, k: k as u32, chunk: k as u32 };
        dispatch(r, pass, tile, &out, [&a, b], bias, accumulate, &end, layer, params)?;
    }
    Ok(())
}

fn dispatch(
    r: &mut Recorder,
    pass: Pass,
    tile: Tile,
    out: &View,
    [a, b]: [&View; 2],
    bias: Option<&View>,
    accumulate: bool,
    end: &End,
    layer: Layer,
    params: Params,
) -> Result<()> {
    let mut constants = vec![("ACCUMULATE", flag(accumulate)), ("HAS_BIAS", flag(bias.is_some()))];
    let [mut tall, mut wide] = layer.product(pass, a.element).tile_size(tile);
    let mut tail = tail(end.epilogue, [a.element, out.element], tile.is_direct() && r.wide_words);
    let matrices = r.gpu.offered_cooperative().filter(|_| tile == Tile::Cooperative);
    let shader = if let Some(matrices) = matrices {
        [tall, wide] = matrices.tile();
        tail += &matrices.text();
        &COOPERATIVE
    } else if tile.is_direct() {
        constants.push(("ROWS", tall as f64));
        &DIRECT
    } else if tile == Tile::Subgroup {
        &SUBGROUP
    } else {
        tail += &side(tile);
        &SHADER
    };
    let vector = layer.vector();
    assert_eq!(a.element, b.element, "matmul: operands of one kind");
    let entry = if vector { format!("{}_vec4", pass.entry()) } else { pass.entry().to_string() };
    let kernel = r.kernel_with(shader, &entry, &constants, &tail)?;
    // Without a bias any readable buffer will do that has a vec4f's bytes; four halves have fewer, the buffer has more.
    let unread = View { len: b.len.max(8), ..b.clone() };
    // The shader sees one buffer as scalars or as vectors, under two names.
    let name = |scalar: &'static str, four: &'static str| if vector { four } else { scalar };
    let mut views = vec![
        (name("out", "out4"), out),
        (name("a", "a4"), a),
        (name("b", "b4"), b),
        (name("bias", "bias4"), bias.unwrap_or(if b.element == Element::Half { &unread } else { b })),
    ];
    views.extend(&end.views);
    let [m, n, k, chunk] = [params.m, params.n, params.k, params.chunk].map(|x| x as usize);
    r.push(&kernel, &views, &params, [n.div_ceil(wide) as u32, m.div_ceil(tall) as u32, k.div_ceil(chunk) as u32]);
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
    assign(r, Pass::Forward, out, [inp, weight], bias, false, End::none(), Layer { m, n, k })
}

/// A linear layer and the activation behind it: `hidden` as [`forward`]'s `out`, `out = gelu(hidden)`, both `[m, n]`.
pub fn forward_gelu(
    r: &mut Recorder,
    out: &View,
    hidden: &View,
    inp: &View,
    weight: &View,
    bias: Option<&View>,
    activation: Activation,
    m: usize,
    n: usize,
    k: usize,
) -> Result<()> {
    let layer = Layer { m, n, k };
    check("matmul::forward_gelu", "hidden", hidden, m * n);
    if !layer.vector() {
        forward(r, hidden, inp, weight, bias, m, n, k)?;
        return gelu::forward(r, out, hidden, activation);
    }
    check("matmul::forward_gelu", "out", out, m * n);
    let end = End { epilogue: Epilogue::Gelu(activation), views: vec![("hidden4", hidden)] };
    assign(r, Pass::Forward, out, [inp, weight], bias, false, end, layer)
}

/// A branch's last linear layer and the residual: `out = residual + gamma·branch` with `branch` as [`forward`]'s `out`, all
/// `[m, n]`. `gamma` (`[n]`) is the layer scale, if there is one; only then is `branch` sure to be written.
pub fn forward_residual(
    r: &mut Recorder,
    out: &View,
    branch: &View,
    residual: &View,
    gamma: Option<&View>,
    inp: &View,
    weight: &View,
    bias: Option<&View>,
    m: usize,
    n: usize,
    k: usize,
) -> Result<()> {
    let layer = Layer { m, n, k };
    if !layer.vector() {
        forward(r, branch, inp, weight, bias, m, n, k)?;
        return residual::forward(r, out, residual, branch, gamma, m, n);
    }
    for (name, view) in [("out", out), ("branch", branch), ("residual", residual)] {
        check("matmul::forward_residual", name, view, m * n);
    }
    let mut views = vec![("residual4", residual)];
    let epilogue = match gamma {
        Some(gamma) => {
            check("matmul::forward_residual", "gamma", gamma, n);
            views.extend([("gamma4", gamma), ("branch4", branch)]);
            Epilogue::ResidualScaled
        }
        None => Epilogue::Residual,
    };
    let end = End { epilogue, views };
    assign(r, Pass::Forward, out, [inp, weight], bias, false, end, layer)
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
    input_gradient(r, dinp, dout, weight, false, Layer { m, n, k })
}

/// The same, on through the activation in front of the layer: `dhidden = (dout·weight)·gelu'(hidden)`, `[m, k]`. `dinp`,
/// of the same length, is a scratch that may be written.
pub fn backward_input_gelu(
    r: &mut Recorder,
    dhidden: &View,
    dinp: &View,
    dout: &View,
    weight: &View,
    hidden: &View,
    activation: Activation,
    m: usize,
    n: usize,
    k: usize,
) -> Result<()> {
    let layer = Layer { m, n, k };
    check("matmul::backward_input_gelu", "hidden", hidden, m * k);
    if !layer.vector() {
        backward_input(r, dinp, dout, weight, m, n, k)?;
        return gelu::backward(r, dhidden, dinp, hidden, activation);
    }
    check("matmul::backward_input_gelu", "dhidden", dhidden, m * k);
    let end = End { epilogue: Epilogue::GeluBackward(activation), views: vec![("hidden4", hidden)] };
    assign(r, Pass::BackwardInput, dhidden, [dout, weight], None, false, end, layer)
}

/// As [`backward_input`], added to the values there: `dinp += dout·weight`, for an input that several layers read.
pub fn backward_input_added(
    r: &mut Recorder,
    dinp: &View,
    dout: &View,
    weight: &View,
    m: usize,
    n: usize,
    k: usize,
) -> Result<()> {
    input_gradient(r, dinp, dout, weight, true, Layer { m, n, k })
}

fn input_gradient(
    r: &mut Recorder,
    dinp: &View,
    dout: &View,
    weight: &View,
    accumulate: bool,
    layer: Layer,
) -> Result<()> {
    let Layer { m, n, k } = layer;
    check("matmul::backward_input", "dinp", dinp, m * k);
    check("matmul::backward_input", "dout", dout, m * n);
    check("matmul::backward_input", "weight", weight, n * k);
    assign(r, Pass::BackwardInput, dinp, [dout, weight], None, accumulate, End::none(), layer)
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
    // Cut along the sum, parts add up.
    for part in r.parts(m, 2 * (n * k) as u64, inp.element, &[n, k]) {
        weight_part(r, dweight, &rows(dout, &part, n), &rows(inp, &part, k), Layer { m: part.len(), n, k })?;
    }
    Ok(())
}

fn weight_part(r: &mut Recorder, dweight: &View, dout: &View, inp: &View, layer: Layer) -> Result<()> {
    let (pass, Layer { m, n, k }) = (Pass::BackwardWeight, layer);
    let variant = r.variant(layer.product(pass, inp.element));
    let chunk = m.div_ceil(variant.split).next_multiple_of(STEP);
    let params = Params { m: n as u32, n: k as u32, k: m as u32, chunk: chunk as u32 };
    let chunks = m.div_ceil(chunk);
    if chunks == 1 {
        return dispatch(r, pass, variant.tile, dweight, [dout, inp], None, true, &End::none(), layer, params);
    }
    let [partial] = r.scratch("matmul::backward_weight", chunks * n * k);
    dispatch(r, pass, variant.tile, &partial, [dout, inp], None, false, &End::none(), layer, params)?;
    column_sum::add_rows(r, dweight, &partial, chunks, n * k)
}
