//! One image file to 8-bit RGB, as Pillow's `ImageOps.exif_transpose(Image.open(path)).convert("RGB")` gives it.

use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::header::{broken, check_size, exif_orientation, png_orientation, xmp_orientation};
use super::{jpeg, read};

pub use super::header::MAX_PIXELS;
use crate::error::{Error, Result};

/// Rows of interleaved 8-bit RGB.
pub use image::RgbImage;

/// The formats that are read.
const READ: [ImageFormat; 7] = [
    ImageFormat::Png,
    ImageFormat::Jpeg,
    ImageFormat::WebP,
    ImageFormat::Bmp,
    ImageFormat::Gif,
    ImageFormat::Tiff,
    ImageFormat::Pnm,
];

/// Decodes a PNG, JPEG, WebP, BMP, GIF, TIFF or PNM file of any colour type to upright 8-bit RGB. The content decides the format,
/// not the extension.
///
/// As in Pillow, alpha and `tRNS` are dropped rather than blended, CMYK follows Adobe's inverted convention, of an animation the
/// first frame is taken, and the EXIF (or else XMP) orientation is applied. The pixels are the same, bit for bit, but for grey of
/// 16 bits: its upper 8 bits are kept, as those of colour are, where Pillow clips it at 255, which makes it white, and
/// for PNM files whose white is another value than 255, which may be one level off.
///
/// # Errors
/// [`Error::Io`] where the file can't be read; [`Error::Data`] where it is of no such format, is broken or cut
/// short, or has more than [`MAX_PIXELS`].
pub fn decode(path: impl AsRef<Path>) -> Result<RgbImage> {
    let path = path.as_ref();
    let bytes = read::bytes(path)?;
    decode_bytes(&bytes).map(|decoded| decoded.image).map_err(|what| Error::data(path, what))
}

/// An image, and what its file was.
pub(super) struct Decoded {
    pub(super) image: RgbImage,
    /// Whether the file has 16 bits per value, of which the image has the upper 8.
    pub(super) sixteen: bool,
}

/// [`decode()`] of a file's bytes; the error is one line without the path.
pub(super) fn decode_bytes(bytes: &[u8]) -> Result<Decoded, String> {
    if bytes.is_empty() {
        return Err("the file is empty: remove it or fetch it again".into());
    }
    let format = image::guess_format(bytes).ok().filter(|format| READ.contains(format));
    let Some(format) = format else {
        return Err("not an image that is read (PNG, JPEG, WebP, BMP, GIF, TIFF, PNM): convert it or remove it".into());
    };
    let (mut image, orientation) = match format {
        ImageFormat::Jpeg => jpeg::decode(bytes).map(|(image, turn)| (DynamicImage::from(image), turn))?,
        _ => decode_with_image(bytes, format)?,
    };
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    let sixteen = matches!(image.color(), ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16);
    Ok(Decoded { sixteen, image: to_rgb(image)? })
}

/// All but JPEG: the image, not yet turned, and how it is to be turned.
fn decode_with_image(bytes: &[u8], format: ImageFormat) -> Result<(DynamicImage, Option<Orientation>), String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The limit that matters is checked below, by pixels; the crate's own by bytes would refuse large photographs.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(8 * MAX_PIXELS);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let orientation = match format {
        ImageFormat::Png => png_orientation(bytes),
        ImageFormat::Tiff => decoder.orientation().ok(),
        _ => exif_orientation(decoder.exif_metadata().ok().flatten().as_deref())
            .or_else(|| xmp_orientation(decoder.xmp_metadata().ok().flatten().as_deref())),
    };
    Ok((DynamicImage::from_decoder(decoder).map_err(broken)?, orientation))
}

/// Pillow's `convert("RGB")`, and the upper 8 of 16 bits for grey as well, which Pillow clips.
fn to_rgb(image: DynamicImage) -> Result<RgbImage, String> {
    let (width, height) = (image.width(), image.height());
    let high = |v: u16| (v >> 8) as u8;
    let pixels: Vec<u8> = match image {
        DynamicImage::ImageLuma16(p) => p.pixels().flat_map(|p| [high(p.0[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(p) => p.pixels().flat_map(|p| [high(p.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(p) => p.pixels().flat_map(|p| p.0.map(high)).collect(),
        DynamicImage::ImageRgba16(p) => p.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(high)).collect(),
        DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_) => {
            return Err("an image of 32 bits per value, whose range is not known: convert it to 8 bits".into());
        }
        eight_bit => return Ok(eight_bit.into_rgb8()),
    };
    Ok(RgbImage::from_raw(width, height, pixels).expect("three bytes per pixel were written"))
}
