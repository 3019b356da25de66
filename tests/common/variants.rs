//! Every variant of every shader that the host can ask for: the one list that the shader tests and `tools/dump_shaders.rs` read.
#![allow(dead_code, unreachable_pub)] // each of them uses a part

use std::collections::BTreeMap;

use naga::back::{PipelineConstants, pipeline_constants::process_overrides};
use naga::valid::ModuleInfo;
use naga::{Module, ShaderStage};
use tpgm::gpu::buffer::Element;
use tpgm::gpu::kernel::parse;
use tpgm::gpu::shaders::{ALL, Epilogue, Shader, by_subgroups};
use tpgm::gpu::tune::{Cooperative, Tile};
use tpgm::ops::words::fours;
use tpgm::ops::{attention, row_elem};

/// An entry point with all that the host decides about it.
pub struct ShaderVariant<'a> {
    pub shader: &'static Shader,
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
        self.wide() || self.shader.name.ends_with("_direct")
    }

    /// Whether it needs the matrix units, which naga reaches by way of SPIR-V and MSL alone.
    pub fn cooperative(&self) -> bool {
        self.shader.name.ends_with("_cooperative")
    }

    /// Whether Metal could be asked for it: its matrices are of 8 × 8, and naga names what loads them by their operand alone.
    pub fn on_metal(&self) -> bool {
        !self.cooperative() || ["CM", "CN", "CK"].iter().all(|n| self.tail.contains(&format!("const {n} = 8u;")))
    }

    /// Whether it has subgroup operations, which need newer targets; wgpu asks for these, too.
    pub fn subgroups(&self) -> bool {
        let by_name = ["_direct", "_subgroup", "_cooperative"].iter().any(|end| self.shader.name.ends_with(end));
        by_name || self.tail.contains("SUBGROUP")
    }
}

/// Calls `check` with every variant of every entry point.
pub fn for_each_variant(check: impl FnMut(&ShaderVariant)) {
    for_each_variant_of(ALL, |_, _| true, check);
}

/// The same for the entry points of `shaders` that are `wanted`; the others are not translated.
pub fn for_each_variant_of(
    shaders: &[&'static Shader],
    wanted: impl Fn(&Shader, &str) -> bool,
    mut check: impl FnMut(&ShaderVariant),
) {
    for &shader in shaders {
        for tail in tails(shader) {
            let (module, info) = parse(shader.name, &shader.source(&tail)).unwrap_or_else(|e| panic!("{e}"));
            assert!(!module.entry_points.is_empty(), "{} has no entry point", shader.name);
            let asked =
                |entry: &str| shader.name != "attention_cooperative" || cooperative_attention(entry).contains(&tail);
            for point in module.entry_points.iter().filter(|point| asked(&point.name) && wanted(shader, &point.name)) {
                for constants in combinations(shader) {
                    let values: BTreeMap<_, _> = constants.iter().collect();
                    let title = format!("{}::{} {values:?} {}", shader.name, point.name, tail.replace('\n', " "));
                    let stage = Some((ShaderStage::Compute, point.name.as_str()));
                    let (module, info) =
                        process_overrides(&module, &info, stage, &constants).unwrap_or_else(|e| panic!("{title}: {e}"));
                    check(&ShaderVariant {
                        shader,
                        entry: &point.name,
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

/// What the host appends, with each way to reduce where a shader does.
pub fn tails(shader: &Shader) -> Vec<String> {
    let ways = [String::new(), by_subgroups(false), by_subgroups(true)];
    let ways = &ways[..if shader.reduces() { 3 } else { 1 }];
    ways.iter().flat_map(|way| own_tails(shader).into_iter().map(move |tail| way.clone() + &tail)).collect()
}

/// What the host appends: attention's head width, elements that are vectors or not.
fn own_tails(shader: &Shader) -> Vec<String> {
    match shader.name {
        "attention" => [1, 4, 10, 32, 64, 80, 96, 128, 130, 256, 300]
            .into_iter()
            .flat_map(|width| [Element::Word, Element::Half].map(|element| attention::tail(element, width)))
            .collect(),
        "attention_cooperative" => {
            ["forward", "backward_query", "backward_key"].into_iter().flat_map(cooperative_attention).collect()
        }
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
        "matmul_cooperative" => {
            let halves = epilogues(false).into_iter().filter(|end| end.contains("operand = f16"));
            halves.flat_map(|end| MATRICES.map(|matrices| end.clone() + &matrices.text())).collect()
        }
        "conv2d_cooperative" => MATRICES.map(|matrices| format!("alias stored = f16;\n{}", matrices.text())).into(),
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

/// The matrix units that there are: NVIDIA's, AMD's, Apple's, Mesa's on a CPU, Intel's of Xe2 and of DG2.
const MATRICES: [Cooperative; 6] = [
    Cooperative { shape: [16; 3], subgroup: [32, 32] },
    Cooperative { shape: [16; 3], subgroup: [32, 64] },
    Cooperative { shape: [8; 3], subgroup: [32, 32] },
    Cooperative { shape: [8; 3], subgroup: [8, 8] },
    Cooperative { shape: [8, 16, 16], subgroup: [16, 32] },
    Cooperative { shape: [8, 8, 16], subgroup: [8, 32] },
];

/// What the host appends for each entry point of attention by cooperative matrices, whose blocks are its own.
fn cooperative_attention(entry: &str) -> Vec<String> {
    let of_width = |width| MATRICES.map(|matrices| attention::cooperative_tail(entry, width, matrices));
    [4, 20, 64, 80, 128].into_iter().flat_map(of_width).collect()
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
pub fn overrides(shader: &Shader) -> Vec<(&'static str, &'static [f64])> {
    let flag: &[f64] = &[0.0, 1.0];
    let lanes: &[f64] = &[8.0, 64.0];
    match shader.name {
        "matmul" | "matmul_cooperative" | "matmul_subgroup" => vec![("ACCUMULATE", flag), ("HAS_BIAS", flag)],
        "matmul_direct" => vec![("ACCUMULATE", flag), ("HAS_BIAS", flag), ("ROWS", &[32.0, 64.0])],
        "conv2d" => vec![("ACCUMULATE", flag), ("TRANSPOSED", flag)],
        "conv2d_direct" => vec![("ACCUMULATE", flag), ("COLS", &[16.0, 32.0])],
        "conv2d_subgroup" | "conv2d_cooperative" => vec![("ACCUMULATE", flag)],
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
