//! The sum of an image's splits, each channel of each weighed by a softmax over the splits (ResNeSt, Zhang et al. 2020).
//!
//! ```text
//! prob[b, r, c] = softmax over r of logits[b, g, r, i], c = g·w + i      a sigmoid if there is one split
//! out[b, p, c] = Σ_r prob[b, r, c] inp[b, p, r, c]
//!
//! dinp[b, p, r, c] = prob[b, r, c] dout[b, p, c]      dprob[b, r, c] = Σ_p dout[b, p, c] inp[b, p, r, c]
//! dlogits = prob (dprob − Σ_r prob dprob)
//! ```

use super::{Float, check_len};

/// Shape of a split attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Pixels of an image.
    pub pixels: usize,
    /// Channels of `out`.
    pub channels: usize,
    /// Splits.
    pub radix: usize,
    /// Groups of channels, in which logits are stored.
    pub groups: usize,
}

impl Dims {
    /// Elements of `out`.
    pub fn len(self) -> usize {
        self.batch * self.pixels * self.channels
    }

    /// Whether there are no elements.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Elements of `inp`.
    pub fn in_len(self) -> usize {
        self.len() * self.radix
    }

    /// Elements of `logits` and `prob`.
    pub fn weights_len(self) -> usize {
        self.batch * self.radix * self.channels
    }

    /// Of a split and a channel, where the logit is and where the weight.
    fn places(self, b: usize, r: usize, c: usize) -> (usize, usize) {
        let width = self.channels / self.groups;
        let logit = ((b * self.groups + c / width) * self.radix + r) * width + c % width;
        (logit, (b * self.radix + r) * self.channels + c)
    }
}

/// Assigns `out [B, P, C]` and `prob [B, R, C]`; `inp [B, P, R·C]`, `logits [B, G, R, C/G]`.
pub fn forward<T: Float>(out: &mut [T], prob: &mut [T], inp: &[T], logits: &[T], dims: Dims) {
    let op = "split_attention::forward";
    check_len(op, "out", out.len(), dims.len());
    check_len(op, "prob", prob.len(), dims.weights_len());
    check_len(op, "inp", inp.len(), dims.in_len());
    check_len(op, "logits", logits.len(), dims.weights_len());
    let Dims { batch, pixels, channels, radix, .. } = dims;
    for b in 0..batch {
        for c in 0..channels {
            // A sigmoid is a softmax beside a zero.
            let zero = (radix == 1).then_some(T::ZERO);
            let all = || (0..radix).map(|r| logits[dims.places(b, r, c).0]).chain(zero);
            let highest = all().fold(logits[dims.places(b, 0, c).0], |highest, x| highest.max(x));
            let mut sum = T::ZERO;
            all().for_each(|x| sum += (x - highest).exp());
            for r in 0..radix {
                let (logit, weight) = dims.places(b, r, c);
                prob[weight] = (logits[logit] - highest).exp() / sum;
            }
            for p in 0..pixels {
                let row = b * pixels + p;
                let mut mix = T::ZERO;
                for r in 0..radix {
                    mix += prob[dims.places(b, r, c).1] * inp[(row * radix + r) * channels + c];
                }
                out[row * channels + c] = mix;
            }
        }
    }
}

/// Assigns `dinp [B, P, R·C]` and `dlogits [B, G, R, C/G]`; `dout [B, P, C]`, `inp`, and `prob` of [`forward`].
pub fn backward<T: Float>(dinp: &mut [T], dlogits: &mut [T], dout: &[T], inp: &[T], prob: &[T], dims: Dims) {
    let op = "split_attention::backward";
    check_len(op, "dinp", dinp.len(), dims.in_len());
    check_len(op, "dlogits", dlogits.len(), dims.weights_len());
    check_len(op, "dout", dout.len(), dims.len());
    check_len(op, "inp", inp.len(), dims.in_len());
    check_len(op, "prob", prob.len(), dims.weights_len());
    let Dims { batch, pixels, channels, radix, .. } = dims;
    for b in 0..batch {
        for c in 0..channels {
            let (mut dprob, mut mixed) = (vec![T::ZERO; radix], T::ZERO);
            for r in 0..radix {
                let share = prob[dims.places(b, r, c).1];
                for p in 0..pixels {
                    let row = b * pixels + p;
                    let (i, d) = ((row * radix + r) * channels + c, dout[row * channels + c]);
                    dinp[i] = share * d;
                    dprob[r] += d * inp[i];
                }
                mixed += share * dprob[r];
            }
            for r in 0..radix {
                let (logit, weight) = dims.places(b, r, c);
                dlogits[logit] = prob[weight] * (dprob[r] - mixed);
            }
        }
    }
}
