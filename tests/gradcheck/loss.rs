//! The loss.

use tpgm::cpu::{binary_cross_entropy, cross_entropy};

use super::{Noise, assert_gradient, assigned};

#[test]
fn cross_entropy_with_and_without_smoothing() {
    let (batch, classes, labels, grad_scale) = (3, 5, [4, 0, 2], 0.37);
    for smoothing in [0.0, 0.1] {
        let run = |logits: &[f64]| {
            let mut dlogits = vec![f64::NAN; batch * classes];
            let loss = assigned(batch, |loss| {
                cross_entropy::forward(loss, &mut dlogits, logits, &labels, batch, classes, smoothing, grad_scale);
            });
            (loss, dlogits)
        };
        // The last op of its graph: its upstream gradient is `grad_scale` for every sample.
        let x = Noise(3).vec(batch * classes);
        let before = |x: &[f64]| -> Vec<f64> { x.iter().map(|v| 3.0 * v + v.sin()).collect() };
        let dlogits = run(&before(&x)).1;
        let dx: Vec<f64> = dlogits.iter().zip(&x).map(|(d, v)| d * (3.0 + v.cos())).collect();
        assert_gradient(&format!("cross_entropy, smoothing {smoothing}"), &dx, &x, |x| {
            run(&before(x)).0.iter().map(|loss| grad_scale * loss).sum()
        });
    }
}

#[test]
fn cross_entropy_of_targets_of_any_sum() {
    let (batch, classes, grad_scale) = (3, 5, 0.37);
    // A mixture of two classes, a weighted class with smoothing, nothing.
    let targets = [[0.0, 0.3, 0.0, 0.7, 0.0], [0.1, 0.1, 2.6, 0.1, 0.1], [0.0; 5]].concat();
    let run = |logits: &[f64]| {
        let mut dlogits = vec![f64::NAN; batch * classes];
        let loss = assigned(batch, |loss| {
            cross_entropy::forward_targets(loss, &mut dlogits, logits, &targets, batch, classes, grad_scale);
        });
        (loss, dlogits)
    };
    let x = Noise(4).vec(batch * classes);
    let (loss, dx) = run(&x);
    assert_gradient("cross_entropy of targets", &dx, &x, |x| run(x).0.iter().map(|loss| grad_scale * loss).sum());
    assert_eq!((loss[2], &dx[10..]), (0.0, &[0.0; 5][..]));
}

#[test]
fn binary_cross_entropy_of_labels_and_shares_of_them() {
    let (batch, classes, grad_scale) = (3, 4, 0.37);
    let targets = [[1.0, 0.0, 0.3, 1.0], [0.0, 0.95, 0.05, 1.0], [0.0; 4]].concat();
    let positive = [1.0, 3.5, 0.25, 0.0];
    let run = |logits: &[f64]| {
        let mut dlogits = vec![f64::NAN; batch * classes];
        let loss = assigned(batch, |loss| {
            let both = (&targets[..], &positive[..]);
            binary_cross_entropy::forward(loss, &mut dlogits, logits, both, batch, classes, grad_scale);
        });
        (loss, dlogits)
    };
    let x = Noise(5).vec(batch * classes);
    let dx = run(&x).1;
    assert_gradient("binary_cross_entropy", &dx, &x, |x| run(x).0.iter().map(|loss| grad_scale * loss).sum());
    // A positive that weighs nothing has no gradient.
    assert_eq!((dx[3], dx[7]), (0.0, 0.0));
}
