//! Kernels over the channels of images: gates, responses, windows as rows, convolutions along channels.

use super::formats::{formats, prefix, rounded, stored_eps};
use super::harness::{Case, EPS, Launch, Random, sum_tolerance, wide};
use super::{Plan, Stem, stem};
use crate::cpu;
use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::ops;
use crate::ops::depthwise::Padding;
use crate::ops::gate::Kind;
use crate::ops::unfold::Dims as Windows;

pub(super) const STEMS: &[Stem] = &[
    stem("gate", gate, &["gate::forward", "gate::backward"]),
    stem("grn", grn, &["grn::forward", "grn::backward"]),
    stem("slice", slice, &["slice::forward", "slice::backward", "slice::place"]),
    stem(
        "split_attention",
        split_attention,
        &[
            "split_attention::weigh",
            "split_attention::forward",
            "split_attention::backward_input",
            "split_attention::backward_logits",
        ],
    ),
    stem("unfold", unfold, &["unfold::forward", "unfold::backward"]),
    stem("eca", eca, &["eca::forward", "eca::backward_input", "eca::backward_weight"]),
];

/// Images, rows of each, columns: below, at and past workgroups and chunks.
const SHAPES: [[usize; 3]; 9] =
    [[1, 1, 1], [2, 1, 4], [3, 5, 65], [2, 49, 36], [1, 197, 3], [2, 300, 8], [3, 65, 260], [1, 5000, 5], [4, 70, 12]];

fn gate(p: &mut Plan) -> Result<()> {
    for (launch, &element) in Launch::all(p.gpu).into_iter().flat_map(|l| formats(p.gpu).iter().map(move |e| (l, e))) {
        for (i, [batch, rows, cols]) in p.pick(&SHAPES, &[2, 3]) {
            p.add(move |s| {
                let kind = if i % 2 == 0 { Kind::Sigmoid } else { Kind::HardSigmoid };
                let mut random = Random::new((batch * rows * cols) as u64);
                let dims = ops::gate::Dims { batch, rows, cols };
                let [inp, shortcut, dout] = [0; 3].map(|_| rounded(random.vec(dims.len()), element));
                // Out to where the gate is open or shut.
                let scale: Vec<f32> = random.vec(batch * cols).into_iter().map(|x| 8.0 * x).collect();
                let (inp64, scale64, dout64) = (wide(&inp), wide(&scale), wide(&dout));
                let name = format!("{}{batch}×{rows}×{cols}, {}", prefix(element), launch.suffix());
                let mut c = Case::new(s.gpu, name, ops::gate::scratch_len(dims))?;
                let [inp_view, dout_view] = [c.input_as("inp", element, &inp)?, c.input_as("dout", element, &dout)?];
                let [shortcut_view, scale_view] =
                    [c.input_as("shortcut", element, &shortcut)?, c.input("scale", &scale)?];
                // An exponential of up to 8, off by 3 + 2·8 units, a division, a product and a sum.
                let tolerance = stored_eps(element) + 24.0 * EPS;
                for (with, relu) in [(false, false), (true, true), (false, true)] {
                    let mut want = vec![0.0; dims.len()];
                    let shortcut64 = wide(&shortcut);
                    let more = with.then_some(shortcut64.as_slice());
                    cpu::gate::forward(&mut want, &inp64, &scale64, more, relu, kind, batch, rows, cols);
                    let out = c.output_as("out", element, want.len())?;
                    let more = with.then_some(&shortcut_view);
                    c.run(launch, |r| ops::gate::forward(r, &out, &inp_view, &scale_view, more, relu, kind, dims))?;
                    c.expect("gate::forward", &out, &want, tolerance);
                }
                // Backward starts from the same saved output as the reference.
                for masked in [false, true] {
                    let saved: Vec<f32> = shortcut.iter().map(|x| x.max(0.0)).collect();
                    let (mut dinp, mut dscale) = (vec![0.0; dims.len()], vec![0.0; batch * cols]);
                    let saved64 = wide(&saved);
                    let out = masked.then_some(saved64.as_slice());
                    cpu::gate::backward(
                        &mut dinp,
                        &mut dscale,
                        &dout64,
                        out,
                        &inp64,
                        &scale64,
                        kind,
                        batch,
                        rows,
                        cols,
                    );
                    let saved_view = c.input_as("saved out", element, &saved)?;
                    let dinp_view = c.output_as("dinp", element, dinp.len())?;
                    let dscale_view = c.output("dscale", dscale.len())?;
                    let out = masked.then_some(&saved_view);
                    c.run(launch, |r| {
                        let gradients = (&dinp_view, &dscale_view);
                        ops::gate::backward(
                            r,
                            gradients.0,
                            gradients.1,
                            &dout_view,
                            out,
                            &inp_view,
                            &scale_view,
                            kind,
                            dims,
                        )
                    })?;
                    c.expect("gate::backward", &dinp_view, &dinp, tolerance);
                    // A sum over rows; where a gate is almost shut or open, its slope is small beside the others.
                    c.expect("gate::backward", &dscale_view, &dscale, 24.0 * EPS + sum_tolerance(rows, 8.0));
                }
                s.finish(c)
            });
        }
    }
    Ok(())
}

