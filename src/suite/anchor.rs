//! What holds weights near their anchor besides the projection, over an arena of every kind of tensor; the moving average, and the weights
//! up the slope.

use super::harness::{Case, EPS, Launch, Random, narrow, sum_tolerance, wide};
use super::{Plan, Stem, Suite, stem};
use crate::cpu;
use crate::error::Result;
use crate::ops;
use crate::ops::digrap::{Digrap, PULL_WORDS};
use crate::ops::ftp::Ftp;
use crate::ops::mars::{LOG_WORDS, Mars, RADIUS_WORDS};
use crate::ops::spd::Spd;
use crate::shapes::Norm;
use crate::shapes::{ParamLayout, Segment};

pub(super) const STEMS: &[Stem] = &[
    stem("ftp", ftp, &["ftp::apply", "ftp::learn", "ftp::clip"]),
    stem("spd", spd, &["spd::apply"]),
    stem("digrap", digrap, &["digrap::measure", "digrap::learn", "digrap::apply"]),
    stem("sam", sam, &["sam::measure", "sam::climb"]),
    stem("l2_sp", l2_sp, &["l2_sp::backward"]),
    stem("lerp", lerp, &["lerp::forward"]),
];

/// Shapes, and whether nothing holds the tensor. Rows of vectors of eight and four and of single elements, shorter than a
/// workgroup and of several chunks.
const TENSORS: [(&[usize], bool); 10] = [
    (&[9], false),
    (&[2501], false),
    (&[5, 7], false),
    (&[3, 1100], false),
    (&[4, 3, 2, 2], false),
    (&[1, 6, 5], false),
    (&[3, 5], true),
    (&[2, 5000], false),
    (&[1, 4108], false),
    (&[65, 1], false),
];

const STEPS: usize = 4;
const LR: f32 = 0.02;

