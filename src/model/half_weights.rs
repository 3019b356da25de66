//! An f16 copy of the weights that products read, beside the f32 ones that are trained.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::{ALIGN, Element};
use crate::model::activations::Activations;
use crate::model::params::ParamLayout;
use crate::model::plan::{Plan, Slot};
use crate::ops::{Recorder, cast};

/// The copies, one after another.
#[derive(Clone, Debug)]
pub(super) struct HalfWeights {
    /// Where they lie.
    pub(super) arena: Slot,
    /// Number of elements in `arena`, padding included.
    len: usize,
    /// Where each starts, by its place in the layout.
    offsets: Vec<(usize, usize)>,
}

impl HalfWeights {
    /// Of the parameters whose place and name `product` names.
    pub(super) fn plan(layout: &ParamLayout, plan: &mut Plan, product: impl Fn(usize, &str) -> bool) -> HalfWeights {
        // Twice as many halves as words lie between two places where a view may start.
        let align = |len: usize| len.next_multiple_of(2 * ALIGN);
        let (mut len, mut offsets) = (0, Vec::new());
        for (i, param) in layout.params.iter().enumerate().filter(|(i, param)| product(*i, &param.name)) {
            offsets.push((i, len));
            len += align(param.len);
        }
        HalfWeights { arena: plan.keep_as("weights in f16", Element::Half, len), len, offsets }
    }

    /// The copy of parameters that follow one another without a gap; none where one of them has no copy.
    pub(super) fn run(&self, acts: &Activations, layout: &ParamLayout, indices: &[usize]) -> Option<View> {
        let place = |index: &usize| {
            let (_, offset) = self.offsets.iter().find(|(i, _)| i == index)?;
            Some((*offset, layout.params[*index].len))
        };
        let places = indices.iter().map(place).collect::<Option<Vec<(usize, usize)>>>()?;
        assert!(places.windows(2).all(|p| p[0].0 + p[0].1 == p[1].0), "weights of one product lie apart");
        let whole = acts.view(self.arena, self.len);
        Some(whole.slice(places[0].0, places.iter().map(|(_, len)| len).sum()))
    }

    /// Copies them from arena `w`.
    pub(super) fn cast(&self, r: &mut Recorder, acts: &Activations, layout: &ParamLayout, w: &View) -> Result<()> {
        for (index, offset) in &self.offsets {
            let out = acts.view(self.arena, self.len).slice(*offset, layout.params[*index].len);
            cast::forward(r, &out, &layout.view(w, *index))?;
        }
        Ok(())
    }
}

/// A weight as products read it: its copy where there is one, else itself in arena `w`.
pub(super) fn weight(
    half: Option<&HalfWeights>,
    acts: &Activations,
    layout: &ParamLayout,
    w: &View,
    index: usize,
) -> View {
    let copy = half.and_then(|half| half.run(acts, layout, &[index]));
    copy.unwrap_or_else(|| layout.view(w, index))
}
