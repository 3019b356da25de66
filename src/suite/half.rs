//! The variants with f16 activations: inputs are rounded to f16 beforehand, so that the reference sees what the kernel sees,
//! and an output may be off by one unit of f16 on top of what its f32 sums are.

use super::harness::{Case, HALF_EPS, Launch, Random, narrow, sum_tolerance, to_half, wide};
use super::{Plan, attention, linear};
use crate::cpu;
use crate::error::Result;
use crate::gpu::tune::Tile;
use crate::ops;
use crate::ops::loss_scale::{INTERVAL, SCALE_WORDS, Settle};

/// Every kernel that reads or writes f16. Nothing on an adapter that has none.
pub(super) fn half(p: &mut Plan) -> Result<()> {
    if p.gpu.check_f16().is_err() {
        return Ok(());
    }
    linear::half(p);
    column_sum(p);
    layer_norm(p);
    self_attention(p);
    swiglu(p);
    patch_embed(p);
    Ok(())
}

fn random_halves(random: &mut Random, len: usize) -> Vec<f32> {
    to_half(&random.vec(len))
}

fn column_sum(p: &mut Plan) {
    for (_, (rows, cols)) in p.pick(&[(1, 65), (65, 63), (129, 64), (400, 3)], &[1, 2, 3]) {
        p.add(move |s| {
            let mut random = Random::new(rows as u64);
            let (inp, before) = (random_halves(&mut random, rows * cols), random.vec(cols));
            let mut c = Case::new(s.gpu, format!("f16, rows {rows}, cols {cols}"), ops::scratch_len(rows, cols))?;
            let mut want = wide(&before);
            cpu::column_sum::column_sum(&mut want, &wide(&inp), rows, cols);
            let (inp, out) = (c.half_input("inp", &inp)?, c.input("out", &before)?);
            c.run(Launch::natural(s.gpu), |r| ops::column_sum::forward(r, &out, &inp, rows, cols))?;
            c.expect("column_sum::forward, f16", &out, &want, sum_tolerance(rows, 4.0));
            s.finish(c)
        });
    }
}

/// From the f32 stream to f16 and back.
fn layer_norm(p: &mut Plan) {
    for launch in Launch::reductions(p.gpu) {
        for (_, (rows, cols)) in p.pick(&[(3, 65), (65, 64), (197, 36), (2, 768)], &[0, 2]) {
            p.add(move |s| {
                let dims = ops::layer_norm::Dims { rows, cols, eps: 1e-6 };
                let mut random = Random::new((rows * cols) as u64);
                let (inp, weight, bias) = (random.vec(rows * cols), random.vec(cols), random.vec(cols));
                let dout = random_halves(&mut random, rows * cols);
                let before = random.vec(rows * cols);
                let (inp64, weight64, dout64) = (wide(&inp), wide(&weight), wide(&dout));
                let (mut want, mut mean, mut rstd) = (vec![0.0; rows * cols], vec![0.0; rows], vec![0.0; rows]);
                let eps = f64::from(dims.eps);
                cpu::layer_norm::forward(
                    &mut want,
                    &mut mean,
                    &mut rstd,
                    &inp64,
                    &weight64,
                    &wide(&bias),
                    rows,
                    cols,
                    eps,
                );
                let name = format!("f16, rows {rows}, cols {cols}, {}", launch.suffix());
                let mut c = Case::new(s.gpu, name, ops::scratch_len(rows, cols))?;
                let [inp, weight, bias] = [c.input("inp", &inp)?, c.input("weight", &weight)?, c.input("bias", &bias)?];
                let [out_mean, out_rstd] = [c.output("mean", rows)?, c.output("rstd", rows)?];
                let (out, dout) = (c.half_output("out", rows * cols)?, c.half_input("dout", &dout)?);
                c.run(launch, |r| ops::layer_norm::forward(r, &out, &out_mean, &out_rstd, &inp, &weight, &bias, dims))?;
                c.expect("layer_norm::forward, f16", &out, &want, HALF_EPS + sum_tolerance(cols, 8.0));
                // Statistics have their own cases; these must be written all the same.
                c.expect("layer_norm::forward, f16", &out_rstd, &rstd, sum_tolerance(cols, 8.0));
                let size = mean.iter().map(|m| m.abs()).sum::<f64>() / rows as f64;
                c.expect("layer_norm::forward, f16", &out_mean, &mean, sum_tolerance(cols, 4.0) * (1.0 + 1.0 / size));

                let (mean32, rstd32) = (narrow(&mean), narrow(&rstd));
                let (mean64, rstd64) = (wide(&mean32), wide(&rstd32));
                let [mean, rstd] = [c.input("saved mean", &mean32)?, c.input("saved rstd", &rstd32)?];
                let dinp = c.input("dinp", &before)?;
                let mut want = wide(&before);
                cpu::layer_norm::backward_input(&mut want, &dout64, &inp64, &weight64, &mean64, &rstd64, rows, cols);
                let [dweight, dbias] = [c.input("dweight", &before[..cols])?, c.input("dbias", &before[..cols])?];
                let (mut want_weight, mut want_bias) = (wide(&before[..cols]), wide(&before[..cols]));
                let reference = cpu::layer_norm::backward_params::<f64>;
                reference(&mut want_weight, &mut want_bias, &dout64, &inp64, &mean64, &rstd64, rows, cols);
                c.run(launch, |r| {
                    ops::layer_norm::backward_input(r, &dinp, &dout, &inp, &weight, &mean, &rstd, dims, true)?;
                    ops::layer_norm::backward_params(r, &dweight, &dbias, &dout, &inp, &mean, &rstd, dims)
                })?;
                c.expect("layer_norm::backward_input, f16", &dinp, &want, sum_tolerance(cols, 12.0));
                c.expect("layer_norm::backward_params, f16", &dweight, &want_weight, sum_tolerance(rows, 8.0));
                c.expect("layer_norm::backward_params, f16", &dbias, &want_bias, sum_tolerance(rows, 8.0));
                s.finish(c)
            });
        }
    }
}

