//! `tpgm bench`. Only the form is tested: a time is never a test.

use serde_json::Value;

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

#[test]
fn the_tuner_shows_what_it_chose_among() {
    let space = Space::empty();
    let tuning = |workloads: &str, flags: &str| -> Value {
        let mut command = space.command(&format!("bench {workloads} --tuning --json {flags}"));
        command.env_remove("TPGM_NO_TUNE").env("TPGM_CACHE_DIR", space.path("cache"));
        let (code, out, err) = read(command.output().unwrap());
        assert_eq!(code, Some(0), "{err}");
        serde_json::from_str(&out).unwrap()
    };
    let check = |classes: &Value, measured: bool| {
        for class in classes.as_array().unwrap() {
            let candidates = class["candidates"].as_array().unwrap();
            let those = |key: &str| candidates.iter().filter(|c| c[key] == true).collect::<Vec<_>>();
            let (chosen, default) = (those("chosen"), those("default"));
            assert_eq!((chosen.len(), default.len()), (1, 1), "{class}");
            assert_eq!(candidates.iter().all(|c| c["ms"].is_f64()), measured, "{class}");
            match measured {
                true => {
                    let time = |c: &Value| c["ms"].as_f64().unwrap();
                    assert!(candidates.iter().all(|c| time(c) > 0.0 && c["gflops"].as_f64() > Some(0.0)), "{class}");
                    assert!(candidates.iter().all(|c| time(c) >= time(chosen[0])), "{class}");
                }
                false => assert_eq!(chosen, default, "{class}"),
            }
        }
    };
    let names = |classes: &Value, key: &str| -> Vec<String> {
        classes.as_array().unwrap().iter().map(|class| class[key].as_str().unwrap().into()).collect()
    };
    // Each class once, under the first workload that has it; what has no products adds none.
    let all = tuning("launch matmul_512 kernel_linear matmul_512", "--seconds 60");
    check(&all, true);
    assert_eq!(
        names(&all, "class"),
        ["matmul::forward, 512 rows, 512 to 512", "matmul::forward, 1024 rows, 192 to 768"]
    );
    assert_eq!(names(&all, "workload"), ["matmul_512", "kernel_linear"]);
    // It is kept for runs, and measured anew all the same.
    let kept = || {
        let mut files = std::fs::read_dir(space.path("cache")).unwrap().map(|e| e.unwrap().path());
        let file = files.find(|p| p.to_string_lossy().ends_with(".tuning.json")).unwrap();
        serde_json::from_slice::<Value>(&std::fs::read(file).unwrap()).unwrap()["choices"].as_object().unwrap().len()
    };
    assert_eq!(kept(), 2);
    check(&tuning("matmul_512", "--seconds 60"), true);
    assert_eq!(kept(), 2, "choices made before for others are lost");
    // What there was no time for stands there without times.
    check(&tuning("matmul_512", "--seconds 0"), false);
}

#[test]
fn tuning_needs_leave_to_tune() {
    let space = Space::empty();
    space.fails(2, "bench matmul_512 --tuning", &["--tuning", "TPGM_NO_TUNE"]);
    space.fails(2, "bench matmul_512 --limit nan", &["--limit"]);
}

#[test]
fn a_limit_leaves_the_rest_out_and_says_so() {
    let space = Space::empty();
    let (out, err) = space.run("bench launch matmul_512 --limit 0 --json");
    assert_eq!(out.trim(), "[]");
    assert!(err.contains("left out after --limit 0: launch matmul_512"), "{err}");
}
