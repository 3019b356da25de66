//! Facts about an image before its pixels: whether it may be decoded, and how it is to be turned.

use image::metadata::Orientation;

use crate::error::one_line;

/// The most pixels an image may have, which is where Pillow, too, refuses: a few kilobytes of PNG can claim
/// terabytes, and the memory would be gone before the decoder finds the data missing.
pub const MAX_PIXELS: u64 = 178_956_970;

/// An error for no pixels, and for more than [`MAX_PIXELS`].
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

/// What to say of an image for which a decoder has this error.
pub(super) fn broken(error: impl std::fmt::Display) -> String {
    format!("broken image: {}", one_line(error))
}

/// That of an EXIF block.
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
pub(super) fn png_orientation(bytes: &[u8]) -> Option<Orientation> {
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
