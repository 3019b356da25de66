//! Softmax cross-entropy, the ring of losses, and the loss scale.

use super::harness::{Case, EPS, Launch, Random, sum_tolerance, wide};
use super::{Plan, Stem, Suite, stem};
use crate::cpu;
use crate::error::Result;
use crate::ops::loss_scale::{INTERVAL, SCALE_WORDS, Settle};
use crate::ops::{self, cross_entropy::CHANNELS, cross_entropy::Channel, cross_entropy::Dims};

pub(super) const STEMS: &[Stem] = &[
    stem(
        "cross_entropy",
        cross_entropy,
        &[
            "cross_entropy::forward",
            "cross_entropy::forward_scaled",
            "cross_entropy::forward_targets",
            "cross_entropy::forward_targets_scaled",
            "cross_entropy::record",
        ],
    ),
    stem(
        "binary_cross_entropy",
        binary_cross_entropy,
        &["binary_cross_entropy::forward", "binary_cross_entropy::forward_scaled"],
    ),
    stem("loss_scale", loss_scale, &["loss_scale::settle", "loss_scale::observe"]),
];

fn cross_entropy(p: &mut Plan) -> Result<()> {
    for launch in Launch::reductions(p.gpu).into_iter().filter(|launch| !launch.fold) {
        let shapes = [(1, 3), (3, 63), (65, 65), (5, 197), (3, 768), (63, 3), (1, 1000)];
        for (_, (batch, classes)) in p.pick(&shapes, &[3]) {
            let kinds = [(1.0, 0.0), (1.0, 0.1), (80.0, 0.0), (80.0, 0.1)];
            for (_, (scale, smoothing)) in p.pick(&kinds, &[3]) {
                // Two micro-batches of this size make a step.
                let grad_scale = 0.5 / batch as f32;
                let dims = Dims { batch, classes, smoothing, grad_scale };
                p.add(move |s| forward(s, launch, dims, scale));
            }
            for (_, scale) in p.pick(&[1.0, 80.0], &[1]) {
                let dims = Dims { batch, classes, smoothing: 0.0, grad_scale: 0.5 / batch as f32 };
                p.add(move |s| targets(s, launch, dims, scale));
            }
        }
        for (_, batch) in p.pick(&[1, 3, 63, 65, 197], &[4]) {
            let dims = Dims { batch, classes: 2, smoothing: 0.0, grad_scale: 1.0 / batch as f32 };
            for (channel, micro) in [(Channel::Train, 0), (Channel::Train, 1), (Channel::Radius, 0)] {
                p.add(move |s| record(s, launch, dims, channel, micro));
            }
        }
    }
    Ok(())
}

fn forward(s: &mut Suite, launch: Launch, dims: Dims, scale: f32) -> Result<()> {
    let Dims { batch, classes, smoothing, grad_scale } = dims;
    let mut random = Random::new((batch * classes) as u64);
    let logits: Vec<f32> = random.vec(batch * classes).iter().map(|x| x * scale).collect();
    let labels = random.indices(batch, classes);
    let (mut want_loss, mut want_grad) = (vec![0.0; batch], vec![0.0; batch * classes]);
    let (smoothing64, scale64) = (f64::from(smoothing), f64::from(grad_scale));
    cpu::cross_entropy::forward(
        &mut want_loss,
        &mut want_grad,
        &wide(&logits),
        &labels,
        batch,
        classes,
        smoothing64,
        scale64,
    );
    let name = format!("{batch}×{classes}, logits ±{scale}, smoothing {smoothing}, {}", launch.suffix());
    let mut c = Case::new(s.gpu, name, 0)?;
    let [logits, labels] = [c.input("logits", &logits)?, c.words("labels", &labels)?];
    let [loss, dlogits] = [c.output("loss", batch)?, c.output("dlogits", batch * classes)?];
    c.run(launch, |r| ops::cross_entropy::forward(r, &loss, &dlogits, &logits, &labels, dims))?;
    // Two sums over the classes, of an exponential and of shifted logits of one sign.
    c.expect("cross_entropy::forward", &loss, &want_loss, sum_tolerance(classes, 8.0));
    // An exponential is off by 3 + 2·|argument| units, the argument being up to ln(classes) where the probability counts;
    // and a probability near 1 minus its target rounds to EPS/2, against a mean of about 2/classes.
    let tolerance = sum_tolerance(classes, 16.0) + EPS * classes as f64;
    c.expect("cross_entropy::forward", &dlogits, &want_grad, tolerance);

    let [loss, dlogits] = [c.output("loss again", batch)?, c.output("scaled dlogits", batch * classes)?];
    let loss_scale = c.input("loss scale", &[4096.0, f32::NAN])?;
    c.run(launch, |r| ops::cross_entropy::forward_scaled(r, &loss, &dlogits, &logits, &labels, &loss_scale, dims))?;
    let scaled: Vec<f64> = want_grad.iter().map(|g| 4096.0 * g).collect();
    c.expect("cross_entropy::forward_scaled", &loss, &want_loss, sum_tolerance(classes, 8.0));
    c.expect("cross_entropy::forward_scaled", &dlogits, &scaled, tolerance);
    s.finish(c)
}

