//! Stochastic gradient descent with momentum, as `torch.optim.SGD` with dampening 0.
//!
//! ```text
//! g = dw · grad_scale + weight_decay · w
//! m = g on the first step, then momentum · m + g
//! w −= lr · (nesterov: g + momentum · m, else: m)
//! ```
//!
//! Without momentum `w −= lr · g`, and `m` stays as it is. Decay applies to every tensor, biases included: PyTorch's
//! default.

use super::{Float, check_len};

/// Updates `w [n]` and the momentum buffer `m [n]` (not read when `first`); `dw [n]`. `grad_scale` is what clipping
/// and accumulation multiply the gradient by, before decay.
pub fn step<T: Float>(
    w: &mut [T],
    m: &mut [T],
    dw: &[T],
    lr: f64,
    momentum: f64,
    nesterov: bool,
    weight_decay: f64,
    first: bool,
    grad_scale: T,
) {
    check_len("sgd::step", "m", m.len(), w.len());
    check_len("sgd::step", "dw", dw.len(), w.len());
    let [rate, mu, decay] = [lr, momentum, weight_decay].map(T::from_f64);
    for i in 0..w.len() {
        let g = dw[i] * grad_scale + decay * w[i];
        let mut update = g;
        if momentum != 0.0 {
            m[i] = if first { g } else { mu * m[i] + g };
            update = if nesterov { g + mu * m[i] } else { m[i] };
        }
        w[i] = w[i] - rate * update;
    }
}

#[cfg(test)]
mod tests {
    use super::step;

    // for nesterov, momentum in [(False, 0.9), (True, 0.9), (False, 0.0)]:
    //     w = torch.tensor([0.5, -1.25, 2.0], dtype=torch.float64, requires_grad=True)
    //     opt = torch.optim.SGD([w], lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=0.01)
    //     for t in range(4):
    //         w.grad = 0.5 * torch.tensor([1.0, -0.5, 0.25 * t], dtype=torch.float64)
    //         opt.step()
    //     print(w.tolist())
    #[test]
    fn agrees_with_pytorch() {
        let cases = [
            (false, 0.9, [0.04372357670049997, -1.0128266116512499, 1.863127134102]),
            (true, 0.9, [-0.11154570271102901, -0.9321173327492175, 1.7940117574719643]),
            (false, 0.0, [0.29830279805050003, -1.14515739502625, 1.917061979502]),
        ];
        for (nesterov, momentum, want) in cases {
            let (mut w, mut m) = ([0.5, -1.25, 2.0], [f64::NAN; 3]);
            for t in 0..4 {
                let dw = [1.0, -0.5, 0.25 * f64::from(t)];
                step(&mut w, &mut m, &dw, 0.1, momentum, nesterov, 0.01, t == 0, 0.5);
            }
            for (got, want) in w.iter().zip(want) {
                assert!((got - want).abs() <= 1e-15, "nesterov {nesterov}, momentum {momentum}: {got}, want {want}");
            }
        }
    }
}
