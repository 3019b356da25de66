//! `tpgm compare`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::table::{percent, table};
use crate::cli::{RunArgs, print, print_json};
use crate::compare::plan::planned;
use crate::compare::results::{DataResults, EntryResults};
use crate::compare::run::End;
use crate::compare::stats::Estimate;
use crate::compare::{CompareConfig, Event, compare, tables};
use crate::error::Result;
use crate::gpu::buffer::mib;
use crate::model::Precision;

/// Flags of `compare`.
#[derive(Args, Debug)]
pub(super) struct CompareArgs {
    /// What is compared: see docs/compare.md
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
    /// Folder for the runs, the tables and the page; runs that are there already are not run again [default: the file's own
    /// `out`, or runs/CONFIG]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the runs and their steps, and run nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    run: RunArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: CompareArgs) -> Result<ExitCode> {
    let config = CompareConfig::read(&args.config, args.out.as_deref())?;
    if args.dry_run {
        dry_run(&config, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let any_half = config.train_configs().any(|c| c.precision == Precision::F16);
    let gpu = args.run.open(if any_half { Precision::F16 } else { Precision::F32 })?;
    eprintln!("on {} ({:?}), into {}", gpu.info.name, gpu.info.backend, config.out.display());
    let results = compare(&gpu, &config, args.run.tunes(), &mut |event| eprintln!("{}", said(&event)))?;
    tables::write(&results, &config.out)?;
    let page = config.out.join("report.html");
    crate::report::write_comparison(&results, &page)?;
    if args.json {
        print_json(&results)?;
    } else {
        for data in &results.data {
            print(&format!("\n{}, top-1 %, mean and 95 % interval over seeds\n{}", data.name, accuracies(data)))?;
        }
        print(&format!("{}\n", page.display()))?;
    }
    let failed = results.failures.len();
    if failed > 0 {
        let (name, error) = &results.failures[0];
        let more = if failed > 1 { format!(", and {} more", failed - 1) } else { String::new() };
        eprintln!("error: {failed} runs failed: {name}: {error}{more}; the same command tries them again");
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
        Event::Warning(text) => format!("warning: {text}"),
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

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 5940.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn estimate(e: &Estimate) -> String {
    e.half.map_or_else(|| percent(e.mean), |half| format!("{} ±{:.1}", percent(e.mean), 100.0 * half))
}

fn gain(e: Option<Estimate>) -> String {
    let signed = |e: Estimate| {
        // What rounds to nothing has no sign.
        let mean = if (1000.0 * e.mean).round() == 0.0 { 0.0 } else { e.mean };
        format!("{}{}", if mean > 0.0 { "+" } else { "" }, estimate(&Estimate { mean, ..e }))
    };
    e.map_or("-".into(), signed)
}

/// A row a method: its choice, ID, each OOD set, the mean, the paired difference, effective robustness, time, memory, runs.
fn accuracies(data: &DataResults) -> String {
    let mut header = vec!["method", "chosen"];
    header.extend(data.sets.iter().map(|s| s.name.as_str()));
    let several_ids = data.sets.iter().filter(|s| s.id).count() > 1;
    header.extend(several_ids.then_some("ID mean"));
    header.extend(["OOD mean", "OOD gain", "effective", "time", "memory", "runs"]);
    let row = |entry: &EntryResults| {
        let chosen = entry.chosen.map_or("-", |p| entry.points[p].label.as_str()).to_string();
        let mut row = vec![entry.name.clone(), chosen];
        match &entry.summary {
            Some(s) => {
                row.extend(s.sets.iter().chain(several_ids.then_some(&s.id)).chain([&s.ood]).map(estimate));
                row.extend([gain(s.ood_gain), gain(s.effective)]);
            }
            None => row.extend(vec!["-".to_string(); header.len() - 5]),
        }
        row.push(entry.seconds.map_or("-".into(), time));
        row.push(entry.memory.map_or("-".into(), mib));
        row.push(format!("{} + {}", entry.cost.tune, entry.cost.report));
        row
    };
    table(&header, &data.entries.iter().map(row).collect::<Vec<_>>())
}
