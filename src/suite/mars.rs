//! The projection and its radii, over an arena of every kind of tensor.

use super::harness::{Case, EPS, Launch, Random, sum_tolerance, wide};
use super::{Plan, Stem, Suite, stem};
use crate::cpu::mars::{self, RADIUS_BETAS, RADIUS_EPS};
use crate::cpu::{Float, adamw};
use crate::error::Result;
use crate::gpu::{Gpu, View};
use crate::ops::mars::{LOG_WORDS, Mars, RADIUS_WORDS};
use crate::shapes::Norm;
use crate::shapes::{ParamLayout, Segment};

pub(super) const STEMS: &[Stem] = &[stem("mars", mars, &["mars::project", "mars::step", "mars::apply", "mars::clip"])];

/// Name, shape, whether it has no radius, and how far it has drifted. Rows of vectors of eight and four and of single
/// elements, shorter than a workgroup, and of several chunks of each.
const TENSORS: [(&str, &[usize], bool, f32); 22] = [
    ("vector", &[9], false, 0.05),
    ("long vector", &[2501], false, 0.02),
    ("linear", &[5, 7], false, 0.3),
    ("small", &[5, 7], false, 1e-3),
    ("wide", &[3, 1100], false, 0.01),
    ("conv", &[4, 3, 2, 2], false, 0.1),
    ("positions", &[1, 6, 5], false, 0.2),
    ("column", &[65, 1], false, 0.5),
    ("tall", &[197, 3], false, 0.5),
    ("widest", &[2, 5000], false, 0.01),
    ("wide by 4", &[1, 4108], false, 0.01),
    ("rows of 2", &[7, 2], false, 0.2),
    ("rows of 4", &[7, 4], false, 0.1),
    ("rows of 6", &[9, 3, 2, 1], false, 0.3),
    ("rows of 8", &[5, 8], false, 0.1),
    ("rows of 9", &[1, 9, 1], false, 0.2),
    ("rows of 27", &[3, 3, 3, 3], false, 0.05),
    ("rows of 36", &[4, 4, 3, 3], false, 0.05),
    ("excluded", &[3, 5], true, 0.1),
    ("unmoved", &[2, 4], false, 0.0),
    ("barely moved", &[3, 2], false, 1e-10),
    ("head", &[1, 1, 768], false, 0.02),
];

const LR: f32 = 0.02;

fn mars(p: &mut Plan) -> Result<()> {
    for launch in Launch::reductions(p.gpu).into_iter().flat_map(Launch::words) {
        for norm in [Norm::Mars, Norm::L2] {
            for (_, how) in p.pick(&["whole", "cut"], &[1]) {
                for case in [schedule, given_radii, held_radius, broken_gradient] {
                    p.add(move |s| case(s, &Setting::new(launch, norm, how)?));
                }
            }
        }
    }
    Ok(())
}

/// What the cases vary.
struct Setting {
    launch: Launch,
    norm: Norm,
    how: &'static str,
    segments: Vec<Segment>,
    layout: ParamLayout,
}

impl Setting {
    /// The arena whole, or cut in several.
    fn new(launch: Launch, norm: Norm, how: &'static str) -> Result<Setting> {
        let tensors: Vec<_> = TENSORS.iter().map(|(name, shape, ..)| (name.to_string(), shape.to_vec())).collect();
        let layout = ParamLayout::new(&tensors);
        let segments = match how {
            "whole" => vec![Segment { offset: 0, len: layout.len }],
            _ => layout.segments(10_048 * 4)?,
        };
        assert!(how == "whole" || segments.len() >= 3, "the largest tensor alone must not take all");
        Ok(Setting { launch, norm, how, segments, layout })
    }

    fn name(&self, what: &str) -> String {
        format!("{what}, {:?}, {}, {}", self.norm, self.how, self.launch.suffix())
    }

