//! `tpgm bench`

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use crate::bench::timer::Budget;
use crate::bench::tuning::{Candidate, Class, Table};
use crate::bench::workloads::{Workload, pick};
use crate::bench::{Bench, Row};
use crate::cli::console::{self, note, warning};
use crate::cli::table::{percent, table};
use crate::cli::{RunArgs, print, print_json};
use crate::error::{Error, Result};
use crate::gpu::tiles::Tile;
use crate::train::help::told;
use crate::train::memory_args::PrecisionArgs;

/// Flags of `bench`.
#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    /// What to measure, by name, or the groups all, kernels and models; a wrong name lists the right ones [default: the
    /// workloads of the comparison with other frameworks]
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<String>,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Seconds per workload, after its warm-up; three repeats are timed whatever they take [default: 5; with --tuning 10]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Repeats before the timed ones
    #[arg(long, value_name = "N", default_value_t = Budget::default().warmup)]
    warmup: usize,
    /// Begin no workload later than so many seconds after the start; those left out are named on stderr
    #[arg(long, value_name = "S")]
    limit: Option<f64>,
    /// Time no workload, but every variant of its matrix products and convolutions, anew: which ones come into question
    /// here, how long each takes, and which one runs choose from now on
    #[arg(long)]
    tuning: bool,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// Seconds for which `--tuning` measures a workload's products; the rest is listed without times.
const TUNING_SECONDS: f64 = 10.0;

/// The seconds that a flag gave: a number, and not below 0.
fn seconds(flag: &str, given: Option<f64>) -> Result<Option<f64>> {
    match given {
        Some(s) if !(s.is_finite() && s >= 0.0) => Err(Error::Usage(format!("{flag} {s}: it must be 0 or more"))),
        given => Ok(given),
    }
}

/// A number with about four digits.
fn digits(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.4}"),
    }
}

fn cells(row: &Row) -> Vec<String> {
    let or_dash = |value: Option<f64>| value.map_or("-".into(), digits);
    vec![
        row.workload.to_string(),
        row.shape.clone(),
        row.precision.element().scalar().into(),
        digits(row.median_ms),
        digits(row.min_ms),
        row.reps.to_string(),
        or_dash(row.gflops),
        or_dash(row.gbs),
        row.share_of_peak.map_or("-".into(), |share| percent(share) + " %"),
    ]
}

const HEADER: [&str; 9] =
    ["workload", "shape", "precision", "median ms", "min ms", "reps", "GFLOP/s", "GB/s", "of peak"];

/// What some workloads tell besides their time, a line each.
fn more(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let figures: Vec<String> = row.more.iter().map(|(name, value)| format!("{name} {}", digits(*value))).collect();
        format!("{}: {}\n", row.workload, figures.join(", "))
    };
    rows.iter().filter(|row| !row.more.is_empty()).map(line).collect()
}

const TUNING_HEADER: [&str; 7] = ["product", "tile", "split", "ms", "GFLOP/s", "of best", ""];

/// A tile by its name in JSON.
fn word(tile: &Tile) -> String {
    serde_json::to_value(tile).expect("a tile is a plain value").as_str().unwrap_or_default().into()
}

/// A line for each candidate; the product's name stands in the first.
fn tuning_rows(class: &Class) -> Vec<Vec<String>> {
    let best = class.candidates.iter().filter_map(|c| c.ms).fold(f64::INFINITY, f64::min);
    let row = |(i, c): (usize, &Candidate)| {
        let mark = match (&c.refused, c.chosen, c.default) {
            (Some(why), ..) => format!("refused: {why}"),
            (None, true, true) => "chosen, default".into(),
            (None, true, false) => "chosen".into(),
            (None, false, true) => "default".into(),
            (None, false, false) => String::new(),
        };
        vec![
            if i == 0 { class.class.clone() } else { String::new() },
            word(&c.variant.tile),
            c.variant.split.to_string(),
            c.ms.map_or("-".into(), digits),
            c.gflops.map_or("-".into(), digits),
            c.ms.map_or("-".into(), |ms| percent(best / ms) + " %"),
            mark,
        ]
    };
    class.candidates.iter().enumerate().map(row).collect()
}

/// Hands one workload after another to `each`, which says in a word what came of it; one that fails is named on stderr and
/// the others go on, and those that would begin after `limit` seconds are left out. Returns whether all went well.
fn in_turn(
    workloads: &[&'static Workload],
    started: Instant,
    limit: Option<f64>,
    mut each: impl FnMut(&'static Workload) -> Result<String>,
) -> bool {
    let mut failed = 0;
    for (i, workload) in workloads.iter().enumerate() {
        if let Some(limit) = limit.filter(|limit| started.elapsed().as_secs_f64() >= *limit) {
            let left: Vec<&str> = workloads[i..].iter().map(|w| w.name).collect();
            warning!("left out after --limit {limit}: {}", left.join(" "));
            break;
        }
        let at = format!("[{}/{}] {}", i + 1, workloads.len(), workload.name);
        match each(workload) {
            Ok(word) => note!("{at}: {word}"),
            Err(error) => {
                console::always(format_args!("{at}: error: {}", told(&error)));
                failed += 1;
            }
        }
    }
    failed == 0
}

/// Measures one workload after another, or the candidates of their products.
pub(super) fn run(args: BenchArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let [given, limit] = [seconds("--seconds", args.seconds)?, seconds("--limit", args.limit)?];
    let workloads = pick(&args.workloads)?;
    if args.tuning && !args.run.tunes() {
        return Err(Error::Usage("--tuning measures variants, which --no-tune and TPGM_NO_TUNE forbid".into()));
    }
    let gpu = args.run.open(args.precision.precision)?;
    let default = if args.tuning { TUNING_SECONDS } else { Budget::default().seconds };
    let budget = Budget { seconds: given.unwrap_or(default), warmup: args.warmup, ..Budget::default() };
    let bench = Bench::new(&gpu, args.run.adapter.adapter.as_deref(), budget, args.run.tunes());
    let bench = bench.in_precision(args.precision.precision)?;
    let info = &gpu.info;
    note!("{} ({:?}, {} {})", info.name, info.backend, info.driver, info.driver_info);
    let good = if args.tuning {
        let mut tuning = Table::new(bench);
        let good = in_turn(&workloads, started, limit, |workload| {
            let left = limit.map_or(f64::INFINITY, |limit| (limit - started.elapsed().as_secs_f64()).max(0.0));
            let new = tuning.add(workload, budget.seconds.min(left))?;
            let measured = new.iter().filter(|class| class.is_measured()).count();
            Ok(format!("{measured} of {} new products measured", new.len()))
        });
        if args.json {
            print_json(&tuning.classes)?;
        } else {
            let rows: Vec<_> = tuning.classes.iter().flat_map(tuning_rows).collect();
            print(&table(&TUNING_HEADER, &rows))?;
        }
        good
    } else {
        let peak = bench.peak()?;
        note!("peak: {} GFLOP/s of multiply-adds, {} GB/s copied", digits(peak.gflops), digits(peak.gbs));
        let mut rows = Vec::new();
        let good = in_turn(&workloads, started, limit, |workload| {
            let row = bench.run(workload)?;
            let word = format!("{} ms", digits(row.median_ms));
            rows.push(row);
            Ok(word)
        });
        if args.json {
            print_json(&rows)?;
        } else {
            print(&table(&HEADER, &rows.iter().map(cells).collect::<Vec<_>>()))?;
            print(&more(&rows))?;
        }
        good
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
