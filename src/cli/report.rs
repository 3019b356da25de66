//! `tpgm report`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::{print, print_json};
use crate::error::Result;

/// Flags of `report`.
#[derive(Args, Debug)]
pub(super) struct ReportArgs {
    /// Run directories
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// The page to write [default: report.html in the first directory]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: ReportArgs) -> Result<()> {
    let out = args.out.unwrap_or_else(|| args.dirs[0].join("report.html"));
    crate::report::write(&args.dirs, &out)?;
    match args.json {
        true => print_json(&json!({"out": out, "runs": args.dirs})),
        false => print(&format!("{}\n", out.display())),
    }
}