/// Targets of any sum: a mixture of two classes, a weighted class, nothing at all.
fn targets(s: &mut Suite, launch: Launch, dims: Dims, scale: f32) -> Result<()> {
    let Dims { batch, classes, grad_scale, .. } = dims;
    let mut random = Random::new((batch * classes) as u64 + 1);
    let logits: Vec<f32> = random.vec(batch * classes).iter().map(|x| x * scale).collect();
    let mut targets = vec![0.0; batch * classes];
    for (b, (one, other)) in random.indices(batch, classes).into_iter().zip(random.indices(batch, classes)).enumerate()
    {
        let (mass, share) = ([1.0, 2.5, 0.0][b % 3], 0.3);
        targets[b * classes + one as usize] += mass * (1.0 - share);
        targets[b * classes + other as usize] += mass * share;
    }
    let (mut want_loss, mut want_grad) = (vec![0.0; batch], vec![0.0; batch * classes]);
    let (wide_logits, wide_targets, scale64) = (wide(&logits), wide(&targets), f64::from(grad_scale));
    cpu::cross_entropy::forward_targets(
        &mut want_loss,
        &mut want_grad,
        &wide_logits,
        &wide_targets,
        batch,
        classes,
        scale64,
    );
    let mut c = Case::new(s.gpu, format!("{batch}×{classes}, logits ±{scale}, targets, {}", launch.suffix()), 0)?;
    let [logits, targets] = [c.input("logits", &logits)?, c.input("targets", &targets)?];
    let [loss, dlogits] = [c.output("loss", batch)?, c.output("dlogits", batch * classes)?];
    c.run(launch, |r| ops::cross_entropy::forward_targets(r, &loss, &dlogits, &logits, &targets, None, dims))?;
    // As for labels, with one sum more, and 2.5 times as much in it.
    let tolerances = [sum_tolerance(classes, 20.0), sum_tolerance(classes, 40.0) + 2.5 * EPS * classes as f64];
    c.expect("cross_entropy::forward_targets", &loss, &want_loss, tolerances[0]);
    c.expect("cross_entropy::forward_targets", &dlogits, &want_grad, tolerances[1]);

    let [loss, dlogits] = [c.output("loss again", batch)?, c.output("scaled dlogits", batch * classes)?];
    let by = c.input("loss scale", &[4096.0, f32::NAN])?;
    c.run(launch, |r| ops::cross_entropy::forward_targets(r, &loss, &dlogits, &logits, &targets, Some(&by), dims))?;
    let scaled: Vec<f64> = want_grad.iter().map(|g| 4096.0 * g).collect();
    c.expect("cross_entropy::forward_targets_scaled", &loss, &want_loss, tolerances[0]);
    c.expect("cross_entropy::forward_targets_scaled", &dlogits, &scaled, tolerances[1]);
    s.finish(c)
}

fn binary_cross_entropy(p: &mut Plan) -> Result<()> {
    for launch in Launch::reductions(p.gpu).into_iter().filter(|launch| !launch.fold) {
        let shapes = [(1, 1), (3, 63), (65, 65), (5, 197), (3, 768), (63, 3), (1, 1000)];
        for (_, (batch, classes)) in p.pick(&shapes, &[3]) {
            for (_, scale) in p.pick(&[1.0, 80.0], &[1]) {
                // Two micro-batches of this size make a step.
                let dims = ops::binary_cross_entropy::Dims { batch, classes, grad_scale: 0.5 / batch as f32 };
                p.add(move |s| labels(s, launch, dims, scale));
            }
        }
    }
    Ok(())
}

