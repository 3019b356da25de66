//! What follows the last block of a vision transformer: final norm, pooling, projection, head; and its visible reverse.

use crate::error::Result;
use crate::gpu::View;
use crate::model::activations::Mode;
use crate::model::config::{Pool, Projection, VitConfig};
use crate::model::head::{HeadPass, UnitSlots};
use crate::model::plan::{Plan, Slot};
use crate::model::vit::VitPass;
use crate::model::vit_activations::BackwardSlots;
use crate::model::vit_pool::{PoolPass, PoolSlots};
use crate::ops::{Recorder, average, column_sum, layer_norm, matmul, pool};

/// What follows the last block.
#[derive(Clone, Debug)]
pub(super) struct TailSlots {
    /// The final norm's output, over all tokens or over pooled ones, and its statistics.
    normed: Slot,
    mean: Slot,
    rstd: Slot,
    pooled: Slot,
    attention: Option<PoolSlots>,
    /// What leaves the projection, `[B, E]`.
    projected: Option<Slot>,
    unit: Option<UnitSlots>,
    distilled: Option<DistilledSlots>,
    backward: Option<TailGradients>,
}

/// What a distilled model has besides.
#[derive(Clone, Copy, Debug)]
struct DistilledSlots {
    pooled: Slot,
    /// Of either head, `[B, C]`.
    logits: [Slot; 2],
}

#[derive(Clone, Copy, Debug)]
struct TailGradients {
    /// Of the final norm's output over all tokens.
    dnormed: Slot,
    dpooled: Slot,
    dfeatures: Slot,
    dprojected: Option<Slot>,
    /// Of the distillation token, and of either head's logits.
    distilled: Option<(Slot, Slot)>,
}

impl TailSlots {
    /// Adds them to `plan` for up to `batch` images.
    pub(super) fn plan(c: &VitConfig, plan: &mut Plan, batch: usize, mode: Mode) -> TailSlots {
        let (d, rows) = (c.dim, batch * c.tokens());
        let normed_rows = if c.fc_norm { batch } else { rows };
        let (features, logits) = (batch * c.features(), batch * c.classes.max(1));
        let (projects, distilled) = (c.parts.projection.is_some(), c.parts.distilled);
        TailSlots {
            backward: (mode != Mode::Infer).then(|| TailGradients {
                dnormed: plan.add("gradient of the final norm", rows * d),
                dpooled: plan.add("gradient of the pooled features", batch * d),
                dfeatures: plan.add("gradient of the features", batch * d),
                dprojected: projects.then(|| plan.add("gradient of the projected features", features)),
                distilled: distilled.then(|| {
                    let token = plan.add("gradient of the distillation token", batch * d);
                    (token, plan.add("gradient of either head's logits", logits))
                }),
            }),
            normed: plan.add("final norm", normed_rows * d),
            mean: plan.add("final norm mean", normed_rows),
            rstd: plan.add("final norm rstd", normed_rows),
            pooled: plan.add("pooled features", batch * d),
            attention: PoolSlots::plan(c, plan, batch, mode),
            projected: projects.then(|| plan.add("projected features", features)),
            unit: UnitSlots::plan(plan, c.parts.normalize, batch, c.features(), mode),
            distilled: distilled.then(|| DistilledSlots {
                pooled: plan.add("pooled distillation token", batch * d),
                logits: ["head", "head_dist"].map(|head| plan.add(format!("logits of {head}"), logits)),
            }),
        }
    }
}

impl<'a> VitPass<'a> {
    fn pool_dims(&self) -> pool::Dims {
        let c = self.config();
        let (tokens, prefix) = (c.tokens(), c.prefix().tokens());
        let (first, count) = if c.pool == Pool::Mean { (prefix, tokens - prefix) } else { (0, 1) };
        pool::Dims { batch: self.batch, tokens, dim: c.dim, first, count }
    }

    /// The distillation token.
    fn second_token(&self) -> pool::Dims {
        pool::Dims { first: 1, count: 1, ..self.pool_dims() }
    }

