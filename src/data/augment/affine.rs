//! Moved images: Pillow's `image.transform(image.size, AFFINE, matrix, BILINEAR)`, bit for bit, with black outside.

use image::Rgb;

use crate::data::decode::RgbImage;

/// Which point of the image a pixel of the result is: from (x, y) at (a·x + b·y + c, d·x + e·y + f), in pixels from the upper left
/// corner.
pub(super) type Matrix = [f64; 6];

/// The image so moved, at its own size.
pub(super) fn affine(image: &RgbImage, [a, b, c, d, e, f]: Matrix) -> RgbImage {
    let (width, height) = image.dimensions();
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (f64::from(x) + 0.5, f64::from(y) + 0.5);
        bilinear(image, a * x + b * y + c, d * x + e * y + f)
    })
}

/// The colour at a point, from its four neighbours; those beyond the edge are those of the edge.
fn bilinear(image: &RgbImage, x: f64, y: f64) -> Rgb<u8> {
    let (width, height) = image.dimensions();
    if !(0.0..f64::from(width)).contains(&x) || !(0.0..f64::from(height)).contains(&y) {
        return Rgb([0; 3]);
    }
    let (x, y) = (x - 0.5, y - 0.5);
    let (right, down) = (x - x.floor(), y - y.floor());
    let within = |at: f64, side: u32| at.clamp(0.0, f64::from(side - 1)) as u32;
    let columns = [within(x.floor(), width), within(x.floor() + 1.0, width)];
    let across = |row: u32, channel: usize| {
        let [left, next] = columns.map(|column| f64::from(image.get_pixel(column, row).0[channel]));
        left + (next - left) * right
    };
    let rows = [within(y.floor(), height), within(y.floor() + 1.0, height)];
    Rgb(std::array::from_fn(|channel| {
        let [upper, lower] = rows.map(|row| across(row, channel));
        (upper + (lower - upper) * down) as u8
    }))
}

/// Turned counterclockwise about its centre by `degrees`.
pub(super) fn rotate(image: &RgbImage, degrees: f64) -> RgbImage {
    // Pillow rounds so, and then a quarter turn is one.
    let round = |x: f64| (x * 1e15).round() / 1e15;
    let angle = -degrees.rem_euclid(360.0).to_radians();
    let (cos, sin) = (round(angle.cos()), round(angle.sin()));
    let (x, y) = (f64::from(image.width()) / 2.0, f64::from(image.height()) / 2.0);
    affine(image, [cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y])
}

/// Slanted to the left, by `by` pixels for each row.
pub(super) fn shear_x(image: &RgbImage, by: f64) -> RgbImage {
    affine(image, [1.0, by, 0.0, 0.0, 1.0, 0.0])
}

/// Slanted upwards, by `by` pixels for each column.
pub(super) fn shear_y(image: &RgbImage, by: f64) -> RgbImage {
    affine(image, [1.0, 0.0, 0.0, by, 1.0, 0.0])
}

/// Moved by whole pixels to the right and down.
pub(super) fn translate(image: &RgbImage, right: f64, down: f64) -> RgbImage {
    affine(image, [1.0, 0.0, -right.trunc(), 0.0, 1.0, -down.trunc()])
}
