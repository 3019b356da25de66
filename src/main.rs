//! The `tpgm` binary: parses the command line, runs one subcommand, and prints one clear error.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tpgm::cli::Cli;
use tpgm::cli::console::always;
use tpgm::ranks::{Failure, launch};

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
    let parse = || {
        Cli::try_parse().unwrap_or_else(|error| {
            // Help and the version are rank 0's to print.
            if error.exit_code() == 0 && launch::follows() {
                std::process::exit(0);
            }
            launch::let_first_speak();
            error.exit()
        })
    };
    let done = tpgm::cli::readable(std::env::args_os()).and_then(|()| tpgm::cli::run(parse(), DEMO));
    let failure = done.as_ref().err().map(|error| Failure::new(error, tpgm::train::help::told(error)));
    match (launch::end(failure, |line| always(line)), done) {
        (0, Ok(code)) => code,
        (code, _) => ExitCode::from(code),
    }
}
