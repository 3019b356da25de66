//! Optimisers and gradient clipping, over arenas that are cut into several bindings.

use super::harness::{Case, EPS, Launch, Random, sum_tolerance, wide};
use super::{Plan, Stem, Suite, stem};
use crate::cpu;
use crate::error::Result;
use crate::gpu::View;
use crate::ops::adamw::AdamW;
use crate::ops::cross_entropy::CHANNELS;
use crate::ops::norm_clip::{HEALTH_LEN, partials_len};
use crate::ops::step_state::{STATE_WORDS, StepState};
use crate::ops::{self, sgd::Sgd};
use crate::shapes::{ParamLayout, Segment};

pub(super) const STEMS: &[Stem] = &[
    stem("sgd", sgd, &["sgd::plain", "sgd::forward"]),
    stem("adamw", adamw, &["adamw::forward"]),
    stem("norm_clip", norm_clip, &["norm_clip::squares", "norm_clip::clip"]),
];

/// The kernels' `Step`: learning rate, both bias corrections, step (from 1), slot of the ring, first, micro-batch.
pub(super) fn step_words(
    lr: f32,
    correction1: f32,
    correction2_sqrt: f32,
    step: u32,
    slot: u32,
    micro: u32,
) -> [u32; STATE_WORDS] {
    let (bias_correction1, bias_correction2_sqrt, first) = (correction1, correction2_sqrt, u32::from(step == 1));
    StepState { lr, bias_correction1, bias_correction2_sqrt, step, slot, first, micro }.words()
}

/// Tensors of odd lengths, 23,296 elements with padding: more than one chunk of norm_clip, and of the optimisers' workgroups;
/// and ways to cut them: whole, cut in three, and with a hole that no
/// kernel may touch.
fn arena() -> (ParamLayout, Vec<(&'static str, Vec<Segment>)>) {
    let lens = [1, 3, 63, 65, 197, 768, 5000, 17_001];
    let tensors: Vec<_> = lens.iter().map(|len| (format!("t{len}"), vec![*len])).collect();
    let layout = ParamLayout::new(&tensors);
    let whole = vec![Segment { offset: 0, len: layout.len }];
    let three = vec![
        Segment { offset: 0, len: 192 },
        Segment { offset: 192, len: 1152 - 192 },
        Segment { offset: 1152, len: layout.len - 1152 },
    ];
    let hole = vec![Segment { offset: 64, len: 128 }, Segment { offset: 1344, len: layout.len - 1344 }];
    (layout, vec![("whole", whole), ("cut in three", three), ("with a hole", hole)])
}

/// Indices of the arena that some segment covers.
fn covered(segments: &[Segment]) -> impl Iterator<Item = usize> + '_ {
    segments.iter().flat_map(|s| s.offset..s.offset + s.len)
}

/// Steps of an optimiser that are run one after another.
const STEPS: usize = 3;

fn sgd(p: &mut Plan) -> Result<()> {
    let kinds = [(0.0, false, 0.0), (0.0, false, 0.1), (0.9, false, 0.0), (0.9, true, 0.1)];
    for launch in Launch::all(p.gpu) {
        for (_, cut) in p.pick(&[0, 1, 2], &[1]) {
            for (_, (momentum, nesterov, weight_decay)) in p.pick(&kinds, &[1, 2, 3]) {
                let sgd = Sgd { momentum, nesterov, weight_decay };
                p.add(move |s| sgd_case(s, launch, cut, sgd));
            }
        }
    }
    Ok(())
}

fn sgd_case(s: &mut Suite, launch: Launch, cut: usize, sgd: Sgd) -> Result<()> {
    let (layout, cuts) = arena();
    let (cut, segments) = &cuts[cut];
    let Sgd { momentum, nesterov, weight_decay } = sgd;
    let name = format!("{cut}, momentum {momentum}, nesterov {nesterov}, decay {weight_decay}");
    let mut random = Random::new(31);
    let (lr, grad_scale) = (0.1f32, 0.37f32);
    let mut c = Case::new(s.gpu, format!("{name}, {}", launch.suffix()), 0)?;
    let (w32, m32) = (random.vec(layout.len), random.vec(layout.len));
    let (w, m) = (c.input("w", &w32)?, c.input("m", &m32)?);
    let health = c.words("health", &[grad_scale.to_bits(), 0])?;
    let has_momentum = sgd.momentum != 0.0;
    let (mut want_w, mut want_m) = (wide(&w32), wide(&m32));
    for t in 1..=STEPS {
        let dw32 = random.vec(layout.len);
        let dw = c.input("dw", &dw32)?;
        let step = c.words("step", &step_words(lr, 1.0, 1.0, t as u32, 0, 0))?;
        let m = has_momentum.then_some(&m);
        c.run(launch, |r| ops::sgd::step(r, &w, m, &dw, &step, &health, segments, sgd))?;
        for i in covered(segments) {
            let [momentum, decay, rate] = [sgd.momentum, sgd.weight_decay, lr].map(f64::from);
            let (w, m) = (&mut want_w[i..=i], &mut want_m[i..=i]);
            let (dw, scale) = ([f64::from(dw32[i])], f64::from(grad_scale));
            cpu::sgd::step(w, m, &dw, rate, momentum, sgd.nesterov, decay, t == 1, scale);
        }
    }
    // Each step adds a few roundings to a weight, and the momentum carries its own along.
    let kernel = if has_momentum { "sgd::forward" } else { "sgd::plain" };
    c.expect(kernel, &w, &want_w, EPS * 4.0 * STEPS as f64);
    if has_momentum {
        c.expect(kernel, &m, &want_m, EPS * 4.0 * STEPS as f64);
    }
    s.finish(c)
}

