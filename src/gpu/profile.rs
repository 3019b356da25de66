//! `--trace`: a program replayed with each step in a pass of its own between two timestamps.

use crate::error::{Error, Help, Result};
use crate::gpu::{Gpu, Program, View};

/// The time that one step took.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The kernel's label.
    pub label: String,
    /// Its grid.
    pub grid: [u32; 3],
    /// Milliseconds on the adapter's own clock.
    pub ms: f64,
}

/// Two timestamps per step, and WebGPU's limit of 4,096 queries per set.
const STEPS_A_SET: usize = 2048;

/// Runs `program` once after zeroing `clear`, with timestamps around every step.
///
/// Errors when the adapter has no timestamp queries.
pub fn trace(gpu: &Gpu, clear: &[&View], program: &Program) -> Result<Vec<Timing>> {
    if !gpu.features.contains(wgpu::Features::TIMESTAMP_QUERY) {
        let what = format!("{} has no timestamp queries", gpu.info.name);
        return Err(Error::Adapter(what).with_help(Help::NoTimestamps));
    }
    assert!(!program.exchanges(), "a program for several ranks, traced on one");
    Program::run(gpu, clear, &[])?;
    let mut timings = Vec::new();
    for steps in program.steps.chunks(STEPS_A_SET) {
        let count = steps.len() as u32 * 2;
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("trace"),
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let resolved = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("trace"),
            size: u64::from(count) * 8,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let target = gpu.buffer("trace", count as usize * 2)?;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for (i, step) in steps.iter().enumerate() {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some(&step.kernel.label),
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &queries,
                    beginning_of_pass_write_index: Some(i as u32 * 2),
                    end_of_pass_write_index: Some(i as u32 * 2 + 1),
                }),
            });
            step.encode(&mut pass)?;
        }
        encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &target.buffer.raw, 0, u64::from(count) * 8);
        gpu.queue.submit([encoder.finish()]);
        let words: Vec<u32> = gpu.read(&target)?;
        let ticks: Vec<u64> = words.chunks(2).map(|w| u64::from(w[0]) | u64::from(w[1]) << 32).collect();
        let period = f64::from(gpu.queue.get_timestamp_period()) * 1e-6;
        timings.extend(steps.iter().zip(ticks.chunks(2)).map(|(step, t)| Timing {
            label: step.kernel.label.clone(),
            grid: step.grid,
            ms: t[1].saturating_sub(t[0]) as f64 * period,
        }));
    }
    Ok(timings)
}

/// Sums timings by label, dearest first: label, calls, milliseconds.
pub fn summary(timings: &[Timing]) -> Vec<(String, usize, f64)> {
    let mut by_label: std::collections::BTreeMap<&str, (usize, f64)> = Default::default();
    for t in timings {
        let entry = by_label.entry(&t.label).or_default();
        entry.0 += 1;
        entry.1 += t.ms;
    }
    let mut rows: Vec<_> = by_label.into_iter().map(|(l, (n, ms))| (l.to_string(), n, ms)).collect();
    rows.sort_by(|a, b| b.2.total_cmp(&a.2));
    rows
}
