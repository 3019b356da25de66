//! Pooling over windows of images and over tokens, in f32 and f16.

use super::formats::{formats, prefix, rounded, stored_eps};
use super::harness::{Case, EPS, Launch, Random, sum_tolerance, wide};
use super::{Plan, Stem, stem};
use crate::cpu;
use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::ops;
use crate::ops::{avg_pool, blur, max_pool};

pub(super) const STEMS: &[Stem] = &[
    stem("max_pool", max_pool, &["max_pool::forward", "max_pool::backward"]),
    stem("avg_pool", avg_pool, &["avg_pool::forward", "avg_pool::backward"]),
    stem("blur", blur, &["blur::forward", "blur::backward"]),
    stem("pool", pool, &["pool::forward", "pool::backward"]),
];

/// Both variants in every format.
fn launches(p: &Plan) -> Vec<(Launch, Element)> {
    let natural = Launch::natural(p.gpu);
    let both = [natural, Launch { for_cpu: !natural.for_cpu, ..natural }];
    both.into_iter().flat_map(|launch| formats(p.gpu).iter().map(move |element| (launch, *element))).collect()
}

fn max_pool(p: &mut Plan) -> Result<()> {
    use max_pool::Padding::{Even, Same};
    // Batch, height, width, channels, kernel, stride, padding, whether that counts as zeros: the ResNet's own first; windows that
    // overlap, touch, leave pixels out.
    let shapes = [
        ([2, 8, 9, 16, 3, 2], Even(1), false),
        ([1, 7, 7, 65, 3, 2], Even(1), false),
        ([3, 5, 4, 3, 3, 2], Even(1), true),
        ([1, 1, 1, 64, 3, 2], Even(1), true),
        ([2, 6, 7, 63, 2, 2], Even(0), false),
        ([1, 9, 9, 5, 3, 1], Even(1), true),
        ([1, 11, 10, 260, 2, 3], Even(0), false),
        ([2, 13, 6, 12, 5, 3], Even(2), false),
        ([1, 8, 7, 20, 3, 2], Same, false),
        ([2, 9, 6, 5, 3, 2], Same, true),
    ];
    for (launch, element) in launches(p) {
        for (_, ([batch, height, width, channels, kernel, stride], padding, zeros)) in p.pick(&shapes, &[1, 5, 8]) {
            p.add(move |s| {
                let dims = max_pool::Dims { batch, height, width, channels, kernel, stride, padding, zeros };
                let mut random = Random::new((height * channels) as u64);
                // Few different values, most of them negative: many ties, and nothing to be said for a zero from outside, unless it
                // counts.
                let least = if zeros { 3.0 } else { 4.5 };
                let inp: Vec<f32> = random.indices(dims.in_len(), 5).iter().map(|&v| v as f32 - least).collect();
                let dout = rounded(random.vec(dims.out_len()), element);
                let (mut want, mut tap) = (vec![0.0; dims.out_len()], vec![0; dims.out_len()]);
                cpu::max_pool::forward(&mut want, &mut tap, &wide(&inp), dims);
                let mut want_grad = vec![0.0; dims.in_len()];
                cpu::max_pool::backward(&mut want_grad, &wide(&dout), &tap, dims);
                let name = format!(
                    "{}{batch}×{height}×{width}×{channels}, kernel {kernel}, stride {stride}, padding {padding:?}, zeros {zeros}, {}",
                    prefix(element),
                    launch.suffix()
                );
                let mut c = Case::new(s.gpu, name, 0)?;
                let [inp, dout] = [c.input_as("inp", element, &inp)?, c.input_as("dout", element, &dout)?];
                let [out, tap_view] = [c.output_as("out", element, want.len())?, c.output("tap", want.len())?];
                let dinp = c.output_as("dinp", element, want_grad.len())?;
                c.run(launch, |r| {
                    ops::max_pool::forward(r, &out, &tap_view, &inp, dims)?;
                    ops::max_pool::backward(r, &dinp, &dout, &tap_view, dims)
                })?;
                c.expect("max_pool::forward", &out, &want, 0.0);
                c.expect_bits("max_pool::forward", &tap_view, &[0..tap.len()], &tap);
                // A sum over the windows of a pixel.
                c.expect(
                    "max_pool::backward",
                    &dinp,
                    &want_grad,
                    stored_eps(element) + sum_tolerance(kernel * kernel, 0.0),
                );
                s.finish(c)
            });
        }
    }
    Ok(())
}