fn adamw(p: &mut Plan) -> Result<()> {
    for launch in Launch::all(p.gpu) {
        for (_, cut) in p.pick(&[0, 1, 2], &[1]) {
            for (_, weight_decay) in p.pick(&[0.0, 0.05], &[1]) {
                let adamw = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay };
                p.add(move |s| adamw_case(s, launch, cut, adamw));
            }
        }
    }
    Ok(())
}

fn adamw_case(s: &mut Suite, launch: Launch, cut: usize, adamw: AdamW) -> Result<()> {
    let (layout, cuts) = arena();
    let (cut, segments) = &cuts[cut];
    let name = format!("{cut}, decay {}", adamw.weight_decay);
    let mut random = Random::new(37);
    let (lr, grad_scale) = (0.01f32, 0.37f32);
    let mut c = Case::new(s.gpu, format!("{name}, {}", launch.suffix()), 0)?;
    let (w32, zero) = (random.vec(layout.len), vec![0.0; layout.len]);
    let [w, m, v] = [c.input("w", &w32)?, c.input("m", &zero)?, c.input("v", &zero)?];
    let health = c.words("health", &[grad_scale.to_bits(), 0])?;
    let (mut want_w, mut want_m, mut want_v) = (wide(&w32), wide(&zero), wide(&zero));
    for t in 1..=STEPS {
        let mut dw32 = random.vec(layout.len);
        // No gradient at all, and gradients around eps: the root's neighbour counts then. One in a thousand is large.
        dw32.iter_mut().step_by(7).for_each(|g| *g = 0.0);
        dw32.iter_mut().step_by(11).for_each(|g| *g *= 1e-7);
        dw32.iter_mut().step_by(997).for_each(|g| *g *= 1e3);
        let dw = c.input("dw", &dw32)?;
        let (correction1, correction2) = (1.0 - adamw.beta1.powi(t as i32), 1.0 - adamw.beta2.powi(t as i32));
        let words = step_words(lr, correction1 as f32, correction2.sqrt() as f32, t as u32, 0, 0);
        let step = c.words("step", &words)?;
        c.run(launch, |r| ops::adamw::step(r, &w, &m, &v, &dw, &step, &health, segments, adamw))?;
        for i in covered(segments) {
            let [rate, eps, decay] = [lr, adamw.eps, adamw.weight_decay].map(f64::from);
            let (w, m, v) = (&mut want_w[i..=i], &mut want_m[i..=i], &mut want_v[i..=i]);
            let (dw, scale) = ([f64::from(dw32[i])], f64::from(grad_scale));
            cpu::adamw::step(w, m, v, &dw, rate, adamw.beta1, adamw.beta2, eps, decay, t as u32, scale);
        }
    }
    // Each step adds a few roundings; the update, a division and two roots, is a hundredth of a weight.
    c.expect("adamw::forward", &w, &want_w, EPS * 4.0 * STEPS as f64);
    c.expect("adamw::forward", &m, &want_m, EPS * 4.0 * STEPS as f64);
    c.expect("adamw::forward", &v, &want_v, EPS * 4.0 * STEPS as f64);
    s.finish(c)
}

/// The buffers of the clipping kernels in one case.
struct Clip {
    health: View,
    ring: View,
    partials: View,
}

impl Clip {
    fn new(c: &mut Case, ring: &[f32], segments: &[Segment]) -> Result<Clip> {
        Ok(Clip {
            health: c.words("health", &[f32::NAN.to_bits(), 0])?,
            ring: c.input("ring", ring)?,
            partials: c.output("partials", partials_len(segments))?,
        })
    }
}

