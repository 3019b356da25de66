//! A pre-norm vision transformer (Dosovitskiy et al. 2021), as timm builds it.

use crate::gpu::buffer::Element;
use crate::model::config::{AttentionPool, Pool, VitConfig};
use crate::model::layers::{EmbedParams, LinearParams};
use crate::model::tape::{Act, Network, ParamRef, Tape};
use crate::shapes::Activation;

/// The residual stream, pooled features and logits are f32 whatever branches off the stream.
const WIDE: Element = Element::Word;

impl Network for VitConfig {
    fn forward(&self, t: &mut Tape) -> Act {
        let mut x = self.embed(t);
        for i in 0..self.depth {
            x = t.segment(|t| t.within(&format!("blocks.{i}"), |t| self.block(t, x)));
        }
        self.tail(t, x)
    }
}

impl VitConfig {
    /// Images to tokens.
    fn embed(&self, t: &mut Tape) -> Act {
        let (d, parts, prefix) = (self.dim, &self.parts, self.prefix());
        let images = t.images(self.image_size);
        // Class token and positions may be stored without the dimensions of 1 in front.
        let stored = |shape: &[usize], least: usize| shape[if parts.flat { shape.len() - least } else { 0 }..].to_vec();
        let class_token = self.class_token.then(|| t.param("cls_token", &stored(&[1, 1, d], 1)));
        let distilled = parts.distilled.then(|| t.param("dist_token", &[1, 1, d]));
        let registers = (parts.registers > 0).then(|| t.param("reg_token", &[1, parts.registers, d]));
        let registers = distilled.or(registers);
        let rows = self.grid() * self.grid() + prefix.positions();
        let positions = t.param("pos_embed", &stored(&[1, rows, d], 2));
        let weight = t.param("patch_embed.proj.weight", &[d, 3, self.patch_size, self.patch_size]);
        let bias = self.patch_bias.then(|| t.param("patch_embed.proj.bias", &[d]));
        let (projection, patch) = (LinearParams { weight, bias }, self.patch_size);
        let embedding = EmbedParams { class_token, registers, positions, projection, prefix, patch, dim: d };
        let x = t.patch_embed(images, "tokens", embedding);
        if parts.norm_pre { t.layer_norm(x, "norm_pre", self.eps, WIDE) } else { x }
    }

    /// `x = x + ls1·proj(attention(qkv(norm1(x))))`, then `x + ls2·mlp(norm2(x))`.
    fn block(&self, t: &mut Tape, x: Act) -> Act {
        let (d, narrow) = (self.dim, t.element());
        let h = t.layer_norm(x, "norm1", self.eps, narrow);
        let qkv = self.qkv(t);
        let h = t.linear(h, "attn.qkv", qkv, narrow);
        let h = t.attention(h, "attn", self.heads);
        let proj = t.linear_params("attn.proj", d, d, true);
        let gamma = self.layer_scale(t, "ls1");
        let x = t.linear_onto(x, h, "attn.proj", proj, gamma);
        let h = t.layer_norm(x, "norm2", self.eps, narrow);
        self.mlp(t, x, h, self.mlp_dim, Some("ls2"))
    }

    /// `stream + scale·fc2(act(fc1(h)))`
    fn mlp(&self, t: &mut Tape, stream: Act, h: Act, width: usize, scale: Option<&str>) -> Act {
        let (d, gated) = (self.dim, self.activation == Activation::SwiGlu);
        let fc1 = t.linear_params("mlp.fc1", if gated { 2 * width } else { width }, d, true);
        let h = if gated {
            let hidden = t.linear(h, "mlp.fc1", fc1, t.element_of(h));
            t.swiglu(hidden, "mlp.act")
        } else {
            t.linear_gelu(h, "mlp.fc1", fc1, self.activation)
        };
        let fc2 = t.linear_params("mlp.fc2", d, width, true);
        let gamma = scale.and_then(|name| self.layer_scale(t, name));
        t.linear_onto(stream, h, "mlp.fc2", fc2, gamma)
    }

    fn layer_scale(&self, t: &mut Tape, name: &str) -> Option<ParamRef> {
        self.layer_scale.then(|| t.param(&format!("{name}.gamma"), &[self.dim]))
    }