fn self_attention(p: &mut Plan) {
    let shapes = [
        (1, 1, 1, 4),
        (2, 3, 2, 6),
        (2, 65, 3, 12),
        (1, 63, 1, 32),
        (1, 17, 2, 64),
        (1, 197, 2, 64),
        (1, 33, 2, 80),
        (2, 70, 1, 128),
    ];
    let mut launched = attention::launched(p, &shapes, &[1, 2, 3]);
    if p.gpu.runs(Tile::Cooperative) && ops::attention::has_memory(p.gpu) {
        // In a quick run a head of each block of rows and columns.
        for (_, (batch, tokens, heads, head_dim)) in p.pick(&shapes, &[4, 6]) {
            if ops::attention::suits_matrices(head_dim) {
                let dims = ops::attention::Dims { batch, tokens, heads, head_dim };
                launched.push((dims, Launch::of(p.gpu, Tile::Cooperative)));
            }
        }
    }
    for (dims, launch) in launched {
        p.add(move |s| {
            let ops::attention::Dims { batch, tokens, heads, head_dim } = dims;
            let (dim, stats) = (heads * head_dim, batch * heads * tokens);
            let mut random = Random::new((tokens * dim) as u64);
            let qkv = to_half(&random.vec(batch * tokens * 3 * dim).iter().map(|x| 2.0 * x).collect::<Vec<_>>());
            let dout = random_halves(&mut random, batch * tokens * dim);
            let (qkv64, dout64) = (wide(&qkv), wide(&dout));
            let (mut want, mut want_lse) = (vec![0.0; batch * tokens * dim], vec![0.0; stats]);
            cpu::attention::forward(&mut want, &mut want_lse, &qkv64, batch, tokens, heads, head_dim);
            // Backward starts from the same rounded values as the reference.
            let (saved, lse32) = (to_half(&narrow(&want)), narrow(&want_lse));
            let mut want_grad = vec![0.0; qkv.len()];
            let (saved64, lse64) = (wide(&saved), wide(&lse32));
            cpu::attention::backward(&mut want_grad, &dout64, &saved64, &qkv64, &lse64, batch, tokens, heads, head_dim);
            let name = format!("f16, {batch}×{tokens}, {heads} heads of {head_dim}, {}", launch.suffix());
            let mut c = Case::new(s.gpu, name, 0)?;
            let [qkv, dout, saved] =
                [c.half_input("qkv", &qkv)?, c.half_input("dout", &dout)?, c.half_input("saved out", &saved)?];
            let [out, dqkv] = [c.half_output("out", want.len())?, c.half_output("dqkv", want_grad.len())?];
            let [lse, delta] = [c.output("lse", stats)?, c.output("delta", stats)?];
            let saved_lse = c.input("saved lse", &lse32)?;
            c.run(launch, |r| {
                ops::attention::forward(r, &out, &lse, &qkv, dims)?;
                ops::attention::backward(r, &dqkv, &delta, &dout, &saved, &qkv, &saved_lse, dims)
            })?;
            // As in f32, with one unit of f16 more where something is stored, and for matrices, which take weights of
            // f16, where these are rounded.
            let sharp = 1.0 + want_lse.iter().fold(0.0, |a: f64, l| a.max(l.abs()));
            let rounded = if launch.variant.is_some() { HALF_EPS } else { 0.0 };
            let tolerance = sum_tolerance(tokens + head_dim, 8.0) * sharp + rounded;

            c.expect("attention::forward, f16", &out, &want, HALF_EPS + tolerance);
            c.expect("attention::forward, f16", &lse, &want_lse, sum_tolerance(tokens + head_dim, 8.0));
            c.expect("attention::backward, f16", &dqkv, &want_grad, HALF_EPS + 2.0 * tolerance);
            // Any sum of products will do that its own cases hold to the reference.
            c.expect_at("attention::backward, f16", &delta, &[], &vec![0.0; stats], tolerance);
            s.finish(c)
        });
    }
}

