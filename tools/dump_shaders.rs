//! Writes every variant of every shader into a folder, as `tools/compile-everywhere` reads them: SPIR-V as wgpu makes it for
//! Vulkan in a release run, HLSL as for DX12, WGSL as the host puts it together, and `index.jsonl`, one line for each variant
//! that differs from those before.
//!
//! ```text
//! dump_shaders FOLDER [--hot] [--only TEXT] [--wgsl FILE]
//! ```

#[path = "../tests/common/variants.rs"]
mod variants;

#[path = "dump_shaders/hot.rs"]
mod hot;

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use naga::back::{hlsl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::{CooperativeRole, Expression, Module, ShaderStage, TypeInner};
use serde_json::{Value, json};
use tpgm::gpu::kernel::{interface, parse};
use tpgm::gpu::shaders::Shader;
use tpgm::ops::variants::Variants;
use variants::{ShaderVariant, all, for_each_variant_of};

/// Write every shader variant as SPIR-V, HLSL and WGSL, with an index.
#[derive(Parser)]
struct Arguments {
    /// Folder to write to; it is made if it does not exist.
    folder: PathBuf,
    /// Write the hot kernels alone: those of the table in docs/compilers.md.
    #[arg(long)]
    hot: bool,
    /// Write only variants whose title contains this text, as in `matmul_cooperative::forward`.
    #[arg(long)]
    only: Vec<String>,
    /// Read this file instead of the shader of the same name that was compiled in; a file with another name is a whole module.
    #[arg(long)]
    wgsl: Option<PathBuf>,
}

fn main() {
    if let Err(error) = run(&Arguments::parse()) {
        eprintln!("dump_shaders: {error}");
        std::process::exit(1);
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut dump = Dump::new(&arguments.folder)?;
    let replaced = arguments.wgsl.as_deref().map(variants_from).transpose()?;
    let listed = replaced.map_or_else(all, |replaced| vec![replaced]);
    let wanted = |shader: &Shader, entry: &str| {
        let name = format!("{}::{entry}", shader.name);
        // A text that names no kernel may be found in the rest of a title.
        let named =
            |text: &String| !text.contains("::") || name.starts_with(text.split(' ').next().unwrap_or_default());
        (!arguments.hot || hot::has(&name)) && (arguments.only.is_empty() || arguments.only.iter().any(named))
    };
    let mut failure = None;
    let mut rows = hot::Rows::default();
    for_each_variant_of(&listed, wanted, |variant| {
        let names = rows.of(variant);
        let titles = || names.iter().map(String::as_str).chain([variant.title]);
        let asked =
            arguments.only.is_empty() || titles().any(|title| arguments.only.iter().any(|text| title.contains(text)));
        if asked && failure.is_none() && (!arguments.hot || !names.is_empty()) {
            failure = dump.write(variant, &names).err();
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    if arguments.only.is_empty() && arguments.wgsl.is_none() {
        rows.check()?;
    }
    let count = dump.finish()?;
    if count == 0 {
        return Err("no row or title contains this text: tools/dump_shaders/hot.rs lists the rows".into());
    }
    println!("{count} distinct variants in {}", arguments.folder.display());
    Ok(())
}

/// The variants of the shader of this file's name with the file's text, or a module that is no shader of the program.
fn variants_from(path: &Path) -> Result<Variants, Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let known = all().into_iter().find(|of| of.shader.name == stem);
    let (name, libs) = match &known {
        Some(of) => (of.shader.name, of.shader.libs),
        None => (&*Box::leak(stem.into_boxed_str()), &[][..]),
    };
    let shader: &'static Shader = Box::leak(Box::new(Shader { name, text: Box::leak(text.into_boxed_str()), libs }));
    let mut of = known.unwrap_or_else(|| Variants::of(shader));
    of.shader = shader;
    of.tails().iter().try_for_each(|(tail, _)| parse(name, &shader.source(tail)).map(drop))?;
    Ok(of)
}

struct Dump {
    folder: PathBuf,
    /// Lines of the index, one per compiled module, in the order in which they came.
    lines: Vec<Value>,
    seen: HashMap<Vec<u32>, usize>,
    /// Files of WGSL by shader and appended text.
    sources: BTreeMap<(&'static str, String), String>,
}

impl Dump {
    fn new(folder: &Path) -> Result<Dump, Box<dyn Error>> {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Dump { folder: folder.into(), lines: Vec::new(), seen: HashMap::new(), sources: BTreeMap::new() })
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
        let path = self.folder.join(name);
        std::fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()).into())
    }

    /// Writes a variant unless one that compiles to the same was written, whose line then also has these rows.
    fn write(&mut self, variant: &ShaderVariant, rows: &[String]) -> Result<(), Box<dyn Error>> {
        let words = spirv(variant)?;
        if let Some(&line) = self.seen.get(&words) {
            let known = self.lines[line]["rows"].as_array_mut().expect("every line has rows");
            known.extend(rows.iter().map(|row| json!(row)));
            return Ok(());
        }
        let id = format!("{:05}", self.lines.len());
        self.put(&format!("{id}.spv"), bytemuck::cast_slice(&words))?;
        let hlsl = if variant.cooperative() { None } else { Some(as_hlsl(variant)?) };
        if let Some((text, _)) = &hlsl {
            self.put(&format!("{id}.hlsl"), text.as_bytes())?;
        }
        let wgsl = self.wgsl(variant)?;
        let title = variant.title;
        let matrices = matrices(variant.module);
        if variant.cooperative() != matrices.is_some() {
            return Err(
                format!("{title}: no size of its cooperative matrices is found: adapt tools/dump_shaders.rs").into()
            );
        }
        let face =
            interface(variant.module, variant.info, variant.entry).ok_or_else(|| format!("{title}: no entry point"))?;
        self.seen.insert(words, self.lines.len());
        self.lines.push(json!({
            "id": id,
            "shader": variant.shader().name,
            "entry": variant.entry,
            "rows": rows,
            "bindings": face.bindings.iter().map(|b| b.index).collect::<Vec<_>>(),
            "immediates": face.immediate_size,
            "constants": variant.constants.iter().collect::<BTreeMap<_, _>>(),
            "half": variant.half(),
            "wide": variant.wide(),
            "for_cpu": variant.for_cpu(),
            "subgroups": variant.subgroups(),
            "cooperative": variant.cooperative(),
            "matrices": matrices,
            "wgsl": wgsl,
            "hlsl_entry": hlsl.map(|(_, entry)| entry),
            "title": title,
        }));
        Ok(())
    }

    /// The file that holds the variant's source, which entry points and override constants share.
    fn wgsl(&mut self, variant: &ShaderVariant) -> Result<String, Box<dyn Error>> {
        let key = (variant.shader().name, variant.tail.to_string());
        if let Some(file) = self.sources.get(&key) {
            return Ok(file.clone());
        }
        let file = format!("{}_{:04}.wgsl", variant.shader().name, self.sources.len());
        self.put(&file, variant.shader().source(variant.tail).as_bytes())?;
        self.sources.insert(key, file.clone());
        Ok(file)
    }

    fn finish(self) -> Result<usize, Box<dyn Error>> {
        let mut index = Vec::new();
        self.lines.iter().try_for_each(|line| writeln!(index, "{line}"))?;
        self.put("index.jsonl", &index)?;
        Ok(self.lines.len())
    }
}

/// The size of the cooperative matrices that a module multiplies, rows, columns and depth, and what their sums are in.
fn matrices(module: &Module) -> Option<String> {
    // Sums are variables; operands are nowhere but where they are loaded.
    let (rows, columns, bits) = module.types.iter().find_map(|(_, ty)| match ty.inner {
        TypeInner::CooperativeMatrix { columns, rows, scalar, role: CooperativeRole::C } => {
            Some((rows as u32, columns as u32, scalar.width * 8))
        }
        _ => None,
    })?;
    let functions = module.functions.iter().map(|(_, function)| function);
    let mut functions = functions.chain(module.entry_points.iter().map(|point| &point.function));
    let depth = functions.find_map(|function| {
        function.expressions.iter().find_map(|(_, expression)| match expression {
            Expression::CooperativeLoad { columns, role: CooperativeRole::A, .. } => Some(*columns as u32),
            _ => None,
        })
    })?;
    Some(format!("{rows}x{columns}x{depth} f{bits}"))
}

/// What wgpu hands to a Vulkan driver of version 1.3 for a trusted module.
fn spirv(variant: &ShaderVariant) -> Result<Vec<u32>, Box<dyn Error>> {
    let unchecked = BoundsCheckPolicy::Unchecked;
    let options = spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        bounds_check_policies: BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            image_load: unchecked,
            binding_array: unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: variant.entry.into() };
    spv::write_vec(variant.module, variant.info, &options, Some(&pipeline))
        .map_err(|e| format!("{}: {e}", variant.title).into())
}

/// What wgpu hands to DX12's compiler for a trusted module, but for register numbers, and the entry point's name there.
fn as_hlsl(variant: &ShaderVariant) -> Result<(String, String), Box<dyn Error>> {
    let target = hlsl::BindTarget { space: 1, ..Default::default() };
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        immediates_target: Some(target),
        zero_initialize_workgroup_memory: false,
        restrict_indexing: false,
        force_loop_bounding: false,
        ..Default::default()
    };
    let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, variant.entry.into())) };
    let mut text = String::new();
    let mut names = hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(variant.module, variant.info, None)
        .map_err(|e| format!("{}: {e}", variant.title))?
        .entry_point_names;
    let entry = names.pop().ok_or("no entry point")?.map_err(|e| format!("{}: {e}", variant.title))?;
    Ok((text, entry))
}
