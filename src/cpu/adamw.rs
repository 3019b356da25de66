//! Adam with decoupled weight decay (Loshchilov & Hutter 2019), as `torch.optim.AdamW`.
//!
//! ```text
//! g = dw · grad_scale
//! w −= lr · weight_decay · w
//! m += (1 − β₁) · (g − m)              v = β₂ · v + (1 − β₂) · g²
//! w −= lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + eps)
//! ```

use super::{Float, check_len};

/// Updates `w [n]` and the moments `m [n]`, `v [n]` (zeros before the first step); `dw [n]`. `step_t` counts from 1;
/// `grad_scale` is what clipping and accumulation multiply the gradient by.
pub fn step<T: Float>(
    w: &mut [T],
    m: &mut [T],
    v: &mut [T],
    dw: &[T],
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    step_t: u32,
    grad_scale: T,
) {
    let op = "adamw::step";
    check_len(op, "m", m.len(), w.len());
    check_len(op, "v", v.len(), w.len());
    check_len(op, "dw", dw.len(), w.len());
    assert!(step_t >= 1, "{op}: steps count from 1");
    // Settings meet each other in f64, as Python floats do, and are rounded once: 1 − β₂ᵗ would lose digits in f32.
    let t = f64::from(step_t);
    let step_size = T::from_f64(lr / (1.0 - beta1.powf(t)));
    let bias2_sqrt = T::from_f64((1.0 - beta2.powf(t)).sqrt());
    let keep = T::from_f64(1.0 - lr * weight_decay);
    let [beta2_t, rest1, rest2, eps] = [beta2, 1.0 - beta1, 1.0 - beta2, eps].map(T::from_f64);
    for i in 0..w.len() {
        let g = dw[i] * grad_scale;
        w[i] = w[i] * keep;
        m[i] += rest1 * (g - m[i]);
        v[i] = beta2_t * v[i] + rest2 * g * g;
        let denom = v[i].sqrt() / bias2_sqrt + eps;
        w[i] = w[i] - step_size * m[i] / denom;
    }
}

#[cfg(test)]
mod tests {
    use super::step;

    // w = torch.tensor([0.5, -1.25, 2.0], dtype=torch.float64, requires_grad=True)
    // opt = torch.optim.AdamW([w], lr=0.02, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1)
    // for t in range(4):
    //     w.grad = 0.5 * torch.tensor([1.0, -1e-6, 0.25 * t], dtype=torch.float64)
    //     opt.step()
    // print(w.tolist(), opt.state[w]["exp_avg"].tolist(), opt.state[w]["exp_avg_sq"].tolist())
    #[test]
    fn agrees_with_pytorch() {
        let (mut w, mut m, mut v) = ([0.5, -1.25, 2.0], [0.0; 3], [0.0; 3]);
        for t in 0..4 {
            let dw = [1.0, -1e-6, 0.25 * f64::from(t)];
            step(&mut w, &mut m, &mut v, &dw, 0.02, 0.9, 0.99, 1e-6, 0.1, t + 1, 0.5);
        }
        let want = [
            [0.4162518236883206, -1.2134431867400002, 1.9354337209891919],
            [0.17194999999999996, -1.7194999999999995e-07, 0.07012499999999998],
            [0.009850997500000009, 9.850997500000008e-15, 0.0021781406250000017],
        ];
        for (got, want) in [w, m, v].iter().flatten().zip(want.iter().flatten()) {
            assert!((got - want).abs() <= 1e-15 * want.abs().max(1e-9), "{got} should be {want}");
        }
    }
}
