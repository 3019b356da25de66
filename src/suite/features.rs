//! What happens to feature vectors and logits.

use super::Plan;
use super::harness::{Case, EPS, Launch, Random, narrow, sum_tolerance, wide};
use crate::cpu;
use crate::error::Result;
use crate::ops;

pub(super) fn l2_normalize(p: &mut Plan) -> Result<()> {
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

pub(super) fn average(p: &mut Plan) -> Result<()> {
    let natural = Launch::natural(p.gpu);
    for launch in [natural, Launch { fold: true, ..natural }] {
        for (_, len) in p.pick(&[1, 3, 63, 65, 197, 5000], &[4, 5]) {
            p.add(move |s| {
                let mut random = Random::new(len as u64);
                let [a, b, dout] = [0; 3].map(|_| random.vec(len));
                let (mut want, mut want_grad) = (vec![0.0; len], vec![0.0; len]);
                cpu::average::forward(&mut want, &wide(&a), &wide(&b));
                cpu::average::backward(&mut want_grad, &wide(&dout));
                let name = format!("len {len}{}", if launch.fold { ", folded" } else { "" });
                let mut c = Case::new(s.gpu, name, 0)?;
                let [a, b, dout] = [c.input("a", &a)?, c.input("b", &b)?, c.input("dout", &dout)?];
                let [out, dinp] = [c.output("out", len)?, c.output("dinp", len)?];
                c.run(launch, |r| {
                    ops::average::forward(r, &out, &a, &b)?;
                    ops::average::backward(r, &dinp, &dout)
                })?;
                // One rounded sum; halving is exact.
                c.expect("average::forward", &out, &want, EPS);
                c.expect("average::backward", &dinp, &want_grad, 0.0);
                s.finish(c)
            });
        }
    }
    Ok(())
}
