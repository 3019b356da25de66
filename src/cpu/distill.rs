//! What a model should keep of another, its teacher: features by their mean square distance, or logits by the Kullback-Leibler divergence
//! of softmax at a temperature (Hinton, Vinyals & Dean 2015; Li & Hoiem, ECCV 2016).
//!
//! ```text
//! features   loss_b += weight · mean_c (s − t)²                dfeatures = 2·weight/cols · (s − t) · grad_scale
//! logits     loss_b += weight · T² · Σ_c q·(log q − log p)     dlogits += weight · T · (p − q) · grad_scale
//!            p = softmax(s/T), q = softmax(t/T)
//! ```
//!
//! The factor T² keeps the gradient's size as T grows.

use super::{Float, check_len};

/// The teacher's values that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum On {
    /// What enters the head.
    Features,
    /// What leaves it.
    Logits,
}

/// Shape and settings of a loss.
#[derive(Clone, Copy, Debug)]
pub struct Dims {
    /// Samples.
    pub batch: usize,
    /// Features or classes.
    pub cols: usize,
    /// How often it counts.
    pub weight: f32,
    /// The temperature T of logits; features have none.
    pub temperature: f32,
    /// 1 / samples of the whole step, over all its micro-batches.
    pub grad_scale: f32,
}

/// `loss [batch]` is added to, `dfeatures [batch, cols]` assigned; `student` and `teacher` have its shape.
pub fn features<T: Float>(loss: &mut [T], dfeatures: &mut [T], student: &[T], teacher: &[T], dims: Dims) {
    let Dims { batch, cols, .. } = dims;
    check_len("distill::features", "loss", loss.len(), batch);
    for (name, len) in [("dfeatures", dfeatures.len()), ("student", student.len()), ("teacher", teacher.len())] {
        check_len("distill::features", name, len, batch * cols);
    }
    let [weight, grad_scale] = [dims.weight, dims.grad_scale].map(|x| T::from_f64(f64::from(x)));
    let share = weight / T::from_f64(cols as f64);
    for b in 0..batch {
        let mut sum = T::ZERO;
        for c in 0..cols {
            let off = student[b * cols + c] - teacher[b * cols + c];
            sum += off * off;
            dfeatures[b * cols + c] = T::from_f64(2.0) * share * off * grad_scale;
        }
        loss[b] += share * sum;
    }
}

/// log softmax(`row` / `temperature`)
fn log_softmax<T: Float>(row: &[T], temperature: T) -> Vec<T> {
    let peak = row.iter().fold(row[0], |peak, x| peak.max(*x));
    let mut total = T::ZERO;
    row.iter().for_each(|x| total += ((*x - peak) / temperature).exp());
    row.iter().map(|x| (*x - peak) / temperature - total.ln()).collect()
}

/// `loss [batch]` and `dlogits [batch, cols]` are added to; `student` and `teacher` have the shape of `dlogits`.
pub fn logits<T: Float>(loss: &mut [T], dlogits: &mut [T], student: &[T], teacher: &[T], dims: Dims) {
    let Dims { batch, cols, .. } = dims;
    check_len("distill::logits", "loss", loss.len(), batch);
    for (name, len) in [("dlogits", dlogits.len()), ("student", student.len()), ("teacher", teacher.len())] {
        check_len("distill::logits", name, len, batch * cols);
    }
    let [weight, t, grad_scale] = [dims.weight, dims.temperature, dims.grad_scale].map(|x| T::from_f64(f64::from(x)));
    for b in 0..batch {
        let row = b * cols..(b + 1) * cols;
        let (p, q) = (log_softmax(&student[row.clone()], t), log_softmax(&teacher[row], t));
        let mut sum = T::ZERO;
        for c in 0..cols {
            sum += q[c].exp() * (q[c] - p[c]);
            dlogits[b * cols + c] += weight * t * (p[c].exp() - q[c].exp()) * grad_scale;
        }
        loss[b] += weight * t * t * sum;
    }
}
