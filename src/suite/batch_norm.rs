//! Batch norm in both modes and both variants, in f32 and f16.

use super::formats::{formats, prefix, rounded, stored_eps};
use super::harness::{Case, Launch, Random, narrow, sum_tolerance, wide};
use super::{Plan, Stem, Suite, stem};
use crate::cpu;
use crate::cpu::batch_norm::{backward, normalise, statistics, update_running};
use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::ops;
use crate::ops::batch_norm::{Behind, Dims, Mode, Stats};
use crate::shapes::Pointwise;

pub(super) const STEMS: &[Stem] =
    &[stem("batch_norm", batch_norm, &["batch_norm::forward", "batch_norm::running", "batch_norm::backward"])];

const MOMENTUM: f32 = 0.1;

/// Activations whose slope backward computes anew.
const CURVES: [Pointwise; 3] = [Pointwise::Relu6, Pointwise::Silu, Pointwise::HardSwish];

/// Of the shapes those of a quick run: in vectors and not.
const QUICK: [usize; 2] = [4, 5];

fn batch_norm(p: &mut Plan) -> Result<()> {
    // Below, at and past lanes, their blocks of 64 rows, and chunks.
    let shapes = [(2, 1), (2, 64), (3, 5), (63, 65), (65, 16), (130, 63), (197, 3), (600, 12), (1025, 4), (300, 260)];
    for launch in Launch::reductions(p.gpu) {
        for (i, (rows, cols)) in p.pick(&shapes, &QUICK) {
            // The second: a channel far from zero whose values hardly differ.
            for (_, (offset, deviation)) in p.pick(&[(0.0, 1.0), (1e3, 1e-2)], &[1]) {
                for mode in [Mode::Train, Mode::Eval] {
                    let word = Element::Word;
                    p.add(move |s| case(s, launch, i as u64, rows, cols, offset, deviation, mode, word));
                }
            }
        }
    }
    // An f16 near 1000 is off by half.
    if formats(p.gpu).contains(&Element::Half) {
        for (launch, mode) in Launch::all(p.gpu).into_iter().flat_map(|l| [(l, Mode::Train), (l, Mode::Eval)]) {
            for (i, (rows, cols)) in p.pick(&shapes, &QUICK) {
                p.add(move |s| case(s, launch, i as u64, rows, cols, 0.0, 1.0, mode, Element::Half));
            }
        }
    }
    // More rows than chunks of 64 are allowed for, with an outlier in the row that everything is relative to.
    p.add(outlier);
    super::shared_norm::shared(p)
}

