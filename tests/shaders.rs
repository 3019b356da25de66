//! Every shader without an adapter: naga validates each variant that the host uses and writes it as SPIR-V, MSL, HLSL and
//! GLSL; every entry point keeps to WebGPU's default limits; files, headers, wrappers and references belong together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use naga::back::{PipelineConstants, glsl, hlsl, msl, pipeline_constants::process_overrides, spv};
use naga::proc::BoundsCheckPolicies;
use naga::valid::ModuleInfo;
use naga::{AddressSpace, Module, ShaderStage, TypeInner};
use tpgm::gpu::buffer::Element;
use tpgm::gpu::kernel::{interface, parse};
use tpgm::gpu::program::{MAX_GROUPS, fold};
use tpgm::gpu::shaders::{ALL, Epilogue, Shader, by_subgroups};
use tpgm::gpu::tune::{Cooperative, Tile};
use tpgm::ops::row_elem;
use tpgm::ops::words::fours;

/// WebGPU's default limits.
const STORAGE_BUFFERS: usize = 8;
const INVOCATIONS: u32 = 256;
const WORKGROUP_BYTES: u32 = 16_384;
/// What Vulkan guarantees for push constants.
const IMMEDIATE_BYTES: u32 = 128;

/// What the host appends, with each way to reduce where a shader does.
fn tails(shader: &Shader) -> Vec<String> {
    let ways = [String::new(), by_subgroups(false), by_subgroups(true)];
    let ways = &ways[..if shader.reduces() { 3 } else { 1 }];
    ways.iter().flat_map(|way| own_tails(shader).into_iter().map(move |tail| way.clone() + &tail)).collect()
}

/// What the host appends: attention's head width, elements that are vectors or not.
fn own_tails(shader: &Shader) -> Vec<String> {
    let head = |width: usize| format!("const HD = {width}u;\nconst HD4 = {}u;\n", width.div_ceil(4));
    match shader.name {
        "attention" => in_both(&[1, 4, 10, 32, 64, 128].map(head)),
        "attention_direct" => {
            let heads = [4, 32, 64, 128].map(|width| format!("const HD4 = {}u;\n", width / 4));
            heads.iter().flat_map(|head| in_fours(head, &FORMATS[..2], true)).collect()
        }
        "conv2d_direct" => in_fours("", &FORMATS[..2], true),
        "patch_embed" | "attention_pool" | "conv2d_subgroup" => in_both(&[String::new()]),
        "pool" => [("f32", "f32"), ("f16", "f32"), ("f16", "f16")]
            .map(|(stored, pooled)| format!("alias stored = {stored};\nalias pooled = {pooled};\n"))
            .into(),
        "cast" => ["f32", "vec4<f32>"]
            .map(|from| format!("alias inp_t = {from};\nalias out_t = {};\n", from.replace("f32", "f16")))
            .into(),
        "matmul" => {
            let tiles = [Tile::Tiled, Tile::TiledLarge].map(|tile| format!("const TILE = {}u;\n", tile.side()));
            epilogues(false).into_iter().flat_map(|end| tiles.clone().map(|tile| end.clone() + &tile)).collect()
        }
        "matmul_direct" => epilogues(true),
        "matmul_subgroup" => epilogues(false),
        // Subgroups of 32 lanes, the most common size, with both sizes of matrices.
        "matmul_cooperative" => {
            let matrices = [16, 8].map(|side| Cooperative { side, subgroup: 32 }.text());
            let halves = epilogues(false).into_iter().filter(|end| end.contains("operand = f16"));
            halves.flat_map(|end| matrices.clone().map(|matrices| end.clone() + &matrices)).collect()
        }
        "conv2d" => in_both(&[Tile::Tiled, Tile::TiledLarge].map(|tile| format!("const TILE = {}u;\n", tile.side()))),
        "gelu" => (0..3)
            .flat_map(|kind| ["vec4f", "f32"].map(|elem| format!("const KIND = {kind}u;\nalias elem = {elem};\n")))
            .collect(),
        "residual" => ["vec4f", "f32"].map(|elem| format!("alias elem = {elem};\n")).into(),
        "column_sum" | "swiglu" | "relu" | "avg_pool" => {
            STORED.map(|(elem, stored)| format!("alias elem = {elem};\nalias stored = {stored};\n")).into()
        }
        "batch_norm" => STORED
            .map(|(elem, stored)| {
                let single = if stored.contains("f16") { "f16" } else { "f32" };
                format!("alias elem = {elem};\nalias stored = {stored};\nalias single = {single};\n")
            })
            .into(),
        "mars" | "ftp" | "spd" => [1, 4, 8].map(row_elem).into(),
        "layer_norm" => STORED
            .map(|(elem, stored)| {
                let (width, sum) = if elem == "f32" { (1, "x") } else { (4, "x.x + x.y + (x.z + x.w)") };
                let total = format!("fn total(x: elem) -> f32 {{ return {sum}; }}\n");
                format!("alias elem = {elem};\nalias stored = {stored};\nconst WIDTH = {width}u;\n{total}")
            })
            .into(),
        "max_pool" => STORED
            .map(|(elem, stored)| {
                let taps = if elem == "f32" { "u32" } else { "vec4u" };
                format!("alias elem = {elem};\nalias stored = {stored};\nalias taps = {taps};\n")
            })
            .into(),
        _ => vec![String::new()],
    }
}

