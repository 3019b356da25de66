//! Record once, replay: a [`Program`] is the list of dispatches of one training or inference step, with everything about
//! them decided and checked while it is recorded.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gpu::buffer::ALIGN;
use crate::gpu::kernel::{Binding, Kernel};
use crate::gpu::{Gpu, View};
use crate::ranks::Ranks;

/// WebGPU's limit on workgroups along one axis of a grid.
pub const MAX_GROUPS: usize = 65_535;

/// Floating-point operations that a device does in the time that it takes for a byte: GPUs do 10 to 40, small kernels less.
const FLOPS_A_BYTE: u64 = 4;

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
    /// Bytes of what it binds: it reads and writes no more of them, unless again and again.
    bytes: u64,
    /// What it writes.
    written: Vec<View>,
}

/// A list of dispatches, recorded once and replayed for every batch.
#[derive(Debug, Default)]
pub struct Program {
    /// The dispatches, in order.
    pub steps: Vec<Step>,
    exchanges: Vec<Exchange>,
}

/// Before the step with this number, `own` of every rank is written to `all`.
#[derive(Clone, Debug)]
struct Exchange {
    before: usize,
    own: View,
    all: View,
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
        let bytes = bound.iter().map(|(_, view)| view.byte_len()).sum();
        let written = bound.iter().filter(|(binding, _)| binding.writes).map(|(_, view)| (*view).clone()).collect();
        self.steps.push(Step { kernel: kernel.clone(), bind_group, params, grid, flops: 0, bytes, written });
    }

    /// Records that what `own` then holds on every rank is written to `all`, by rank and without gaps, before the steps that follow.
    pub fn gather(&mut self, own: &View, all: &View) {
        assert!(own.len > 0 && all.len.is_multiple_of(own.len), "{} elements of {} each", all.len, own.len);
        self.exchanges.push(Exchange { before: self.steps.len(), own: own.clone(), all: all.clone() });
    }

    /// Whether other ranks take part: such a program needs [`Program::run_with`].
    pub fn exchanges(&self) -> bool {
        !self.exchanges.is_empty()
    }

    /// Runs the programs one after another: `clear` is zeroed first, then one compute pass, one submit; on a GPU as many of
    /// each as its [pace](crate::gpu::pace) asks for. Does not wait for any of them.
    ///
    /// Panics on a program that [exchanges](Program::exchanges) something: a bug of the caller's.
    pub fn run(gpu: &Gpu, clear: &[&View], programs: &[&Program]) -> Result<wgpu::SubmissionIndex> {
        assert!(!programs.iter().any(|program| program.exchanges()), "a program for several ranks, run on one");
        submit(gpu, clear, &programs.iter().flat_map(|program| &program.steps).collect::<Vec<_>>())
    }

    /// The number of steps after which `view` is as the program leaves it.
    pub fn last_write(&self, view: &View) -> usize {
        let writes = |step: &Step| step.written.iter().any(|written| written.overlaps(view));
        self.steps.iter().rposition(writes).map_or(0, |last| last + 1)
    }

    /// As [`Program::run`], and after so many steps of the last program, in ascending order, calls what follows them, which may submit
    /// something too.
    pub fn run_to(
        gpu: &Gpu,
        clear: &[&View],
        programs: &[&Program],
        cuts: &mut dyn Iterator<Item = (usize, Box<dyn FnOnce() + '_>)>,
    ) -> Result<wgpu::SubmissionIndex> {
        assert!(!programs.iter().any(|program| program.exchanges()), "a program for several ranks, run on one");
        let all: Vec<&Step> = programs.iter().flat_map(|program| &program.steps).collect();
        all.iter().try_for_each(|step| step.kernel.pipeline().map(drop))?;
        let first = all.len() - programs.last().map_or(0, |program| program.steps.len());
        let (mut clear, mut done) = (clear, 0);
        for (cut, then) in cuts {
            if first + cut > done || done == 0 {
                submit(gpu, clear, &all[done..first + cut])?;
                (clear, done) = (&[], first + cut);
            }
            then();
        }
        submit(gpu, clear, &all[done..])
    }

    /// As [`Program::run`], on one of several ranks, which all run programs with as many exchanges. Waits for the device at each.
    ///
    /// # Errors
    /// Another rank is gone, or it exchanges something of another length.
    pub fn run_with(
        gpu: &Gpu,
        ranks: &dyn Ranks,
        clear: &[&View],
        programs: &[&Program],
    ) -> Result<wgpu::SubmissionIndex> {
        let all: Vec<&Step> = programs.iter().flat_map(|program| &program.steps).collect();
        all.iter().try_for_each(|step| step.kernel.pipeline().map(drop))?;
        let (mut clear, mut done, mut first) = (clear, 0, 0);
        for program in programs {
            for exchange in &program.exchanges {
                let until = first + exchange.before;
                submit(gpu, clear, &all[done..until])?;
                (clear, done) = (&[], until);
                exchange.run(gpu, ranks)?;
            }
            first += program.steps.len();
        }
        submit(gpu, clear, &all[done..])
    }
}

impl Exchange {
    fn run(&self, gpu: &Gpu, ranks: &dyn Ranks) -> Result<()> {
        let own: Vec<u32> = gpu.read(&self.own)?;
        let told = ranks.gather(bytemuck::cast_slice(&own))?;
        if let Some((rank, bytes)) = told.iter().enumerate().find(|(_, bytes)| bytes.len() != own.len() * 4) {
            let what =
                format!("rank {rank} sent {} bytes where rank {} sent {}", bytes.len(), ranks.rank(), own.len() * 4);
            return Err(Error::Train(what));
        }
        let all: Vec<u32> = bytemuck::pod_collect_to_vec(&told.concat());
        assert_eq!(all.len(), self.all.len, "recorded for another number of ranks");
        gpu.write(&self.all, &all);
        Ok(())
    }
}

/// Zeroes `clear`, then runs these steps.
fn submit(gpu: &Gpu, clear: &[&View], all: &[&Step]) -> Result<wgpu::SubmissionIndex> {
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    for view in clear {
        encoder.clear_buffer(&view.buffer.raw, view.byte_offset(), Some(view.byte_len()));
    }
    // Before a device is kept busy by half of them.
    all.iter().try_for_each(|step| step.kernel.pipeline().map(drop))?;
    let mut left = all;
    loop {
        let (now, later) = left.split_at(if left.is_empty() { 0 } else { gpu.next_part(left) });
        let stopwatch = gpu.stopwatch(now);
        {
            let timestamp_writes = stopwatch.as_ref().map(|watch| watch.writes());
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            now.iter().try_for_each(|step| step.encode(&mut pass))?;
        }
        if let Some(watch) = &stopwatch {
            watch.resolve(&mut encoder);
        }
        let index = gpu.queue.submit([encoder.finish()]);
        if let Some(watch) = stopwatch {
            watch.expect();
        }
        if later.is_empty() {
            gpu.check()?;
            return Ok(index);
        }
        left = later;
        encoder = gpu.device.create_command_encoder(&Default::default());
    }
}

impl Step {
    /// How much there is to do, in floating-point operations; memory counts as some.
    pub fn work(&self) -> u64 {
        self.flops.saturating_add(self.bytes.saturating_mul(FLOPS_A_BYTE))
    }

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
            assert!(!view_a.overlaps(view_b), "{label}: {} and {} are both written and overlap", a.name, b.name);
        }
    }
}
