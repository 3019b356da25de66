//! An open adapter: the device, its queue, and everything that belongs to them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};

use crate::error::{Error, Help, Result, one_line};
use crate::gpu::adapters::{AdapterEntry, AdapterName, adapters, choose, is_cpu, listing};
use crate::gpu::kernel::{Kernel, KernelKey};
use crate::gpu::pace::Pacer;
use crate::gpu::tiles::{Choices, Cooperative, Tile, Variant};
use crate::shapes::layout::mib;

/// Features that are used where the adapter offers them; only [`wgpu::Features::IMMEDIATES`] is needed.
const WANTED: wgpu::Features = wgpu::Features::IMMEDIATES
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SHADER_INT64)
    .union(wgpu::Features::PIPELINE_CACHE);

/// An open device: the root of everything on the GPU.
pub struct Gpu {
    pub(super) adapter: wgpu::Adapter,
    /// wgpu's device.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
    /// Name, backend, driver and type of the adapter.
    pub info: wgpu::AdapterInfo,
    /// What this adapter allows.
    pub limits: wgpu::Limits,
    /// What this device was opened with.
    pub features: wgpu::Features,
    /// Whether shaders carry runtime checks (bounds, loops). Off only for kernels that passed the suite with them on.
    pub checked: bool,
    /// Kernels by what they were made from.
    pub(crate) kernels: Mutex<HashMap<KernelKey, Arc<Kernel>>>,
    /// Pipelines that the driver has kept from earlier runs, where it can.
    pub(super) pipelines: OnceLock<wgpu::PipelineCache>,
    /// Which variants were measured to be fastest.
    pub(super) choices: Mutex<Choices>,
    /// Which of the less common ways compute the right thing here.
    pub(super) found: Mutex<BTreeMap<Tile, bool>>,
    /// What every product is computed in, whatever was chosen.
    pub(super) forced: Mutex<Option<Variant>>,
    /// Matrix units that the adapter offers, and whether runs may use them.
    pub(super) cooperative: Option<Cooperative>,
    pub(super) cooperative_allowed: OnceLock<()>,
    pub(super) subgroups_allowed: OnceLock<()>,
    /// How much is submitted at once.
    pub(super) pacer: Pacer,
    /// Pipelines that other threads are to build, or are building.
    pub(super) building: Arc<AtomicUsize>,
    /// The first error that reached no error scope, or the reason for which the device was lost.
    fault: Arc<Mutex<Option<Fault>>>,
    /// Bytes of buffers that are alive.
    pub(crate) allocated: Arc<AtomicU64>,
}

#[derive(Clone)]
enum Fault {
    Memory,
    Lost(String),
    Other(String),
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.abandon_pipelines();
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({}, {:?})", self.info.name, self.info.backend)
    }
}

/// The usable adapters of this name.
fn alike(found: &[AdapterEntry], name: &AdapterName) -> Vec<usize> {
    let is_alike = |entry: &&AdapterEntry| AdapterName::of(&entry.info) == *name && entry.unusable.is_none();
    found.iter().enumerate().filter(|(_, entry)| is_alike(entry)).map(|(index, _)| index).collect()
}

impl Gpu {
    /// Opens the adapter that `wanted` names, or the best one.
    ///
    /// `checked` keeps wgpu's runtime checks in every shader, as the tests do; without it kernels run as fast as
    /// the driver lets them.
    pub fn open(wanted: Option<&str>, checked: bool) -> Result<Gpu> {
        Self::open_nth(wanted, 0, checked)
    }

    /// As [`Gpu::open`]; where `wanted` is no number, the `nth` of the adapters that are like the one it opens, counted from 0 on and
    /// around: for several processes on a machine with several GPUs of one kind.
    pub fn open_nth(wanted: Option<&str>, nth: usize, checked: bool) -> Result<Gpu> {
        // An adapter that is asked for by number counts as `tpgm devices` does, GL included.
        let mut found = adapters(wanted.is_some())?;
        let mut index = choose(&found, wanted)?;
        if wanted.is_none_or(|wanted| wanted.parse::<usize>().is_err()) {
            let alike = alike(&found, &AdapterName::of(&found[index].info));
            index = alike[nth % alike.len()];
        }
        Self::from_adapter(found.swap_remove(index).adapter, checked)
    }

    /// Opens `adapter` with the limits it offers.
    pub fn from_adapter(adapter: wgpu::Adapter, checked: bool) -> Result<Gpu> {
        let info = adapter.get_info();
        let limits = adapter.limits();
        let cooperative = Cooperative::of(&adapter);
        let matrices = cooperative.map_or(wgpu::Features::empty(), |_| wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
        let features = adapter.features() & WANTED | matrices;
        let experimental_features = match cooperative {
            // SAFETY: the one experimental feature is cooperative matrices. What they compute is held against another kernel
            // before a run uses them, and what they read and write is inside workgroup memory.
            Some(_) => unsafe { wgpu::ExperimentalFeatures::enabled() },
            None => wgpu::ExperimentalFeatures::disabled(),
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("tpgm"),
            required_features: features,
            required_limits: limits.clone(),
            experimental_features,
            ..Default::default()
        }))
        .map_err(|e| Error::Adapter(format!("{} can't be opened: {e}", info.name)))?;

