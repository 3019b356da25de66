//! A pre-norm vision transformer (Dosovitskiy et al. 2021), as timm builds it: forward, and its visible reverse.
//!
//! Weights are an argument, not a field: the outer loop of TPGM records the same model once more at the projected arena.

use crate::error::Result;
use crate::gpu::View;
use crate::model::activations::Pass;
use crate::model::config::VitConfig;
use crate::model::params::ParamLayout;
use crate::model::plan::Slot;
use crate::model::vit_activations::{BackwardSlots, BlockSlots, VitSlots};
use crate::ops::{Recorder, attention, cast, column_sum, layer_norm, matmul, patch_embed, pool, residual};

/// A vision transformer: its configuration and where its parameters lie.
#[derive(Clone, Debug)]
pub struct Vit {
    /// What it is made of.
    pub config: VitConfig,
    /// Its parameters, by timm's names.
    pub layout: ParamLayout,
}

/// A vision transformer with its activations at one batch size.
#[derive(Clone, Copy, Debug)]
pub(super) struct VitPass<'a> {
    vit: &'a Vit,
    pass: Pass<'a>,
    slots: &'a VitSlots,
    batch: usize,
}

impl Vit {
    /// The model that `config` describes.
    pub fn new(config: VitConfig) -> Vit {
        let layout = ParamLayout::new(&config.parameters());
        Vit { config, layout }
    }
}

