//! Dynamic loss scaling, as `torch.amp.GradScaler` does it.

/// The scale, the state behind it, and what a step learns from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    /// What the loss's gradient is multiplied by.
    pub value: f64,
    /// Good steps since it changed.
    pub good: u32,
    /// 1 − βᵗ of Adam's two moments, after t steps that were taken.
    pub corrections: [f64; 2],
}

impl LossScale {
    /// Before the first step.
    pub fn new(value: f64) -> LossScale {
        LossScale { value, good: 0, corrections: [0.0; 2] }
    }

    /// A step whose scaled gradient has this norm. Returns the norm of the gradient itself and the factor that takes scaled
    /// gradients to clipped ones, or none where the step is skipped.
    pub fn settle(&mut self, scaled: f64, max_norm: f64, betas: [f64; 2], interval: u32) -> Option<(f64, f64)> {
        if !scaled.is_finite() {
            self.value = (self.value / 2.0).max(1.0);
            self.good = 0;
            return None;
        }
        let norm = scaled / self.value;
        let clip = if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let factor = clip / self.value;
        for (correction, beta) in self.corrections.iter_mut().zip(betas) {
            *correction = 1.0 - beta * (1.0 - *correction);
        }
        self.good += 1;
        if self.good >= interval {
            self.value = (self.value * 2.0).min(16_777_216.0);
            self.good = 0;
        }
        Some((norm, factor))
    }
}