fn avg_pool(p: &mut Plan) -> Result<()> {
    // Batch, height, width, channels, kernel, stride; whether the last windows may be partly outside; padding.
    let shapes = [
        ([2, 8, 6, 16, 2, 2], false, 0),
        ([2, 7, 9, 65, 2, 2], true, 0),
        ([1, 7, 9, 64, 2, 2], false, 0),
        ([3, 1, 1, 63, 2, 2], true, 0),
        ([1, 7, 7, 5, 7, 7], false, 0),
        ([2, 10, 8, 12, 3, 2], true, 0),
        ([1, 5, 5, 260, 1, 3], true, 0),
        ([1, 9, 10, 3, 2, 3], true, 0),
        ([2, 8, 7, 12, 3, 2], false, 1),
        ([1, 1, 5, 66, 3, 1], false, 1),
        ([1, 9, 9, 4, 5, 3], false, 2),
    ];
    for (launch, element) in launches(p) {
        for (_, ([batch, height, width, channels, kernel, stride], ceil_mode, padding)) in p.pick(&shapes, &[1, 8]) {
            p.add(move |s| {
                let dims = avg_pool::Dims { batch, height, width, channels, kernel, stride, padding, ceil_mode };
                let mut random = Random::new((height * channels) as u64);
                let [inp, dout] = [dims.in_len(), dims.out_len()].map(|len| rounded(random.vec(len), element));
                let (mut want, mut want_grad) = (vec![0.0; dims.out_len()], vec![0.0; dims.in_len()]);
                cpu::avg_pool::forward(&mut want, &wide(&inp), dims);
                cpu::avg_pool::backward(&mut want_grad, &wide(&dout), dims);
                let name = format!(
                    "{}{batch}×{height}×{width}×{channels}, kernel {kernel}, stride {stride}{}{}, {}",
                    prefix(element),
                    if ceil_mode { ", ceil" } else { "" },
                    if padding > 0 { format!(", padding {padding}") } else { String::new() },
                    launch.suffix()
                );
                let mut c = Case::new(s.gpu, name, 0)?;
                let [inp, dout] = [c.input_as("inp", element, &inp)?, c.input_as("dout", element, &dout)?];
                let out = c.output_as("out", element, want.len())?;
                let dinp = c.output_as("dinp", element, want_grad.len())?;
                c.run(launch, |r| {
                    ops::avg_pool::forward(r, &out, &inp, dims)?;
                    ops::avg_pool::backward(r, &dinp, &dout, dims)
                })?;
                // Sums over a window, and a division.
                let tolerance = stored_eps(element) + sum_tolerance(kernel * kernel, 3.0);
                c.expect("avg_pool::forward", &out, &want, tolerance);
                c.expect("avg_pool::backward", &dinp, &want_grad, tolerance);
                s.finish(c)
            });
        }
    }
    Ok(())
}

fn blur(p: &mut Plan) -> Result<()> {
    use blur::Filter::{Mean, Reflected, Zeros};
    // Batch, height, width, channels, stride: sides that the stride divides and others, down to the smallest that reflects.
    let shapes = [
        ([2, 8, 6, 16, 2], Reflected),
        ([2, 7, 9, 65, 2], Reflected),
        ([1, 2, 3, 63, 2], Reflected),
        ([1, 3, 2, 260, 1], Reflected),
        ([1, 10, 11, 12, 3], Reflected),
        ([3, 7, 8, 12, 2], Zeros),
        ([1, 1, 5, 3, 2], Zeros),
        ([2, 9, 8, 66, 2], Mean),
        ([1, 1, 1, 64, 2], Mean),
        ([1, 5, 6, 5, 1], Mean),
    ];
    for (launch, element) in launches(p) {
        for (_, ([batch, height, width, channels, stride], filter)) in p.pick(&shapes, &[1, 2, 5]) {
            p.add(move |s| {
                let dims = blur::Dims { batch, height, width, channels, stride, filter };
                let mut random = Random::new((height * channels) as u64);
                let [inp, dout] = [dims.in_len(), dims.out_len()].map(|len| rounded(random.vec(len), element));
                let (mut want, mut want_grad) = (vec![0.0; dims.out_len()], vec![0.0; dims.in_len()]);
                cpu::blur::forward(&mut want, &wide(&inp), dims);
                cpu::blur::backward(&mut want_grad, &wide(&dout), dims);
                let shape = format!("{batch}×{height}×{width}×{channels}, stride {stride}, {filter:?}");
                let mut c = Case::new(s.gpu, format!("{}{shape}, {}", prefix(element), launch.suffix()), 0)?;
                let [inp, dout] = [c.input_as("inp", element, &inp)?, c.input_as("dout", element, &dout)?];
                let out = c.output_as("out", element, want.len())?;
                let dinp = c.output_as("dinp", element, want_grad.len())?;
                c.run(launch, |r| {
                    ops::blur::forward(r, &out, &inp, dims)?;
                    ops::blur::backward(r, &dinp, &dout, dims)
                })?;
                // A sum of nine products, whose weights are rounded.
                let tolerance = stored_eps(element) + sum_tolerance(9, 5.0);
                c.expect("blur::forward", &out, &want, tolerance);
                c.expect("blur::backward", &dinp, &want_grad, tolerance);
                s.finish(c)
            });
        }
    }
    Ok(())
}

