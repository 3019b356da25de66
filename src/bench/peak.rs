//! What the adapter can do at best, measured on it.

use std::time::Duration;

use crate::bench::timer::{Budget, Times};
use crate::error::Result;
use crate::gpu::{Gpu, Program, View};
use crate::ops::{Recorder, peak};

/// Best figures of a few repeats.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// Billions of floating-point operations per second: multiply-adds in registers, two operations each.
    pub gflops: f64,
    /// Billions of bytes per second that a large copy moves, read and written: the better of a kernel's and the driver's.
    pub gbs: f64,
}

/// A peak's measurement: what took how long, and its work per repeat.
#[derive(Debug)]
pub struct Measured {
    /// In words.
    pub shape: String,
    /// The times.
    pub times: Times,
    /// Operations or bytes per repeat.
    pub work: f64,
}

/// A copy's measurement.
#[derive(Debug)]
pub struct MeasuredCopy {
    /// By the faster way.
    pub best: Measured,
    /// Billions of bytes per second of the kernel: what no kernel here reads and writes faster.
    pub kernel_gbs: f64,
}

/// Long enough to see the adapter at its full clock, short enough to stand before every benchmark.
const BUDGET: Budget = Budget { seconds: 0.5, warmup: 2, min_reps: 5, max_reps: 200 };

impl Peak {
    /// Measures both.
    pub fn measure(gpu: &Gpu) -> Result<Peak> {
        let [fma, copy] = [multiply_add(gpu, &BUDGET)?, copy(gpu, &BUDGET)?.best];
        let best = |m: &Measured| m.work / m.times.min() / 1e6;
        Ok(Peak { gflops: best(&fma), gbs: best(&copy) })
    }
}

/// The multiply-add kernel: enough lanes to fill the adapter, loops that take a few milliseconds on a fast one.
pub fn multiply_add(gpu: &Gpu, budget: &Budget) -> Result<Measured> {
    let (lanes, loops) = if gpu.is_cpu() { (1 << 14, 512) } else { (1 << 20, 1024) };
    let len = 4 * lanes;
    let (inp, out) = (gpu.buffer("peak input", len)?, gpu.buffer("peak output", len)?);
    let scratch = gpu.buffer("scratch", 1)?;
    let mut r = Recorder::new(gpu, &scratch);
    // The values settle near 1: nothing overflows, nothing is denormal.
    peak::multiply_add(&mut r, &out, &inp, loops, 0.5, 0.5)?;
    let program = r.program;
    let times = budget.time(|| run(gpu, &[&program]))?;
    let shape = format!("{lanes} lanes × {} multiply-adds", peak::flop(4, loops) / 2.0);
    Ok(Measured { shape, times, work: peak::flop(len, loops) })
}

/// Copies by a kernel and by the driver.
pub fn copy(gpu: &Gpu, budget: &Budget) -> Result<MeasuredCopy> {
    let copy = Copy::new(gpu)?;
    let kernel = budget.time(|| copy.by_kernel(1))?;
    let driver = budget.time(|| copy.by_driver(1))?;
    let kernel_gbs = copy.bytes() / kernel.min() / 1e6;
    let (how, times) = if kernel.min() <= driver.min() { ("kernel", kernel) } else { ("driver", driver) };
    let best = Measured { shape: format!("{} MiB, by {how}", copy.len >> 20), times, work: copy.bytes() };
    Ok(MeasuredCopy { best, kernel_gbs })
}

/// A copy between buffers that no cache holds, where the adapter allows such.
#[derive(Debug)]
pub struct Copy<'g> {
    gpu: &'g Gpu,
    inp: View,
    out: View,
    program: Program,
    /// Bytes of a buffer.
    len: u64,
}

impl<'g> Copy<'g> {
    /// Allocates the buffers.
    pub fn new(gpu: &'g Gpu) -> Result<Self> {
        let largest = gpu.limits.max_storage_buffer_binding_size.min(gpu.limits.max_buffer_size);
        let len = largest.min(if gpu.is_cpu() { 64 << 20 } else { 256 << 20 });
        let inp = gpu.upload("copy input", &vec![1.0f32; len as usize / 4])?;
        let out = gpu.buffer("copy output", len as usize / 4)?;
        let scratch = gpu.buffer("scratch", 1)?;
        let mut r = Recorder::new(gpu, &scratch);
        peak::copy(&mut r, &out, &inp)?;
        Ok(Copy { gpu, inp, out, program: r.program, len })
    }

    /// Bytes that a copy reads and writes.
    pub fn bytes(&self) -> f64 {
        2.0 * self.len as f64
    }

    /// Copies so often by a kernel, and waits.
    pub fn by_kernel(&self, times: usize) -> Result<()> {
        run(self.gpu, &vec![&self.program; times])
    }

    /// Copies so often by the driver's own means, and waits.
    pub fn by_driver(&self, times: usize) -> Result<()> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        for _ in 0..times {
            encoder.copy_buffer_to_buffer(&self.inp.buffer.raw, 0, &self.out.buffer.raw, 0, self.len);
        }
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.wait()
    }
}

/// Runs `programs` and waits for them.
pub fn run(gpu: &Gpu, programs: &[&Program]) -> Result<()> {
    Program::run(gpu, &[], programs)?;
    gpu.wait()
}

/// How often a program of this length goes into one submit, so that the wait at its end does not count.
pub fn repeats(once: Duration) -> usize {
    (Duration::from_millis(20).as_secs_f64() / once.as_secs_f64().max(1e-6)).ceil().clamp(1.0, 64.0) as usize
}
