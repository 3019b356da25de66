//! `tools/gpu-report`: what it makes of this adapter, and of programs that fail or hang. Times are never a test.
#![cfg(unix)] // it is a shell script

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

struct Space(TempDir);

impl Space {
    fn new() -> Space {
        Space(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A shell script that stands in for a program.
    fn program(&self, name: &str, body: &str) -> PathBuf {
        fs::write(self.path(name), format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        self.path(name)
    }

    /// Runs the script with `tpgm` and these words and `out`; its exit code, last line and page.
    fn report(&self, tpgm: &Path, words: &[&str]) -> (i32, String, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/gpu-report");
        let mut command = Command::new(script);
        command.args(words).arg(self.path("out")).env("TPGM", tpgm).env("TMPDIR", self.0.path());
        let output = command.output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        let page =
            fs::read_to_string(self.path("out/report.md")).unwrap_or_else(|e| panic!("no page ({e}):\n{out}\n{err}"));
        (output.status.code().unwrap(), out.lines().last().unwrap_or_default().to_string(), page)
    }
}

/// The cells of the first line of `page` that begins with `start`.
#[track_caller]
fn cells(page: &str, start: &str) -> Vec<String> {
    let line = page.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start:?}:\n{page}"));
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect()
}

#[test]
fn an_adapter_gets_its_page() {
    let space = Space::new();
    let parts = "card tuning-f32 bench-f32 tuning-f16 bench-f16 bench-f16-plain";
    let mut words = vec!["--limit", "120", "--only", parts, "--workloads", "launch matmul_512", "--seconds", "0"];
    let adapter = std::env::var("TPGM_TEST_ADAPTER").ok();
    if let Some(adapter) = &adapter {
        words.extend(["--adapter", adapter]);
    }
    let (code, last, page) = space.report(Path::new(env!("CARGO_BIN_EXE_tpgm")), &words);
    assert_eq!(code, 0, "{page}");
    assert!(last.contains("all parts ended well") && last.contains("report.md"), "{last}");
    assert!(page.contains("| driver | ") && page.contains("a run takes") && page.contains("peak: "), "{page}");
    for name in ["devices", "card", "tuning-f32", "bench-f32"] {
        assert_eq!(cells(&page, &format!("| {name} |"))[1], "ok", "{page}");
    }
    let of = |name: &str| cells(&page, &format!("| `{name}` |"));
    assert!(of("matmul_512")[2].parse::<f64>().unwrap() > 0.0 && of("matmul_512")[3].ends_with(" GFLOP/s"), "{page}");
    assert!(of("launch")[2].parse::<f64>().unwrap() > 0.0, "{page}");
    let chosen = cells(&page, "| matmul::forward, 512 rows, 512 to 512 |");
    assert!(chosen[2].parse::<f64>().unwrap() > 0.0 && !chosen[4].is_empty(), "{chosen:?}");
    // f16 where there is f16, matrices where there are matrices; else it says why not.
    let state = |part: &str| cells(&page, &format!("| {part} |"));
    if state("bench-f16")[1] == "ok" {
        assert!(of("matmul_512")[5].parse::<f64>().unwrap() > 0.0, "{page}");
        assert!(page.contains("| matmul::forward, 512 rows, 512 to 512, f16 |"), "{page}");
    } else {
        assert_eq!(state("bench-f16")[1..], ["skipped", "0", "the adapter has no f16"], "{page}");
    }
    if of("matmul_512")[6] == "-" {
        assert_eq!(state("bench-f16-plain")[1], "skipped", "{page}");
    }
    let mut files: Vec<_> = fs::read_dir(space.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    files.retain(|name| name.to_string_lossy().starts_with('.'));
    assert!(files.is_empty(), "left behind: {files:?}");
}

/// A `tpgm` whose check finds a wrong kernel, whose f16 hangs and can't be told to end, and which lacks memory for a model.
const BROKEN: &str = r#"case $1 in
--version) echo 'tpgm 9.9' ;;
devices)
    case $* in
    *--json*) printf '[\n  {\n    "features": [\n      "f16"\n    ],\n    "name": "Fake GPU",\n    "taken": true\n  }\n]\n' ;;
    *) echo '0: Fake GPU' ;;
    esac
    ;;
check)
    case $* in *--help*) exit ;; esac
    echo 'FAILED gelu at 7: error 3.0e0, tolerance 1.0e-5' >&2
    printf '{\n  "cases": [\n    {\n      "case": "7",\n      "error": 3.0,\n      "failure": null,\n'
    printf '      "kernel": "gelu",\n      "passed": false,\n      "tolerance": 1e-5\n    }\n  ],\n  "failed": 1\n}\n'
    exit 1
    ;;
bench)
    case $* in
    *f16*)
        echo '2026-11-28T01:02:03.4Z  WARN tpgm::ops::self_check: Cooperative is not used: wrong' >&2
        echo '[1/2] vit_tiny_train: 3.25 ms' >&2
        trap '' TERM
        sleep 1000
        ;;
    *)
        echo '[1/1] vit_base_train: error: not enough memory' >&2
        echo '[]'
        exit 1
        ;;
    esac
    ;;