        tracing::info!(name = info.name, backend = ?info.backend, driver = info.driver, checked, "open adapter");
        let fault: Arc<Mutex<Option<Fault>>> = Arc::default();
        let first = fault.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            let what = match error {
                wgpu::Error::OutOfMemory { .. } => Fault::Memory,
                other => Fault::Other(one_line(other)),
            };
            first.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(what);
        }));
        let first = fault.clone();
        // What failed before is a consequence, as a rule: commands on a lost device fail at once, the news of it comes later.
        device.set_device_lost_callback(move |_, message| {
            *first.lock().unwrap_or_else(|e| e.into_inner()) = Some(Fault::Lost(one_line(&message)));
        });
        Ok(Gpu {
            adapter,
            device,
            queue,
            info,
            limits,
            features,
            checked,
            kernels: Mutex::default(),
            pipelines: OnceLock::new(),
            choices: Mutex::default(),
            found: Mutex::default(),
            forced: Mutex::default(),
            cooperative,
            cooperative_allowed: OnceLock::new(),
            subgroups_allowed: OnceLock::new(),
            pacer: Pacer::default(),
            building: Arc::default(),
            fault,
            allocated: Arc::default(),
        })
    }

    /// Opens the adapter of this name, of several the `nth` as [`Gpu::open_nth`] counts; `checked` as for [`Gpu::open`].
    ///
    /// Errors, listing the adapters that were found, where it is gone.
    pub fn open_named(wanted: &AdapterName, nth: usize, checked: bool) -> Result<Gpu> {
        let mut found = adapters(wanted.backend == format!("{:?}", wgpu::Backend::Gl))?;
        let same = alike(&found, wanted);
        let Some(&index) = same.get(nth % same.len().max(1)) else {
            let AdapterName { name, backend, .. } = wanted;
            let what = format!("the run was on {name} ({backend}), which is gone; found: {}", listing(&found));
            return Err(Error::Adapter(what).with_help(Help::AdapterGone));
        };
        Self::from_adapter(found.swap_remove(index).adapter, checked)
    }

    /// The name of this device's adapter.
    pub fn name(&self) -> AdapterName {
        AdapterName::of(&self.info)
    }

    /// Another device of the same adapter, which shares nothing with this one.
    pub fn another(&self) -> Result<Gpu> {
        Self::from_adapter(self.adapter.clone(), self.checked)
    }

    /// The error, if any, that the driver has reported since the device was opened. Called wherever the host waits.
    pub fn check(&self) -> Result<()> {
        match self.fault.lock().unwrap_or_else(|e| e.into_inner()).clone() {
            None => Ok(()),
            Some(Fault::Memory) => Err(Error::Limit(format!(
                "out of memory on {}, where this run has {}{}",
                self.info.name,
                mib(self.allocated()),
                self.memory().map(|bytes| format!(" of {}", mib(bytes))).unwrap_or_default(),
            ))
            .with_help(Help::BatchTooLarge)),
            Some(Fault::Lost(why)) => Err(Error::Lost(format!(
                "{} ({:?}, driver {} {}) was lost in the middle of the work, as when its driver is reset or it is taken away{}{why}",
                self.info.name,
                self.info.backend,
                self.info.driver,
                self.info.driver_info,
                if why.is_empty() { "" } else { ": " },
            ))),
            Some(Fault::Other(what)) => Err(Error::Adapter(format!(
                "{} ({:?}, driver {} {}): {what}",
                self.info.name, self.info.backend, self.info.driver, self.info.driver_info
            ))),
        }
    }

    /// Waits until everything submitted is done.
    pub fn wait(&self) -> Result<()> {
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| self.failed("waiting for the GPU", e))?;
        self.check()
    }

    /// The error for `what` that failed: the device's own where it has one, which says more.
    pub(crate) fn failed(&self, what: &str, error: impl std::fmt::Display) -> Error {
        let own = || Error::Adapter(format!("{}: {what} failed: {}", self.info.name, one_line(&error)));
        self.check().err().unwrap_or_else(own)
    }

    /// Whether lanes come in subgroups, of any size, that shaders may know of.
    pub fn has_subgroups(&self) -> bool {
        self.features.contains(wgpu::Features::SUBGROUP)
    }

    /// Whether lanes of a workgroup add up by subgroup operations: on a CPU where its eight lanes are one subgroup.
    pub fn reduces_by_subgroups(&self) -> bool {
        if self.is_cpu() { self.has_wide_subgroups() } else { self.has_subgroups() }
    }

    /// Whether lanes come in subgroups of at least eight, between which `matmul_direct.wgsl` hands its values round.
    pub fn has_wide_subgroups(&self) -> bool {
        self.has_subgroups() && self.info.subgroup_min_size >= 8
    }

    /// Whether shaders read and write in words of 64 bits where they can: on a CPU, which goes word by word.
    pub fn has_wide_words(&self) -> bool {
        self.is_cpu() && self.features.contains(wgpu::Features::SHADER_INT64)
    }

    /// Errors, naming the adapter, where its shaders have no f16.
    pub fn check_f16(&self) -> Result<()> {
        if self.features.contains(wgpu::Features::SHADER_F16) {
            return Ok(());
        }
        let AdapterName { name, backend, .. } = self.name();
        let what = format!("{name} ({backend}) has no 16-bit floats in shaders (SHADER_F16)");
        Err(Error::Adapter(what).with_help(Help::NoHalfFloats))
    }

    /// Whether this adapter is a CPU in disguise, where barriers are dear and registers are plenty.
    pub fn is_cpu(&self) -> bool {
        is_cpu(&self.info)
    }
}
