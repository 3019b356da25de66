//! `tpgm completions` and `tpgm man`: what shells and `man` read, made from the same definitions as `--help`.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::atomic::atomic_write;
use crate::cli::{Cli, print, print_json};
use crate::error::{Error, Result};

/// Flags of `completions`.
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// Flags of `man`.
#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// The folder to write the pages to, tpgm.1 and one for each command; it is made if it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn completions(args: CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tpgm", &mut script);
    let script = String::from_utf8(script).expect("scripts are UTF-8");
    match args.json {
        true => print_json(&serde_json::json!({ "shell": args.shell.to_string(), "script": script })),
        false => print(&script),
    }
}

pub(super) fn man(args: ManArgs) -> Result<()> {
    let out = &args.out;
    std::fs::create_dir_all(out).map_err(|e| Error::io(out, "cannot create this folder", e))?;
    let mut command = Cli::command();
    command.build();
    let mut written = Vec::new();
    let mut page = |name: String, command: clap::Command| {
        let mut text = Vec::new();
        clap_mangen::Man::new(command).title(name.to_uppercase()).render(&mut text).expect("writing to memory");
        let path = out.join(format!("{name}.1"));
        atomic_write(&path, &text)?;
        written.push(path);
        Ok::<_, Error>(())
    };
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        page(format!("tpgm-{}", sub.get_name()), sub.clone())?;
    }
    page("tpgm".into(), command.clone())?;
    match args.json {
        true => print_json(&serde_json::json!({ "pages": written })),
        false => print(&format!("{} pages in {}\n", written.len(), out.display())),
    }
}
