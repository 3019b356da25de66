//! Activations are planned before anything is allocated, so that a run can say what it needs and then keep to it.

use crate::error::Result;
use crate::gpu::buffer::align;
use crate::gpu::{Gpu, View};

/// A planned tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// The list of planned tensors: a buffer each.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    slots: Vec<(String, usize)>,
}

impl Plan {
    /// Plans a tensor of `len` elements, named `label` in errors.
    pub fn add(&mut self, label: impl Into<String>, len: usize) -> Slot {
        self.slots.push((label.into(), len));
        Slot(self.slots.len() - 1)
    }

    /// Bytes that [`Plan::allocate`] will take.
    pub fn bytes(&self) -> u64 {
        self.slots.iter().map(|(_, len)| align(*len) as u64 * 4).sum()
    }

    /// Allocates every planned tensor. The error names the one that does not fit, before any is allocated where the
    /// adapter's limits tell.
    pub fn allocate(&self, gpu: &Gpu) -> Result<Planned> {
        self.slots.iter().try_for_each(|(label, len)| gpu.check_binding(label, *len))?;
        let views = self.slots.iter().map(|(label, len)| gpu.buffer(label, *len)).collect::<Result<_>>()?;
        Ok(Planned { views })
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
}
