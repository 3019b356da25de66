//! Layer norm in both variants, in f32 and f16, and rows at unit length.

use super::formats::{formats, prefix, rounded, stored_eps};
use super::harness::{Case, EPS, Launch, Random, narrow, sum_tolerance, wide};
use super::{Plan, Stem, Suite, stem};
use crate::cpu::{self, layer_norm, rms_norm as reference};
use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::ops;

pub(super) const STEMS: &[Stem] = &[
    stem(
        "layer_norm",
        layer_norm,
        &["layer_norm::forward", "layer_norm::backward_input", "layer_norm::backward_params"],
    ),
    stem("rms_norm", rms_norm, &["rms_norm::forward", "rms_norm::backward_input", "rms_norm::backward_params"]),
    stem("group_norm", group_norm, &["group_norm::forward", "group_norm::backward"]),
    stem("standardize", standardize, &["standardize::forward", "standardize::backward"]),
    stem("l2_normalize", l2_normalize, &["l2_normalize::forward", "l2_normalize::backward"]),
];

/// `[rows, cols]` around `offset`, each row with a deviation of about 1, so that `rstd` amplifies nothing by chance.
fn rows_around(random: &mut Random, offset: f32, rows: usize, cols: usize) -> Vec<f32> {
    let noise = random.vec(rows * cols);
    let side = |c: usize| if c.is_multiple_of(2) { 1.0 } else { -1.0 };
    (0..rows * cols).map(|i| offset + side(i % cols) + 0.5 * noise[i]).collect()
}

fn layer_norm(p: &mut Plan) -> Result<()> {
    let shapes = [(1, 3), (3, 1), (1, 768), (63, 65), (65, 197), (197, 63), (3, 768), (130, 3), (9, 4), (67, 260)];
    let formats = formats(p.gpu);
    for (launch, &element) in Launch::reductions(p.gpu).into_iter().flat_map(|l| formats.iter().map(move |e| (l, e))) {
        for (i, (rows, cols)) in p.pick(&shapes, &[3, 9]) {
            for (_, offset) in p.pick(&[0.0, 1e3], &[1]) {
                p.add(move |s| case(s, launch, [Element::Word, element], 200 + i as u64, [rows, cols], offset));
            }
        }
    }
    // A norm inside a block reads f16, too; its offsets must be values that f16 tells apart.
    for (launch, &element) in Launch::reductions(p.gpu).into_iter().flat_map(|l| formats.iter().map(move |e| (l, e))) {
        for (i, (rows, cols)) in p.pick(&shapes, &[3, 9]).into_iter().filter(|_| formats.len() > 1) {
            p.add(move |s| case(s, launch, [Element::Half, element], 300 + i as u64, [rows, cols], 0.0));
        }
    }
    Ok(())
}

