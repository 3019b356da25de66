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
    /// What becomes of each block's table of relative positions, where there are any.
    pub relative: Option<Relative>,
}

/// How a table of relative positions is resized: a value for each offset on the grid, and three for the class token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relative {
    /// As timm's `resize_rel_pos_bias_table`: linear between offsets that lie the closer the nearer they are to zero.
    Stretched,
    /// Bilinear, as transformers.
    Bilinear,
}

/// Rows of a table of relative positions that are the class token's.
const CLASS_ROWS: usize = 3;

/// For each place, which of the old ones it is made of, and by how much.
type Taps = Vec<Vec<(usize, f64)>>;

impl Resize {
    /// What becomes of the values of the weight `name`, if it is one that is resized: those of [`Resize::name`]
    /// `[prefix + from², dim]` as `[prefix + to², dim]` by PyTorch's bicubic `interpolate`, as timm's `resample_abs_pos_embed` calls
    /// it, or those of a block's table `[(2·from − 1)² + 3, heads]`.
    pub(super) fn apply(&self, name: &str, values: &[f32]) -> Option<Vec<f32>> {
        if name == self.name {
            let dim = values.len() / (self.prefix + self.from * self.from);
            let (prefix, grid) = values.split_at(self.prefix * dim);
            let taps = taps(self.from, self.to, self.antialias);
            return Some([prefix, &resampled(grid, self.from, &taps)].concat());
        }
        let relative = self.relative.filter(|_| name.ends_with(".relative_position_bias_table"))?;
        let [from, to] = [self.from, self.to].map(|grid| 2 * grid - 1);
        let heads = values.len() / (from * from + CLASS_ROWS);
        let (grid, class) = values.split_at(values.len() - CLASS_ROWS * heads);
        let taps = match relative {
            Relative::Stretched => stretched(from, to),
            Relative::Bilinear => bilinear(from, to),
        };
        Some([&resampled(grid, from, &taps), class].concat())
    }
}

/// `grid` `[from², dim]` as `[to², dim]`: across, then down.
fn resampled(grid: &[f32], from: usize, taps: &Taps) -> Vec<f32> {
    let (dim, to) = (grid.len() / (from * from), taps.len());
    let mut wide = vec![0.0f64; from * to * dim];
    for y in 0..from {
        for (x, taps) in taps.iter().enumerate() {
            for &(at, weight) in taps {
                for d in 0..dim {
                    wide[(y * to + x) * dim + d] += weight * f64::from(grid[(y * from + at) * dim + d]);
                }
            }
        }
    }
    let mut out = Vec::with_capacity(to * to * dim);
    for taps in taps {
        let mut row = vec![0.0f64; to * dim];
        for &(at, weight) in taps {
            let source = &wide[at * to * dim..(at + 1) * to * dim];
            row.iter_mut().zip(source).for_each(|(sum, value)| *sum += weight * value);
        }
        out.extend(row.iter().map(|v| *v as f32));
    }
    out
}

/// PyTorch's `bilinear` without aligned corners.
fn bilinear(from: usize, to: usize) -> Taps {
    let scale = from as f64 / to as f64;
    let at = |i: usize| {
        let place = (scale * (i as f64 + 0.5) - 0.5).max(0.0);
        let (left, share) = (place.floor() as usize, place.fract());
        vec![(left.min(from - 1), 1.0 - share), ((left + 1).min(from - 1), share)]
    };
    (0..to).map(at).collect()
}

/// timm's: the old offsets lie in a geometric progression that reaches as far as the new ones.
fn stretched(from: usize, to: usize) -> Taps {
    if from == to {
        return (0..to).map(|i| vec![(i, 1.0)]).collect();
    }
    let (half, reach) = (from / 2, (to / 2) as f64);
    let (mut left, mut right) = (1.01f64, 1.5f64);
    let mut ratio = left;
    while right - left > 1e-6 {
        ratio = (left + right) / 2.0;
        match (1.0 - ratio.powi(half as i32)) / (1.0 - ratio) > reach {
            true => right = ratio,
            false => left = ratio,
        }
    }
    let mut distances = Vec::with_capacity(half);
    let mut distance = 1.0f64;
    for i in 0..half {
        distances.push(distance);
        distance += ratio.powi(i as i32 + 1);
    }
    let places: Vec<f64> = distances.iter().rev().map(|d| -d).chain([0.0]).chain(distances.iter().copied()).collect();
    let at = |i: usize| {
        let x = i as f64 - reach;
        let right = places.partition_point(|place| *place < x).min(from - 1);
        let left = right.saturating_sub(1);
        // Outside of the old offsets only one of the two is above 0: the nearest one's value is taken.
        let [to_left, to_right] = [x - places[left], places[right] - x].map(|distance| distance.max(0.0));
        let both = to_left + to_right;
        match both > 0.0 {
            true => vec![(left, to_right / both), (right, to_left / both)],
            false => vec![(right, 1.0)],
        }
    };
    (0..to).map(at).collect()
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
fn taps(from: usize, to: usize, antialias: bool) -> Taps {
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
