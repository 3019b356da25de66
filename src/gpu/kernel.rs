//! A kernel: one entry point of one WGSL file, compiled once, with what it binds read off the shader itself, so that the
//! host binds by name and there is no second description to keep in step.
//!
//! Drivers take milliseconds to seconds for a pipeline, and a model has dozens: they are built on other threads while the host
//! records what they will do.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use crate::error::{Error, Result, one_line};
use crate::gpu::{matrices, shaders::Shader};

/// What a kernel was made from: shader, entry point, override constants, appended text.
pub(crate) type KernelKey = (&'static str, String, Vec<(String, u64)>, String);

/// A storage buffer that an entry point uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The variable's name in the shader.
    pub name: String,
    /// `@binding` number; the group is always 0.
    pub index: u32,
    /// Whether the entry point may write it.
    pub writes: bool,
}

/// The interface of an entry point, as the shader states it.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Buffers, by `@binding` number.
    pub bindings: Vec<Binding>,
    /// Bytes of immediates; 0 where the entry point has none.
    pub immediate_size: u32,
}

/// An entry point, compiled or on its way.
#[derive(Debug)]
pub struct Kernel {
    /// `file::entry`, as in `layer_norm::backward_input`.
    pub label: String,
    /// The file that it is from.
    pub shader: &'static Shader,
    /// Its entry point.
    pub entry: String,
    /// Which of the variants of its entry point it is: override constants, and the text appended to the shader.
    pub variant: Arc<str>,
    /// Its only bind group's layout.
    pub layout: wgpu::BindGroupLayout,
    /// What it binds and takes.
    pub interface: Interface,
    /// What the pipeline is built from, until somebody builds it.
    parts: Mutex<Option<PipelineParts>>,
    pipeline: OnceLock<Result<wgpu::ComputePipeline, String>>,
}

/// A shader as wgpu gets it: its text, or what [`parse`] made of it if that is more than the text says.
#[derive(Debug)]
enum Source {
    Text(String),
    Parsed(Box<naga::Module>),
}

/// All that a pipeline is built from, so that any thread can.
#[derive(Debug)]
struct PipelineParts {
    device: wgpu::Device,
    adapter: String,
    checked: bool,
    cache: Option<wgpu::PipelineCache>,
    source: Source,
    entry: String,
    constants: Vec<(String, f64)>,
    layout: wgpu::PipelineLayout,
}

/// Parses and validates a WGSL text; the error gives the line. Cooperative matrices get the shape that its constants `CM`, `CN`
/// and `CK` tell.
pub fn parse(name: &str, source: &str) -> Result<(naga::Module, naga::valid::ModuleInfo), String> {
    let mut module = naga::front::wgsl::parse_str(source)
        .map_err(|e| format!("shaders/{name}.wgsl: {}", e.emit_to_string_with_path(source, name)))?;
    matrices::shape(&mut module);
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
    let info = validator
        .validate(&module)
        .map_err(|e| format!("shaders/{name}.wgsl: {}", e.emit_to_string_with_path(source, name)))?;
    Ok((module, info))
}

/// The interface of entry point `entry` of a validated module.
pub fn interface(module: &naga::Module, info: &naga::valid::ModuleInfo, entry: &str) -> Option<Interface> {
    let position = module.entry_points.iter().position(|e| e.name == entry)?;
    let uses = info.get_entry_point(position);
    let mut bindings = Vec::new();
    let mut immediate_size = 0;
    for (handle, var) in module.global_variables.iter() {
        if uses[handle].is_empty() {
            continue;
        }
        let name = var.name.clone().unwrap_or_default();
        let index = var.binding.map(|b| b.binding).unwrap_or_default();
        match var.space {
            naga::AddressSpace::Storage { access } => {
                let writes = access.contains(naga::StorageAccess::STORE);
                bindings.push(Binding { name, index, writes });
            }
            naga::AddressSpace::Immediate => {
                immediate_size = module.types[var.ty].inner.size(module.to_ctx()).next_multiple_of(4)
            }
            _ => {}
        }
    }
    bindings.sort_by_key(|b| b.index);
    Some(Interface { bindings, immediate_size })
}

/// What kernels are made with.
#[derive(Debug)]
pub(super) struct Maker<'a> {
    pub(super) device: &'a wgpu::Device,
    /// The adapter's name, for errors.
    pub(super) adapter: &'a str,
    /// As for [`Gpu::open`](crate::gpu::Gpu::open).
    pub(super) checked: bool,
    /// Pipelines that the driver has kept.
    pub(super) cache: Option<&'a wgpu::PipelineCache>,
}

impl Maker<'_> {
    /// Reads the interface off the shader; nobody has begun the pipeline then.
    pub(super) fn kernel(
        &self,
        shader: &'static Shader,
        entry: &str,
        constants: &BTreeMap<&str, f64>,
        tail: &str,
    ) -> Kernel {
        let label = format!("{}::{entry}", shader.name);
        let source = shader.source(tail);
        let (module, info) = parse(shader.name, &source).unwrap_or_else(|e| panic!("{e}"));
        let interface = interface(&module, &info, entry).unwrap_or_else(|| panic!("{label}: no such entry point"));

        let layout_entries: Vec<_> = interface
            .bindings
            .iter()
            .map(|b| wgpu::BindGroupLayoutEntry {
                binding: b.index,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: !b.writes },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(&label),
            entries: &layout_entries,
        });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: interface.immediate_size,
        });
        let parts = PipelineParts {
            device: self.device.clone(),
            adapter: self.adapter.to_string(),
            checked: self.checked,
            cache: self.cache.cloned(),
            source: if matrices::has_any(&module) { Source::Parsed(Box::new(module)) } else { Source::Text(source) },
            entry: entry.to_string(),
            constants: constants.iter().map(|(name, value)| (name.to_string(), *value)).collect(),
            layout: pipeline_layout,
        };
        let parts = Mutex::new(Some(parts));
        let settings: Vec<String> = constants.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let variant = format!("{}; {}", settings.join(", "), one_line(tail)).into();
        Kernel { label, shader, entry: entry.to_string(), variant, layout, interface, parts, pipeline: OnceLock::new() }
    }
}

