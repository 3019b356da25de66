//! JPEG as libjpeg-turbo decodes it, which Pillow is built on: the same integer transform, chroma upsampling and colour
//! conversion, bit for bit.
//!
//! The `image` crate's decoder (zune-jpeg 0.5.15) was tried: 1 level off on grey and 2 at 4:4:4, where the transform rounds
//! otherwise, 4 on photographs at 4:2:0, where chroma is rounded between the two directions as well, and up to 26 in strong
//! colours and in images a few pixels wide, whose chroma libjpeg repeats. jpeg-decoder 0.3.2 was 1 to 4 levels off, too.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::RgbImage;
use image::metadata::Orientation;
use libjpeg_turbo_rs::{ColorSpace, DecodeLimits, Decoder, Encoder, PixelFormat, Subsampling};

use super::header::{broken, check_size, exif_orientation, xmp_orientation};

/// More scans than any encoder writes; each costs a pass over the whole image.
const MAX_SCANS: usize = 1000;

/// The image, not yet turned, and how it is to be turned.
pub(super) fn decode(bytes: &[u8]) -> Result<(RgbImage, Option<Orientation>), String> {
    // The decoder panics on some broken files, which must not end a run.
    catch_unwind(AssertUnwindSafe(|| decode_or_panic(bytes)))
        .unwrap_or_else(|_| Err("broken image: the JPEG decoder gave up".into()))
}

/// A JPEG of this quality (of the IJG's scale) with chroma at half the size, as Pillow writes it.
pub(super) fn encode(image: &RgbImage, quality: u8) -> Result<Vec<u8>, String> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    Encoder::new(image.as_raw(), width, height, PixelFormat::Rgb)
        .quality(quality)
        .subsampling(Subsampling::S420)
        .force_baseline(true)
        .encode()
        .map_err(broken)
}

fn decode_or_panic(bytes: &[u8]) -> Result<(RgbImage, Option<Orientation>), String> {
    let limits = DecodeLimits { max_scans: MAX_SCANS, ..DecodeLimits::default() };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(broken)?;
    let header = decoder.header();
    let (width, height) = (u32::from(header.width), u32::from(header.height));
    check_size(width, height)?;
    if header.precision != 8 {
        return Err(format!("a JPEG of {} bits per sample: only 8 are supported", header.precision));
    }
    let sampling: Vec<[u8; 2]> =
        header.components.iter().map(|c| [c.horizontal_sampling, c.vertical_sampling]).collect();
    if !is_usual(&sampling) {
        return Err(format!("a JPEG with sampling factors {sampling:?} is not supported: convert it"));
    }
    if !is_complete(bytes) {
        return Err("broken image: the file is truncated (no end-of-image marker)".into());
    }
    let orientation = exif_orientation(decoder.exif_data()).or_else(|| xmp_orientation(decoder.xmp_data()));
    let ink = matches!(decoder.jpeg_color_space(), ColorSpace::Cmyk | ColorSpace::Ycck);
    decoder.set_output_format(if ink { PixelFormat::Cmyk } else { PixelFormat::Rgb });
    let data = decoder.decode_image().map_err(broken)?.data;
    let data = if ink { data.chunks_exact(4).flat_map(rgb_of_inverted_cmyk).collect() } else { data };
    let image = RgbImage::from_raw(width, height, data).ok_or("broken image: pixels are missing")?;
    Ok((image, orientation))
}

/// Whether the second and third component are sampled alike, at whole parts of the first, and a fourth as the first: others
/// the decoder takes for something else.
fn is_usual(sampling: &[[u8; 2]]) -> bool {
    let part = |whole: u8, part: u8| part > 0 && whole.is_multiple_of(part);
    match sampling {
        [_] => true,
        [first, chroma, other, key @ ..] => {
            chroma == other && part(first[0], chroma[0]) && part(first[1], chroma[1]) && key.iter().all(|k| k == first)
        }
        _ => false,
    }
}

/// Pillow's CMYK to RGB, of values that Adobe stores inverted: 255 is no ink.
fn rgb_of_inverted_cmyk(pixel: &[u8]) -> [u8; 3] {
    let key = u32::from(pixel[3]);
    [pixel[0], pixel[1], pixel[2]].map(|value| {
        let product = (255 - u32::from(value)) * key + 128;
        (key - ((product + (product >> 8)) >> 8)) as u8
    })
}

/// Whether a JPEG reaches its end-of-image marker: without it rows may be missing at the end.
fn is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(pair) = bytes.get(at..at + 2) {
        match (pair[0], pair[1]) {
            (0xFF, 0xD9) => return true,
            // Fill bytes, stuffed zeros and markers that stand alone.
            (0xFF, 0xFF) => at += 1,
            (0xFF, 0x00 | 0x01 | 0xD0..=0xD8) => at += 2,
            // Segments are skipped whole, because a thumbnail inside one has an end marker of its own.
            (0xFF, _) => match bytes.get(at + 2..at + 4) {
                Some(length) => at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
            _ => at += 1,
        }
    }
    false
}
