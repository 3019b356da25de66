//! Finding the adapters of this machine, and choosing one.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Bytes of immediates (shapes and scalars of a step) that our kernels may use: WebGPU's usual limit.
pub(super) const IMMEDIATE_BYTES: u32 = 64;

/// Share of its memory budget, in percent, that the driver lets this process fill: an allocation beyond it is an error there
/// instead of memory moved to the host, where Vulkan or DX12 tells the budget. The rest is for displays and other programs.
const BUDGET_PERCENT: u8 = 95;

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

/// Gives Mesa a folder for its window-system code, which otherwise writes an error to stderr for each driver of a machine without
/// a session, such as a container, although nothing here opens a window. For every program that uses this crate, and before
/// `main`: the environment may not change once threads run.
#[cfg(target_os = "linux")]
#[ctor::ctor(unsafe)]
fn hush_mesa() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
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
    pub(super) fn of(info: &wgpu::AdapterInfo) -> AdapterName {
        let backend = format!("{:?}", info.backend);
        AdapterName { name: info.name.clone(), backend, vendor: info.vendor, device: info.device }
    }
}

/// Whether this is a CPU: GL drivers report software rasterisers as "other", so their names count as well.
pub(super) fn is_cpu(info: &wgpu::AdapterInfo) -> bool {
    let software = ["llvmpipe", "softpipe", "swiftshader"].iter().any(|n| info.name.to_lowercase().contains(n));
    software || info.device_type == wgpu::DeviceType::Cpu
}