/// What a shader computes with, and what its activations hold.
const STORED: [(&str, &str); 4] = [("vec4f", "vec4f"), ("vec4f", "vec4<f16>"), ("f32", "f32"), ("f32", "f16")];

/// With activations in f32 and in f16.
fn in_both(tails: &[String]) -> Vec<String> {
    let with = |tail: &String| ["f32", "f16"].map(|stored| format!("{tail}alias stored = {stored};\n"));
    tails.iter().flat_map(with).collect()
}

/// What products read and write.
const FORMATS: [(Element, Element); 3] =
    [(Element::Word, Element::Word), (Element::Half, Element::Half), (Element::Half, Element::Word)];

/// In these formats, and with `wide` by words of 64 bits as well.
fn in_fours(tail: &str, formats: &[(Element, Element)], wide: bool) -> Vec<String> {
    let ways = &[false, true][..if wide { 2 } else { 1 }];
    let with = |(loaded, stored)| ways.iter().map(move |wide| tail.to_string() + &fours(loaded, stored, *wide));
    formats.iter().copied().flat_map(with).collect()
}

/// What a matrix product does with its sums, in the formats that it reads and writes.
fn epilogues(wide: bool) -> Vec<String> {
    let formats = FORMATS.iter().flat_map(|&(operand, result)| {
        let [from, to] = [operand, result].map(Element::scalar);
        in_fours(&format!("alias operand = {from};\nalias result = {to};\n"), &[(operand, result)], wide)
    });
    let formats: Vec<String> = formats.collect();

    let with_kinds = |end: Epilogue| match end {
        Epilogue::Gelu | Epilogue::GeluBackward => {
            (0..3).map(|kind| format!("{}const KIND = {kind}u;\n", end.text())).collect()
        }
        _ => vec![end.text()],
    };
    let ends: Vec<String> = Epilogue::ALL.into_iter().flat_map(with_kinds).collect();
    ends.iter().flat_map(|end| formats.iter().map(move |formats| end.clone() + formats)).collect()
}

