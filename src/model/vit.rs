//! A vision transformer (Dosovitskiy et al. 2021), as timm builds it in its `vision_transformer`, `eva` and `beit`.

use crate::gpu::buffer::Element;
use crate::model::config::{AttentionPool, Block, LastNorm, Pool, Pooler, Positions, VitConfig};
use crate::model::layers::{EmbedParams, LinearParams, TokenParams, Turns};
use crate::model::rope::Angles;
use crate::model::tape::{Act, Network, ParamRef, Tape};
use crate::ops::conv2d::Padding;
use crate::ops::rope::Learned;
use crate::ops::swiglu::Gate;
use crate::shapes::Activation;

/// Parts of a tensor begin where a binding may.
const ALIGNED: usize = 64;

/// The residual stream, pooled features and logits are f32 whatever branches off the stream.
const WIDE: Element = Element::Word;

impl Network for VitConfig {
    fn forward(&self, t: &mut Tape) -> Act {
        let mut x = self.embed(t);
        let turns = self.turns(t);
        for i in 0..self.depth {
            let turns = turns.map(|turns| match turns {
                Turns::Learned { freqs, of } => Turns::Learned { freqs, of: Learned { block: i, ..of } },
                table => table,
            });
            let name = format!("blocks.{i}");
            x = t.at_depth(i, self.depth - 1, |t| t.segment(|t| t.within(&name, |t| self.block(t, x, turns))));
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
        let positions = (parts.positions != Positions::Absent).then(|| t.param("pos_embed", &stored(&[1, rows, d], 2)));
        let channels = if parts.grey { 1 } else { 3 };
        let tokens = TokenParams { class_token, registers, positions, prefix };
        let x = match (&parts.stem, &parts.backbone) {
            (Some(stem), _) => {
                let patches = stem.forward(t, images, channels, d);
                t.tokens(patches, "tokens", tokens)
            }
            (None, Some(backbone)) => {
                let map = t.within("patch_embed.backbone", |t| t.undropped(|t| backbone.map(t, images)));
                let (patch, features) = (self.patch_size / backbone.stride(), backbone.features());
                let weight = t.param("patch_embed.proj.weight", &[d, features, patch, patch]);
                let bias = self.patch_bias.then(|| t.param("patch_embed.proj.bias", &[d]));
                let x = match patch {
                    1 => map,
                    _ => t.unfold(map, "patches", features, (patch, patch, Padding::Even(0)), t.element()),
                };
                let x = t.linear(x, "patch embedding", LinearParams { weight, bias }, WIDE);
                t.tokens(x, "tokens", tokens)
            }
            (None, None) => {
                let weight = t.param("patch_embed.proj.weight", &[d, channels, self.patch_size, self.patch_size]);
                let bias = self.patch_bias.then(|| t.param("patch_embed.proj.bias", &[d]));
                let (projection, patch) = (LinearParams { weight, bias }, self.patch_size);
                let embedding = EmbedParams { tokens, projection, channels, patch, dim: d };
                match parts.patch_norm {
                    true => t.patch_embed_through(images, "tokens", embedding, |t, x| {
                        self.norm(t, x, "patch_embed.norm", WIDE)
                    }),
                    false => t.patch_embed(images, "tokens", embedding),
                }
            }
        };
        if parts.norm_pre { self.norm(t, x, "norm_pre", WIDE) } else { x }
    }

    /// By which angles queries and keys turn.
    fn turns(&self, t: &mut Tape) -> Option<Turns> {
        let rope = self.parts.rope?;
        let (grid, head_dim) = (self.grid(), self.dim / self.heads);
        Some(match rope.table(grid, head_dim) {
            Some(table) => Turns::Table { values: t.constant("rope", table), halves: rope.halves },
            None => {
                assert_eq!(rope.angles, Angles::Learned);
                let freqs = t.param("rope.freqs", &[2, self.depth, self.heads, head_dim / 2]);
                let of = Learned { block: 0, blocks: self.depth, grid, transposed: rope.transposed };
                Turns::Learned { freqs, of }
            }
        })
    }

    fn block(&self, t: &mut Tape, x: Act, turns: Option<Turns>) -> Act {
        let d = self.dim;
        match self.parts.block {
            Block::PreNorm => {
                let h = self.norm(t, x, "norm1", t.element());
                let h = self.attention(t, h, turns);
                let proj = t.linear_params("attn.proj", d, d, !self.parts.unbiased);
                let gamma = self.layer_scale(t, "ls1");
                let x = t.branch_onto(x, h, "attn.proj", proj, gamma);
                let h = self.norm(t, x, "norm2", t.element());
                self.mlp(t, x, h, self.mlp_dim, Some("ls2"))
            }
            // Products read the stream itself, so they are f32.
            Block::PostNorm => {
                let h = self.attention(t, x, turns);
                let proj = t.linear_params("attn.proj", d, d, !self.parts.unbiased);
                let h = t.linear(h, "attn.proj", proj, WIDE);
                let h = self.norm(t, h, "norm1", WIDE);
                let h = t.drop_path(h, "attn");
                let x = t.add(x, h, "attn.sum", None);
                let h = self.hidden(t, x, self.mlp_dim);
                let fc2 = t.linear_params("mlp.fc2", d, self.mlp_dim, !self.parts.unbiased);
                let h = t.linear(h, "mlp.fc2", fc2, WIDE);
                let h = self.norm(t, h, "norm2", WIDE);
                let h = t.drop_path(h, "mlp");
                t.add(x, h, "mlp.sum", None)
            }
            Block::Parallel => {
                let h = self.norm(t, x, "in_norm", t.element());
                let width = self.mlp_dim;
                let both = t.linear_params("in_proj", width + 3 * d, d, self.qkv_bias);
                let qkv = t.linear(h, "qkv", both.outputs(width, 3 * d, d), t.element());
                let attended = t.attention(qkv, "attn", self.heads);
                let hidden = t.linear_gelu(h, "mlp", both.outputs(0, width, d), self.activation);
                let proj = t.linear_params("attn_out_proj", d, d, true);
                let branch = t.linear(attended, "attn_out_proj", proj, WIDE);
                let proj = t.linear_params("mlp_out_proj", d, width, true);
                let branch = t.linear_onto(branch, hidden, "mlp_out_proj", proj, None);
                let branch = t.drop_path(branch, "branch");
                let gamma = self.layer_scale(t, "ls");
                t.add(x, branch, "sum", gamma)
            }
        }
    }

    fn norm(&self, t: &mut Tape, x: Act, name: &str, element: Element) -> Act {
        match self.parts.rms_norm {
            true => t.rms_norm(x, name, self.eps, element),
            false => t.layer_norm(x, name, self.eps, element),
        }
    }

    /// What the tokens attend to, before `attn.proj`.
    fn attention(&self, t: &mut Tape, h: Act, turns: Option<Turns>) -> Act {
        let (parts, element) = (&self.parts, t.element_of(h));
        let (qkv, biases) = self.qkv(t);
        let mut qkv = t.linear(h, "attn.qkv", qkv, element);
        if turns.is_some() || biases.is_some() {
            qkv = t.rope(qkv, "attn.rope", self.heads, self.prefix().tokens(), turns, biases);
        }
        let table = parts.relative.then(|| t.param("attn.relative_position_bias_table", &[self.offsets(), self.heads]));
        let h = t.relative_attention(qkv, "attn", self.heads, table);
        if parts.attn_norm { self.norm(t, h, "attn.norm", element) } else { h }
    }

    /// The hidden layer of an MLP, up to its last product.
    fn hidden(&self, t: &mut Tape, h: Act, width: usize) -> Act {
        let (d, element, bias) = (self.dim, t.element_of(h), !self.parts.unbiased);
        let h = if self.parts.gate_norm { self.norm(t, h, "mlp.first_norm", element) } else { h };
        let h = if self.activation == Activation::GeGlu {
            let gate = t.linear_params("mlp.fc1_g", width, d, bias);
            let gate = t.linear_gelu(h, "mlp.fc1_g", gate, Activation::Gelu);
            let value = t.linear_params("mlp.fc1_x", width, d, bias);
            let value = t.linear(h, "mlp.fc1_x", value, element);
            t.swiglu_pair(gate, value, "mlp.act", Gate::Plain)
        } else if self.activation == Activation::SwiGlu && self.parts.split_gate {
            let [gate, value] = ["mlp.fc1_g", "mlp.fc1_x"].map(|name| {
                let layer = t.linear_params(name, width, d, bias);
                t.linear(h, name, layer, element)
            });
            t.swiglu_pair(gate, value, "mlp.act", Gate::Silu)
        } else if self.activation == Activation::SwiGlu {
            let fc1 = t.linear_params("mlp.fc1", 2 * width, d, bias);
            let hidden = t.linear(h, "mlp.fc1", fc1, element);
            t.swiglu(hidden, "mlp.act")
        } else {
            let fc1 = t.linear_params("mlp.fc1", width, d, bias);
            t.linear_gelu(h, "mlp.fc1", fc1, self.activation)
        };
        if self.parts.mlp_norm { self.norm(t, h, "mlp.norm", element) } else { h }
    }

    /// `stream + scale·fc2(hidden(h))`
    fn mlp(&self, t: &mut Tape, stream: Act, h: Act, width: usize, scale: Option<&str>) -> Act {
        let h = self.hidden(t, h, width);
        let fc2 = t.linear_params("mlp.fc2", self.dim, width, !self.parts.unbiased);
        let gamma = scale.and_then(|name| self.layer_scale(t, name));
        t.branch_onto(stream, h, "mlp.fc2", fc2, gamma)
    }

    fn layer_scale(&self, t: &mut Tape, name: &str) -> Option<ParamRef> {
        self.layer_scale.then(|| t.param(&format!("{name}.gamma"), &[self.dim]))
    }

    /// Query, key and value as one product, whether they are one tensor or three neighbours; and the biases of query and value
    /// if the key has none.
    fn qkv(&self, t: &mut Tape) -> (LinearParams, Option<[ParamRef; 2]>) {
        let (d, keyless) = (self.dim, self.parts.keyless_bias);
        let apart = |t: &mut Tape| ["q", "v"].map(|part| t.param(&format!("attn.{part}.bias"), &[d]));
        if !self.parts.split_qkv {
            let qkv = t.linear_params("attn.qkv", 3 * d, d, self.qkv_bias && !keyless);
            return (qkv, keyless.then(|| apart(t)));
        }
        let parts = ["q", "k", "v"];
        let weights = parts.map(|part| t.param(&format!("attn.{part}.weight"), &[d, d]));
        let biases = (self.qkv_bias && !keyless).then(|| parts.map(|part| t.param(&format!("attn.{part}.bias"), &[d])));
        let qkv =
            LinearParams { weight: ParamRef::joined(&weights), bias: biases.map(|biases| ParamRef::joined(&biases)) };
        (qkv, keyless.then(|| apart(t)))
    }

    /// Tokens to logits, or to features if there is no head.
    fn tail(&self, t: &mut Tape, x: Act) -> Act {
        let skipped = if self.parts.pool_prefix { 0 } else { self.prefix().tokens() };
        let (class, patches) = ((0, 1), (skipped, self.tokens() - skipped));
        let runs = match self.pool {
            Pool::Cls | Pool::Attention => vec![class],
            Pool::Mean => vec![patches],
            Pool::ClsMean => vec![class, patches],
        };
        let (before, after) = match self.parts.last_norm {
            LastNorm::One => (!self.fc_norm, self.fc_norm),
            LastNorm::Both => (true, true),
            LastNorm::Absent => (false, false),
        };
        let x = if before { self.norm(t, x, "norm", WIDE) } else { x };
        let features = match self.parts.attention_pool {
            None if self.parts.pooler.is_some() => t.within("attn_pool", |t| self.query_pool(t, x)),
            Some(pool) => t.within("attn_pool", |t| self.attention_pool(t, x, pool)),
            // In reverse it is the first that assigns.
            None if !after => t.aside(|t| t.pool_runs(x, "pooled", &runs, WIDE)),
            None => t.pool_runs(x, "pooled", &runs, WIDE),
        };
        let second = self.parts.distilled.then(|| t.pool(x, "pooled distillation token", 1, 1, WIDE));
        t.recall();
        let features = if after { self.norm(t, features, "fc_norm", WIDE) } else { features };
        let features = self.project(t, features);
        if self.classes == 0 {
            return match second {
                Some(second) => t.average(features, second, "mean of both tokens"),
                None => features,
            };
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
        let (d, Some(p)) = (self.pooled(), self.parts.projection) else { return features };
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
        let features = t.head_dropout(features, name);
        let head = t.linear_params(name, self.classes, self.features(), self.head_bias);
        t.linear(features, name, head, WIDE)
    }

    /// What the first of CoCa's queries attends to.
    fn query_pool(&self, t: &mut Tape, x: Act) -> Act {
        let Some(Pooler { queries, width, heads }) = self.parts.pooler else { return x };
        let query = t.param("query", &[queries, width]);
        let [q, k, v] = [("q", width), ("k", self.dim), ("v", self.dim)]
            .map(|(name, inputs)| t.param(&format!("attn.{name}_proj_weight"), &[width, inputs]));
        let bias = t.param("attn.in_proj_bias", &[3 * width]);
        let query = t.spread(query.part(0, width), "first query");
        let query = self.norm(t, query, "ln_q", WIDE);
        let tokens = self.norm(t, x, "ln_k", WIDE);
        let [q, k, v] = [(query, "q", q, 0), (tokens, "k", k, width), (tokens, "v", v, 2 * width)].map(|part| {
            let (inp, name, weight, at) = part;
            if width.is_multiple_of(ALIGNED) {
                let bias = Some(bias.part(at, width));
                return t.linear(inp, name, LinearParams { weight, bias }, WIDE);
            }
            let product = t.linear(inp, name, LinearParams { weight, bias: None }, WIDE);
            let biases = t.spread_over(bias, &format!("{name}.biases"), t.shape(inp).with_cols(3 * width));
            let own = t.slice(biases, &format!("{name}.bias"), at, width);
            t.add(product, own, &format!("{name}.biased"), None)
        });
        let attended = t.attend([q, k, v], "attended", heads);
        let out = t.linear_params("attn.out_proj", width, width, true);
        t.linear(attended, "attn.out_proj", out, WIDE)
    }

    /// SigLIP's (Zhai et al. 2023): attention of one learned query over all tokens, and an MLP behind it.
    fn attention_pool(&self, t: &mut Tape, x: Act, pool: AttentionPool) -> Act {
        let d = self.dim;
        let latent = t.param("latent", &[1, 1, d]);
        // Each with the first of its outputs.
        let [q, k, v] = if pool.fused {
            let weight = t.param("in_proj_weight", &[3 * d, d]);
            let bias = Some(t.param("in_proj_bias", &[3 * d]));
            [0, d, 2 * d].map(|first| (LinearParams { weight, bias }, first))
        } else {
            let q = t.linear_params("q", d, d, true);
            let kv = t.linear_params("kv", 2 * d, d, true);
            [(q, 0), (kv, 0), (kv, d)]
        };
        let part = |t: &mut Tape, x: Act, name: &str, (layer, first): (LinearParams, usize)| {
            if d.is_multiple_of(ALIGNED) {
                return t.linear(x, name, layer.outputs(first, d, d), WIDE);
            }
            let whole = t.linear(x, &format!("{name}.whole"), layer, WIDE);
            t.slice(whole, name, first, d)
        };
        // In reverse the keys' share of the tokens' gradient comes before the values'.
        let q = t.aside(|t| {
            let query = t.spread(latent, "query");
            part(t, query, "q", q)
        });
        let k = t.aside(|t| part(t, x, "k", k));
        let v = part(t, x, "v", v);
        t.recall();
        let attended = t.attend([q, k, v], "attended", pool.heads.unwrap_or(self.heads));
        let proj = t.linear_params("proj", d, d, true);
        let x = t.linear(attended, "proj", proj, WIDE);
        let h = self.norm(t, x, "norm", WIDE);
        self.mlp(t, x, h, pool.mlp_dim, None)
    }
}