    /// The final norm's prefix and rows: over pooled features with `fc_norm`, else over all tokens.
    fn final_norm(&self) -> (&'static str, usize) {
        if self.config().fc_norm { ("fc_norm", self.batch) } else { ("norm", self.rows()) }
    }

    fn attention_pool<'b>(&'b self, w: &'b View) -> Option<PoolPass<'b>> {
        let (config, pool) = (self.config(), self.config().parts.attention_pool?);
        let (slots, acts) = (self.slots.tail.attention.as_ref()?, self.pass.acts);
        Some(PoolPass { config, pool, slots, acts, layout: &self.vit.layout, w, batch: self.batch })
    }

    fn head_pass(&self) -> HeadPass<'a> {
        let (features, classes) = (self.config().features(), self.config().classes);
        HeadPass { acts: self.pass.acts, unit: self.slots.tail.unit, batch: self.batch, features, classes }
    }

    /// Weight and bias of a head.
    fn head(&self, arena: &View, name: &str) -> (View, Option<View>) {
        let bias = self.maybe(self.config().head_bias, arena, &format!("{name}.bias"));
        (self.param(arena, &format!("{name}.weight")), bias)
    }

    /// The projection's weight and bias.
    fn projection(&self, arena: &View, p: Projection) -> (View, Option<View>) {
        let name = if p.transposed { "proj" } else { "proj.weight" };
        (self.param(arena, name), self.maybe(p.bias, arena, "proj.bias"))
    }

    /// From the stream that leaves the last block to the logits.
    pub(super) fn tail_forward(&self, r: &mut Recorder, w: &View) -> Result<()> {
        let (c, a) = (self.config(), &self.slots.tail);
        let (batch, d) = (self.batch, c.dim);
        let last = self.entering(c.depth);
        let (norm, rows) = self.final_norm();
        let (weight, bias) = (self.param(w, &format!("{norm}.weight")), self.param(w, &format!("{norm}.bias")));
        let normed = self.view(a.normed, rows * d);
        let (mean, rstd) = (self.view(a.mean, rows), self.view(a.rstd, rows));
        let pooled = self.view(a.pooled, batch * d);
        let dims = self.norm_dims(rows);
        let features = if c.fc_norm {
            pool::forward(r, &pooled, &last, self.pool_dims())?;
            layer_norm::forward(r, &normed, &mean, &rstd, &pooled, &weight, &bias, dims)?;
            normed.clone()
        } else {
            layer_norm::forward(r, &normed, &mean, &rstd, &last, &weight, &bias, dims)?;
            match self.attention_pool(w) {
                Some(attention) => attention.forward(r, &pooled, &normed)?,
                None => pool::forward(r, &pooled, &normed, self.pool_dims())?,
            }
            pooled
        };
        let features = match c.parts.projection.zip(a.projected) {
            Some((p, slot)) => {
                let (out, e) = (self.view(slot, batch * p.features), p.features);
                let (weight, bias) = self.projection(w, p);
                // x·W is the gradient of a linear layer whose weight is W.
                match p.transposed {
                    true => matmul::backward_input(r, &out, &features, &weight, batch, d, e)?,
                    false => matmul::forward(r, &out, &features, &weight, bias.as_ref(), batch, e, d)?,
                }
                out
            }
            None => features,
        };
        let head = self.head_pass();
        let logits = self.pass.logits();
        let (weight, bias) = self.head(w, "head");
        let Some(distilled) = a.distilled else {
            return head.forward(r, &logits, &features, &weight, bias.as_ref());
        };
        let second = self.view(distilled.pooled, batch * d);
        pool::forward(r, &second, &normed, self.second_token())?;
        let either = distilled.logits.map(|slot| self.view(slot, logits.len));
        head.forward(r, &either[0], &features, &weight, bias.as_ref())?;
        let (weight, bias) = self.head(w, "head_dist");
        head.forward(r, &either[1], &second, &weight, bias.as_ref())?;
        average::forward(r, &logits, &either[0], &either[1])
    }

    /// From the gradient of the logits to that of the stream that leaves the last block, which is assigned.
    pub(super) fn tail_backward(&self, r: &mut Recorder, w: &View, dw: &View, back: &BackwardSlots) -> Result<()> {
        let (c, a) = (self.config(), &self.slots.tail);
        let g = a.backward.as_ref().expect("backward needs activations planned for training");
        let (batch, d) = (self.batch, c.dim);
        let dx = self.stream(back.dx);
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
        let head = self.head_pass();
        let mut dlogits = self.pass.dlogits();
        let mut dsecond = None;
        if let Some((distilled, (dtoken, half))) = a.distilled.zip(g.distilled) {
            let (half, dtoken) = (self.view(half, dlogits.len), self.view(dtoken, batch * d));
            average::backward(r, &half, &dlogits)?;
            dlogits = half;
            let second = self.view(distilled.pooled, batch * d);
            let (dweight, dbias) = self.head(dw, "head_dist");
            let weight = self.head(w, "head_dist").0;
            head.backward(r, &dtoken, (&dweight, dbias.as_ref()), &dlogits, &second, &weight)?;
            dsecond = Some(dtoken);
        }
        let (own_dweight, own_dbias) = self.head(dw, "head");
        let grads = (&own_dweight, own_dbias.as_ref());
        let head_weight = self.head(w, "head").0;
        match c.parts.projection.zip(a.projected.zip(g.dprojected)) {
            Some((p, (out, dout))) => {
                let [out, dout] = [out, dout].map(|slot| self.view(slot, batch * p.features));
                head.backward(r, &dout, grads, &dlogits, &out, &head_weight)?;
                self.projection_backward(r, w, dw, &dfeatures, &dout, features, p)?;
            }
            None => head.backward(r, &dfeatures, grads, &dlogits, features, &head_weight)?,
        }

        if c.fc_norm {
            layer_norm::backward_params(r, &dweight, &dbias, &dfeatures, &pooled, &mean, &rstd, dims)?;
            layer_norm::backward_input(r, &dpooled, &dfeatures, &pooled, &weight, &mean, &rstd, dims, false)?;
            return pool::backward(r, &dx, &dpooled, self.pool_dims(), false);
        }
        let dnormed = self.stream(g.dnormed);
        match self.attention_pool(w) {
            Some(attention) => attention.backward(r, dw, &dnormed, &dfeatures, &normed)?,
            None => pool::backward(r, &dnormed, &dfeatures, self.pool_dims(), false)?,
        }
        if let Some(dsecond) = dsecond {
            pool::backward(r, &dnormed, &dsecond, self.second_token(), true)?;
        }
        layer_norm::backward_params(r, &dweight, &dbias, &dnormed, &last, &mean, &rstd, dims)?;
        layer_norm::backward_input(r, &dx, &dnormed, &last, &weight, &mean, &rstd, dims, false)
    }

    /// Reverse of the projection: `dinp = ` from `dout`.
    fn projection_backward(
        &self,
        r: &mut Recorder,
        w: &View,
        dw: &View,
        dinp: &View,
        dout: &View,
        inp: &View,
        p: Projection,
    ) -> Result<()> {
        let (batch, d, e) = (self.batch, self.config().dim, p.features);
        let (weight, (dweight, dbias)) = (self.projection(w, p).0, self.projection(dw, p));
        if p.transposed {
            matmul::forward(r, dinp, dout, &weight, None, batch, d, e)?;
            return matmul::backward_weight(r, &dweight, inp, dout, batch, d, e);
        }
        matmul::backward_input(r, dinp, dout, &weight, batch, e, d)?;
        matmul::backward_weight(r, &dweight, dout, inp, batch, e, d)?;
        match dbias {
            Some(dbias) => column_sum::forward(r, &dbias, dout, batch, e),
            None => Ok(()),
        }
    }
}