fn case(
    s: &mut Suite,
    launch: Launch,
    seed: u64,
    rows: usize,
    cols: usize,
    offset: f32,
    deviation: f32,
    mode: Mode,
    element: Element,
) -> Result<()> {
    let mut random = Random::new(1000 + seed);
    let n = rows * cols;
    // An eps below the variance, which it must not cover.
    let eps = 0.1 * deviation * deviation;
    let dims = Dims { rows, cols, eps, momentum: MOMENTUM };
    // Alternately one up and one down, so that no column is without variance.
    let side = |i: usize| if (i / cols).is_multiple_of(2) { 1.0 } else { -1.0 };
    let x = random.vec(n).iter().enumerate().map(|(i, v)| offset + deviation * (side(i) + 0.5 * v)).collect();
    let x: Vec<f32> = rounded(x, element);
    let (weight, bias) = (random.vec(cols), random.vec(cols));
    let [shortcut, dout] = [0; 2].map(|_| rounded(random.vec(n), element));
    let running_mean: Vec<f32> = random.vec(cols).iter().map(|v| offset + deviation * v).collect();
    let running_var: Vec<f32> = random.vec(cols).iter().map(|v| deviation * deviation * (1.2 + v)).collect();
    let (x64, weight64, bias64, shortcut64) = (wide(&x), wide(&weight), wide(&bias), wide(&shortcut));
    let (prefix, suffix) = (prefix(element), launch.suffix());
    let name = format!("{prefix}rows {rows}, cols {cols}, {offset} ± {deviation}, {mode:?}, {suffix}");
    let mut c = Case::new(s.gpu, name, ops::batch_norm::scratch_len(rows, cols, 1))?;
    let inp = c.input_as("inp", element, &x)?;
    let [weight_view, bias_view] = [c.input("weight", &weight)?, c.input("bias", &bias)?];
    let shortcut_view = c.input_as("shortcut", element, &shortcut)?;
    let dout_view = c.input_as("dout", element, &dout)?;
    let stored = stored_eps(element);

    let train = mode == Mode::Train;
    let (mut mean64, mut var64) = (wide(&running_mean), wide(&running_var));
    let (mut want_running_mean, mut want_running_var) = (mean64.clone(), var64.clone());
    if train {
        statistics(&mut mean64, &mut var64, &x64, rows, cols);
        let momentum = f64::from(MOMENTUM);
        update_running(&mut want_running_mean, &mut want_running_var, &mean64, &var64, rows, momentum);
    }
    // In train mode nothing but x itself carries the offset: the mean is relative to row 0.
    let origin: Vec<f64> = if train { x64[..cols].to_vec() } else { vec![0.0; cols] };
    let relative: Vec<f64> = mean64.iter().zip(&origin).map(|(m, o)| m - o).collect();
    let tolerance = sum_tolerance(rows, 24.0);
    let mut rstd64 = vec![0.0; cols];
    let plain = [None, Some(Pointwise::Relu)].into_iter().flat_map(|act| [(false, act), (true, act)]);
    for (with_shortcut, act) in plain.chain(CURVES.map(|curve| (false, Some(curve)))) {
        let mut want = vec![0.0; n];
        let shortcut64 = with_shortcut.then_some(shortcut64.as_slice());
        normalise(
            &mut want,
            &mut rstd64,
            &x64,
            &mean64,
            &var64,
            &weight64,
            &bias64,
            shortcut64,
            false,
            rows,
            cols,
            f64::from(eps),
        );
        let want = through(act, want);
        let out = c.output_as("out", element, n)?;
        let [mean, rstd] = [c.output("mean", cols)?, c.output("rstd", cols)?];
        let [running_mean, running_var] =
            [c.input("running_mean", &running_mean)?, c.input("running_var", &running_var)?];
        let stats = Stats { mean: &mean, rstd: &rstd, running_mean: &running_mean, running_var: &running_var };
        let shortcut = with_shortcut.then_some(&shortcut_view);
        c.run(launch, |r| {
            ops::batch_norm::forward(r, &out, stats, &inp, &weight_view, &bias_view, shortcut, act, mode, dims)
        })?;
        // Sums over rows, then some operations on values of the size of the deviation.
        c.expect("batch_norm::forward", &out, &want, stored + tolerance);
        c.expect("batch_norm::forward", &mean, &relative, tolerance);
        c.expect("batch_norm::forward", &rstd, &rstd64, tolerance);
        if train {
            // The mean is f32 again; the variance has a sum of squares in it.
            c.expect("batch_norm::running", &running_mean, &want_running_mean, tolerance);
            c.expect("batch_norm::running", &running_var, &want_running_var, tolerance);
        } else {
            c.expect_unchanged("batch_norm::running", &running_mean);
            c.expect_unchanged("batch_norm::running", &running_var);
        }
    }

    // Backward starts from the same saved statistics as the reference.
    let (mean32, rstd32) = (narrow(&relative), narrow(&rstd64));
    let absolute: Vec<f64> = wide(&mean32).iter().zip(&origin).map(|(m, o)| m + o).collect();
    let rstd64 = wide(&rstd32);
    let [mean, rstd] = [c.input("saved_mean", &mean32)?, c.input("saved_rstd", &rstd32)?];
    // Any output will do as a mask.
    let out: Vec<f32> = rounded(random.vec(n).iter().map(|v| v.max(0.0)).collect(), element);
    let out_view = c.input_as("saved_out", element, &out)?;
    // The norm's results, from the statistics that backward is given.
    let normed: Vec<f64> = (0..n)
        .map(|i| (x64[i] - absolute[i % cols]) * rstd64[i % cols] * weight64[i % cols] + bias64[i % cols])
        .collect();
    let masks = [Behind::Nothing, Behind::Relu(&out_view)];
    for behind in masks.into_iter().chain(CURVES.map(|curve| Behind::Curve(curve, &bias_view))) {
        let mut masked = vec![0.0; n];
        match behind {
            Behind::Nothing => masked = wide(&dout),
            Behind::Relu(_) => cpu::relu::backward(&mut masked, &wide(&dout), &wide(&out), false),
            Behind::Curve(curve, _) => bent(curve, &mut masked, &wide(&dout), &normed),
        }
        let (before_weight, before_bias) = (random.vec(cols), random.vec(cols));
        let (mut want, mut want_weight, mut want_bias) = (vec![0.0; n], wide(&before_weight), wide(&before_bias));
        backward(
            &mut want,
            &mut want_weight,
            &mut want_bias,
            &masked,
            &x64,
            &weight64,
            &absolute,
            &rstd64,
            train,
            rows,
            cols,
        );
        let dinp = c.output_as("dinp", element, n)?;
        let [dweight, dbias] = [c.input("dweight", &before_weight)?, c.input("dbias", &before_bias)?];
        c.run(launch, |r| {
            ops::batch_norm::backward(
                r,
                &dinp,
                &dweight,
                &dbias,
                &dout_view,
                behind,
                &inp,
                &weight_view,
                &mean,
                &rstd,
                mode,
                dims,
            )
        })?;
        // Two rows: only eps's share of the gradient is left, a twentieth.
        let cancelled = if rows == 2 { 40.0 } else { 1.0 };
        c.expect("batch_norm::backward", &dinp, &want, stored + cancelled * tolerance);
        c.expect("batch_norm::backward", &dweight, &want_weight, tolerance);
        c.expect("batch_norm::backward", &dbias, &want_bias, tolerance);
    }
    s.finish(c)
}