fn grn(p: &mut Plan) -> Result<()> {
    let launches = Launch::reductions(p.gpu);
    for (launch, &element) in launches.into_iter().flat_map(|l| formats(p.gpu).iter().map(move |e| (l, e))) {
        for (_, [batch, rows, cols]) in p.pick(&SHAPES, &[2, 3]) {
            p.add(move |s| {
                let mut random = Random::new((batch * rows * cols) as u64);
                let (dims, eps) = (ops::grn::Dims { batch, rows, cols }, 1e-6);
                let mut inp = rounded(random.vec(dims.len()), element);
                // A channel of zeros.
                if cols > 4 {
                    (0..batch * rows).for_each(|row| inp[row * cols + 2] = 0.0);
                }
                let dout = rounded(random.vec(dims.len()), element);
                let [weight, bias, before] = [0; 3].map(|_| random.vec(cols));
                let (inp64, weight64, dout64) = (wide(&inp), wide(&weight), wide(&dout));
                let (mut want, mut norm, mut inverse) =
                    (vec![0.0; dims.len()], vec![0.0; batch * cols], vec![0.0; batch]);
                cpu::grn::forward(
                    &mut want,
                    &mut norm,
                    &mut inverse,
                    &inp64,
                    &weight64,
                    &wide(&bias),
                    f64::from(eps),
                    batch,
                    rows,
                    cols,
                );
                let (mut dinp, mut dweight, mut dbias) = (vec![0.0; dims.len()], wide(&before), wide(&before));
                cpu::grn::backward(
                    &mut dinp,
                    &mut dweight,
                    &mut dbias,
                    &dout64,
                    &inp64,
                    &weight64,
                    &norm,
                    &inverse,
                    batch,
                    rows,
                    cols,
                );
                let name = format!("{}{batch}×{rows}×{cols}, {}", prefix(element), launch.suffix());
                let mut c = Case::new(s.gpu, name, ops::grn::scratch_len(dims))?;
                let [x, g] = [c.input_as("inp", element, &inp)?, c.input_as("dout", element, &dout)?];
                let [w, b] = [c.input("weight", &weight)?, c.input("bias", &bias)?];
                let [y, dx] = [c.output_as("out", element, want.len())?, c.output_as("dinp", element, dinp.len())?];
                let [n, i] = [c.output("norm", norm.len())?, c.output("inverse", batch)?];
                let [dw, db] = [c.input("dweight", &before)?, c.input("dbias", &before)?];
                let room = ["slope", "weight share", "bias share"].map(|name| c.output(name, batch * cols));
                let [slope, first, second] = room;
                let room = [slope?, first?, second?];
                c.run(launch, |r| {
                    ops::grn::forward(r, &y, &n, &i, &x, &w, &b, eps, dims)?;
                    ops::grn::backward(r, &dx, &dw, &db, room.each_ref(), &g, &x, &w, &n, &i, dims)
                })?;
                // Sums over rows, of squares and of products, then over channels.
                let sums = sum_tolerance(rows, 8.0) + sum_tolerance(cols, 8.0);
                c.expect("grn::forward", &y, &want, stored_eps(element) + sums);
                c.expect("grn::forward", &n, &norm, sums);
                c.expect("grn::forward", &i, &inverse, sums);
                c.expect("grn::backward", &dx, &dinp, stored_eps(element) + 2.0 * sums);
                c.expect("grn::backward", &dw, &dweight, 2.0 * sums + sum_tolerance(batch, 0.0));
                c.expect("grn::backward", &db, &dbias, sum_tolerance(batch * rows, 4.0));
                // Between its kernels.
                room.iter().for_each(|view| c.expect_bits("grn::backward", view, &[], &[]));
                s.finish(c)
            });
        }
    }
    Ok(())
}

