//! The values of a teacher that are kept: features and logits, each alone and with a loss scale.

use super::harness::{Case, EPS, Launch, Random, sum_tolerance, wide};
use super::{Plan, Stem, stem};
use crate::cpu;
use crate::error::Result;
use crate::ops;
use crate::ops::distill::{Dims, On};

pub(super) const STEMS: &[Stem] = &[stem(
    "distill",
    distill,
    &["distill::features", "distill::features_scaled", "distill::logits", "distill::logits_scaled"],
)];

fn distill(p: &mut Plan) -> Result<()> {
    for launch in Launch::reductions(p.gpu).into_iter().filter(|launch| !launch.fold) {
        let shapes = [(1, 3), (3, 63), (65, 65), (5, 197), (3, 768), (63, 3), (1, 1000), (7, 1)];
        for (i, (batch, cols)) in p.pick(&shapes, &[3]) {
            for on in [On::Features, On::Logits] {
                let (weight, temperature) = [(1.0, 1.0), (0.3, 2.0), (10.0, 4.0)][i % 3];
                // Two micro-batches of this size make a step.
                let dims = Dims { batch, cols, weight, temperature, grad_scale: 0.5 / batch as f32 };
                p.add(move |s| {
                    let mut random = Random::new((batch * cols) as u64);
                    let [student, teacher] =
                        [0; 2].map(|_| random.vec(batch * cols).iter().map(|x| 4.0 * x).collect::<Vec<f32>>());
                    let (loss, before) = (random.vec(batch), random.vec(batch * cols));
                    let name =
                        format!("{batch}×{cols}, weight {weight}, temperature {temperature}, {}", launch.suffix());
                    let mut c = Case::new(s.gpu, name, 0)?;
                    let [own, other] = [c.input("student", &student)?, c.input("teacher", &teacher)?];
                    let loss_scale = c.input("loss scale", &[512.0, f32::NAN])?;
                    for scaled in [false, true] {
                        let times = if scaled { 512.0 } else { 1.0 };
                        let grown = Dims { grad_scale: dims.grad_scale * times, ..dims };
                        let (mut want_loss, mut want) = (wide(&loss), wide(&before));
                        let (wide_own, wide_other) = (wide(&student), wide(&teacher));
                        match on {
                            On::Features => {
                                cpu::distill::features(&mut want_loss, &mut want, &wide_own, &wide_other, grown)
                            }
                            On::Logits => {
                                cpu::distill::logits(&mut want_loss, &mut want, &wide_own, &wide_other, grown)
                            }
                        }
                        let losses = c.input(&format!("loss, scaled {scaled}"), &loss)?;
                        let gradient = match on {
                            On::Features => c.output(&format!("gradient, scaled {scaled}"), batch * cols)?,
                            On::Logits => c.input(&format!("gradient, scaled {scaled}"), &before)?,
                        };
                        let scale = scaled.then_some(&loss_scale);
                        c.run(launch, |r| {
                            ops::distill::forward(r, on, (&losses, &gradient), (&own, &other), scale, dims)
                        })?;
                        let kernel = match (on, scaled) {
                            (On::Features, false) => "distill::features",
                            (On::Features, true) => "distill::features_scaled",
                            (On::Logits, false) => "distill::logits",
                            (On::Logits, true) => "distill::logits_scaled",
                        };
                        // Sums of squares, or of an exponential times a difference of logarithms up to 8, which cancels between terms of
                        // either sign; weight and T² grow what they are off by against a loss that they are added to.
                        c.expect(kernel, &losses, &want_loss, 4.0 * sum_tolerance(cols, 40.0));
                        // Exponentials off by 3 + 2·8 units, and a difference of two probabilities.
                        c.expect(kernel, &gradient, &want, sum_tolerance(cols, 80.0) + EPS * cols as f64);
                    }
                    s.finish(c)
                });
            }
        }
    }
    Ok(())
}
