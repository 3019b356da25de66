//! `tpgm compare`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::console::{self, note, warning};
use crate::cli::progress::Count;
use crate::cli::table::{percent, table};
use crate::cli::workers::{self, Workers};
use crate::cli::{RunArgs, print, print_json};
use crate::compare::event::{End, Work};
use crate::compare::plan::planned;
use crate::compare::tables::{self, time};
use crate::compare::{CompareConfig, Ended, Event, Part, Share, compare};
use crate::error::Result;
use crate::model::Precision;

/// Flags of `compare`.
#[derive(Args, Debug)]
pub(super) struct CompareArgs {
    /// The methods, data sets and grids to compare: see docs/compare.md
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
    /// Folder for the runs, the tables and the page; runs that are there already are not run again [default: the file's own
    /// `out`, or runs/CONFIG]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Cross-validation: divide the training images into K folds, and run each method K times, each time without one of them, on which
    /// the run is tested; in the place of seeds
    #[arg(long, value_name = "K")]
    folds: Option<usize>,
    /// Print the runs and their steps, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Make the I-th of N shares of the runs alone, as in an array of jobs; whoever finds all runs whole writes the page
    #[arg(long, value_name = "I/N", conflicts_with = "dry_run")]
    part: Option<Part>,
    /// One process per adapter, as of `tpgm devices`, on the same runs
    #[arg(long, value_name = "A,B,...", value_delimiter = ',', conflicts_with_all = ["adapter", "dry_run"])]
    adapters: Vec<String>,
    /// Also write event files for TensorBoard, in each run's folder tensorboard: figures, radii, augmented images and histograms of drift.
    /// A comparison that has them goes on with them; a run that was whole before gets those of its records
    #[arg(long, conflicts_with = "dry_run")]
    tensorboard: bool,
    /// Make runs alone, and stop when stdin ends: what --adapters starts
    #[arg(long, hide = true)]
    worker: bool,
    #[command(flatten)]
    run: RunArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: CompareArgs) -> Result<ExitCode> {
    let config = CompareConfig::read(&args.config, args.out.as_deref(), args.folds)?;
    config.notes.iter().for_each(|note| note!("{note}"));
    if args.dry_run {
        dry_run(&config, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let any_half = config.train_configs().any(|c| c.memory.precision() == Precision::F16);
    let (run, workers) = match args.adapters.split_first() {
        Some((first, rest)) => (args.run.on(first), Workers::start(rest)?),
        None => (args.run, Workers::default()),
    };
    if args.worker {
        workers::stop_with_parent();
    }
    let gpu = run.open(if any_half { Precision::F16 } else { Precision::F32 })?;
    note!("on {} ({:?}), into {}", gpu.info.name, gpu.info.backend, config.out.display());
    let (mut count, mut of_what) = (Count::new("images"), None);
    let ended = compare(
        &gpu,
        &config,
        run.tunes(),
        Share { part: args.part, writes: !args.worker, tensorboard: args.tensorboard },
        &mut |event| match event {
            Event::Checked { done, of } => count.show(done, of, "looked at"),
            Event::Running { name, what, done, of } => {
                if of_what != Some(what) {
                    of_what = Some(what);
                    count = Count::new(if what == Work::Steps { "steps" } else { "images" });
                }
                count.show(done, of, &name);
            }
            Event::Warning(text) => count.beside(|| warning!("{text}")),
            event => count.beside(|| note!("{}", said(&event))),
        },
    )?;
    drop(count);
    let (results, writer) = match ended {
        Ended::Whole(results, writer) => (results, writer),
        Ended::Part(missing, failed) => {
            workers.wait()?;
            return part_ended(&config, missing, &failed, args.json, args.worker);
        }
    };
    tables::write(&results, &config.out)?;
    let page = config.out.join("report.html");
    crate::report::write_comparison(&results, &page)?;
    drop(writer);
    workers.wait()?;
    if args.json {
        print_json(&results)?;
    } else {
        for data in &results.data {
            let (header, rows) = tables::accuracies(data);
            print(&format!("\n{}, {}\n{}", data.name, tables::caption(data), table(&header, &rows)))?;
        }
        print(&format!("{}\n", page.display()))?;
    }
    for data in &results.data {
        data.advice.iter().for_each(|what| warning!("{}: {what}", data.name));
    }
    let failed = results.failures.len();
    if failed > 0 {
        let (name, error) = &results.failures[0];
        let more = if failed > 1 { format!(", and {} more", failed - 1) } else { String::new() };
        console::always(format_args!(
            "error: {failed} runs failed: {name}: {error}{more}; the same command tries them again"
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The output where runs are missing that this process may not make.
fn part_ended(
    config: &CompareConfig,
    missing: usize,
    failed: &[String],
    as_json: bool,
    worker: bool,
) -> Result<ExitCode> {
    if as_json && !worker {
        print_json(&json!({ "out": config.out, "missing": missing, "failed": failed }))?;
    } else if !worker {
        print(&format!(
            "{missing} runs of other parts are missing: whoever finds all runs whole writes the page; if a run of another part failed, give \
             the command without --part once they have ended\n"
        ))?;
    }
    if let Some(error) = failed.first() {
        console::always(format_args!(
            "error: {} runs failed: {error}; the same command tries them again",
            failed.len()
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn dry_run(config: &CompareConfig, json: bool) -> Result<()> {
    let lines = planned(config)?;
    if json {
        return print_json(&lines);
    }
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|l| {
            let numbers = [l.points, l.runs, l.tune].map(|n| n.to_string());
            let name = if config.data.len() > 1 { format!("{} {}", l.data, l.method) } else { l.method.clone() };
            [vec![name], numbers.to_vec(), vec![l.steps.to_string(), l.blends.to_string()]].concat()
        })
        .collect();
    print(&table(&["method", "points", "runs", "of them to tune", "steps", "models without training"], &rows))?;
    let (runs, steps) = (lines.iter().map(|l| l.runs).sum::<usize>(), lines.iter().map(|l| l.steps).sum::<u64>());
    let blends: usize = lines.iter().map(|l| l.blends).sum();
    print(&format!("{runs} runs of {steps} steps in all, {blends} models without training; nothing was run\n"))
}

/// One line about an event.
fn said(event: &Event) -> String {
    match event {
        Event::Note(text) | Event::Warning(text) => text.clone(),
        Event::Checked { .. } | Event::Running { .. } => String::new(),
        Event::Done { index, total, name, end, left } => {
            let end = match end {
                End::Skipped => "was there already".into(),
                End::Finished { id, ood, seconds, resumed } => {
                    let resumed = if *resumed { ", resumed" } else { "" };
                    format!("ID {} %, OOD {} %, {}{resumed}", percent(*id), percent(*ood), time(*seconds))
                }
                End::Failed(error) => format!("failed: {error}"),
            };
            let left = left.filter(|_| index < total).map(|left| format!("; about {} left", time(left)));
            format!("[{index}/{total}] {name}: {end}{}", left.unwrap_or_default())
        }
    }
}
