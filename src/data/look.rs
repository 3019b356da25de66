//! What a look at an image finds.

/// What a whole image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// SHA-256 of the file.
    pub bytes: [u8; 32],
    /// SHA-256 of its width and its pixels, upright 8-bit RGB: what a model is given.
    pub pixels: [u8; 32],
    /// Width and height, upright, in pixels.
    pub size: [u32; 2],
    /// Whether the file has 16 bits per value, of which the upper 8 are used.
    pub sixteen: bool,
}