    /// Anchor and weights, padding included: it is never to be touched.
    fn arenas(&self, random: &mut Random) -> (Vec<f32>, Vec<f32>) {
        let mut w0 = random.vec(self.layout.len);
        let noise = random.vec(self.layout.len);
        let mut w: Vec<f32> = w0.iter().zip(&noise).map(|(a, b)| a + b).collect();
        for (param, (name, _, _, drift)) in self.layout.params.iter().zip(TENSORS) {
            for i in param.offset..param.offset + param.len {
                // Next to an anchor of ordinary size, a drift this small would be none.
                w0[i] *= if name == "barely moved" { 0.0 } else { 1.0 };
                w[i] = w0[i] + drift * noise[i];
            }
            assert!(name != "unmoved" || w[param.offset] == w0[param.offset]);
        }
        (w0, w)
    }
}

/// One tensor's side of the reference. Norms are rounded to f32 as the kernels store them, and whether a row is active is
/// decided in f32: with gamma at its upper bound that is a matter of rounding (docs/methods.md, pin 3). All sums are f64.
#[derive(Clone, Debug, Default)]
struct Radius {
    gamma: f64,
    m: f64,
    v: f64,
    t: u32,
    max_norm: f64,
    started: bool,
    active: usize,
    gradient: f64,
    norms: Vec<f64>,
}

impl Radius {
    fn moved(&self) -> bool {
        self.max_norm >= crate::cpu::mars::TINY
    }

    fn clip(&mut self, w: &[f64], w0: &[f64], rows: usize, norm: Norm, start: bool) {
        let mut norms = vec![0.0; rows];
        mars::norms(&mut norms, w, w0, rows, w.len() / rows, norm);
        self.norms = norms.iter().map(|n| f64::from(*n as f32)).collect();
        self.max_norm = self.norms.iter().fold(0.0, |a, n| Float::max(a, *n));
        if start && self.moved() && !self.started {
            self.gamma = mars::initial_radius(&self.norms);
            self.started = true;
        }
        if let Some(gamma) = mars::clip_radius(self.gamma, &self.norms) {
            self.gamma = gamma;
        }
        // Data that sits on the border of activity by chance would test the rounding of a sum.
        for n in self.norms.iter().filter(|n| self.moved() && **n != self.gamma) {
            assert!(
                (self.gamma / n - 1.0).abs() > 1e-5,
                "gamma {} next to the norm {n}: choose other data",
                self.gamma
            );
        }
    }

    fn project(&self, out: &mut [f64], w: &[f64], w0: &[f64]) {
        out.copy_from_slice(w);
        if self.started && self.moved() {
            mars::project(out, w, w0, self.gamma, &self.norms, self.norms.len(), w.len() / self.norms.len());
        }
    }

    fn step(&mut self, dw: &[f64], w: &[f64], w0: &[f64]) {
        (self.gradient, self.active) = (0.0, 0);
        let cols = w.len() / self.norms.len();
        for (r, n) in self.norms.iter().enumerate() {
            let row = r * cols..(r + 1) * cols;
            let none = vec![0.0f32; cols];
            let (_, active) = mars::radius_backward(&none, &none, &none, self.gamma as f32, &[*n as f32], 1, cols);
            if active == 1 {
                // A radius just below the norm, which f64 counts as active: the bound does not enter the gradient.
                let inside = n * 0.5;
                self.gradient +=
                    mars::radius_backward(&dw[row.clone()], &w[row.clone()], &w0[row], inside, &[*n], 1, cols).0;
                self.active += 1;
            }
        }
        // A gradient that is not finite leaves the radius where it was.
        if self.moved() && self.gradient.is_finite() {
            self.t += 1;
            let (beta1, beta2) = RADIUS_BETAS;
            let [gamma, m, v] = [&mut self.gamma, &mut self.m, &mut self.v].map(std::slice::from_mut);
            adamw::step(gamma, m, v, &[self.gradient], f64::from(LR), beta1, beta2, RADIUS_EPS, 0.0, self.t, 1.0);
        }
    }
}

/// A case's tensors on the device, beside the reference.
struct Rehearsal<'a> {
    setting: &'a Setting,
    case: Case<'a>,
    mars: Mars,
    radii: Vec<Radius>,
    w: View,
    w0: View,
    w32: Vec<f32>,
    w64: Vec<f64>,
    w0_64: Vec<f64>,
}

