//! Plain words: patterns that readers stumble over, in everything that a user or a contributor reads.

use std::path::{Path, PathBuf};

/// What is counted as in "one row per class", never as in "a row a class".
const COUNTED: [&str; 12] =
    ["row", "column", "line", "lane", "workgroup", "value", "file", "folder", "method", "pixel", "image", "step"];

/// Phrases that have a plain form: "if there is none", "follows", "multiple of".
const PHRASES: [&str; 5] = ["where there is none", "where there are none", " goes by ", "said aloud", "aloud"];

/// "a row a class" at the start of `words`.
fn counts_without_per(words: &[&str]) -> bool {
    let is_article = |word: &str| matches!(word.to_lowercase().trim_start_matches(['(', '*']), "a" | "an" | "one");
    match words {
        [first, noun, second, ..] => {
            is_article(first)
                && COUNTED.contains(noun)
                && matches!(*second, "a" | "an")
                && first.to_lowercase() != "one"
        }
        _ => false,
    }
}

/// What is not plain in `text`, with the numbers of its lines.
fn stumbles(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, at) in text.lines().zip(1..) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let counted = (0..words.len()).find(|i| counts_without_per(&words[*i..]));
        found.extend(counted.map(|i| (at, words[i..words.len().min(i + 4)].join(" "))));
        let lower = line.to_lowercase();
        found.extend(PHRASES.iter().filter(|p| lower.contains(*p)).map(|p| (at, p.trim().to_string())));
    }
    found
}

/// Documents, sources and shaders of the project.
fn texts(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "runs", "assets", "tests"].contains(&name.as_str()) {
                texts(&path, found);
            }
        } else if ["md", "rs", "wgsl"].iter().any(|ending| path.extension().is_some_and(|e| e == *ending)) {
            found.push(path);
        }
    }
}

#[test]
fn words_are_plain() {
    let mut paths = Vec::new();
    texts(Path::new(env!("CARGO_MANIFEST_DIR")), &mut paths);
    assert!(paths.len() > 300, "{}", paths.len());
    let wrong: Vec<String> = paths
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            stumbles(&text).into_iter().map(move |(line, what)| format!("{}:{line}: {what}", path.display()))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn stumbles_are_found() {
    assert_eq!(stumbles("one\nhas a row a class, and\n").len(), 1);
    assert_eq!(
        stumbles("One row per class; an image a pixel high? a line of a file"),
        [(1, "an image a pixel".to_string())]
    );
    assert_eq!(stumbles("None where there is none."), [(1, "where there is none".to_string())]);
    assert!(stumbles("makes a file a delta of nothing").len() == 1);
}