/// `from` is what the norm reads, f32 for the stream; `element` is what it writes and what its gradient comes in.
fn case(
    s: &mut Suite,
    launch: Launch,
    [from, element]: [Element; 2],
    seed: u64,
    [rows, cols]: [usize; 2],
    offset: f32,
) -> Result<()> {
    let mut random = Random::new(seed);
    // One column has no variance at all: a large eps keeps rstd, and with it the noise, near 1.
    let eps: f32 = if cols == 1 { 1.0 } else { 1e-6 };
    let dims = ops::layer_norm::Dims { rows, cols, eps };
    let x = rounded(rows_around(&mut random, offset, rows, cols), from);
    let (weight, bias) = (random.vec(cols), random.vec(cols));
    let dout = rounded(random.vec(rows * cols), element);
    let (x64, weight64, dout64) = (wide(&x), wide(&weight), wide(&dout));
    let kind = if from == Element::Half { "from f16, " } else { "" };
    let name = format!("{}{kind}rows {rows}, cols {cols}, offset {offset}, {}", prefix(element), launch.suffix());
    let mut c = Case::new(s.gpu, name, ops::scratch_len(rows, cols))?;
    let [inp, weight, bias_view] = [c.input_as("inp", from, &x)?, c.input("weight", &weight)?, c.input("bias", &bias)?];
    let dout = c.input_as("dout", element, &dout)?;

    let out = c.output_as("out", element, rows * cols)?;
    let [mean, rstd] = [c.output("mean", rows)?, c.output("rstd", rows)?];
    let (mut want, mut mean64, mut rstd64) = (vec![0.0; rows * cols], vec![0.0; rows], vec![0.0; rows]);
    layer_norm::forward(&mut want, &mut mean64, &mut rstd64, &x64, &weight64, &wide(&bias), rows, cols, f64::from(eps));
    c.run(launch, |r| ops::layer_norm::forward(r, &out, &mean, &rstd, &inp, &weight, &bias_view, dims))?;
    // Relative to the row's deviation of 1: the offset's rounding in the mean shifts the whole row, and a mean near zero is
    // the remainder of terms of that size.
    let forward = sum_tolerance(cols, 8.0) * (1.0 + f64::from(offset));
    let size = mean64.iter().map(|m| m.abs()).sum::<f64>() / rows as f64;
    c.expect("layer_norm::forward", &out, &want, stored_eps(element) + forward);
    c.expect("layer_norm::forward", &mean, &mean64, sum_tolerance(cols, 4.0) * (1.0 + 1.0 / size));
    c.expect("layer_norm::forward", &rstd, &rstd64, forward);

    // Backward starts from the same saved statistics as the reference, so the offset costs no more than x itself.
    let (mean32, rstd32) = (narrow(&mean64), narrow(&rstd64));
    let (mean64, rstd64) = (wide(&mean32), wide(&rstd32));
    let [mean, rstd] = [c.input("mean", &mean32)?, c.input("rstd", &rstd32)?];
    for accumulate in [false, true] {
        // One column: the gradient is exactly zero, and an error relative to zero says nothing.
        if cols == 1 && !accumulate {
            continue;
        }
        let before = rounded(random.vec(rows * cols), from);
        let dinp = match accumulate {
            true => c.input_as("dinp", from, &before)?,
            false => c.output_as("dinp", from, rows * cols)?,
        };
        let mut want = if accumulate { wide(&before) } else { vec![0.0; rows * cols] };
        layer_norm::backward_input(&mut want, &dout64, &x64, &weight64, &mean64, &rstd64, rows, cols);
        c.run(launch, |r| {
            ops::layer_norm::backward_input(r, &dinp, &dout, &inp, &weight, &mean, &rstd, dims, accumulate)
        })?;
        // Two sums over cols, and three terms of about the same size that partly cancel.
        c.expect("layer_norm::backward_input", &dinp, &want, stored_eps(from) + sum_tolerance(cols, 12.0));
    }

    let (before_weight, before_bias) = (random.vec(cols), random.vec(cols));
    let [dweight, dbias] = [c.input("dweight", &before_weight)?, c.input("dbias", &before_bias)?];
    let (mut want_weight, mut want_bias) = (wide(&before_weight), wide(&before_bias));
    layer_norm::backward_params(&mut want_weight, &mut want_bias, &dout64, &x64, &mean64, &rstd64, rows, cols);
    c.run(launch, |r| ops::layer_norm::backward_params(r, &dweight, &dbias, &dout, &inp, &mean, &rstd, dims))?;
    // A sum over rows of a product of three.
    c.expect("layer_norm::backward_params", &dweight, &want_weight, sum_tolerance(rows, 4.0));
    c.expect("layer_norm::backward_params", &dbias, &want_bias, sum_tolerance(rows, 4.0) + EPS);
    s.finish(c)
}

fn rms_norm(p: &mut Plan) -> Result<()> {
    let shapes = [(1, 1), (1, 3), (3, 1), (1, 768), (63, 65), (65, 197), (197, 63), (130, 3), (9, 4), (67, 260)];
    let formats = formats(p.gpu);
    let mut cases = Vec::new();
    for launch in Launch::reductions(p.gpu) {
        for from in formats {
            cases.extend(formats.iter().map(|to| (launch, [*from, *to])));
        }
    }
    for (launch, elements) in cases {
        for (i, (rows, cols)) in p.pick(&shapes, &[4, 9]) {
            p.add(move |s| rms_case(s, launch, elements, 400 + i as u64, [rows, cols]));
        }
    }
    Ok(())
}