/// The values that the host gives to override constants.
fn overrides(shader: &Shader) -> Vec<(&'static str, &'static [f64])> {
    let flag: &[f64] = &[0.0, 1.0];
    let lanes: &[f64] = &[8.0, 64.0];
    match shader.name {
        "matmul" | "matmul_cooperative" | "matmul_subgroup" => vec![("ACCUMULATE", flag), ("HAS_BIAS", flag)],
        "matmul_direct" => vec![("ACCUMULATE", flag), ("HAS_BIAS", flag), ("ROWS", &[32.0, 64.0])],
        "conv2d" => vec![("ACCUMULATE", flag), ("TRANSPOSED", flag)],
        "conv2d_direct" => vec![("ACCUMULATE", flag), ("COLS", &[16.0, 32.0])],
        "conv2d_subgroup" => vec![("ACCUMULATE", flag)],
        "layer_norm" | "pool" => vec![("ACCUMULATE", flag)],
        "relu" => vec![("WG", lanes), ("ACCUMULATE", flag)],
        "residual" | "gelu" | "swiglu" | "adamw" | "lerp" => vec![("WG", lanes)],
        "batch_norm" => vec![("WG", lanes), ("TRAIN", flag), ("RELU", flag), ("SHORTCUT", flag)],
        "cross_entropy" | "norm_clip" | "loss_scale" | "max_pool" | "avg_pool" | "attention_pool" | "l2_normalize" => {
            vec![("WG", lanes)]
        }
        "sgd" => vec![("WG", lanes), ("NESTEROV", flag)],
        "mars" => vec![("WG", lanes), ("L2", flag), ("SHARED", flag), ("HELD", flag), ("SCALED", flag)],
        "ftp" => vec![("WG", lanes), ("SHARED", flag), ("SCALED", flag)],
        "spd" => vec![("WG", lanes), ("SHARED", flag), ("DISTANCE", flag)],
        "l2_sp" => vec![("WG", lanes), ("SCALED", flag)],
        _ => vec![],
    }
}

/// Every combination of them.
fn combinations(shader: &Shader) -> Vec<PipelineConstants> {
    overrides(shader).into_iter().fold(vec![PipelineConstants::default()], |found, (key, values)| {
        let with = |constants: &PipelineConstants, value: f64| {
            let mut more = constants.clone();
            more.insert(key.to_string(), value);
            more
        };
        found.iter().flat_map(|constants| values.iter().map(move |v| with(constants, *v))).collect()
    })
}

/// Calls `check` with every variant of every entry point: shader, entry point, its title, module with overrides settled.
fn for_each_variant(check: impl Fn(&Shader, &str, &str, &Module, &ModuleInfo)) {
    for shader in ALL {
        for tail in tails(shader) {
            let (module, info) = parse(shader.name, &shader.source(&tail)).unwrap_or_else(|e| panic!("{e}"));
            assert!(!module.entry_points.is_empty(), "{} has no entry point", shader.name);
            for entry in &module.entry_points {
                for constants in combinations(shader) {
                    let title = format!("{}::{} {constants:?} {}", shader.name, entry.name, tail.replace('\n', " "));
                    let point = Some((ShaderStage::Compute, entry.name.as_str()));
                    let (module, info) =
                        process_overrides(&module, &info, point, &constants).unwrap_or_else(|e| panic!("{title}: {e}"));
                    check(shader, &entry.name, &title, &module, &info);
                }
            }
        }
    }
}

/// Whether this variant has 16-bit floats.
fn half(title: &str) -> bool {
    title.contains("f16")
}

/// Whether it reads words of 64 bits, for which OpenGL has no type.
fn wide(title: &str) -> bool {
    title.contains("u64")
}

/// Whether it needs the matrix units, which naga reaches by way of SPIR-V and MSL alone.
fn cooperative(shader: &Shader) -> bool {
    shader.name.ends_with("_cooperative")
}

/// Subgroups need newer targets; wgpu asks for these, too.
fn subgroups(shader: &Shader, title: &str) -> bool {
    ["_direct", "_subgroup", "_cooperative"].iter().any(|end| shader.name.ends_with(end)) || title.contains("SUBGROUP")
}

