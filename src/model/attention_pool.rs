//! The attention pool behind CLIP's ResNets (Radford et al. 2021): forward, and its visible reverse.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::Element;
use crate::model::activations::{Activations, Mode};
use crate::model::half_weights::{self, HalfWeights};
use crate::model::params::ParamLayout;
use crate::model::plan::{Plan, Slot};
use crate::model::resnet_config::{Pooling, ResNetConfig};
use crate::ops::{Recorder, attention_pool, cast, column_sum, matmul, pool, scratch_len};

/// An attention pool: its shape for one image, and the indices of its tensors.
#[derive(Clone, Debug)]
pub(super) struct AttentionPool {
    dims: attention_pool::Dims,
    features: usize,
    positions: usize,
    q: Linear,
    k: Linear,
    v: Linear,
    c: Linear,
}

/// The indices of a projection's tensors.
#[derive(Clone, Copy, Debug)]
struct Linear {
    weight: usize,
    bias: usize,
}

impl AttentionPool {
    /// That of a ResNet which has one.
    pub(super) fn new(config: &ResNetConfig, layout: &ParamLayout) -> Option<AttentionPool> {
        let Pooling::Attention { heads, features } = config.pooling else { return None };
        let tokens = 1 + config.final_size() * config.final_size();
        let index = |name: &str| layout.index(&format!("attnpool.{name}"));
        let linear = |part: &str| Linear {
            weight: index(&format!("{part}_proj.weight")),
            bias: index(&format!("{part}_proj.bias")),
        };
        Some(AttentionPool {
            dims: attention_pool::Dims { batch: 1, tokens, heads, head_dim: config.width() / heads },
            features,
            positions: index("positional_embedding"),
            q: linear("q"),
            k: linear("k"),
            v: linear("v"),
            c: linear("c"),
        })
    }

    fn dims(&self, batch: usize) -> attention_pool::Dims {
        attention_pool::Dims { batch, ..self.dims }
    }

    /// The indices of its projections' weights.
    pub(super) fn weights(&self) -> [usize; 4] {
        [self.q, self.k, self.v, self.c].map(|linear| linear.weight)
    }

    /// Scratch that a batch's sums over rows need.
    pub(super) fn scratch_len(&self, batch: usize) -> usize {
        scratch_len(batch * self.dims.tokens, self.dims.dim()).max(scratch_len(batch, self.features))
    }
}

/// The activations of an attention pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionSlots {
    /// The mean and the pixels at their positions, `[B, N, D]`.
    tokens: Slot,
    /// The first token of each image, `[B, D]`.
    query: Slot,
    q: Slot,
    k: Slot,
    v: Slot,
    prob: Slot,
    attended: Slot,
    backward: Option<AttentionGradients>,
}

/// The gradients of [`AttentionSlots`], and of the scores.
#[derive(Clone, Copy, Debug)]
struct AttentionGradients {
    dtokens: Slot,
    dquery: Slot,
    dq: Slot,
    dk: Slot,
    dv: Slot,
    ds: Slot,
    dattended: Slot,
    /// In f16 alone: what the last projection's products read of the features' gradient, `[B, F]`.
    half_dfeatures: Option<Slot>,
}

impl AttentionSlots {
    /// Adds them to `plan` for up to `batch` images.
    pub(super) fn plan(
        net: &AttentionPool,
        plan: &mut Plan,
        batch: usize,
        mode: Mode,
        element: Element,
    ) -> AttentionSlots {
        let dims = net.dims(batch);
        let mut add_as =
            |what: &str, element: Element, len: usize| plan.add_as(format!("attention pool: {what}"), element, len);
        let prob = add_as("probabilities", Element::Word, dims.prob_len());
        let backward = (mode != Mode::Infer).then(|| AttentionGradients {
            dtokens: add_as("gradient of the tokens", element, dims.token_len()),
            dquery: add_as("gradient of the query", element, dims.query_len()),
            dq: add_as("gradient of q", element, dims.query_len()),
            dk: add_as("gradient of k", element, dims.token_len()),
            dv: add_as("gradient of v", element, dims.token_len()),
            ds: add_as("gradient of the scores", Element::Word, dims.prob_len()),
            dattended: add_as("gradient of the attended", element, dims.query_len()),
            half_dfeatures: (element == Element::Half)
                .then(|| add_as("gradient of the features in f16", element, batch * net.features)),
        });
        let mut add = |what: &str, len: usize| add_as(what, element, len);
        AttentionSlots {
            tokens: add("tokens", dims.token_len()),
            query: add("query", dims.query_len()),
            q: add("q", dims.query_len()),
            k: add("k", dims.token_len()),
            v: add("v", dims.token_len()),
            prob,
            attended: add("attended", dims.query_len()),
            backward,
        }
    }
}

/// An attention pool with its activations at one batch size, and weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionPass<'a> {
    pub(super) net: &'a AttentionPool,
    pub(super) slots: &'a AttentionSlots,
    pub(super) acts: &'a Activations,
    pub(super) layout: &'a ParamLayout,
    pub(super) half: Option<&'a HalfWeights>,
    pub(super) w: &'a View,
    pub(super) batch: usize,
}