/// What the norm reads, and what it writes and its gradient comes in, are of these two formats.
fn rms_case(
    s: &mut Suite,
    launch: Launch,
    [from, element]: [Element; 2],
    seed: u64,
    [rows, cols]: [usize; 2],
) -> Result<()> {
    let mut random = Random::new(seed);
    let dims = ops::layer_norm::Dims { rows, cols, eps: 1e-5 };
    let (x, weight) = (rounded(rows_around(&mut random, 0.5, rows, cols), from), random.vec(cols));
    let dout = rounded(random.vec(rows * cols), element);
    let (x64, weight64, dout64) = (wide(&x), wide(&weight), wide(&dout));
    let kind = if from == Element::Half { "from f16, " } else { "" };
    let name = format!("{}{kind}rows {rows}, cols {cols}, {}", prefix(element), launch.suffix());
    let mut c = Case::new(s.gpu, name, ops::scratch_len(rows, cols))?;
    let [inp, weight, dout] =
        [c.input_as("inp", from, &x)?, c.input("weight", &weight)?, c.input_as("dout", element, &dout)?];

    let (out, rstd) = (c.output_as("out", element, rows * cols)?, c.output("rstd", rows)?);
    let (mut want, mut rstd64) = (vec![0.0; rows * cols], vec![0.0; rows]);
    reference::forward(&mut want, &mut rstd64, &x64, &weight64, rows, cols, f64::from(dims.eps));
    c.run(launch, |r| ops::rms_norm::forward(r, &out, &rstd, &inp, &weight, dims))?;
    // A sum of squares, a root, a division and two products.
    c.expect("rms_norm::forward", &out, &want, stored_eps(element) + sum_tolerance(cols, 8.0));
    c.expect("rms_norm::forward", &rstd, &rstd64, sum_tolerance(cols, 8.0));

    let rstd32 = narrow(&rstd64);
    let (rstd64, rstd) = (wide(&rstd32), c.input("saved rstd", &rstd32)?);
    for accumulate in [false, true] {
        // One column: only eps keeps the gradient from being zero, and an error relative to that says nothing.
        if cols == 1 && !accumulate {
            continue;
        }
        let before = rounded(random.vec(rows * cols), from);
        let dinp = match accumulate {
            true => c.input_as("dinp", from, &before)?,
            false => c.output_as("dinp", from, rows * cols)?,
        };
        let mut want = if accumulate { wide(&before) } else { vec![0.0; rows * cols] };
        reference::backward_input(&mut want, &dout64, &x64, &weight64, &rstd64, rows, cols);
        c.run(launch, |r| ops::rms_norm::backward_input(r, &dinp, &dout, &inp, &weight, &rstd, dims, accumulate))?;
        // A sum over cols, and two terms of about the same size that partly cancel.
        c.expect("rms_norm::backward_input", &dinp, &want, stored_eps(from) + sum_tolerance(cols, 12.0));
    }

    let before = random.vec(cols);
    let (dweight, mut want) = (c.input("dweight", &before)?, wide(&before));
    reference::backward_params(&mut want, &dout64, &x64, &rstd64, rows, cols);
    c.run(launch, |r| ops::rms_norm::backward_params(r, &dweight, &dout, &inp, &rstd, dims))?;
    // A sum over rows of a product of three.
    c.expect("rms_norm::backward_params", &dweight, &want, sum_tolerance(rows, 4.0));
    s.finish(c)
}