/// Words of element `word` of every tensor for which `which` holds, in a table of `words` a tensor.
fn column(
    tensors: &[Radius],
    words: usize,
    word: usize,
    which: impl Fn(usize, &Radius) -> bool,
) -> Vec<std::ops::Range<usize>> {
    let chosen = tensors.iter().enumerate().filter(|(t, radius)| which(*t, radius));
    chosen.map(|(t, _)| t * words + word..t * words + word + 1).collect()
}

impl<'a> Rehearsal<'a> {
    fn new(gpu: &'a Gpu, setting: &'a Setting, what: &str) -> Result<Rehearsal<'a>> {
        let (w0_32, w32) = setting.arenas(&mut Random::new(53));
        let mut case = Case::new(gpu, setting.name(what), 0)?;
        let excluded = TENSORS.map(|(_, _, excluded, _)| excluded);
        let Setting { launch, norm, ref segments, ref layout, .. } = *setting;
        let mars = Mars::with_segments(gpu, layout, segments, norm, &excluded, launch.wide_tables())?;
        case.adopt("radii", &mars.radii)?;
        let (w, w0) = (case.input("w", &w32)?, case.input("w0", &w0_32)?);
        let (w64, w0_64) = (wide(&w32), wide(&w0_32));
        let radii = vec![Radius::default(); TENSORS.len()];
        Ok(Rehearsal { setting, case, mars, radii, w, w0, w32, w64, w0_64 })
    }

    /// Calls `each` with the radius and the range of every tensor that has one.
    fn tensors(&mut self, mut each: impl FnMut(&mut Radius, std::ops::Range<usize>, &[usize], &[f64], &[f64])) {
        for (t, param) in self.setting.layout.params.iter().enumerate() {
            if !TENSORS[t].2 {
                let range = param.offset..param.offset + param.len;
                each(&mut self.radii[t], range.clone(), &param.shape, &self.w64[range.clone()], &self.w0_64[range]);
            }
        }
    }

    fn clip(&mut self, start: bool) {
        let norm = self.setting.norm;
        self.tensors(|radius, _, shape, w, w0| radius.clip(w, w0, norm.rows(shape), norm, start));
    }

    /// The projected arena, where it is not projected what `before` holds.
    fn projected(&mut self, before: &[f32]) -> Vec<f64> {
        let mut want = wide(before);
        for (t, param) in self.setting.layout.params.iter().enumerate() {
            let range = param.offset..param.offset + param.len;
            if TENSORS[t].2 {
                want[range.clone()].copy_from_slice(&self.w64[range]);
            }
        }
        self.tensors(|radius, range, _, w, w0| radius.project(&mut want[range], w, w0));
        want
    }

    /// Expects the radii on the device to be the reference's, as `kernel` left them.
    fn expect_radii(&mut self, kernel: &str) {
        let table = |value: fn(&Radius) -> f64, word: usize| {
            let mut want = vec![0.0; self.radii.len() * RADIUS_WORDS];
            self.radii.iter().enumerate().for_each(|(t, r)| want[t * RADIUS_WORDS + word] = value(r));
            want
        };
        // Radii and norms are sums of the drift's sizes, so relative to themselves; a radius moves by `lr` times a ratio
        // of moments, that of sums of either sign. A tensor of one row may have a gradient that cancels almost to
        // nothing; the moments of the others then tell.
        let tolerance = sum_tolerance(10_000, 8.0);
        let [gamma, m, v, largest] =
            [table(|r| r.gamma, 0), table(|r| r.m, 1), table(|r| r.v, 2), table(|r| r.max_norm, 4)];
        for (word, want) in [(0, &gamma), (1, &m), (2, &v), (4, &largest)] {
            let ranges = column(&self.radii, RADIUS_WORDS, word, |_, _| true);
            self.case.expect_at(kernel, &self.mars.radii, &ranges, want, tolerance);
        }
        let mut bits = vec![0; self.radii.len() * RADIUS_WORDS];
        for (t, radius) in self.radii.iter().enumerate() {
            bits[t * RADIUS_WORDS + 3] = radius.t;
            bits[t * RADIUS_WORDS + 5] = u32::from(radius.started);
        }
        for word in [3, 5] {
            let ranges = column(&self.radii, RADIUS_WORDS, word, |_, _| true);
            self.case.expect_bits(kernel, &self.mars.radii, &ranges, &bits);
        }
    }

    /// Expects `log`'s slot `slot` to tell what the last step did; the rest of it to be as it was.
    fn expect_log(&mut self, log: &View, slot: usize) {
        let base = slot * self.radii.len();
        let mut want = vec![0.0; log.len];
        let mut bits = vec![0; log.len];
        for (t, r) in self.radii.iter().enumerate() {
            let at = (base + t) * LOG_WORDS;
            (want[at], want[at + 1], want[at + 3]) = (r.gamma, r.max_norm, r.gradient);
            bits[at + 2] = r.active as u32;
        }
        let ranges = |word: usize| -> Vec<_> {
            let entries = (0..self.radii.len()).filter(|t| !TENSORS[*t].2 && self.radii[*t].gradient.is_finite());
            entries.map(|t| (base + t) * LOG_WORDS + word..(base + t) * LOG_WORDS + word + 1).collect()
        };
        let tolerance = sum_tolerance(10_000, 8.0);
        for word in [0, 1, 3] {
            self.case.expect_at("mars::step", log, &ranges(word), &want, tolerance);
        }
        self.case.expect_bits("mars::step", log, &ranges(2), &bits);
    }
}