/// What images and rows hold.
fn window_formats(p: &Plan) -> &'static [[Element; 2]] {
    use Element::{Half, Word};
    let all: &[[Element; 2]] = &[[Word, Word], [Half, Word], [Half, Half]];
    if formats(p.gpu).contains(&Half) { all } else { &all[..1] }
}

fn slice(p: &mut Plan) -> Result<()> {
    // Rows, columns, the first that is meant, how many.
    let shapes = [[1, 1, 0, 1], [5, 65, 3, 61], [49, 36, 12, 24], [197, 7, 6, 1], [3, 1100, 4, 1000], [1200, 12, 0, 4]];
    for (launch, &element) in Launch::all(p.gpu).into_iter().flat_map(|l| formats(p.gpu).iter().map(move |e| (l, e))) {
        for (_, [rows, pitch, first, count]) in p.pick(&shapes, &[1, 2]) {
            p.add(move |s| {
                let dims = ops::slice::Dims { rows, pitch, first, count };
                let mut random = Random::new((rows * pitch) as u64);
                let [whole, part] = [dims.len(), dims.part_len()].map(|len| rounded(random.vec(len), element));
                let name = format!("{}{rows}×{pitch}, {count} from {first}, {}", prefix(element), launch.suffix());
                let mut c = Case::new(s.gpu, name, 0)?;
                let [inp, dout] = [c.input_as("inp", element, &whole)?, c.input_as("dout", element, &part)?];
                let mut want = vec![0.0; part.len()];
                cpu::slice::forward(&mut want, &wide(&whole), dims);
                let out = c.output_as("out", element, want.len())?;
                c.run(launch, |r| ops::slice::forward(r, &out, &inp, dims))?;
                c.expect("slice::forward", &out, &want, 0.0);
                for accumulate in [false, true] {
                    let mut want = wide(&whole);
                    cpu::slice::backward(&mut want, &wide(&part), dims, accumulate);
                    let dinp = match accumulate {
                        true => c.input_as("dinp", element, &whole)?,
                        false => c.output_as("dinp", element, want.len())?,
                    };
                    c.run(launch, |r| ops::slice::backward(r, &dinp, &dout, dims, accumulate))?;
                    // One sum.
                    let tolerance = if accumulate { stored_eps(element) + EPS } else { 0.0 };
                    c.expect("slice::backward", &dinp, &want, tolerance);
                }
                let mut want = wide(&whole);
                cpu::slice::place(&mut want, &wide(&part), dims);
                let placed = c.input_as("placed", element, &whole)?;
                c.run(launch, |r| ops::slice::place(r, &placed, &dout, dims))?;
                c.expect("slice::place", &placed, &want, 0.0);
                s.finish(c)
            });
        }
    }
    Ok(())
}

