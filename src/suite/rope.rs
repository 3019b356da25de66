//! Biases of query and value, and rotary positions: fixed and learned, in f32 and f16.

use super::formats::{formats, prefix, rounded, stored_eps};
use super::harness::{Case, EPS, Launch, Random, narrow, sum_tolerance, wide};
use super::{Plan, Stem, Suite, stem};
use crate::cpu::rope as reference;
use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::ops::rope::{self, Dims, Learned};

pub(super) const STEMS: &[Stem] = &[stem(
    "rope",
    cases,
    &["rope::forward", "rope::backward_bias", "rope::angles", "rope::backward_angles", "rope::backward_freqs"],
)];

/// Batch, tokens along a side, tokens before the grid, heads, width of a head.
const SHAPES: [(usize, usize, usize, usize, usize); 9] = [
    (1, 1, 0, 1, 2),
    (2, 2, 1, 3, 6),
    (1, 3, 2, 2, 12),
    (3, 5, 1, 2, 8),
    (1, 4, 0, 3, 20),
    (2, 7, 5, 1, 64),
    (1, 14, 1, 3, 64),
    (2, 2, 3, 1, 10),
    (1, 2, 1, 2, 88),
];

fn cases(p: &mut Plan) -> Result<()> {
    let formats = formats(p.gpu);
    for (launch, &element) in Launch::all(p.gpu).into_iter().flat_map(|l| formats.iter().map(move |e| (l, e))) {
        for (_, (batch, grid, prefix, heads, head_dim)) in p.pick(&SHAPES, &[1, 3]) {
            for halves in [false, true] {
                let dims = Dims { batch, tokens: grid * grid + prefix, prefix, heads, head_dim, halves };
                for (turned, biased) in [(true, true), (true, false), (false, true)] {
                    p.add(move |s| fixed(s, launch, element, turned, biased, dims));
                }
                if !halves {
                    p.add(move |s| learned(s, launch, element, grid, dims));
                }
            }
        }
        // Without angles a head may be odd.
        let dims = Dims { batch: 2, tokens: 5, prefix: 0, heads: 3, head_dim: 3, halves: false };
        p.add(move |s| fixed(s, launch, element, false, true, dims));
    }
    Ok(())
}

fn name(what: &str, launch: Launch, element: Element, dims: Dims) -> String {
    let Dims { batch, tokens, prefix: before, heads, head_dim, halves } = dims;
    let kind = if halves { "halves, " } else { "" };
    let shape = format!("{batch}×{tokens} after {before}, {heads} heads of {head_dim}");
    format!("{}{what}{kind}{shape}, {}", prefix(element), launch.suffix())
}

fn fixed(s: &mut Suite, launch: Launch, element: Element, turned: bool, biased: bool, dims: Dims) -> Result<()> {
    let mut random = Random::new(dims.len() as u64);
    let [inp, dout] = [0; 2].map(|_| rounded(random.vec(dims.len()), element));
    let [query, value] = [0; 2].map(|_| random.vec(dims.dim()));
    let angles = random.vec(dims.table_len() / 4 + 1);
    let angle = |_: usize, t: usize, n: usize| 9.0 * f64::from(angles[t * dims.head_dim / 2 + n]);
    let table = turned.then(|| narrow(&reference::table(1, dims, angle)));
    let table64 = table.as_deref().map(wide);
    let (mut want, mut want_grad) = (vec![0.0; dims.len()], vec![0.0; dims.len()]);
    let biases64 = [wide(&query), wide(&value)];
    let used = biased.then(|| biases64.each_ref().map(Vec::as_slice));
    reference::forward(&mut want, &wide(&inp), table64.as_deref(), used, dims);
    reference::backward_input(&mut want_grad, &wide(&dout), table64.as_deref(), dims);

    let what = format!("{}{}", if turned { "" } else { "not turned, " }, if biased { "biased, " } else { "" });
    let mut c = Case::new(s.gpu, name(&what, launch, element, dims), crate::ops::scratch_len(dims.rows(), dims.dim()))?;
    let [inp, dout] = [c.input_as("inp", element, &inp)?, c.input_as("dout", element, &dout)?];
    let table = table.map(|table| c.input("table", &table)).transpose()?;
    let [query, value] = [c.input("query bias", &query)?, c.input("value bias", &value)?];
    let [out, dinp] = [c.output_as("out", element, dims.len())?, c.output_as("dinp", element, dims.len())?];
    c.run(launch, |r| {
        rope::forward(r, &out, &inp, table.as_ref(), biased.then_some([&query, &value]), dims)?;
        rope::backward_input(r, &dinp, &dout, table.as_ref(), dims)
    })?;
    // Two sums of bias, two products and their sum.
    c.expect("rope::forward", &out, &want, stored_eps(element) + 4.0 * EPS);
    c.expect("rope::forward", &dinp, &want_grad, stored_eps(element) + 3.0 * EPS);
    if biased {
        let dinp32 = rounded(narrow(&want_grad), element);
        let [before_query, before_value] = [0; 2].map(|_| random.vec(dims.dim()));
        let [mut want_query, mut want_value] = [wide(&before_query), wide(&before_value)];
        reference::backward_bias(&mut want_query, &mut want_value, &wide(&dinp32), dims);
        let dinp = c.input_as("dinp", element, &dinp32)?;
        let [dquery, dvalue] = [c.input("dquery", &before_query)?, c.input("dvalue", &before_value)?];
        c.run(launch, |r| rope::backward_bias(r, &dquery, &dvalue, &dinp, dims))?;
        c.expect("rope::backward_bias", &dquery, &want_query, sum_tolerance(dims.rows(), 4.0));
        c.expect("rope::backward_bias", &dvalue, &want_value, sum_tolerance(dims.rows(), 4.0));
    }
    s.finish(c)
}

