//! Images become a sequence (Dosovitskiy et al. 2021, eq. 1): patches, class token, positions.
//!
//! ```text
//! cols[b, p, (c, y, x)] = images[b, c, P·(p / grid_w) + y, P·(p mod grid_w) + x]
//! patches = cols · weightᵀ + bias                    (matmul, weight [D, 3, P, P] read as [D, 3·P·P])
//! out[b] = concat(cls, reg, patches[b]) + pos        (each of `cls` and `reg` may be absent, or have no row in `pos`)
//!
//! dpatches[b, p] = dout[b, p + prefix],   dpos += Σ_b dout[b] at its rows' tokens,   dcls, dreg += Σ_b dout[b] at theirs
//! ```
//!
//! The grid is `height / P` by `width / P`; like a convolution of stride P, the pixels left over at the bottom and on
//! the right are not read. The images need no gradient.

use super::{Float, check_len};
use crate::shapes::Prefix;

/// Channels of an image.
const PLANES: usize = 3;

/// Assigns `cols [batch · grid_h · grid_w, channels · patch · patch]` from the first `channels` of `images [batch, 3, height, width]`.
pub fn unfold<T: Float>(
    cols: &mut [T],
    images: &[T],
    batch: usize,
    channels: usize,
    [height, width]: [usize; 2],
    patch: usize,
) {
    let op = "patch_embed::unfold";
    let (grid_h, grid_w) = (height / patch, width / patch);
    check_len(op, "cols", cols.len(), batch * grid_h * grid_w * channels * patch * patch);
    check_len(op, "images", images.len(), batch * PLANES * height * width);
    for b in 0..batch {
        for p in 0..grid_h * grid_w {
            let (top, left) = (p / grid_w * patch, p % grid_w * patch);
            for c in 0..channels {
                for y in 0..patch {
                    for x in 0..patch {
                        let to = (((b * grid_h * grid_w + p) * channels + c) * patch + y) * patch + x;
                        cols[to] = images[((b * PLANES + c) * height + top + y) * width + left + x];
                    }
                }
            }
        }
    }
}

/// Assigns `out [batch, tokens, dim]`; `patches [batch · num_patches, dim]`, `pos [positions, dim]`, `cls [dim]` where
/// there is one, `reg [registers, dim]`.
pub fn assemble<T: Float>(
    out: &mut [T],
    patches: &[T],
    pos: &[T],
    cls: &[T],
    reg: &[T],
    prefix: Prefix,
    batch: usize,
    num_patches: usize,
    dim: usize,
) {
    let op = "patch_embed::assemble";
    let (has_cls, tokens) = (usize::from(prefix.class_token), num_patches + prefix.tokens());
    check_len(op, "out", out.len(), batch * tokens * dim);
    check_len(op, "patches", patches.len(), batch * num_patches * dim);
    check_len(op, "pos", pos.len(), (num_patches + prefix.positions()) * dim);
    check_len(op, "cls", cls.len(), has_cls * dim);
    check_len(op, "reg", reg.len(), prefix.registers * dim);
    for b in 0..batch {
        for t in 0..tokens {
            for d in 0..dim {
                let token = match t {
                    t if t < has_cls => cls[d],
                    t if t < prefix.tokens() => reg[(t - has_cls) * dim + d],
                    t => patches[(b * num_patches + t - prefix.tokens()) * dim + d],
                };
                let position = prefix.position(t).map_or(T::ZERO, |row| pos[row * dim + d]);
                out[(b * tokens + t) * dim + d] = token + position;
            }
        }
    }
}

/// Assigns `dpatches [batch · num_patches, dim]`; adds to `dpos`, `dcls` and `dreg`, in the shapes of [`assemble`];
/// `dout [batch, tokens, dim]`.
pub fn assemble_backward<T: Float>(
    dpatches: &mut [T],
    dpos: &mut [T],
    dcls: &mut [T],
    dreg: &mut [T],
    dout: &[T],
    prefix: Prefix,
    batch: usize,
    num_patches: usize,
    dim: usize,
) {
    let op = "patch_embed::assemble_backward";
    let (has_cls, tokens) = (usize::from(prefix.class_token), num_patches + prefix.tokens());
    check_len(op, "dpatches", dpatches.len(), batch * num_patches * dim);
    check_len(op, "dpos", dpos.len(), (num_patches + prefix.positions()) * dim);
    check_len(op, "dcls", dcls.len(), has_cls * dim);
    check_len(op, "dreg", dreg.len(), prefix.registers * dim);
    check_len(op, "dout", dout.len(), batch * tokens * dim);
    for b in 0..batch {
        for t in 0..tokens {
            for d in 0..dim {
                let g = dout[(b * tokens + t) * dim + d];
                if let Some(row) = prefix.position(t) {
                    dpos[row * dim + d] += g;
                }
                match t {
                    t if t < has_cls => dcls[d] += g,
                    t if t < prefix.tokens() => dreg[(t - has_cls) * dim + d] += g,
                    t => dpatches[(b * num_patches + t - prefix.tokens()) * dim + d] = g,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unfold;
    use crate::cpu::matmul::matmul;

    // x = (torch.arange(3 * 5 * 4, dtype=torch.float64) * 7 % 11 / 5 - 1).reshape(1, 3, 5, 4)
    // w = (torch.arange(2 * 3 * 2 * 2, dtype=torch.float64) * 5 % 13 / 6 - 1).reshape(2, 3, 2, 2)
    // print(F.conv2d(x, w, stride=2).flatten(2).transpose(1, 2).flatten())
    #[test]
    fn agrees_with_pytorch_convolution() {
        let images: Vec<f64> = (0..60).map(|i| f64::from(i * 7 % 11) / 5.0 - 1.0).collect();
        let weight: Vec<f64> = (0..24).map(|i| f64::from(i * 5 % 13) / 6.0 - 1.0).collect();
        let (mut cols, mut patches) = ([f64::NAN; 48], [f64::NAN; 8]);
        unfold(&mut cols, &images, 1, 3, [5, 4], 2);
        matmul(&mut patches, &cols, &weight, None, 4, 2, 12, false, true, false, 1);
        let want = [
            0.9666666666666668,
            -1.3333333333333335,
            -0.7000000000000002,
            1.1666666666666667,
            -0.19999999999999996,
            -0.5,
            0.7000000000000001,
            1.6333333333333335,
        ];
        for (got, want) in patches.iter().zip(want) {
            assert!((got - want).abs() <= 1e-14, "{got} should be {want}");
        }
    }
}