fn split_attention(p: &mut Plan) -> Result<()> {
    // Images, pixels of each, channels, splits, groups: below, at and past a workgroup's channels and rows of lanes.
    let shapes = [
        [1, 1, 1, 1, 1],
        [2, 49, 12, 2, 1],
        [3, 65, 30, 3, 2],
        [1, 300, 16, 4, 2],
        [2, 3, 65, 2, 5],
        [1, 197, 36, 1, 4],
    ];
    for (launch, &element) in Launch::all(p.gpu).into_iter().flat_map(|l| formats(p.gpu).iter().map(move |e| (l, e))) {
        for (_, [batch, pixels, channels, radix, groups]) in p.pick(&shapes, &[1, 2]) {
            p.add(move |s| {
                let dims = ops::split_attention::Dims { batch, pixels, channels, radix, groups };
                let mut random = Random::new((pixels * channels) as u64);
                let [inp, dout] = [dims.in_len(), dims.len()].map(|len| rounded(random.vec(len), element));
                // Out to where one split has almost all.
                let logits: Vec<f32> = random.vec(dims.weights_len()).into_iter().map(|x| 6.0 * x).collect();
                let (mut want, mut prob) = (vec![0.0; dims.len()], vec![0.0; dims.weights_len()]);
                cpu::split_attention::forward(&mut want, &mut prob, &wide(&inp), &wide(&logits), dims);
                let (mut dinp, mut dlogits) = (vec![0.0; dims.in_len()], vec![0.0; dims.weights_len()]);
                cpu::split_attention::backward(&mut dinp, &mut dlogits, &wide(&dout), &wide(&inp), &prob, dims);
                let shape = format!("{batch}×{pixels}×{channels}, {radix} splits, {groups} groups");
                let mut c = Case::new(s.gpu, format!("{}{shape}, {}", prefix(element), launch.suffix()), 0)?;
                let [x, g] = [c.input_as("inp", element, &inp)?, c.input_as("dout", element, &dout)?];
                let l = c.input("logits", &logits)?;
                let [y, dx] = [c.output_as("out", element, want.len())?, c.output_as("dinp", element, dinp.len())?];
                let [a, dl] = [c.output("prob", prob.len())?, c.output("dlogits", dlogits.len())?];
                c.run(launch, |r| {
                    ops::split_attention::forward(r, &y, &a, &x, &l, dims)?;
                    ops::split_attention::backward(r, &dx, &dl, &g, &x, &a, dims)
                })?;
                // Exponentials of up to 12, off by 3 + 2·12 units, their sum, a division; then a product and a sum over the splits.
                let weights = 32.0 * EPS;
                c.expect("split_attention::weigh", &a, &prob, weights);
                c.expect(
                    "split_attention::forward",
                    &y,
                    &want,
                    stored_eps(element) + weights + sum_tolerance(radix, 4.0),
                );
                c.expect("split_attention::backward_input", &dx, &dinp, stored_eps(element) + weights);
                let sums = 2.0 * weights + sum_tolerance(pixels, 8.0) + sum_tolerance(radix, 4.0);
                c.expect("split_attention::backward_logits", &dl, &dlogits, 2.0 * sums);
                s.finish(c)
            });
        }
    }
    Ok(())
}

