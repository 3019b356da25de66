//! Activations are planned before anything is allocated, so that a run can say what it needs and then keep to it.
//!
//! Tensors whose lifetimes do not overlap take turns in a buffer. A buffer holds one tensor at a time, and those that one
//! dispatch touches are all alive: so they lie in different buffers, as WebGPU wants where one of them is written.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::error::Result;
use crate::gpu::buffer::align;
use crate::gpu::{Gpu, View};

/// A planned tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// The first and the last dispatch that touch a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    first: usize,
    last: usize,
}

impl Lifetime {
    fn overlaps(self, other: Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The lifetimes of a plan's tensors; none for a tensor that no dispatch touches.
pub type Lifetimes = Vec<Option<Lifetime>>;

#[derive(Clone, Debug)]
struct Tensor {
    label: String,
    len: usize,
    /// Which buffer it lies in.
    buffer: usize,
    /// Never shares its buffer.
    kept: bool,
}

/// Elements of a buffer for `len` of them.
fn padded(len: usize) -> usize {
    align(len.max(1))
}

/// The list of planned tensors, and the buffers that they lie in: one each until [`Plan::pack`].
#[derive(Clone, Debug, Default)]
pub struct Plan {
    tensors: Vec<Tensor>,
    /// Lengths in elements.
    buffers: Vec<usize>,
}

impl Plan {
    /// Plans a tensor of `len` elements that lives from the first to the last dispatch that touches it, named `label` in
    /// errors.
    pub fn add(&mut self, label: impl Into<String>, len: usize) -> Slot {
        self.push(label.into(), len, false)
    }

    /// As [`Plan::add`], for a tensor that the host reads or writes between replays: it has its buffer to itself.
    pub fn keep(&mut self, label: impl Into<String>, len: usize) -> Slot {
        self.push(label.into(), len, true)
    }

    fn push(&mut self, label: String, len: usize, kept: bool) -> Slot {
        self.tensors.push(Tensor { label, len, buffer: self.buffers.len(), kept });
        self.buffers.push(padded(len));
        Slot(self.tensors.len() - 1)
    }

    /// Puts tensors whose lifetimes do not overlap into common buffers: the largest first, each into the smallest buffer
    /// that is free while it lives.
    pub fn pack(&mut self, lifetimes: &Lifetimes) {
        assert_eq!(lifetimes.len(), self.tensors.len(), "lifetimes of another plan");
        let mut order: Vec<usize> = (0..self.tensors.len()).collect();
        order.sort_by_key(|&i| (Reverse(padded(self.tensors[i].len)), lifetimes[i].map(|l| l.first)));
        let mut tenants: Vec<Vec<usize>> = Vec::new();
        self.buffers.clear();
        for i in order {
            // They come by length, so whatever buffer there is is long enough.
            let apart = |&j: &usize| match (lifetimes[i], lifetimes[j]) {
                (Some(a), Some(b)) => !a.overlaps(b),
                _ => true,
            };
            let free = |others: &Vec<usize>| others.iter().all(|j| !self.tensors[*j].kept && apart(j));
            let found = if self.tensors[i].kept { None } else { tenants.iter().rposition(free) };
            let buffer = found.unwrap_or_else(|| {
                tenants.push(Vec::new());
                self.buffers.push(padded(self.tensors[i].len));
                self.buffers.len() - 1
            });
            tenants[buffer].push(i);
            self.tensors[i].buffer = buffer;
        }
    }

    /// Bytes that [`Plan::allocate`] will take.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(|len| *len as u64 * 4).sum()
    }

    /// Bytes of one tensor.
    pub fn tensor_bytes(&self, slot: Slot) -> u64 {
        padded(self.tensors[slot.0].len) as u64 * 4
    }

    /// Bytes that are in use at once, at the worst moment: no packing takes fewer.
    pub fn least_bytes(&self, lifetimes: &Lifetimes) -> u64 {
        let bytes = |i: usize| self.tensor_bytes(Slot(i));
        let (kept, shared): (Vec<usize>, Vec<usize>) = (0..self.tensors.len()).partition(|&i| self.tensors[i].kept);
        let alive = |i: usize, at: usize| lifetimes[i].is_some_and(|l| l.first <= at && at <= l.last);
        let at = |at: usize| shared.iter().filter(|&&i| alive(i, at)).map(|&i| bytes(i)).sum::<u64>();
        let busiest = lifetimes.iter().flatten().map(|l| at(l.first)).max().unwrap_or(0);
        busiest + kept.iter().map(|&i| bytes(i)).sum::<u64>()
    }

    /// Whether no two tensors of one buffer are alive at once.
    pub fn holds(&self, lifetimes: &Lifetimes) -> bool {
        let clash = |(i, a): (usize, &Tensor)| {
            self.tensors[..i].iter().zip(lifetimes).any(|(b, other)| {
                let both = lifetimes[i].zip(*other).is_some_and(|(a, b)| a.overlaps(b));
                a.buffer == b.buffer && (both || a.kept || b.kept)
            })
        };
        !self.tensors.iter().enumerate().any(clash)
    }

    /// Allocates the buffers. The error names the tensor that does not fit, before any is allocated where the adapter's
    /// limits tell.
    pub fn allocate(&self, gpu: &Gpu) -> Result<Planned> {
        // The longest tensor of a buffer names it.
        let label = |buffer: usize, len: usize| {
            let named = self.tensors.iter().find(|t| t.buffer == buffer && padded(t.len) == len);
            named.map_or("activations", |t| t.label.as_str())
        };
        let buffers: Vec<(&str, usize)> =
            self.buffers.iter().enumerate().map(|(b, &len)| (label(b, len), len)).collect();
        buffers.iter().try_for_each(|(label, len)| gpu.check_binding(label, *len))?;
        let buffers: Vec<View> = buffers.iter().map(|(label, len)| gpu.buffer(label, *len)).collect::<Result<_>>()?;
        Ok(Planned { views: self.tensors.iter().map(|t| buffers[t.buffer].first(t.len)).collect() })
    }

    /// Views without memory behind them, a buffer each: what a program is recorded against to see which dispatch touches
    /// which tensor.
    pub fn placeholders(&self, gpu: &Gpu) -> Result<Planned> {
        let memory = gpu.buffer("placeholder", 1)?;
        Ok(Planned { views: self.tensors.iter().map(|t| memory.placeholder(t.len)).collect() })
    }
}

/// The allocated tensors of a [`Plan`].
#[derive(Clone, Debug)]
pub struct Planned {
    views: Vec<View>,
}

impl Planned {
    /// The first `len` elements of a tensor: a smaller batch uses a part of what was planned for the largest.
    pub fn view(&self, slot: Slot, len: usize) -> View {
        self.views[slot.0].first(len)
    }

