//! The processes of `tpgm compare --adapters`: one per adapter besides this one, which do what this one is called with.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use crate::cli::console::warning;
use crate::error::{Error, Result};
use crate::stop;

/// Those that were started. They stop, with their state saved, where this one ends first, however it ends.
#[derive(Debug, Default)]
pub(super) struct Workers(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    adapter: String,
    child: Child,
    lines: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts one on each of these adapters.
    ///
    /// # Errors
    /// Where the system refuses.
    pub(super) fn start(adapters: &[String]) -> Result<Workers> {
        let mut workers = Workers::default();
        for adapter in adapters {
            let failed = |e| Error::Train(format!("cannot start a process for the adapter {adapter:?}: {e}"));
            let mut command = Command::new(std::env::current_exe().map_err(failed)?);
            command.args(arguments(std::env::args_os().skip(1))).arg("--worker").args(["--adapter", adapter]);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
            // Ctrl-C is for this process: it stops the others, once.
            #[cfg(unix)]
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            let mut child = command.spawn().map_err(failed)?;
            let (name, stderr) = (adapter.clone(), child.stderr.take());
            let lines = std::thread::spawn(move || {
                for line in stderr.into_iter().flat_map(|stderr| BufReader::new(stderr).lines()).map_while(|l| l.ok()) {
                    crate::cli::console::always(format_args!("[adapter {name}] {line}"));
                }
            });
            workers.0.push(Worker { adapter: adapter.clone(), child, lines: Some(lines) });
        }
        Ok(workers)
    }

    /// Waits for their ends.
    ///
    /// # Errors
    /// Where one of them failed.
    pub(super) fn wait(mut self) -> Result<()> {
        let mut failed = None;
        for worker in &mut self.0 {
            let end = worker.end();
            let adapter = &worker.adapter;
            match end {
                Ok(status) if status.success() => {}
                Ok(status) => failed = Some(format!("the process on the adapter {adapter:?} ended with {status}")),
                Err(e) => warning!("the process on the adapter {adapter:?}: {e}"),
            }
        }
        match failed {
            Some(what) => Err(Error::Train(format!("{what}: see its lines above"))),
            None => Ok(()),
        }
    }
}

impl Worker {
    fn end(&mut self) -> std::io::Result<std::process::ExitStatus> {
        // Waiting would close it, and so stop the work.
        let _stdin = self.child.stdin.take();
        let status = self.child.wait();
        self.lines.take().map(JoinHandle::join);
        status
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Each of them notices; then they end side by side.
        for worker in &mut self.0 {
            drop(worker.child.stdin.take());
        }
        for worker in &mut self.0 {
            let _ = worker.end();
        }
    }
}

/// What this process was called with, without what concerns its own adapters and its own output.
fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut is_value = false;
    for argument in given {
        let text = argument.to_string_lossy();
        if std::mem::replace(&mut is_value, text == "--adapters") || is_value || text == "--json" {
            continue;
        }
        if !text.starts_with("--adapters=") {
            kept.push(argument);
        }
    }
    kept
}

/// Stops this process, as SIGTERM does, when the one that started it has ended.
pub(super) fn stop_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stop::ask();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_get_all_arguments_but_adapters_and_output() {
        let of = |line: &str| arguments(line.split(' ').map(OsString::from)).join(&OsString::from(" "));
        assert_eq!(of("compare --adapters 0,1 c.toml --json --out d"), "compare c.toml --out d");
        assert_eq!(of("compare --adapters=0,1 c.toml --no-tune"), "compare c.toml --no-tune");
    }
}
