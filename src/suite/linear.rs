//! Linear layers: matrix products in their three layouts, in f32 and f16, and sums over rows.

use super::Plan;
use super::formats::{formats, prefix, rounded, stored_eps};
use super::harness::{Case, EPS, Launch, Random, sum_tolerance, wide};
use crate::cpu;
use crate::error::Result;
use crate::gpu::buffer::align;
use crate::model::config::Activation;
use crate::ops;

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

/// Workgroups that share a sum, at most.
const MOST_SPLIT: usize = 3;

/// The three products; each sum has as many terms as its inner dimension, plus the bias or what was there before.
pub(super) fn matmul(p: &mut Plan) -> Result<()> {
    let formats = formats(p.gpu);
    for (i, (m, n, k)) in p.pick(&SHAPES, &QUICK) {
        let split = 1 + i % MOST_SPLIT;
        let launches = Launch::products(p.gpu, split);
        for (launch, &element) in launches.into_iter().flat_map(|l| formats.iter().map(move |e| (l, e))) {
            p.add(move |s| {
                let mut random = Random::new(i as u64);
                let [inp, weight] = [m * k, n * k].map(|len| rounded(random.vec(len), element));
                let (bias, dout) = (random.vec(n), rounded(random.vec(m * n), element));
                let (inp64, weight64, dout64) = (wide(&inp), wide(&weight), wide(&dout));
                let name = format!("{}{m}×{n}×{k}, {}", prefix(element), launch.suffix());
                let mut c = Case::new(s.gpu, name, align(split * n * k))?;
                let [inp, weight] = [c.input_as("inp", element, &inp)?, c.input_as("weight", element, &weight)?];
                let (bias_view, dout) = (c.input("bias", &bias)?, c.input_as("dout", element, &dout)?);
                let eps = stored_eps(element);

                for bias_view in [None, Some(&bias_view)] {
                    let out = c.output_as("out", element, m * n)?;
                    let bias64 = bias_view.map(|_| wide(&bias));
                    let mut want = vec![0.0; m * n];
                    cpu::matmul::matmul(
                        &mut want,
                        &inp64,
                        &weight64,
                        bias64.as_deref(),
                        m,
                        n,
                        k,
                        false,
                        true,
                        false,
                        1,
                    );
                    c.run(launch, |r| ops::matmul::forward(r, &out, &inp, &weight, bias_view, m, n, k))?;
                    c.expect("matmul::forward", &out, &want, eps + sum_tolerance(k, 4.0));
                }

                let dinp = c.output_as("dinp", element, m * k)?;
                let mut want = vec![0.0; m * k];
                cpu::matmul::matmul(&mut want, &dout64, &weight64, None, m, k, n, false, false, false, 1);
                c.run(launch, |r| ops::matmul::backward_input(r, &dinp, &dout, &weight, m, n, k))?;
                c.expect("matmul::backward_input", &dinp, &want, eps + sum_tolerance(n, 4.0));

                let before = rounded(random.vec(m * k), element);
                let dinp = c.input_as("added dinp", element, &before)?;
                let mut want = wide(&before);
                cpu::matmul::matmul(&mut want, &dout64, &weight64, None, m, k, n, false, false, true, 1);
                c.run(launch, |r| ops::matmul::backward_input_added(r, &dinp, &dout, &weight, m, n, k))?;
                c.expect("matmul::backward_input", &dinp, &want, eps + sum_tolerance(n, 4.0));

                let before = random.vec(n * k);
                let dweight = c.input("dweight", &before)?;
                let mut want = wide(&before);
                cpu::matmul::matmul(&mut want, &dout64, &inp64, None, n, k, m, true, false, true, 1);
                c.run(launch, |r| ops::matmul::backward_weight(r, &dweight, &dout, &inp, m, n, k))?;
                c.expect("matmul::backward_weight", &dweight, &want, sum_tolerance(m, 4.0));
                s.finish(c)
            });
        }
    }
    Ok(())
}

