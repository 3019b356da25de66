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
use crate::ops::{Recorder, attention, cast, column_sum, layer_norm, matmul, patch_embed, residual};

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
    pub(super) vit: &'a Vit,
    pub(super) pass: Pass<'a>,
    pub(super) slots: &'a VitSlots,
    pub(super) batch: usize,
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

    pub(super) fn config(&self) -> &'a VitConfig {
        &self.vit.config
    }

    pub(super) fn rows(&self) -> usize {
        self.batch * self.config().tokens()
    }

    pub(super) fn view(&self, slot: Slot, len: usize) -> View {
        self.pass.acts.view(slot, len)
    }

    /// `[R, cols]`
    fn wide(&self, slot: Slot, cols: usize) -> View {
        self.view(slot, self.rows() * cols)
    }

    pub(super) fn stream(&self, slot: Slot) -> View {
        self.wide(slot, self.config().dim)
    }

    /// The stream that enters block `i`; past the last one, what leaves it.
    pub(super) fn entering(&self, i: usize) -> View {
        self.stream(if i == 0 { self.slots.tokens } else { self.slots.blocks[i - 1].out })
    }

    pub(super) fn param(&self, arena: &View, name: &str) -> View {
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

    /// The weights of query, key and value as one matrix, as products read them.
    fn qkv_weight(&self, w: &View, i: usize) -> View {
        let Some(half) = &self.slots.half_weights else { return self.qkv(w, i, "weight") };
        let parts: &[&str] = if self.config().parts.split_qkv { &["q", "k", "v"] } else { &["qkv"] };
        let place = |part: &&str| {
            let index = self.vit.layout.index(&format!("blocks.{i}.attn.{part}.weight"));
            let copy = half.offsets.iter().find(|(own, _)| *own == index);
            (copy.expect("every product's weight has its copy").1, self.vit.layout.params[index].len)
        };
        let places: Vec<(usize, usize)> = parts.iter().map(place).collect();
        assert!(places.windows(2).all(|p| p[0].0 + p[0].1 == p[1].0), "q, k and v lie apart");
        self.view(half.arena, half.len).slice(places[0].0, places.iter().map(|(_, len)| len).sum())
    }

    pub(super) fn maybe(&self, present: bool, arena: &View, name: &str) -> Option<View> {
        present.then(|| self.param(arena, name))
    }

    /// The class token, and the tokens between it and the patches.
    fn prefix_tokens(&self, arena: &View) -> (Option<View>, Option<View>) {
        let c = self.config();
        let name = if c.parts.distilled { "dist_token" } else { "reg_token" };
        (self.maybe(c.class_token, arena, "cls_token"), self.maybe(c.prefix().registers > 0, arena, name))
    }

    /// Weight or bias of query, key and value as one matrix, whether they are one tensor or three neighbours.
    fn qkv(&self, arena: &View, i: usize, what: &str) -> View {
        if !self.config().parts.split_qkv {
            return self.param(arena, &format!("blocks.{i}.attn.qkv.{what}"));
        }
        let find =
            |part: &str| &self.vit.layout.params[self.vit.layout.index(&format!("blocks.{i}.attn.{part}.{what}"))];
        let (q, k, v) = (find("q"), find("k"), find("v"));
        assert!(q.offset + q.len == k.offset && k.offset + k.len == v.offset, "q, k and v lie apart");
        arena.slice(q.offset, q.len + k.len + v.len)
    }

    fn embed_dims(&self) -> patch_embed::Dims {
        let c = self.config();
        patch_embed::Dims { batch: self.batch, size: c.image_size, patch: c.patch_size, dim: c.dim, prefix: c.prefix() }
    }

    fn attention_dims(&self) -> attention::Dims {
        let c = self.config();
        attention::Dims { batch: self.batch, tokens: c.tokens(), heads: c.heads, head_dim: c.dim / c.heads }
    }

    pub(super) fn norm_dims(&self, rows: usize) -> layer_norm::Dims {
        layer_norm::Dims { rows, cols: self.config().dim, eps: self.config().eps }
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
        let (cls, reg) = self.prefix_tokens(w);
        let assembled = self.stream(a.norm_pre.map_or(a.tokens, |pre| pre.assembled));
        let pos = self.param(w, "pos_embed");
        patch_embed::assemble(r, &assembled, &embedded, &pos, cls.as_ref(), reg.as_ref(), embed)?;
        if let Some(pre) = a.norm_pre {
            let (weight, bias) = (self.param(w, "norm_pre.weight"), self.param(w, "norm_pre.bias"));
            let (mean, rstd) = (self.view(pre.mean, self.rows()), self.view(pre.rstd, self.rows()));
            let dims = self.norm_dims(self.rows());
            layer_norm::forward(r, &self.entering(0), &mean, &rstd, &assembled, &weight, &bias, dims)?;
        }

        for i in 0..c.depth {
            self.block_forward(r, w, i, &a.blocks[i], true)?;
        }

        self.tail_forward(r, w)
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
        let (hidden, activated) = (self.wide(b.hidden, c.hidden_dim()), self.wide(b.activated, f));
        let lse = self.view(b.lse, rows * c.heads);

        let (weight, bias) = (p("norm1.weight"), p("norm1.bias"));
        layer_norm::forward(r, &norm1, &stats(b.mean1), &stats(b.rstd1), &inp, &weight, &bias, self.norm_dims(rows))?;
        let bias = c.qkv_bias.then(|| self.qkv(w, i, "bias"));
        matmul::forward(r, &qkv, &norm1, &self.qkv_weight(w, i), bias.as_ref(), rows, 3 * d, d)?;
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
        self.hidden_forward(r, &activated, &hidden, &norm2, &weight, &bias)?;
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
        self.tail_backward(r, w, dw, g)?;
        for i in (self.pass.frozen_blocks..c.depth).rev() {
            if let Some(again) = &a.again[i] {
                self.block_forward(r, w, i, again, false)?;
            }
            self.block_backward(r, w, dw, g, i)?;
        }
        if self.pass.frozen_blocks > 0 {
            return Ok(());
        }

        let mut dtokens = self.stream(g.dx);
        if let Some((pre, dassembled)) = a.norm_pre.zip(g.dassembled) {
            let (inp, dinp, rows) = (self.stream(pre.assembled), self.stream(dassembled), self.rows());
            let (mean, rstd, dims) = (self.view(pre.mean, rows), self.view(pre.rstd, rows), self.norm_dims(rows));
            let (dweight, dbias) = (self.param(dw, "norm_pre.weight"), self.param(dw, "norm_pre.bias"));
            let weight = self.param(w, "norm_pre.weight");
            layer_norm::backward_params(r, &dweight, &dbias, &dtokens, &inp, &mean, &rstd, dims)?;
            layer_norm::backward_input(r, &dinp, &dtokens, &inp, &weight, &mean, &rstd, dims, false)?;
            dtokens = dinp;
        }
        let embed = self.embed_dims();
        let (m, n, k) = (self.batch * embed.patches(), c.dim, embed.patch_len());
        let dembedded = self.view(g.dembedded, m * n);
        let (dcls, dreg) = self.prefix_tokens(dw);
        let dpos = self.param(dw, "pos_embed");
        patch_embed::backward(r, &dembedded, &dpos, dcls.as_ref(), dreg.as_ref(), &dtokens, embed)?;
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

        // MLP half: out = middle + ls2·fc2(act(fc1(norm2(middle))))
        let (hidden, activated) = (self.wide(b.hidden, c.hidden_dim()), self.wide(b.activated, f));
        let (dactivated, dhidden) = (self.wide(own.dactivated, f), self.wide(own.dhidden, c.hidden_dim()));
        let (norm2, mean, rstd) = (self.stream(b.norm2), stats(b.mean2), stats(b.rstd2));
        let gamma = format!("blocks.{i}.ls2.gamma");
        let dbranch = self.branch_gradient(r, w, dw, &dx, &gamma, b.mlp, own.dmlp, own.half_dmlp)?;
        let weight = half("mlp.fc2.weight");
        self.hidden_backward(r, &dhidden, &dactivated, &dbranch, &weight, &hidden)?;
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
            c.hidden_dim(),
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
        let dbias = c.qkv_bias.then(|| self.qkv(dw, i, "bias"));
        linear_backward(
            r,
            &dnorm1,
            &self.qkv(dw, i, "weight"),
            dbias.as_ref(),
            &dqkv,
            &norm1,
            &self.qkv_weight(w, i),
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
pub(super) fn linear_backward(
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
