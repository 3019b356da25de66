//! Plain words: patterns that readers stumble over, in everything that a user or a contributor reads.

use std::path::{Path, PathBuf};

/// Nouns that are counted as in "one row per class", never as in "a row a class".
const COUNTED: [&str; 19] = [
    "row",
    "column",
    "line",
    "lane",
    "workgroup",
    "value",
    "file",
    "folder",
    "method",
    "pixel",
    "image",
    "step",
    "tensor",
    "radius",
    "pass",
    "vector",
    "load",
    "word",
    "entry",
];

/// What follows "a tensor" in "how many rows a tensor has", which counts nothing.
const VERBS: [&str; 12] = ["has", "have", "had", "is", "was", "may", "must", "can", "takes", "gets", "needs", "gives"];

/// Verbs after which "what is …" is a question.
const ASKING: [&str; 25] = [
    "say",
    "says",
    "said",
    "saying",
    "tell",
    "tells",
    "told",
    "show",
    "shows",
    "shown",
    "know",
    "knows",
    "known",
    "ask",
    "asks",
    "decide",
    "decides",
    "decided",
    "see",
    "seen",
    "explain",
    "explains",
    "reports",
    "states",
    "remembers",
];

/// Phrases that have a plain form: "if there is none", "follows", "multiple of".
const PHRASES: [&str; 5] = ["where there is none", "where there are none", " goes by ", "said aloud", "aloud"];

/// A word without the marks around it.
fn bare(word: &str) -> String {
    word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()
}

/// "a row a class", "two passes a step" at the start of `words`.
fn counts_without_per(words: &[&str]) -> bool {
    let [first, noun, second, rest @ ..] = words else { return false };
    let first = bare(first);
    let counts = ["a", "an", "one", "two", "three", "four"].contains(&first.as_str());
    let noun = noun.strip_suffix("es").filter(|n| COUNTED.contains(n)).or(noun.strip_suffix('s')).unwrap_or(noun);
    let verb = |word: &&str| VERBS.contains(&bare(word).as_str());
    counts && COUNTED.contains(&noun) && matches!(*second, "a" | "an") && !rest.get(1).is_some_and(verb)
}

/// Whether "what is" at `at` of `words` names a thing, as in "what is trained is saved", instead of asking.
fn names_by_what(words: &[&str], at: usize) -> bool {
    let is_what = bare(words[at]) == "what" && !words[at].contains('{') && !words[at].ends_with([',', '.', '`', '"']);
    let is_verb = words.get(at + 1).is_some_and(|next| ["is", "are", "was", "were"].contains(next));
    let asked = words[..at].last().is_some_and(|before| ASKING.contains(&bare(before).as_str()));
    let question = words[at..].iter().any(|word| word.ends_with('?'));
    is_what && is_verb && !asked && !question
}

/// What is not plain in `text`, with the numbers of its lines.
fn stumbles(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut last = "";
    for (line, at) in text.lines().zip(1..) {
        let marks = |word: &&str| !["//", "///", "//!", "#", "*", "-"].contains(word);
        // A sentence may begin on the line before.
        let words: Vec<&str> = [last].into_iter().chain(line.split_whitespace().filter(marks)).collect();
        let wrong = |i: &usize| counts_without_per(&words[*i..]) || names_by_what(&words, *i);
        let place = (0..words.len()).find(wrong);
        found.extend(place.map(|i| (at, words[i..words.len().min(i + 4)].join(" "))));
        let lower = line.to_lowercase();
        found.extend(PHRASES.iter().filter(|p| lower.contains(*p)).map(|p| (at, p.trim().to_string())));
        last = words.last().copied().unwrap_or_default();
    }
    found
}

/// Documents, sources, tests and shaders of the project.
fn texts(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "runs", "assets"].contains(&name.as_str()) {
                texts(&path, found);
            }
        } else if !path.ends_with("architecture/words.rs")
            && ["md", "rs", "wgsl"].iter().any(|ending| path.extension().is_some_and(|e| e == *ending))
        {
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
    let found =
        |text: &str| stumbles(text).into_iter().map(|(line, what)| format!("{line}: {what}")).collect::<Vec<_>>();
    assert_eq!(found("one\nhas a row a class, and\n"), ["2: a row a class,"]);
    assert_eq!(found("One row per class; an image a pixel high? a line of a file"), ["1: an image a pixel"]);
    assert_eq!(found("/// Two passes a step: both count"), ["1: Two passes a step:"]);
    assert_eq!(found("how many rows a tensor has; which of two values a lane takes"), [""; 0]);
    assert_eq!(found("None where there is none."), ["1: where there is none"]);
    assert_eq!(found("makes a file a delta of nothing").len(), 1);
    assert_eq!(found("/// What is trained, stage by stage."), ["1: What is trained, stage"]);
    assert_eq!(found("the rest: what was\n"), ["1: what was"]);
    // Questions, and their answers.
    assert_eq!(found("one line that says what is wrong; `what` is a name. What is random? All of it."), [""; 0]);
    assert_eq!(found("# a line that says\n# what is wrong"), [""; 0]);
}
