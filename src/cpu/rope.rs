//! Biases of query and value, and rotary positions (Su et al. 2021, eq. 34), on query, key and value side by side.
//!
//! ```text
//! x = inp + bias          in q's and v's part; k has none
//! out_a = cos θ · x_a − sin θ · x_b,   out_b = cos θ · x_b + sin θ · x_a       for each pair (a, b) of q's and k's heads, in
//!                                                                              the tokens from `prefix` on
//! dinp: the same with −θ, of dout         dbias: the sum of dinp over the rows
//!
//! learned:  θ[h, t, n] = u_t · freqs[0, block, h, n] + v_t · freqs[1, block, h, n],   (u, v) the token's place in the grid
//! dθ = Σ_{b, q and k} dout_b · out_a − dout_a · out_b
//! ```
//!
//! Pairs are (2n, 2n + 1), or (n, n + head_dim/2) with `halves`. A table has cos θ for each element of a head, then sin θ with a minus
//! for the first of each pair.

use super::{Float, check_len};

/// Shape of the tensor that is turned: query, key and value `[batch, tokens, 3·heads·head_dim]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Images.
    pub batch: usize,
    /// Sequence length.
    pub tokens: usize,
    /// Tokens at the start that are not turned.
    pub prefix: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head; even if anything is turned.
    pub head_dim: usize,
    /// Whether the pairs that turn together are elements n and n + head_dim/2, and not 2n and 2n + 1.
    pub halves: bool,
}

/// Angles learned by one of several blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// Which block's.
    pub block: usize,
    /// Blocks in the frequencies.
    pub blocks: usize,
    /// Tokens along a side of the grid.
    pub grid: usize,
    /// Whether the first frequency belongs to the column, the second to the row.
    pub transposed: bool,
}

impl Dims {
    /// Width of all heads.
    pub fn dim(self) -> usize {
        self.heads * self.head_dim
    }

    /// Rows.
    pub fn rows(self) -> usize {
        self.batch * self.tokens
    }

    /// Elements of query, key and value.
    pub fn len(self) -> usize {
        3 * self.rows() * self.dim()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Elements of a table of angles, one for all heads.
    pub fn table_len(self) -> usize {
        2 * (self.tokens - self.prefix) * self.head_dim
    }

    /// Elements of the angles' gradient.
    pub fn angles_len(self) -> usize {
        (self.tokens - self.prefix) * self.dim() / 2
    }

    /// The other element of the pair of element `i` of a head, and the sign of its sine.
    fn pair<T: Float>(self, i: usize) -> (usize, T) {
        let half = self.head_dim / 2;
        let second = if self.halves { i >= half } else { i % 2 == 1 };
        let other = match (self.halves, second) {
            (true, true) => i - half,
            (true, false) => i + half,
            (false, true) => i - 1,
            (false, false) => i + 1,
        };
        (other, if second { T::ONE } else { -T::ONE })
    }
}

impl Learned {
    /// The place of token `t` of the grid, in the order of the frequencies.
    fn place<T: Float>(self, t: usize) -> [T; 2] {
        let [row, column] = [t / self.grid, t % self.grid].map(|at| T::from_f64(at as f64));
        if self.transposed { [column, row] } else { [row, column] }
    }

