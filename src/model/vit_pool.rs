//! SigLIP's attention pool (Zhai et al. 2023): one learned query over all tokens, and an MLP behind it. Forward, and its
//! visible reverse.

use crate::error::Result;
use crate::gpu::View;
use crate::model::activations::{Activations, Mode};
use crate::model::config::{AttentionPool, VitConfig};
use crate::model::params::ParamLayout;
use crate::model::plan::{Plan, Slot};
use crate::model::vit::linear_backward;
use crate::ops::{Recorder, attention_pool, column_sum, layer_norm, matmul};

/// Its activations.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolSlots {
    /// The latent once an image, and what becomes of it: `[B, D]` each.
    query: Slot,
    q: Slot,
    attended: Slot,
    projected: Slot,
    norm: Slot,
    mlp: Slot,
    /// `[B]` each.
    mean: Slot,
    rstd: Slot,
    /// `[B, N, D]` each.
    k: Slot,
    v: Slot,
    prob: Slot,
    /// `[B, F]` each.
    hidden: Slot,
    activated: Slot,
    backward: Option<PoolGradients>,
}

/// The gradients of [`PoolSlots`], and of the scores.
#[derive(Clone, Copy, Debug)]
struct PoolGradients {
    dquery: Slot,
    dq: Slot,
    dattended: Slot,
    dnorm: Slot,
    dk: Slot,
    dv: Slot,
    ds: Slot,
    dhidden: Slot,
    dactivated: Slot,
}

fn dims(c: &VitConfig, batch: usize) -> attention_pool::Dims {
    attention_pool::Dims { batch, tokens: c.tokens(), heads: c.heads, head_dim: c.dim / c.heads }
}

impl PoolSlots {
    /// Adds them to `plan` for up to `batch` images, where the model has such a pool.
    pub(super) fn plan(c: &VitConfig, plan: &mut Plan, batch: usize, mode: Mode) -> Option<PoolSlots> {
        let mlp = batch * c.parts.attention_pool?.mlp_dim;
        let dims = dims(c, batch);
        let (row, rows) = (dims.query_len(), dims.token_len());
        let mut add = |what: &str, len: usize| plan.add(format!("attention pool: {what}"), len);
        Some(PoolSlots {
            query: add("query", row),
            q: add("q", row),
            attended: add("attended", row),
            projected: add("projected", row),
            norm: add("norm", row),
            mlp: add("mlp.fc2", row),
            mean: add("norm mean", batch),
            rstd: add("norm rstd", batch),
            k: add("k", rows),
            v: add("v", rows),
            prob: add("probabilities", dims.prob_len()),
            hidden: add("mlp.fc1", mlp),
            activated: add("mlp.act", mlp),
            backward: (mode != Mode::Infer).then(|| PoolGradients {
                dquery: add("gradient of the query", row),
                dq: add("gradient of q", row),
                dattended: add("gradient of the attended", row),
                dnorm: add("gradient of the norm", row),
                dk: add("gradient of k", rows),
                dv: add("gradient of v", rows),
                ds: add("gradient of the scores", dims.prob_len()),
                dhidden: add("gradient of mlp.fc1", mlp),
                dactivated: add("gradient of mlp.act", mlp),
            }),
        })
    }
}

/// An attention pool with its activations at one batch size, and weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolPass<'a> {
    pub(super) config: &'a VitConfig,
    pub(super) pool: AttentionPool,
    pub(super) slots: &'a PoolSlots,
    pub(super) acts: &'a Activations,
    pub(super) layout: &'a ParamLayout,
    pub(super) w: &'a View,
    pub(super) batch: usize,
}