fn learned(s: &mut Suite, launch: Launch, element: Element, grid: usize, dims: Dims) -> Result<()> {
    let mut random = Random::new(7 + dims.len() as u64);
    let learned = Learned { block: 1, blocks: 3, grid, transposed: dims.heads.is_multiple_of(2) };
    let freqs: Vec<f32> = random.vec(learned.blocks * dims.dim()).into_iter().map(|f| 1.5 * f).collect();
    let [inp, dout] = [0; 2].map(|_| rounded(random.vec(dims.len()), element));
    let want_table = reference::angles(&wide(&freqs), learned, dims);
    let table32 = narrow(&want_table);
    let (mut want, mut want_grad) = (vec![0.0; dims.len()], vec![0.0; dims.len()]);
    reference::forward(&mut want, &wide(&inp), Some(&wide(&table32)), None, dims);
    reference::backward_input(&mut want_grad, &wide(&dout), Some(&wide(&table32)), dims);
    let saved = rounded(narrow(&want), element);
    let before = random.vec(freqs.len());
    let mut want_freqs = wide(&before);
    let mut want_angles = vec![0.0; dims.angles_len()];
    reference::backward_angles(&mut want_angles, &wide(&dout), &wide(&saved), dims);
    reference::backward_freqs(&mut want_freqs, &want_angles, learned, dims);

    let mut c = Case::new(s.gpu, name("learned, ", launch, element, dims), 0)?;
    let [inp, dout] = [c.input_as("inp", element, &inp)?, c.input_as("dout", element, &dout)?];
    let (freqs, saved) = (c.input("freqs", &freqs)?, c.input_as("saved out", element, &saved)?);
    let (table, given) = (c.output("table", want_table.len())?, c.input("given table", &table32)?);
    let [out, dinp] = [c.output_as("out", element, dims.len())?, c.output_as("dinp", element, dims.len())?];
    let (dfreqs, dangles) = (c.input("dfreqs", &before)?, c.output("dangles", dims.angles_len())?);
    c.run(launch, |r| {
        rope::angles(r, &table, &freqs, learned, dims)?;
        rope::forward(r, &out, &inp, Some(&given), None, dims)?;
        rope::backward_input(r, &dinp, &dout, Some(&given), dims)?;
        rope::backward_freqs(r, &dfreqs, &dangles, &dout, &saved, learned, dims)
    })?;
    // Angles of up to twice the grid times 1.5, of which a unit in the last place moves sine and cosine by as much.
    c.expect("rope::angles", &table, &want_table, EPS * (8.0 + 3.0 * grid as f64));
    c.expect("rope::forward", &out, &want, stored_eps(element) + 3.0 * EPS);
    c.expect("rope::forward", &dinp, &want_grad, stored_eps(element) + 3.0 * EPS);
    // Sums of differences of two products, over images, queries and keys; then over the tokens of the grid.
    c.expect("rope::backward_angles", &dangles, &want_angles, sum_tolerance(4 * dims.batch, 4.0));
    c.expect("rope::backward_freqs", &dfreqs, &want_freqs, sum_tolerance(4 * dims.rows(), 8.0));
    s.finish(c)
}
