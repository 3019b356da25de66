//! What the tuner chooses among: every variant of each product of the named workloads, measured anew.

use std::cell::RefCell;
use std::time::Duration;

use serde::Serialize;

use crate::bench::Bench;
use crate::bench::workloads::Workload;
use crate::error::Result;
use crate::gpu::cache::cache_dir;
use crate::gpu::tiles::{Choices, Variant};
use crate::ops::product::Product;
use crate::ops::tune;

/// One way to compute the products of a class.
#[derive(Clone, Debug, Serialize)]
pub struct Candidate {
    /// Its kernel's tile, and the workgroups that share a sum.
    #[serde(flatten)]
    pub variant: Variant,
    /// Milliseconds of the product that was measured; none where there was no time for it, or no other candidate.
    pub ms: Option<f64>,
    /// Billions of floating-point operations per second at that time.
    pub gflops: Option<f64>,
    /// Why no run takes it: its results are wrong, or the driver refused it.
    pub refused: Option<String>,
    /// Runs take this one.
    pub chosen: bool,
    /// Runs take this one where nothing was measured.
    pub default: bool,
}

/// A class of products that share a choice.
#[derive(Clone, Debug, Serialize)]
pub struct Class {
    /// Its name, as in a run's `tuning.json`.
    pub class: String,
    /// The first of the named workloads that has such a product.
    pub workload: &'static str,
    /// What comes into question on this adapter.
    pub candidates: Vec<Candidate>,
}

impl Class {
    /// Whether its candidates were measured.
    pub fn is_measured(&self) -> bool {
        self.candidates.iter().any(|c| c.ms.is_some())
    }
}

/// The classes that [`Bench::tune`] met while it was told to measure them all.
#[derive(Debug, Default)]
pub(super) struct Met(RefCell<Vec<Class>>);

impl Met {
    /// Measures every candidate of `products` for as long as the budget says, and uses the fastest from here on.
    pub(super) fn measure(&self, bench: &Bench, products: &[Product]) -> Result<()> {
        let gpu = bench.gpu;
        let mut times: Vec<(String, Vec<tune::Measured>)> = Vec::new();
        let limit = Duration::try_from_secs_f64(bench.budget.seconds).unwrap_or(Duration::MAX);
        let choices = tune::measure(gpu, products, limit, &mut |class, measured| {
            // Should the device hang at one, the log names those before.
            tracing::debug!(class, ?measured, "measured");
            times.push((class.to_string(), measured.to_vec()));
        })?;
        let mut met = self.0.borrow_mut();
        for product in products {
            let class = product.class();
            if met.iter().any(|m| m.class == class) {
                continue;
            }
            let default = product.default_variant(gpu, gpu.is_cpu() && gpu.has_wide_subgroups());
            let chosen = choices.get(&class).copied().unwrap_or(default);
            let flops = tune::measured_flops(gpu, *product);
            let measured = times.iter().find(|(c, _)| *c == class).map_or(&[][..], |(_, m)| m);
            let candidate = |variant: Variant| {
                let found = measured.iter().find(|m| m.variant == variant);
                let seconds = found.map(|m| m.seconds).filter(|s| s.is_finite());
                Candidate {
                    refused: found.and_then(|m| m.refused.clone()),
                    variant,
                    ms: seconds.map(|s| s * 1e3),
                    gflops: seconds.map(|s| flops / s / 1e9),
                    chosen: variant == chosen,
                    default: variant == default,
                }
            };
            let candidates = product.candidates(gpu).into_iter().map(candidate).collect();
            met.push(Class { class, workload: "", candidates });
        }
        gpu.choose_variants(choices);
        Ok(())
    }
}

/// The table as it grows, workload by workload.
#[derive(Debug)]
pub struct Table<'a> {
    bench: Bench<'a>,
    /// The choices from before: nothing is measured by them, and they stay where nothing is measured.
    before: Choices,
    /// The classes so far, each once.
    pub classes: Vec<Class>,
}

impl<'a> Table<'a> {
    /// An empty one. From here on the device's choices are those of the table.
    pub fn new(bench: Bench<'a>) -> Table<'a> {
        let before = bench.gpu.choices();
        bench.gpu.replace_variants(Choices::new());
        Table { bench: Bench { met: Some(Met::default()), ..bench }, before, classes: Vec::new() }
    }

    /// Measures the products of `workload`, for at most so many seconds, and keeps what came out for runs. Returns the classes
    /// that no workload before had.
    ///
    /// Errors where the workload doesn't fit the adapter, the device fails, or the choices can't be written.
    pub fn add(&mut self, workload: &Workload, seconds: f64) -> Result<&[Class]> {
        self.bench.budget.seconds = seconds;
        let outcome = (workload.prepare)(&self.bench);
        let met = self.bench.met.as_ref().map(|met| met.0.take()).unwrap_or_default();
        let old = self.classes.len();
        for class in met {
            let class = Class { workload: workload.name, ..class };
            match self.classes.iter_mut().find(|c| c.class == class.class) {
                None => self.classes.push(class),
                Some(known) if !known.is_measured() => known.candidates = class.candidates,
                Some(_) => {}
            }
        }
        outcome?;
        self.keep()?;
        Ok(&self.classes[old..])
    }

    fn keep(&self) -> Result<()> {
        let Some(dir) = cache_dir() else { return Ok(()) };
        let gpu = self.bench.gpu;
        let measured = gpu.choices();
        gpu.choose_variants(
            self.before.iter().filter(|(c, _)| !measured.contains_key(*c)).map(|(c, v)| (c.clone(), *v)).collect(),
        );
        let kept = gpu.save_choices(&dir);
        gpu.replace_variants(measured);
        kept
    }
}