impl AttentionPass<'_> {
    fn dims(&self) -> attention_pool::Dims {
        self.net.dims(self.batch)
    }

    /// A tensor with a row an image.
    fn row(&self, slot: Slot) -> View {
        self.acts.view(slot, self.dims().query_len())
    }

    /// A tensor with a row a token.
    fn rows(&self, slot: Slot) -> View {
        self.acts.view(slot, self.dims().token_len())
    }

    fn scores(&self, slot: Slot) -> View {
        self.acts.view(slot, self.dims().prob_len())
    }

    fn first_token(&self) -> pool::Dims {
        let dims = self.dims();
        pool::Dims { batch: self.batch, tokens: dims.tokens, dim: dims.dim(), first: 0, count: 1 }
    }

    /// A projection's weight as products read it.
    fn weight(&self, linear: Linear) -> View {
        half_weights::weight(self.half, self.acts, self.layout, self.w, linear.weight)
    }

    fn project(&self, r: &mut Recorder, out: &View, inp: &View, linear: Linear) -> Result<()> {
        let (weight, bias) = (self.weight(linear), self.layout.view(self.w, linear.bias));
        let dim = self.dims().dim();
        let (rows, n) = (inp.len / dim, bias.len);
        matmul::forward(r, out, inp, &weight, Some(&bias), rows, n, dim)
    }

    /// The gradients of a projection's weight and bias, added to `dw`.
    fn project_params(&self, r: &mut Recorder, dw: &View, dout: &View, inp: &View, linear: Linear) -> Result<()> {
        let (dweight, dbias) = (self.layout.view(dw, linear.weight), self.layout.view(dw, linear.bias));
        let dim = self.dims().dim();
        let (rows, n) = (inp.len / dim, dbias.len);
        matmul::backward_weight(r, &dweight, dout, inp, rows, n, dim)?;
        column_sum::forward(r, &dbias, dout, rows, n)
    }

    /// `features` `[B, F]` from the pixels `inp` `[B, N − 1, D]`.
    pub(super) fn forward(&self, r: &mut Recorder, features: &View, inp: &View) -> Result<()> {
        let (net, s, dims) = (self.net, self.slots, self.dims());
        let (tokens, query) = (self.rows(s.tokens), self.row(s.query));
        attention_pool::assemble(r, &tokens, inp, &self.layout.view(self.w, net.positions), dims)?;
        pool::forward(r, &query, &tokens, self.first_token())?;
        let (q, k, v) = (self.row(s.q), self.rows(s.k), self.rows(s.v));
        self.project(r, &q, &query, net.q)?;
        self.project(r, &k, &tokens, net.k)?;
        self.project(r, &v, &tokens, net.v)?;
        let attended = self.row(s.attended);
        attention_pool::forward(r, &attended, &self.scores(s.prob), &q, &k, &v, dims)?;
        self.project(r, features, &attended, net.c)
    }

    /// `dinp = ` from `dfeatures`; the parameters' gradients are added to arena `dw`.
    pub(super) fn backward(&self, r: &mut Recorder, dw: &View, dinp: &View, dfeatures: &View) -> Result<()> {
        let (net, s, dims) = (self.net, self.slots, self.dims());
        let g = s.backward.as_ref().expect("backward needs activations planned for training");
        let (dim, rows) = (dims.dim(), self.batch * dims.tokens);
        let narrow = g.half_dfeatures.map(|slot| self.acts.view(slot, dfeatures.len));
        if let Some(narrow) = &narrow {
            cast::forward(r, narrow, dfeatures)?;
        }
        let dfeatures = narrow.as_ref().unwrap_or(dfeatures);

        let (attended, dattended) = (self.row(s.attended), self.row(g.dattended));
        matmul::backward_input(r, &dattended, dfeatures, &self.weight(net.c), self.batch, net.features, dim)?;
        self.project_params(r, dw, dfeatures, &attended, net.c)?;

        let (q, k, v) = (self.row(s.q), self.rows(s.k), self.rows(s.v));
        let (dq, dk, dv) = (self.row(g.dq), self.rows(g.dk), self.rows(g.dv));
        let (prob, ds) = (self.scores(s.prob), self.scores(g.ds));
        attention_pool::backward(r, &dq, &dk, &dv, &ds, &dattended, &q, &k, &v, &prob, dims)?;

        // The first token's share as a query, zero elsewhere; then all tokens' as keys and values.
        let (query, dquery) = (self.row(s.query), self.row(g.dquery));
        matmul::backward_input(r, &dquery, &dq, &self.weight(net.q), self.batch, dim, dim)?;
        self.project_params(r, dw, &dq, &query, net.q)?;
        let (tokens, dtokens) = (self.rows(s.tokens), self.rows(g.dtokens));
        pool::backward(r, &dtokens, &dquery, self.first_token(), false)?;
        for (dout, linear) in [(&dk, net.k), (&dv, net.v)] {
            matmul::backward_input_added(r, &dtokens, dout, &self.weight(linear), rows, dim, dim)?;
            self.project_params(r, dw, dout, &tokens, linear)?;
        }
        attention_pool::assemble_backward(r, dinp, &self.layout.view(dw, net.positions), &dtokens, dims)
    }
}