/// Four outer iterations from the first on, then the projection in place, as a training run has them.
fn schedule(s: &mut Suite, setting: &Setting) -> Result<()> {
    let mut random = Random::new(59);
    let mut run = Rehearsal::new(s.gpu, setting, "schedule")?;
    const ITERATIONS: usize = 4;
    let log_len = ITERATIONS * TENSORS.len() * LOG_WORDS;
    let log = run.case.input("log", &vec![0.0; log_len])?;
    let before = random.vec(setting.layout.len);
    for i in 0..ITERATIONS {
        let dw32 = random.vec(setting.layout.len);
        let dw = run.case.input("dw", &dw32)?;
        let w_proj = run.case.input("w_proj", &before)?;
        let state = run.case.words("state", &super::optim::step_words(0.0, 0.0, 0.0, 0, i as u32, 0))?;
        let (mars, w, w0) = (&run.mars, &run.w, &run.w0);
        run.case.run(setting.launch, |r| {
            mars.clip(r, w, w0, true)?;
            mars.project(r, &w_proj, w, w0)?;
            if i % 2 == 0 {
                return mars.step(r, &log, &state, &dw, w, w0, LR);
            }
            // In halves, as several ranks do it.
            mars.gradients(r, &log, &state, &dw, w, w0, None)?;
            mars.learn(r, &log, &state, LR)
        })?;
        run.clip(true);
        let want = run.projected(&before);
        // A ratio of two norms, then a product and a sum on top of the anchor, far larger than the drift.
        run.case.expect("mars::project", &w_proj, &want, 8.0 * EPS);
        let dw64 = wide(&dw32);
        run.tensors(|radius, range, _, w, w0| radius.step(&dw64[range], w, w0));
        run.expect_log(&log, i);
    }

    run.clip(false);
    let w32 = run.w32.clone();
    let want = run.projected(&w32);
    let (mars, w, w0) = (&run.mars, &run.w, &run.w0);
    let in_place = run.case.input("w applied", &w32)?;
    run.case.run(setting.launch, |r| {
        mars.clip(r, w, w0, false)?;
        mars.apply(r, &in_place, w0)
    })?;
    run.case.expect("mars::apply", &in_place, &want, 8.0 * EPS);
    // The last Adam step's radii, brought back within their bounds.
    run.expect_radii("mars::clip");
    s.finish(run.case)
}

