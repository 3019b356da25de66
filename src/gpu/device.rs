//! Finding the adapters, choosing one, and opening it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::gpu::buffer::mib;
use crate::gpu::kernel::{Kernel, KernelKey};
use crate::gpu::memory::BUDGET_PERCENT;
use crate::gpu::pace::Pacer;
use crate::gpu::tune::{Choices, Cooperative, Tile, Variant};

/// Features that are used where the adapter offers them; only [`wgpu::Features::IMMEDIATES`] is needed.
const WANTED: wgpu::Features = wgpu::Features::IMMEDIATES
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SHADER_INT64)
    .union(wgpu::Features::PIPELINE_CACHE);

/// Bytes of immediates (shapes and scalars of a step) that our kernels may use: WebGPU's usual limit.
const IMMEDIATE_BYTES: u32 = 64;

/// An adapter of this machine, as `tpgm devices` lists it.
#[derive(Debug)]
pub struct AdapterEntry {
    /// Its place in the list, best first: what `--adapter` takes.
    pub index: usize,
    /// wgpu's handle.
    pub adapter: wgpu::Adapter,
    /// Name, backend, driver and type.
    pub info: wgpu::AdapterInfo,
    /// Why a run can't use it, if so.
    pub unusable: Option<String>,
}

/// What tells an adapter from the others of a machine, in another process too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterName {
    /// Its name.
    pub name: String,
    /// The API that it is reached through.
    pub backend: String,
    /// The vendor's number.
    pub vendor: u32,
    /// The vendor's number for this product.
    pub device: u32,
}

impl AdapterName {
    fn of(info: &wgpu::AdapterInfo) -> AdapterName {
        let backend = format!("{:?}", info.backend);
        AdapterName { name: info.name.clone(), backend, vendor: info.vendor, device: info.device }
    }
}

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

/// Lower is better: a real GPU before a CPU, a native API before GL.
fn rank(info: &wgpu::AdapterInfo) -> (u8, u8) {
    let device = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    // GL drivers report software rasterisers as "other"; their names give them away.
    let software = ["llvmpipe", "softpipe", "swiftshader"].iter().any(|n| info.name.to_lowercase().contains(n));
    (if software { 4 } else { device }, u8::from(info.backend == wgpu::Backend::Gl))
}

fn unusable(adapter: &wgpu::Adapter) -> Option<String> {
    let limits = adapter.limits();
    let base = wgpu::Limits::default();
    if !adapter.features().contains(wgpu::Features::IMMEDIATES) {
        return Some("it has no immediates (push constants)".into());
    }
    let needs: [(&str, u32, u32); 5] = [
        ("max_immediate_size", limits.max_immediate_size, IMMEDIATE_BYTES),
        ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage, 8),
        ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup, 256),
        ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size, 16384),
        (
            "max_compute_workgroups_per_dimension",
            limits.max_compute_workgroups_per_dimension,
            base.max_compute_workgroups_per_dimension,
        ),
    ];
    needs
        .iter()
        .find(|(_, has, needed)| has < needed)
        .map(|(n, has, needed)| format!("{n} is {has}, {needed} is needed"))
}

/// The adapters of this machine, best first. `WGPU_BACKEND` restricts the backends.
///
/// With `gl` unset, OpenGL is asked only where no other backend has a usable adapter: on a machine without a display
/// its drivers are slow to start and write to stderr.
pub fn adapters(gl: bool) -> Vec<AdapterEntry> {
    let asked = wgpu::Backends::from_env().unwrap_or(wgpu::Backends::PRIMARY | wgpu::Backends::GL);
    let mut found = enumerate(if gl { asked } else { asked - wgpu::Backends::GL });
    if !gl && asked.contains(wgpu::Backends::GL) && found.iter().all(|a| unusable(a).is_some()) {
        found.extend(enumerate(wgpu::Backends::GL));
    }
    found.sort_by_key(|a| rank(&a.get_info()));
    found
        .into_iter()
        .enumerate()
        .map(|(index, adapter)| AdapterEntry { index, info: adapter.get_info(), unusable: unusable(&adapter), adapter })
        .collect()
}

fn enumerate(backends: wgpu::Backends) -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    // Programs are checked as they are recorded, and the tests validate every shader: runs go without the layers.
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    descriptor.memory_budget_thresholds.for_resource_creation = Some(BUDGET_PERCENT);
    pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(backends))
}

