//! Activations are planned before anything is allocated, so that a run can say what it needs and then keep to it.
//!
//! Tensors whose lifetimes do not overlap take turns in the same place, and a buffer may hold several short ones beside
//! each other. Those that one dispatch touches lie in different buffers, as WebGPU wants where one of them is written.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::gpu::buffer::{Element, align};
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

/// When the tensors of a plan live.
#[derive(Clone, Debug, Default)]
pub struct Lifetimes {
    /// None for a tensor that no dispatch touches.
    lives: Vec<Option<Lifetime>>,
    /// Pairs that one dispatch touches, the earlier tensor first.
    together: HashSet<(usize, usize)>,
}

impl Lifetimes {
    /// From the tensors that each dispatch touches, of `count` tensors.
    fn new(count: usize, touched: &[Vec<usize>]) -> Lifetimes {
        let mut lifetimes = Lifetimes { lives: vec![None; count], together: HashSet::new() };
        for (at, tensors) in touched.iter().enumerate() {
            for &i in tensors {
                lifetimes.lives[i].get_or_insert(Lifetime { first: at, last: at }).last = at;
                lifetimes.together.extend(tensors.iter().filter(|&&j| i < j).map(|&j| (i, j)));
            }
        }
        lifetimes
    }

    fn overlap(&self, i: usize, j: usize) -> bool {
        self.lives[i].zip(self.lives[j]).is_some_and(|(a, b)| a.overlaps(b))
    }

    fn meet(&self, i: usize, j: usize) -> bool {
        self.together.contains(&(i.min(j), i.max(j)))
    }
}

#[derive(Clone, Debug)]
struct Tensor {
    label: String,
    /// In words.
    len: usize,
    /// What it holds, and how many of them.
    element: Element,
    count: usize,
    /// Which buffer it lies in, and where.
    buffer: usize,
    offset: usize,
    /// Never shares its buffer.
    kept: bool,
}

impl Tensor {
    fn inside(&self, words: &View) -> View {
        words.holding(self.element, self.count)
    }
}

/// Words of a buffer for `len` of them.
fn padded(len: usize) -> usize {
    align(len.max(1))
}

/// The list of planned tensors, and the buffers that they lie in: one each until [`Plan::pack`].
#[derive(Clone, Debug, Default)]
pub struct Plan {
    tensors: Vec<Tensor>,
    /// Lengths in words.
    buffers: Vec<usize>,
    slots: HashMap<String, Slot>,
}

impl Plan {
    /// Plans a tensor of `len` elements, called `label` by [`Plan::find`] and in errors. It lives from the first to the last
    /// dispatch that touches it; if `kept`, it has its buffer to itself, for the host to read or write between replays.
    pub fn add(&mut self, label: &str, element: Element, count: usize, kept: bool) -> Slot {
        let slot = Slot(self.tensors.len());
        let before = self.slots.insert(label.to_string(), slot);
        assert!(before.is_none(), "two tensors are called {label}");
        let len = element.words(count);
        let label = label.to_string();
        self.tensors.push(Tensor { label, len, element, count, buffer: self.buffers.len(), offset: 0, kept });
        self.buffers.push(padded(len));
        slot
    }

    /// The tensor of this name.
    pub fn find(&self, label: &str) -> Slot {
        *self.slots.get(label).unwrap_or_else(|| panic!("{label} was not planned"))
    }

