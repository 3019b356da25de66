//! Linear layers: matrix products in their three layouts, in f32 and f16, and sums over rows.

use super::formats::{formats, prefix, rounded, stored_eps};
use super::harness::{Case, EPS, Launch, Random, sum_tolerance, wide};
use super::{Plan, Stem, Suite, stem};
use crate::cpu;
use crate::error::Result;
use crate::gpu::buffer::{Element, align};
use crate::ops;
use crate::shapes::Activation;

pub(super) const STEMS: &[Stem] = &[
    stem("matmul", matmul, &["matmul::forward", "matmul::backward_input", "matmul::backward_weight"]),
    stem(
        "epilogue",
        epilogues,
        &[
            "matmul::forward",
            "matmul::forward_gelu",
            "matmul::forward_residual",
            "matmul::backward_input",
            "matmul::backward_input_gelu",
        ],
    ),
    stem("column_sum", column_sum, &["column_sum::forward", "column_sum::spread"]),
];

/// Rows, outputs and inputs of a layer: below, at and past every tile, vector widths and their neighbours.
const SHAPES: [(usize, usize, usize); 18] = [
    (1, 1, 1),
    (1, 3, 63),
    (3, 1, 65),
    (63, 65, 3),
    (65, 63, 197),
    (65, 197, 1),
    (197, 3, 768),
    (3, 768, 65),
    (197, 65, 63),
    (1, 768, 197),
    (63, 64, 768),
    (64, 64, 64),
    (32, 96, 128),
    (60, 68, 36),
    (36, 100, 20),
    (130, 132, 4),
    (128, 33, 7),
    (65, 64, 30),
];

/// Those of a quick run: larger than tiles, in vectors and not, and split in every way.
const QUICK: [usize; 4] = [6, 8, 10, 15];
/// The same for epilogues: every activation in vectors, and one that is not.
const QUICK_ACTIVATED: [usize; 4] = [8, 10, 14, 15];

/// In f16, whose products take widths that are multiples of 4: tiles, halves of tiles, and remainders.
const HALF_SHAPES: [(usize, usize, usize); 9] = [
    (1, 4, 4),
    (3, 64, 20),
    (65, 64, 32),
    (197, 68, 36),
    (64, 64, 64),
    (63, 196, 768),
    (128, 132, 132),
    (33, 20, 100),
    (200, 16, 48),
];
/// One of each activation.
const QUICK_HALF: [usize; 3] = [5, 6, 7];

/// Workgroups that share a sum, at most.
const MOST_SPLIT: usize = 3;

/// A shape of a layer and where it stands in its list, how it is launched and what its operands hold.
#[derive(Clone, Copy)]
struct Layer {
    i: usize,
    shape: (usize, usize, usize),
    launch: Launch,
    element: Element,
}

impl Layer {
    /// These shapes in every variant that the adapter has.
    fn all(
        p: &Plan,
        shapes: Vec<(usize, (usize, usize, usize))>,
        formats: &[Element],
        most_split: usize,
    ) -> Vec<Layer> {
        let launched = |(i, shape)| {
            let launches = Launch::products(p.gpu, 1 + i % most_split).into_iter();
            let of = move |launch| formats.iter().map(move |&element| Layer { i, shape, launch, element });
            launches.flat_map(of).collect::<Vec<_>>()
        };
        shapes.into_iter().flat_map(launched).collect()
    }

    fn in_fours(self) -> bool {
        let (_, n, k) = self.shape;
        n.is_multiple_of(4) && k.is_multiple_of(4)
    }

    /// Whether its tile computes it: cooperative matrices take f16 in fours, anything else goes another way.
    fn suits_its_tile(self) -> bool {
        !self.launch.is_cooperative() || (self.element == Element::Half && self.in_fours())
    }

    fn activation(self) -> Activation {
        [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu][self.i % 3]
    }