fn listing(found: &[AdapterEntry]) -> String {
    let line = |a: &AdapterEntry| {
        let why = a.unusable.as_ref().map(|w| format!(", unusable: {w}")).unwrap_or_default();
        format!("{} {} ({:?}{why})", a.index, a.info.name, a.info.backend)
    };
    found.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// The adapter that `wanted` names (an index of [`adapters`] or a part of a name), else `WGPU_ADAPTER_NAME`, else the
/// best usable one. The error lists what was found.
pub fn choose(found: &[AdapterEntry], wanted: Option<&str>) -> Result<usize> {
    if found.is_empty() {
        return Err(Error::Adapter(
            "no GPU adapter was found: install your GPU's Vulkan driver, or a software one (Debian: apt-get install \
             mesa-vulkan-drivers libvulkan1)"
                .into(),
        ));
    }
    let from_env = std::env::var("WGPU_ADAPTER_NAME").ok();
    let Some(wanted) = wanted.or(from_env.as_deref()) else {
        return found.iter().position(|a| a.unusable.is_none()).ok_or_else(|| {
            Error::Adapter(format!("no adapter of this machine can run tpgm; found: {}", listing(found)))
        });
    };
    // "vulkan", "gl" and the like name a backend: both adapters of a Mesa install are called llvmpipe.
    let named = |a: &AdapterEntry| {
        let name = format!("{} {:?}", a.info.name, a.info.backend).to_lowercase();
        name.contains(&wanted.to_lowercase())
    };
    let picked = match wanted.parse::<usize>() {
        Ok(index) => found.iter().position(|a| a.index == index),
        Err(_) => found.iter().position(named),
    };
    let picked =
        picked.ok_or_else(|| Error::Adapter(format!("no adapter matches '{wanted}'; found: {}", listing(found))))?;
    if let Some(why) = &found[picked].unusable {
        return Err(Error::Adapter(format!(
            "adapter {picked} {} can't run tpgm: {why}; found: {}",
            found[picked].info.name,
            listing(found)
        )));
    }
    Ok(picked)
}

impl Gpu {
    /// Opens the adapter that `wanted` names, or the best one.
    ///
    /// `checked` keeps wgpu's runtime checks in every shader, as the tests do; without it kernels run as fast as
    /// the driver lets them.
    pub fn open(wanted: Option<&str>, checked: bool) -> Result<Gpu> {
        // An adapter that is asked for by number counts as `tpgm devices` does, GL included.
        let mut found = adapters(wanted.is_some());
        let index = choose(&found, wanted)?;
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
                other => Fault::Other(one_line(&other.to_string())),
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

    /// Opens the adapter of this name; `checked` as for [`Gpu::open`].
    ///
    /// Errors, listing what was found, where it is gone.
    pub fn open_named(wanted: &AdapterName, checked: bool) -> Result<Gpu> {
        let mut found = adapters(wanted.backend == format!("{:?}", wgpu::Backend::Gl));
        let same = found.iter().position(|entry| AdapterName::of(&entry.info) == *wanted && entry.unusable.is_none());
        let Some(index) = same else {
            let AdapterName { name, backend, .. } = wanted;
            return Err(Error::Adapter(format!(
                "the run was on {name} ({backend}), which is gone; found: {}: give --adapter to go on with another one, whose \
                 results differ in the last bits",
                listing(&found)
            )));
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
                "out of memory on {}, where this run has {}{}: use a smaller --batch-size, or --micro-batch to split it",
                self.info.name,
                mib(self.allocated()),
                self.memory().map(|bytes| format!(" of {}", mib(bytes))).unwrap_or_default(),
            ))),
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
        let own = || Error::Adapter(format!("{}: {what} failed: {}", self.info.name, one_line(&error.to_string())));
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
        Err(Error::Adapter(format!(
            "{} ({:?}) has no 16-bit floats in shaders (SHADER_F16): use --precision f32 or another adapter (--adapter)",
            self.info.name, self.info.backend
        )))
    }

    /// Whether this adapter is a CPU in disguise, where barriers are dear and registers are plenty.
    pub fn is_cpu(&self) -> bool {
        rank(&self.info).0 == 4
    }
}

/// wgpu's errors span several indented lines: one is enough for a user.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
