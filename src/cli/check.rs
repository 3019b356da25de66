//! `tpgm check`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::cli::table::table;
use crate::cli::{AdapterArgs, print, print_json};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::suite::{self, Outcome};

/// Flags of `check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    adapter: AdapterArgs,
    /// Leave wgpu's runtime checks out of the shaders, as runs do
    #[arg(long)]
    unchecked: bool,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// The worst case of each kernel, or its first failure.
fn by_kernel(outcomes: &[Outcome]) -> Vec<(&Outcome, usize, usize)> {
    let mut worst: Vec<(&Outcome, usize, usize)> = Vec::new();
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

pub(super) fn run(args: CheckArgs) -> Result<ExitCode> {
    let gpu = Gpu::open(args.adapter.adapter.as_deref(), !args.unchecked)?;
    let (info, mode) = (&gpu.info, if args.unchecked { "without" } else { "with" });
    eprintln!("{} ({:?}, {} {}), {mode} runtime checks", info.name, info.backend, info.driver, info.driver_info);
    let outcomes = suite::run(&gpu, &mut |o| {
        if !o.passed() {
            eprintln!("FAILED {} at {}: {}", o.kernel, o.case, describe(o));
        }
    })?;
    let failed = outcomes.iter().filter(|o| !o.passed()).count();
    if args.json {
        let row = |o: &Outcome| {
            json!({
                "kernel": o.kernel, "case": o.case, "error": o.error, "tolerance": o.tolerance,
                "failure": o.failure, "passed": o.passed(),
            })
        };
        print_json(&json!({
            "adapter": info.name,
            "backend": format!("{:?}", info.backend),
            "driver": format!("{} {}", info.driver, info.driver_info),
            "runtime_checks": !args.unchecked,
            "failed": failed,
            "cases": outcomes.iter().map(row).collect::<Vec<_>>(),
        }))?;
    } else {
        let rows: Vec<Vec<String>> = by_kernel(&outcomes)
            .into_iter()
            .map(|(o, cases, failures)| {
                let verdict = if failures == 0 { "pass".to_string() } else { format!("FAIL ({failures})") };
                vec![
                    o.kernel.clone(),
                    cases.to_string(),
                    format!("{:.1e}", o.error),
                    format!("{:.1e}", o.tolerance),
                    verdict,
                    o.case.clone(),
                ]
            })
            .collect();
        print(&table(&["kernel", "cases", "worst error", "tolerance", "", "worst case"], &rows))?;
        print(&format!("{} cases, {failed} failed\n", outcomes.len()))?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe(o: &Outcome) -> String {
    o.failure.clone().unwrap_or_else(|| format!("error {:.1e}, tolerance {:.1e}", o.error, o.tolerance))
}