/// What tokens and what they are pooled to hold: both f32, or tokens in f16, and features in either.
fn pool_formats(p: &Plan) -> &'static [[Element; 2]] {
    let all: &[[Element; 2]] =
        &[[Element::Word, Element::Word], [Element::Half, Element::Word], [Element::Half, Element::Half]];
    if formats(p.gpu).contains(&Element::Half) { all } else { &all[..1] }
}

fn pool(p: &mut Plan) -> Result<()> {
    let formats = pool_formats(p);
    for (launch, &[tokens_in, pooled]) in
        Launch::all(p.gpu).into_iter().flat_map(|l| formats.iter().map(move |f| (l, f)))
    {
        let shapes = [(1, 2, 1), (3, 5, 65), (2, 197, 63), (65, 3, 3), (2, 4, 768), (1, 65, 196)];
        for (_, (batch, tokens, dim)) in p.pick(&shapes, &[1, 4]) {
            // The last two stand beside other columns.
            let runs = [(0, 1, dim, 0), (1, tokens - 1, dim, 0), (0, tokens, dim, 0), (1, 1, dim, 0)];
            let beside = [(0, 1, 2 * dim, 0), (1, tokens - 1, 2 * dim + 1, dim)];
            for (_, (first, count, stride, column)) in p.pick(&[&runs[..], &beside].concat(), &[1, 5]) {
                p.add(move |s| {
                    let mut random = Random::new((batch * tokens * dim) as u64);
                    let dims = ops::pool::Dims { batch, tokens, dim, first, count, stride, column };
                    let inp = rounded(random.vec(batch * tokens * dim), tokens_in);
                    let dout = rounded(random.vec(batch * stride), pooled);
                    let kept = rounded(random.vec(batch * stride), pooled);
                    let before = rounded(random.vec(batch * tokens * dim), tokens_in);
                    let run = first..first + count;
                    let (mut want, mut want_grad) = (vec![0.0; batch * dim], vec![0.0; batch * tokens * dim]);
                    cpu::pool::forward(&mut want, &wide(&inp), run.clone(), batch, tokens, dim);
                    let mut want_out = wide(&kept);
                    for (row, own) in want_out.chunks_mut(stride).zip(want.chunks(dim)) {
                        row[column..column + dim].copy_from_slice(own);
                    }
                    let own = wide(&dout)
                        .chunks(stride)
                        .flat_map(|row| row[column..column + dim].to_vec())
                        .collect::<Vec<_>>();
                    cpu::pool::backward(&mut want_grad, &own, run.clone(), batch, tokens, dim);
                    let mut want_added = wide(&before);
                    cpu::pool::backward(&mut want_added, &own, run.clone(), batch, tokens, dim);
                    let kinds = [tokens_in, pooled].map(Element::scalar).join(" to ");
                    let name = format!(
                        "{kinds}, tokens {run:?}, {batch}×{tokens}×{dim} to {column} of {stride}, {}",
                        launch.suffix()
                    );
                    let mut c = Case::new(s.gpu, name, 0)?;
                    let [inp, added] = [c.input_as("inp", tokens_in, &inp)?, c.input_as("before", tokens_in, &before)?];
                    let dout = c.input_as("dout", pooled, &dout)?;
                    let out = match stride == dim {
                        true => c.output_as("out", pooled, want_out.len())?,
                        false => c.input_as("out", pooled, &kept)?,
                    };
                    let dinp = c.output_as("dinp", tokens_in, want_grad.len())?;
                    let (eps, eps_pooled) = (stored_eps(tokens_in), stored_eps(pooled));
                    c.run(launch, |r| {
                        ops::pool::forward(r, &out, &inp, dims)?;
                        ops::pool::backward(r, &dinp, &dout, dims, false)?;
                        ops::pool::backward(r, &added, &dout, dims, true)
                    })?;
                    // A mean over tokens; backward is one division, good to 2.5 units in the last place, and a sum.
                    c.expect("pool::forward", &out, &want_out, eps_pooled + sum_tolerance(tokens, 4.0));
                    c.expect("pool::backward", &dinp, &want_grad, eps + 3.0 * EPS);
                    c.expect("pool::backward", &added, &want_added, eps + 4.0 * EPS);
                    s.finish(c)
                });
            }
        }
    }
    Ok(())
}
