//! Every shader without an adapter: naga validates each variant that the host uses and writes it as SPIR-V, MSL, HLSL and
//! GLSL; every entry point keeps to WebGPU's default limits; files, headers, wrappers and references belong together.

#[path = "common/variants.rs"]
mod variants;

#[path = "shaders/declared.rs"]
mod declared;
#[path = "shaders/stems.rs"]
mod stems;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use declared::defined_twice;
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::BoundsCheckPolicies;
use naga::{AddressSpace, ShaderStage, TypeInner};
use tpgm::gpu::kernel::{interface, parse};
use tpgm::gpu::program::{MAX_GROUPS, fold};
use variants::{ShaderVariant, all, for_each_variant};

/// WebGPU's default limits.
const STORAGE_BUFFERS: usize = 8;
const INVOCATIONS: u32 = 256;
const WORKGROUP_BYTES: u32 = 16_384;
const IMMEDIATE_BYTES: u32 = 64;

#[test]
fn every_variant_is_written_as_spirv() {
    for_each_variant(|variant| {
        let ShaderVariant { entry, title, module, info, .. } = variant;
        let version = if variant.subgroups() { (1, 3) } else { (1, 0) };
        let version = if variant.cooperative() { (1, 4) } else { version };
        let options = spv::Options { lang_version: version, ..Default::default() };
        let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_string() };
        let words = spv::write_vec(module, info, &options, Some(&pipeline)).unwrap_or_else(|e| panic!("{title}: {e}"));
        assert_eq!(words.first(), Some(&0x0723_0203), "{title}: no SPIR-V");
        assert!(words.len() > 100, "{title}: {} words of SPIR-V", words.len());
    });
}

#[test]
fn every_variant_is_written_as_msl() {
    for_each_variant(|variant| {
        let ShaderVariant { entry, title, module, info, .. } = variant;
        if !variant.on_metal() {
            return;
        }
        let version = if variant.subgroups() { (2, 4) } else { (2, 0) };
        let version = if variant.wide() { version.max((2, 3)) } else { version };
        let options = msl::Options { lang_version: version, ..Default::default() };
        let pipeline =
            msl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.to_string())), ..Default::default() };
        let (text, translation) =
            msl::write_string(module, info, &options, &pipeline).unwrap_or_else(|e| panic!("{title}: {e}"));
        assert!(text.contains("kernel void"), "{title}: no kernel in the MSL");
        assert_eq!(defined_twice(&text), [""; 0], "{title}: the MSL has definitions twice");
        assert!(translation.entry_point_names.iter().all(Result::is_ok), "{title}: {translation:?}");
    });
}

#[test]
fn every_variant_is_written_as_hlsl() {
    for_each_variant(|variant| {
        let ShaderVariant { entry, title, module, info, .. } = variant;
        if variant.cooperative() {
            return;
        }
        let shader_model = if variant.subgroups() { hlsl::ShaderModel::V6_0 } else { hlsl::ShaderModel::V5_1 };
        let shader_model = if variant.wide() { hlsl::ShaderModel::V6_0 } else { shader_model };
        let shader_model = if variant.half() { hlsl::ShaderModel::V6_2 } else { shader_model };
        let target = hlsl::BindTarget { space: 1, ..Default::default() };
        let options = hlsl::Options { shader_model, immediates_target: Some(target), ..Default::default() };
        let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.to_string())) };
        let mut text = String::new();
        let reflection = hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(module, info, None)
            .unwrap_or_else(|e| panic!("{title}: {e}"));
        assert!(text.contains("numthreads"), "{title}: no entry point in the HLSL");
        assert_eq!(defined_twice(&text), [""; 0], "{title}: the HLSL has definitions twice");
        assert!(reflection.entry_point_names.iter().all(Result::is_ok), "{title}: an entry point was left out");
    });
}