/// `x` through an activation.
fn through(act: Option<Pointwise>, x: Vec<f64>) -> Vec<f64> {
    let mut out = x.clone();
    match act {
        None => {}
        Some(Pointwise::Relu) => cpu::relu::forward(&mut out, &x),
        Some(Pointwise::Relu6) => cpu::relu6::forward(&mut out, &x),
        Some(Pointwise::Silu) => cpu::silu::forward(&mut out, &x),
        Some(Pointwise::HardSwish) => cpu::hard_swish::forward(&mut out, &x),
        Some(Pointwise::Gelu) => unreachable!("a batch norm's kernels have no GELU"),
    }
    out
}

/// The gradient before one of [`CURVES`], whose input was `x`.
fn bent(curve: Pointwise, dinp: &mut [f64], dout: &[f64], x: &[f64]) {
    match curve {
        Pointwise::Relu6 => cpu::relu6::backward_input(dinp, dout, x),
        Pointwise::Silu => cpu::silu::backward_input(dinp, dout, x),
        Pointwise::HardSwish => cpu::hard_swish::backward_input(dinp, dout, x),
        Pointwise::Relu | Pointwise::Gelu => unreachable!("{curve:?} is none of the curves"),
    }
}

/// The first row is 400 deviations away from the others: as far as one of so many rows can be, nearly.
fn outlier(s: &mut Suite) -> Result<()> {
    let (rows, cols, eps) = (180_000, 4, 1e-5_f32);
    let mut x = Random::new(5).vec(rows * cols);
    x[..cols].fill(400.0);
    let dims = Dims { rows, cols, eps, momentum: MOMENTUM };
    let (x64, one, zero) = (wide(&x), vec![1.0_f32; cols], vec![0.0_f32; cols]);
    let (mut mean64, mut var64, mut rstd64) = (vec![0.0; cols], vec![0.0; cols], vec![0.0; cols]);
    statistics(&mut mean64, &mut var64, &x64, rows, cols);
    let mut want = vec![0.0; rows * cols];
    let (one64, zero64) = (wide(&one), wide(&zero));
    normalise(&mut want, &mut rstd64, &x64, &mean64, &var64, &one64, &zero64, None, false, rows, cols, f64::from(eps));
    let (mut want_mean, mut want_var) = (vec![0.0; cols], vec![1.0; cols]);
    update_running(&mut want_mean, &mut want_var, &mean64, &var64, rows, f64::from(MOMENTUM));
    let mut c = Case::new(s.gpu, "an outlier in row 0", ops::batch_norm::scratch_len(rows, cols, 1))?;
    let [inp, weight, bias] = [c.input("inp", &x)?, c.input("weight", &one)?, c.input("bias", &zero)?];
    let [out, mean, rstd] = [c.output("out", rows * cols)?, c.output("mean", cols)?, c.output("rstd", cols)?];
    let [running_mean, running_var] = [c.input("running_mean", &zero)?, c.input("running_var", &one)?];
    let stats = Stats { mean: &mean, rstd: &rstd, running_mean: &running_mean, running_var: &running_var };
    c.run(Launch::natural(s.gpu), |r| {
        ops::batch_norm::forward(r, &out, stats, &inp, &weight, &bias, None, None, Mode::Train, dims)
    })?;
    // Distances from row 0 round by 2^-15, a 16-thousandth of a deviation.
    let relative: Vec<f64> = mean64.iter().map(|m| m - 400.0).collect();
    c.expect("batch_norm::forward", &out, &want, 1e-4);
    c.expect("batch_norm::forward", &mean, &relative, 1e-6);
    c.expect("batch_norm::forward", &rstd, &rstd64, 1e-5);
    c.expect("batch_norm::running", &running_var, &want_var, 1e-5);
    c.expect_bits("batch_norm::running", &running_mean, &[], &[]);
    s.finish(c)
}
