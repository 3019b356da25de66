//! What a vision transformer is made of, as read from a checkpoint: pure data, no GPU.

use serde::{Deserialize, Serialize};

use crate::cpu::patch_embed::Prefix;

/// The activation inside an MLP. Loading one as another gives slightly wrong numbers without a word, so it is
/// always stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x·Φ(x)` with the error function (Hendrycks & Gimpel 2016): PyTorch's `nn.GELU()`.
    Gelu,
    /// The tanh approximation: PyTorch's `nn.GELU(approximate="tanh")`.
    GeluTanh,
    /// `x·σ(1.702x)`: OpenAI CLIP's QuickGELU.
    QuickGelu,
    /// `a·σ(a)·b` of the two halves that the MLP's first layer gives (Shazeer 2020), the first gating the second: that of
    /// DINOv2's giant. The first layer has twice as many outputs as the second has inputs.
    #[serde(rename = "swiglu")]
    SwiGlu,
}

/// How the sequence becomes one feature vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The class token.
    Cls,
    /// The mean over the patch tokens (the class token, where there is one, is left out, as in timm's `avg`).
    Mean,
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
        self.parts.projection.map_or(self.dim, |p| p.features)
    }

    /// Every parameter by timm's name with its shape, in timm's order; those that timm does not have are called after it.
    /// The head comes last and only where `classes > 0`.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let d = self.dim;
        let parts = &self.parts;
        let mut list: Vec<(String, Vec<usize>)> = Vec::new();
        let mut add = |name: &str, shape: &[usize]| list.push((name.to_string(), shape.to_vec()));
        if self.class_token {
            let full = [1, 1, d];
            add("cls_token", if parts.flat { &full[2..] } else { &full });
        }
        if parts.distilled {
            add("dist_token", &[1, 1, d]);
        }
        if parts.registers > 0 {
            add("reg_token", &[1, parts.registers, d]);
        }
        let full = [1, self.grid() * self.grid() + self.prefix().positions(), d];
        add("pos_embed", if parts.flat { &full[1..] } else { &full });
        add("patch_embed.proj.weight", &[d, 3, self.patch_size, self.patch_size]);
        if self.patch_bias {
            add("patch_embed.proj.bias", &[d]);
        }
        if parts.norm_pre {
            add("norm_pre.weight", &[d]);
            add("norm_pre.bias", &[d]);
        }
        for i in 0..self.depth {
            let mut block = |name: &str, shape: &[usize]| add(&format!("blocks.{i}.{name}"), shape);
            block("norm1.weight", &[d]);
            block("norm1.bias", &[d]);
            if parts.split_qkv {
                ["q", "k", "v"].iter().for_each(|part| block(&format!("attn.{part}.weight"), &[d, d]));
                let parts: &[&str] = if self.qkv_bias { &["q", "k", "v"] } else { &[] };
                parts.iter().for_each(|part| block(&format!("attn.{part}.bias"), &[d]));
            } else {
                block("attn.qkv.weight", &[3 * d, d]);
                if self.qkv_bias {
                    block("attn.qkv.bias", &[3 * d]);
                }
            }
            block("attn.proj.weight", &[d, d]);
            block("attn.proj.bias", &[d]);
            if self.layer_scale {
                block("ls1.gamma", &[d]);
            }
            block("norm2.weight", &[d]);
            block("norm2.bias", &[d]);
            block("mlp.fc1.weight", &[self.hidden_dim(), d]);
            block("mlp.fc1.bias", &[self.hidden_dim()]);
            block("mlp.fc2.weight", &[d, self.mlp_dim]);
            block("mlp.fc2.bias", &[d]);
            if self.layer_scale {
                block("ls2.gamma", &[d]);
            }
        }
        let norm = if self.fc_norm { "fc_norm" } else { "norm" };
        add(&format!("{norm}.weight"), &[d]);
        add(&format!("{norm}.bias"), &[d]);
        if let Some(pool) = parts.attention_pool {
            attention_pool_parameters(pool, d, &mut add);
        }
        if let Some(projection) = parts.projection {
            let e = projection.features;
            if projection.transposed {
                add("proj", &[d, e])
            } else {
                add("proj.weight", &[e, d])
            }
            if projection.bias {
                add("proj.bias", &[e]);
            }
        }
        if self.classes > 0 {
            for head in if parts.distilled { &["head", "head_dist"][..] } else { &["head"] } {
                add(&format!("{head}.weight"), &[self.classes, self.features()]);
                if self.head_bias {
                    add(&format!("{head}.bias"), &[self.classes]);
                }
            }
        }
        list
    }
}

fn attention_pool_parameters(pool: AttentionPool, d: usize, add: &mut impl FnMut(&str, &[usize])) {
    add("attn_pool.latent", &[1, 1, d]);
    if pool.fused {
        add("attn_pool.in_proj_weight", &[3 * d, d]);
        add("attn_pool.in_proj_bias", &[3 * d]);
    } else {
        for (part, rows) in [("q", d), ("kv", 2 * d)] {
            add(&format!("attn_pool.{part}.weight"), &[rows, d]);
            add(&format!("attn_pool.{part}.bias"), &[rows]);
        }
    }
    add("attn_pool.proj.weight", &[d, d]);
    add("attn_pool.proj.bias", &[d]);
    add("attn_pool.norm.weight", &[d]);
    add("attn_pool.norm.bias", &[d]);
    add("attn_pool.mlp.fc1.weight", &[pool.mlp_dim, d]);
    add("attn_pool.mlp.fc1.bias", &[pool.mlp_dim]);
    add("attn_pool.mlp.fc2.weight", &[d, pool.mlp_dim]);
    add("attn_pool.mlp.fc2.bias", &[d]);
}
