//! A kernel: one entry point of one WGSL file, compiled once, with what it binds read off the shader itself, so that the
//! host binds by name and there is no second description to keep in step.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gpu::device::one_line;
use crate::gpu::{Gpu, shaders::Shader};

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

/// A compiled entry point.
#[derive(Debug)]
pub struct Kernel {
    /// `file::entry`, as in `layer_norm::backward_input`.
    pub label: String,
    /// The pipeline.
    pub pipeline: wgpu::ComputePipeline,
    /// Its only bind group's layout.
    pub layout: wgpu::BindGroupLayout,
    /// What it binds and takes.
    pub interface: Interface,
}

/// Parses and validates a WGSL text; the error gives the line.
pub fn parse(name: &str, source: &str) -> Result<(naga::Module, naga::valid::ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(source)
        .map_err(|e| format!("shaders/{name}.wgsl: {}", e.emit_to_string_with_path(source, name)))?;
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

impl Gpu {
    /// The kernel for `entry` of `shader` with these override constants and appended text; compiled on first use.
    pub fn kernel(
        &self,
        shader: &'static Shader,
        entry: &str,
        constants: &[(&str, f64)],
        tail: &str,
    ) -> Result<Arc<Kernel>> {
        let constants: BTreeMap<&str, f64> = constants.iter().copied().collect();
        let bits = constants.iter().map(|(k, v)| (k.to_string(), v.to_bits())).collect();
        let key = (shader.name, entry.to_string(), bits, tail.to_string());
        let mut kernels = self.kernels.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(kernel) = kernels.get(&key) {
            return Ok(kernel.clone());
        }
        tracing::debug!(kernel = %format!("{}::{entry}", shader.name), ?constants, "compile");
        let kernel = Arc::new(self.compile(shader, entry, &constants, tail)?);
        kernels.insert(key, kernel.clone());
        Ok(kernel)
    }

    fn compile(
        &self,
        shader: &'static Shader,
        entry: &str,
        constants: &BTreeMap<&str, f64>,
        tail: &str,
    ) -> Result<Kernel> {
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

        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(&label), source: wgpu::ShaderSource::Wgsl(source.into()) };
        let module = if self.checked {
            self.device.create_shader_module(descriptor)
        } else {
            // SAFETY: every kernel passes the suite with checks on (`tests/kernels.rs`), which reads and writes
            // guard bands around each range, and no kernel loops without a bound.
            unsafe { self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        };
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(&label),
            entries: &layout_entries,
        });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: interface.immediate_size,
        });
        let constants: Vec<(&str, f64)> = constants.iter().map(|(k, v)| (*k, *v)).collect();
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                zero_initialize_workgroup_memory: self.checked,
            },
            cache: self.pipelines.get(),
        });
        for scope in [internal, scope] {
            if let Some(error) = pollster::block_on(scope.pop()) {
                return Err(Error::Adapter(format!(
                    "{} can't compile the shader {label}: {}",
                    self.info.name,
                    one_line(&error.to_string())
                )));
            }
        }
        Ok(Kernel { label, pipeline, layout, interface })
    }
}
