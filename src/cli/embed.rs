//! `tpgm embed`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::checkpoint::{Values, write_safetensors};
use crate::cli::console::note;
use crate::cli::progress::Count;
use crate::cli::{RunArgs, look_at, print, print_json, say_summaries};
use crate::data::{Dataset, Item};
use crate::error::Result;
use crate::train::data_args::EvalDataArgs;
use crate::train::evaluate::{Predictor, Sound, Watched, features};
use crate::train::help;
use crate::train::memory_args::PrecisionArgs;
use crate::train::model_args::ModelArgs;
use crate::train::source::Source;

/// Flags of `embed`.
#[derive(Args, Debug)]
pub(super) struct EmbedArgs {
    /// A .safetensors file, a folder with model.safetensors or its shards, or hf://OWNER/NAME; with a head or without
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// An image, a folder of images, one folder per class, a list file or a CSV
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// The safetensors file to write: features [N,F], and labels [N] if the images have any ([N,C], 0 or 1, if these may be several); rows in sorted path order, paths and
    /// classes in the metadata
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    images: EvalDataArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    model_args: ModelArgs,
    #[command(flatten)]
    run: RunArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// Writes the `features` of `images`, `[N, F]`, with their paths, and their labels and classes if they have any.
pub(super) fn write(out: &Path, images: &Dataset, features: &[f32]) -> Result<()> {
    let count = images.items.len();
    let labels: Vec<u32> = match images.is_multi_label() {
        true => {
            let row = |item: &Item| {
                let own = images.classes_of(&item.label);
                (0..images.classes.len() as u32).map(|class| u32::from(own.contains(&class))).collect::<Vec<_>>()
            };
            images.items.iter().flat_map(row).collect()
        }
        false => images.items.iter().map(|item| item.label).collect(),
    };
    let width = features.len() / count.max(1);
    let mut tensors = vec![("features".to_string(), vec![count, width], Values::F32(features))];
    let mut metadata = BTreeMap::new();
    let paths: Vec<&Path> = images.items.iter().map(|item| item.path.as_path()).collect();
    metadata.insert("paths".to_string(), json!(paths).to_string());
    if !images.classes.is_empty() {
        let shape = if images.is_multi_label() { vec![count, images.classes.len()] } else { vec![count] };
        tensors.push(("labels".to_string(), shape, Values::U32(&labels)));
        metadata.insert("classes".to_string(), json!(images.classes).to_string());
    }
    write_safetensors(out, &tensors, &metadata)
}

pub(super) fn run(args: EmbedArgs) -> Result<()> {
    args.images.validate()?;
    let source = Source::open(&args.model, &args.model_args.overrides())?.without_head();
    source.recognised.notes.iter().for_each(|n| note!("{}", help::note(n)));
    let files = &args.images.files;
    let preprocess = args.model_args.preprocess(&source.recognised.preprocess)?;
    let mut sets = [files.open_any(&args.data)?];
    let checked = look_at(&mut sets, files)?;
    let [mut images] = sets;
    images.items.sort_by(|a, b| a.path.cmp(&b.path));
    say_summaries([("data", &images)].into_iter(), &images.classes, &checked);
    let precision = args.precision.precision;
    let gpu = args.run.open(precision)?;
    let (count, width) = (images.items.len(), source.recognised.config.width());
    let mut model =
        Predictor::new_in(&gpu, source.model(), &source.snapshot(), args.images.batch_size.min(count), precision)?;
    let mut sound = Sound::new(&mut model, &images);
    let mut progress = Count::new("images");
    let mut tell = |done, of| progress.show(done, of, "embedded");
    let features = features(&mut Watched::new(&mut sound, &images, &mut tell), &images, &preprocess)?;
    drop(progress);
    write(&args.out, &images, &features)?;
    if args.json {
        return print_json(&json!({
            "out": args.out, "images": count, "features": width, "classes": images.classes, "family": source.recognised.family,
        }));
    }
    print(&format!("{}: {width} features of each of {count} images\n", args.out.display()))
}
