//! `tpgm bench`, and `benches/compare` on peers of its own making. What is tested is the form: a time is never a test.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::{Space, read};

const QUICK: &str = "--seconds 0 --warmup 1";

#[test]
fn a_benchmark_says_what_it_measured() {
    let space = Space::empty();
    let rows = space.json(&format!("bench matmul_512 kernel_gelu launch {QUICK}"));
    let rows = rows.as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|r| r["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["matmul_512", "kernel_gelu", "launch"]);
    for row in rows {
        let [median, min] = ["median_ms", "min_ms"].map(|key| row[key].as_f64().unwrap());
        assert!(0.0 < min && min <= median, "{row}");
        assert!(row["reps"].as_u64() >= Some(3) && row["shape"].is_string() && row["adapter"].is_string(), "{row}");
    }
    // Operations, bytes, or neither; a share of the peak of the same kind.
    let figures = ["gflops", "gbs", "share_of_peak", "peak"];
    let present = |row: usize| figures.map(|key| rows[row][key].as_f64().is_some());
    assert_eq!(present(0), [true, false, true, true]);
    assert_eq!(present(1), [false, true, true, true]);
    assert_eq!(present(2), [false; 4]);
    assert!(figures.iter().all(|key| rows[2][key].is_null()));
    let rate = 2.0 * 512f64.powi(3) / rows[0]["median_ms"].as_f64().unwrap() / 1e6;
    assert!((rows[0]["gflops"].as_f64().unwrap() / rate - 1.0).abs() < 1e-9);
}

#[test]
fn models_and_the_method_are_benchmarked() {
    let space = Space::empty();
    let (out, err) = space.run("bench vit32_infer vit32_train record_submit --seconds 0 --warmup 0");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 1 + 3 + 1, "{out}");
    assert!(lines[0].starts_with("workload") && lines[0].contains("median ms") && lines[0].contains("of peak"));
    assert!(lines[1].starts_with("vit32_infer") && lines[2].starts_with("vit32_train"), "{out}");
    assert!(lines[4].starts_with("record_submit: share_of_step ") && lines[4].contains("step_ms"), "{out}");
    assert!(err.contains("peak: ") && err.contains("[3/3] record_submit"), "{err}");
}

#[test]
fn what_is_no_workload_is_refused_with_the_names_of_those_that_are() {
    let space = Space::empty();
    let parts = ["vit_huge", "models", "kernels", "vit_tiny_train", "mars_vit_base", "kernel_adamw", "data_loading"];
    space.fails(2, "bench launch vit_huge", &parts);
    space.fails(2, "bench launch --seconds nan", &["--seconds"]);
}

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
