//! Softmax cross-entropy, and the ring of losses.

use super::harness::{Case, EPS, Launch, Random, sum_tolerance, wide};
use super::{Plan, Suite};
use crate::cpu;
use crate::error::Result;
use crate::ops::{self, cross_entropy::CHANNELS, cross_entropy::Channel, cross_entropy::Dims};

pub(super) fn cross_entropy(p: &mut Plan) -> Result<()> {
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
