//! `tpgm wise`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::console::note;
use crate::cli::progress::Count;
use crate::cli::scores::add_figures;
use crate::cli::table::{percent, table};
use crate::cli::{RunArgs, print, print_json};
use crate::error::{Error, Result};
use crate::method::between::{Between, alphas};
use crate::model::Precision;
use crate::train::blend::{HeldOut, wise_file};
use crate::train::data_args::EvalDataArgs;
use crate::train::evaluate::{Evaluation, Figure};
use crate::train::model_args::ModelArgs;

/// Flags of `wise`.
#[derive(Args, Debug)]
pub(super) struct WiseArgs {
    /// The model that the fine-tuning began with
    #[arg(long, value_name = "A")]
    pretrained: PathBuf,
    /// The fine-tuned model
    #[arg(long, value_name = "B")]
    finetuned: PathBuf,
    /// The file to write
    #[arg(long, value_name = "C")]
    out: PathBuf,
    /// Where between the two: 0 is the pre-trained model, 1 the fine-tuned one; with --lines, the share of
    /// its drift that the first block keeps [default: 0.5]
    #[arg(long, value_name = "ALPHA", conflicts_with = "sweep")]
    alpha: Option<f32>,
    /// Try N values of alpha from 0 to 1 on the images of --val, and write the best
    #[arg(long, value_name = "N", requires = "val")]
    sweep: Option<usize>,
    /// Scale drift by layer (LiNeS): the first block keeps alpha of its drift from the pre-trained weights, the last all of it, those
    /// between a share that grows linearly
    #[arg(long)]
    lines: bool,
    /// Images on which alpha is chosen; never those that results are reported on
    #[arg(long, value_name = "PATH")]
    val: Option<PathBuf>,
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

pub(super) fn run(args: WiseArgs) -> Result<()> {
    args.images.validate()?;
    if args.sweep.is_some_and(|count| count < 2) {
        return Err(Error::Usage("--sweep: give at least 2".into()));
    }
    let alphas = match args.sweep {
        Some(count) => alphas(count),
        None => vec![args.alpha.unwrap_or(0.5)],
    };
    if let Some(alpha) = alphas.iter().find(|alpha| !(0.0..=1.0).contains(*alpha)) {
        return Err(Error::Usage(format!("--alpha {alpha}: it must be 0 to 1")));
    }
    let mut count = Count::new("images");
    let mut looked_at = |done, of| count.show(done, of, "looked at");
    let held_out = args.val.map(|val| HeldOut::open(&val, args.images, &mut looked_at)).transpose()?;
    drop(count);
    let mut count = Count::new("images");
    let mut evaluated = |done, of| count.show(done, of, "evaluated");
    let gpu = args.run.open(Precision::F32)?;
    let (files, held_out) = ([args.pretrained.as_path(), &args.finetuned], held_out.as_ref());
    let between = if args.lines { Between::Lines } else { Between::Wise };
    let result = wise_file(&gpu, files, between, &alphas, held_out, &args.model_args, &args.out, &mut evaluated)?;
    drop(count);
    result.notes.iter().for_each(|n| note!("{n}"));
    for name in &result.kept {
        note!("{name} has no pre-trained counterpart: it stays as it was fine-tuned");
    }
    if args.json {
        let tried = |(alpha, e): &(f32, Evaluation)| {
            let mut row = json!({"alpha": shortest(*alpha)});
            add_figures(&mut row, e);
            row
        };
        return print_json(&json!({
            "out": args.out,
            "rule": between.name(),
            "alpha": shortest(result.alpha),
            "tried": result.tried.iter().map(tried).collect::<Vec<_>>(),
            "kept": result.kept,
        }));
    }
    if !result.tried.is_empty() {
        let rows: Vec<Vec<String>> = result
            .tried
            .iter()
            .map(|(alpha, e)| {
                let second = e.labels.as_ref().map_or(e.balanced, |labels| labels.at_half.micro_f1);
                let shares = [e.main(), second, e.macro_f1].map(percent);
                [vec![format!("{alpha}")], shares.into(), vec![format!("{:.4}", e.loss)]].concat()
            })
            .collect();
        let header = match held_out.map(HeldOut::figure) {
            Some(Figure::Map) => ["alpha", "mAP %", "micro F1 %", "macro F1 %", "loss"],
            _ => ["alpha", "top-1 %", "balanced %", "macro F1 %", "loss"],
        };
        print(&table(&header, &rows))?;
    }
    print(&format!("{}, alpha {}\n", args.out.display(), result.alpha))
}

/// The number that reads as `alpha` does: 0.3, where the nearest f32 is 0.30000001192092896.
fn shortest(alpha: f32) -> f64 {
    alpha.to_string().parse().expect("digits")
}
