//! A loop over every variant of every shader that an op lists: what the shader tests and `tools/dump_shaders.rs` read.
#![allow(dead_code, unreachable_pub)] // each of them uses a part

use std::collections::BTreeMap;

use naga::back::{PipelineConstants, pipeline_constants::process_overrides};
use naga::valid::ModuleInfo;
use naga::{Module, ShaderStage};
use tpgm::gpu::kernel::parse;
use tpgm::gpu::shaders::Shader;
use tpgm::ops::OPS;
use tpgm::ops::variants::{Needs, Variants};

/// An entry point with all that the host decides about it.
pub struct ShaderVariant<'a> {
    pub of: &'a Variants,
    pub entry: &'a str,
    /// What the host appends to the shader's text.
    pub tail: &'a str,
    pub constants: &'a PipelineConstants,
    /// The module with overrides settled.
    pub module: &'a Module,
    pub info: &'a ModuleInfo,
    /// `shader::entry`, constants, and the appended text on one line.
    pub title: &'a str,
}

impl ShaderVariant<'_> {
    pub fn shader(&self) -> &'static Shader {
        self.of.shader
    }

    /// Whether it has 16-bit floats.
    pub fn half(&self) -> bool {
        self.tail.contains("f16")
    }

    /// Whether it reads words of 64 bits, for which OpenGL and WebGPU have no type.
    pub fn wide(&self) -> bool {
        self.tail.contains("u64")
    }

    /// Whether only CPU adapters run it.
    pub fn for_cpu(&self) -> bool {
        self.wide() || self.of.needs == Needs::WideSubgroups
    }

    /// Whether it needs the matrix units, which naga reaches by way of SPIR-V and MSL alone.
    pub fn cooperative(&self) -> bool {
        self.of.needs == Needs::Matrices
    }

    /// Whether Metal could be asked for it: its matrices are of 8 × 8, and naga names what loads them by their operand alone.
    pub fn on_metal(&self) -> bool {
        !self.cooperative() || ["CM", "CN", "CK"].iter().all(|n| self.tail.contains(&format!("const {n} = 8u;")))
    }

    /// Whether it has subgroup operations, which need newer targets; wgpu asks for these, too.
    pub fn subgroups(&self) -> bool {
        self.of.needs != Needs::Nothing || self.tail.contains("SUBGROUP")
    }
}

/// What every op lists.
pub fn all() -> Vec<Variants> {
    OPS.iter().flat_map(|op| (op.variants)()).collect()
}

/// Calls `check` with every variant of every entry point.
pub fn for_each_variant(check: impl FnMut(&ShaderVariant)) {
    for_each_variant_of(&all(), |_, _| true, check);
}

/// The same for the entry points of `listed` that are `wanted`; the others are not translated.
pub fn for_each_variant_of(
    listed: &[Variants],
    wanted: impl Fn(&Shader, &str) -> bool,
    mut check: impl FnMut(&ShaderVariant),
) {
    for of in listed {
        let shader = of.shader;
        for (tail, entries) in of.tails() {
            let (module, info) = parse(shader.name, &shader.source(&tail)).unwrap_or_else(|e| panic!("{e}"));
            assert!(!module.entry_points.is_empty(), "{} has no entry point", shader.name);
            let points = module.entry_points.iter().map(|point| &point.name[..]);
            for entry in points.filter(|entry| entries.is_none_or(|own| own == *entry) && wanted(shader, entry)) {
                for constants in of.constants_for(entry) {
                    let constants: PipelineConstants = constants.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
                    let values: BTreeMap<_, _> = constants.iter().collect();
                    let title = format!("{}::{entry} {values:?} {}", shader.name, tail.replace('\n', " "));
                    let stage = Some((ShaderStage::Compute, entry));
                    let (module, info) =
                        process_overrides(&module, &info, stage, &constants).unwrap_or_else(|e| panic!("{title}: {e}"));
                    check(&ShaderVariant {
                        of,
                        entry,
                        tail: &tail,
                        constants: &constants,
                        module: &module,
                        info: &info,
                        title: &title,
                    });
                }
            }
        }
    }
}