fn l2_normalize(p: &mut Plan) -> Result<()> {
    for launch in Launch::reductions(p.gpu) {
        let shapes = [(1, 1), (3, 3), (2, 63), (65, 65), (5, 197), (3, 768)];
        for (_, (rows, cols)) in p.pick(&shapes, &[4]) {
            // Features of ordinary size, and some whose squares f32 can't hold.
            for (_, size) in p.pick(&[1.0, 1e25, 1e-25], &[0]) {
                // Below 1e-12 the norm is clamped: so would every one of the last size be.
                if size < 1e-12 && rows * cols > 9 {
                    continue;
                }
                p.add(move |s| {
                    let mut random = Random::new((rows * cols) as u64);
                    let inp: Vec<f32> = random.vec(rows * cols).iter().map(|v| v * size).collect();
                    let dout = random.vec(rows * cols);
                    let (mut want, mut scale64) = (vec![0.0; rows * cols], vec![0.0; rows]);
                    cpu::l2_normalize::forward(&mut want, &mut scale64, &wide(&inp), rows, cols);
                    let name = format!("{rows}×{cols}, size {size:e}, {}", launch.suffix());
                    let mut c = Case::new(s.gpu, name, 0)?;
                    let inp = c.input("inp", &inp)?;
                    let [out, scale] = [c.output("out", rows * cols)?, c.output("scale", rows)?];
                    c.run(launch, |r| ops::l2_normalize::forward(r, &out, &scale, &inp, rows, cols))?;
                    // A sum of squares, a root and two divisions.
                    c.expect("l2_normalize::forward", &out, &want, sum_tolerance(cols, 8.0));
                    c.expect("l2_normalize::forward", &scale, &scale64, sum_tolerance(cols, 8.0));
                    if size == 1.0 && cols > 1 {
                        let (out32, scale32) = (narrow(&want), narrow(&scale64));
                        let mut want_grad = vec![0.0; rows * cols];
                        let (out64, scale64) = (wide(&out32), wide(&scale32));
                        cpu::l2_normalize::backward(&mut want_grad, &wide(&dout), &out64, &scale64, rows, cols);
                        let [dout, out, scale] =
                            [c.input("dout", &dout)?, c.input("saved_out", &out32)?, c.input("saved_scale", &scale32)?];
                        let dinp = c.output("dinp", rows * cols)?;
                        c.run(launch, |r| ops::l2_normalize::backward(r, &dinp, &dout, &out, &scale, rows, cols))?;
                        // A sum over cols, and a difference of terms of about the same size.
                        c.expect("l2_normalize::backward", &dinp, &want_grad, sum_tolerance(cols, 12.0));
                    }
                    s.finish(c)
                });
            }
        }
    }
    Ok(())
}

fn group_norm(p: &mut Plan) -> Result<()> {
    // Images, rows of each, columns, groups: one channel to a group, several, all; below, at and past workgroups and chunks.
    let shapes = [
        [1, 1, 3, 1],
        [2, 5, 4, 4],
        [3, 49, 36, 3],
        [2, 65, 12, 2],
        [1, 300, 64, 32],
        [2, 197, 65, 5],
        [1, 5000, 8, 2],
        [2, 9, 260, 1],
        [2, 70, 768, 32],
    ];
    let launches = Launch::reductions(p.gpu);
    for (launch, &element) in launches.into_iter().flat_map(|l| formats(p.gpu).iter().map(move |e| (l, e))) {
        for (i, [batch, rows, cols, groups]) in p.pick(&shapes, &[2, 3, 5]) {
            p.add(move |s| {
                let relu = i % 2 == 0;
                let mut random = Random::new((batch * rows * cols) as u64);
                let dims = ops::group_norm::Dims { batch, rows, cols, groups, eps: 1e-5 };
                let shape = [batch, rows, cols, groups];
                let inp = rounded(rows_around(&mut random, 2.0, batch * rows, cols), element);
                let dout = rounded(random.vec(inp.len()), element);
                let [weight, bias, before] = [0; 3].map(|_| random.vec(cols));
                let (inp64, weight64, dout64) = (wide(&inp), wide(&weight), wide(&dout));
                let [mut want, mut dinp] = [0; 2].map(|_| vec![0.0; inp.len()]);
                let [mut mean, mut rstd] = [0; 2].map(|_| vec![0.0; batch * cols]);
                let (bias64, eps) = (wide(&bias), f64::from(dims.eps));
                cpu::group_norm::forward(&mut want, &mut mean, &mut rstd, &inp64, &weight64, &bias64, relu, shape, eps);
                // Backward starts from the same saved output as the reference.
                let saved = rounded(narrow(&want), element);
                let (mut dweight, mut dbias) = (wide(&before), wide(&before));
                let (saved64, masked) = (wide(&saved), relu);
                cpu::group_norm::backward(
                    &mut dinp,
                    &mut dweight,
                    &mut dbias,
                    &dout64,
                    masked.then_some(saved64.as_slice()),
                    &inp64,
                    &weight64,
                    &mean,
                    &rstd,
                    shape,
                );
                let name = format!("{}{batch}×{rows}×{cols}, {groups} groups, {}", prefix(element), launch.suffix());
                let mut c = Case::new(s.gpu, name, ops::group_norm::scratch_len(dims))?;
                let [x, g] = [c.input_as("inp", element, &inp)?, c.input_as("dout", element, &dout)?];
                let saved = c.input_as("saved out", element, &saved)?;
                let [w, b] = [c.input("weight", &weight)?, c.input("bias", &bias)?];
                let [y, dx] = [c.output_as("out", element, want.len())?, c.output_as("dinp", element, dinp.len())?];
                let [mu, r] = [c.output("mean", mean.len())?, c.output("rstd", rstd.len())?];
                let [dw, db] = [c.input("dweight", &before)?, c.input("dbias", &before)?];
                let room = [("slope", 2), ("weight share", 1), ("bias share", 1)];
                let [slope, first, second] = room.map(|(name, times)| c.output(name, times * batch * cols));
                let room = [slope?, first?, second?];
                c.run(launch, |rec| {
                    ops::group_norm::forward(rec, &y, &mu, &r, &x, &w, &b, relu, dims)?;
                    let out = relu.then_some(&saved);
                    ops::group_norm::backward(rec, &dx, &dw, &db, room.each_ref(), &g, out, &x, &w, &mu, &r, dims)
                })?;
                // Sums over a group's pixels and channels, of values and of squares and of products, around 2.
                let group = rows * cols / groups;
                let sums = sum_tolerance(group, 8.0);
                c.expect("group_norm::forward", &y, &want, stored_eps(element) + 2.0 * sums);
                c.expect("group_norm::forward", &mu, &mean, sums);
                c.expect("group_norm::forward", &r, &rstd, 2.0 * sums);
                c.expect("group_norm::backward", &dx, &dinp, stored_eps(element) + 4.0 * sums);
                c.expect("group_norm::backward", &dw, &dweight, 2.0 * sums + sum_tolerance(batch * rows, 8.0));
                c.expect("group_norm::backward", &db, &dbias, sum_tolerance(batch * rows, 4.0));
                // Between its kernels.
                room.iter().for_each(|view| c.expect_bits("group_norm::backward", view, &[], &[]));
                s.finish(c)
            });
        }
    }
    Ok(())
}

