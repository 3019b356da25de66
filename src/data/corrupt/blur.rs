//! Blurs. Lengths are those of ImageNet-C at 224 pixels, times [`Canvas::scale`].

use rand::Rng;

use super::Canvas;
use super::canvas::Border;

/// A Gaussian of σ 1 to 6 pixels.
pub(super) fn gaussian(image: &Canvas, level: usize) -> Canvas {
    let sigma = [1.0, 2.0, 3.0, 4.0, 6.0][level];
    image.gaussian(sigma * image.scale(), 4.0, Border::Nearest)
}

/// Out of focus: the mean over a disk of radius 3 to 10 pixels, whose edge a small Gaussian softens.
pub(super) fn defocus(image: &Canvas, level: usize) -> Canvas {
    let (radius, edge) = [(3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)][level];
    let scale = image.scale();
    image.gathered(&disk(radius * scale, edge * scale, if scale < 1.0 { 9 } else { 1 }), Border::Reflect101)
}

/// The disk as `(dx, dy, weight)`, of sum 1. A pixel counts by the share of `grid`² points in it that are inside the
/// radius: its centre alone at the published sizes; more below them, where the disk is a few pixels wide.
fn disk(radius: f64, edge: f64, grid: i64) -> Vec<(i64, i64, f32)> {
    let reach = radius.ceil() as i64 + 2;
    let side = (2 * reach + 1) as usize;
    let inside = |x: i64, y: i64| {
        let place = |at: i64, i: i64| at as f64 + ((i as f64 + 0.5) / grid as f64 - 0.5);
        let points = (0..grid * grid).filter(|i| place(x, i % grid).hypot(place(y, i / grid)) <= radius);
        points.count() as f32
    };
    let places: Vec<(i64, i64)> = (-reach..=reach).flat_map(|y| (-reach..=reach).map(move |x| (x, y))).collect();
    let disk = Canvas::new(side, side, 1, places.iter().map(|(x, y)| inside(*x, *y)).collect());
    let soft = disk.gaussian(edge, 4.0, Border::Nearest);
    let sum: f32 = soft.data.iter().sum();
    let weights = soft.data.iter().map(|w| w / sum);
    places.into_iter().zip(weights).filter(|(_, w)| *w > 0.0).map(|((x, y), w)| (x, y, w)).collect()
}

/// Moved while the shutter was open: half a Gaussian of σ 3 to 15 pixels along a line of a random slope.
pub(super) fn motion(image: &Canvas, level: usize, rng: &mut impl Rng) -> Canvas {
    motion_along(image, level, rng.random_range(-45.0..=45.0))
}

/// [`motion`] at `degrees` from the horizontal.
pub(super) fn motion_along(image: &Canvas, level: usize, degrees: f64) -> Canvas {
    let (radius, sigma) = [(10.0, 3.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0), (20.0, 15.0)][level];
    trail(image, radius, sigma, degrees)
}

/// ImageMagick's motion blur: `2⌈radius⌉ + 1` pixels from each on in one direction, weighted by a Gaussian.
pub(super) fn trail(image: &Canvas, radius: f64, sigma: f64, degrees: f64) -> Canvas {
    let (radius, sigma) = (radius * image.scale(), sigma * image.scale());
    let (sin, cos) = degrees.to_radians().sin_cos();
    let taps = (0..=2 * radius.ceil() as i64).map(|i| {
        let i = i as f64;
        let place = |along: f64| (i * along - 0.5).ceil() as i64;
        (place(cos), place(sin), (-0.5 * (i / sigma).powi(2)).exp())
    });
    let taps: Vec<(i64, i64, f64)> = taps.collect();
    let sum: f64 = taps.iter().map(|t| t.2).sum();
    let kernel: Vec<(i64, i64, f32)> = taps.into_iter().map(|(x, y, w)| (x, y, (w / sum) as f32)).collect();
    image.gathered(&kernel, Border::Nearest)
}

/// Driven towards: the mean of the image and of enlargements of its middle, up to 1.11 to 1.3 times.
pub(super) fn zoom(image: &Canvas, level: usize) -> Canvas {
    let (step, count) = [(0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11)][level];
    let mut sum = image.clone();
    for i in 0..count {
        let layer = image.zoomed(1.0 + step * f64::from(i));
        sum.data.iter_mut().zip(&layer.data).for_each(|(sum, v)| *sum += v);
    }
    sum.data.iter_mut().for_each(|v| *v /= (count + 1) as f32);
    sum
}

/// Frosted glass: blurred, every pixel exchanged with one at most 1 to 4 pixels away, blurred again.
pub(super) fn glass(image: &Canvas, level: usize, rng: &mut impl Rng) -> Canvas {
    let (sigma, reach, rounds) = [(0.7, 1.0, 2), (0.9, 2.0, 1), (1.0, 2.0, 3), (1.1, 3.0, 2), (1.5, 4.0, 2)][level];
    let scale = image.scale();
    let reach = (reach * scale).round().max(1.0) as i64;
    let blur = |image: &Canvas| image.gaussian(sigma * scale, 4.0, Border::Nearest);
    let mut image = blur(image).quantised();
    let (width, height, c) = (image.width as i64, image.height as i64, image.channels);
    for _ in 0..rounds {
        for y in (reach + 1..=height - reach).rev() {
            for x in (reach + 1..=width - reach).rev() {
                // The far end is left out, so that from the first row past the border nothing is outside.
                let (dx, dy) = (rng.random_range(-reach..reach), rng.random_range(-reach..reach));
                let at = |x: i64, y: i64| (y * width + x) as usize * c;
                let (here, there) = (at(x, y), at(x + dx, y + dy));
                (0..c).for_each(|channel| image.data.swap(here + channel, there + channel));
            }
        }
    }
    blur(&image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_keeps_its_area_at_any_size() {
        for (radius, grid) in [(10.0, 1), (10.0, 9), (2.9, 9), (0.86, 9)] {
            let kernel = disk(radius, 0.1, grid);
            let sum: f32 = kernel.iter().map(|k| k.2).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{radius}: {sum}");
            // The mean squared distance over a disk is radius²/2; a pixel's own width adds to it where points are its share.
            let spread: f64 = kernel.iter().map(|(x, y, w)| (x * x + y * y) as f64 * f64::from(*w)).sum();
            let want = radius * radius / 2.0 + 2.0 * 0.01;
            assert!((spread - want).abs() < 0.1 * want + 0.17, "{radius}: {spread}, expected {want}");
        }
    }
}
