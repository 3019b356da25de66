//! Record once, replay: a [`Program`] is the list of dispatches of one training or inference step, with everything about
//! them decided and checked while it is recorded.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::gpu::buffer::ALIGN;
use crate::gpu::kernel::{Binding, Kernel};
use crate::gpu::{Gpu, View};

/// WebGPU's limit on workgroups along one axis of a grid.
pub const MAX_GROUPS: usize = 65_535;

/// Floating-point operations of a submission to a GPU, at most: twice those of a dispatch, a second on a slow one.
const MAX_SUBMIT_FLOPS: u64 = 40_000_000_000;

/// The immediates of a step: a shader's `Params` struct as bytes.
pub trait Params: bytemuck::Pod {}
impl<T: bytemuck::Pod> Params for T {}

/// One dispatch.
#[derive(Debug)]
pub struct Step {
    /// What runs.
    pub kernel: Arc<Kernel>,
    bind_group: wgpu::BindGroup,
    params: Vec<u8>,
    /// Workgroups along x, y and z.
    pub grid: [u32; 3],
    /// Floating-point operations, where they are what takes its time.
    pub flops: u64,
}

/// A list of dispatches, recorded once and replayed for every batch in one compute pass and one submit.
#[derive(Debug, Default)]
pub struct Program {
    /// The dispatches, in order.
    pub steps: Vec<Step>,
}

/// A grid of `groups` workgroups along x, folded into x and y where x alone would pass the limit. Kernels that are
/// launched so take their index from `fold_index` (shaders/lib/fold.wgsl), and return where it is past the end.
pub fn fold(groups: usize) -> [u32; 3] {
    let y = groups.div_ceil(MAX_GROUPS).max(1);
    [groups.div_ceil(y) as u32, y as u32, 1]
}

impl Program {
    /// An empty program.
    pub fn new() -> Program {
        Program::default()
    }

    /// Records a dispatch of `kernel` over `grid`, binding `views` by the names that the shader gives them.
    ///
    /// Panics, naming kernel and tensor, on a bug of ours: a missing or unknown name, a misaligned view, a buffer
    /// both read and written, overlapping writes, params of another size than the shader's, a grid past WebGPU's limits.
    pub fn push(
        &mut self,
        gpu: &Gpu,
        kernel: &Arc<Kernel>,
        views: &[(&str, &View)],
        params: &impl Params,
        grid: [u32; 3],
    ) {
        let label = &kernel.label;
        let params = bytemuck::bytes_of(params).to_vec();
        let wanted = kernel.interface.immediate_size as usize;
        assert_eq!(params.len(), wanted, "{label}: immediates of {} bytes, the shader has {wanted}", params.len());
        for (axis, &groups) in grid.iter().enumerate() {
            assert!(groups as usize <= MAX_GROUPS, "{label}: {groups} workgroups along axis {axis}");
            assert!(groups > 0, "{label}: an empty grid");
        }
        for (name, view) in views {
            assert!(view.len > 0, "{label}: {name} is empty");
            let start = view.byte_offset();
            assert!(start.is_multiple_of(ALIGN as u64 * 4), "{label}: {name} starts at byte {start}");
            assert!(kernel.interface.bindings.iter().any(|b| b.name == *name), "{label} binds no {name}");
        }
        let bound: Vec<(&Binding, &View)> = kernel
            .interface
            .bindings
            .iter()
            .map(|b| {
                let view = views.iter().find(|(name, _)| *name == b.name);
                (b, view.unwrap_or_else(|| panic!("{label}: {} is not bound", b.name)).1)
            })
            .collect();
        check_conflicts(label, &bound);

        let entries: Vec<_> = bound
            .iter()
            .map(|(b, view)| wgpu::BindGroupEntry {
                binding: b.index,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &view.buffer.raw,
                    offset: view.byte_offset(),
                    size: std::num::NonZeroU64::new(view.byte_len()),
                }),
            })
            .collect();
        let bind_group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(label),
            layout: &kernel.layout,
            entries: &entries,
        });
        self.steps.push(Step { kernel: kernel.clone(), bind_group, params, grid, flops: 0 });
    }

    /// Runs the programs one after another: `clear` is zeroed first, then one compute pass, one submit. On a GPU a long run
    /// is submitted in several parts, since a display shares it and drivers watch how long a submission takes.
    pub fn run(gpu: &Gpu, clear: &[&View], programs: &[&Program]) -> Result<wgpu::SubmissionIndex> {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for view in clear {
            encoder.clear_buffer(&view.buffer.raw, view.byte_offset(), Some(view.byte_len()));
        }
        let steps: Vec<&Step> = programs.iter().flat_map(|program| &program.steps).collect();
        let most = if gpu.is_cpu() { u64::MAX } else { MAX_SUBMIT_FLOPS };
        let parts = submissions(&steps.iter().map(|step| step.flops).collect::<Vec<_>>(), most);
        for (i, part) in parts.iter().enumerate() {
            if i > 0 {
                gpu.queue.submit([encoder.finish()]);
                encoder = gpu.device.create_command_encoder(&Default::default());
            }
            let mut pass = encoder.begin_compute_pass(&Default::default());
            steps[part.clone()].iter().try_for_each(|step| step.encode(&mut pass))?;
        }
        let index = gpu.queue.submit([encoder.finish()]);
        gpu.check()?;
        Ok(index)
    }
}

/// Runs of steps of at most `most` operations each, or of one step.
fn submissions(flops: &[u64], most: u64) -> Vec<Range<usize>> {
    let (mut parts, mut start, mut sum) = (Vec::new(), 0, 0u64);
    for (i, own) in flops.iter().enumerate() {
        if i > start && sum.saturating_add(*own) > most {
            parts.push(start..i);
            (start, sum) = (i, 0);
        }
        sum = sum.saturating_add(*own);
    }
    if start < flops.len() {
        parts.push(start..flops.len());
    }
    parts
}

impl Step {
    pub(crate) fn encode(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        pass.set_pipeline(self.kernel.pipeline()?);
        pass.set_bind_group(0, &self.bind_group, &[]);
        if !self.params.is_empty() {
            pass.set_immediates(0, &self.params);
        }
        pass.dispatch_workgroups(self.grid[0], self.grid[1], self.grid[2]);
        Ok(())
    }
}

/// wgpu rejects a buffer that is both read and written by one dispatch, but accepts overlapping written ranges in
/// silence: both are bugs, found here.
fn check_conflicts(label: &str, bound: &[(&Binding, &View)]) {
    for (i, (a, view_a)) in bound.iter().enumerate() {
        for (b, view_b) in &bound[i + 1..] {
            if view_a.buffer.id != view_b.buffer.id || !(a.writes || b.writes) {
                continue;
            }
            assert!(a.writes && b.writes, "{label}: {} and {} are in one buffer, one is written", a.name, b.name);
            let end = |view: &View| view.byte_offset() + view.byte_len();
            let apart = end(view_a) <= view_b.byte_offset() || end(view_b) <= view_a.byte_offset();
            assert!(apart, "{label}: {} and {} are both written and overlap", a.name, b.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::submissions;

    #[test]
    fn a_submission_ends_before_it_is_too_long() {
        assert_eq!(submissions(&[3, 4, 0, 9, 1], 7), [0..3, 3..4, 4..5]);
        assert_eq!(submissions(&[3, 4, 0, 9, 1], u64::MAX).len(), 1);
        assert_eq!(submissions(&[], 7), []);
    }
}
