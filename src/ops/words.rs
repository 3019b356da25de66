//! Four neighbouring values as they lie in a buffer: the text appended to products, and to all kernels for CPU adapters,
//! which read and write them as `loaded4` and `stored4`.

use crate::gpu::buffer::Element;
use crate::gpu::shaders;
use crate::ops::elem::{Elem, FORMATS};

/// `loaded4`, four values of a buffer that is only read, `stored4`, four of one that is written, and how they become a `vec4f`
/// and come from one.
///
/// With `wide` both are words of 64 bits ([`Gpu::has_wide_words`](crate::gpu::Gpu::has_wide_words)): where a driver goes lane by
/// lane and word by word, half or a quarter as many. f16 is stored as it always is, since WGSL leaves it to the adapter how
/// `pack2x16float` rounds; lavapipe cuts off.
pub fn fours(loaded: Element, stored: Element, wide: bool) -> String {
    let plain = |element: Element| format!("vec4<{}>", element.scalar());
    let of_vector = "return vec4f(x);";
    let of_words = "return vec4f(halves(x.x), halves(x.y));";
    let (loaded4, from_loaded) = match (wide, loaded) {
        (false, _) => (plain(loaded), of_vector),
        (true, Element::Word) => ("vec2<u64>".into(), of_words),
        (true, Element::Half) => {
            ("u64".into(), "return vec4f(unpack2x16float(u32(x)), unpack2x16float(u32(x >> 32u)));")
        }
    };
    let (stored4, from_stored, to_stored) = match (wide, stored) {
        (true, Element::Word) => ("vec2<u64>".into(), of_words, "return stored4(word(x.x, x.y), word(x.z, x.w));"),
        _ => (plain(stored), of_vector, "return stored4(x);"),
    };
    format!(
        "alias loaded4 = {loaded4};\nalias stored4 = {stored4};\n\
         fn from_loaded(x: loaded4) -> vec4f {{ {from_loaded} }}\n\
         fn from_stored(x: stored4) -> vec4f {{ {from_stored} }}\n\
         fn to_stored(x: vec4f) -> stored4 {{ {to_stored} }}\n{}",
        if wide { shaders::WORDS } else { "" }
    )
}

/// `elem`, `loaded` and `stored`, what a matrix of `elem` holds that is only read and one that is written, and how they become an `elem`
/// and come from one; `wide` as in [`fours`], for elems of four.
pub(super) fn elems(elem: Elem, element: Element, wide: bool) -> String {
    if elem.width == 4 {
        let fours = fours(element, element, wide);
        return format!("{}{fours}alias loaded = loaded4;\nalias stored = stored4;\n", elem.alias());
    }
    let scalar = element.scalar();
    format!(
        "{}alias loaded = {scalar};\nalias stored = {scalar};\n\
         fn from_loaded(x: loaded) -> f32 {{ return f32(x); }}\nfn from_stored(x: stored) -> f32 {{ return f32(x); }}\n\
         fn to_stored(x: f32) -> stored {{ return stored(x); }}\n",
        elem.alias()
    )
}

/// What [`elems`] makes of every elem: of those of four in words of 64 bits, too.
pub(super) fn all_elems() -> Vec<(Elem, Element, bool)> {
    let widths = [(4, false), (4, true), (1, false)];
    FORMATS.iter().flat_map(|&element| widths.map(|(cols, wide)| (Elem::of(cols, element), element, wide))).collect()
}
