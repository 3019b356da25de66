//! Images become a sequence (Dosovitskiy et al. 2021, eq. 1): patches, class token, positions.
//!
//! ```text
//! cols[b, p, (c, y, x)] = images[b, c, P·(p / grid_w) + y, P·(p mod grid_w) + x]
//! patches = cols · weightᵀ + bias                    (matmul, weight [D, 3, P, P] read as [D, 3·P·P])
//! out[b] = concat(cls, patches[b]) + pos             (without `cls` where the model has no class token)
//!
//! dpatches[b, p] = dout[b, p + has_cls],   dpos += Σ_b dout[b],   dcls += Σ_b dout[b, 0]
//! ```
//!
//! The grid is `height / P` by `width / P`; like a convolution of stride P, what is left over at the bottom and on
//! the right is not read. The images need no gradient.

use super::{Float, check_len};

const CHANNELS: usize = 3;

/// Assigns `cols [batch · grid_h · grid_w, 3 · patch · patch]`; `images [batch, 3, height, width]`.
pub fn unfold<T: Float>(cols: &mut [T], images: &[T], batch: usize, height: usize, width: usize, patch: usize) {
    let op = "patch_embed::unfold";
    let (grid_h, grid_w) = (height / patch, width / patch);
    check_len(op, "cols", cols.len(), batch * grid_h * grid_w * CHANNELS * patch * patch);
    check_len(op, "images", images.len(), batch * CHANNELS * height * width);
    for b in 0..batch {
        for p in 0..grid_h * grid_w {
            let (top, left) = (p / grid_w * patch, p % grid_w * patch);
            for c in 0..CHANNELS {
                for y in 0..patch {
                    for x in 0..patch {
                        let to = (((b * grid_h * grid_w + p) * CHANNELS + c) * patch + y) * patch + x;
                        cols[to] = images[((b * CHANNELS + c) * height + top + y) * width + left + x];
                    }
                }
            }
        }
    }
}

/// Assigns `out [batch, tokens, dim]`, where `tokens = num_patches + has_cls`; `patches [batch · num_patches, dim]`,
/// `pos [tokens, dim]` (row 0 belongs to the class token where there is one), `cls [dim]`.
pub fn assemble<T: Float>(
    out: &mut [T],
    patches: &[T],
    pos: &[T],
    cls: Option<&[T]>,
    batch: usize,
    num_patches: usize,
    dim: usize,
) {
    let op = "patch_embed::assemble";
    let has_cls = usize::from(cls.is_some());
    let tokens = num_patches + has_cls;
    check_len(op, "out", out.len(), batch * tokens * dim);
    check_len(op, "patches", patches.len(), batch * num_patches * dim);
    check_len(op, "pos", pos.len(), tokens * dim);
    check_len(op, "cls", cls.map_or(dim, <[T]>::len), dim);
    for b in 0..batch {
        for t in 0..tokens {
            for d in 0..dim {
                let token = match cls {
                    Some(cls) if t == 0 => cls[d],
                    _ => patches[(b * num_patches + t - has_cls) * dim + d],
                };
                out[(b * tokens + t) * dim + d] = token + pos[t * dim + d];
            }
        }
    }
}

/// Assigns `dpatches [batch · num_patches, dim]`; adds to `dpos [tokens, dim]` and `dcls [dim]`;
/// `dout [batch, tokens, dim]`. `dcls` is given exactly where the model has a class token.
pub fn assemble_backward<T: Float>(
    dpatches: &mut [T],
    dpos: &mut [T],
    mut dcls: Option<&mut [T]>,
    dout: &[T],
    batch: usize,
    num_patches: usize,
    dim: usize,
) {
    let op = "patch_embed::assemble_backward";
    let has_cls = usize::from(dcls.is_some());
    let tokens = num_patches + has_cls;
    check_len(op, "dpatches", dpatches.len(), batch * num_patches * dim);
    check_len(op, "dpos", dpos.len(), tokens * dim);
    check_len(op, "dcls", dcls.as_ref().map_or(dim, |dcls| dcls.len()), dim);
    check_len(op, "dout", dout.len(), batch * tokens * dim);
    for b in 0..batch {
        for t in 0..tokens {
            for d in 0..dim {
                let g = dout[(b * tokens + t) * dim + d];
                dpos[t * dim + d] += g;
                match &mut dcls {
                    Some(dcls) if t == 0 => dcls[d] += g,
                    _ => dpatches[(b * num_patches + t - has_cls) * dim + d] = g,
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
        unfold(&mut cols, &images, 1, 5, 4, 2);
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
