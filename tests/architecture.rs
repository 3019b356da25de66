//! The floors of the house: imports run from a floor to those below it, and to no floor above.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::CommandFactory;

#[path = "architecture/files.rs"]
mod files;
#[path = "architecture/words.rs"]
mod words;

use files::{Sources, circles, code, open};

/// From the top down. Those on one line know nothing of each other.
const FLOORS: &[&[&str]] = &[
    &["cli", "prelude"],
    &["export"],
    &["report"],
    &["compare", "bench"],
    &["train"],
    &["method", "suite"],
    &["checkpoint"],
    &["data", "model", "text"],
    &["ops"],
    &["gpu", "cpu"],
    &["shapes", "random", "ranks", "atomic", "csv_text", "flag", "stop", "stems", "tfevents", "version"],
    &["error"],
];

/// Every Rust file below `folder`.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(below(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The paths below the crate that a file's own code names, as in `gpu::buffer`: those of `use crate::…` with braces opened, and
/// those in between.
fn named(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let mut found = BTreeSet::new();
    for (at, start) in code.match_indices("crate::") {
        open(&code[at + start.len()..], &[], &mut found);
    }
    found.into_iter().map(|path| path.join("::")).collect()
}

fn floor(module: &str) -> usize {
    let floor = FLOORS.iter().position(|floor| floor.contains(&module));
    floor.unwrap_or_else(|| panic!("{module} has no floor: add it to tests/architecture.rs and to ARCHITECTURE.md"))
}

/// The module of a file: its folder below src, or its own name.
fn module(path: &Path) -> String {
    let below = path.strip_prefix(source()).unwrap();
    let first = below.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_string()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Who imports whom among the modules, with a file that does.
fn arrows() -> BTreeMap<(String, String), String> {
    let mut arrows = BTreeMap::new();
    for path in below(&source()) {
        let from = module(&path);
        if from == "lib" || from == "main" {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for name in named(&text) {
            let to = name.split("::").next().unwrap().to_string();
            // `Error` and `Result` are at the top of the crate, but belong to `error`.
            let to = if to.starts_with(char::is_uppercase) { "error".to_string() } else { to };
            if to != from {
                arrows.entry((from.clone(), to)).or_insert_with(|| path.display().to_string());
            }
        }
    }
    arrows
}

#[test]
fn imports_run_down() {
    let arrows = arrows();
    println!("floors, from the top: {FLOORS:?}");
    let mut up = Vec::new();
    for ((from, to), file) in &arrows {
        if floor(from) >= floor(to) {
            up.push(format!("{from} imports {to}, in {file}"));
        }
    }
    assert!(up.is_empty(), "{}", up.join("\n"));
    // What the house is for: the references know nothing of a device, and everything ends at the bottom.
    assert!(!arrows.contains_key(&("cpu".into(), "gpu".into())));
    assert!(arrows.contains_key(&("cli".into(), "train".into())), "the arrows are not read");
}

/// Within a floor, two folders do not need each other either: a circle of files is a circle of folders.
#[test]
fn no_two_modules_import_each_other() {
    let arrows = arrows();
    let both: Vec<_> = arrows.keys().filter(|(a, b)| a < b && arrows.contains_key(&(b.clone(), a.clone()))).collect();
    assert!(both.is_empty(), "{both:?}");
}

/// No two files need each other, with one exception: the list of methods names its members, and a member's flags are a field of what
/// the list parses, which its rule reads.
#[test]
fn no_files_need_each_other_but_the_methods_and_their_list() {
    let imports = Sources::read(&source(), &below(&source())).imports();
    assert!(imports["train/steps.rs"].contains("method/learner.rs"), "an import through `pub use` is not read");
    let circles = circles(&imports);
    println!("files that need each other: {circles:#?}");
    let [methods] = circles.as_slice() else { panic!("not one circle: {circles:#?}") };
    assert!(methods.iter().all(|file| file.starts_with("method/")), "{methods:#?}");
}

#[test]
fn circles_are_found() {
    let to = |files: &[&str]| files.iter().map(|f| f.to_string()).collect::<BTreeSet<_>>();
    let imports = [("a", to(&["b"])), ("b", to(&["c", "d"])), ("c", to(&["a"])), ("d", to(&[]))];
    let imports = imports.into_iter().map(|(from, to)| (from.to_string(), to)).collect();
    assert_eq!(circles(&imports), [to(&["a", "b", "c"])]);
}

#[test]
fn every_module_has_a_floor_and_every_floor_its_modules() {
    let there: BTreeSet<String> =
        below(&source()).iter().map(|path| module(path)).filter(|m| m != "lib" && m != "main").collect();
    let listed: BTreeSet<String> = FLOORS.iter().flat_map(|floor| floor.iter().map(|m| m.to_string())).collect();
    assert_eq!(there, listed);
}

/// The flags that a file's own code names, each with its line: `--` and a word, as no Rust outside strings has it. Not those of other
/// programs' command lines.
fn flags(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let of_others = |line: &&str| ["cargo build ", "mpirun ", "srun "].iter().any(|command| line.contains(command));
    for line in code(text).lines().filter(|line| !of_others(line)) {
        let line = line.split(" // ").next().unwrap_or_default();
        for (at, _) in line.match_indices("--") {
            let name: String = line[at + 2..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
            if name.starts_with(|c: char| c.is_ascii_lowercase()) {
                found.push((name, line.trim().to_string()));
            }
        }
    }
    found
}

/// Errors and notes of the lower floors are read by programs too, which know no flags: `train::help` adds them. Methods alone
/// have flags of their own, in `method::args`.
#[test]
fn no_flag_is_named_where_none_is_defined() {
    let mut named = Vec::new();
    for path in below(&source()) {
        let module = module(&path);
        if !["lib", "main", "method"].contains(&module.as_str()) && floor(&module) > floor("train") {
            let text = std::fs::read_to_string(&path).unwrap();
            named.extend(flags(&text).into_iter().map(|(_, line)| format!("{}: {line}", path.display())));
        }
    }
    assert!(named.is_empty(), "{}\ngive the error a `Help`, or the note its settings", named.join("\n"));
}

#[test]
fn every_flag_that_helps_is_one_of_the_command_line() {
    let mut known = BTreeSet::new();
    for command in tpgm::cli::Cli::command().get_subcommands() {
        known.extend(command.get_arguments().filter_map(|argument| Some(argument.get_long()?.to_string())));
    }
    let named = flags(include_str!("../src/train/help.rs"));
    assert!(named.len() > 25, "the flags are not read: {named:?}");
    let unknown: Vec<_> = named.iter().filter(|(flag, _)| !known.contains(flag)).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn flags_are_read_but_not_those_of_comments() {
    let text = "/// As `--trace` does.\nlet a = i - -1; // or --bn\n\"use --precision f32 or\\\n --micro-batch\"\n";
    let names: Vec<String> = flags(text).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["precision", "micro-batch"]);
}

#[test]
fn paths_are_read_with_their_braces() {
    let text = "use crate::gpu::{Gpu, buffer::{Element, align}, tune};\n// crate::report is only named\n\
                fn f(x: crate::data::Dataset) -> crate::Result<()> {}\n#[cfg(test)]\nuse crate::cli;\n";
    let want = ["Result", "data::Dataset", "gpu::Gpu", "gpu::buffer::Element", "gpu::buffer::align", "gpu::tune"];
    assert_eq!(named(text).into_iter().collect::<Vec<_>>(), want);
}