fn standardize(p: &mut Plan) -> Result<()> {
    let shapes = [(1, 3), (3, 1), (1, 768), (63, 65), (65, 147), (8, 1152), (9, 4)];
    let launches = Launch::reductions(p.gpu);
    for (launch, &element) in launches.into_iter().flat_map(|l| formats(p.gpu).iter().map(move |e| (l, e))) {
        for (i, (rows, cols)) in p.pick(&shapes, &[3, 5]) {
            p.add(move |s| {
                let mut random = Random::new(700 + i as u64);
                // Where a row is constant, its deviation is eps alone.
                let dims = ops::standardize::Dims { rows, cols, eps: 1e-4 };
                let inp = rows_around(&mut random, 0.5, rows, cols);
                let [dout, before] = [0; 2].map(|_| random.vec(rows * cols));
                let (inp64, eps) = (wide(&inp), f64::from(dims.eps));
                let (mut want, mut dinp) = (vec![0.0; inp.len()], wide(&before));
                cpu::standardize::forward(&mut want, &inp64, rows, cols, eps);
                cpu::standardize::backward(&mut dinp, &wide(&dout), &inp64, rows, cols, eps);
                let name = format!("{}{rows}×{cols}, {}", prefix(element), launch.suffix());
                let mut c = Case::new(s.gpu, name, 0)?;
                let [x, g, dx] = [c.input("inp", &inp)?, c.input("dout", &dout)?, c.input("dinp", &before)?];
                let [y, cleared] = [c.output_as("out", element, want.len())?, c.output("cleared", want.len())?];
                c.run(launch, |r| {
                    ops::standardize::forward(r, &y, &x, dims)?;
                    ops::standardize::clear(r, &cleared, dims)?;
                    ops::standardize::backward(r, &dx, &g, &x, dims)
                })?;
                // Sums over a row, of values, of squares and of products.
                let sums = sum_tolerance(cols, 8.0);
                c.expect("standardize::forward", &y, &want, stored_eps(element) + 2.0 * sums);
                // One column has no deviation: the remainder is divided by √eps.
                let slope = if cols == 1 { 1.0 / eps.sqrt() } else { 4.0 };
                c.expect("standardize::backward", &dx, &dinp, slope * sums);
                c.expect_bits("standardize::backward", &cleared, &[0..want.len()], &vec![0; want.len()]);
                s.finish(c)
            });
        }
    }
    Ok(())
}
