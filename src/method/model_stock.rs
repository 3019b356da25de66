//! Model Stock (Jang, Yun & Han, *Model Stock: all we need is just a few fine-tuned models*, ECCV 2024). Models that were fine-tuned from
//! θ₀ with different seeds lie on a shell around a centre, which is nearer to θ₀ than their mean. How near follows from the angle
//! between their drifts, tensor by tensor: with the mean cosine c of the angles between any two of N models,
//!
//! ```text
//! t = N·c / (1 + (N − 1)·c),   θ = t·mean + (1 − t)·θ₀
//! ```
//!
//! Two models are enough. A cosine below 0 counts as 0, one with a tensor that has not moved as well. Running statistics are mixed in
//! the same way, and tensors without a pre-trained counterpart are averaged.

use crate::error::{Error, Result};
use crate::method::Snapshot;
use crate::method::soup::{Ingredients, Mixed, Soup};
use crate::shapes::{Param, ParamLayout};

/// The soup.
#[derive(Debug)]
pub struct ModelStock;

impl Soup for ModelStock {
    fn name(&self) -> &'static str {
        "model-stock"
    }

    fn needs_anchor(&self) -> bool {
        true
    }

    fn mix(&self, of: Ingredients) -> Result<Mixed> {
        let origin = of.origin.expect("it asks for an anchor");
        if of.count < 2 {
            return Err(Error::Usage(
                "--kind model-stock needs two models or more: it uses the angles between them".into(),
            ));
        }
        let (layout, buffers) = (origin.model.layout(), origin.model.buffers());
        let (mut w, mut stats) = (Sums::new(&origin.values.w, layout), Sums::new(&origin.values.stats, buffers));
        let mut batches = 0;
        for i in 0..of.count {
            let values = (of.load)(i)?;
            w.add(layout, &values.w);
            stats.add(buffers, &values.stats);
            batches = if i == 0 { values.batches } else { batches };
        }
        let ratios = w.ratios(layout, of.count);
        let taken = |t: usize| if origin.is_new[t] { 1.0 } else { ratios[t] };
        let share = w.share(layout, of.count, |t| if origin.is_new[t] { None } else { Some(ratios[t]) });
        let stats_ratios = stats.ratios(buffers, of.count);
        let (w, stats) = (w.mix(layout, of.count, taken), stats.mix(buffers, of.count, |t| stats_ratios[t]));
        let (values, kept) = (Snapshot { w, stats, batches }, (0..of.count).collect());
        Ok(Mixed { values, kept, accuracy: None, share })
    }
}

/// Sums over models, in f64, as images of an arena.
struct Sums<'a> {
    anchor: &'a [f32],
    values: Vec<f64>,
    /// Of the drifts of each tensor, all made one long.
    directions: Vec<f64>,
    /// Models in which a tensor has moved, one number per tensor.
    moved: Vec<f64>,
}

impl Sums<'_> {
    fn new<'a>(anchor: &'a [f32], layout: &ParamLayout) -> Sums<'a> {
        let zeros = vec![0.0; anchor.len()];
        Sums { anchor, values: zeros.clone(), directions: zeros, moved: vec![0.0; layout.params.len()] }
    }

    fn add(&mut self, layout: &ParamLayout, values: &[f32]) {
        for (param, moved) in layout.params.iter().zip(&mut self.moved) {
            let at = param.offset..param.offset + param.len;
            let drift = |i: usize| f64::from(values[i]) - f64::from(self.anchor[i]);
            let norm = at.clone().map(|i| drift(i).powi(2)).sum::<f64>().sqrt();
            let has_moved = norm != 0.0;
            *moved += f64::from(u8::from(has_moved));
            for i in at {
                self.directions[i] += if has_moved { drift(i) / norm } else { 0.0 };
                self.values[i] += f64::from(values[i]);
            }
        }
    }

    /// t of each tensor.
    fn ratios(&self, layout: &ParamLayout, count: usize) -> Vec<f64> {
        let n = count as f64;
        let ratio = |(param, moved): (&Param, &f64)| {
            // The square of a sum of vectors of length 1 is their number, and twice the cosine of each pair.
            let square = self.directions[param.offset..param.offset + param.len].iter().map(|d| d * d).sum::<f64>();
            let cosine = ((square - moved) / (n * (n - 1.0))).clamp(0.0, 1.0);
            n * cosine / (1.0 + (n - 1.0) * cosine)
        };
        layout.params.iter().zip(&self.moved).map(ratio).collect()
    }

    /// The length of the drifts of their mean times `ratio`, over that without it; tensors without a ratio don't count.
    fn share(&self, layout: &ParamLayout, count: usize, ratio: impl Fn(usize) -> Option<f64>) -> Option<f64> {
        let (mut kept, mut all) = (0.0, 0.0);
        for (tensor, param) in layout.params.iter().enumerate() {
            let Some(t) = ratio(tensor) else { continue };
            let drift = |i: usize| self.values[i] / count as f64 - f64::from(self.anchor[i]);
            let square: f64 = (param.offset..param.offset + param.len).map(|i| drift(i).powi(2)).sum();
            (kept, all) = (kept + t * t * square, all + square);
        }
        (all > 0.0).then(|| (kept / all).sqrt())
    }

    fn mix(&self, layout: &ParamLayout, count: usize, ratio: impl Fn(usize) -> f64) -> Vec<f32> {
        let mut out = vec![0.0; self.anchor.len()];
        let n = count as f64;
        for (tensor, param) in layout.params.iter().enumerate() {
            let t = ratio(tensor);
            let at = param.offset..param.offset + param.len;
            for i in at {
                out[i] = (t * self.values[i] / n + (1.0 - t) * f64::from(self.anchor[i])) as f32;
            }
        }
        out
    }
}