/// Radii from elsewhere, outside their bounds in both directions: no tensor gets a radius that has none.
fn given_radii(s: &mut Suite, setting: &Setting) -> Result<()> {
    let mut run = Rehearsal::new(s.gpu, setting, "given radii")?;
    let mut words = vec![0u32; TENSORS.len() * RADIUS_WORDS];
    for (t, radius) in run.radii.iter_mut().enumerate() {
        radius.gamma = [1e4, -0.3, 1e-9, 0.05, 0.0][t % 5];
        radius.gamma = f64::from(radius.gamma as f32);
        // Every third has none yet, and so keeps its weights.
        radius.started = t % 3 != 2;
        words[t * RADIUS_WORDS] = (radius.gamma as f32).to_bits();
        words[t * RADIUS_WORDS + 5] = u32::from(radius.started);
    }
    s.gpu.write(&run.mars.radii, &words);
    let before = Random::new(61).vec(setting.layout.len);
    let w_proj = run.case.input("w_proj", &before)?;
    let (mars, w, w0) = (&run.mars, &run.w, &run.w0);
    run.case.run(setting.launch, |r| {
        mars.clip(r, w, w0, false)?;
        mars.project(r, &w_proj, w, w0)
    })?;
    run.clip(false);
    let want = run.projected(&before);
    run.case.expect("mars::project", &w_proj, &want, 8.0 * EPS);
    run.expect_radii("mars::clip");
    s.finish(run.case)
}

/// One radius for all, smaller and larger than what has moved: it stays what it is.
fn held_radius(s: &mut Suite, setting: &Setting) -> Result<()> {
    let mut run = Rehearsal::new(s.gpu, setting, "held radius")?;
    let gamma = 0.05f32;
    run.mars.hold(s.gpu, gamma);
    let w32 = run.w32.clone();
    let in_place = run.case.input("w applied", &w32)?;
    let (mars, w, w0) = (&run.mars, &run.w, &run.w0);
    run.case.run(setting.launch, |r| {
        mars.measure(r, w, w0)?;
        mars.apply(r, &in_place, w0)
    })?;
    let norm = setting.norm;
    run.tensors(|radius, _, shape, w, w0| radius.clip(w, w0, norm.rows(shape), norm, false));
    run.radii.iter_mut().for_each(|radius| (radius.gamma, radius.started) = (f64::from(gamma), true));
    let want = run.projected(&w32);
    run.case.expect("mars::apply", &in_place, &want, 8.0 * EPS);
    let mut table = vec![0.0; run.radii.len() * RADIUS_WORDS];
    run.radii.iter().enumerate().for_each(|(t, r)| table[t * RADIUS_WORDS] = r.gamma);
    let ranges = column(&run.radii, RADIUS_WORDS, 0, |_, _| true);
    run.case.expect_at("mars::clip", &run.mars.radii, &ranges, &table, 0.0);
    s.finish(run.case)
}

/// A gradient that is not a number in one tensor: its radius stays, the others go on.
fn broken_gradient(s: &mut Suite, setting: &Setting) -> Result<()> {
    let mut run = Rehearsal::new(s.gpu, setting, "NaN gradient")?;
    let mut dw32 = Random::new(67).vec(setting.layout.len);
    dw32[setting.layout.params[2].offset + 11] = f32::NAN;
    let log = run.case.input("log", &vec![0.0; TENSORS.len() * LOG_WORDS])?;
    let dw = run.case.input("dw", &dw32)?;
    let state = run.case.words("state", &super::optim::step_words(0.0, 0.0, 0.0, 0, 0, 0))?;
    let (mars, w, w0) = (&run.mars, &run.w, &run.w0);
    run.case.run(setting.launch, |r| {
        mars.clip(r, w, w0, true)?;
        mars.step(r, &log, &state, &dw, w, w0, LR)
    })?;
    run.clip(true);
    let dw64 = wide(&dw32);
    run.tensors(|radius, range, _, w, w0| radius.step(&dw64[range], w, w0));
    assert!(run.radii[2].gradient.is_nan() && run.radii[2].t == 0);
    run.expect_log(&log, 0);
    run.expect_radii("mars::step");
    s.finish(run.case)
}