#[test]
fn every_variant_is_written_as_glsl() {
    for_each_variant(|variant| {
        let ShaderVariant { entry, title, module, info, .. } = variant;
        // OpenGL has neither 16-bit floats nor 64-bit words, and no adapter of wgpu's offers them there.
        if variant.half() || variant.wide() || variant.cooperative() {
            return;
        }
        let version = if variant.subgroups() {
            glsl::Version::Desktop(450)
        } else {
            glsl::Version::Embedded { version: 310, is_webgl: false }
        };
        let options = glsl::Options { version, ..Default::default() };
        let pipeline = glsl::PipelineOptions {
            shader_stage: ShaderStage::Compute,
            entry_point: entry.to_string(),
            multiview: None,
        };
        let mut text = String::new();
        glsl::Writer::new(&mut text, module, info, &options, &pipeline, BoundsCheckPolicies::default())
            .and_then(|mut writer| writer.write())
            .unwrap_or_else(|e| panic!("{title}: {e}"));
        assert!(text.contains("void main()"), "{title}: no main in the GLSL");
        assert_eq!(defined_twice(&text), [""; 0], "{title}: the GLSL has definitions twice");
    });
}

#[test]
fn every_variant_keeps_to_the_default_limits() {
    for_each_variant(|variant| {
        let ShaderVariant { entry, title, module, info, .. } = variant;
        let face = interface(module, info, entry).unwrap_or_else(|| panic!("{title}: no entry point"));
        assert!(face.bindings.len() <= STORAGE_BUFFERS, "{title}: {} storage buffers", face.bindings.len());
        assert!(face.immediate_size <= IMMEDIATE_BYTES, "{title}: {} bytes of immediates", face.immediate_size);

        let position = module.entry_points.iter().position(|e| e.name == *entry).unwrap();
        let size = module.entry_points[position].workgroup_size;
        let invocations: u32 = size.iter().product();
        assert!((1..=INVOCATIONS).contains(&invocations), "{title}: workgroups of {size:?}");

        let uses = info.get_entry_point(position);
        let shared = module
            .global_variables
            .iter()
            .filter(|(handle, var)| var.space == AddressSpace::WorkGroup && !uses[*handle].is_empty());
        let bytes: u32 = shared.map(|(_, var)| module.types[var.ty].inner.size(module.to_ctx())).sum();
        let limit = variant.of.workgroup_memory;
        assert!(bytes <= limit, "{title}: {bytes} bytes of workgroup memory");
        assert!(limit <= WORKGROUP_BYTES || variant.cooperative(), "{title}: a base kernel runs on every adapter");

        let atomic = module.types.iter().any(|(_, ty)| matches!(ty.inner, TypeInner::Atomic(_)));
        assert!(!atomic, "{title}: atomics make results depend on the order of threads");
    });
}

/// The matrix units are reached: no translation falls back to anything else without a word.
#[test]
fn cooperative_products_multiply_whole_matrices() {
    const MULTIPLY_ADD: u32 = 4459; // OpCooperativeMatrixMulAddKHR
    for_each_variant(|variant| {
        let ShaderVariant { entry, title, module, info, .. } = variant;
        if !variant.cooperative() {
            return;
        }
        let options = spv::Options { lang_version: (1, 4), ..Default::default() };
        let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_string() };
        let words = spv::write_vec(module, info, &options, Some(&pipeline)).unwrap_or_else(|e| panic!("{title}: {e}"));
        // After a header of five words an instruction's first has its length above and its opcode below.
        let (mut at, mut found) = (5, 0);
        while at < words.len() {
            found += usize::from(words[at] & 0xffff == MULTIPLY_ADD);
            at += (words[at] >> 16) as usize;
        }
        let want = if variant.shader().name == "attention_cooperative" { 2 } else { 8 };
        assert_eq!(found, want, "{title}: cooperative multiply-adds in the SPIR-V");

        let options = msl::Options { lang_version: (2, 4), ..Default::default() };
        let pipeline =
            msl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.to_string())), ..Default::default() };
        let (text, _) = msl::write_string(module, info, &options, &pipeline).unwrap_or_else(|e| panic!("{title}: {e}"));
        assert!(text.contains("simdgroup_multiply_accumulate"), "{title}: no simdgroup product in the MSL");
    });
}

