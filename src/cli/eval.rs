//! `tpgm eval`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::table::{percent, table};
use crate::cli::{PrecisionArgs, RunArgs, print, print_json};
use crate::data::{ClassMap, ImageCache};
use crate::error::{Error, Result};
use crate::train::config::ModelArgs;
use crate::train::evaluate::{Evaluation, Predictor, evaluate};
use crate::train::source::Source;
use crate::train::splits::named_paths;

/// Flags of `eval`.
#[derive(Args, Debug)]
pub(super) struct EvalArgs {
    /// A .safetensors file, or a folder with model.safetensors or its shards
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// A labelled data set, NAME=PATH; may be given several times
    #[arg(long, value_name = "NAME=PATH", num_args = 1.., required = true)]
    data: Vec<String>,
    /// Folder that the paths of list files and CSVs are relative to
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Which folder is which output of the model: `folder name` a line, or imagenet_class_index.json
    #[arg(long, value_name = "FILE")]
    class_map: Option<PathBuf>,
    /// Accuracy by class as well
    #[arg(long)]
    per_class: bool,
    /// Images that pass through the adapter at once
    #[arg(long, value_name = "N", default_value_t = 32)]
    batch_size: usize,
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

pub(super) fn run(args: EvalArgs) -> Result<()> {
    if args.batch_size == 0 {
        return Err(Error::Usage("--batch-size must be greater than 0".into()));
    }
    let source = Source::open(&args.model, &args.model_args.overrides())?;
    let map = args.class_map.as_deref();
    let classes = source.classes_by(map)?;
    let preprocess = args.model_args.preprocess(&source.recognised.preprocess)?;
    let sets = named_paths(&args.data)?
        .into_iter()
        .map(|(name, path)| {
            Ok((name, ClassMap::open_dataset(path, args.root.as_deref(), map)?.with_classes(&classes)?))
        })
        .collect::<Result<Vec<_>>>()?;
    let precision = args.precision.precision;
    let gpu = args.run.open(precision)?;
    let most = sets.iter().map(|(_, images)| images.items.len()).max().unwrap_or(1);
    let batch = args.batch_size.min(most);
    let mut model = Predictor::new_in(&gpu, source.model(), &source.snapshot(), batch, precision)?;
    let mut results: Vec<(&str, Evaluation)> = Vec::new();
    for (name, images) in &sets {
        let images = ImageCache::new(images.clone(), 0);
        results.push((name, evaluate(&mut model, &images, &preprocess, classes.len())?));
    }
    if args.json {
        let row = |(name, e): &(&str, Evaluation)| {
            let mut row = json!({
                "data": name, "images": e.images, "top1": e.top1, "top5": e.top5, "loss": e.loss, "ece": e.ece,
            });
            if args.per_class {
                let by_class = classes.iter().zip(&e.per_class);
                row["per_class"] =
                    by_class.map(|(c, (n, right))| json!({"class": c, "images": n, "right": right})).collect();
            }
            row
        };
        return print_json(&results.iter().map(row).collect::<Vec<_>>());
    }
    let rows: Vec<Vec<String>> = results
        .iter()
        .map(|(name, e)| {
            let (loss, ece) = (format!("{:.4}", e.loss), format!("{:.3}", e.ece));
            vec![name.to_string(), e.images.to_string(), percent(e.top1), percent(e.top5), loss, ece]
        })
        .collect();
    print(&table(&["data", "images", "top-1 %", "top-5 %", "loss", "ECE"], &rows))?;
    if args.per_class {
        let mut header = vec!["class"];
        header.extend(results.iter().map(|(name, _)| *name));
        let cell = |(n, right): (usize, usize)| if n == 0 { "-".into() } else { percent(right as f64 / n as f64) };
        let row = |(i, class): (usize, &String)| {
            let mut row = vec![class.clone()];
            row.extend(results.iter().map(|(_, e)| cell(e.per_class[i])));
            row
        };
        let rows: Vec<Vec<String>> = classes.iter().enumerate().map(row).collect();
        print(&format!("\n{}", table(&header, &rows)))?;
    }
    Ok(())
}
