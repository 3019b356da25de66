//! An f16 copy of the weights that products read, beside the f32 ones that are trained.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::ALIGN;
use crate::model::value::ParamRef;
use crate::ops::{Recorder, cast};
use crate::shapes::ParamLayout;

/// Where the copies lie, one after another.
#[derive(Clone, Debug, Default)]
pub(super) struct HalfWeights {
    /// Number of elements, padding included.
    pub(super) len: usize,
    /// Where each starts, by its place in the layout.
    offsets: Vec<(usize, usize)>,
}

impl HalfWeights {
    /// Of the parameters at these places.
    pub(super) fn new(layout: &ParamLayout, places: &[usize]) -> HalfWeights {
        // Twice as many halves as words lie between two places where a view may start.
        let align = |len: usize| len.next_multiple_of(2 * ALIGN);
        let (mut len, mut offsets) = (0, Vec::new());
        for (place, param) in layout.params.iter().enumerate().filter(|(place, _)| places.contains(place)) {
            offsets.push((place, len));
            len += align(param.len);
        }
        HalfWeights { len, offsets }
    }

    /// The copy of a parameter in `arena`.
    pub(super) fn view(&self, arena: &View, layout: &ParamLayout, param: ParamRef) -> View {
        let start = |place: usize| {
            let own = self.offsets.iter().find(|(i, _)| *i == place);
            own.unwrap_or_else(|| panic!("{} has no copy", layout.params[place].name)).1
        };
        let ends = |place: usize| start(place) + layout.params[place].len;
        let adjoin = param.places().skip(1).all(|place| ends(place - 1) == start(place));
        assert!(adjoin, "weights of one product lie apart");
        arena.slice(start(param.index) + param.skip, param.len)
    }

    /// Copies them from arena `w` to `arena`.
    pub(super) fn cast(&self, r: &mut Recorder, arena: &View, layout: &ParamLayout, w: &View) -> Result<()> {
        for (place, offset) in &self.offsets {
            let out = arena.slice(*offset, layout.params[*place].len);
            cast::forward(r, &out, &layout.view(w, *place))?;
        }
        Ok(())
    }
}