    /// Query, key and value as one product, whether they are one tensor or three neighbours.
    fn qkv(&self, t: &mut Tape) -> LinearParams {
        let d = self.dim;
        if !self.parts.split_qkv {
            return t.linear_params("attn.qkv", 3 * d, d, self.qkv_bias);
        }
        let parts = ["q", "k", "v"];
        let weights = parts.map(|part| t.param(&format!("attn.{part}.weight"), &[d, d]));
        let biases = self.qkv_bias.then(|| parts.map(|part| t.param(&format!("attn.{part}.bias"), &[d])));
        LinearParams { weight: ParamRef::joined(&weights), bias: biases.map(|biases| ParamRef::joined(&biases)) }
    }

    /// Tokens to logits, or to features if there is no head.
    fn tail(&self, t: &mut Tape, x: Act) -> Act {
        let prefix = self.prefix().tokens();
        let (class, patches) = ((0, 1), (prefix, self.tokens() - prefix));
        let runs = match self.pool {
            Pool::Cls | Pool::Attention => vec![class],
            Pool::Mean => vec![patches],
            Pool::ClsMean => vec![class, patches],
        };
        let (features, second) = if self.fc_norm {
            let pooled = t.pool_runs(x, "pooled", &runs, WIDE);
            (t.layer_norm(pooled, "fc_norm", self.eps, WIDE), None)
        } else {
            let x = if self.parts.no_norm { x } else { t.layer_norm(x, "norm", self.eps, WIDE) };
            let pooled = match self.parts.attention_pool {
                Some(pool) => t.within("attn_pool", |t| self.attention_pool(t, x, pool)),
                // In reverse it is the first that assigns.
                None => t.aside(|t| t.pool_runs(x, "pooled", &runs, WIDE)),
            };
            let second = self.parts.distilled.then(|| t.pool(x, "pooled distillation token", 1, 1, WIDE));
            t.recall();
            (pooled, second)
        };
        let features = self.project(t, features);
        if self.classes == 0 {
            return features;
        }
        let logits = self.head(t, features, "head");
        match second {
            Some(second) => {
                let other = self.head(t, second, "head_dist");
                t.average(logits, other, "logits of both heads")
            }
            None => logits,
        }
    }

    /// Into the space that images and texts share, if there is one.
    fn project(&self, t: &mut Tape, features: Act) -> Act {
        let (d, Some(p)) = (self.dim, self.parts.projection) else { return features };
        if p.transposed {
            let weight = t.param("proj", &[d, p.features]);
            if p.bias {
                t.param("proj.bias", &[p.features]);
            }
            return t.projection(features, "proj", weight);
        }
        let proj = t.linear_params("proj", p.features, d, p.bias);
        t.linear(features, "proj", proj, WIDE)
    }

    fn head(&self, t: &mut Tape, features: Act, name: &str) -> Act {
        let features = match self.parts.normalize {
            true => t.unit_length(features, &format!("{name}.unit")),
            false => features,
        };
        let head = t.linear_params(name, self.classes, self.features(), self.head_bias);
        t.linear(features, name, head, WIDE)
    }

    /// SigLIP's (Zhai et al. 2023): attention of one learned query over all tokens, and an MLP behind it.
    fn attention_pool(&self, t: &mut Tape, x: Act, pool: AttentionPool) -> Act {
        let d = self.dim;
        let latent = t.param("latent", &[1, 1, d]);
        let [q, k, v] = if pool.fused {
            let weight = t.param("in_proj_weight", &[3 * d, d]);
            let bias = Some(t.param("in_proj_bias", &[3 * d]));
            [0, 1, 2].map(|at| LinearParams { weight, bias }.outputs(at * d, d, d))
        } else {
            let q = t.linear_params("q", d, d, true);
            let kv = t.linear_params("kv", 2 * d, d, true);
            [q, kv.outputs(0, d, d), kv.outputs(d, d, d)]
        };
        // In reverse the keys' share of the tokens' gradient comes before the values'.
        let q = t.aside(|t| {
            let query = t.spread(latent, "query");
            t.linear(query, "q", q, WIDE)
        });
        let k = t.aside(|t| t.linear(x, "k", k, WIDE));
        let v = t.linear(x, "v", v, WIDE);
        t.recall();
        let attended = t.attend([q, k, v], "attended", self.heads);
        let proj = t.linear_params("proj", d, d, true);
        let x = t.linear(attended, "proj", proj, WIDE);
        let h = t.layer_norm(x, "norm", self.eps, WIDE);
        self.mlp(t, x, h, pool.mlp_dim, None)
    }
}
