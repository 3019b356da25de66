//! Multi-head self-attention over the tokens of an image.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::Element;
use crate::model::operation::Operation;
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Shape, Tape};
use crate::ops::Recorder;
use crate::ops::attention::{self, Scores};

#[derive(Debug)]
struct Attention {
    qkv: Act,
    out: Act,
    /// The logarithm of the softmax's sum, `[B, H, N]`.
    lse: Act,
    /// A bias for each offset and head, `[offsets, heads]`.
    relative: Option<ParamRef>,
    mask: Option<TokenMask>,
    shape: Shape,
    heads: usize,
}

/// Which tokens of a sequence the others do not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenMask {
    /// Those behind them.
    pub causal: bool,
    /// Those from this many on, `[B]` u32, each at least 1.
    pub lengths: Option<Act>,
}

impl Tape {
    /// What the tokens attend to, `[B, N, D]`, from query, key and value `[B, N, 3D]`; `heads` divides `D`.
    pub fn attention(&mut self, qkv: Act, name: &str, heads: usize) -> Act {
        self.relative_attention(qkv, name, heads, None)
    }

    /// The same with a bias of the scores for each offset of a query and a key, `[offsets, heads]`, among a class token and
    /// a square grid of patches.
    pub fn relative_attention(&mut self, qkv: Act, name: &str, heads: usize, relative: Option<ParamRef>) -> Act {
        self.scored_attention(qkv, name, heads, relative, None)
    }

    /// The same where tokens do not see all others.
    pub fn masked_attention(&mut self, qkv: Act, name: &str, heads: usize, mask: TokenMask) -> Act {
        self.scored_attention(qkv, name, heads, None, Some(mask))
    }

    fn scored_attention(
        &mut self,
        qkv: Act,
        name: &str,
        heads: usize,
        relative: Option<ParamRef>,
        mask: Option<TokenMask>,
    ) -> Act {
        let shape = self.shape(qkv).with_cols(self.shape(qkv).cols / 3);
        let out = self.act(name, shape, self.element_of(qkv));
        let lse = self.saved(&format!("{name}.lse"), shape.rows() * heads);
        let params: Vec<ParamRef> = relative.into_iter().collect();
        let reads: Vec<Act> = [qkv].into_iter().chain(mask.and_then(|mask| mask.lengths)).collect();
        self.push(Attention { qkv, out, lse, relative, mask, shape, heads }, &reads, &params, &[out, lse]);
        out
    }
}

impl Attention {
    fn dims(&self) -> attention::Dims {
        let Shape { batch, height, cols, .. } = self.shape;
        attention::Dims { batch, tokens: height, heads: self.heads, head_dim: cols / self.heads }
    }

    /// The table of biases, and how long the sequences are.
    fn scored_by(&self, s: &Store) -> (Option<View>, Option<View>) {
        (s.maybe(self.relative), self.mask.and_then(|mask| mask.lengths).map(|lengths| s.view(lengths)))
    }

    fn scores<'a>(&self, relative: Option<&'a View>, lengths: Option<&'a View>) -> Scores<'a> {
        match (relative, self.mask) {
            (Some(relative), _) => Scores::Relative(relative),
            (None, Some(TokenMask { causal, .. })) => Scores::Masked { causal, lengths },
            (None, None) => Scores::Plain,
        }
    }
}

impl Layer for Attention {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [out, lse, qkv] = [self.out, self.lse, self.qkv].map(|act| s.view(act));
        let (relative, lengths) = self.scored_by(s);
        attention::forward(r, &out, &lse, &qkv, self.scores(relative.as_ref(), lengths.as_ref()), self.dims())
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let dout = s.gradient(self.out);
        let [out, qkv, lse] = [self.out, self.qkv, self.lse].map(|act| s.view(act));
        let label = format!("gradient of {}", s.label(self.lse));
        let delta = s.tensor(&label, Element::Word, lse.len);
        let ((relative, lengths), dims) = (self.scored_by(s), self.dims());
        let scores = self.scores(relative.as_ref(), lengths.as_ref());
        let trained = self.relative.filter(|relative| s.trains(*relative));
        // The table's gradient takes what the reverse of the queries leaves in delta.
        let dqkv = s.share(self.qkv);
        attention::backward(r, &dqkv, &delta, &dout, &out, &qkv, &lse, scores, dims)?;
        s.settle(r, self.qkv, dqkv)?;
        let (Some(trained), Some(relative)) = (trained, relative) else { return Ok(()) };
        let dscores = s.tensor(&format!("{label}'s scores"), Element::Word, dims.scores());
        attention::backward_relative(r, &s.dparam(trained), &dscores, &dout, &qkv, &lse, &delta, &relative, dims)
    }

    fn macs(&self) -> usize {
        2 * self.shape.height * self.shape.len()
    }

    fn operation(&self) -> Option<Operation> {
        // A masked one is a text's.
        let &Attention { qkv, out, relative, heads, mask, .. } = self;
        mask.is_none().then_some(Operation::Attention { qkv, out, relative, heads })
    }
}