    /// Puts tensors into common buffers: the longest first, each into the tightest gap that is free while it lives.
    pub fn pack(&mut self, lifetimes: &Lifetimes) {
        assert_eq!(lifetimes.lives.len(), self.tensors.len(), "lifetimes of another plan");
        let mut order: Vec<usize> = (0..self.tensors.len()).collect();
        order.sort_by_key(|&i| (Reverse(padded(self.tensors[i].len)), lifetimes.lives[i].map(|l| l.first)));
        let mut tenants: Vec<Vec<usize>> = Vec::new();
        self.buffers.clear();
        for i in order {
            let len = padded(self.tensors[i].len);
            let welcome = |others: &Vec<usize>| others.iter().all(|&j| !self.tensors[j].kept && !lifetimes.meet(i, j));
            let open = tenants.iter().enumerate().filter(|(_, others)| !self.tensors[i].kept && welcome(others));
            let gaps = open.flat_map(|(buffer, others)| {
                let taken = others.iter().filter(|&&j| lifetimes.overlap(i, j)).map(|&j| {
                    let offset = self.tensors[j].offset;
                    (offset, offset + padded(self.tensors[j].len))
                });
                gaps(taken.collect(), self.buffers[buffer])
                    .into_iter()
                    .map(move |(start, end)| (end - start, buffer, start))
            });
            let (buffer, offset) = match gaps.filter(|(free, ..)| *free >= len).min() {
                Some((_, buffer, offset)) => (buffer, offset),
                None => {
                    tenants.push(Vec::new());
                    self.buffers.push(len);
                    (self.buffers.len() - 1, 0)
                }
            };
            tenants[buffer].push(i);
            (self.tensors[i].buffer, self.tensors[i].offset) = (buffer, offset);
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
        let alive = |i: usize, at: usize| lifetimes.lives[i].is_some_and(|l| l.first <= at && at <= l.last);
        let at = |at: usize| shared.iter().filter(|&&i| alive(i, at)).map(|&i| bytes(i)).sum::<u64>();
        let busiest = lifetimes.lives.iter().flatten().map(|l| at(l.first)).max().unwrap_or(0);
        busiest + kept.iter().map(|&i| bytes(i)).sum::<u64>()
    }

    /// Whether no tensor lies where another that is alive does, nor in the buffer of another that it meets in a dispatch.
    pub fn holds(&self, lifetimes: &Lifetimes) -> bool {
        let pairs = (0..self.tensors.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        let neighbours = pairs.filter(|&(i, j)| self.tensors[i].buffer == self.tensors[j].buffer);
        !neighbours.into_iter().any(|(i, j)| {
            let (a, b) = (&self.tensors[i], &self.tensors[j]);
            let apart = a.offset + a.len <= b.offset || b.offset + b.len <= a.offset;
            a.kept || b.kept || lifetimes.meet(i, j) || (lifetimes.overlap(i, j) && !apart)
        })
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
        Ok(Planned {
            views: self.tensors.iter().map(|t| t.inside(&buffers[t.buffer].slice(t.offset, t.len))).collect(),
        })
    }

    /// Views without memory behind them, a buffer each: what a program is recorded against to see which dispatch touches
    /// which tensor.
    pub fn placeholders(&self, gpu: &Gpu) -> Result<Planned> {
        let memory = gpu.buffer("placeholder", 1)?;
        Ok(Planned { views: self.tensors.iter().map(|t| t.inside(&memory.placeholder(t.len))).collect() })
    }
}

/// The allocated tensors of a [`Plan`].
#[derive(Clone, Debug, Default)]
pub struct Planned {
    views: Vec<View>,
}

impl Planned {
    /// The next tensor of a plan that is being made.
    pub(super) fn push(&mut self, view: View) {
        self.views.push(view);
    }

    /// The first `len` elements of a tensor: a smaller batch uses a part of the tensor planned for the largest.
    pub fn view(&self, slot: Slot, len: usize) -> View {
        self.views[slot.0].first(len)
    }

    /// When these placeholders live, from the ids of the buffers that each dispatch touches.
    pub fn lifetimes(&self, touched: &[Vec<u64>]) -> Lifetimes {
        let slots: HashMap<u64, usize> = self.views.iter().enumerate().map(|(i, v)| (v.buffer.id, i)).collect();
        let tensors = |ids: &Vec<u64>| ids.iter().filter_map(|id| slots.get(id).copied()).collect();
        Lifetimes::new(self.views.len(), &touched.iter().map(tensors).collect::<Vec<_>>())
    }
}

/// What `taken` ranges leave of `len` elements.
fn gaps(mut taken: Vec<(usize, usize)>, len: usize) -> Vec<(usize, usize)> {
    taken.sort_unstable();
    let (mut gaps, mut end) = (Vec::new(), 0);
    for (from, to) in taken.into_iter().chain([(len, len)]) {
        if from > end {
            gaps.push((end, from));
        }
        end = end.max(to);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_take_turns_and_never_meet() {
        let mut plan = Plan::default();
        for (i, len) in [100, 128, 128, 64, 64].into_iter().enumerate() {
            plan.add(&format!("tensor {i}"), Element::Word, len, false);
        }
        plan.add("host's", Element::Word, 64, true);
        // The last is touched by nobody. Tensor 3 finds room where tensor 0 or 1 was; 1 and 2 meet, and may not share.
        let lifetimes = Lifetimes::new(6, &[vec![0], vec![0, 1], vec![1, 2], vec![2, 3], vec![2], vec![5]]);
        assert!(plan.holds(&lifetimes));
        plan.pack(&lifetimes);
        assert!(plan.holds(&lifetimes));
        assert_eq!(plan.bytes(), (128 + 128 + 64) * 4);
        assert_eq!(plan.least_bytes(&lifetimes), plan.bytes());
        assert_eq!((plan.tensors[3].buffer, plan.tensors[0].buffer), (plan.tensors[1].buffer, plan.tensors[2].buffer));
        let longer = Lifetimes::new(6, &[vec![0], vec![0, 1], vec![1, 2], vec![2, 3], vec![2, 1], vec![5]]);
        assert!(!plan.holds(&longer), "a lifetime was taken too short");
    }

    #[test]
    fn short_tensors_lie_beside_each_other() {
        let mut plan = Plan::default();
        for (i, len) in [256, 64, 64, 128].into_iter().enumerate() {
            plan.add(&format!("tensor {i}"), Element::Word, len, false);
        }
        let lifetimes = Lifetimes::new(4, &[vec![1], vec![2], vec![3], vec![1], vec![2], vec![3], vec![0]]);
        plan.pack(&lifetimes);
        assert!(plan.holds(&lifetimes));
        assert_eq!(plan.bytes(), 256 * 4);
        assert_eq!(gaps(vec![(64, 128), (0, 32), (96, 160)], 192), [(32, 64), (160, 192)]);
    }
}