#[test]
fn every_variant_is_written_as_spirv() {
    for_each_variant(|shader, entry, title, module, info| {
        let version = if subgroups(shader, title) { (1, 3) } else { (1, 0) };
        let version = if cooperative(shader) { (1, 4) } else { version };
        let options = spv::Options { lang_version: version, ..Default::default() };
        let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.into() };
        let words = spv::write_vec(module, info, &options, Some(&pipeline)).unwrap_or_else(|e| panic!("{title}: {e}"));
        assert_eq!(words.first(), Some(&0x0723_0203), "{title}: no SPIR-V");
        assert!(words.len() > 100, "{title}: {} words of SPIR-V", words.len());
    });
}

#[test]
fn every_variant_is_written_as_msl() {
    for_each_variant(|shader, entry, title, module, info| {
        let version = if subgroups(shader, title) { (2, 4) } else { (2, 0) };
        let version = if wide(title) { version.max((2, 3)) } else { version };
        let options = msl::Options { lang_version: version, ..Default::default() };
        let pipeline =
            msl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.into())), ..Default::default() };
        let (text, translation) =
            msl::write_string(module, info, &options, &pipeline).unwrap_or_else(|e| panic!("{title}: {e}"));
        assert!(text.contains("kernel void"), "{title}: no kernel in the MSL");
        assert!(translation.entry_point_names.iter().all(Result::is_ok), "{title}: {translation:?}");
    });
}

#[test]
fn every_variant_is_written_as_hlsl() {
    for_each_variant(|shader, entry, title, module, info| {
        if cooperative(shader) {
            return;
        }
        let shader_model = if subgroups(shader, title) { hlsl::ShaderModel::V6_0 } else { hlsl::ShaderModel::V5_1 };
        let shader_model = if wide(title) { hlsl::ShaderModel::V6_0 } else { shader_model };
        let shader_model = if half(title) { hlsl::ShaderModel::V6_2 } else { shader_model };
        let target = hlsl::BindTarget { space: 1, ..Default::default() };
        let options = hlsl::Options { shader_model, immediates_target: Some(target), ..Default::default() };
        let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.into())) };
        let mut text = String::new();
        let reflection = hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(module, info, None)
            .unwrap_or_else(|e| panic!("{title}: {e}"));
        assert!(text.contains("numthreads"), "{title}: no entry point in the HLSL");
        assert!(reflection.entry_point_names.iter().all(Result::is_ok), "{title}: an entry point was left out");
    });
}

#[test]
fn every_variant_is_written_as_glsl() {
    for_each_variant(|shader, entry, title, module, info| {
        // OpenGL has neither 16-bit floats nor 64-bit words, and no adapter of wgpu's offers them there.
        if half(title) || wide(title) || cooperative(shader) {
            return;
        }
        let version = if subgroups(shader, title) {
            glsl::Version::Desktop(450)
        } else {
            glsl::Version::Embedded { version: 310, is_webgl: false }
        };
        let options = glsl::Options { version, ..Default::default() };
        let pipeline =
            glsl::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.into(), multiview: None };
        let mut text = String::new();
        glsl::Writer::new(&mut text, module, info, &options, &pipeline, BoundsCheckPolicies::default())
            .and_then(|mut writer| writer.write())
            .unwrap_or_else(|e| panic!("{title}: {e}"));
        assert!(text.contains("void main()"), "{title}: no main in the GLSL");
    });
}

#[test]
fn every_variant_keeps_to_the_default_limits() {
    for_each_variant(|_, entry, title, module, info| {
        let face = interface(module, info, entry).unwrap_or_else(|| panic!("{title}: no entry point"));
        assert!(face.bindings.len() <= STORAGE_BUFFERS, "{title}: {} storage buffers", face.bindings.len());
        assert!(face.immediate_size <= IMMEDIATE_BYTES, "{title}: {} bytes of immediates", face.immediate_size);

        let position = module.entry_points.iter().position(|e| e.name == entry).unwrap();
        let size = module.entry_points[position].workgroup_size;
        let invocations: u32 = size.iter().product();
        assert!((1..=INVOCATIONS).contains(&invocations), "{title}: workgroups of {size:?}");

        let uses = info.get_entry_point(position);
        let shared = module
            .global_variables
            .iter()
            .filter(|(handle, var)| var.space == AddressSpace::WorkGroup && !uses[*handle].is_empty());
        let bytes: u32 = shared.map(|(_, var)| module.types[var.ty].inner.size(module.to_ctx())).sum();
        assert!(bytes <= WORKGROUP_BYTES, "{title}: {bytes} bytes of workgroup memory");

        let atomic = module.types.iter().any(|(_, ty)| matches!(ty.inner, TypeInner::Atomic(_)));
        assert!(!atomic, "{title}: atomics make results depend on the order of threads");
    });
}

