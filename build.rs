//! Tells the program which commit it is built from (`TPGM_VERSION`, as `--version` prints it), and gives it the demo's images and
//! weights, so that `tpgm demo` runs wherever the program was installed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What the program is made of: if one of these differs from the commit, the version says so.
const SOURCES: [&str; 6] = ["src", "shaders", "assets/text", "build.rs", "Cargo.toml", "Cargo.lock"];

/// What the demo reads, in `assets`.
const DEMO: [&str; 7] =
    ["README.md", "fluent", "google", "openmoji", "resnet-emoji.safetensors", "twitter", "vit-emoji.safetensors"];

/// Names the commit in a crate that `cargo package` made.
const PACKAGED: &str = ".cargo_vcs_info.json";

/// What git prints; none if it fails, or if there is no git.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let out =
        Command::new("git").arg("-C").arg(root).args(arguments).output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8(out.stdout).ok()?.trim().to_string())
}

/// The commit that a packaged crate was made from, and whether anything differed from it.
fn packaged(root: &Path) -> Option<(String, bool)> {
    let text: String = fs::read_to_string(root.join(PACKAGED)).ok()?.split_whitespace().collect();
    let (_, rest) = text.split_once("\"sha1\":\"")?;
    Some((rest.split('"').next()?.to_string(), text.contains("\"dirty\":true")))
}

/// The commit of the work tree at `root`. A crate that lies inside of another project's work tree has none.
fn checked_out(root: &Path) -> Option<(String, bool)> {
    let top = fs::canonicalize(git(root, &["rev-parse", "--show-toplevel"])?).ok()?;
    if top != fs::canonicalize(root).ok()? {
        return None;
    }
    let commit = git(root, &["rev-parse", "HEAD"])?;
    let changes = git(root, &[&["status", "--porcelain", "--"], &SOURCES[..]].concat())?;
    // A file that is missing would make every build start anew.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(root, &["rev-parse", "--git-path", name]).map(|path| root.join(path));
        path.filter(|path| path.is_file())
            .iter()
            .for_each(|path| println!("cargo::rerun-if-changed={}", path.display()));
    }
    Some((commit, !changes.is_empty()))
}

/// The files at `path`, or below it, sorted.
fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        found.push(path.to_path_buf());
        return;
    }
    let entries = fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder's entry").path()).collect();
    entries.sort();
    entries.iter().for_each(|entry| files(entry, found));
}

/// Writes a list of the demo's files with their bytes, as Rust; without the folder `assets` it is empty.
fn list_demo(root: &Path) {
    let assets = root.join("assets");
    let mut found = Vec::new();
    for name in DEMO.iter().filter(|name| assets.join(name).exists()) {
        println!("cargo::rerun-if-changed=assets/{name}");
        files(&assets.join(name), &mut found);
    }
    let mut list = "&[\n".to_string();
    for path in found {
        let below = path.strip_prefix(&assets).expect("below assets");
        let below: Vec<&str> = below.iter().map(|part| part.to_str().expect("names in assets are UTF-8")).collect();
        let _ = writeln!(list, "({:?}, include_bytes!({path:?})),", below.join("/"));
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names the folder")).join("demo.rs");
    fs::write(&out, list + "]\n").unwrap_or_else(|e| panic!("{}: {e}", out.display()));
}

fn main() {
    let root = env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the folder");
    let root = Path::new(&root);
    SOURCES.iter().filter(|path| root.join(path).exists()).for_each(|path| println!("cargo::rerun-if-changed={path}"));
    list_demo(root);
    let version = env::var("CARGO_PKG_VERSION").expect("cargo names the version");
    let commit = if root.join(PACKAGED).is_file() { packaged(root) } else { checked_out(root) };
    let version = match commit {
        Some((commit, is_dirty)) => {
            let short: String = commit.chars().take(12).collect();
            let state = if is_dirty { ", modified" } else { "" };
            format!("{version} ({short}{state})")
        }
        None => version,
    };
    println!("cargo::rustc-env=TPGM_VERSION={version}");
}
