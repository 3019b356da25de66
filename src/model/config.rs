//! What a vision transformer is made of, as read from a checkpoint: pure data, no GPU.

use serde::{Deserialize, Serialize};

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
}

/// How the sequence becomes one feature vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The class token.
    Cls,
    /// The mean over the patch tokens (the class token, where there is one, is left out, as in timm's `avg`).
    Mean,
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
    /// Width of the MLP's hidden layer.
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
}

impl VitConfig {
    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Length of the sequence: patches and, where there is one, the class token.
    pub fn tokens(&self) -> usize {
        self.grid() * self.grid() + usize::from(self.class_token)
    }

    /// Every parameter by timm's name with its shape, in timm's order. The head comes last and only where
    /// `classes > 0`.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let d = self.dim;
        let mut list: Vec<(String, Vec<usize>)> = Vec::new();
        let mut add = |name: &str, shape: &[usize]| list.push((name.to_string(), shape.to_vec()));
        if self.class_token {
            add("cls_token", &[1, 1, d]);
        }
        add("pos_embed", &[1, self.tokens(), d]);
        add("patch_embed.proj.weight", &[d, 3, self.patch_size, self.patch_size]);
        if self.patch_bias {
            add("patch_embed.proj.bias", &[d]);
        }
        for i in 0..self.depth {
            let mut block = |name: &str, shape: &[usize]| add(&format!("blocks.{i}.{name}"), shape);
            block("norm1.weight", &[d]);
            block("norm1.bias", &[d]);
            block("attn.qkv.weight", &[3 * d, d]);
            if self.qkv_bias {
                block("attn.qkv.bias", &[3 * d]);
            }
            block("attn.proj.weight", &[d, d]);
            block("attn.proj.bias", &[d]);
            if self.layer_scale {
                block("ls1.gamma", &[d]);
            }
            block("norm2.weight", &[d]);
            block("norm2.bias", &[d]);
            block("mlp.fc1.weight", &[self.mlp_dim, d]);
            block("mlp.fc1.bias", &[self.mlp_dim]);
            block("mlp.fc2.weight", &[d, self.mlp_dim]);
            block("mlp.fc2.bias", &[d]);
            if self.layer_scale {
                block("ls2.gamma", &[d]);
            }
        }
        let norm = if self.fc_norm { "fc_norm" } else { "norm" };
        add(&format!("{norm}.weight"), &[d]);
        add(&format!("{norm}.bias"), &[d]);
        if self.classes > 0 {
            add("head.weight", &[self.classes, d]);
            if self.head_bias {
                add("head.bias", &[self.classes]);
            }
        }
        list
    }
}
