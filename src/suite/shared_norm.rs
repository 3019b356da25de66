//! Batch norm with the statistics of several ranks, of which this one has a part; what the others tell is computed on the CPU.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::formats::{formats, prefix, rounded, stored_eps};
use super::harness::{Case, Launch, Random, narrow, sum_tolerance, wide};
use super::{Plan, Suite};
use crate::cpu;
use crate::cpu::batch_norm::{backward, normalise, shared_statistics, statistics, update_running};
use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::ops;
use crate::ops::batch_norm::{Behind, Dims, Mode, Stats};
use crate::ranks::{Ranks, Sum};

const MOMENTUM: f32 = 0.1;

/// One of several ranks; what the others tell is known.
#[derive(Debug)]
struct Known {
    rank: usize,
    size: usize,
    told: Mutex<VecDeque<Vec<Vec<f32>>>>,
}

impl Ranks for Known {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let told = self.told.lock().unwrap_or_else(|e| e.into_inner()).pop_front().unwrap_or_default();
        let mut all: Vec<Vec<u8>> = told.iter().map(|one| bytemuck::cast_slice(one).to_vec()).collect();
        all[self.rank] = own.to_vec();
        Ok(all)
    }

    fn start_sum(&self, _: Vec<f32>) -> Result<Box<dyn Sum + '_>> {
        unreachable!("a batch norm gathers")
    }
}

pub(super) fn shared(p: &mut Plan) -> Result<()> {
    let shapes = [(1, 5), (3, 1), (63, 65), (197, 3), (600, 12), (300, 260)];
    for &element in formats(p.gpu) {
        let launches = if element == Element::Half { Launch::all(p.gpu).to_vec() } else { Launch::reductions(p.gpu) };
        // Not of an f16, which near 1000 is off by half.
        let places: &[(f32, f32)] = if element == Element::Half { &[(0.0, 1.0)] } else { &[(0.0, 1.0), (1e3, 1e-2)] };
        for launch in launches {
            for (i, (rows, cols)) in p.pick(&shapes, &[3, 4]) {
                for &place in places {
                    p.add(move |s| case(s, launch, i, rows, cols, place, element));
                }
            }
        }
    }
    Ok(())
}

