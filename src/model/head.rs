//! The end of every model: features, at unit length where that is asked for, and a linear head.

use crate::error::Result;
use crate::gpu::View;
use crate::model::activations::{Activations, Mode};
use crate::model::plan::{Plan, Slot};
use crate::ops::{Recorder, column_sum, l2_normalize, matmul};

/// The activations of features at unit length.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnitSlots {
    out: Slot,
    scale: Slot,
    dout: Option<Slot>,
}

impl UnitSlots {
    /// Adds them to `plan`, where `normalize` asks for them.
    pub(super) fn plan(
        plan: &mut Plan,
        normalize: bool,
        batch: usize,
        features: usize,
        mode: Mode,
    ) -> Option<UnitSlots> {
        normalize.then(|| UnitSlots {
            out: plan.add("features at unit length", batch * features),
            scale: plan.add("inverse norms of the features", batch),
            dout: (mode != Mode::Infer).then(|| plan.add("gradient of the features at unit length", batch * features)),
        })
    }
}

/// A head with its activations at one batch size.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadPass<'a> {
    pub(super) acts: &'a Activations,
    pub(super) unit: Option<UnitSlots>,
    pub(super) batch: usize,
    pub(super) features: usize,
    pub(super) classes: usize,
}

impl HeadPass<'_> {
    fn wide(&self, slot: Slot) -> View {
        self.acts.view(slot, self.batch * self.features)
    }

    /// `logits = ` from `inp` `[B, F]`.
    pub(super) fn forward(
        &self,
        r: &mut Recorder,
        logits: &View,
        inp: &View,
        weight: &View,
        bias: Option<&View>,
    ) -> Result<()> {
        let inp = match self.unit {
            Some(unit) => {
                let (out, scale) = (self.wide(unit.out), self.acts.view(unit.scale, self.batch));
                l2_normalize::forward(r, &out, &scale, inp, self.batch, self.features)?;
                out
            }
            None => inp.clone(),
        };
        matmul::forward(r, logits, &inp, weight, bias, self.batch, self.classes, self.features)
    }

    /// `dinp = ` from `dlogits`; adds to `dweight` and `dbias`. `inp` and `weight` are what forward had.
    pub(super) fn backward(
        &self,
        r: &mut Recorder,
        dinp: &View,
        (dweight, dbias): (&View, Option<&View>),
        dlogits: &View,
        inp: &View,
        weight: &View,
    ) -> Result<()> {
        let (batch, features, classes) = (self.batch, self.features, self.classes);
        let (inside, dinside) = match self.unit {
            Some(UnitSlots { out, dout: Some(dout), .. }) => (self.wide(out), self.wide(dout)),
            _ => (inp.clone(), dinp.clone()),
        };
        matmul::backward_input(r, &dinside, dlogits, weight, batch, classes, features)?;
        matmul::backward_weight(r, dweight, dlogits, &inside, batch, classes, features)?;
        if let Some(dbias) = dbias {
            column_sum::forward(r, dbias, dlogits, batch, classes)?;
        }
        match self.unit {
            Some(unit) => {
                let scale = self.acts.view(unit.scale, batch);
                l2_normalize::backward(r, dinp, &dinside, &inside, &scale, batch, features)
            }
            None => Ok(()),
        }
    }
}
