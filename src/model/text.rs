//! The text towers of CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023): a transformer over tokens, of which one becomes
//! the text's features.

use serde::{Deserialize, Serialize};

use crate::gpu::buffer::Element;
use crate::model::config::Projection;
use crate::model::layers::{LinearParams, TokenMask};
use crate::model::tape::{Act, Network, ParamRef, Tape};
use crate::shapes::Activation;

/// The residual stream and features are f32 whatever branches off the stream.
const WIDE: Element = Element::Word;

/// Which token becomes the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextPool {
    /// The one where the text ends, at [`TextConfig::ENDS`].
    End,
    /// The first.
    First,
    /// The last, padding or not.
    Last,
}

/// What a text tower is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextConfig {
    /// Rows of the table of tokens.
    pub vocabulary: usize,
    /// Tokens of a text, padding included.
    pub context: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; `dim` is a multiple of it.
    pub heads: usize,
    /// Width of the MLP's hidden layer.
    pub mlp_dim: usize,
    /// The MLP's activation.
    pub activation: Activation,
    /// Layer norm's epsilon.
    pub eps: f32,
    /// Whether tokens see those before them alone.
    pub causal: bool,
    /// Which token becomes the features.
    pub pool: TextPool,
    /// Whether query, key and value have tensors of their own.
    pub split_qkv: bool,
    /// Whether blocks scale their branches (`ls1.gamma`, `ls2.gamma`).
    pub layer_scale: bool,
    /// From the token's vector to the features, if there is a map.
    pub projection: Option<Projection>,
}

impl TextConfig {
    /// The value that holds the ids of the tokens, `[batch, context]` u32 below [`TextConfig::vocabulary`].
    pub const TOKENS: &str = "tokens";
    /// The value that holds where each text ends, `[batch]` u32 below [`TextConfig::context`], if [`TextPool::End`] asks for it.
    pub const ENDS: &str = "ends";

    /// Length of the features.
    pub fn features(&self) -> usize {
        self.projection.map_or(self.dim, |p| p.features)
    }

    fn block(&self, t: &mut Tape, x: Act) -> Act {
        let d = self.dim;
        let h = t.layer_norm(x, "norm1", self.eps, t.element());
        let qkv = self.qkv(t);
        let qkv = t.linear(h, "attn.qkv", qkv, t.element());
        let h = match self.causal {
            true => t.masked_attention(qkv, "attn", self.heads, TokenMask { causal: true, lengths: None }),
            false => t.attention(qkv, "attn", self.heads),
        };
        let proj = t.linear_params("attn.proj", d, d, true);
        let gamma = self.layer_scale(t, "ls1");
        let x = t.linear_onto(x, h, "attn.proj", proj, gamma);
        let h = t.layer_norm(x, "norm2", self.eps, t.element());
        let fc1 = t.linear_params("mlp.fc1", self.mlp_dim, d, true);
        let h = t.linear_gelu(h, "mlp.fc1", fc1, self.activation);
        let fc2 = t.linear_params("mlp.fc2", d, self.mlp_dim, true);
        let gamma = self.layer_scale(t, "ls2");
        t.linear_onto(x, h, "mlp.fc2", fc2, gamma)
    }

    fn layer_scale(&self, t: &mut Tape, name: &str) -> Option<ParamRef> {
        self.layer_scale.then(|| t.param(&format!("{name}.gamma"), &[self.dim]))
    }

    /// Query, key and value as one product, whether they are one tensor or three neighbours.
    fn qkv(&self, t: &mut Tape) -> LinearParams {
        let d = self.dim;
        if !self.split_qkv {
            return t.linear_params("attn.qkv", 3 * d, d, true);
        }
        let [weights, biases] = [("weight", &[d, d][..]), ("bias", &[d][..])]
            .map(|(what, shape)| ["q", "k", "v"].map(|part| t.param(&format!("attn.{part}.{what}"), shape)));
        LinearParams { weight: ParamRef::joined(&weights), bias: Some(ParamRef::joined(&biases)) }
    }
}

impl Network for TextConfig {
    fn forward(&self, t: &mut Tape) -> Act {
        let d = self.dim;
        let ids = t.numbers(Self::TOKENS, self.context);
        let weight = t.param("token_embedding.weight", &[self.vocabulary, d]);
        let positions = t.param("positional_embedding", &[self.context, d]);
        let mut x = t.embedding(ids, "embedded", weight, positions);
        for i in 0..self.depth {
            x = t.segment(|t| t.within(&format!("blocks.{i}"), |t| self.block(t, x)));
        }
        let x = t.layer_norm(x, "norm", self.eps, WIDE);
        let x = match self.pool {
            TextPool::End => {
                let ends = t.numbers(Self::ENDS, 1);
                t.pick(x, "pooled", ends)
            }
            TextPool::First => t.pool(x, "pooled", 0, 1, WIDE),
            TextPool::Last => t.pool(x, "pooled", self.context - 1, 1, WIDE),
        };
        match self.projection {
            None => x,
            Some(Projection { features, transposed: true, .. }) => {
                let weight = t.param("proj", &[d, features]);
                t.projection(x, "proj", weight)
            }
            Some(Projection { features, bias, .. }) => {
                let proj = t.linear_params("proj", features, d, bias);
                t.linear(x, "proj", proj, WIDE)
            }
        }
    }
}
