//! `tpgm soup`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::console::note;
use crate::cli::progress::Count;
use crate::cli::table::{percent, table};
use crate::cli::{RunArgs, print, print_json};
use crate::error::{Error, Result};
use crate::method::soups::{Greedy, SOUPS, Soup, named};
use crate::model::Precision;
use crate::train::blend::{HeldOut, soup_file};
use crate::train::data_args::EvalDataArgs;
use crate::train::evaluate::Figure;
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
    /// uniform (the mean), greedy (only what makes the mean no worse on the images of --val, the best model first) or model-stock
    /// (each tensor as near to --pretrained as the angles between the models' drifts say)
    #[arg(long, value_name = "KIND", default_value = SOUPS[0].name(), value_parser = named)]
    kind: &'static dyn Soup,
    /// As --kind greedy
    #[arg(long, conflicts_with = "kind")]
    greedy: bool,
    /// Images on which a greedy soup is made; never those that results are reported on
    #[arg(long, value_name = "PATH")]
    val: Option<PathBuf>,
    /// The model that the fine-tuning began with, for model-stock
    #[arg(long, value_name = "A")]
    pretrained: Option<PathBuf>,
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

pub(super) fn run(args: SoupArgs) -> Result<()> {
    args.images.validate()?;
    let soup: &dyn Soup = if args.greedy { &Greedy } else { args.kind };
    let name = soup.name();
    let asked = [
        ("val", soup.needs_images(), args.val.is_some()),
        ("pretrained", soup.needs_anchor(), args.pretrained.is_some()),
    ];
    for (flag, needed, given) in asked {
        match (needed, given) {
            (true, false) => return Err(Error::Usage(format!("--kind {name} needs --{flag}"))),
            (false, true) => return Err(Error::Usage(format!("--kind {name} does not use --{flag}: leave it out"))),
            _ => {}
        }
    }
    let mut count = Count::new("images");
    let mut looked_at = |done, of| count.show(done, of, "looked at");
    let held_out = args.val.map(|val| HeldOut::open(&val, args.images, &mut looked_at)).transpose()?;
    drop(count);
    let mut count = Count::new("images");
    let mut evaluated = |done, of| count.show(done, of, "evaluated");
    let gpu = args.run.open(Precision::F32)?;
    let (accuracies, mixed, notes) = soup_file(
        &gpu,
        soup,
        (&args.models, args.pretrained.as_deref()),
        held_out.as_ref(),
        &args.model_args,
        &args.out,
        &mut evaluated,
    )?;
    drop(count);
    notes.iter().for_each(|n| note!("{n}"));
    let figure = held_out.as_ref().map_or(Figure::Top1, HeldOut::figure);
    if args.json {
        let key = figure.key();
        return print_json(&json!({
            "out": args.out,
            "kind": name,
            "models": args.models,
            "kept": mixed.kept.iter().map(|i| &args.models[*i]).collect::<Vec<_>>(),
            format!("{key}_of_models"): accuracies,
            key: mixed.accuracy,
            "share_of_drift": mixed.share,
        }));
    }
    if !accuracies.is_empty() {
        let row = |(i, model): (usize, &PathBuf)| {
            let place = mixed.kept.iter().position(|kept| *kept == i);
            let place = place.map_or("left out".into(), |place| (place + 1).to_string());
            vec![model.display().to_string(), percent(accuracies[i]), place]
        };
        let rows: Vec<Vec<String>> = args.models.iter().enumerate().map(row).collect();
        print(&table(&["model", &format!("{} %", figure.name()), "in the soup"], &rows))?;
    }
    let accuracy = mixed.accuracy.map(|main| format!(", {} {} %", figure.name(), percent(main))).unwrap_or_default();
    let (kept, of) = (mixed.kept.len(), args.models.len());
    let share =
        mixed.share.map(|share| format!(", with {} % of their mean's drift", percent(share))).unwrap_or_default();
    print(&format!("{}: {kept} of {of} models{share}{accuracy}\n", args.out.display()))
}