    /// Values that `random` makes for it: input, weight and gradient of the output, in its format.
    fn operands(self, random: &mut Random, scale: f32) -> [Vec<f32>; 3] {
        let (m, n, k) = self.shape;
        let [inp, weight, dout] = [m * k, n * k, m * n].map(|len| random.vec(len));
        let weight = weight.into_iter().map(|x| x * scale).collect();
        [inp, weight, dout].map(|values| rounded(values, self.element))
    }

    fn sum(self, inp: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f64> {
        let ((m, n, k), bias) = (self.shape, bias.map(wide));
        let mut sum = vec![0.0; m * n];
        cpu::matmul::matmul(&mut sum, &wide(inp), &wide(weight), bias.as_deref(), m, n, k, false, true, false, 1);
        sum
    }
}

/// The three products; each sum has as many terms as its inner dimension, plus the bias or the value there before.
fn matmul(p: &mut Plan) -> Result<()> {
    let layers = Layer::all(p, p.pick(&SHAPES, &QUICK), formats(p.gpu), MOST_SPLIT);
    let halves = Layer::all(p, p.pick(&HALF_SHAPES, &QUICK_HALF), &formats(p.gpu)[1..], MOST_SPLIT);
    let shows = |layer: &Layer| {
        let vector = if layer.in_fours() { "fours" } else { "ones" };
        let (tile, word, format) = (layer.launch.tile(), layer.launch.word(), prefix(layer.element));
        // Each way to load, and each of its three parts in each tile.
        let loaded = format!("{vector}, {word}, {format}");
        let all = [vector, word, format].map(|of| format!("{tile}, {of}")).into_iter().chain([loaded]);
        if layer.suits_its_tile() { all.collect() } else { Vec::new() }
    };
    for layer in p.thin([layers, halves].concat(), shows) {
        p.add(move |s| products(s, layer));
    }
    Ok(())
}

/// Products with what an epilogue makes of them.
fn epilogues(p: &mut Plan) -> Result<()> {
    let layers = Layer::all(p, p.pick(&SHAPES, &QUICK_ACTIVATED), &[Element::Word], 1);
    let halves = Layer::all(p, p.pick(&HALF_SHAPES, &QUICK_HALF), &formats(p.gpu)[1..], 1);
    let shows = |layer: &Layer| {
        let (tile, word) = (layer.launch.tile(), layer.launch.word().to_string());
        let activation = format!("{}{:?}", prefix(layer.element), layer.activation());
        match (layer.suits_its_tile(), layer.in_fours(), layer.element) {
            (false, ..) => Vec::new(),
            // Two kernels, each of which has its own cases.
            (true, false, _) => vec!["two kernels".to_string()],
            (true, true, Element::Word) => vec![tile, word, activation],
            // Tiles for CPUs have their epilogues in f32: LLVM takes seconds for one in f16.
            (true, true, Element::Half) if layer.launch.for_cpu => Vec::new(),
            (true, true, Element::Half) if layer.launch.is_cooperative() => vec!["matrices".to_string()],
            (true, true, Element::Half) => vec![activation],
        }
    };
    for layer in p.thin([layers, halves].concat(), shows) {
        p.add(move |s| activated(s, layer));
    }
    Ok(())
}

fn products(s: &mut Suite, layer: Layer) -> Result<()> {
    let Layer { i, shape: (m, n, k), launch, element } = layer;
    let mut random = Random::new(i as u64);
    let [inp, weight, dout] = layer.operands(&mut random, 1.0);
    let bias = random.vec(n);
    let (inp64, weight64, dout64) = (wide(&inp), wide(&weight), wide(&dout));
    let [with_bias, without] = [Some(&bias[..]), None].map(|bias| layer.sum(&inp, &weight, bias));
    let name = format!("{}{m}×{n}×{k}, {}", prefix(element), launch.suffix());
    let mut c = Case::new(s.gpu, name, align(MOST_SPLIT * n * k))?;
    let [inp, weight] = [c.input_as("inp", element, &inp)?, c.input_as("weight", element, &weight)?];
    let (bias_view, dout) = (c.input("bias", &bias)?, c.input_as("dout", element, &dout)?);
    let (eps, tolerance) = (stored_eps(element), sum_tolerance(k, 4.0));

    for (bias, want) in [(None, &without), (Some(&bias_view), &with_bias)] {
        let out = c.output_as("out", element, m * n)?;
        c.run(launch, |r| ops::matmul::forward(r, &out, &inp, &weight, bias, m, n, k))?;
        c.expect("matmul::forward", &out, want, eps + tolerance);
    }

    for accumulate in [false, true] {
        let before = rounded(random.vec(m * k), element);
        let mut want = if accumulate { wide(&before) } else { vec![0.0; m * k] };
        cpu::matmul::matmul(&mut want, &dout64, &weight64, None, m, k, n, false, false, accumulate, 1);
        let dinp =
            if accumulate { c.input_as("added dinp", element, &before)? } else { c.output_as("dinp", element, m * k)? };
        let op = if accumulate { ops::matmul::backward_input_added } else { ops::matmul::backward_input };
        c.run(launch, |r| op(r, &dinp, &dout, &weight, m, n, k))?;
        c.expect("matmul::backward_input", &dinp, &want, eps + sum_tolerance(n, 4.0));
    }

    // A weight's gradient is f32.
    let before = random.vec(n * k);
    let dweight = c.input("dweight", &before)?;
    let mut want = wide(&before);
    cpu::matmul::matmul(&mut want, &dout64, &inp64, None, n, k, m, true, false, true, 1);
    c.run(launch, |r| ops::matmul::backward_weight(r, &dweight, &dout, &inp, m, n, k))?;
    c.expect("matmul::backward_weight", &dweight, &want, sum_tolerance(m, 4.0));
    s.finish(c)
}

/// The same products with what an epilogue makes of them.
fn activated(s: &mut Suite, layer: Layer) -> Result<()> {
    let (activation, Layer { i, shape: (m, n, k), launch, element }) = (layer.activation(), layer);
    let mut random = Random::new(50 + i as u64);
    let [inp, weight, dout] = layer.operands(&mut random, (3.0 / k as f32).sqrt());
    let (bias, residual, gamma) = (random.vec(n), random.vec(m * n), random.vec(n));
    let before = rounded(random.vec(m * k).into_iter().map(|x| 3.0 * x).collect(), element);
    let (weight64, dout64) = (wide(&weight), wide(&dout));
    let sum = layer.sum(&inp, &weight, Some(&bias));
    let name = format!("{}{m}×{n}×{k}, {activation:?}, {}", prefix(element), launch.suffix());
    let mut c = Case::new(s.gpu, name, 0)?;
    let [inp, weight] = [c.input_as("inp", element, &inp)?, c.input_as("weight", element, &weight)?];
    let bias_view = c.input("bias", &bias)?;
    let (eps, tolerance) = (stored_eps(element), sum_tolerance(k, 4.0));

    let [hidden, out] = [c.output_as("hidden", element, m * n)?, c.output_as("activated", element, m * n)?];
    let bias = Some(&bias_view);
    c.run(launch, |r| ops::matmul::forward_gelu(r, &out, &hidden, &inp, &weight, bias, activation, m, n, k))?;
    let mut want = vec![0.0; m * n];
    cpu::gelu::forward(&mut want, &sum, activation);
    c.expect("matmul::forward", &hidden, &sum, eps + tolerance);
    // The slope is at most 1.13, and half the outputs are near zero: their mean is some four times smaller.
    c.expect("matmul::forward_gelu", &out, &want, eps + 4.0 * tolerance + 16.0 * EPS);

    // The residual stream is f32, with a layer's output on its own and added.
    if element == Element::Half {
        let out = c.output("f32 out", m * n)?;
        c.run(launch, |r| ops::matmul::forward(r, &out, &inp, &weight, bias, m, n, k))?;
        c.expect("matmul::forward", &out, &sum, tolerance);
    }
    let [residual_view, gamma_view] = [c.input("residual", &residual)?, c.input("gamma", &gamma)?];
    for gamma_view in [None, Some(&gamma_view)] {
        let (out, branch) = (c.output("out", m * n)?, c.output("branch", m * n)?);
        c.run(launch, |r| {
            let op = ops::matmul::forward_residual;
            op(r, &out, &branch, &residual_view, gamma_view, &inp, &weight, bias, m, n, k)
        })?;
        let mut want = vec![0.0; m * n];
        let gamma64 = gamma_view.map(|_| wide(&gamma));
        cpu::residual::forward(&mut want, &wide(&residual), &sum, gamma64.as_deref(), m, n);
        c.expect("matmul::forward_residual", &out, &want, tolerance + 4.0 * EPS);
        // Without a scale nobody reads the branch again: the vector kernels leave it alone.
        if gamma_view.is_some() || !layer.in_fours() {
            c.expect("matmul::forward", &branch, &sum, tolerance);
        }
    }

    let [hidden, dout] = [c.input_as("hidden", element, &before)?, c.input_as("dout", element, &dout)?];
    let [dhidden, dinp] = [c.output_as("dhidden", element, m * k)?, c.output_as("dinp", element, m * k)?];
    c.run(launch, |r| {
        let op = ops::matmul::backward_input_gelu;
        op(r, &dhidden, &dinp, &dout, &weight, &hidden, activation, m, n, k)
    })?;
    let (mut through, mut want) = (vec![0.0; m * k], vec![0.0; m * k]);
    cpu::matmul::matmul(&mut through, &dout64, &weight64, None, m, k, n, false, false, false, 1);
    cpu::gelu::backward(&mut want, &through, &wide(&before), activation);
    if !layer.in_fours() {
        c.expect("matmul::backward_input", &dinp, &through, eps + sum_tolerance(n, 4.0));
    }
    let tolerance = eps + 4.0 * sum_tolerance(n, 4.0) + 64.0 * EPS;
    c.expect("matmul::backward_input_gelu", &dhidden, &want, tolerance);
    s.finish(c)
}

/// Added to the values there: a sum over `rows`, in one stage or two.
fn column_sum(p: &mut Plan) -> Result<()> {
    let shapes = [
        (1, 1),
        (1, 65),
        (3, 197),
        (63, 3),
        (65, 63),
        (128, 65),
        (129, 65),
        (197, 768),
        (768, 1),
        (400, 3),
        (70, 4),
        (131, 260),
        (5, 1028),
    ];
    let formats = formats(p.gpu);
    let picked = p.pick(&shapes, &[4, 6, 11]);
    for ((i, (rows, cols)), &element) in picked.into_iter().flat_map(|of| formats.iter().map(move |e| (of, e))) {
        p.add(move |s| {
            let mut random = Random::new(100 + i as u64);
            let (inp, before) = (rounded(random.vec(rows * cols), element), random.vec(cols));
            let name = format!("{}rows {rows}, cols {cols}", prefix(element));
            let mut c = Case::new(s.gpu, name, ops::scratch_len(rows, cols))?;
            let mut want = wide(&before);
            cpu::column_sum::column_sum(&mut want, &wide(&inp), rows, cols);
            let (inp, out) = (c.input_as("inp", element, &inp)?, c.input("out", &before)?);
            c.run(Launch::natural(s.gpu), |r| ops::column_sum::forward(r, &out, &inp, rows, cols))?;
            c.expect("column_sum::forward", &out, &want, sum_tolerance(rows, 4.0));
            let row = rounded(random.vec(cols), element);
            let (row_view, spread) = (c.input_as("row", element, &row)?, c.output("spread", rows * cols)?);
            c.run(Launch::natural(s.gpu), |r| ops::column_sum::spread(r, &spread, &row_view, rows, cols))?;
            c.expect("column_sum::spread", &spread, &wide(&row.repeat(rows)), 0.0);
            s.finish(c)
        });
    }
    Ok(())
}