fn swiglu(p: &mut Plan) {
    for launch in Launch::all(p.gpu) {
        for (_, (rows, cols)) in p.pick(&[(1, 4), (65, 64), (3, 65), (197, 36)], &[2, 3]) {
            p.add(move |s| {
                let mut random = Random::new((rows * cols) as u64);
                let inp: Vec<f32> = random_halves(&mut random, 2 * rows * cols).into_iter().map(|x| 4.0 * x).collect();
                let dout = random_halves(&mut random, rows * cols);
                let (mut want, mut want_grad) = (vec![0.0; rows * cols], vec![0.0; 2 * rows * cols]);
                cpu::swiglu::forward(&mut want, &wide(&inp), rows, cols);
                cpu::swiglu::backward(&mut want_grad, &wide(&dout), &wide(&inp), rows, cols);
                let mut c = Case::new(s.gpu, format!("f16, rows {rows}, cols {cols}, {}", launch.suffix()), 0)?;
                let [inp, dout] = [c.half_input("inp", &inp)?, c.half_input("dout", &dout)?];
                let [out, dinp] = [c.half_output("out", want.len())?, c.half_output("dinp", want_grad.len())?];
                c.run(launch, |r| {
                    ops::swiglu::forward(r, &out, &inp, rows, cols)?;
                    ops::swiglu::backward(r, &dinp, &dout, &inp, rows, cols)
                })?;
                c.expect("swiglu::forward, f16", &out, &want, HALF_EPS);
                c.expect("swiglu::backward, f16", &dinp, &want_grad, HALF_EPS);
                s.finish(c)
            });
        }
    }
}

fn patch_embed(p: &mut Plan) {
    let prefix = crate::shapes::Prefix { class_token: true, class_position: true, ..Default::default() };
    for (_, (batch, size, patch, dim)) in p.pick(&[(2, 12, 4, 68), (1, 8, 2, 4)], &[0]) {
        p.add(move |s| {
            let dims = ops::patch_embed::Dims { batch, size, patch, dim, prefix };
            let (count, tokens) = (dims.patches(), dims.patches() + 1);
            let mut random = Random::new(dim as u64);
            let (images, dtokens) = (random.vec(batch * 3 * size * size), random.vec(batch * tokens * dim));
            let (before_pos, before_cls) = (random.vec(tokens * dim), random.vec(dim));
            let mut want_patches = vec![0.0; batch * count * dims.patch_len()];
            cpu::patch_embed::unfold(&mut want_patches, &wide(&images), batch, size, size, patch);
            let (mut want, mut want_pos) = (vec![0.0; batch * count * dim], wide(&before_pos));
            let mut want_cls = wide(&before_cls);
            let backward = cpu::patch_embed::assemble_backward;
            backward(&mut want, &mut want_pos, &mut want_cls, &mut [], &wide(&dtokens), prefix, batch, count, dim);
            let mut c = Case::new(s.gpu, format!("f16, {batch} of {size} px, patch {patch}, dim {dim}"), 0)?;
            let [images, dtokens] = [c.input("images", &images)?, c.input("dtokens", &dtokens)?];
            let patches = c.half_output("patches", want_patches.len())?;
            let dembedded = c.half_output("dembedded", want.len())?;
            let [dpos, dcls] = [c.input("dpos", &before_pos)?, c.input("dcls", &before_cls)?];
            c.run(Launch::natural(s.gpu), |r| {
                ops::patch_embed::unfold(r, &patches, &images, dims)?;
                ops::patch_embed::backward(r, &dembedded, &dpos, Some(&dcls), None, &dtokens, dims)
            })?;
            c.expect("patch_embed::unfold, f16", &patches, &want_patches, HALF_EPS);
            c.expect("patch_embed::backward_embedded, f16", &dembedded, &want, HALF_EPS);
            c.expect("patch_embed::backward_pos", &dpos, &want_pos, sum_tolerance(batch, 2.0));
            c.expect("patch_embed::backward_prefix", &dcls, &want_cls, sum_tolerance(batch, 2.0));
            s.finish(c)
        });
    }
}