/// Two entry points may share a binding number, one entry point's buffers may not.
#[test]
fn bindings_are_told_apart() {
    for_each_variant(|variant| {
        let ShaderVariant { entry, title, module, info, .. } = variant;
        let face = interface(module, info, entry).unwrap_or_else(|| panic!("{title}: no entry point"));
        let numbers: BTreeSet<u32> = face.bindings.iter().map(|b| b.index).collect();
        let names: BTreeSet<&str> = face.bindings.iter().map(|b| b.name.as_str()).collect();
        assert_eq!((numbers.len(), names.len()), (face.bindings.len(), face.bindings.len()), "{title}: {face:?}");
        assert!(face.bindings.iter().any(|b| b.writes), "{title} writes nothing");
    });
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The WGSL files of a folder.
fn wgsl_files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let files = entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|x| x == "wgsl"));
    files.collect()
}

#[test]
fn every_override_of_the_host_exists_and_every_flag_is_used() {
    for of in all() {
        let shader = of.shader;
        let (module, _) = parse(shader.name, &shader.source(of.any_tail())).unwrap_or_else(|e| panic!("{e}"));
        let names: BTreeSet<&str> = module.overrides.iter().filter_map(|(_, o)| o.name.as_deref()).collect();
        let given: BTreeSet<&str> = of.override_names().collect();
        assert!(given.is_subset(&names), "{}: {given:?} of {names:?}", shader.name);
        // Sizes have defaults for which the kernels were tuned; anything else is a choice of the host's.
        let sizes = BTreeSet::from(["WG", "PER_LANE"]);
        // What follows from other overrides is no choice.
        let literal = |o: &naga::Override| {
            o.init.is_none_or(|init| matches!(module.global_expressions[init], naga::Expression::Literal(_)))
        };
        let free = module.overrides.iter().filter(|(_, o)| literal(o)).filter_map(|(_, o)| o.name.as_deref());
        let choices: BTreeSet<&str> = free.filter(|name| !sizes.contains(name)).collect();
        assert!(choices.is_subset(&given), "{}: {choices:?}, tested are {given:?}", shader.name);
    }
}

/// The comment that a file opens with.
fn header(text: &str) -> String {
    text.lines().take_while(|line| line.starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_header_names_its_entry_points() {
    for of in all() {
        let shader = of.shader;
        let (module, _) = parse(shader.name, &shader.source(of.any_tail())).unwrap_or_else(|e| panic!("{e}"));
        let header = header(shader.text);
        let words: BTreeSet<&str> = header.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        for entry in &module.entry_points {
            assert!(words.contains(entry.name.as_str()), "{}'s header does not name {}", shader.name, entry.name);
        }
    }
}

#[test]
fn no_file_enables_extensions() {
    for folder in ["shaders", "shaders/lib"] {
        for path in wgsl_files(folder) {
            let text = std::fs::read_to_string(&path).unwrap();
            let enables = text.lines().find(|line| line.trim_start().starts_with("enable "));
            assert_eq!(enables, None, "{}: a base kernel runs on every adapter", path.display());
        }
    }
}

#[test]
fn grids_fold_into_two_dimensions() {
    for groups in [1, 2, 65_534, 65_535, 65_536, 65_537, 131_070, 131_071, 1_000_003, MAX_GROUPS * MAX_GROUPS] {
        let [x, y, z] = fold(groups).map(|n| n as usize);
        assert!(x <= MAX_GROUPS && y <= MAX_GROUPS && z == 1, "{groups}: {x} × {y} × {z}");
        // All are covered, and less than a row is launched in vain.
        assert!((groups..groups + y).contains(&(x * y)), "{groups}: {x} × {y}");
    }
    assert_eq!(fold(MAX_GROUPS), [65_535, 1, 1]);
    assert_eq!(fold(MAX_GROUPS + 1), [32_768, 2, 1]);
}
