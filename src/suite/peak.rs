//! The kernels that a benchmark's peak is measured with: a figure is only as good as their results.

use super::harness::{Case, EPS, Launch, Random, wide};
use super::{Plan, Stem, stem};
use crate::cpu;
use crate::error::Result;
use crate::ops::peak;

pub(super) const STEMS: &[Stem] = &[stem("peak", peak, &["peak::multiply_add", "peak::copy"])];

fn peak(p: &mut Plan) -> Result<()> {
    let (a, b) = (0.5_f32, 0.75_f32);
    for launch in Launch::folded(p.gpu) {
        for (_, (len, loops)) in p.pick(&[(4, 0), (4, 1), (252, 3), (256, 1), (772, 2)], &[2, 4]) {
            p.add(move |s| {
                let inp = Random::new(len as u64).vec(len);
                let mut want = vec![0.0; len];
                cpu::peak::multiply_add(&mut want, &wide(&inp), loops * peak::ROUNDS, f64::from(a), f64::from(b));
                let mut c = Case::new(s.gpu, format!("{len}, {loops} loops, {}", launch.suffix()), 0)?;
                let (inp_view, out) = (c.input("inp", &inp)?, c.output("out", len)?);
                let copied = c.output("copied", len)?;
                c.run(launch, |r| {
                    peak::multiply_add(r, &out, &inp_view, loops, a, b)?;
                    peak::copy(r, &copied, &inp_view)
                })?;
                // Each value closes in on b / (1 − a), and errors halve in each round: a few roundings are left.
                c.expect("peak::multiply_add", &out, &want, 8.0 * EPS);
                c.expect("peak::copy", &copied, &wide(&inp), 0.0);
                s.finish(c)
            });
        }
    }
    Ok(())
}