fn norm_clip(p: &mut Plan) -> Result<()> {
    let slot = 2;
    for launch in Launch::reductions(p.gpu) {
        for (_, cut) in p.pick(&[0, 1, 2], &[1]) {
            for (_, max_norm) in p.pick(&[0.0, 1.0, 1e3], &[1]) {
                p.add(move |s| {
                    let (layout, cuts) = arena();
                    let (cut, segments) = &cuts[cut];
                    let mut random = Random::new(41);
                    let (dw32, ring32) = (random.vec(layout.len), random.vec(4 * CHANNELS));
                    let mut c = Case::new(s.gpu, format!("{cut}, max norm {max_norm}, {}", launch.suffix()), 0)?;
                    let clip = Clip::new(&mut c, &ring32, segments)?;
                    let dw = c.input("dw", &dw32)?;
                    let step = c.words("step", &step_words(0.1, 1.0, 1.0, 9, slot as u32, 0))?;
                    c.run(launch, |r| {
                        ops::norm_clip::forward(
                            r,
                            &clip.health,
                            &clip.ring,
                            &dw,
                            &step,
                            &clip.partials,
                            segments,
                            max_norm,
                        )
                    })?;

                    let dw64 = wide(&dw32);
                    let parts: Vec<&[f64]> = segments.iter().map(|s| &dw64[s.offset..s.offset + s.len]).collect();
                    let norm = cpu::norm_clip::norm(&parts);
                    let scale = if max_norm > 0.0 { cpu::norm_clip::scale(norm, f64::from(max_norm)) } else { 1.0 };
                    let squares =
                        parts.iter().flat_map(|p| p.chunks(16_384)).map(|c| c.iter().map(|x| x * x).sum::<f64>());
                    // Sums of squares, all positive: their errors are relative to the sum. The scale is two operations more.
                    let tolerance = sum_tolerance(16_384, 4.0);
                    c.expect("norm_clip::squares", &clip.partials, &squares.collect::<Vec<_>>(), tolerance);
                    c.expect_at("norm_clip::clip", &clip.health, &[0..1], &[scale, 0.0], tolerance + 4.0 * EPS);
                    c.expect_bits("norm_clip::clip", &clip.health, &[1..HEALTH_LEN], &[0, 0]);
                    let at = slot * CHANNELS + 1;
                    let mut want = wide(&ring32);
                    want[at] = norm;
                    c.expect_at("norm_clip::clip", &clip.ring, &[at..at + 1], &want, tolerance);
                    let bits: Vec<u32> = ring32.iter().map(|x| x.to_bits()).collect();
                    c.expect_bits("norm_clip::clip", &clip.ring, &[0..at, at + 1..ring32.len()], &bits);
                    s.finish(c)
                });
            }
        }
    }
    bad_step(p);
    Ok(())
}

/// A gradient or loss that is not finite: the step is noted, neither optimiser changes a bit of weights or state, and a
/// good step afterwards does not wake them.
fn bad_step(p: &mut Plan) {
    let bad = [
        ("NaN gradient", f32::NAN, 1.0),
        ("infinite gradient", f32::INFINITY, 1.0),
        ("gradient whose square overflows", 1e30, 1.0),
        ("NaN loss", 0.5, f32::NAN),
        ("infinite loss", 0.5, f32::NEG_INFINITY),
    ];
    for launch in Launch::reductions(p.gpu) {
        for (_, (what, gradient, loss)) in p.pick(&bad, &[0]) {
            p.add(move |s| {
                let (layout, cuts) = arena();
                let segments = &cuts[1].1;
                let mut random = Random::new(43);
                let good32 = random.vec(layout.len);
                let mut bad32 = good32.clone();
                bad32[layout.len - 70] = gradient;
                let mut c = Case::new(s.gpu, format!("{what}, {}", launch.suffix()), 0)?;
                let clip = Clip::new(&mut c, &[loss, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0], segments)?;
                let [w, m, v] = ["w", "m", "v"].map(|name| c.input(name, &random.vec(layout.len)));
                let (w, m, v) = (w?, m?, v?);
                for (dw32, step, slot) in [(&bad32, 5, 0), (&good32, 6, 1)] {
                    let dw = c.input("dw", dw32)?;
                    let step = c.words("step", &step_words(0.1, 0.1, 0.1, step, slot, 0))?;
                    let sgd = Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.1 };
                    let plain = Sgd { momentum: 0.0, ..sgd };
                    let adamw = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
                    c.run(launch, |r| {
                        let Clip { health, ring, partials } = &clip;
                        ops::norm_clip::forward(r, health, ring, &dw, &step, partials, segments, 1.0)?;
                        ops::sgd::step(r, &w, Some(&m), &dw, &step, health, segments, sgd)?;
                        ops::sgd::step(r, &w, None, &dw, &step, health, segments, plain)?;
                        ops::adamw::step(r, &w, &m, &v, &dw, &step, health, segments, adamw)
                    })?;
                }
                // The first bad step stays on record; scale, norms and partial sums of a bad step may be anything.
                c.expect_bits("norm_clip::clip", &clip.health, &[1..2], &[0, 5]);
                for free in [&clip.ring, &clip.partials] {
                    c.expect_bits("norm_clip::clip", free, &[], &[]);
                }
                for state in [&w, &m, &v] {
                    c.expect_unchanged("norm_clip::clip", state);
                }
                s.finish(c)
            });
        }
    }
}
