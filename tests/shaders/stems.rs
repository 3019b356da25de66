//! The list of stems against the folders: every shader has its wrapper and reference, every reference is held against
//! differences and against PyTorch's values, and every kernel is timed, or the list says why it is not.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tpgm::bench::workloads;
use tpgm::ops::OPS;

use super::{root, variants, wgsl_files};

/// The stems of the shaders' folder. A second algorithm for the same stem is a file of its own.
fn stems() -> BTreeSet<String> {
    let algorithms = ["_direct", "_subgroup", "_cooperative", "_grouped", "_strided", "_quads"];
    let of_file = |path: &PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        algorithms.iter().find_map(|end| name.strip_suffix(end)).map_or(name.clone(), str::to_string)
    };
    wgsl_files("shaders").iter().map(of_file).collect()
}

#[test]
fn every_file_is_listed_and_has_its_wrapper_and_reference() {
    let name = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    let files: BTreeSet<String> = wgsl_files("shaders").iter().map(name).collect();
    let listed: BTreeSet<String> = variants::all().iter().map(|of| of.shader.name.to_string()).collect();
    assert_eq!(files, listed);
    assert_eq!(stems(), OPS.iter().map(|op| op.name.to_string()).collect());
    for stem in stems() {
        for folder in ["src/cpu", "src/ops"] {
            let path = root().join(folder).join(format!("{stem}.rs"));
            assert!(path.is_file(), "{stem} has no {}", path.display());
        }
    }
}

/// The code of these files, without comments.
fn code(paths: &[PathBuf]) -> String {
    let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let texts: Vec<String> = paths.iter().map(read).collect();
    let lines = texts.iter().flat_map(|text| text.lines()).map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// A test's file and those of the folder of its name.
fn of_test(name: &str) -> Vec<PathBuf> {
    let tests = root().join("tests");
    let below = std::fs::read_dir(tests.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let rust = below.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "rs"));
    rust.chain([tests.join(format!("{name}.rs"))]).collect()
}

/// What `code` names below `path`, as `backward` of `gelu::backward` and of `gelu::{backward, forward}`.
fn named(code: &str, path: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(&format!("{path}::")) {
        let rest = &code[at + path.len() + 2..];
        if code[..at].ends_with(word) {
            continue;
        }
        let names = rest.strip_prefix('{').map_or(&rest[..rest.find(|c| !word(c)).unwrap_or(rest.len())], |list| {
            list.split('}').next().unwrap_or_default()
        });
        found.extend(names.split(',').map(|name| name.trim().to_string()));
    }
    found
}

/// Backward functions of a stem's reference.
fn backwards(stem: &str) -> BTreeSet<String> {
    let text = code(&[root().join(format!("src/cpu/{stem}.rs"))]);
    let names = text.lines().filter_map(|line| line.strip_prefix("pub fn ")?.split(['<', '(']).next());
    names.filter(|name| name.contains("backward")).map(str::to_string).collect()
}

#[test]
fn every_stem_has_a_gradcheck_goldens_and_a_benchmark_or_says_why_not() {
    let differences = code(&of_test("gradcheck"));
    let goldens = code(&["channels", "goldens", "resnet"].map(|name| root().join(format!("tests/kernels/{name}.rs"))));
    for op in OPS {
        let stem = op.name;
        let reason = |what: &str| op.reasons.iter().find(|(of, _)| *of == what).map(|(_, why)| *why);
        let unknown = op.reasons.iter().find(|(of, _)| !["gradcheck", "golden", "bench"].contains(of));
        assert_eq!(unknown, None, "{stem}: src/stems.rs gives reasons for gradcheck, golden and bench");

        let checked = named(&differences, stem);
        let missing: Vec<String> = backwards(stem).difference(&checked).cloned().collect();
        match reason("gradcheck") {
            None => assert!(
                !checked.is_empty() && missing.is_empty(),
                "{stem}: tests/gradcheck.rs does not check {}; do it, or say in src/stems.rs why not",
                if missing.is_empty() { "anything of it".into() } else { missing.join(", ") }
            ),
            Some(why) => assert!(!missing.is_empty() || checked.is_empty(), "{stem} is checked, in spite of '{why}'"),
        }

        // Expected values of a kernel bear its name.
        let held = goldens.contains(&format!("\"{stem}::"));
        match reason("golden") {
            None => assert!(
                held,
                "{stem}: tests/kernels/goldens.rs has no values for it; add some, or say why not in src/stems.rs"
            ),
            Some(why) => assert!(!held, "{stem} has goldens, in spite of '{why}'"),
        }

        let own = format!("kernel_{stem}");
        let is_own = |name: &str| name.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
        let timed = workloads::all().iter().any(|workload| is_own(workload.name));
        match reason("bench") {
            None => assert!(timed, "{stem}: no workload {own} in src/bench; add one, or say why not in src/stems.rs"),
            Some(why) => assert!(!timed, "{stem} has a workload, in spite of '{why}'"),
        }
    }
}

#[test]
fn what_a_test_calls_is_found() {
    let code =
        "use tpgm::cpu::mars::{clip, radius_backward};\nuse tpgm::cpu::{gelu, relu};\ngelu::backward(d); my_gelu::x();";
    assert_eq!(named(code, "mars"), BTreeSet::from(["clip", "radius_backward"].map(String::from)));
    assert_eq!(named(code, "gelu"), BTreeSet::from(["backward".to_string()]));
    assert_eq!(named(code, "relu"), BTreeSet::new());
    assert!(backwards("residual").contains("backward_params") && backwards("cast").is_empty());
}