demo) echo 'style  google' ;;
esac"#;

#[test]
fn a_part_that_fails_or_hangs_loses_only_itself() {
    let space = Space::new();
    let tpgm = space.program("tpgm", BROKEN);
    let parts = "check bench-f32 bench-f16 demo";
    let started = Instant::now();
    let (code, last, page) =
        space.report(&tpgm, &["--limit", "8", "--only", parts, "--share", "bench-f16=30", "--share", "bench-f32=30"]);
    assert!(started.elapsed().as_secs() < 30, "the hanging part was waited for");
    assert_eq!(code, 1, "{page}");
    assert!(last.contains("check failed, bench-f32 failed, bench-f16 cut") && last.contains("report.md"), "{last}");
    let state = |part: &str| cells(&page, &format!("| {part} |"))[1].clone();
    assert_eq!(
        ["devices", "check", "bench-f32", "bench-f16", "demo"].map(state),
        ["ok", "**failed**", "**failed**", "**cut**", "ok"]
    );
    assert!(page.starts_with("# Fake GPU\n") && page.contains("tpgm 9.9"), "{page}");
    assert!(page.contains("1 cases, 1 FAILED") && page.contains("- `gelu` at 7: error 3.0, tolerance 1e-5"), "{page}");
    assert!(page.contains("vit_base_train: not enough memory") && page.contains("style  google"), "{page}");
    assert!(page.contains("\nWARN tpgm::ops::self_check: Cooperative is not used: wrong\n"), "{page}");
    // What the hanging part had measured before is there.
    assert_eq!(cells(&page, "| `vit_tiny_train` |")[5], "3.25");
}

#[test]
fn the_quick_check_comes_first_and_the_whole_one_may_stay_unfinished() {
    let space = Space::new();
    let check = r#"if [ "$1" = check ]; then
    case $* in
    *--help*) echo '      --quick' ;;
    *--quick*) printf '{\n  "cases": [],\n  "failed": 0\n}\n' ;;
    *) exec sleep 1000 ;;
    esac
    exit
fi"#;
    let tpgm = space.program("tpgm", &format!("{check}\n{BROKEN}"));
    let (code, _, page) = space.report(&tpgm, &["--limit", "4", "--only", "check check-full"]);
    assert_eq!(code, 0, "{page}");
    assert_eq!(
        ["check", "check-full"].map(|part| cells(&page, &format!("| {part} |"))[1].clone()),
        ["ok", "**unfinished**"]
    );
    assert!(page.contains("**check**: 0 cases, none failed") && page.contains("**check-full** did not end"), "{page}");
}

#[test]
fn without_an_adapter_the_page_says_so() {
    let space = Space::new();
    let tpgm = space.program("tpgm", "echo 'error: no adapter: install a driver' >&2\nexit 1");
    let (code, last, page) = space.report(&tpgm, &["--limit", "5"]);
    assert_eq!(code, 1, "{page}");
    assert!(last.contains("devices failed"), "{last}");
    assert!(page.contains("no adapter: install a driver"), "{page}");
    assert_eq!(cells(&page, "| bench-f32 |")[1], "skipped");
}

#[test]
fn pytorch_is_measured_in_every_precision_that_counts() {
    let space = Space::new();
    let tpgm = space.program("tpgm", BROKEN);
    let python = space.program(
        "python",
        r#"if [ "$1" = -c ]; then echo 'cuda 2.99'; exit; fi
printf '%s\n' "$@" >"$(dirname "$0")/words"
printf '| workload | ours ms |\n| --- | --- |\n| vit_base_train | 7.5 |\n'"#,
    );
    let words = ["--limit", "20", "--only", "torch", "--python", python.to_str().unwrap(), "--seconds", "0.1"];
    let (code, _, page) = space.report(&tpgm, &words);
    assert_eq!(code, 0, "{page}");
    assert!(page.contains("| PyTorch | 2.99 on cuda |") && page.contains("| vit_base_train | 7.5 |"), "{page}");
    let words = fs::read_to_string(space.path("words")).unwrap();
    for peer in ["torch-f32=", "torch-tf32=", "torch-bf16=", "ours-f16="] {
        assert!(words.lines().any(|word| word.starts_with(peer)), "{words}");
    }
    assert!(
        words.contains("--device cuda --precision tf32 --seconds 0.1 -\n") && words.contains("\nresnet50_train\n"),
        "{words}"
    );
}

#[test]
fn wrong_words_are_refused() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/gpu-report");
    let refused = |words: &[&str]| {
        let output = Command::new(&script).args(words).env("TPGM", env!("CARGO_BIN_EXE_tpgm")).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&[]).contains("no DIR"));
    assert!(refused(&["--limit", "soon", "x"]).contains("--limit soon"));
    assert!(refused(&["--only", "lunch", "x"]).contains("no part lunch: there are card devices check"));
    assert!(refused(&["--share", "demo=much", "x"]).contains("demo=much"));
    assert!(refused(&["--fast", "x"]).contains("unknown option --fast"));
}
