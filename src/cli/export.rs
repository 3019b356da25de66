//! `tpgm export`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::checkpoint::Weight;
use crate::cli::console::note;
use crate::cli::progress::Count;
use crate::cli::table::{percent, table};
use crate::cli::{RunArgs, look_at, print, print_json, say_summaries};
use crate::data::{Dataset, ImageCache};
use crate::error::{Error, Result};
use crate::export::library::Library;
use crate::export::onnx::{self, Format};
use crate::export::{Origin, folder};
use crate::method::Snapshot;
use crate::model::Precision;
use crate::shapes::layout::mib;
use crate::train::data_args::{EvalDataArgs, named_paths};
use crate::train::evaluate::{Figure, Fitted, Predictor, Sound, Watched};
use crate::train::help;
use crate::train::model_args::ModelArgs;
use crate::train::source::Source;
use crate::train::subset::evaluate_among;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// One file for onnxruntime and others
    Onnx,
    /// A folder for transformers' from_pretrained
    Hf,
    /// A folder for timm's create_model('local-dir:FOLDER')
    Timm,
    /// A folder with torchvision's names
    Torchvision,
}

/// Flags of `export`.
#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    /// A run's folder, of which best.safetensors is taken; or a .safetensors file, a folder with model.safetensors or its shards, or
    /// hf://OWNER/NAME
    #[arg(long, value_name = "RUN|MODEL")]
    model: PathBuf,
    /// What to write
    #[arg(long, value_enum)]
    format: Kind,
    /// The file to write, or the folder
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Of an ONNX file: how linear layers and convolutions are stored: f16 is cast back to f32 when the model runs, int8 has one scale per output channel
    #[arg(long, value_enum, default_value = "f32")]
    weights: Format,
    /// Of an ONNX file: let the graph read RGB images [batch, height, width, 3] of 0..255 and of any one size, and resize, crop and normalise them itself
    #[arg(long)]
    with_preprocessing: bool,
    /// Of an ONNX file: a labelled data set, NAME=PATH, on which to tell the accuracy before and after rounding; may be given several times
    #[arg(long, value_name = "NAME=PATH", num_args = 1..)]
    test: Vec<String>,
    #[command(flatten)]
    images: EvalDataArgs,
    #[command(flatten)]
    model_args: ModelArgs,
    #[command(flatten)]
    run: RunArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// Accuracy on a test set, before and after.
struct Cost<'a> {
    name: &'a str,
    images: usize,
    /// Which figure.
    figure: Figure,
    values: [f64; 2],
}

pub(super) fn run(args: ExportArgs) -> Result<()> {
    args.images.validate()?;
    let library = match args.format {
        Kind::Onnx => None,
        Kind::Hf => Some(Library::Transformers),
        Kind::Timm => Some(Library::Timm),
        Kind::Torchvision => Some(Library::Torchvision),
    };
    if library.is_some() {
        let foreign = [
            (args.weights != Format::F32, "--weights"),
            (args.with_preprocessing, "--with-preprocessing"),
            (!args.test.is_empty(), "--test"),
        ];
        if let Some((_, flag)) = foreign.into_iter().find(|(given, _)| *given) {
            return Err(Error::Usage(format!("{flag} is for --format onnx: leave it out")));
        }
    }
    let origin = Origin::of(&args.model)?;
    let mut source = Source::open(&origin.weights, &args.model_args.overrides())?;
    let files = &args.images.files;
    let named = named_paths(&args.test)?;
    let mut sets = named.iter().map(|(_, path)| files.open(path)).collect::<Result<Vec<Dataset>>>()?;
    let checked = look_at(&mut sets, files)?;
    let map = source.class_map(files.map()?.as_ref(), &sets.iter().collect::<Vec<_>>())?;
    let labelled = sets.iter().map(|set| map.label(set)).collect::<Result<Vec<Dataset>>>()?;
    if source.recognised.classes.is_some() || files.class_map.is_some() {
        source.recognised.classes = Some(map.names());
    }
    source.recognised.preprocess = args.model_args.preprocess(&source.recognised.preprocess)?;
    source.recognised.notes.iter().for_each(|n| note!("{}", help::note(n)));
    say_summaries(named.iter().map(|(name, _)| *name).zip(&labelled), &map.names(), &checked);

    if let Some(library) = library {
        return write_folder(&args, library, &source, &origin);
    }
    let options =
        onnx::Options { weights: args.weights, with_preprocessing: args.with_preprocessing, limit: onnx::LIMIT };
    let written = onnx::write(&args.out, &source.recognised, (&source.weights, &source.stats), options)?;
    let costs = costs(&args, &source, &written.rounded, named.iter().map(|(name, _)| *name).zip(&labelled), map.len())?;
    if args.json {
        let row = |cost: &Cost| {
            let key = cost.figure.key();
            let [before, after] = cost.values;
            json!({"name": cost.name, "images": cost.images, key: before, format!("{key}_exported"): after})
        };
        return print_json(&json!({
            "out": args.out,
            "data": written.data,
            "format": "onnx",
            "weights": args.weights.name(),
            "bytes": written.bytes,
            "nodes": written.nodes,
            "family": source.recognised.family,
            "test": costs.iter().map(row).collect::<Vec<Value>>(),
        }));
    }
    let data = written.data.map(|path| format!(" with {}", path.display())).unwrap_or_default();
    let (nodes, bytes) = (written.nodes, mib(written.bytes as u64));
    print(&format!(
        "{}{data}: ONNX opset {}, {nodes} nodes, weights {}, {bytes}\n",
        args.out.display(),
        onnx::OPSET,
        args.weights.name(),
    ))?;
    if costs.is_empty() {
        return Ok(());
    }
    let row = |cost: &Cost| {
        let [before, after] = cost.values;
        let points = format!("{:+.2}", 100.0 * (after - before));
        vec![cost.name.to_string(), cost.images.to_string(), percent(before), percent(after), points]
    };
    let rows: Vec<Vec<String>> = costs.iter().map(row).collect();
    let figure = format!("{} %", costs[0].figure.name());
    print(&table(&["data", "images", &figure, &format!("{} %", args.weights.name()), "points"], &rows))
}