/// The same products with what an epilogue makes of them.
pub(super) fn epilogues(p: &mut Plan) -> Result<()> {
    let activations = [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu];
    for (i, (m, n, k)) in p.pick(&SHAPES, &QUICK_ACTIVATED) {
        let activation = activations[i % 3];
        for launch in Launch::products(p.gpu, 1) {
            p.add(move |s| {
                let mut random = Random::new(50 + i as u64);
                let small = |x: Vec<f32>| x.into_iter().map(|x| x * (3.0 / k as f32).sqrt()).collect::<Vec<f32>>();
                let (inp, weight, bias) = (random.vec(m * k), small(random.vec(n * k)), random.vec(n));
                let (residual, gamma, dout) = (random.vec(m * n), random.vec(n), random.vec(m * n));
                let before = random.vec(m * k).into_iter().map(|x| 3.0 * x).collect::<Vec<f32>>();
                let (inp64, weight64, dout64) = (wide(&inp), wide(&weight), wide(&dout));
                let name = format!("{m}×{n}×{k}, {activation:?}, {}", launch.suffix());
                let mut c = Case::new(s.gpu, name, 0)?;
                let [inp, weight, bias_view] =
                    [c.input("inp", &inp)?, c.input("weight", &weight)?, c.input("bias", &bias)?];
                let bias64 = wide(&bias);
                let mut sum = vec![0.0; m * n];
                cpu::matmul::matmul(&mut sum, &inp64, &weight64, Some(&bias64), m, n, k, false, true, false, 1);
                let tolerance = sum_tolerance(k, 4.0);

                let (hidden, out) = (c.output("hidden", m * n)?, c.output("activated", m * n)?);
                let bias = Some(&bias_view);
                c.run(launch, |r| {
                    ops::matmul::forward_gelu(r, &out, &hidden, &inp, &weight, bias, activation, m, n, k)
                })?;
                let mut want = vec![0.0; m * n];
                cpu::gelu::forward(&mut want, &sum, activation);
                c.expect("matmul::forward", &hidden, &sum, tolerance);
                // The slope is at most 1.13, and half the outputs are near zero: their mean is some four times smaller.
                c.expect("matmul::forward_gelu", &out, &want, 4.0 * tolerance + 16.0 * EPS);

                let residual_view = c.input("residual", &residual)?;
                let gamma_view = c.input("gamma", &gamma)?;
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
                    if gamma_view.is_some() || !(n.is_multiple_of(4) && k.is_multiple_of(4)) {
                        c.expect("matmul::forward", &branch, &sum, tolerance);
                    }
                }

                let (hidden, dout) = (c.input("hidden", &before)?, c.input("dout", &dout)?);
                let (dhidden, dinp) = (c.output("dhidden", m * k)?, c.output("dinp", m * k)?);
                c.run(launch, |r| {
                    let op = ops::matmul::backward_input_gelu;
                    op(r, &dhidden, &dinp, &dout, &weight, &hidden, activation, m, n, k)
                })?;
                let (mut through, mut want) = (vec![0.0; m * k], vec![0.0; m * k]);
                cpu::matmul::matmul(&mut through, &dout64, &weight64, None, m, k, n, false, false, false, 1);
                cpu::gelu::backward(&mut want, &through, &wide(&before), activation);
                if !(n.is_multiple_of(4) && k.is_multiple_of(4)) {
                    c.expect("matmul::backward_input", &dinp, &through, sum_tolerance(n, 4.0));
                }
                c.expect("matmul::backward_input_gelu", &dhidden, &want, 4.0 * sum_tolerance(n, 4.0) + 64.0 * EPS);
                s.finish(c)
            });
        }
    }
    Ok(())
}

/// Added to what was there: a sum over `rows`, in one stage or two.
pub(super) fn column_sum(p: &mut Plan) -> Result<()> {
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
    for (i, (rows, cols)) in p.pick(&shapes, &[6, 11]) {
        p.add(move |s| {
            let mut random = Random::new(100 + i as u64);
            let (inp, before) = (random.vec(rows * cols), random.vec(cols));
            let mut c = Case::new(s.gpu, format!("rows {rows}, cols {cols}"), ops::scratch_len(rows, cols))?;
            let mut want = wide(&before);
            cpu::column_sum::column_sum(&mut want, &wide(&inp), rows, cols);
            let (inp, out) = (c.input("inp", &inp)?, c.input("out", &before)?);
            c.run(Launch::natural(s.gpu), |r| ops::column_sum::forward(r, &out, &inp, rows, cols))?;
            c.expect("column_sum::forward", &out, &want, sum_tolerance(rows, 4.0));
            let row = random.vec(cols);
            let (row_view, spread) = (c.input("row", &row)?, c.output("spread", rows * cols)?);
            c.run(Launch::natural(s.gpu), |r| ops::column_sum::spread(r, &spread, &row_view, rows, cols))?;
            c.expect("column_sum::spread", &spread, &wide(&row.repeat(rows)), 0.0);
            s.finish(c)
        });
    }
    Ok(())
}
