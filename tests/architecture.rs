//! The floors of the house: imports run from a floor to those below it, and to no floor above.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// From the top down. Those on one line know nothing of each other.
const FLOORS: &[&[&str]] = &[
    &["cli", "prelude"],
    &["report"],
    &["compare", "bench"],
    &["train"],
    &["method", "suite"],
    &["checkpoint"],
    &["data", "model"],
    &["ops"],
    &["gpu", "cpu"],
    &["shapes", "random", "atomic"],
    &["error"],
];

/// Every Rust file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The paths below the crate that a file's own code names, as in `gpu::buffer`: those of `use crate::…` with braces opened, and
/// those in between. Comments and a file's tests don't count.
fn named(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|l| l.to_string() + "\n").collect();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        open(&code[at + "crate::".len()..], "", &mut found);
    }
    found
}

/// Adds the paths at the start of `text` behind `prefix` to `found`; returns what of the text was read.
fn open(text: &str, prefix: &str, found: &mut BTreeSet<String>) -> usize {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let end = text.find(|c| !word(c)).unwrap_or(text.len());
    let path = if prefix.is_empty() { text[..end].to_string() } else { format!("{prefix}::{}", &text[..end]) };
    if let Some(list) = text.strip_prefix('{') {
        let mut at = 0;
        while at < list.len() && !list[at..].starts_with('}') {
            let skipped = list[at..].find(|c: char| word(c) || c == '{' || c == '}').unwrap_or(list.len() - at);
            at += skipped;
            if !list[at..].starts_with('}') {
                at += open(&list[at..], prefix, found).max(1);
            }
        }
        return at + 2;
    }
    match text[end..].strip_prefix("::") {
        Some(rest) => end + 2 + open(rest, &path, found),
        None => {
            found.insert(path);
            end
        }
    }
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
    for path in files(&source()) {
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

#[test]
fn every_module_has_a_floor_and_every_floor_its_modules() {
    let there: BTreeSet<String> =
        files(&source()).iter().map(|path| module(path)).filter(|m| m != "lib" && m != "main").collect();
    let listed: BTreeSet<String> = FLOORS.iter().flat_map(|floor| floor.iter().map(|m| m.to_string())).collect();
    assert_eq!(there, listed);
}

#[test]
fn paths_are_read_with_their_braces() {
    let text = "use crate::gpu::{Gpu, buffer::{Element, align}, tune};\n// crate::report is only named\n\
                fn f(x: crate::data::Dataset) -> crate::Result<()> {}\n#[cfg(test)]\nuse crate::cli;\n";
    let want = ["Result", "data::Dataset", "gpu::Gpu", "gpu::buffer::Element", "gpu::buffer::align", "gpu::tune"];
    assert_eq!(named(text).into_iter().collect::<Vec<_>>(), want);
}