/// Values of every size that f16 has, zeros of both signs, what becomes infinite, and an odd length. Nothing on an adapter
/// that has none.
pub(super) fn cast(p: &mut Plan) -> Result<()> {
    if p.gpu.check_f16().is_err() {
        return Ok(());
    }
    for launch in [Launch::natural(p.gpu), Launch { fold: true, ..Launch::natural(p.gpu) }] {
        for (_, len) in p.pick(&[1, 3, 64, 197, 768, 5000], &[3, 5]) {
            p.add(move |s| {
                let mut random = Random::new(len as u64);
                // From 2⁻¹⁴, the smallest normal one, to 65,504.
                let spread = |(i, x): (usize, f32)| x.signum() * (0.5 + x.abs()) * ((i % 29) as f32 - 14.0).exp2();
                let mut inp: Vec<f32> = random.vec(len).into_iter().enumerate().map(spread).collect();
                inp[0] = -0.0;
                let mut want = vec![0.0; len];
                cpu::cast::forward(&mut want, &wide(&inp));
                let fold = if launch.fold { ", folded" } else { "" };
                let mut c = Case::new(s.gpu, format!("len {len}{fold}"), 0)?;
                let (inp32, out) = (c.input("inp", &inp)?, c.half_output("out", len)?);
                c.run(launch, |r| ops::cast::forward(r, &out, &inp32))?;
                // One element at a time: next to the mean of such values the small ones would vanish.
                for (i, want_one) in want.iter().enumerate().take(64) {
                    let mut one = vec![0.0; len];
                    one[i] = *want_one;
                    c.expect_at("cast::forward", &out, &[i..i + 1], &one, HALF_EPS);
                }
                c.expect("cast::forward", &out, &want, HALF_EPS);
                s.finish(c)
            });
        }
    }
    Ok(())
}

