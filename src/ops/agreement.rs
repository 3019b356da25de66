//! Whether two kernels computed the same sums: what a variant must show before it may compute a run's products.

use half::f16;

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::gpu::{Gpu, View};
use crate::random::Random;

/// What a result holds before it is computed, a NaN: an element that is left out shows.
const UNWRITTEN: u32 = 0x7fc0_0bad;
/// The same for two halves.
const UNWRITTEN_HALVES: u32 = 0x7e0b_7e0b;

/// Random values in −1..1, repeated after this many: a prime, so that no row or column of a tensor repeats another.
const PERIOD: usize = 65_521;

/// One unit in the last place of an f16 near 1: what two sums that are almost equal may differ by when they are stored.
pub(super) const HALF_EPS: f32 = 1.0 / 1024.0;

/// What two ways to add up `terms` products may differ by, relatively. Roundings to the nearest add up like a random walk, as
/// √terms; matrix units that cut off err in one direction, as terms. A product too many or too few is several times as much.
pub(super) fn tolerance(terms: usize, stored: Element) -> f32 {
    let terms = terms as f32;
    let sums = f32::EPSILON * (16.0 + 8.0 * terms.sqrt() + terms / 8.0);
    sums + if stored == Element::Half { HALF_EPS } else { 0.0 }
}

/// A buffer of `len` random values, other ones for every `seed`.
pub(super) fn random(gpu: &Gpu, label: &str, element: Element, len: usize, seed: u64) -> Result<View> {
    let period = Random::new(seed).vec(PERIOD.min(len));
    if element == Element::Word {
        let values: Vec<f32> = period.iter().copied().cycle().take(len).collect();
        return gpu.upload(label, &values);
    }
    let period: Vec<u16> = period.iter().map(|x| f16::from_f32(*x).to_bits()).collect();
    let mut halves = period.iter().copied().cycle().take(len);
    let words: Vec<u32> = std::iter::from_fn(|| {
        let low = halves.next()?;
        Some(u32::from(halves.next().unwrap_or(0)) << 16 | u32::from(low))
    })
    .collect();
    Ok(gpu.upload(label, &words)?.holding(Element::Half, len))
}

/// Makes `view` what a result is before it is computed: not a number anywhere, or zeros where the result is `added`.
pub(super) fn prepare(gpu: &Gpu, view: &View, added: bool) {
    let word = match (added, view.element) {
        (true, _) => 0,
        (false, Element::Word) => UNWRITTEN,
        (false, Element::Half) => UNWRITTEN_HALVES,
    };
    gpu.write(&words(view), &vec![word; view.element.words(view.len)]);
}

/// The memory behind a view, as words.
fn words(view: &View) -> View {
    let offset = view.byte_offset() as usize / 4;
    View { buffer: view.buffer.clone(), offset, len: view.element.words(view.len), element: Element::Word }
}

/// The values of a result.
pub(super) fn read(gpu: &Gpu, view: &View) -> Result<Vec<f32>> {
    if view.element == Element::Word {
        return gpu.read(view);
    }
    let words: Vec<u32> = gpu.read(&words(view))?;
    let halves = words.iter().flat_map(|word| [*word as u16, (*word >> 16) as u16]).take(view.len);
    Ok(halves.map(|bits| f16::from_bits(bits).to_f32()).collect())
}

/// The fault in `got`, if not all of it is within `tolerance` of `want`, relatively to each value or, where that is
/// small, to their mean.
pub(super) fn difference(got: &[f32], want: &[f32], tolerance: f32) -> Option<String> {
    assert_eq!(got.len(), want.len(), "as many results as expected ones");
    let mean = (want.iter().map(|w| f64::from(w.abs())).sum::<f64>() / want.len().max(1) as f64) as f32;
    let wrong = |(g, w): (&f32, &f32)| {
        let within = (g - w).abs() <= tolerance * (w.abs() + mean);
        !within && g.to_bits() != w.to_bits() // a NaN is within nothing
    };
    let first = got.iter().zip(want).position(wrong)?;
    let count = got.iter().zip(want).filter(|(g, w)| wrong((*g, *w))).count();
    Some(format!("{count} of {} values are wrong, value {first} is {:e}, not {:e}", got.len(), got[first], want[first]))
}

/// The first difference between two runs of one kernel on the same data, if they are not the same bits.
pub(super) fn change(first: &[f32], second: &[f32]) -> Option<String> {
    let at = first.iter().zip(second).position(|(a, b)| a.to_bits() != b.to_bits())?;
    Some(format!("two runs differ, value {at} is {:e} and then {:e}", first[at], second[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_do_not_hide() {
        let want = [1.0, -2.0, 0.001, 1000.0];
        assert_eq!(difference(&want, &want, 0.0), None);
        assert_eq!(difference(&[1.0, -2.0, 0.001, 1000.001], &want, 1e-5), None);
        let wrong = difference(&[1.0, -2.0, 0.001, 1000.1], &want, 1e-5).unwrap();
        assert!(wrong.starts_with("1 of 4 values are wrong, value 3 is 1.0001e3, not 1e3"), "{wrong}");
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(difference(&[bad, -2.0, 0.001, 1000.0], &want, 0.5).is_some());
        }
        assert!(change(&want, &want).is_none() && change(&[0.0], &[-0.0]).is_some());
    }

    #[test]
    fn a_product_too_few_is_beyond_every_tolerance() {
        // Of values in −1..1, a product is 1/3 in the mean square, and a sum of them the root of their number times that.
        for terms in [16_usize, 100, 3072, 100_000] {
            let one = 1.0 / (terms as f32).sqrt();
            assert!(tolerance(terms, Element::Word) < one, "{terms}");
        }
    }
}
