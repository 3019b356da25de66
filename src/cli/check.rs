//! `tpgm check`

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use crate::cli::console::{self, note};
use crate::cli::progress::Count;
use crate::cli::{AdapterArgs, print, print_json};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::suite::{self, CaseResult, Event, Selection};

/// Flags of `check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Check these alone: names of kernels as in the first column, or parts of them; a wrong name lists the right ones
    /// [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    adapter: AdapterArgs,
    /// Every kernel, tile, word width, format and epilogue that this adapter can run, but not every combination of them, at
    /// a few sizes: under a minute on two cores
    #[arg(long)]
    quick: bool,
    /// Leave wgpu's runtime checks out of the shaders, as runs do
    #[arg(long)]
    unchecked: bool,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// The worst case of each kernel, or its first failure.
fn by_kernel(outcomes: &[CaseResult]) -> Vec<(&CaseResult, usize, usize)> {
    let mut worst: Vec<(&CaseResult, usize, usize)> = Vec::new();
    for o in outcomes {
        let failed = usize::from(!o.passed());
        match worst.iter_mut().find(|(w, ..)| w.kernel == o.kernel) {
            None => worst.push((o, 1, failed)),
            Some((w, cases, failures)) => {
                *cases += 1;
                *failures += failed;
                let worse = o.error / o.tolerance > w.error / w.tolerance;
                if (w.passed() && !o.passed()) || (w.passed() == o.passed() && worse) {
                    *w = o;
                }
            }
        }
    }
    worst
}

/// One line of the table. Its widths are fixed: it is printed while later lines are not known yet.
fn line(cells: [&str; 6]) -> String {
    let [kernel, cases, error, tolerance, verdict, case] = cells;
    format!("{kernel:<35}  {cases:>5}  {error:>11}  {tolerance:>9}  {verdict:<9}  {case}").trim_end().to_string() + "\n"
}

fn row((worst, cases, failures): (&CaseResult, usize, usize)) -> String {
    let verdict = if failures == 0 { "pass".to_string() } else { format!("FAIL ({failures})") };
    let [error, tolerance] = [worst.error, worst.tolerance].map(|x| format!("{x:.1e}"));
    line([&worst.kernel, &cases.to_string(), &error, &tolerance, &verdict, &worst.case])
}

pub(super) fn run(args: CheckArgs) -> Result<ExitCode> {
    let selection = Selection { quick: args.quick, names: args.names };
    selection.check()?;
    let gpu = Gpu::open(args.adapter.adapter.as_deref(), !args.unchecked)?;
    let (info, mode) = (&gpu.info, if args.unchecked { "without" } else { "with" });
    note!("{} ({:?}, {} {}), {mode} runtime checks", info.name, info.backend, info.driver, info.driver_info);
    if !args.json {
        print(&line(["kernel", "cases", "worst error", "tolerance", "", "worst case"]))?;
    }
    let (started, mut progress, mut printed, mut rows) = (Instant::now(), Count::new("jobs"), Ok(()), Vec::new());
    let outcomes = suite::run(&gpu, &selection, &mut |event| match event {
        Event::Done { stem, done, of } => progress.show(done, of, stem),
        Event::CaseResult(o) if o.passed() => {}
        Event::CaseResult(o) => {
            progress.beside(|| console::always(format_args!("FAILED {} at {}: {}", o.kernel, o.case, describe(o))));
        }
        Event::Stem(stem, outcomes) if args.json => rows.extend(outcomes.iter().map(|o| {
            json!({
                "stem": stem, "kernel": o.kernel, "case": o.case, "error": o.error, "tolerance": o.tolerance,
                "failure": o.failure, "passed": o.passed(),
            })
        })),
        Event::Stem(_, outcomes) if printed.is_ok() => {
            let lines: String = by_kernel(outcomes).into_iter().map(row).collect();
            printed = progress.beside(|| print(&lines));
        }
        Event::Stem(..) => {}
    })?;
    drop(progress);
    printed?;
    let failed = outcomes.iter().filter(|o| !o.passed()).count();
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        print_json(&json!({
            "adapter": info.name,
            "backend": format!("{:?}", info.backend),
            "driver": format!("{} {}", info.driver, info.driver_info),
            "runtime_checks": !args.unchecked,
            "quick": selection.quick,
            "names": selection.names,
            "seconds": seconds,
            "failed": failed,
            "cases": rows,
        }))?;
    } else {
        let some = if selection.quick { "; a quick run leaves out combinations of variants, and sizes" } else { "" };
        print(&format!("{} cases, {failed} failed, {seconds:.0} s{some}\n", outcomes.len()))?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe(o: &CaseResult) -> String {
    o.failure.clone().unwrap_or_else(|| format!("error {:.1e}, tolerance {:.1e}", o.error, o.tolerance))
}