fn case(
    s: &mut Suite,
    launch: Launch,
    seed: usize,
    rows: usize,
    cols: usize,
    (offset, deviation): (f32, f32),
    element: Element,
) -> Result<()> {
    let mut random = Random::new(2000 + seed as u64);
    // This rank is the first, the middle and the last by turns.
    let rank = seed % 3;
    let mut counts = [rows / 2 + 2; 3];
    (counts[rank], counts[(rank + 1) % 3]) = (rows, 1);
    let all_rows: usize = counts.iter().sum();
    let starts: Vec<usize> = (0..3).map(|i| counts[..i].iter().sum()).collect();
    let of = |i: usize| starts[i] * cols..(starts[i] + counts[i]) * cols;
    let n = all_rows * cols;
    let eps = 0.1 * deviation * deviation;
    let dims = Dims { rows, cols, eps, momentum: MOMENTUM };
    let side = |i: usize| if (i / cols).is_multiple_of(2) { 1.0 } else { -1.0 };
    let x = random.vec(n).iter().enumerate().map(|(i, v)| offset + deviation * (side(i) + 0.5 * v)).collect();
    let x: Vec<f32> = rounded(x, element);
    let [weight, bias] = [random.vec(cols), random.vec(cols)];
    let [shortcut, dout, mask] = [0; 3].map(|_| rounded(random.vec(n), element));
    let x64 = wide(&x);
    let [weight64, bias64, shortcut64, dout64] = [&weight, &bias, &shortcut, &dout].map(|v| wide(v));

    let moments: Vec<[Vec<f64>; 2]> = (0..3)
        .map(|i| {
            let [mut mean, mut var] = [vec![0.0; cols], vec![0.0; cols]];
            statistics(&mut mean, &mut var, &x64[of(i)], counts[i], cols);
            [mean, var]
        })
        .collect();
    let told = |i: usize| {
        let [mean, var] = &moments[i];
        let first = &x64[starts[i] * cols..][..cols];
        let relative = mean.iter().zip(first).map(|(m, o)| m - o);
        let squares = var.iter().map(|v| v * counts[i] as f64);
        narrow(&first.iter().copied().chain(relative).chain(squares).chain([counts[i] as f64]).collect::<Vec<_>>())
    };
    let told_forward: Vec<Vec<f32>> = (0..3).map(told).collect();
    let [mut mean64, mut var64, mut rstd64] = [0; 3].map(|_| vec![0.0; cols]);
    let ranks: Vec<(usize, &[f64], &[f64])> =
        (0..3).map(|i| (counts[i], moments[i][0].as_slice(), moments[i][1].as_slice())).collect();
    shared_statistics(&mut mean64, &mut var64, &ranks);
    let before_mean: Vec<f32> = random.vec(cols).iter().map(|v| offset + deviation * v).collect();
    let before_var: Vec<f32> = random.vec(cols).iter().map(|v| deviation * deviation * (1.2 + v)).collect();
    let (mut want_mean, mut want_var) = (wide(&before_mean), wide(&before_var));
    update_running(&mut want_mean, &mut want_var, &mean64, &var64, all_rows, f64::from(MOMENTUM));
    let mut want = vec![0.0; n];
    let (w, b, eps64) = (&weight64, &bias64, f64::from(eps));
    normalise(&mut want, &mut rstd64, &x64, &mean64, &var64, w, b, Some(&shortcut64), true, all_rows, cols, eps64);
    let origin = &x64[of(rank)][..cols];
    let relative: Vec<f64> = mean64.iter().zip(origin).map(|(m, o)| m - o).collect();

    let suffix = launch.suffix();
    let name =
        format!("{}3 ranks, {rows} of {all_rows} rows, cols {cols}, {offset} ± {deviation}, {suffix}", prefix(element));
    let mut c = Case::new(s.gpu, name, ops::batch_norm::scratch_len(rows, cols, 3))?;
    let [inp, shortcut, dout_view, mask_view] =
        [("inp", &x), ("shortcut", &shortcut), ("dout", &dout), ("saved_out", &mask)]
            .map(|(name, values)| (name, values[of(rank)].to_vec()))
            .map(|(name, values)| c.input_as(name, element, &values));
    let (inp, shortcut, dout_view, mask_view) = (inp?, shortcut?, dout_view?, mask_view?);
    let [weight_view, bias_view] = [c.input("weight", &weight)?, c.input("bias", &bias)?];
    let [mean, rstd] = [c.output("mean", cols)?, c.output("rstd", cols)?];
    let [running_mean, running_var] = [c.input("running_mean", &before_mean)?, c.input("running_var", &before_var)?];
    let out = c.output_as("out", element, rows * cols)?;
    let stats = Stats { mean: &mean, rstd: &rstd, running_mean: &running_mean, running_var: &running_var };
    let mode = Mode::Shared(3);
    let ranks = |told: Vec<Vec<f32>>| Known { rank, size: 3, told: Mutex::new([told].into()) };
    let relu = Some(crate::shapes::Pointwise::Relu);
    c.run_with(launch, &ranks(told_forward), |r| {
        ops::batch_norm::forward(r, &out, stats, &inp, &weight_view, &bias_view, Some(&shortcut), relu, mode, dims)
    })?;
    let (tolerance, stored) = (sum_tolerance(all_rows, 24.0), stored_eps(element));
    c.expect("batch_norm::forward", &out, &want[of(rank)], stored + tolerance);
    c.expect("batch_norm::forward", &mean, &relative, tolerance);
    c.expect("batch_norm::forward", &rstd, &rstd64, tolerance);
    c.expect("batch_norm::running", &running_mean, &want_mean, tolerance);
    c.expect("batch_norm::running", &running_var, &want_var, tolerance);

    // Backward starts from the same saved statistics as the reference.
    let (mean32, rstd32) = (narrow(&relative), narrow(&rstd64));
    let absolute: Vec<f64> = wide(&mean32).iter().zip(origin).map(|(m, o)| m + o).collect();
    let rstd64 = wide(&rstd32);
    let [mean, rstd] = [c.input("saved_mean", &mean32)?, c.input("saved_rstd", &rstd32)?];
    for behind in [Behind::Nothing, Behind::Relu(&mask_view)] {
        let mut masked = dout64.clone();
        if let Behind::Relu(_) = behind {
            cpu::relu::backward(&mut masked, &dout64, &wide(&mask), false);
        }
        let [mut all_weight, mut all_bias, mut unused] = [vec![0.0; cols], vec![0.0; cols], vec![0.0; n]];
        let (m, r) = (&absolute, &rstd64);
        backward(&mut unused, &mut all_weight, &mut all_bias, &masked, &x64, &weight64, m, r, true, all_rows, cols);
        let want = &unused[of(rank)];
        let before = random.vec(cols);
        // The parameters' gradients are sums over a rank's own rows, whatever the statistics are.
        let sums = |i: usize, start: Vec<f64>| {
            let (mut dweight, mut dbias) = (start.clone(), start);
            let (g, x) = (&masked[of(i)], &x64[of(i)]);
            let mut dinp = vec![0.0; g.len()];
            backward(&mut dinp, &mut dweight, &mut dbias, g, x, &weight64, m, r, false, counts[i], cols);
            [dweight, dbias]
        };
        let told = |i: usize| {
            let [dweight, dbias] = sums(i, vec![0.0; cols]);
            narrow(&[dbias, dweight, vec![counts[i] as f64]].concat())
        };
        let [want_weight, want_bias] = sums(rank, wide(&before));
        let dinp = c.output_as("dinp", element, rows * cols)?;
        let [dweight, dbias] = [c.input("dweight", &before)?, c.input("dbias", &before)?];
        c.run_with(launch, &ranks((0..3).map(told).collect()), |p| {
            let (dx, dw, db, dy) = (&dinp, &dweight, &dbias, &dout_view);
            ops::batch_norm::backward(p, dx, dw, db, dy, behind, &inp, &weight_view, &mean, &rstd, mode, dims)
        })?;
        c.expect("batch_norm::backward", &dinp, want, stored + 2.0 * tolerance);
        c.expect("batch_norm::backward", &dweight, &want_weight, tolerance);
        c.expect("batch_norm::backward", &dbias, &want_bias, tolerance);
    }
    s.finish(c)
}
