//! `tpgm bench`

use std::process::ExitCode;

use clap::Args;

use crate::bench::timer::Budget;
use crate::bench::workloads::pick;
use crate::bench::{Bench, Row};
use crate::cli::table::{percent, table};
use crate::cli::{PrecisionArgs, RunArgs, print, print_json};
use crate::error::{Error, Result};

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
    /// Seconds a workload, after its warm-up; three repeats are timed whatever they take
    #[arg(long, value_name = "S", default_value_t = Budget::default().seconds)]
    seconds: f64,
    /// Repeats before the timed ones
    #[arg(long, value_name = "N", default_value_t = Budget::default().warmup)]
    warmup: usize,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
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

/// Measures one workload after another; one that fails is named on stderr and the others go on.
pub(super) fn run(args: BenchArgs) -> Result<ExitCode> {
    if !(args.seconds.is_finite() && args.seconds >= 0.0) {
        return Err(Error::Usage(format!("--seconds {}: it must be 0 or more", args.seconds)));
    }
    let workloads = pick(&args.workloads)?;
    let gpu = args.run.open(args.precision.precision)?;
    let budget = Budget { seconds: args.seconds, warmup: args.warmup, ..Budget::default() };
    let bench = Bench::new(&gpu, args.run.adapter.adapter.as_deref(), budget, args.run.tunes());
    let bench = bench.in_precision(args.precision.precision)?;
    let info = &gpu.info;
    eprintln!("{} ({:?}, {} {})", info.name, info.backend, info.driver, info.driver_info);
    let peak = bench.peak()?;
    eprintln!("peak: {} GFLOP/s of multiply-adds, {} GB/s copied", digits(peak.gflops), digits(peak.gbs));
    let (mut rows, mut failed) = (Vec::new(), 0);
    for (i, workload) in workloads.iter().enumerate() {
        let at = format!("[{}/{}] {}", i + 1, workloads.len(), workload.name);
        match bench.run(workload) {
            Ok(row) => {
                eprintln!("{at}: {} ms", digits(row.median_ms));
                rows.push(row);
            }
            Err(error) => {
                eprintln!("{at}: error: {error}");
                failed += 1;
            }
        }
    }
    if args.json {
        print_json(&rows)?;
    } else {
        print(&table(&HEADER, &rows.iter().map(cells).collect::<Vec<_>>()))?;
        print(&more(&rows))?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
