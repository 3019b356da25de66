//! `tpgm predict`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::checkpoint::write_safetensors;
use crate::cli::console::note;
use crate::cli::progress::Count;
use crate::cli::zero_shot::build;
use crate::cli::{RunArgs, look_at, print, print_json, say_summaries};
use crate::data::Dataset;
use crate::error::{Error, Result, escaped, shown};
use crate::train::data_args::EvalDataArgs;
use crate::train::evaluate::{Predictor, Sound, Watched, features};
use crate::train::help;
use crate::train::memory_args::PrecisionArgs;
use crate::train::model_args::ModelArgs;
use crate::train::source::Source;
use crate::train::tta::TtaArgs;
use crate::train::zero_shot_args::ZeroShotArgs;

/// Flags of `predict`.
#[derive(Args, Debug)]
pub(super) struct PredictArgs {
    /// A .safetensors file, a folder with model.safetensors or its shards, or hf://OWNER/NAME
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// An image, a folder of images, a list file or a CSV
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Write the logits [N,C] to this safetensors file, rows in sorted path order
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Classes to name for each image
    #[arg(long, value_name = "K", default_value_t = 1)]
    top: usize,
    #[command(flatten)]
    views: TtaArgs,
    #[command(flatten)]
    images: EvalDataArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    model_args: ModelArgs,
    #[command(flatten)]
    zero_shot: ZeroShotArgs,
    #[command(flatten)]
    run: RunArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// Classes by falling probability.
fn ranked(logits: &[f32]) -> Vec<(usize, f64)> {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|l| f64::from(l - peak).exp()).sum();
    let mut order: Vec<(usize, f64)> = logits.iter().map(|l| f64::from(l - peak).exp() / total).enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order
}

pub(super) fn run(args: PredictArgs) -> Result<()> {
    args.images.validate()?;
    if args.top == 0 {
        return Err(Error::Usage("--top must be greater than 0".into()));
    }
    args.zero_shot.validate(&args.model_args)?;
    let mut source = Source::open(&args.model, &args.zero_shot.overrides(&args.model_args))?;
    let files = &args.images.files;
    let precision = args.precision.precision;
    let gpu = args.run.open(precision)?;
    if args.zero_shot.on() {
        let map = files.map()?;
        let names = match (args.zero_shot.names()?, &map) {
            (Some(names), None) => names,
            (_, Some(map)) => map.names(),
            (None, None) => {
                return Err(Error::Usage(
                    "--zero-shot needs class names: give --class-names FILE or --class-map FILE".into(),
                ));
            }
        };
        build(&mut |tell| args.zero_shot.apply(&gpu, &mut source, &args.model_args, &names, tell))?;
    }
    let classes = source.class_map(files.map()?.as_ref(), &[])?;
    source.recognised.notes.iter().for_each(|n| note!("{}", help::note(n)));
    note!("{classes}");
    let classes = classes.names();
    let preprocess = args.model_args.preprocess(&source.recognised.preprocess)?;
    let mut sets = [Dataset::unlabelled(&args.data, files.root.as_deref())?];
    let checked = look_at(&mut sets, files)?;
    let [mut images] = sets;
    images.items.sort_by(|a, b| a.path.cmp(&b.path));
    say_summaries([("data", &images)].into_iter(), &[], &checked);
    let batch = args.images.batch_size.min(images.items.len());
    let mut model = Predictor::new_in(&gpu, source.model(), &source.snapshot(), batch, precision)?;
    let mut viewed = args.views.tta.of(&mut model, preprocess.image_size);
    let mut sound = Sound::new(&mut viewed, &images);
    let mut count = Count::new("images");
    let mut tell = |done, of| count.show(done, of, "predicted");
    let logits = features(&mut Watched::new(&mut sound, &images, &mut tell), &images, &preprocess)?;
    drop(count);
    if let Some(path) = &args.logits {
        let shape = vec![images.items.len(), classes.len()];
        write_safetensors(path, &[("logits".to_string(), shape, logits.as_slice())], &BTreeMap::new())?;
    }
    let rows = images.items.iter().zip(logits.chunks(classes.len()));
    if args.json {
        let row = |(item, logits): (&crate::data::Item, &[f32])| {
            let top: Vec<_> = ranked(logits)
                .iter()
                .take(args.top)
                .map(|(c, p)| json!({"class": classes[*c], "probability": p}))
                .collect();
            json!({"path": item.path, "top": top})
        };
        return print_json(&rows.map(row).collect::<Vec<_>>());
    }
    let mut text = String::new();
    for (item, logits) in rows {
        let top: Vec<String> =
            ranked(logits).iter().take(args.top).map(|(c, p)| format!("{} {:.1} %", classes[*c], 100.0 * p)).collect();
        text += &format!("{}: {}\n", shown(&item.path), escaped(&top.join(", ")));
    }
    print(&text)
}
