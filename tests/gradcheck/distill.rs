//! Losses that keep a model near its teacher.

use tpgm::cpu::distill::{self, Dims};

use super::{Noise, added, assert_gradient, assigned};

#[test]
fn distillation_of_features_and_logits() {
    let (batch, cols) = (3, 5);
    let mut noise = Noise(5);
    let (student, teacher) = (noise.vec(batch * cols), noise.vec(batch * cols));
    // Losses are single ones, gradients of their mean; powers of two, so that f32 settings are exact.
    let dims = Dims { batch, cols, weight: 0.75, temperature: 2.5, grad_scale: 0.25 };
    let mean = |losses: Vec<f64>| losses.iter().sum::<f64>() * 0.25;
    let of =
        |x: &[f64]| mean(added(batch, |loss| distill::features(loss, &mut vec![0.0; batch * cols], x, &teacher, dims)));
    let gradient = assigned(batch * cols, |d| distill::features(&mut vec![0.0; batch], d, &student, &teacher, dims));
    assert_gradient("features", &gradient, &student, of);
    let of =
        |x: &[f64]| mean(added(batch, |loss| distill::logits(loss, &mut vec![0.0; batch * cols], x, &teacher, dims)));
    let gradient = added(batch * cols, |d| distill::logits(&mut vec![0.0; batch], d, &student, &teacher, dims));
    assert_gradient("logits", &gradient, &student, of);
}