/// Steps one after another against the reference: good ones until the scale doubles, one that overflows, one after it; and
/// what is no matter of scale.
pub(super) fn loss_scale(p: &mut Plan) -> Result<()> {
    let betas = [0.9, 0.999];
    let launch = Launch::natural(p.gpu);
    for (max_norm, interval) in [(0.0, 3), (1.0, 2), (0.0, INTERVAL)] {
        p.add(move |s| {
            let norms = [3.0e5, 2.5e5, f32::INFINITY, f32::NAN, 7.0, 1.0e4, 1.0e4, 1.0e4];
            let mut c = Case::new(s.gpu, format!("clip {max_norm}, interval {interval}"), 0)?;
            let scale = c.words("scale", &ops::loss_scale::start(65536.0))?;
            let health = c.input("health", &[0.0, 0.0])?;
            let mut reference = cpu::loss_scale::LossScale::new(65536.0);
            let mut ring32 = vec![0.5; 4 * norms.len()];
            norms.iter().enumerate().for_each(|(i, norm)| ring32[4 * i + 1] = *norm);
            let ring = c.input("ring", &ring32)?;
            let by = Settle { betas, max_norm, interval };
            let (mut want_ring, mut factor) = (wide(&ring32), 0.0);
            for (i, norm) in norms.iter().enumerate() {
                let words = super::optim::step_words(0.1, 0.5, 0.5, 1 + i as u32, i as u32, 0);
                let step = c.words("step", &words)?;
                if !norm.is_finite() {
                    // What clip does.
                    let clipped = c.words("clipped health", &[0, 1 + i as u32])?;
                    c.copy(&health, &clipped)?;
                }
                c.run(launch, |r| ops::loss_scale::settle(r, &scale, &ring, &health, &step, by))?;
                let used = reference.value;
                let settled = reference.settle(f64::from(*norm), f64::from(max_norm), betas, interval);
                want_ring[4 * i + 3] = if settled.is_some() { used } else { -used };
                let [first, second] = reference.corrections;
                if let Some((norm, by)) = settled {
                    (want_ring[4 * i + 1], factor) = (norm, by);
                    let want = [0.0, first, second.sqrt(), 0.0, 0.0, 0.0, 0.0];
                    c.expect_at("loss_scale::settle", &step, &[1..2], &want, 8.0 * f64::from(f32::EPSILON));
                    c.expect_at("loss_scale::settle", &step, &[2..3], &want, 8.0 * f64::from(f32::EPSILON));
                } else {
                    c.expect_unchanged("loss_scale::settle", &step);
                }
            }
            let all: Vec<_> = (0..norms.len()).filter(|i| norms[*i].is_finite()).map(|i| 4 * i..4 * i + 4).collect();
            let rounding = 8.0 * f64::from(f32::EPSILON);
            c.expect_at("loss_scale::settle", &ring, &all, &want_ring, rounding);
            let skipped: Vec<_> = (2..4).map(|i| 4 * i + 3..4 * i + 4).collect();
            c.expect_at("loss_scale::settle", &ring, &skipped, &want_ring, 0.0);
            c.expect_at("loss_scale::settle", &health, &[0..1], &[factor, 0.0], rounding);
            c.expect_bits("loss_scale::settle", &health, &[1..2], &[0, 0]);
            let value = (reference.value as f32).to_bits();
            c.expect_bits("loss_scale::settle", &scale, &[0..3], &[value, reference.good, 0, 0, 0]);
            s.finish(c)
        });
    }
    // A loss that is not finite, and a gradient at a scale of one, are bad for good.
    for (what, start, loss) in [("NaN loss", 65536.0, f32::NAN), ("scale of one", 1.0, 0.5)] {
        p.add(move |s| {
            let mut c = Case::new(s.gpu, what, 0)?;
            let scale = c.words("scale", &ops::loss_scale::start(start))?;
            let health = c.words("health", &[0, 5])?;
            let ring = c.input("ring", &[loss, f32::INFINITY, 0.0, 0.0])?;
            let step = c.words("step", &super::optim::step_words(0.1, 0.5, 0.5, 5, 0, 0))?;
            let by = Settle { betas, max_norm: 0.0, interval: 10 };
            c.run(launch, |r| ops::loss_scale::settle(r, &scale, &ring, &health, &step, by))?;
            c.expect_unchanged("loss_scale::settle", &health);
            c.expect_unchanged("loss_scale::settle", &scale);
            c.expect_unchanged("loss_scale::settle", &step);
            c.expect_at("loss_scale::settle", &ring, &[3..4], &[0.0, 0.0, 0.0, f64::from(start)], 0.0);
            s.finish(c)
        });
    }
    observe(p);
    Ok(())
}

/// Halved by one radius gradient of the iteration's own slot that is not finite.
fn observe(p: &mut Plan) {
    for launch in Launch::reductions(p.gpu) {
        for (tensors, bad, halved) in
            [(1, None, false), (1, Some((1, 0)), true), (197, Some((1, 150)), true), (3, Some((0, 1)), false)]
        {
            p.add(move |s| {
                let mut log = vec![1.0; 2 * tensors * 4];
                if let Some((slot, tensor)) = bad {
                    log[(slot * tensors + tensor) * 4 + 3] = f32::NEG_INFINITY;
                }
                let mut c = Case::new(s.gpu, format!("{tensors} tensors, {bad:?}, {}", launch.suffix()), 0)?;
                let scale = c.words("scale", &[8.0_f32.to_bits(), 7, 0, 0, 0])?;
                let log = c.input("log", &log)?;
                let state = c.words("state", &super::optim::step_words(0.1, 0.5, 0.5, 5, 1, 0))?;
                c.run(launch, |r| ops::loss_scale::observe(r, &scale, &log, &state, tensors))?;
                let (value, good) = if halved { (4.0_f32, 0) } else { (8.0, 7) };
                c.expect_bits("loss_scale::observe", &scale, &[0..SCALE_WORDS], &[value.to_bits(), good, 0, 0, 0]);
                s.finish(c)
            });
        }
    }
}
