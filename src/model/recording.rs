//! A tape that is played: forward, and in reverse.

use std::ops::Range;

use crate::error::Result;
use crate::gpu::View;
use crate::model::store::Store;
use crate::model::tape::{Act, Entry, Tape, Taught};
use crate::ops::Recorder;
use crate::ops::distill::On;

/// A forward pass that has been recorded and may be reversed.
#[derive(Debug)]
pub struct Recording<'a> {
    store: Store<'a>,
    entries: Vec<Entry>,
    /// The entries in the order whose reverse backward takes.
    order: Vec<usize>,
    out: Act,
    taught: Option<Taught>,
    /// Segments below this one are computed once more in backward.
    dropped: usize,
}

/// Values that a loss compares with another model's, `[batch, columns]` each.
#[derive(Clone, Debug)]
pub struct Compared {
    /// What they are.
    pub on: On,
    /// The network's own, after the forward pass.
    pub student: View,
    /// Room for the other's.
    pub teacher: View,
    /// Where the loss writes its gradient before backward; none if it adds to that of the logits.
    pub gradient: Option<View>,
}

impl<'a> Recording<'a> {
    /// Records these layers of the forward pass of `tape`, which ends in `out`, in the tensors of `store`.
    pub(super) fn forward(
        tape: Tape,
        out: Act,
        store: Store<'a>,
        r: &mut Recorder,
        layers: Range<usize>,
        recompute: bool,
    ) -> Result<Recording<'a>> {
        for entry in &tape.entries[layers] {
            entry.layer.forward(&store, r)?;
        }
        // Backward begins with the last segment, whose values are still there.
        let dropped = if recompute { tape.segments.saturating_sub(1) } else { 0 };
        Ok(Recording { store, entries: tape.entries, order: tape.order, out, taught: tape.taught, dropped })
    }

    /// What a loss compares with another model's, if the network distills anything.
    pub fn taught(&self) -> Option<Compared> {
        let Taught { on, student, teacher, gradient } = self.taught?;
        let gradient = gradient.map(|act| self.store.view(act));
        Some(Compared { on, student: self.store.view(student), teacher: self.store.view(teacher), gradient })
    }

    /// Records the way back, from the gradient `dout` of the last value to that of every parameter for which `trained` holds,
    /// by its place; each is added to arena `dw`. What lies before all of these is left out. The gradients of other parameters
    /// stay as they are, or are added too if a kernel has them in any case.
    pub fn backward(mut self, r: &mut Recorder, dout: &View, dw: &View, trained: &dyn Fn(usize) -> bool) -> Result<()> {
        self.store.begin_reverse(dw, trained);
        let works: Vec<bool> =
            self.entries.iter().map(|e| self.store.note_wants(&e.reads, &e.params, &e.writes)).collect();
        self.store.lend(r, self.out, dout.clone())?;
        if let Some(Taught { student, gradient: Some(gradient), .. }) = self.taught {
            let share = self.store.view(gradient);
            self.store.lend(r, student, share)?;
        }
        let mut again = vec![false; self.dropped];
        for &i in self.order.iter().rev() {
            let entry = &self.entries[i];
            // A value that nobody reads has no gradient.
            if !works[i] || !entry.writes.iter().any(|act| self.store.has_gradient(*act)) {
                continue;
            }
            if let Some(again) = entry.segment.and_then(|segment| again.get_mut(segment))
                && !std::mem::replace(again, true)
            {
                let inside = self.entries.iter().filter(|other| other.segment == entry.segment);
                inside.into_iter().try_for_each(|entry| compute_again(entry, &mut self.store, r))?;
            }
            entry.layer.backward(&mut self.store, r)?;
        }
        Ok(())
    }
}

/// Computes once more what a layer's segment has dropped.
fn compute_again(entry: &Entry, s: &mut Store, r: &mut Recorder) -> Result<()> {
    let leaves = entry.writes.iter().any(|act| s.leaves(*act));
    if !leaves {
        entry.writes.iter().for_each(|act| s.renew(*act));
    }
    entry.layer.again(s, r, leaves)
}