    /// Where the frequencies of a pair of a head begin, for each axis.
    fn freqs(self, head: usize, n: usize, dims: Dims) -> [usize; 2] {
        let pairs = dims.head_dim / 2;
        let at = (self.block * dims.heads + head) * pairs + n;
        [at, at + self.blocks * dims.heads * pairs]
    }
}

/// A table for all heads, or one for each, of the angles `angle(head, token, pair)`; `heads` is 1 or the number of heads.
pub fn table<T: Float>(heads: usize, dims: Dims, angle: impl Fn(usize, usize, usize) -> T) -> Vec<T> {
    let (places, width) = (dims.tokens - dims.prefix, dims.head_dim);
    let mut table = vec![T::ZERO; heads * dims.table_len()];
    for head in 0..heads {
        for t in 0..places {
            let row = (head * places + t) * 2 * width;
            for i in 0..width {
                let n = if dims.halves { i % (width / 2) } else { i / 2 };
                let (_, sign) = dims.pair::<T>(i);
                let angle = angle(head, t, n);
                table[row + i] = angle.cos();
                table[row + width + i] = sign * angle.sin();
            }
        }
    }
    table
}

/// Assigns `out [batch, tokens, 3D]`, D = heads · head_dim; `inp` as long, `biases` of query and value `[D]`, `table` of all heads
/// `[tokens − prefix, 2, head_dim]` or one for each head.
pub fn forward<T: Float>(out: &mut [T], inp: &[T], table: Option<&[T]>, biases: Option<[&[T]; 2]>, dims: Dims) {
    let (dim, row) = (dims.dim(), 3 * dims.dim());
    check_len("rope::forward", "inp", inp.len(), dims.len());
    let mut x = inp.to_vec();
    if let Some([query, value]) = biases {
        for (i, x) in x.iter_mut().enumerate() {
            match i % row {
                c if c < dim => *x += query[c],
                c if c >= 2 * dim => *x += value[c - 2 * dim],
                _ => {}
            }
        }
    }
    turn(out, &x, table, T::ONE, dims);
}

/// Assigns `dinp [batch, tokens, 3D]` from `dout`, as long.
pub fn backward_input<T: Float>(dinp: &mut [T], dout: &[T], table: Option<&[T]>, dims: Dims) {
    turn(dinp, dout, table, -T::ONE, dims);
}

fn turn<T: Float>(out: &mut [T], x: &[T], table: Option<&[T]>, sign: T, dims: Dims) {
    check_len("rope", "out", out.len(), dims.len());
    check_len("rope", "inp", x.len(), dims.len());
    out.copy_from_slice(x);
    let Some(table) = table else { return };
    let (width, places) = (dims.head_dim, dims.tokens - dims.prefix);
    for (at, out) in out.iter_mut().enumerate() {
        let (column, token) = (at % (3 * dims.dim()), at / (3 * dims.dim()) % dims.tokens);
        if column >= 2 * dims.dim() || token < dims.prefix {
            continue;
        }
        let (i, head) = (column % width, column / width % dims.heads);
        let head = if table.len() == dims.table_len() { 0 } else { head };
        let row = (head * places + token - dims.prefix) * 2 * width;
        let (other, _) = dims.pair::<T>(i);
        *out = x[at] * table[row + i] + sign * x[at - i + other] * table[row + width + i];
    }
}

/// `dquery` and `dvalue [D]` are added to, from what [`backward_input`] wrote.
pub fn backward_bias<T: Float>(dquery: &mut [T], dvalue: &mut [T], dinp: &[T], dims: Dims) {
    let dim = dims.dim();
    for (at, d) in dinp.iter().enumerate() {
        match at % (3 * dim) {
            c if c < dim => dquery[c] += *d,
            c if c >= 2 * dim => dvalue[c - 2 * dim] += *d,
            _ => {}
        }
    }
}

/// The table for each head of the angles that `freqs [2, blocks, heads, head_dim/2]` give the block.
pub fn angles<T: Float>(freqs: &[T], learned: Learned, dims: Dims) -> Vec<T> {
    check_len("rope::angles", "freqs", freqs.len(), learned.blocks * dims.dim());
    table(dims.heads, dims, |head, t, n| {
        let ([u, v], [fu, fv]) = (learned.place::<T>(t), learned.freqs(head, n, dims));
        u * freqs[fu] + v * freqs[fv]
    })
}

/// Assigns `dangles [tokens − prefix, heads · head_dim/2]`, the gradient of each token's angles; `dout` and forward's `out
/// [batch, tokens, 3D]`, with pairs side by side.
pub fn backward_angles<T: Float>(dangles: &mut [T], dout: &[T], out: &[T], dims: Dims) {
    check_len("rope::backward_angles", "dangles", dangles.len(), dims.angles_len());
    check_len("rope::backward_angles", "dout", dout.len(), dims.len());
    check_len("rope::backward_angles", "out", out.len(), dims.len());
    dangles.fill(T::ZERO);
    for row in 0..dims.rows() {
        let Some(t) = (row % dims.tokens).checked_sub(dims.prefix) else { continue };
        for column in (0..2 * dims.dim()).step_by(2) {
            let at = row * 3 * dims.dim() + column;
            let pair = column % dims.dim() / 2;
            dangles[t * dims.dim() / 2 + pair] += dout[at + 1] * out[at] - dout[at] * out[at + 1];
        }
    }
}

/// Adds to `dfreqs [2, blocks, heads, head_dim/2]` from what [`backward_angles`] wrote.
pub fn backward_freqs<T: Float>(dfreqs: &mut [T], dangles: &[T], learned: Learned, dims: Dims) {
    check_len("rope::backward_freqs", "dfreqs", dfreqs.len(), learned.blocks * dims.dim());
    check_len("rope::backward_freqs", "dangles", dangles.len(), dims.angles_len());
    let pairs = dims.head_dim / 2;
    for (i, dangle) in dangles.iter().enumerate() {
        let (place, at) = (learned.place::<T>(i / (dims.dim() / 2)), i % (dims.dim() / 2));
        for (axis, f) in learned.freqs(at / pairs, at % pairs, dims).into_iter().enumerate() {
            dfreqs[f] += place[axis] * *dangle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // from timm.layers import RotaryEmbeddingCat, apply_rot_embed_cat      # timm 1.0.31
    // x = (torch.arange(32, dtype=torch.float64) * 7 % 11 / 5 - 1).reshape(1, 1, 4, 8)
    // rope = RotaryEmbeddingCat(8, feat_shape=[2, 2], in_pixels=False, temperature=10.)
    // print(apply_rot_embed_cat(x, rope.get_embed().double()).flatten()[8:16]), and with rotate_half=True and half=True
    #[test]
    fn agrees_with_timm() {
        let wants = [
            [-0.8, 0.6, -0.2, -1.0, 0.5527093172073364, 0.12046744823455804, 0.8882185935974121, 0.5010666608810425],
            [-0.8, 0.6, -0.9495314240455627, -1.0126120328903199, 0.4, -0.4, 0.37200814485549927, -0.12090053558349614],
        ];
        for (halves, want) in [false, true].into_iter().zip(wants) {
            let dims = Dims { batch: 1, tokens: 4, prefix: 0, heads: 1, head_dim: 8, halves };
            let mut inp = vec![0.0; dims.len()];
            (0..32).for_each(|i| inp[i / 8 * 24 + i % 8] = (i * 7 % 11) as f64 / 5.0 - 1.0);
            let band = |n: usize| 10f64.powf(-(n as f64) / 2.0);
            let angles =
                |_, t: usize, n: usize| if n < 2 { (t / 2) as f64 * band(n) } else { (t % 2) as f64 * band(n - 2) };
            let mut out = vec![f64::NAN; dims.len()];
            forward(&mut out, &inp, Some(&table(1, dims, angles)), None, dims);
            // timm's table is f32.
            for (got, want) in out[24..32].iter().zip(want) {
                assert!((got - want).abs() <= 1e-7, "{got} should be {want}");
            }
        }
    }
}
