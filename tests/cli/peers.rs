//! `benches/compare` on peers of its own making, which are shell scripts.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::{Space, read};

/// `benches/compare` with these arguments, here.
fn compare(space: &Space, arguments: &[&str]) -> (Option<i32>, String, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/compare");
    read(Command::new("python3").arg(script).args(arguments).current_dir(space.path("")).output().unwrap())
}

/// An executable that notes its turn and its arguments, then does this.
fn program(space: &Space, name: &str, body: &str) {
    space.write(name, format!("#!/bin/sh\necho {name} \"$@\" >> turns\n{body}\n"));
    std::fs::set_permissions(space.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn peers_are_run_in_turn_and_compared() {
    let space = Space::empty();
    program(&space, "ours", r#"echo "[{\"workload\": \"$1\", \"median_ms\": 10.0, \"min_ms\": 1.0}]""#);
    // Three rounds: 30, 20 and 50 ms for a, 5 ms for b.
    let turns = "case $(grep -c '^peer a' turns) in 1) t=30;; 2) t=20;; *) t=50;; esac";
    program(&space, "peer", &format!("{turns}\necho noise\n[ $1 = b ] && t=5\necho $1 $t.0 19.5"));
    program(&space, "half", "[ $1 = a ] && echo a 40 40 && exit 0\necho 'main panicked: no b here' >&2\nexit 3");
    let ours = ["--rounds", "3", "--ours", "./ours", "--peer", "fast=./peer", "--peer", "half=./half"];
    let (code, out, err) = compare(&space, &[&ours[..], &["a", "b"]].concat());
    assert_eq!(code, Some(1), "{out}\n{err}");
    let round = |workload: &str| ["ours", "peer", "half"].map(|name| format!("{name} {workload}"));
    let turns = ["a", "a", "a", "b", "b", "b"].map(round).concat();
    assert_eq!(space.text("turns").lines().collect::<Vec<_>>(), turns);
    let line = |start: &str| out.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("{start}: {out}"));
    let cells = |start: &str| line(start).split_whitespace().map(String::from).collect::<Vec<_>>();
    assert_eq!(cells("a "), ["a", "10.0", "30.0", "3.00", "(2.00..5.00)", "40.0", "4.00", "(4.00..4.00)"]);
    assert_eq!(cells("b "), ["b", "10.0", "5.00", "0.50", "(0.50..0.50)", "-", "-"]);
    assert!(err.contains("half failed at b (exit code 3): main panicked: no b here"), "{err}");

    let (code, out, _) = compare(&space, &["--markdown", "--ours", "./ours", "--peer", "fast=./peer", "a"]);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "| workload | ours ms | fast ms | fast / ours |");
    assert!(
        lines[1].starts_with("| --- |") && lines[2].starts_with("| a | 10.0 | 50.0 | 5.00 (5.00..5.00) |"),
        "{out}"
    );
}

#[test]
fn a_comparison_that_makes_no_sense_is_refused() {
    let space = Space::empty();
    program(&space, "ours", "echo 'no JSON'");
    program(&space, "peer", "echo a 1.0 1.0");
    assert_eq!(compare(&space, &["--ours", "./ours", "a"]).0, Some(2));
    assert_eq!(compare(&space, &["--ours", "./ours", "--peer", "./peer", "a"]).0, Some(2));
    assert_eq!(compare(&space, &["--rounds", "0", "--ours", "./ours", "--peer", "p=./peer", "a"]).0, Some(2));
    let (code, _, err) = compare(&space, &["--rounds", "1", "--ours", "./ours", "--peer", "p=./absent", "a"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("ours") && err.contains("JSON") && err.contains("absent"), "{err}");
}

#[test]
fn a_peer_may_be_asked_for_one_workload_after_another() {
    let space = Space::empty();
    program(&space, "ours", r#"echo "[{\"workload\": \"$1\", \"median_ms\": 10.0}]""#);
    // It answers, says what is wrong, ends, and hangs.
    let answer = "case $name in a) echo a 20 20 ;; b) echo b failed: too large ;; c) exit ;; d) exec sleep 60 ;; *) echo $name 5 5 ;; esac";
    program(&space, "asked", &format!("while read -r name; do {answer}; done"));
    let words = ["--rounds", "1", "--timeout", "1", "--markdown", "--ours", "./ours", "--peer", "p=./asked -"];
    let (code, out, err) = compare(&space, &[&words[..], &["a", "b", "c", "d", "e"]].concat());
    assert_eq!(code, Some(1), "{out}\n{err}");
    let lines: Vec<&str> = out.lines().skip(2).collect();
    let wanted = [
        ("a", "20.0 | 2.00 (2.00..2.00)"),
        ("b", "- | -"),
        ("c", "- | -"),
        ("d", "- | -"),
        ("e", "5.00 | 0.50 (0.50..0.50)"),
    ];
    assert_eq!(lines, wanted.map(|(name, cells)| format!("| {name} | 10.0 | {cells} |")), "{err}");
    for part in ["no time for b: b failed: too large", "p failed at c: it ended", "p failed at d: not done after 1 s"] {
        assert!(err.contains(part), "{err}");
    }
    // Once for a and b; c and d end it.
    assert_eq!(space.text("turns").lines().filter(|turn| turn.starts_with("asked")).count(), 3, "{err}");
}

#[test]
fn another_tpgm_is_a_peer_and_a_limit_leaves_workloads_out() {
    let space = Space::empty();
    program(&space, "ours", r#"echo "[{\"workload\": \"$1\", \"median_ms\": 10.0}]""#);
    let words = ["--rounds", "1", "--ours", "./ours", "--peer", "half=./ours"];
    let (code, out, _) = compare(&space, &[&words[..], &["a"]].concat());
    assert_eq!((code, out.contains("1.00 (1.00..1.00)")), (Some(0), true), "{out}");
    let (code, _, err) = compare(&space, &[&words[..], &["--limit", "0", "a", "b"]].concat());
    assert_eq!((code, err.trim()), (Some(0), "left out after --limit 0: a b"));
}