/// Labels that are there, are not, and are so in part; positives that weigh more, less, and nothing.
fn labels(s: &mut Suite, launch: Launch, dims: ops::binary_cross_entropy::Dims, scale: f32) -> Result<()> {
    let ops::binary_cross_entropy::Dims { batch, classes, grad_scale } = dims;
    let mut random = Random::new((batch * classes) as u64 + 2);
    let logits: Vec<f32> = random.vec(batch * classes).iter().map(|x| x * scale).collect();
    let kinds = random.indices(batch * classes, 4);
    let targets: Vec<f32> = kinds.iter().map(|kind| [0.0, 1.0, 0.3, 0.95][*kind as usize]).collect();
    let positive: Vec<f32> = (0..classes).map(|c| [1.0, 7.5, 0.25, 0.0][c % 4]).collect();
    let (mut want_loss, mut want_grad) = (vec![0.0; batch], vec![0.0; batch * classes]);
    cpu::binary_cross_entropy::forward(
        &mut want_loss,
        &mut want_grad,
        &wide(&logits),
        (&wide(&targets), &wide(&positive)),
        batch,
        classes,
        f64::from(grad_scale),
    );
    let mut c = Case::new(s.gpu, format!("{batch}×{classes}, logits ±{scale}, {}", launch.suffix()), 0)?;
    let [logits, targets] = [c.input("logits", &logits)?, c.input("targets", &targets)?];
    let positive = c.input("positive", &positive)?;
    let by = c.input("loss scale", &[4096.0, f32::NAN])?;
    for (kernel, scale, factor) in
        [("binary_cross_entropy::forward", None, 1.0), ("binary_cross_entropy::forward_scaled", Some(&by), 4096.0)]
    {
        let [loss, dlogits] = [c.output(&format!("loss of {kernel}"), batch)?, c.output(kernel, batch * classes)?];
        let both = (&targets, &positive);
        c.run(launch, |r| ops::binary_cross_entropy::forward(r, &loss, &dlogits, &logits, both, scale, dims))?;
        // A sum of terms that are not negative; ln(1 + e) takes twenty roundings, and its exponential is off by 3 units and more
        // where it counts for less.
        c.expect(kernel, &loss, &want_loss, sum_tolerance(classes, 20.0));
        let want: Vec<f64> = want_grad.iter().map(|g| factor * g).collect();
        // No sum: a difference of two terms of one sign each, relative to the larger.
        c.expect(kernel, &dlogits, &want, 24.0 * EPS);
    }
    s.finish(c)
}

/// One value of a ring of five slots changes: it starts anew with the first micro-batch, and adds from the second on.
fn record(s: &mut Suite, launch: Launch, dims: Dims, channel: Channel, micro: u32) -> Result<()> {
    let slot = 3;
    let mut random = Random::new(dims.batch as u64);
    let losses: Vec<f32> = random.vec(dims.batch).iter().map(|x| x.abs() * 5.0).collect();
    let before = random.vec(5 * CHANNELS);
    let at = slot * CHANNELS + channel as usize;
    let mut want = wide(&before);
    want[at] = if micro == 0 { 0.0 } else { want[at] };
    want[at] += wide(&losses).iter().sum::<f64>() * f64::from(dims.grad_scale);

    let name = format!("batch {}, {channel:?}, micro-batch {micro}, {}", dims.batch, launch.suffix());
    let mut c = Case::new(s.gpu, name, 0)?;
    let [ring, losses] = [c.input("ring", &before)?, c.input("losses", &losses)?];
    let step = c.words("step", &super::optim::step_words(0.1, 1.0, 1.0, 7, slot as u32, micro))?;
    c.run(launch, |r| ops::cross_entropy::record(r, &ring, &losses, &step, channel, dims))?;
    // A sum of positive terms, whose errors are relative to the sum itself.
    c.expect_at("cross_entropy::record", &ring, &[at..at + 1], &want, sum_tolerance(dims.batch, 4.0));
    let words: Vec<u32> = before.iter().map(|x| x.to_bits()).collect();
    c.expect_bits("cross_entropy::record", &ring, &[0..at, at + 1..before.len()], &words);
    s.finish(c)
}

/// Steps one after another against the reference: good ones until the scale doubles, one that overflows, one after it; and
/// faults that are no matter of scale.
fn loss_scale(p: &mut Plan) -> Result<()> {
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
