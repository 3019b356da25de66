//! Values, or whole images, are dropped at random: dropout (Srivastava et al. 2014), and in front of a residual sum stochastic depth
//! (Huang et al. 2016), each image by itself.
//!
//! ```text
//! out = inp · kept / (1 − rate)       kept is 1 where a random word is at least rate · 2³², else 0
//!
//! dinp = dout · kept / (1 − rate)
//! ```
//!
//! The words are those of Philox4x32-10 (Salmon, Moraes, Dror & Shaw, SC 2011): a function of a key, which is the seed, and of a
//! counter, which is (four values of an image, layer, image of the step, step). Nothing is kept from one to the next.

use super::{Float, check_len};

/// The values that are dropped together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Each {
    /// A value.
    Value,
    /// All values of an image.
    Image,
}

/// Shape and settings of a dropout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Values of an image.
    pub per: usize,
    /// The values that are dropped together.
    pub each: Each,
    /// The number of the layer: layers draw from streams of their own.
    pub layer: u32,
    /// The probability to be dropped, 0 or above and below 1.
    pub rate: f64,
}

/// Where the random words of a pass come from, as the device reads it: the seed's words, the step, and which image of the step's
/// batch is the first of the pass.
pub type State = [u32; 4];

impl Dims {
    /// The least word of a value that is kept.
    pub fn threshold(self) -> u32 {
        assert!((0.0..1.0).contains(&self.rate), "a rate of {}", self.rate);
        (self.rate * 2f64.powi(32)).round().min(f64::from(u32::MAX)) as u32
    }

    /// The factor of the values that are kept.
    pub fn scale(self) -> f32 {
        (1.0 / (1.0 - self.rate)) as f32
    }

    /// The factor of each value.
    fn factors(self, state: State) -> impl Iterator<Item = f32> {
        let [low, high, step, first] = state;
        (0..self.batch * self.per).map(move |i| {
            let (image, value) = ((i / self.per) as u32, i % self.per);
            let place = if self.each == Each::Image { 0 } else { value };
            let counter = [(place / 4) as u32, self.layer, first.wrapping_add(image), step];
            let word = philox(counter, [low, high])[place % 4];
            if word >= self.threshold() { self.scale() } else { 0.0 }
        })
    }
}

/// Four random words of Philox4x32 with ten rounds.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [x, z] = [(0xD251_1F53u64, counter[0]), (0xCD9E_8D57, counter[2])].map(|(m, c)| m * u64::from(c));
        counter = [(z >> 32) as u32 ^ counter[1] ^ key[0], z as u32, (x >> 32) as u32 ^ counter[3] ^ key[1], x as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// Assigns `out [batch, per]`; `inp` has its shape.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], state: State, dims: Dims) {
    check_len("dropout::forward", "out", out.len(), dims.batch * dims.per);
    check_len("dropout::forward", "inp", inp.len(), dims.batch * dims.per);
    for (i, factor) in dims.factors(state).enumerate() {
        out[i] = inp[i] * T::from_f64(f64::from(factor));
    }
}

/// Assigns `dinp [batch, per]`; `dout` has its shape. The numbers are those of the forward pass.
pub fn backward<T: Float>(dinp: &mut [T], dout: &[T], state: State, dims: Dims) {
    check_len("dropout::backward", "dinp", dinp.len(), dims.batch * dims.per);
    check_len("dropout::backward", "dout", dout.len(), dims.batch * dims.per);
    for (i, factor) in dims.factors(state).enumerate() {
        dinp[i] = dout[i] * T::from_f64(f64::from(factor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the authors' library, Random123, in `kat_vectors`.
    #[test]
    fn words_are_those_of_the_known_answer_tests() {
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let known = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (pi, [0xa409_3822, 0x299f_31d0], [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]),
        ];
        for (counter, key, words) in known {
            assert_eq!(philox(counter, key), words, "{counter:x?}");
        }
    }

    /// Within five standard deviations of the rate, for values and for images, and other numbers in each layer, image and step.
    #[test]
    fn as_many_are_dropped_as_the_rate_says() {
        let dims = Dims { batch: 400, per: 50, each: Each::Value, layer: 3, rate: 0.3 };
        let dropped = |dims: Dims, state: State| dims.factors(state).map(|f| f == 0.0).collect::<Vec<bool>>();
        let share = |mask: &[bool]| mask.iter().filter(|dropped| **dropped).count() as f64 / mask.len() as f64;
        let off = |n: f64| 5.0 * (0.3f64 * 0.7 / n).sqrt();
        let values = dropped(dims, [7, 0, 5, 0]);
        assert!((share(&values) - 0.3).abs() < off(20_000.0), "{}", share(&values));
        let images = dropped(Dims { each: Each::Image, ..dims }, [7, 0, 5, 0]);
        assert!((share(&images) - 0.3).abs() < off(400.0), "{}", share(&images));
        assert!(images.chunks(50).all(|image| image.iter().all(|dropped| *dropped == image[0])));
        let same = |other: &[bool]| values.iter().zip(other).filter(|(a, b)| a == b).count() as f64 / 20_000.0;
        for other in [(dims, [7, 0, 6, 0]), (dims, [8, 0, 5, 0]), (Dims { layer: 4, ..dims }, [7, 0, 5, 0])] {
            // Independent masks agree in 0.3² + 0.7² of the places.
            let agree = same(&dropped(other.0, other.1));
            assert!((agree - 0.58).abs() < 0.02, "{agree}");
        }
        // A batch that is cut draws what the whole one does.
        let parts =
            [dropped(Dims { batch: 150, ..dims }, [7, 0, 5, 0]), dropped(Dims { batch: 250, ..dims }, [7, 0, 5, 150])];
        assert_eq!(parts.concat(), values);
    }
}
