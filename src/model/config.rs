//! What a vision transformer is made of, as read from a checkpoint: pure data, no GPU.

use serde::{Deserialize, Serialize};

use crate::shapes::{Activation, Prefix};

/// How the sequence becomes one feature vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The class token.
    Cls,
    /// The mean over the patch tokens (the class token, if there is one, is left out, as in timm's `avg`).
    Mean,
    /// The class token and, beside it, the mean over the patch tokens: transformers' classifier on DINOv2.
    ClsMean,
    /// Attention of one learned query over all tokens, and an MLP behind it: SigLIP's.
    Attention,
}

/// Which tokens have a row in the position embedding, besides the patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// All.
    #[default]
    All,
    /// The class token, the registers not.
    Class,
    /// None.
    Patches,
}

/// A linear map from the pooled features into the space that images and texts share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Projection {
    /// Length of what leaves it.
    pub features: usize,
    /// Whether the weight is `proj` `[dim, features]`, as OpenAI has it, and not `proj.weight` `[features, dim]`.
    pub transposed: bool,
    /// Whether `proj.bias` is there.
    pub bias: bool,
}

/// What [`Pool::Attention`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttentionPool {
    /// Width of the hidden layer of the MLP behind it.
    pub mlp_dim: usize,
    /// Whether query, key and value are one tensor (`in_proj_weight`, transformers), or `q` and `kv` (timm).
    pub fused: bool,
}

/// What only some families of vision transformers have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VitParts {
    /// Tokens of `reg_token`, after the class token.
    pub registers: usize,
    /// DeiT's `dist_token` after the class token, and `head_dist`: the logits are the mean of both heads, which is what timm
    /// computes in training, too, unless told otherwise.
    pub distilled: bool,
    /// Which tokens have positions.
    pub positions: Positions,
    /// Whether a norm stands before the blocks (`norm_pre`).
    pub norm_pre: bool,
    /// Whether query, key and value have tensors of their own (`attn.q`, `attn.k`, `attn.v`). They lie beside each other, so
    /// that one product serves all three: `dim` is a multiple of 64.
    pub split_qkv: bool,
    /// Whether no norm stands behind the blocks, as in transformers' classifier on CLIP.
    pub no_norm: bool,
    /// Whether class token and positions are stored as `[dim]` and `[tokens, dim]`.
    pub flat: bool,
    /// Behind the pooling.
    pub projection: Option<Projection>,
    /// With [`Pool::Attention`].
    pub attention_pool: Option<AttentionPool>,
    /// Whether what enters the head is scaled to unit length.
    pub normalize: bool,
}

/// A pre-norm vision transformer (Dosovitskiy et al. 2021), in timm's terms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VitConfig {
    /// Height and width of the input, in pixels.
    pub image_size: usize,
    /// Height and width of a patch, in pixels.
    pub patch_size: usize,
    /// Width of the residual stream (timm `embed_dim`).
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; `dim` is a multiple of it.
    pub heads: usize,
    /// Width of the MLP's hidden layer: inputs of `mlp.fc2`.
    pub mlp_dim: usize,
    /// Outputs of the head; 0 for a model without one.
    pub classes: usize,
    /// Layer norm's epsilon.
    pub eps: f32,
    /// The MLP's activation.
    pub activation: Activation,
    /// Pooling before the head.
    pub pool: Pool,
    /// Whether `cls_token` is there (its position is then the first of `pos_embed`).
    pub class_token: bool,
    /// Whether blocks scale their branches (`ls1.gamma`, `ls2.gamma`).
    pub layer_scale: bool,
    /// Whether the norm stands after pooling (`fc_norm`, as MAE fine-tuning has it) instead of before it (`norm`).
    pub fc_norm: bool,
    /// Whether `attn.qkv` has a bias.
    pub qkv_bias: bool,
    /// Whether the patch embedding has a bias.
    pub patch_bias: bool,
    /// Whether the head has a bias.
    pub head_bias: bool,
    /// What only some families have.
    #[serde(default)]
    pub parts: VitParts,
}

impl VitConfig {
    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// What comes before the patches.
    pub fn prefix(&self) -> Prefix {
        Prefix {
            class_token: self.class_token,
            registers: if self.parts.distilled { 1 } else { self.parts.registers },
            class_position: self.parts.positions != Positions::Patches,
            register_positions: self.parts.positions == Positions::All,
        }
    }

    /// Length of the sequence: patches, and what comes before them.
    pub fn tokens(&self) -> usize {
        self.grid() * self.grid() + self.prefix().tokens()
    }

    /// Outputs of `mlp.fc1`: a value and its gate for each of `mlp_dim` where the activation is gated.
    pub fn hidden_dim(&self) -> usize {
        if self.activation == Activation::SwiGlu { 2 * self.mlp_dim } else { self.mlp_dim }
    }

    /// Length of the feature vector that enters the head.
    pub fn features(&self) -> usize {
        let pooled = if self.pool == Pool::ClsMean { 2 * self.dim } else { self.dim };
        self.parts.projection.map_or(pooled, |p| p.features)
    }
}
