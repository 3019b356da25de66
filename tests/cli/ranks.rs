//! One run on several processes that `mpirun` starts.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::relative;
use crate::resume::assert_ends_as;
use crate::{Space, read, with, words};

const TRAIN: &str = "finetune --model m.safetensors --train train --val val --test t=test --epochs 30 --batch-size 6 \
                     --augment crop,flip --lr 0.02 --max-iters 2 --save-every 4";
/// "Within seconds", on a machine that does other things too.
const SOON: Duration = Duration::from_secs(30);

/// `tpgm` with the words of `line` on `size` ranks.
fn on(space: &Space, size: usize, line: &str) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", &size.to_string()]);
    let alone = space.command(line);
    command.arg(alone.get_program()).args(words(line)).current_dir(alone.get_current_dir().unwrap());
    for (name, value) in alone.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null());
    command
}

#[track_caller]
fn ok(output: Output) -> (String, String) {
    let (code, out, err) = read(output);
    assert_eq!(code, Some(0), "{err}");
    assert!(!err.contains("error") && !err.contains("panicked"), "{err}");
    (out, err)
}

/// Lines that tpgm says of an end; Open MPI has others.
fn errors(err: &str) -> Vec<&str> {
    err.lines().filter(|line| line.starts_with("error: ") || line.starts_with("stopped ")).collect()
}

fn weights(space: &Space, run: &str) -> Vec<f32> {
    space.tensors(&format!("{run}/last.safetensors")).into_values().flat_map(|(_, values)| values).collect()
}

/// The processes that `mpirun` has started.
fn ranks(mpirun: u32) -> Vec<u32> {
    let children = |process: u32| std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    children(mpirun).unwrap_or_default().split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// Runs `line` on `size` ranks and sends `signal` to one of them, or to all, once ten lines of metrics are written.
fn run_and_send(space: &Space, size: usize, line: &str, (signal, all): (&str, bool)) -> (Option<i32>, String) {
    let mut child = on(space, size, line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let saved =
        |run: &Path| std::fs::read_to_string(run.join("metrics.jsonl")).is_ok_and(|text| text.lines().count() > 9);
    while !saved(&space.path("stopped")) {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended before it could be stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
    let started = ranks(child.id());
    assert_eq!(started.len(), size);
    let hit = if all { &started[..] } else { &started[size - 1..] };
    let began = Instant::now();
    for process in hit {
        assert!(Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status().unwrap().success());
    }
    let (code, _, err) = read(child.wait_with_output().unwrap());
    assert!(began.elapsed() < SOON, "{:?}: {err}", began.elapsed());
    assert!(!space.path("stopped/drift.csv").exists(), "the run had come to its end");
    // mpirun may end a little before its processes do.
    while started.iter().any(|process| Path::new(&format!("/proc/{process}")).exists()) {
        assert!(began.elapsed() < SOON, "processes are left: {err}");
        std::thread::sleep(Duration::from_millis(10));
    }
    (code, err)
}

#[test]
fn a_run_on_two_ranks_says_and_leaves_what_one_does() {
    let space = Space::new();
    let train = with(TRAIN, "--epochs 2 --delta --lr 0.01");
    let (out, err) = space.run(&format!("{train} --out one"));
    let (out_2, err_2) = ok(on(&space, 2, &format!("{train} --out two")).output().unwrap());
    let lines =
        |text: &str| text.lines().filter(|line| !line.contains(" steps in ")).map(String::from).collect::<Vec<_>>();
    assert_eq!(lines(&out), lines(&out_2), "{err_2}");
    let note = "2 ranks train one model: each takes 3 images of every batch of 6";
    assert!(err_2.matches(note).count() == 1 && !err.contains("ranks"), "{err_2}");
    assert_eq!(err.matches("epoch ").count(), err_2.matches("epoch ").count(), "{err_2}");
    let files = |run: &str| {
        let entries = std::fs::read_dir(space.path(run)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(files("one"), files("two"));
    let far = relative(&weights(&space, "two"), &weights(&space, "one"));
    assert!(far < 1e-5, "{far:e}");
    assert!(space.text("two/report.html").contains("2 ranks"));
    // With one process, mpirun starts an ordinary run.
    ok(on(&space, 1, &format!("{train} --out alone")).output().unwrap());
    assert!(space.bytes("alone/last.safetensors") == space.bytes("one/last.safetensors"));
}

#[test]
fn a_killed_rank_ends_all_and_the_run_goes_on() {
    let space = Space::new();
    ok(on(&space, 2, &format!("{TRAIN} --out whole")).output().unwrap());
    let (code, err) = run_and_send(&space, 2, &format!("{TRAIN} --out stopped"), ("KILL", false));
    assert!(code != Some(0) && !err.contains("panicked"), "{err}");
    ok(on(&space, 2, "finetune --resume stopped").output().unwrap());
    assert_ends_as(&space, "whole");
    space.no_stray_files();
}

/// Each goes on with other ranks than it began with; one rank's sums are rounded in another way.
#[test]
fn a_stopped_run_goes_on_with_any_number_of_ranks() {
    let space = Space::new();
    let train = with(TRAIN, "--lr 0.001 --epochs 8");
    space.ok(&format!("{train} --out whole"));
    for (before, after) in [(3, 1), (2, 3)] {
        let _ = std::fs::remove_dir_all(space.path("stopped"));
        let (code, err) = run_and_send(&space, before, &format!("{train} --out stopped"), ("TERM", true));
        let said = errors(&err);
        assert!(code == Some(143) && said.len() == 1, "{code:?} {err}");
        assert!(said[0].starts_with("stopped by SIGTERM") && said[0].contains("--resume stopped"), "{err}");
        assert!(!space.path("stopped/lock").exists());
        ok(on(&space, after, "finetune --resume stopped").output().unwrap());
        let far = relative(&weights(&space, "stopped"), &weights(&space, "whole"));
        assert!(far < 1e-4, "{before} ranks, then {after}: {far:e}");
    }
}

/// What all have wrong is said once, and so is what one has wrong; nothing is left behind.
#[test]
fn errors_are_said_once() {
    let space = Space::new();
    let cases = [
        (with(TRAIN, "--train nowhere"), 1, "error: nowhere"),
        (with(TRAIN, "--batch-size 1"), 2, "error: --batch-size 1 on 2 ranks: each rank needs an image of every batch"),
        (with(TRAIN, "--adapter nothing"), 1, "error: no adapter matches 'nothing'"),
        (with(TRAIN, "--epoch 1"), 2, "error: unexpected argument '--epoch' found"),
        (with(TRAIN, "--config nowhere.toml"), 1, "error: nowhere.toml"),
        ("compare nowhere.toml --out run".into(), 1, "error: nowhere.toml"),
        (
            "eval --model m.safetensors --data t=test".into(),
            2,
            "error: mpirun started 2 processes, and each would do all of `tpgm eval`",
        ),
    ];
    for (line, code, part) in cases {
        let out = if line.starts_with("finetune") { " --out run" } else { "" };
        let (got, out, err) = read(on(&space, 2, &format!("{line}{out}")).output().unwrap());
        let said = errors(&err);
        assert!(said.len() == 1 && said[0].starts_with(part), "{err}");
        assert_eq!((got, out.as_str()), (Some(code), ""), "{err}");
        assert!(!space.path("run").exists());
    }
}
