//! Pictures for people: of what a model is given, as a file, and with words below.

use font8x8::{BASIC_FONTS, GREEK_FONTS, HIRAGANA_FONTS, LATIN_FONTS, UnicodeFonts};
use image::{ImageFormat, Rgb, imageops};

use super::decode::RgbImage;
use super::jpeg;
use super::resize::{Interpolation, resize};

/// Width and height of a letter.
const LETTER: u32 = 8;
/// Space around letters and pictures.
const GAP: u32 = 4;

/// The image, at most `most` pixels wide and high; one that is much smaller has each of its pixels repeated.
pub fn thumbnail(image: &RgbImage, most: u32) -> RgbImage {
    let longer = image.width().max(image.height());
    if longer > most {
        let side = |side: u32| (side * most / longer).max(1);
        return resize(image, side(image.width()), side(image.height()), Interpolation::Bicubic);
    }
    let times = most / longer;
    imageops::resize(image, image.width() * times, image.height() * times, imageops::FilterType::Nearest)
}

/// The bytes of a JPEG for a page.
pub fn jpeg_bytes(image: &RgbImage) -> Vec<u8> {
    jpeg::encode(image, 85).expect("jpeg: writing to memory")
}

/// The bytes of a PNG with all pictures in rows of `columns`, each with its lines of text below; at least one picture.
pub fn grid(pictures: &[(RgbImage, Vec<String>)], columns: u32) -> Vec<u8> {
    let most = |of: fn(&RgbImage) -> u32| pictures.iter().map(|(image, _)| of(image)).max().expect("a picture");
    let (width, height) = (most(RgbImage::width), most(RgbImage::height));
    let lines = pictures.iter().map(|(_, text)| text.len() as u32).max().expect("a picture");
    let (cell, row) = (width + GAP, height + GAP + lines * (LETTER + 2) + GAP);
    let columns = columns.min(pictures.len() as u32);
    let rows = (pictures.len() as u32).div_ceil(columns);
    let mut out = RgbImage::from_pixel(columns * cell + GAP, rows * row + GAP, Rgb([255; 3]));
    for (at, (image, text)) in (0..).zip(pictures) {
        let (x, y) = (GAP + at % columns * cell, GAP + at / columns * row);
        imageops::replace(&mut out, image, i64::from(x), i64::from(y));
        for (line, text) in (0..).zip(text) {
            write(&mut out, [x, y + height + GAP + line * (LETTER + 2)], text, (width / LETTER) as usize);
        }
    }
    let mut bytes = Vec::new();
    out.write_to(&mut std::io::Cursor::new(&mut bytes), ImageFormat::Png).expect("png: writing to memory");
    bytes
}

/// Writes `text` in black from `[x, y]` on; of one that is longer than `most` letters, the beginning.
fn write(image: &mut RgbImage, [x, y]: [u32; 2], text: &str, most: usize) {
    let short: String = match text.chars().count() > most {
        true => text.chars().take(most.saturating_sub(2)).chain("..".chars()).take(most).collect(),
        false => text.into(),
    };
    for (place, letter) in (0..).zip(short.chars()) {
        for (row, bits) in (0..).zip(glyph(letter)) {
            for column in (0..LETTER).filter(|column| bits >> column & 1 == 1) {
                image.put_pixel(x + place * LETTER + column, y + row, Rgb([0; 3]));
            }
        }
    }
}

/// The rows of a letter, from the left in the lowest bit; a frame for one that the font lacks.
fn glyph(letter: char) -> [u8; 8] {
    const FRAME: [u8; 8] = [0x7e, 0x42, 0x42, 0x42, 0x42, 0x42, 0x7e, 0];
    let fonts = [BASIC_FONTS.get(letter), LATIN_FONTS.get(letter), GREEK_FONTS.get(letter), HIRAGANA_FONTS.get(letter)];
    fonts.into_iter().flatten().next().unwrap_or(FRAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_images_are_repeated_and_large_ones_made_smaller() {
        let small = RgbImage::from_fn(8, 4, |x, y| Rgb([(x * 30) as u8, (y * 60) as u8, 0]));
        let shown = thumbnail(&small, 50);
        assert_eq!(shown.dimensions(), (48, 24));
        assert!((0..48).all(|x| (0..24).all(|y| shown.get_pixel(x, y) == small.get_pixel(x / 6, y / 6))));
        assert_eq!(thumbnail(&RgbImage::new(500, 250), 50).dimensions(), (50, 25));
        assert_eq!(thumbnail(&RgbImage::new(500, 1), 50).dimensions(), (50, 1));
    }

    #[test]
    fn a_grid_has_every_picture_and_its_words() {
        let coloured = |level: u8| RgbImage::from_pixel(48, 48, Rgb([level, 0, 90]));
        let pictures: Vec<(RgbImage, Vec<String>)> =
            (0..7).map(|i| (coloured(30 * i), vec!["cat".into(), "a very long name".into()])).collect();
        let read = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().to_rgb8();
        let image = read(&grid(&pictures, 3));
        assert_eq!(image.dimensions(), (3 * 52 + 4, 3 * 76 + 4));
        for (i, (picture, _)) in (0..).zip(&pictures) {
            let corner = [4 + i % 3 * 52, 4 + i / 3 * 76];
            assert_eq!(image.get_pixel(corner[0] + 20, corner[1] + 20), picture.get_pixel(20, 20));
            let ink = |left: u32, top: u32| {
                (0..8).any(|x| (0..8).any(|y| image.get_pixel(corner[0] + left + x, corner[1] + top + y).0 == [0; 3]))
            };
            // "c" and "t" above, and no fourth letter; six letters below.
            assert!(ink(0, 52) && ink(16, 52) && !ink(24, 52) && ink(40, 62), "{i}");
        }
        // The words decide: another text is another picture, and so is a letter that the font lacks.
        let text = |text: &str| grid(&[(coloured(9), vec![text.into()])], 1);
        assert!(text("ä") != text("a") && text("字") != text(" ") && text("あ") != text("字"));
    }
}
