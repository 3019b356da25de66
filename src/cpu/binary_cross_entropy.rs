//! Binary cross-entropy with logits, as `torch.nn.BCEWithLogitsLoss(pos_weight)` defines it, and its gradient.
//!
//! ```text
//! loss    = 1/C · Σ_c [w_c·y_c·ln(1 + exp(−x_c)) + (1 − y_c)·ln(1 + exp(x_c))]
//! dlogits = ((1 − y)·σ(x) − w·y·σ(−x)) · grad_scale / C
//! ```
//!
//! The loss is per sample; its mean over a batch has `grad_scale = 1 / samples`.

use super::{Float, check_len};

/// ln(1 + exp(x)), which neither overflows nor loses small values.
fn softplus<T: Float>(x: T) -> T {
    let e = (-x.abs()).exp();
    let small = e <= T::from_f64(1e-5);
    // Beyond the third term nothing is left of it in f64.
    let tail = if small { e * (T::ONE - e * (T::from_f64(0.5) - e / T::from_f64(3.0))) } else { (T::ONE + e).ln() };
    x.max(T::ZERO) + tail
}

/// Assigns `loss [batch]` and `dlogits [batch, classes]`; `logits` and `targets [batch, classes]`, each target 0 to 1; `positive
/// [classes]`, the weights of positives.
pub fn forward<T: Float>(
    loss: &mut [T],
    dlogits: &mut [T],
    logits: &[T],
    (targets, positive): (&[T], &[T]),
    batch: usize,
    classes: usize,
    grad_scale: T,
) {
    let op = "binary_cross_entropy::forward";
    check_len(op, "loss", loss.len(), batch);
    check_len(op, "positive", positive.len(), classes);
    check_len(op, "dlogits", dlogits.len(), batch * classes);
    check_len(op, "logits", logits.len(), batch * classes);
    check_len(op, "targets", targets.len(), batch * classes);
    let count = T::from_f64(classes as f64);
    for b in 0..batch {
        loss[b] = T::ZERO;
        for c in 0..classes {
            let (x, y) = (logits[b * classes + c], targets[b * classes + c]);
            let own = positive[c] * y;
            let (above, below) = (softplus(x), softplus(-x));
            loss[b] += own * below + (T::ONE - y) * above;
            // σ(x) = exp(−ln(1 + exp(−x))).
            let sigma = (-below).exp();
            let other = (-above).exp();
            dlogits[b * classes + c] = ((T::ONE - y) * sigma - own * other) * grad_scale / count;
        }
        loss[b] = loss[b] / count;
    }
}
