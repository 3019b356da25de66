//! `Resize` of 8-bit images with a filter against aliasing: as wide as the pixels that become one, and normalised at the edges.

use super::{Given, Tensor};

pub(super) fn run(x: &Tensor, sizes: &[i64], given: &Given) -> Tensor {
    assert_eq!(given.int("antialias", 0), 1);
    assert_eq!(given.text("coordinate_transformation_mode"), "half_pixel");
    let cubic = (given.text("mode") == "cubic").then(|| given.float("cubic_coeff_a", -0.75));
    let sizes: Vec<usize> = sizes.iter().map(|n| *n as usize).collect();
    assert_eq!(sizes[..2], x.shape[..2], "images and channels stay");
    along(&along(x, 3, sizes[3], cubic), 2, sizes[2], cubic)
}

/// The filter at a distance.
fn weight(x: f64, cubic: Option<f64>) -> f64 {
    let x = x.abs();
    match cubic {
        None => (1.0 - x).max(0.0),
        Some(a) if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        Some(a) if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        Some(_) => 0.0,
    }
}

fn along(x: &Tensor, axis: usize, size: usize, cubic: Option<f64>) -> Tensor {
    let from = x.shape[axis];
    let wide = (from as f64 / size as f64).max(1.0);
    let (before, after) = (x.shape[..axis].iter().product::<usize>(), x.strides()[axis]);
    let mut values = Vec::new();
    for row in 0..before {
        for to in 0..size {
            let centre = (to as f64 + 0.5) * from as f64 / size as f64 - 0.5;
            let weights: Vec<f64> = (0..from).map(|i| weight((i as f64 - centre) / wide, cubic)).collect();
            let sum: f64 = weights.iter().sum();
            for column in 0..after {
                let at = |i: usize| x.values[(row * from + i) * after + column];
                let mixed = weights.iter().enumerate().map(|(i, w)| w * at(i)).sum::<f64>() / sum;
                values.push(mixed.round().clamp(0.0, 255.0));
            }
        }
    }
    let mut shape = x.shape.clone();
    shape[axis] = size;
    Tensor::new(shape, values)
}
