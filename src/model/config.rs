//! What a vision transformer is made of, as read from a checkpoint: pure data, no GPU.

use serde::{Deserialize, Serialize};

use crate::model::resnetv2_config::ResNetV2Config;
use crate::model::rope::Rope;
use crate::model::vit_stem::Stem;
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
    /// There is no position embedding: not even the patches have one.
    Absent,
}

/// How a block is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// `x + attn(norm1(x))`, then `x + mlp(norm2(x))`.
    #[default]
    PreNorm,
    /// `x + norm1(attn(x))`, then `x + norm2(mlp(x))`.
    PostNorm,
    /// `x + attn(in_norm(x)) + mlp(in_norm(x))`, from one product for both (Dehghani et al. 2023).
    Parallel,
}

/// Where a norm stands behind the blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastNorm {
    /// Before the pooling or, with [`VitConfig::fc_norm`], after it.
    #[default]
    One,
    /// Before and after it.
    Both,
    /// Nowhere.
    Absent,
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
    /// Its heads, if there are not as many as the blocks'.
    #[serde(default)]
    pub heads: Option<usize>,
}

/// CoCa's attention pool (Yu et al. 2022), of which the first query alone is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pooler {
    /// Rows of `attn_pool.query`.
    pub queries: usize,
    /// Its columns, and the width of what leaves the pool.
    pub width: usize,
    /// Its heads.
    pub heads: usize,
}

/// What only some families of vision transformers have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VitParts {
    /// Tokens of `reg_token`, after the class token.
    pub registers: usize,
    /// DeiT's `dist_token` after the class token, and `head_dist`: the logits are the mean of both heads, which is what timm
    /// computes in training, too, unless told otherwise. Without heads the features are the mean of both tokens.
    pub distilled: bool,
    /// Which tokens have positions.
    pub positions: Positions,
    /// Whether a norm stands before the blocks (`norm_pre`).
    pub norm_pre: bool,
    /// Whether query, key and value have tensors of their own (`attn.q`, `attn.k`, `attn.v`). They lie beside each other, so
    /// that one product serves all three.
    pub split_qkv: bool,
    /// Whether class token and positions are stored as `[dim]` and `[tokens, dim]`.
    pub flat: bool,
    /// Behind the pooling.
    pub projection: Option<Projection>,
    /// With [`Pool::Attention`].
    pub attention_pool: Option<AttentionPool>,
    /// In place of the pooling by tokens.
    pub pooler: Option<Pooler>,
    /// Whether what enters the head is scaled to unit length.
    pub normalize: bool,
    /// Whether the patch embedding reads one channel and not three.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub grey: bool,
    /// The network of convolutions whose pixels are embedded in place of the images' (hybrids, Dosovitskiy et al. 2021). A patch then
    /// has the pixels of the image that its strides make of one, or of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Box<ResNetV2Config>>,
    /// How blocks are built.
    pub block: Block,
    /// Whether norms divide by the root of the mean square and have no bias.
    pub rms_norm: bool,
    /// Convolutions in place of a patch's projection.
    pub stem: Option<Stem>,
    /// Whether a norm stands behind the patches' projection, before their positions (`patch_embed.norm`).
    pub patch_norm: bool,
    /// Whether a norm stands before `attn.proj` (`attn.norm`).
    pub attn_norm: bool,
    /// Whether a norm stands before `mlp.fc2` (`mlp.norm`).
    pub mlp_norm: bool,
    /// Where norms stand behind the blocks.
    pub last_norm: LastNorm,
    /// Whether the query's and the value's bias are tensors of their own (`attn.q.bias`, `attn.v.bias`), and the key has none.
    pub keyless_bias: bool,
    /// Whether `attn.proj` and the MLP have no biases.
    pub unbiased: bool,
    /// Whether a norm of the MLP's own stands before its first layer (`mlp.first_norm`).
    pub gate_norm: bool,
    /// Whether a gated MLP has two tensors for its first layer (`mlp.fc1_g`, `mlp.fc1_x`).
    pub split_gate: bool,
    /// Rotary positions.
    pub rope: Option<Rope>,
    /// Whether blocks learn a bias of the scores for each offset (`attn.relative_position_bias_table`).
    pub relative: bool,
    /// Whether mean pooling takes in what comes before the patches.
    pub pool_prefix: bool,
}

/// A vision transformer (Dosovitskiy et al. 2021), in timm's terms.
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
            class_position: !matches!(self.parts.positions, Positions::Patches | Positions::Absent),
            register_positions: self.parts.positions == Positions::All,
        }
    }

    /// Length of the sequence: patches, and what comes before them.
    pub fn tokens(&self) -> usize {
        self.grid() * self.grid() + self.prefix().tokens()
    }

    /// Rows of a block's table of relative positions: one for each offset on the grid, and three for the class token.
    pub fn offsets(&self) -> usize {
        (2 * self.grid() - 1).pow(2) + 3
    }

    /// Length of the feature vector that enters the head.
    pub fn features(&self) -> usize {
        self.parts.projection.map_or(self.pooled(), |p| p.features)
    }

    /// Length of what leaves the pooling.
    pub fn pooled(&self) -> usize {
        match self.parts.pooler {
            Some(pooler) => pooler.width,
            None if self.pool == Pool::ClsMean => 2 * self.dim,
            None => self.dim,
        }
    }
}
