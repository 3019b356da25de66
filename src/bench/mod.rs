//! Benchmarks: how long the work of a run takes on an adapter, and how far that is from what the adapter can do.
//!
//! [`workloads`] names them all; [`models`] are the very steps and passes of `finetune` and `predict`, [`method`] is TPGM
//! beside them, [`kernels`] are the shaders alone, [`loading`] the images on their way. [`flops`] counts a model's work,
//! [`peak`] measures what the adapter can do, [`timer`] says what is timed, [`tuning`] what the tuner chooses among.

pub mod flops;
pub mod kernels;
mod layers;
pub mod loading;
pub mod method;
pub mod models;
pub mod peak;
pub mod timer;
pub mod tuning;
pub mod workloads;

use std::cell::OnceCell;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::Result;
use crate::gpu::Gpu;
use crate::model::Precision;
use crate::ops::product::Product;
use crate::train;
use crate::train::Event;
use peak::Peak;
use timer::{Budget, Times};
use workloads::Workload;

/// What benchmarks run on.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// What `--adapter` said, for the workload that opens the device anew.
    pub adapter: Option<&'a str>,
    /// How long to measure.
    pub budget: Budget,
    /// Measure the kernels for products that nobody has measured on this adapter, as a run does.
    pub tunes: bool,
    /// The format of the activations of whole models, and of products (`matmul_…`). Kernels alone are measured in f32.
    pub precision: Precision,
    peak: OnceCell<Peak>,
    /// All candidates are measured, of classes that have a choice already, too.
    met: Option<tuning::Met>,
}

/// The work of a repeat, where it can be counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// Floating-point operations.
    Flop(f64),
    /// Bytes that must be read and written at least.
    Bytes(f64),
    /// Both, where either may be the limit.
    Both {
        /// Floating-point operations.
        flop: f64,
        /// Bytes that must be read and written at least.
        bytes: f64,
    },
    /// Neither.
    None,
}

/// What a workload measured.
#[derive(Debug)]
pub struct Figures {
    shape: String,
    precision: Precision,
    times: Times,
    work: Work,
    more: BTreeMap<&'static str, f64>,
}

impl Figures {
    /// Times of repeats of `work`.
    pub fn new(shape: impl Into<String>, times: Times, work: Work) -> Figures {
        Figures { shape: shape.into(), precision: Precision::F32, times, work, more: BTreeMap::new() }
    }

    /// Measured with activations in this format.
    pub fn in_precision(self, precision: Precision) -> Figures {
        Figures { precision, ..self }
    }

    /// With one more figure.
    pub fn with(mut self, name: &'static str, value: f64) -> Figures {
        self.more.insert(name, value);
        self
    }
}

/// A workload's line of the table, an object of the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub workload: &'static str,
    /// Its shape, in words.
    pub shape: String,
    /// The format of its activations.
    pub precision: Precision,
    /// Median milliseconds of a repeat.
    pub median_ms: f64,
    /// The shortest repeat.
    pub min_ms: f64,
    /// Repeats that were timed.
    pub reps: usize,
    /// Billions of floating-point operations per second, of the median.
    pub gflops: Option<f64>,
    /// Billions of bytes per second, of the median.
    pub gbs: Option<f64>,
    /// Share of the adapter's measured peak: of its multiply-adds, of its copy bandwidth where bytes are counted, or of the one that is
    /// nearer where both are.
    pub share_of_peak: Option<f64>,
    /// That peak, in the same unit.
    pub peak: Option<f64>,
    /// The adapter.
    pub adapter: String,
    /// What this workload tells besides.
    #[serde(flatten)]
    pub more: BTreeMap<&'static str, f64>,
}

impl<'a> Bench<'a> {
    /// Benchmarks on `gpu`, which `adapter` named.
    pub fn new(gpu: &'a Gpu, adapter: Option<&'a str>, budget: Budget, tunes: bool) -> Bench<'a> {
        Bench { gpu, adapter, budget, tunes, precision: Precision::F32, peak: OnceCell::new(), met: None }
    }

    /// With activations of whole models in this format.
    ///
    /// Errors where the device has no f16.
    pub fn in_precision(self, precision: Precision) -> Result<Bench<'a>> {
        if precision == Precision::F16 {
            self.gpu.check_f16()?;
        }
        Ok(Bench { precision, ..self })
    }

    /// Chooses kernels for `products`, before anything that has them is timed.
    pub fn tune(&self, products: &[Product]) -> Result<()> {
        if let Some(met) = &self.met {
            return met.measure(self, products);
        }
        if !self.tunes {
            return Ok(());
        }
        train::tuning::tune(self.gpu, products, &mut |event| match event {
            Event::Note(text) | Event::Warning(text) => tracing::info!("{text}"),
            _ => {}
        })
    }

    /// What the adapter can do, measured at the first call.
    pub fn peak(&self) -> Result<Peak> {
        if let Some(peak) = self.peak.get() {
            return Ok(*peak);
        }
        let peak = Peak::measure(self.gpu)?;
        Ok(*self.peak.get_or_init(|| peak))
    }

    /// Measures `workload`.
    ///
    /// Errors where the adapter's memory or limits are too small for it, or the device fails.
    pub fn run(&self, workload: &Workload) -> Result<Row> {
        let Figures { shape, precision, times, work, mut more } = (workload.run)(self)?;
        let rate = |work: f64| work / times.median() / 1e6;
        let (flop, bytes) = match work {
            Work::Flop(flop) => (Some(flop), None),
            Work::Bytes(bytes) => (None, Some(bytes)),
            Work::Both { flop, bytes } => (Some(flop), Some(bytes)),
            Work::None => (None, None),
        };
        let (gflops, gbs) = (flop.map(rate), bytes.map(rate));
        let mut shares: Vec<(&str, f64, f64)> = Vec::new();
        if gflops.or(gbs).is_some() {
            let peak = self.peak()?;
            shares.extend(gflops.map(|rate| ("of_multiply_adds", rate / peak.gflops, peak.gflops)));
            shares.extend(gbs.map(|rate| ("of_copy", rate / peak.gbs, peak.gbs)));
        }
        if shares.len() == 2 {
            more.extend(shares.iter().map(|(name, share, _)| (*name, *share)));
        }
        let nearer = shares.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let (share_of_peak, peak) = (nearer.map(|(_, share, _)| *share), nearer.map(|(.., peak)| *peak));
        Ok(Row {
            workload: workload.name,
            shape,
            precision,
            median_ms: times.median(),
            min_ms: times.min(),
            reps: times.reps(),
            gflops,
            gbs,
            share_of_peak,
            peak,
            adapter: format!("{} ({:?})", self.gpu.info.name, self.gpu.info.backend),
            more,
        })
    }
}