/// The matrix units are reached: no translation falls back to anything else without a word.
#[test]
fn cooperative_products_multiply_whole_matrices() {
    const MULTIPLY_ADD: u32 = 4459; // OpCooperativeMatrixMulAddKHR
    for_each_variant(|shader, entry, title, module, info| {
        if !cooperative(shader) {
            return;
        }
        let options = spv::Options { lang_version: (1, 4), ..Default::default() };
        let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.into() };
        let words = spv::write_vec(module, info, &options, Some(&pipeline)).unwrap_or_else(|e| panic!("{title}: {e}"));
        // After a header of five words an instruction's first has its length above and its opcode below.
        let (mut at, mut found) = (5, 0);
        while at < words.len() {
            found += usize::from(words[at] & 0xffff == MULTIPLY_ADD);
            at += (words[at] >> 16) as usize;
        }
        assert_eq!(found, 4, "{title}: {found} cooperative multiply-adds in the SPIR-V");

        let options = msl::Options { lang_version: (2, 4), ..Default::default() };
        let pipeline =
            msl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.into())), ..Default::default() };
        let (text, _) = msl::write_string(module, info, &options, &pipeline).unwrap_or_else(|e| panic!("{title}: {e}"));
        assert!(text.contains("simdgroup_multiply_accumulate"), "{title}: no simdgroup product in the MSL");
    });
}

/// Two entry points may share a binding number, one entry point's buffers may not.
#[test]
fn bindings_are_told_apart() {
    for_each_variant(|_, entry, title, module, info| {
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
fn every_file_is_listed_and_has_its_wrapper_and_reference() {
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    let files: BTreeSet<String> = wgsl_files("shaders").iter().map(stem).collect();
    let listed: BTreeSet<String> = ALL.iter().map(|s| s.name.to_string()).collect();
    assert_eq!(files, listed);
    for name in &files {
        // A second algorithm for the same stem is a file of its own.
        let algorithms = ["_direct", "_subgroup", "_cooperative"];
        let stem = algorithms.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        for folder in ["src/cpu", "src/ops"] {
            let path = root().join(folder).join(format!("{stem}.rs"));
            assert!(path.is_file(), "{} has no {}", name, path.display());
        }
    }
}

#[test]
fn every_override_of_the_host_exists_and_every_flag_is_used() {
    for shader in ALL {
        let (module, _) = parse(shader.name, &shader.source(&tails(shader)[0])).unwrap_or_else(|e| panic!("{e}"));
        let names: BTreeSet<&str> = module.overrides.iter().filter_map(|(_, o)| o.name.as_deref()).collect();
        let given: BTreeSet<&str> = overrides(shader).iter().map(|(name, _)| *name).collect();
        assert!(given.is_subset(&names), "{}: {given:?} of {names:?}", shader.name);
        // Sizes have defaults for which the kernels were tuned; anything else is a choice of the host's.
        let sizes = BTreeSet::from(["WG", "PER_LANE"]);
        let choices: BTreeSet<&str> = names.difference(&sizes).copied().collect();
        assert!(choices.is_subset(&given), "{}: {choices:?}, tested are {given:?}", shader.name);
    }
}

/// The comment that a file opens with.
fn header(text: &str) -> String {
    text.lines().take_while(|line| line.starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_header_names_its_entry_points() {
    for shader in ALL {
        let (module, _) = parse(shader.name, &shader.source(&tails(shader)[0])).unwrap_or_else(|e| panic!("{e}"));
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
