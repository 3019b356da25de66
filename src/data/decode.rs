//! One image file to 8-bit RGB, as Pillow's `ImageOps.exif_transpose(Image.open(path)).convert("RGB")` gives it.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::jpeg;
use crate::error::{Error, Result};

/// Rows of interleaved 8-bit RGB.
pub use image::RgbImage;

/// The most pixels an image may have, which is where Pillow, too, refuses: a few kilobytes of PNG can claim
/// terabytes, and the memory would be gone before the decoder finds the data missing.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Decodes a PNG, JPEG or WebP file of any colour type to upright 8-bit RGB. The content decides the format, not the
/// extension.
///
/// As in Pillow, alpha and `tRNS` are dropped rather than blended, 16-bit colour keeps its high byte, 16-bit grey is
/// clipped at 255, CMYK follows Adobe's inverted convention, of an animation the first frame is taken, and the EXIF
/// (or else XMP) orientation is applied. The pixels are the same, bit for bit.
///
/// # Errors
/// [`Error::Io`] where the file can't be read; [`Error::Data`] where it is no PNG, JPEG or WebP, is broken or cut
/// short, or has more than [`MAX_PIXELS`].
pub fn decode(path: impl AsRef<Path>) -> Result<RgbImage> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|e| Error::io(path, "cannot read", e))?;
    decode_bytes(&bytes).map_err(|what| Error::data(path, what))
}

fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, String> {
    if bytes.is_empty() {
        return Err("the file is empty: remove it or fetch it again".into());
    }
    let format = image::guess_format(bytes).ok();
    let Some(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) = format else {
        return Err("not a PNG, JPEG or WebP image: convert it or remove it".into());
    };
    let (mut image, orientation) = match format {
        ImageFormat::Jpeg => jpeg::decode(bytes).map(|(image, turn)| (DynamicImage::from(image), turn))?,
        _ => decode_with_image(bytes, format)?,
    };
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(to_rgb(image, format == ImageFormat::Png && png_is_grey(bytes)))
}

/// PNG and WebP: the image, not yet turned, and how it is to be turned.
fn decode_with_image(bytes: &[u8], format: ImageFormat) -> Result<(DynamicImage, Option<Orientation>), String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The limit that matters is checked below, by pixels; the crate's own by bytes would refuse large photographs.
    reader.no_limits();
    let mut decoder = reader.into_decoder().map_err(one_line)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let orientation = match format {
        ImageFormat::Png => png_orientation(bytes),
        _ => exif_orientation(decoder.exif_metadata().ok().flatten().as_deref())
            .or_else(|| xmp_orientation(decoder.xmp_metadata().ok().flatten().as_deref())),
    };
    Ok((DynamicImage::from_decoder(decoder).map_err(one_line)?, orientation))
}

/// An error where there are no pixels or more than [`MAX_PIXELS`].
pub(super) fn check_size(width: u32, height: u32) -> Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(format!("broken image: its size is {width}×{height}"));
    }
    if pixels > MAX_PIXELS {
        return Err(format!(
            "{width}×{height} is {pixels} pixels, more than the {MAX_PIXELS} allowed: make it smaller"
        ));
    }
    Ok(())
}

/// A decoder's error on one line, since some have several.
pub(super) fn one_line(error: impl std::fmt::Display) -> String {
    let reason = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    format!("broken image: {reason}")
}

/// Pillow's `convert("RGB")`. `grey` says that the file's own colour type is grey without alpha, which a `tRNS` chunk
/// hides from the decoded type.
fn to_rgb(image: DynamicImage, grey: bool) -> RgbImage {
    let (width, height) = (image.width(), image.height());
    let high = |v: u16| (v >> 8) as u8;
    // Pillow's mode "I;16" is an integer image that is clipped, not scaled.
    let grey16 = |v: u16| if grey { v.min(255) as u8 } else { high(v) };
    let pixels: Vec<u8> = match image {
        DynamicImage::ImageLuma16(p) => p.pixels().flat_map(|p| [grey16(p.0[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(p) => p.pixels().flat_map(|p| [grey16(p.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(p) => p.pixels().flat_map(|p| p.0.map(high)).collect(),
        DynamicImage::ImageRgba16(p) => p.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(high)).collect(),
        eight_bit => return eight_bit.into_rgb8(),
    };
    RgbImage::from_raw(width, height, pixels).expect("three bytes a pixel were written")
}

/// Whether the `IHDR` chunk, which comes first in every PNG, says colour type 0.
fn png_is_grey(bytes: &[u8]) -> bool {
    bytes.get(25) == Some(&0)
}

pub(super) fn exif_orientation(exif: Option<&[u8]>) -> Option<Orientation> {
    let exif = exif?;
    Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
}

/// The digit of `tiff:Orientation="6"` or `<tiff:Orientation>6<`.
pub(super) fn xmp_orientation(xmp: Option<&[u8]>) -> Option<Orientation> {
    const TAG: &[u8] = b"tiff:Orientation";
    let xmp = xmp?;
    let digit = xmp.windows(TAG.len()).enumerate().filter(|(_, window)| *window == TAG).find_map(|(at, _)| {
        let rest = &xmp[at + TAG.len()..];
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
        value.first().filter(|digit| digit.is_ascii_digit())
    })?;
    Orientation::from_exif(digit - b'0')
}

/// The orientation in an `eXIf` or XMP chunk, wherever it stands: the decoder sees only those before the pixels, and
/// common tools append theirs.
fn png_orientation(bytes: &[u8]) -> Option<Orientation> {
    let mut rest = bytes.get(8..)?;
    let (mut exif, mut xmp) = (None, None);
    while let Some((head, tail)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(data) = tail.get(..length) else { break };
        match &head[4..8] {
            b"eXIf" => exif = Some(data),
            b"iTXt" if data.starts_with(b"XML:com.adobe.xmp\0") => xmp = Some(data),
            _ => {}
        }
        rest = tail.get(length + 4..).unwrap_or_default();
    }
    exif_orientation(exif).or_else(|| xmp_orientation(xmp))
}