/// A way to cut the arena, by name.
type Cut = (&'static str, Vec<Segment>);

fn arena() -> Result<(ParamLayout, [Cut; 2])> {
    let tensors: Vec<_> = TENSORS.iter().enumerate().map(|(i, (shape, _))| (format!("t{i}"), shape.to_vec())).collect();
    let layout = ParamLayout::new(&tensors);
    let whole = vec![Segment { offset: 0, len: layout.len }];
    let cut = layout.segments(10_048 * 4)?;
    assert!(cut.len() >= 2, "the largest tensor alone must not take all");
    Ok((layout, [("whole", whole), ("cut", cut)]))
}

fn excluded() -> [bool; TENSORS.len()] {
    TENSORS.map(|(_, excluded)| excluded)
}

/// Columns of a tensor's MARS rows.
fn cols(shape: &[usize]) -> usize {
    shape.iter().product::<usize>() / Norm::Mars.rows(shape)
}

/// Values near `w0`, padding excepted.
fn drifted(layout: &ParamLayout, w0: &[f32], drift: f32, random: &mut Random) -> Vec<f32> {
    let noise = random.vec(layout.len);
    let mut w = w0.to_vec();
    for p in &layout.params {
        (p.offset..p.offset + p.len).for_each(|i| w[i] += drift * noise[i]);
    }
    w
}

fn lerp(p: &mut Plan) -> Result<()> {
    for launch in Launch::all(p.gpu) {
        for (_, cut) in p.pick(&[0, 1], &[1]) {
            p.add(move |s| {
                let (layout, cuts) = arena()?;
                let (cut, segments) = &cuts[cut];
                let mut random = Random::new(71);
                let mut c = Case::new(s.gpu, format!("{cut}, {}", launch.suffix()), 0)?;
                let (out32, inp32) = (random.vec(layout.len), random.vec(layout.len));
                let (out, inp) = (c.input("out", &out32)?, c.input("inp", &inp32)?);
                c.run(launch, |r| ops::lerp::forward(r, &out, &inp, segments, 0.01))?;
                let mut want = wide(&out32);
                cpu::lerp::forward(&mut want, &wide(&inp32), f64::from(0.01f32));
                c.expect("lerp::forward", &out, &want, 4.0 * EPS);
                s.finish(c)
            });
        }
    }
    Ok(())
}

fn l2_sp(p: &mut Plan) -> Result<()> {
    for launch in Launch::all(p.gpu) {
        for scale in [None, Some(1024.0f32)] {
            p.add(move |s| {
                let (layout, _) = arena()?;
                let anchored = layout.segments_of(10_048 * 4, |t| (!TENSORS[t].1).then_some(()))?;
                let segments: Vec<Segment> = anchored.into_iter().map(|(_, segment)| segment).collect();
                let mut random = Random::new(73);
                let mut c = Case::new(s.gpu, format!("loss scale {scale:?}, {}", launch.suffix()), 0)?;
                let (w0_32, dw32) = (random.vec(layout.len), random.vec(layout.len));
                let w32 = drifted(&layout, &w0_32, 0.1, &mut random);
                let (w, w0, dw) = (c.input("w", &w32)?, c.input("w0", &w0_32)?, c.input("dw", &dw32)?);
                let factor = scale.map(|scale| c.input("loss scale", &[scale])).transpose()?;
                c.run(launch, |r| ops::l2_sp::backward(r, &dw, &w, &w0, factor.as_ref(), &segments, 0.25))?;
                let mut want = wide(&dw32);
                for s in &segments {
                    let at = s.offset..s.offset + s.len;
                    let (w, w0) = (wide(&w32[at.clone()]), wide(&w0_32[at.clone()]));
                    cpu::l2_sp::backward(&mut want[at], &w, &w0, 0.25, f64::from(scale.unwrap_or(1.0)));
                }
                c.expect("l2_sp::backward", &dw, &want, 4.0 * EPS);
                s.finish(c)
            });
        }
    }
    Ok(())
}

fn spd(p: &mut Plan) -> Result<()> {
    for launch in Launch::all(p.gpu).into_iter().flat_map(Launch::words) {
        for (_, cut) in p.pick(&[0, 1], &[1]) {
            p.add(move |s| {
                let (layout, cuts) = arena()?;
                let (cut, segments) = &cuts[cut];
                let mut random = Random::new(79);
                let mut c = Case::new(s.gpu, format!("{cut}, {}", launch.suffix()), 0)?;
                let (w0_32, dw32) = (random.vec(layout.len), random.vec(layout.len));
                let before32 = drifted(&layout, &w0_32, 0.1, &mut random);
                // Some tensors come nearer to the anchor, the others go further away.
                let mut after32 = drifted(&layout, &w0_32, 0.2, &mut random);
                for p in layout.params.iter().step_by(3) {
                    (p.offset..p.offset + p.len).for_each(|i| after32[i] = w0_32[i] + 0.5 * (before32[i] - w0_32[i]));
                }
                let (before, w0) = (c.input("w before", &before32)?, c.input("w0", &w0_32)?);
                let (dw, w) = (c.input("dw", &dw32)?, c.input("w", &after32)?);
                let mars = Mars::with_segments(s.gpu, &layout, segments, Norm::L2, &excluded(), launch.wide_tables())?;
                let spd = Spd::with_tables(s.gpu, mars)?;
                c.run(launch, |r| {
                    spd.note(r, &dw, &before, &w0)?;
                    spd.apply(r, &w, &w0, 0.7)
                })?;
                let mut want = wide(&after32);
                for (p, (_, excluded)) in layout.params.iter().zip(TENSORS) {
                    let at = p.offset..p.offset + p.len;
                    let [before, w0, dw] = [&before32, &w0_32, &dw32].map(|values| wide(&values[at.clone()]));
                    if !excluded {
                        cpu::spd::apply(&mut want[at], &before, &w0, &dw, f64::from(0.7f32));
                    }
                }
                let pulled = wide(&after32).iter().zip(&want).filter(|(a, b)| a != b).count();
                assert!(pulled > 0 && pulled < layout.count(), "{pulled}: choose data of both kinds");
                // The share is a difference of two norms over one of them; what it moves is a fifth of a weight.
                c.expect("spd::apply", &w, &want, sum_tolerance(10_000, 8.0));
                s.finish(c)
            });
        }
    }
    Ok(())
}

fn ftp(p: &mut Plan) -> Result<()> {
    for launch in Launch::all(p.gpu).into_iter().flat_map(Launch::words) {
        for (_, cut) in p.pick(&[0, 1], &[1]) {
            for scale in [None, Some(1024.0f32)] {
                p.add(move |s| ftp_steps(s, launch, cut, scale));
            }
        }
    }
    Ok(())
}

/// Steps from the first on, each from where the reference is.
fn ftp_steps(s: &mut Suite, launch: Launch, cut: usize, scale: Option<f32>) -> Result<()> {
    let (layout, cuts) = arena()?;
    let (cut, segments) = &cuts[cut];
    let name = format!("{cut}, loss scale {scale:?}, {}", launch.suffix());
    let mut random = Random::new(83);
    let mut c = Case::new(s.gpu, name, 0)?;
    let mars = Mars::with_segments(s.gpu, &layout, segments, Norm::Mars, &excluded(), launch.wide_tables())?;
    let ftp = Ftp { mars };
    c.adopt("radii", &ftp.mars.radii)?;
    let log = c.input("log", &vec![0.0; STEPS * TENSORS.len() * LOG_WORDS])?;
    let factor = scale.map(|scale| c.input("loss scale", &[scale])).transpose()?;
    let w0_32 = random.vec(layout.len);
    let w0 = c.input("w0", &w0_32)?;
    let k = 0.5;
    let mut radii = vec![cpu::ftp::Radius::<f64>::default(); TENSORS.len()];
    let (mut theta, mut unprojected32) = (wide(&w0_32), w0_32.clone());
    let mut want_log = vec![0.0; log.len];
    for t in 1..=STEPS {
        let dw32 = random.vec(layout.len);
        let scaled: Vec<f32> = dw32.iter().map(|g| g * scale.unwrap_or(1.0)).collect();
        let (dw, w_prev) = (c.input("dw", &scaled)?, c.input("w_prev", &unprojected32)?);
        let state = c.words("state", &super::optim::step_words(0.0, 0.0, 0.0, t as u32, t as u32 - 1, 0))?;
        let w32 = drifted(&layout, &narrow(&theta), 0.05, &mut random);
        let w = c.input("w", &w32)?;
        c.run(launch, |r| {
            ftp.learn(r, &log, &state, &dw, &w_prev, &w0, factor.as_ref(), LR, k)?;
            ftp.apply(r, &w, &w_prev, &w0)
        })?;
        theta = wide(&w32);
        for (i, (p, (shape, excluded))) in layout.params.iter().zip(TENSORS).enumerate() {
            if excluded {
                continue;
            }
            let (at, cols) = (p.offset..p.offset + p.len, cols(shape));
            let (w0, prev) = (wide(&w0_32[at.clone()]), wide(&unprojected32[at.clone()]));
            let drift: Vec<f64> = prev.iter().zip(&w0).map(|(w, w0)| w - w0).collect();
            let dw = wide(&dw32[at.clone()]);
            let gradient = cpu::ftp::learn(&mut radii[i], &dw, &drift, cols, f64::from(LR), f64::from(k), t as u32);
            let entry = ((t - 1) * TENSORS.len() + i) * LOG_WORDS;
            (want_log[entry], want_log[entry + 3]) = (radii[i].gamma, gradient);
            cpu::ftp::apply(&mut radii[i], &mut theta[at.clone()], &w0, cols);
            unprojected32[at.clone()].copy_from_slice(&w32[at]);
        }
        c.expect("ftp::apply", &w, &theta, 8.0 * EPS);
        c.expect("ftp::apply", &w_prev, &wide(&unprojected32), 0.0);
    }
    // Radii are sums of Adam's steps, ratios of moments of a sum of either sign; the gradients such sums themselves.
    let tolerance = sum_tolerance(10_000, 8.0);
    let of = |words: usize, word: usize, count: usize| -> Vec<_> {
        let held = (0..count).filter(|i| !TENSORS[i % TENSORS.len()].1);
        held.map(|i| i * words + word..i * words + word + 1).collect()
    };
    for word in [0, 3] {
        c.expect_at("ftp::learn", &log, &of(LOG_WORDS, word, STEPS * TENSORS.len()), &want_log, tolerance);
    }
    let columns: [fn(&cpu::ftp::Radius<f64>) -> f64; 3] = [|r| r.gamma, |r| r.m, |r| r.v];
    for (word, value) in columns.into_iter().enumerate() {
        let mut want = vec![0.0; TENSORS.len() * RADIUS_WORDS];
        radii.iter().enumerate().for_each(|(i, r)| want[i * RADIUS_WORDS + word] = value(r));
        c.expect_at("ftp::clip", &ftp.mars.radii, &of(RADIUS_WORDS, word, TENSORS.len()), &want, tolerance);
    }
    s.finish(c)
}

fn digrap(p: &mut Plan) -> Result<()> {
    for launch in Launch::all(p.gpu).into_iter().flat_map(Launch::words) {
        for (_, cut) in p.pick(&[0, 1], &[1]) {
            for scale in [1.0, 1024.0f32] {
                p.add(move |s| digrap_steps(s, launch, cut, scale));
            }
        }
    }
    Ok(())
}

/// Steps whose gradients lead some tensors away from the anchor, and others away and back in turn; the last is not finite in one of them.
fn digrap_steps(s: &mut Suite, launch: Launch, cut: usize, scale: f32) -> Result<()> {
    const LR: f32 = 0.3;
    let (layout, cuts) = arena()?;
    let (cut, segments) = &cuts[cut];
    let mut random = Random::new(89);
    let mut c = Case::new(s.gpu, format!("{cut}, loss scale {scale}, {}", launch.suffix()), 0)?;
    let mars = Mars::with_segments(s.gpu, &layout, segments, Norm::L2, &excluded(), launch.wide_tables())?;
    let digrap = Digrap::with_tables(s.gpu, mars)?;
    c.adopt("omega", &digrap.mars.radii)?;
    c.adopt("pulls", &digrap.pulls)?;
    let w0_32 = random.vec(layout.len);
    let far32 = drifted(&layout, &w0_32, 0.1, &mut random);
    let w0 = c.input("w0", &w0_32)?;
    let mut kept = vec![cpu::digrap::Tensor::<f64>::default(); TENSORS.len()];
    let mut prev32 = w0_32.clone();
    let mut befores = vec![0.0; TENSORS.len()];
    // What leads away is as large as the noise of a tensor; its sums have no more of either sign than others.
    let tolerance = sum_tolerance(10_000, 8.0);
    for t in 1..=STEPS {
        let w32 = drifted(&layout, &far32, 0.02, &mut random);
        let mut dw32 = random.vec(layout.len);
        for (i, p) in layout.params.iter().enumerate() {
            let away = if i % 3 == 0 || (i + t) % 2 == 0 { -8.0 } else { 8.0 };
            (p.offset..p.offset + p.len).for_each(|i| dw32[i] += away * (w32[i] - w0_32[i]));
        }
        dw32.iter_mut().for_each(|dw| *dw *= scale);
        let bad = (t == STEPS).then_some(2usize);
        if let Some(tensor) = bad {
            dw32[layout.params[tensor].offset + 1] = f32::INFINITY;
        }
        let (w, dw, w_prev) = (c.input("w", &w32)?, c.input("dw", &dw32)?, c.input("w_prev", &prev32)?);
        let state = c.words("state", &super::optim::step_words(0.0, 0.0, 0.0, t as u32, t as u32 - 1, 0))?;
        c.run(launch, |r| digrap.step(r, &state, &dw, (&w, &w_prev, &w0), LR))?;

        let mut want = wide(&dw32);
        let mut held = Vec::new();
        for (i, (p, (_, excluded))) in layout.params.iter().zip(TENSORS).enumerate() {
            let at = p.offset..p.offset + p.len;
            if excluded || bad == Some(i) {
                continue;
            }
            let [w, w0] = [&w32, &w0_32].map(|values| wide(&values[at.clone()]));
            cpu::digrap::step(&mut kept[i], &mut want[at.clone()], &w, &w0, f64::from(LR), t as u32);
            let away: f64 =
                wide(&dw32[at.clone()]).iter().zip(w.iter().zip(&w0)).map(|(g, (w, w0))| g * (w - w0)).sum();
            let far = w.iter().zip(&w0).map(|(w, w0)| (w - w0) * (w - w0)).sum::<f64>().sqrt();
            befores[i] = away.signum() * far;
            prev32[at.clone()].copy_from_slice(&w32[at.clone()]);
            held.push(at);
        }
        c.expect_at("digrap::apply", &dw, &held, &want, tolerance);
        let bits: Vec<u32> = dw32.iter().map(|x| x.to_bits()).collect();
        let rest: Vec<_> = (0..TENSORS.len()).filter(|i| TENSORS[*i].1 || bad == Some(*i)).collect();
        let rest: Vec<_> = rest.iter().map(|i| &layout.params[*i]).map(|p| p.offset..p.offset + p.len).collect();
        c.expect_bits("digrap::apply", &dw, &rest, &bits);
        c.expect("digrap::apply", &w_prev, &wide(&prev32), 0.0);
    }
    let omegas: Vec<f64> = kept.iter().map(|tensor| tensor.omega).collect();
    assert!(omegas.contains(&0.0) && omegas.iter().any(|omega| *omega > 0.5), "{omegas:?}: choose data of both kinds");
    let of = |words: usize, word: usize| -> Vec<_> {
        let held = (0..TENSORS.len()).filter(|i| !TENSORS[*i].1);
        held.map(|i| i * words + word..i * words + word + 1).collect()
    };
    let columns: [fn(&cpu::digrap::Tensor<f64>) -> f64; 3] = [|t| t.omega, |t| t.m, |t| t.v];
    for (word, value) in columns.into_iter().enumerate() {
        let mut want = vec![0.0; TENSORS.len() * RADIUS_WORDS];
        kept.iter().enumerate().for_each(|(i, tensor)| want[i * RADIUS_WORDS + word] = value(tensor));
        c.expect_at("digrap::learn", &digrap.mars.radii, &of(RADIUS_WORDS, word), &want, tolerance);
    }
    let mut want = vec![0.0; TENSORS.len() * PULL_WORDS];
    befores.iter().enumerate().for_each(|(i, before)| want[i * PULL_WORDS] = *before);
    // Norms of differences; their sums are what all else follows from.
    c.expect_at("digrap::measure", &digrap.pulls, &of(PULL_WORDS, 0), &want, tolerance);
    s.finish(c)
}

fn sam(p: &mut Plan) -> Result<()> {
    for launch in Launch::reductions(p.gpu) {
        for (most, bad) in [(1 << 30, false), (10_048 * 4, false), (10_048 * 4, true)] {
            p.add(move |s| {
                let (layout, _) = arena()?;
                let parts = layout.segments_of(most, |t| Some(!TENSORS[t].1))?;
                let of = |trained| {
                    parts.iter().filter(move |(is, _)| *is == trained).map(|(_, part)| *part).collect::<Vec<_>>()
                };
                let (trained, still): (Vec<Segment>, Vec<Segment>) = (of(true), of(false));
                let mut random = Random::new(97);
                let name = format!("{} segments, finite {}, {}", parts.len(), !bad, launch.suffix());
                let mut c = Case::new(s.gpu, name, 0)?;
                let (w32, mut dw32) = (random.vec(layout.len), random.vec(layout.len));
                if bad {
                    dw32[3] = f32::INFINITY;
                }
                let (w, dw) = (c.input("w", &w32)?, c.input("dw", &dw32)?);
                let len = ops::norm_clip::partials_len(&trained);
                // A case takes no sum that is not finite, not even a wanted one.
                let partials = if bad { s.gpu.buffer("partials", len)? } else { c.output("partials", len)? };
                let (factor, climbed) = (c.output("factor", 1)?, c.output("climbed", layout.len)?);
                c.run(launch, |r| {
                    ops::sam::climb(r, &climbed, &w, &dw, (&partials, &factor), (&trained, &still), 0.7)
                })?;
                let rho = f64::from(0.7f32);
                let gradient: Vec<f64> = trained.iter().flat_map(|s| wide(&dw32[s.offset..s.offset + s.len])).collect();
                let start: Vec<f64> = trained.iter().flat_map(|s| wide(&w32[s.offset..s.offset + s.len])).collect();
                let mut up = vec![0.0; start.len()];
                cpu::sam::climb(&mut up, &start, &gradient, rho);
                let (mut want, mut up) = (wide(&w32), up.into_iter());
                for s in &trained {
                    want[s.offset..s.offset + s.len].iter_mut().for_each(|w| *w = up.next().expect("as long"));
                }
                // A sum of squares, all positive, and a few operations on it.
                let tolerance = sum_tolerance(16_384, 8.0);
                let length = if bad { 0.0 } else { rho / gradient.iter().map(|g| g * g).sum::<f64>().sqrt() };
                let squares = trained.iter().flat_map(|s| dw32[s.offset..s.offset + s.len].chunks(16_384));
                let squares: Vec<f64> = squares.map(|c| wide(c).iter().map(|g| g * g).sum()).collect();
                if !bad {
                    c.expect("sam::measure", &partials, &squares, tolerance);
                }
                c.expect("sam::measure", &factor, &[length], tolerance);
                c.expect("sam::climb", &climbed, &want, if bad { 0.0 } else { 8.0 * EPS });
                s.finish(c)
            });
        }
    }
    Ok(())
}