/// Lower is better: a real GPU before a CPU, a native API before GL.
fn rank(info: &wgpu::AdapterInfo) -> (u8, u8) {
    let device = match info.device_type {
        _ if is_cpu(info) => 4,
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other | wgpu::DeviceType::Cpu => 3,
    };
    (device, u8::from(info.backend == wgpu::Backend::Gl))
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

/// The words of `WGPU_BACKEND`, with their backends.
const BACKENDS: [(&str, wgpu::Backends); 8] = [
    ("vulkan", wgpu::Backends::VULKAN),
    ("metal", wgpu::Backends::METAL),
    ("dx12", wgpu::Backends::DX12),
    ("gl", wgpu::Backends::GL),
    ("vk", wgpu::Backends::VULKAN),
    ("mtl", wgpu::Backends::METAL),
    ("d3d12", wgpu::Backends::DX12),
    ("opengl", wgpu::Backends::GL),
];

/// The backends that `words`, the value of `WGPU_BACKEND`, names; without a value, all.
///
/// # Errors
/// [`Error::Usage`] with the words that there are. wgpu itself passes over a word that it does not know.
fn backends(words: Option<&str>) -> Result<wgpu::Backends> {
    let Some(words) = words.filter(|words| !words.trim().is_empty()) else {
        return Ok(wgpu::Backends::PRIMARY | wgpu::Backends::GL);
    };
    let backend = |word: &str| {
        let known = BACKENDS.iter().find(|(name, _)| *name == word.trim().to_lowercase());
        known.map(|(_, backend)| *backend).ok_or_else(|| {
            let names: Vec<&str> = BACKENDS[..4].iter().map(|(name, _)| *name).collect();
            Error::Usage(format!(
                "WGPU_BACKEND={words}: there is no backend '{}', but {}",
                word.trim(),
                names.join(", ")
            ))
        })
    };
    words.split(',').map(backend).try_fold(wgpu::Backends::empty(), |all, one| Ok(all | one?))
}

/// The adapters of this machine, best first. `WGPU_BACKEND` restricts the backends.
///
/// With `gl` unset, OpenGL's are among them only if no other backend has a usable GPU and OpenGL has, or if no other has a usable
/// adapter at all: on a machine without a display its drivers are slow to start and write to stderr.
///
/// # Errors
/// [`Error::Usage`] if `WGPU_BACKEND` names a backend that does not exist.
pub fn adapters(gl: bool) -> Result<Vec<AdapterEntry>> {
    let asked = backends(std::env::var("WGPU_BACKEND").ok().as_deref())?;
    let flags = wgpu::InstanceFlags::empty().with_env();
    let is_gpu = |adapter: &wgpu::Adapter| !is_cpu(&adapter.get_info()) && unusable(adapter).is_none();
    /// Whether OpenGL has a GPU: a process asks once.
    static HAS_GPU: OnceLock<bool> = OnceLock::new();
    let mut found = enumerate(if gl { asked } else { asked - wgpu::Backends::GL }, flags);
    if !gl && asked.contains(wgpu::Backends::GL) {
        let needed = found.iter().all(|adapter| unusable(adapter).is_some());
        let ask = || enumerate(wgpu::Backends::GL, flags).iter().any(is_gpu);
        if needed || (!found.iter().any(is_gpu) && *HAS_GPU.get_or_init(ask)) {
            found.extend(enumerate(wgpu::Backends::GL, flags));
        }
    }
    found.sort_by_key(|a| rank(&a.get_info()));
    let entry = |(index, adapter)| AdapterEntry {
        index,
        info: wgpu::Adapter::get_info(&adapter),
        unusable: unusable(&adapter),
        adapter,
    };
    Ok(found.into_iter().enumerate().map(entry).collect())
}

/// Real GPUs that wgpu leaves out because their driver does not claim to conform to Vulkan, as Microsoft's in WSL2 does not.
/// `WGPU_ALLOW_UNDERLYING_NONCOMPLIANT_ADAPTER=1` lets them in.
pub fn hidden(found: &[AdapterEntry]) -> Vec<wgpu::AdapterInfo> {
    let all = enumerate(wgpu::Backends::VULKAN, wgpu::InstanceFlags::ALLOW_UNDERLYING_NONCOMPLIANT_ADAPTER);
    let known: Vec<AdapterName> = found.iter().map(|entry| AdapterName::of(&entry.info)).collect();
    let all = all.iter().map(wgpu::Adapter::get_info);
    all.filter(|info| !is_cpu(info) && !known.contains(&AdapterName::of(info))).collect()
}

/// Why a run that nobody gave an adapter is on a CPU: the other adapters found, and why none was taken. None for a run on a GPU.
pub fn why_cpu(taken: &wgpu::AdapterInfo) -> Option<String> {
    if !is_cpu(taken) {
        return None;
    }
    let found = adapters(false).unwrap_or_default();
    let others = found.iter().filter(|entry| !is_cpu(&entry.info)).filter_map(|entry| {
        Some(format!("{} ({:?}) can't run it: {}", entry.info.name, entry.info.backend, entry.unusable.as_ref()?))
    });
    let left_out = hidden(&found).into_iter().map(|info| {
        format!(
            "{} ({}) does not claim to conform to Vulkan: set WGPU_ALLOW_UNDERLYING_NONCOMPLIANT_ADAPTER=1 to use it, and check it \
             first",
            info.name, info.driver
        )
    });
    let reasons: String = others.chain(left_out).map(|reason| format!("; {reason}")).collect();
    let name = taken.name.split(" (").next().unwrap_or_default();
    Some(format!("no GPU found: running on the CPU ({name}), many times slower than on a GPU{reasons}"))
}

fn enumerate(backends: wgpu::Backends, flags: wgpu::InstanceFlags) -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    // Programs are checked as they are recorded, and the tests validate every shader: runs go without the layers.
    descriptor.flags = flags;
    descriptor.memory_budget_thresholds.for_resource_creation = Some(BUDGET_PERCENT);
    pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(backends))
}

pub(super) fn listing(found: &[AdapterEntry]) -> String {
    let line = |a: &AdapterEntry| {
        let why = a.unusable.as_ref().map(|w| format!(", unusable: {w}")).unwrap_or_default();
        format!("{} {} ({:?}{why})", a.index, a.info.name, a.info.backend)
    };
    found.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// The adapter that `wanted` names (an index of [`adapters`] or a part of a name), else `WGPU_ADAPTER_NAME`, else the
/// best usable one. The error lists those that were found.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_read_by_their_words() {
        let both = wgpu::Backends::VULKAN | wgpu::Backends::GL;
        assert_eq!(backends(Some("Vulkan, gl")).unwrap(), both);
        assert_eq!(backends(Some("vk")).unwrap(), wgpu::Backends::VULKAN);
        for all in [None, Some(""), Some(" ")] {
            assert_eq!(backends(all).unwrap(), wgpu::Backends::PRIMARY | wgpu::Backends::GL);
        }
        for wrong in ["vulcan", "gl,vulcan", ",", "cuda"] {
            let error = backends(Some(wrong)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("vulkan, metal, dx12, gl"), "{error}");
        }
    }

    /// The words are wgpu's own.
    #[test]
    fn backends_are_those_of_wgpu() {
        for (word, backend) in BACKENDS {
            assert_eq!(wgpu::Backends::from_comma_list(word), backend, "{word}");
        }
    }
}