/// Writes a folder for a library.
fn write_folder(args: &ExportArgs, library: Library, source: &Source, origin: &Origin) -> Result<()> {
    let written = folder::write(&args.out, library, source, origin)?;
    if args.json {
        return print_json(&json!({
            "out": args.out,
            "format": library.name(),
            "architecture": written.architecture,
            "files": written.files,
            "bytes": written.bytes,
            "family": source.recognised.family,
            "remarks": written.remarks,
        }));
    }
    written.remarks.iter().for_each(|remark| note!("{remark}"));
    let (out, files) = (args.out.display(), written.files.len());
    let (name, bytes) = (written.architecture, mib(written.bytes));
    print(&format!("{out}: {name} of {}, {files} files, weights {bytes}\n", library.name()))
}

/// What rounding costs on each of `sets`.
fn costs<'a>(
    args: &ExportArgs,
    source: &Source,
    rounded: &[Weight],
    sets: impl Iterator<Item = (&'a str, &'a Dataset)>,
    classes: usize,
) -> Result<Vec<Cost<'a>>> {
    let sets: Vec<(&str, &Dataset)> = sets.collect();
    if sets.is_empty() {
        return Ok(Vec::new());
    }
    let gpu = args.run.open(Precision::F32)?;
    let before = source.snapshot();
    let after = (!rounded.is_empty()).then(|| {
        let w = source.model().layout().pack(rounded.iter().map(|t| t.2.as_slice()));
        Snapshot { w, ..before.clone() }
    });
    let mut costs = Vec::new();
    let mut count = Count::new("images");
    for (name, set) in sets {
        let images = ImageCache::new(set.clone(), crate::data::loader::CACHE_BYTES);
        let mut judge = |values: &Snapshot, what: &str| {
            let batch = args.images.batch_size.min(set.items.len());
            let mut predictor = Predictor::new_in(&gpu, source.model(), values, batch, Precision::F32)?;
            let mut sound = Sound::new(&mut predictor, set);
            let mut tell = |done, of| count.show(done, of, &format!("evaluated on {name}{what}"));
            let mut watched = Watched::new(&mut sound, set, &mut tell);
            let input = &source.recognised.preprocess;
            let fitted = Fitted { temperature: None, thresholds: source.recognised.thresholds.as_deref() };
            let evaluation = evaluate_among(&mut watched, &images, input, classes, false, fitted)?;
            Ok::<_, Error>((evaluation.figure(), evaluation.main()))
        };
        let (figure, whole) = judge(&before, "")?;
        let less = after.as_ref().map(|after| judge(after, ", rounded")).transpose()?;
        costs.push(Cost {
            name,
            images: set.items.len(),
            figure,
            values: [whole, less.map_or(whole, |(_, less)| less)],
        });
    }
    Ok(costs)
}
