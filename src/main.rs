//! The `tpgm` binary: parses the command line, runs one subcommand, and prints one clear error.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tpgm::cli::Cli;
use tpgm::cli::console::always;
use tpgm::error::Error;

/// The demo's files, by their paths in `assets`.
static DEMO: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/demo.rs"));

fn main() -> ExitCode {
    // What this program warns of is for its user; what libraries tell is for TPGM_LOG.
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive("tpgm=warn".parse().expect("a directive"))
        .with_env_var("TPGM_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .log_internal_errors(false)
        .with_target(false)
        .init();
    match tpgm::cli::readable(std::env::args_os()).and_then(|()| tpgm::cli::run(Cli::parse(), DEMO)) {
        Ok(code) => code,
        Err(error) => {
            let told = tpgm::train::help::told(&error);
            match error {
                Error::Stopped { .. } => always(told),
                _ => always(format_args!("error: {told}")),
            }
            ExitCode::from(error.exit_code())
        }
    }
}