impl Kernel {
    /// The pipeline: built here if no thread has begun to, else waited for.
    ///
    /// Errors where the driver can't compile the shader.
    pub fn pipeline(&self) -> Result<&wgpu::ComputePipeline> {
        self.pipeline_or(|| self.parts().compile(&self.label))
    }

    /// Waits for a thread that builds the pipeline; if none does, none will.
    pub(super) fn abandon(&self) {
        let _ = self.pipeline_or(|| Err(format!("{}: the device was closed", self.label)));
    }

    fn pipeline_or(
        &self,
        build: impl FnOnce() -> Result<wgpu::ComputePipeline, String>,
    ) -> Result<&wgpu::ComputePipeline> {
        self.pipeline.get_or_init(build).as_ref().map_err(|what| Error::Adapter(what.clone()))
    }

    /// The driver's refusal, as soon as it is known.
    pub(super) fn known(&self) -> Result<()> {
        if self.pipeline.get().is_some() { self.pipeline().map(drop) } else { Ok(()) }
    }

    fn parts(&self) -> PipelineParts {
        self.parts.lock().unwrap_or_else(|e| e.into_inner()).take().expect("a pipeline is built once")
    }
}

impl PipelineParts {
    fn compile(self, label: &str) -> Result<wgpu::ComputePipeline, String> {
        let started = Instant::now();
        let PipelineParts { device, source, .. } = self;
        // Scopes are of this thread.
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let source = match source {
            Source::Text(text) => wgpu::ShaderSource::Wgsl(text.into()),
            Source::Parsed(module) => wgpu::ShaderSource::Naga(Cow::Owned(*module)),
        };
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source };
        let module = if self.checked {
            device.create_shader_module(descriptor)
        } else {
            // SAFETY: every kernel passes the suite with checks on (`tests/kernels.rs`), which reads and writes
            // guard bands around each range, and no kernel loops without a bound.
            unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        };
        let constants: Vec<(&str, f64)> = self.constants.iter().map(|(name, value)| (&name[..], *value)).collect();
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(label),
            layout: Some(&self.layout),
            module: &module,
            entry_point: Some(&self.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                zero_initialize_workgroup_memory: self.checked,
            },
            cache: self.cache.as_ref(),
        });
        tracing::debug!(kernel = label, constants = ?self.constants, ms = started.elapsed().as_millis(), "compiled");
        for scope in [internal, scope] {
            if let Some(error) = pollster::block_on(scope.pop()) {
                let what = one_line(error);
                return Err(format!("{} can't compile the shader {label}: {what}", self.adapter));
            }
        }
        Ok(pipeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Gpu, Program};

    fn gpu() -> Gpu {
        Gpu::open(std::env::var("TPGM_TEST_ADAPTER").ok().as_deref(), true).unwrap()
    }

    /// No pipeline can do without `VALUE`.
    static CONSTANT: Shader = Shader {
        name: "constant",
        text: "override VALUE: f32;
            @group(0) @binding(0) var<storage, read_write> out: array<f32>;
            @compute @workgroup_size(1) fn forward() { out[0] = VALUE; }",
        libs: &[],
    };

    #[test]
    fn a_refused_shader_fails_the_run_that_needs_it() {
        let gpu = gpu();
        let out = gpu.buffer("out", 1).unwrap();
        let kernel = gpu.kernel(&CONSTANT, "forward", &[], "").unwrap();
        let mut program = Program::new();
        program.push(&gpu, &kernel, &[("out", &out)], &(), [1, 1, 1]);
        let first = Program::run(&gpu, &[], &[&program]).unwrap_err().to_string();
        assert!(first.contains("can't compile the shader constant::forward: "), "{first}");
        assert_eq!(first.lines().count(), 1);
        // Known by now.
        assert_eq!(gpu.kernel(&CONSTANT, "forward", &[], "").unwrap_err().to_string(), first);
        // And nobody else is the worse for it.
        let kernel = gpu.kernel(&CONSTANT, "forward", &[("VALUE", 3.0)], "").unwrap();
        let mut program = Program::new();
        program.push(&gpu, &kernel, &[("out", &out)], &(), [1, 1, 1]);
        Program::run(&gpu, &[], &[&program]).unwrap();
        assert_eq!(gpu.read::<f32>(&out.first(1)).unwrap()[0], 3.0);
    }

    #[test]
    fn a_closed_device_leaves_no_thread_at_work() {
        let gpu = gpu();
        let kernels: Vec<Arc<Kernel>> =
            (1..=40).map(|n| gpu.kernel(&CONSTANT, "forward", &[("VALUE", f64::from(n))], "").unwrap()).collect();
        drop(gpu);
        for kernel in kernels {
            assert!(kernel.pipeline.get().is_some(), "{}", kernel.label);
            assert!(kernel.parts.lock().unwrap().is_none() || kernel.pipeline().is_err());
        }
    }
}