impl PoolPass<'_> {
    fn param(&self, arena: &View, name: &str) -> View {
        self.layout.view(arena, self.layout.index(&format!("attn_pool.{name}")))
    }

    fn dims(&self) -> attention_pool::Dims {
        dims(self.config, self.batch)
    }

    /// A tensor with a row an image.
    fn row(&self, slot: Slot) -> View {
        self.acts.view(slot, self.dims().query_len())
    }

    /// A tensor with a row a token.
    fn rows(&self, slot: Slot) -> View {
        self.acts.view(slot, self.dims().token_len())
    }

    fn wide(&self, slot: Slot) -> View {
        self.acts.view(slot, self.batch * self.pool.mlp_dim)
    }

    fn norm_dims(&self) -> layer_norm::Dims {
        layer_norm::Dims { rows: self.batch, cols: self.config.dim, eps: self.config.eps }
    }

    /// Weight and bias of query, key and value in an arena, whichever tensors they are parts of.
    fn qkv(&self, arena: &View) -> [(View, View); 3] {
        let d = self.config.dim;
        let part = |name: &str, at: usize| {
            let separator = if self.pool.fused { '_' } else { '.' };
            let tensor = |what: &str| self.param(arena, &format!("{name}{separator}{what}"));
            (tensor("weight").slice(at * d * d, d * d), tensor("bias").slice(at * d, d))
        };
        match self.pool.fused {
            true => [0, 1, 2].map(|at| part("in_proj", at)),
            false => [part("q", 0), part("kv", 0), part("kv", 1)],
        }
    }

    /// `features` `[B, D]` from the tokens `inp` `[B, N, D]`.
    pub(super) fn forward(&self, r: &mut Recorder, features: &View, inp: &View) -> Result<()> {
        let (s, dims, batch) = (self.slots, self.dims(), self.batch);
        let (d, f) = (self.config.dim, self.pool.mlp_dim);
        let p = |name: &str| self.param(self.w, name);
        let query = self.row(s.query);
        column_sum::spread(r, &query, &p("latent"), batch, d)?;
        let (q, k, v) = (self.row(s.q), self.rows(s.k), self.rows(s.v));
        for ((weight, bias), (out, inp)) in self.qkv(self.w).iter().zip([(&q, &query), (&k, inp), (&v, inp)]) {
            matmul::forward(r, out, inp, weight, Some(bias), inp.len / d, d, d)?;
        }
        let (attended, projected) = (self.row(s.attended), self.row(s.projected));
        let prob = self.acts.view(s.prob, dims.prob_len());
        attention_pool::forward(r, &attended, &prob, &q, &k, &v, dims)?;
        matmul::forward(r, &projected, &attended, &p("proj.weight"), Some(&p("proj.bias")), batch, d, d)?;

        let norm = self.row(s.norm);
        let (mean, rstd) = (self.acts.view(s.mean, batch), self.acts.view(s.rstd, batch));
        let (weight, bias) = (p("norm.weight"), p("norm.bias"));
        layer_norm::forward(r, &norm, &mean, &rstd, &projected, &weight, &bias, self.norm_dims())?;
        let (hidden, activated) = (self.wide(s.hidden), self.wide(s.activated));
        let (weight, bias, kind) = (p("mlp.fc1.weight"), p("mlp.fc1.bias"), self.config.activation);
        matmul::forward_gelu(r, &activated, &hidden, &norm, &weight, Some(&bias), kind, batch, f, d)?;
        let (mlp, weight, bias) = (self.row(s.mlp), p("mlp.fc2.weight"), p("mlp.fc2.bias"));
        let bias = Some(&bias);
        matmul::forward_residual(r, features, &mlp, &projected, None, &activated, &weight, bias, batch, d, f)
    }

    /// `dinp = ` from `dx`, the gradient of the features, which becomes that of the pooled tokens; the parameters' gradients
    /// are added to arena `dw`.
    pub(super) fn backward(&self, r: &mut Recorder, dw: &View, dinp: &View, dx: &View, inp: &View) -> Result<()> {
        let (s, dims, batch) = (self.slots, self.dims(), self.batch);
        let g = s.backward.as_ref().expect("backward needs activations planned for training");
        let (d, f) = (self.config.dim, self.pool.mlp_dim);
        let p = |name: &str| self.param(self.w, name);
        let dp = |name: &str| self.param(dw, name);

        let (hidden, activated) = (self.wide(s.hidden), self.wide(s.activated));
        let (dhidden, dactivated) = (self.wide(g.dhidden), self.wide(g.dactivated));
        let (weight, kind) = (p("mlp.fc2.weight"), self.config.activation);
        matmul::backward_input_gelu(r, &dhidden, &dactivated, dx, &weight, &hidden, kind, batch, d, f)?;
        matmul::backward_weight(r, &dp("mlp.fc2.weight"), dx, &activated, batch, d, f)?;
        column_sum::forward(r, &dp("mlp.fc2.bias"), dx, batch, d)?;
        let (norm, dnorm, projected) = (self.row(s.norm), self.row(g.dnorm), self.row(s.projected));
        let (dweight, dbias, weight) = (dp("mlp.fc1.weight"), dp("mlp.fc1.bias"), p("mlp.fc1.weight"));
        linear_backward(r, &dnorm, &dweight, Some(&dbias), &dhidden, &norm, &weight, batch, f, d)?;
        let (mean, rstd) = (self.acts.view(s.mean, batch), self.acts.view(s.rstd, batch));
        let (dweight, dbias, weight) = (dp("norm.weight"), dp("norm.bias"), p("norm.weight"));
        let norm_dims = self.norm_dims();
        layer_norm::backward_params(r, &dweight, &dbias, &dnorm, &projected, &mean, &rstd, norm_dims)?;
        layer_norm::backward_input(r, dx, &dnorm, &projected, &weight, &mean, &rstd, norm_dims, true)?;

        let (attended, dattended) = (self.row(s.attended), self.row(g.dattended));
        let (dweight, dbias, weight) = (dp("proj.weight"), dp("proj.bias"), p("proj.weight"));
        linear_backward(r, &dattended, &dweight, Some(&dbias), dx, &attended, &weight, batch, d, d)?;
        let (q, k, v) = (self.row(s.q), self.rows(s.k), self.rows(s.v));
        let (dq, dk, dv) = (self.row(g.dq), self.rows(g.dk), self.rows(g.dv));
        let (prob, ds) = (self.acts.view(s.prob, dims.prob_len()), self.acts.view(g.ds, dims.prob_len()));
        attention_pool::backward(r, &dq, &dk, &dv, &ds, &dattended, &q, &k, &v, &prob, dims)?;

        let [q_own, k_own, v_own] = self.qkv(self.w);
        let [dq_own, dk_own, dv_own] = self.qkv(dw);
        let (query, dquery) = (self.row(s.query), self.row(g.dquery));
        linear_backward(r, &dquery, &dq_own.0, Some(&dq_own.1), &dq, &query, &q_own.0, batch, d, d)?;
        column_sum::forward(r, &dp("latent"), &dquery, batch, d)?;
        let rows = batch * dims.tokens;
        linear_backward(r, dinp, &dk_own.0, Some(&dk_own.1), &dk, inp, &k_own.0, rows, d, d)?;
        matmul::backward_input_added(r, dinp, &dv, &v_own.0, rows, d, d)?;
        matmul::backward_weight(r, &dv_own.0, &dv, inp, rows, d, d)?;
        column_sum::forward(r, &dv_own.1, &dv, rows, d)
    }
}