impl<'a> VitPass<'a> {
    pub(super) fn new(vit: &'a Vit, pass: Pass<'a>, slots: &'a VitSlots) -> VitPass<'a> {
        VitPass { vit, pass, slots, batch: pass.batch }
    }

    fn config(&self) -> &VitConfig {
        &self.vit.config
    }

    fn rows(&self) -> usize {
        self.batch * self.config().tokens()
    }

    fn view(&self, slot: Slot, len: usize) -> View {
        self.pass.acts.view(slot, len)
    }

    /// `[R, cols]`
    fn wide(&self, slot: Slot, cols: usize) -> View {
        self.view(slot, self.rows() * cols)
    }

    fn stream(&self, slot: Slot) -> View {
        self.wide(slot, self.config().dim)
    }

    /// The stream that enters block `i`; past the last one, what leaves it.
    fn entering(&self, i: usize) -> View {
        self.stream(if i == 0 { self.slots.tokens } else { self.slots.blocks[i - 1].out })
    }

    fn param(&self, arena: &View, name: &str) -> View {
        self.vit.layout.view(arena, self.vit.layout.index(name))
    }

    /// A weight as products read it: in f16 its copy, which [`VitPass::cast_weights`] writes.
    fn weight(&self, arena: &View, name: &str) -> View {
        let index = self.vit.layout.index(name);
        let Some(half) = &self.slots.half_weights else { return self.vit.layout.view(arena, index) };
        match half.offsets.iter().find(|(i, _)| *i == index) {
            Some((_, offset)) => self.view(half.arena, half.len).slice(*offset, self.vit.layout.params[index].len),
            None => self.vit.layout.view(arena, index),
        }
    }

    /// In f16, the copy of the weights in arena `w`.
    pub(super) fn cast_weights(&self, r: &mut Recorder, w: &View) -> Result<()> {
        for (index, _) in self.slots.half_weights.iter().flat_map(|half| &half.offsets) {
            let name = &self.vit.layout.params[*index].name;
            cast::forward(r, &self.weight(w, name), &self.vit.layout.view(w, *index))?;
        }
        Ok(())
    }

    fn maybe(&self, present: bool, arena: &View, name: &str) -> Option<View> {
        present.then(|| self.param(arena, name))
    }

    fn embed_dims(&self) -> patch_embed::Dims {
        let c = self.config();
        patch_embed::Dims {
            batch: self.batch,
            size: c.image_size,
            patch: c.patch_size,
            dim: c.dim,
            class_token: c.class_token,
        }
    }

    fn attention_dims(&self) -> attention::Dims {
        let c = self.config();
        attention::Dims { batch: self.batch, tokens: c.tokens(), heads: c.heads, head_dim: c.dim / c.heads }
    }

    fn pool_dims(&self) -> pool::Dims {
        let c = self.config();
        pool::Dims { batch: self.batch, tokens: c.tokens(), dim: c.dim, class_token: c.class_token }
    }

    fn norm_dims(&self, rows: usize) -> layer_norm::Dims {
        layer_norm::Dims { rows, cols: self.config().dim, eps: self.config().eps }
    }

    /// The final norm's prefix and rows: over pooled features with `fc_norm`, else over all tokens.
    fn final_norm(&self) -> (&'static str, usize) {
        if self.config().fc_norm { ("fc_norm", self.batch) } else { ("norm", self.rows()) }
    }

    /// Images to logits with the weights in arena `w`.
    pub(super) fn forward(&self, r: &mut Recorder, w: &View) -> Result<()> {
        let c = self.config();
        let a = self.slots;
        let embed = self.embed_dims();
        let patches = self.view(a.patches, self.batch * embed.patches() * embed.patch_len());
        let embedded = self.view(a.embedded, self.batch * embed.patches() * c.dim);
        patch_embed::unfold(r, &patches, &self.pass.images(), embed)?;
        let weight = self.weight(w, "patch_embed.proj.weight");
        let bias = self.maybe(c.patch_bias, w, "patch_embed.proj.bias");
        let (m, n, k) = (self.batch * embed.patches(), c.dim, embed.patch_len());
        matmul::forward(r, &embedded, &patches, &weight, bias.as_ref(), m, n, k)?;
        let cls = self.maybe(c.class_token, w, "cls_token");
        patch_embed::assemble(r, &self.entering(0), &embedded, &self.param(w, "pos_embed"), cls.as_ref(), embed)?;

        for i in 0..c.depth {
            self.block_forward(r, w, i, &a.blocks[i], true)?;
        }

        let last = self.entering(c.depth);
        let (norm, rows) = self.final_norm();
        let (weight, bias) = (self.param(w, &format!("{norm}.weight")), self.param(w, &format!("{norm}.bias")));
        let normed = self.view(a.normed, rows * c.dim);
        let (mean, rstd) = (self.view(a.mean, rows), self.view(a.rstd, rows));
        let pooled = self.view(a.pooled, self.batch * c.dim);
        let dims = self.norm_dims(rows);
        let features = if c.fc_norm {
            pool::forward(r, &pooled, &last, c.pool, self.pool_dims())?;
            layer_norm::forward(r, &normed, &mean, &rstd, &pooled, &weight, &bias, dims)?;
            normed
        } else {
            layer_norm::forward(r, &normed, &mean, &rstd, &last, &weight, &bias, dims)?;
            pool::forward(r, &pooled, &normed, c.pool, self.pool_dims())?;
            pooled
        };
        let bias = self.maybe(c.head_bias, w, "head.bias");
        let weight = self.param(w, "head.weight");
        matmul::forward(r, &self.pass.logits(), &features, &weight, bias.as_ref(), self.batch, c.classes, c.dim)
    }

    /// Block `i` into the slots `b`. Without `out`, as far as backward needs it: up to the stream that leaves the block.
    fn block_forward(&self, r: &mut Recorder, w: &View, i: usize, b: &BlockSlots, out: bool) -> Result<()> {
        let c = self.config();
        let (rows, d, f) = (self.rows(), c.dim, c.mlp_dim);
        let stats = |slot| self.view(slot, rows);
        let p = |name: &str| self.param(w, &format!("blocks.{i}.{name}"));
        let half = |name: &str| self.weight(w, &format!("blocks.{i}.{name}"));
        let inp = self.entering(i);
        let (norm1, norm2) = (self.stream(b.norm1), self.stream(b.norm2));
        let (qkv, attended, middle) = (self.wide(b.qkv, 3 * d), self.stream(b.attended), self.stream(b.middle));
        let (projected, mlp) = (self.stream(b.projected), self.stream(b.mlp));
        let (hidden, activated) = (self.wide(b.hidden, f), self.wide(b.activated, f));
        let lse = self.view(b.lse, rows * c.heads);

        let (weight, bias) = (p("norm1.weight"), p("norm1.bias"));
        layer_norm::forward(r, &norm1, &stats(b.mean1), &stats(b.rstd1), &inp, &weight, &bias, self.norm_dims(rows))?;
        let bias = c.qkv_bias.then(|| p("attn.qkv.bias"));
        matmul::forward(r, &qkv, &norm1, &half("attn.qkv.weight"), bias.as_ref(), rows, 3 * d, d)?;
        attention::forward(r, &attended, &lse, &qkv, self.attention_dims())?;
        let (weight, bias) = (half("attn.proj.weight"), p("attn.proj.bias"));
        let gamma = c.layer_scale.then(|| p("ls1.gamma"));
        let (gamma, bias) = (gamma.as_ref(), Some(&bias));
        matmul::forward_residual(r, &middle, &projected, &inp, gamma, &attended, &weight, bias, rows, d, d)?;

        let (weight, bias) = (p("norm2.weight"), p("norm2.bias"));
        layer_norm::forward(
            r,
            &norm2,
            &stats(b.mean2),
            &stats(b.rstd2),
            &middle,
            &weight,
            &bias,
            self.norm_dims(rows),
        )?;
        let (weight, bias) = (half("mlp.fc1.weight"), p("mlp.fc1.bias"));
        let bias = Some(&bias);
        matmul::forward_gelu(r, &activated, &hidden, &norm2, &weight, bias, c.activation, rows, f, d)?;
        let (weight, bias) = (half("mlp.fc2.weight"), p("mlp.fc2.bias"));
        if !out {
            // Of the last layer nobody but a layer scale reads the output again.
            return match c.layer_scale {
                true => matmul::forward(r, &mlp, &activated, &weight, Some(&bias), rows, d, f),
                false => Ok(()),
            };
        }
        let gamma = c.layer_scale.then(|| p("ls2.gamma"));
        let (gamma, bias, out) = (gamma.as_ref(), Some(&bias), self.entering(i + 1));
        matmul::forward_residual(r, &out, &mlp, &middle, gamma, &activated, &weight, bias, rows, d, f)
    }

    /// From the gradient of the logits to the gradient of every parameter, added to arena `dw`. `w` is what forward ran with.
    pub(super) fn backward(&self, r: &mut Recorder, w: &View, dw: &View) -> Result<()> {
        let c = self.config();
        let a = self.slots;
        let g = a.backward.as_ref().expect("backward needs activations planned for training");
        let (batch, d) = (self.batch, c.dim);
        let dx = self.stream(g.dx);
        let (dfeatures, dpooled) = (self.view(g.dfeatures, batch * d), self.view(g.dpooled, batch * d));
        let (norm, rows) = self.final_norm();
        let normed = self.view(a.normed, rows * d);
        let (mean, rstd) = (self.view(a.mean, rows), self.view(a.rstd, rows));
        let pooled = self.view(a.pooled, batch * d);
        let (weight_name, bias_name) = (format!("{norm}.weight"), format!("{norm}.bias"));
        let weight = self.param(w, &weight_name);
        let (dweight, dbias) = (self.param(dw, &weight_name), self.param(dw, &bias_name));
        let dims = self.norm_dims(rows);
        let last = self.entering(c.depth);

        // head
        let features = if c.fc_norm { &normed } else { &pooled };
        let dlogits = self.pass.dlogits();
        matmul::backward_input(r, &dfeatures, &dlogits, &self.param(w, "head.weight"), batch, c.classes, d)?;
        matmul::backward_weight(r, &self.param(dw, "head.weight"), &dlogits, features, batch, c.classes, d)?;
        if c.head_bias {
            column_sum::forward(r, &self.param(dw, "head.bias"), &dlogits, batch, c.classes)?;
        }
        if c.fc_norm {
            layer_norm::backward_params(r, &dweight, &dbias, &dfeatures, &pooled, &mean, &rstd, dims)?;
            layer_norm::backward_input(r, &dpooled, &dfeatures, &pooled, &weight, &mean, &rstd, dims, false)?;
            pool::backward(r, &dx, &dpooled, c.pool, self.pool_dims())?;
        } else {
            let dnormed = self.stream(g.dnormed);
            pool::backward(r, &dnormed, &dfeatures, c.pool, self.pool_dims())?;
            layer_norm::backward_params(r, &dweight, &dbias, &dnormed, &last, &mean, &rstd, dims)?;
            layer_norm::backward_input(r, &dx, &dnormed, &last, &weight, &mean, &rstd, dims, false)?;
        }

        for i in (0..c.depth).rev() {
            if let Some(again) = &a.again[i] {
                self.block_forward(r, w, i, again, false)?;
            }
            self.block_backward(r, w, dw, g, i)?;
        }

        let embed = self.embed_dims();
        let (m, n, k) = (batch * embed.patches(), d, embed.patch_len());
        let dembedded = self.view(g.dembedded, m * n);
        let dcls = self.maybe(c.class_token, dw, "cls_token");
        patch_embed::backward(r, &dembedded, &self.param(dw, "pos_embed"), dcls.as_ref(), &dx, embed)?;
        let patches = self.view(a.patches, m * k);
        matmul::backward_weight(r, &self.param(dw, "patch_embed.proj.weight"), &dembedded, &patches, m, n, k)?;
        if c.patch_bias {
            column_sum::forward(r, &self.param(dw, "patch_embed.proj.bias"), &dembedded, m, n)?;
        }
        Ok(())
    }

    /// Block `i` in reverse. `dx` holds the gradient of the stream that leaves it, then of the one that enters: both
    /// halves' branches add to it.
    fn block_backward(&self, r: &mut Recorder, w: &View, dw: &View, g: &BackwardSlots, i: usize) -> Result<()> {
        let c = self.config();
        let b = self.slots.again[i].as_ref().unwrap_or(&self.slots.blocks[i]);
        let own = &g.blocks[i];
        let (rows, d, f) = (self.rows(), c.dim, c.mlp_dim);
        let stats = |slot| self.view(slot, rows);
        let p = |name: &str| self.param(w, &format!("blocks.{i}.{name}"));
        let half = |name: &str| self.weight(w, &format!("blocks.{i}.{name}"));
        let dp = |name: &str| self.param(dw, &format!("blocks.{i}.{name}"));
        let dims = self.norm_dims(rows);
        let (dx, dnorm1, dnorm2) = (self.stream(g.dx), self.stream(own.dnorm1), self.stream(own.dnorm2));
        let (middle, inp) = (self.stream(b.middle), self.entering(i));

        // MLP half: out = middle + ls2·fc2(gelu(fc1(norm2(middle))))
        let (hidden, activated) = (self.wide(b.hidden, f), self.wide(b.activated, f));
        let (dactivated, dhidden) = (self.wide(own.dactivated, f), self.wide(own.dhidden, f));
        let (norm2, mean, rstd) = (self.stream(b.norm2), stats(b.mean2), stats(b.rstd2));
        let gamma = format!("blocks.{i}.ls2.gamma");
        let dbranch = self.branch_gradient(r, w, dw, &dx, &gamma, b.mlp, own.dmlp, own.half_dmlp)?;
        let weight = half("mlp.fc2.weight");
        matmul::backward_input_gelu(r, &dhidden, &dactivated, &dbranch, &weight, &hidden, c.activation, rows, d, f)?;
        matmul::backward_weight(r, &dp("mlp.fc2.weight"), &dbranch, &activated, rows, d, f)?;
        column_sum::forward(r, &dp("mlp.fc2.bias"), &dbranch, rows, d)?;
        linear_backward(
            r,
            &dnorm2,
            &dp("mlp.fc1.weight"),
            Some(&dp("mlp.fc1.bias")),
            &dhidden,
            &norm2,
            &half("mlp.fc1.weight"),
            rows,
            f,
            d,
        )?;
        let (dweight, dbias) = (dp("norm2.weight"), dp("norm2.bias"));
        layer_norm::backward_params(r, &dweight, &dbias, &dnorm2, &middle, &mean, &rstd, dims)?;
        layer_norm::backward_input(r, &dx, &dnorm2, &middle, &p("norm2.weight"), &mean, &rstd, dims, true)?;

        // attention half: middle = inp + ls1·proj(attention(qkv(norm1(inp))))
        let (qkv, attended) = (self.wide(b.qkv, 3 * d), self.stream(b.attended));
        let lse = self.view(b.lse, rows * c.heads);
        let delta = self.view(own.delta, rows * c.heads);
        let (dattended, dqkv) = (self.stream(own.dattended), self.wide(own.dqkv, 3 * d));
        let (norm1, mean, rstd) = (self.stream(b.norm1), stats(b.mean1), stats(b.rstd1));
        let gamma = format!("blocks.{i}.ls1.gamma");
        let dbranch = self.branch_gradient(r, w, dw, &dx, &gamma, b.projected, own.dprojected, own.half_dprojected)?;
        linear_backward(
            r,
            &dattended,
            &dp("attn.proj.weight"),
            Some(&dp("attn.proj.bias")),
            &dbranch,
            &attended,
            &half("attn.proj.weight"),
            rows,
            d,
            d,
        )?;
        attention::backward(r, &dqkv, &delta, &dattended, &attended, &qkv, &lse, self.attention_dims())?;
        let dbias = c.qkv_bias.then(|| dp("attn.qkv.bias"));
        linear_backward(
            r,
            &dnorm1,
            &dp("attn.qkv.weight"),
            dbias.as_ref(),
            &dqkv,
            &norm1,
            &half("attn.qkv.weight"),
            rows,
            3 * d,
            d,
        )?;
        let (dweight, dbias) = (dp("norm1.weight"), dp("norm1.bias"));
        layer_norm::backward_params(r, &dweight, &dbias, &dnorm1, &inp, &mean, &rstd, dims)?;
        layer_norm::backward_input(r, &dx, &dnorm1, &inp, &p("norm1.weight"), &mean, &rstd, dims, true)
    }

    /// The gradient of a branch's output: the stream's own, through the layer scale where there is one; as its last layer's
    /// products read it.
    fn branch_gradient(
        &self,
        r: &mut Recorder,
        w: &View,
        dw: &View,
        dx: &View,
        gamma: &str,
        branch: Slot,
        dbranch: Slot,
        half: Option<Slot>,
    ) -> Result<View> {
        let wide = self.wide_branch_gradient(r, w, dw, dx, gamma, branch, dbranch)?;
        let Some(half) = half else { return Ok(wide) };
        let narrow = self.stream(half);
        cast::forward(r, &narrow, &wide)?;
        Ok(narrow)
    }

    fn wide_branch_gradient(
        &self,
        r: &mut Recorder,
        w: &View,
        dw: &View,
        dx: &View,
        gamma: &str,
        branch: Slot,
        dbranch: Slot,
    ) -> Result<View> {
        if !self.config().layer_scale {
            return Ok(dx.clone());
        }
        let (rows, d) = (self.rows(), self.config().dim);
        let dbranch = self.stream(dbranch);
        residual::backward_params(r, &self.param(dw, gamma), dx, &self.stream(branch), rows, d)?;
        residual::backward_input(r, &dbranch, dx, &self.param(w, gamma), rows, d)?;
        Ok(dbranch)
    }
}

/// Reverse of `out = inp·weightᵀ + bias`: `dinp = `, `dweight += `, `dbias += `. `dout` `[rows, n]`, `inp` `[rows, k]`.
fn linear_backward(
    r: &mut Recorder,
    dinp: &View,
    dweight: &View,
    dbias: Option<&View>,
    dout: &View,
    inp: &View,
    weight: &View,
    rows: usize,
    n: usize,
    k: usize,
) -> Result<()> {
    matmul::backward_input(r, dinp, dout, weight, rows, n, k)?;
    matmul::backward_weight(r, dweight, dout, inp, rows, n, k)?;
    match dbias {
        Some(dbias) => column_sum::forward(r, dbias, dout, rows, n),
        None => Ok(()),
    }
}
