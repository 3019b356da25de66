//! The `tpgm` binary: parses the command line, runs one subcommand, and prints one clear error.

use std::process::ExitCode;

use clap::Parser;
use tpgm::cli::Cli;

fn main() -> ExitCode {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // Where it is not set, as in a container, Mesa's window-system code writes an error to stderr for each driver,
        // although nothing here opens a window.
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", std::env::temp_dir()) };
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("TPGM_LOG"))
        .with_writer(std::io::stderr)
        .init();
    match tpgm::cli::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