fn unfold(p: &mut Plan) -> Result<()> {
    // Batch, height, width, channels, kernel, stride, padding, or 9 for TensorFlow's "same", channels of a stored pixel.
    let shapes = [
        [2, 8, 8, 12, 2, 2, 0, 12],
        [2, 7, 9, 8, 2, 2, 0, 8],
        [1, 7, 9, 65, 2, 2, 0, 65],
        [2, 9, 8, 3, 4, 4, 0, 4],
        [1, 10, 11, 3, 3, 2, 1, 4],
        [2, 6, 5, 20, 3, 2, 1, 20],
        [1, 3, 3, 5, 5, 3, 2, 5],
        [3, 1, 1, 1, 1, 1, 0, 1],
        [2, 8, 7, 4, 3, 2, 9, 4],
    ];
    let (natural, formats) = (Launch::natural(p.gpu), window_formats(p));
    let launches = [natural, Launch { for_cpu: !natural.for_cpu, ..natural }];
    for (launch, &[image, rows]) in launches.into_iter().flat_map(|l| formats.iter().map(move |f| (l, f))) {
        for (_, [batch, height, width, channels, kernel, stride, padding, pitch]) in p.pick(&shapes, &[1, 4, 5]) {
            p.add(move |s| {
                let padding = if padding == 9 { Padding::Same } else { Padding::Even(padding) };
                let dims = Windows { batch, height, width, channels, kernel, stride, padding };
                let mut random = Random::new((height * width * channels) as u64);
                let inp = rounded(random.vec(dims.in_len()), image);
                let dout = rounded(random.vec(dims.out_len()), rows);
                let before = rounded(random.vec(dims.in_len()), image);
                let mut want = vec![0.0; dims.out_len()];
                cpu::unfold::forward(&mut want, &wide(&inp), dims);
                let name = format!(
                    "{} to {}, {batch}×{height}×{width}×{channels} of {pitch}, kernel {kernel}, stride {stride}, \
                     padding {padding:?}, {}",
                    image.scalar(),
                    rows.scalar(),
                    launch.suffix()
                );
                let mut c = Case::new(s.gpu, name, 0)?;
                // What lies between the channels and the next pixel is not read: a NaN would show.
                let padded =
                    |x: &[f32]| x.iter().copied().chain(vec![f32::NAN; pitch - channels]).collect::<Vec<f32>>();
                let stored: Vec<f32> = inp.chunks_exact(channels).flat_map(padded).collect();
                let stored: Vec<f32> = match image {
                    Element::Word => stored,
                    // f16 inputs are compared bit by bit with the values asked for, and a NaN is not itself.
                    Element::Half => stored.into_iter().map(|x| if x.is_nan() { 1e4 } else { x }).collect(),
                };
                let stored = rounded(stored, image);
                let [inp, dout_view] = [c.input_as("inp", image, &stored)?, c.input_as("dout", rows, &dout)?];
                let out = c.output_as("out", rows, want.len())?;
                c.run(launch, |r| ops::unfold::forward(r, &out, &inp, dims))?;
                // A copy; to f16 of what f16 holds.
                c.expect("unfold::forward", &out, &want, 0.0);
                for accumulate in [false, true] {
                    let mut want = if accumulate { wide(&before) } else { vec![0.0; dims.in_len()] };
                    cpu::unfold::backward(&mut want, &wide(&dout), dims, accumulate);
                    let dinp = match accumulate {
                        true => c.input_as("dinp", image, &before)?,
                        false => c.output_as("dinp", image, want.len())?,
                    };
                    c.run(launch, |r| ops::unfold::backward(r, &dinp, &dout_view, dims, accumulate))?;
                    // A sum over the windows of a pixel.
                    let windows = kernel.div_ceil(stride).pow(2);
                    c.expect("unfold::backward", &dinp, &want, stored_eps(image) + sum_tolerance(windows, 2.0));
                }
                s.finish(c)
            });
        }
    }
    Ok(())
}

fn eca(p: &mut Plan) -> Result<()> {
    for launch in Launch::reductions(p.gpu) {
        for (_, (batch, channels, kernel)) in
            p.pick(&[(1, 1, 1), (2, 3, 5), (3, 65, 3), (5, 197, 7), (2, 768, 5)], &[2])
        {
            p.add(move |s| {
                let dims = ops::eca::Dims { batch, channels, kernel };
                let mut random = Random::new((batch * channels) as u64);
                let [inp, dout] = [0; 2].map(|_| random.vec(batch * channels));
                let [weight, before] = [0; 2].map(|_| random.vec(kernel));
                let (mut want, mut dinp, mut dweight) = (vec![0.0; inp.len()], vec![0.0; inp.len()], wide(&before));
                cpu::eca::forward(&mut want, &wide(&inp), &wide(&weight), batch, channels);
                cpu::eca::backward_input(&mut dinp, &wide(&dout), &wide(&weight), batch, channels);
                cpu::eca::backward_weight(&mut dweight, &wide(&dout), &wide(&inp), batch, channels);
                let name = format!("{batch}×{channels}, kernel {kernel}, {}", launch.suffix());
                let mut c = Case::new(s.gpu, name, 0)?;
                let [x, w, g] = [c.input("inp", &inp)?, c.input("weight", &weight)?, c.input("dout", &dout)?];
                let [y, dx] = [c.output("out", inp.len())?, c.output("dinp", inp.len())?];
                let dw = c.input("dweight", &before)?;
                c.run(launch, |r| {
                    ops::eca::forward(r, &y, &x, &w, dims)?;
                    ops::eca::backward_input(r, &dx, &g, &w, dims)?;
                    ops::eca::backward_weight(r, &dw, &g, &x, dims)
                })?;
                // Sums over taps, and over all channels of all images.
                c.expect("eca::forward", &y, &want, sum_tolerance(kernel, 2.0));
                c.expect("eca::backward_input", &dx, &dinp, sum_tolerance(kernel, 2.0));
                c.expect("eca::backward_weight", &dw, &dweight, sum_tolerance(batch * channels, 4.0));
                s.finish(c)
            });
        }
    }
    Ok(())
}
