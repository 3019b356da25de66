//! Position embeddings for another number of patches.

/// How the positions of a checkpoint become those of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resize {
    /// Canonical name of the tensor.
    pub name: String,
    /// Rows that are not of the grid, and come first.
    pub prefix: usize,
    /// Positions along a side in the file.
    pub from: usize,
    /// Positions along a side in the model.
    pub to: usize,
    /// Whether to filter as timm does, or not to, as transformers' DINOv2.
    pub antialias: bool,
}

impl Resize {
    /// `values` `[prefix + from², dim]` as `[prefix + to², dim]`: PyTorch's bicubic `interpolate`, as timm's
    /// `resample_abs_pos_embed` calls it.
    pub(super) fn apply(&self, values: &[f32]) -> Vec<f32> {
        let dim = values.len() / (self.prefix + self.from * self.from);
        let (prefix, grid) = values.split_at(self.prefix * dim);
        let taps = taps(self.from, self.to, self.antialias);
        // Across, then down.
        let mut wide = vec![0.0f64; self.from * self.to * dim];
        for y in 0..self.from {
            for (x, taps) in taps.iter().enumerate() {
                for &(at, weight) in taps {
                    for d in 0..dim {
                        wide[(y * self.to + x) * dim + d] += weight * f64::from(grid[(y * self.from + at) * dim + d]);
                    }
                }
            }
        }
        let mut out = prefix.to_vec();
        for taps in &taps {
            let mut row = vec![0.0f64; self.to * dim];
            for &(at, weight) in taps {
                let source = &wide[at * self.to * dim..(at + 1) * self.to * dim];
                row.iter_mut().zip(source).for_each(|(sum, value)| *sum += weight * value);
            }
            out.extend(row.iter().map(|v| *v as f32));
        }
        out
    }
}

/// Keys' cubic at a distance of `x`.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    match x {
        x if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * a,
        _ => 0.0,
    }
}

/// For each of `to` places, which of the `from` it is made of.
fn taps(from: usize, to: usize, antialias: bool) -> Vec<Vec<(usize, f64)>> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|i| {
            let center = scale * (i as f64 + 0.5);
            if !antialias {
                // PyTorch's a is -0.75 here and -0.5 with a filter.
                let (first, last) = ((center - 0.5).floor() as i64 - 1, from as i64 - 1);
                let at = |j: i64| (j.clamp(0, last) as usize, cubic(center - 0.5 - j as f64, -0.75));
                return (first..first + 4).map(at).collect();
            }
            let stretch = scale.max(1.0);
            let support = 2.0 * stretch;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let weight = |j: usize| cubic((j as f64 - center + 0.5) / stretch, -0.5);
            let sum: f64 = (first..end).map(weight).sum();
            (first..end).map(|j| (j, weight(j) / sum)).collect()
        })
        .collect()
}
