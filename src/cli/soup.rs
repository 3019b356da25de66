//! `tpgm soup`

use std::path::PathBuf;

use clap::Args;

use crate::cli::table::{percent, table};
use crate::cli::{RunArgs, print};
use crate::error::{Error, Result};
use crate::model::Precision;
use crate::train::blend::{HeldOut, soup_file};
use crate::train::model_args::ModelArgs;

/// Flags of `soup`.
#[derive(Args, Debug)]
pub(super) struct SoupArgs {
    /// Models that were fine-tuned from the same weights
    #[arg(long, value_name = "MODEL", num_args = 1.., required = true)]
    models: Vec<PathBuf>,
    /// The file to write, under the first model's names
    #[arg(long, value_name = "D")]
    out: PathBuf,
    /// Keep only what makes the mean no worse on the images of --val, the best model first
    #[arg(long, requires = "val")]
    greedy: bool,
    /// Images on which a greedy soup is made; never those that results are reported on
    #[arg(long, value_name = "PATH", requires = "greedy")]
    val: Option<PathBuf>,
    /// Folder that the paths of a list file or CSV are relative to
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Which folder is which output of the model: `folder name` a line, or imagenet_class_index.json
    #[arg(long, value_name = "FILE")]
    class_map: Option<PathBuf>,
    /// Images that pass through the adapter at once
    #[arg(long, value_name = "N", default_value_t = 32)]
    batch_size: usize,
    #[command(flatten)]
    model_args: ModelArgs,
    #[command(flatten)]
    run: RunArgs,
}

pub(super) fn run(args: SoupArgs) -> Result<()> {
    if args.batch_size == 0 {
        return Err(Error::Usage("--batch-size must be greater than 0".into()));
    }
    let (root, class_map, batch_size) = (args.root, args.class_map, args.batch_size);
    let held_out = args.val.map(|val| HeldOut { val, root, class_map, batch_size });
    let gpu = args.run.open(Precision::F32)?;
    let soup = soup_file(&gpu, &args.models, held_out.as_ref(), &args.model_args, &args.out)?;
    if !soup.accuracies.is_empty() {
        let row = |(i, model): (usize, &PathBuf)| {
            let place = soup.kept.iter().position(|kept| *kept == i);
            let place = place.map_or("left out".into(), |place| (place + 1).to_string());
            vec![model.display().to_string(), percent(soup.accuracies[i]), place]
        };
        let rows: Vec<Vec<String>> = args.models.iter().enumerate().map(row).collect();
        print(&table(&["model", "top-1 %", "in the soup"], &rows))?;
    }
    let accuracy = soup.accuracy.map(|top1| format!(", top-1 {} %", percent(top1))).unwrap_or_default();
    let (kept, of) = (soup.kept.len(), args.models.len());
    print(&format!("{}: {kept} of {of} models{accuracy}\n", args.out.display()))
}