    /// All of a tensor.
    pub fn whole(&self, slot: Slot) -> View {
        self.views[slot.0].clone()
    }

    /// When these placeholders live, from the ids of the buffers that each dispatch touches.
    pub fn lifetimes(&self, touched: &[Vec<u64>]) -> Lifetimes {
        let mut lives: HashMap<u64, Lifetime> = HashMap::new();
        for (at, ids) in touched.iter().enumerate() {
            for id in ids {
                lives.entry(*id).or_insert(Lifetime { first: at, last: at }).last = at;
            }
        }
        self.views.iter().map(|view| lives.get(&view.buffer.id).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(first: usize, last: usize) -> Option<Lifetime> {
        Some(Lifetime { first, last })
    }

    #[test]
    fn tensors_take_turns_and_never_meet() {
        let mut plan = Plan::default();
        for len in [64, 128, 128, 64, 64] {
            plan.add("tensor", len);
        }
        plan.keep("host's", 64);
        // The second and third touch in dispatch 2, so they can't share; the fourth takes the second's place.
        let lifetimes = vec![life(0, 1), life(1, 2), life(2, 4), life(3, 3), None, life(9, 9)];
        let least = plan.least_bytes(&lifetimes);
        plan.pack(&lifetimes);
        assert!(plan.holds(&lifetimes));
        assert_eq!(plan.bytes(), least);
        assert_eq!(least, (128 + 128 + 64) * 4);
        assert_eq!(plan.tensors[3].buffer, plan.tensors[1].buffer);
        let longer = vec![life(0, 1), life(1, 3), life(2, 4), life(3, 3), None, life(9, 9)];
        assert!(!plan.holds(&longer), "a lifetime was declared too short");
    }
}
