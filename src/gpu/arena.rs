//! Arenas on the device: one buffer for all tensors of a [`ParamLayout`].

use crate::error::Result;
use crate::gpu::buffer::align;
use crate::gpu::{Gpu, View};
use crate::shapes::ParamLayout;

impl ParamLayout {
    /// A zeroed arena with this layout, named `role` in errors.
    pub fn arena(&self, gpu: &Gpu, role: &str) -> Result<View> {
        gpu.large_buffer(role, self.len)
    }

    /// Bytes of such an arena.
    pub fn arena_bytes(&self) -> u64 {
        align(self.len.max(1)) as u64 * 4
    }

    /// The view of tensor `index` in an arena.
    pub fn view(&self, arena: &View, index: usize) -> View {
        arena.slice(self.params[index].offset, self.params[index].len)
    }
}
