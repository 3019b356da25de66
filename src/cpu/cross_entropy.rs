//! Cross-entropy with label smoothing, as `torch.nn.functional.cross_entropy` defines it, and its gradient.
//!
//! ```text
//! target_c = (1 − smoothing)·[c = label] + smoothing / classes
//! loss     = −Σ_c target_c · ln softmax(logits)_c
//! dlogits  = (softmax(logits) − target) · grad_scale
//! ```
//!
//! The loss is per sample; its mean over a batch has `grad_scale = 1 / samples`.

use super::{Float, check_len};

/// Assigns `loss [batch]` and `dlogits [batch, classes]`; `logits [batch, classes]`, `labels [batch]`, each below
/// `classes`; `smoothing` from 0 to 1.
pub fn forward<T: Float>(
    loss: &mut [T],
    dlogits: &mut [T],
    logits: &[T],
    labels: &[u32],
    batch: usize,
    classes: usize,
    smoothing: f64,
    grad_scale: T,
) {
    check_len("cross_entropy::forward", "labels", labels.len(), batch);
    let off_target = T::from_f64(smoothing / classes as f64);
    let on_label = T::from_f64(1.0 - smoothing);
    let mut targets = vec![off_target; batch * classes];
    for (b, &label) in labels.iter().enumerate() {
        let label = label as usize;
        assert!(label < classes, "label {label} of sample {b} is outside the {classes} classes");
        targets[b * classes + label] += on_label;
    }
    forward_targets(loss, dlogits, logits, &targets, batch, classes, grad_scale);
}

/// The same with `targets [batch, classes]` of any sum T per sample: `loss = −Σ_c target_c · ln softmax(logits)_c` and
/// `dlogits = (T · softmax(logits) − target) · grad_scale`.
pub fn forward_targets<T: Float>(
    loss: &mut [T],
    dlogits: &mut [T],
    logits: &[T],
    targets: &[T],
    batch: usize,
    classes: usize,
    grad_scale: T,
) {
    let op = "cross_entropy::forward_targets";
    check_len(op, "loss", loss.len(), batch);
    check_len(op, "dlogits", dlogits.len(), batch * classes);
    check_len(op, "logits", logits.len(), batch * classes);
    check_len(op, "targets", targets.len(), batch * classes);
    for b in 0..batch {
        let (x, own) = (&logits[b * classes..][..classes], &targets[b * classes..][..classes]);
        let mut largest = x[0];
        for c in 0..classes {
            largest = largest.max(x[c]);
        }
        // Relative to the largest logit, so that the exponentials can't overflow.
        let (mut sum, mut mass) = (T::ZERO, T::ZERO);
        for c in 0..classes {
            sum += (x[c] - largest).exp();
            mass += own[c];
        }
        let log_sum = sum.ln();
        loss[b] = T::ZERO;
        for c in 0..classes {
            let log_p = x[c] - largest - log_sum;
            loss[b] += -own[c] * log_p;
            dlogits[b * classes + c] = (mass * log_p.exp() - own[c]) * grad_scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::forward;

    // x = torch.tensor([[1.5, -0.25, 0.75], [90., -800., 95.5]], dtype=torch.float64, requires_grad=True)
    // loss = F.cross_entropy(x, torch.tensor([2, 0]), label_smoothing=0.1, reduction="none")
    // loss.mean().backward(); print(loss, x.grad)
    #[test]
    fn agrees_with_pytorch() {
        let logits = [1.5, -0.25, 0.75, 90.0, -800.0, 95.5];
        let (mut loss, mut dlogits) = ([f64::NAN; 2], [f64::NAN; 6]);
        forward(&mut loss, &mut dlogits, &logits, &[2, 0], 2, 3, 0.1, 0.5);
        let want_loss = [1.2567667880764832, 34.987411776603906];
        let want_grad = [
            0.2870741143643626,
            0.036115566639813454,
            -0.323189681004176,
            -0.4646315978087186,
            -0.016666666666666666,
            0.4812982644753853,
        ];
        for (got, want) in loss.iter().zip(want_loss).chain(dlogits.iter().zip(want_grad)) {
            assert!((got - want).abs() <= 1e-14 * f64::max(1.0, want.abs()), "{got} should be {want}");
        }
    }
}
