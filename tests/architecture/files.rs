//! Which file imports which: paths of `use` and of code, led to the file that defines what they name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The code of a file without comments and without its tests.
pub(crate) fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// Adds the paths at the start of `text`, each behind `prefix`, to `found`, those of braces one by one; returns what of the text
/// was read.
pub(crate) fn open(text: &str, prefix: &[&str], found: &mut BTreeSet<Vec<String>>) -> usize {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == '*';
    if let Some(list) = text.strip_prefix('{') {
        let mut at = 0;
        while at < list.len() && !list[at..].starts_with('}') {
            at += list[at..].find(|c: char| word(c) || c == '{' || c == '}').unwrap_or(list.len() - at);
            if at < list.len() && !list[at..].starts_with('}') {
                at += open(&list[at..], prefix, found).max(1);
            }
        }
        return at + 2;
    }
    let end = text.find(|c| !word(c)).unwrap_or(text.len());
    let path: Vec<&str> = prefix.iter().copied().chain([&text[..end]]).collect();
    match text[end..].strip_prefix("::") {
        Some(rest) => end + 2 + open(rest, &path, found),
        None => {
            found.insert(path.into_iter().map(String::from).collect());
            end
        }
    }
}

/// The sources below a folder, by module path: `[]` is lib.rs, `["gpu", "buffer"]` is gpu/buffer.rs.
pub(crate) struct Sources {
    root: PathBuf,
    files: BTreeMap<Vec<String>, PathBuf>,
    /// What a `use` gives a second path, with its first.
    exported: BTreeMap<Vec<String>, Vec<String>>,
}

impl Sources {
    pub(crate) fn read(root: &Path, files: &[PathBuf]) -> Sources {
        let module = |path: &PathBuf| -> Vec<String> {
            let below = path.strip_prefix(root).unwrap().with_extension("");
            let mut parts: Vec<String> = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            parts.retain(|part| part != "mod" && part != "lib");
            parts
        };
        let files: BTreeMap<_, _> = files.iter().map(|path| (module(path), path.clone())).collect();
        let mut sources = Sources { root: root.into(), files, exported: BTreeMap::new() };
        let mut exported = BTreeMap::new();
        for (module, path) in &sources.files {
            let text = code(&std::fs::read_to_string(path).unwrap());
            // One without `pub` too: the modules below see it.
            for (at, export) in
                text.match_indices("use ").filter(|(at, _)| !text[..*at].ends_with(char::is_alphanumeric))
            {
                let mut names = BTreeSet::new();
                open(&text[at + export.len()..], &[], &mut names);
                for name in names {
                    let whole = sources.absolute(module, &name);
                    exported.insert([&module[..], &name[name.len() - 1..]].concat(), whole);
                }
            }
        }
        sources.exported = exported;
        sources
    }

    /// `path`, as written in `module`, from the crate's top.
    fn absolute(&self, module: &[String], path: &[String]) -> Vec<String> {
        match path[0].as_str() {
            "crate" => path[1..].to_vec(),
            "self" => [module, &path[1..]].concat(),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                [&module[..module.len() - up], &path[up..]].concat()
            }
            _ => [module, path].concat(),
        }
    }

    /// The file that defines what `path` names.
    fn file(&self, path: &[String]) -> Option<&PathBuf> {
        (1..=path.len()).rev().find_map(|len| match self.exported.get(&path[..len]) {
            // `pub use evaluate::evaluate` names the module as well.
            Some(first) if !first.starts_with(&path[..len]) => self.file(&[&first[..], &path[len..]].concat()),
            _ => self.files.get(&path[..len]),
        })
    }

    /// Every file with the files that its own code names, below the root.
    pub(crate) fn imports(&self) -> BTreeMap<String, BTreeSet<String>> {
        let short = |path: &Path| path.strip_prefix(&self.root).unwrap().display().to_string();
        let mut imports = BTreeMap::new();
        for (module, path) in &self.files {
            let text = code(&std::fs::read_to_string(path).unwrap());
            let mut names = BTreeSet::new();
            for start in ["crate", "super", "self"] {
                for (at, _) in text.match_indices(&format!("{start}::")) {
                    // `super::super::` was read from its first word on.
                    if !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                        open(&text[at..], &[], &mut names);
                    }
                }
            }
            let files = names.iter().filter_map(|name| self.file(&self.absolute(module, name)));
            imports.insert(short(path), files.filter(|file| *file != path).map(|file| short(file)).collect());
        }
        imports
    }
}

/// The circles of a graph: sets of more than one file, each of which leads to all others.
pub(crate) fn circles(imports: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reached = |from: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(file) = next.pop() {
            for to in imports.get(&file).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&String, BTreeSet<String>> = imports.keys().map(|file| (file, reached(file))).collect();
    let circle = |file: &String| -> BTreeSet<String> {
        reach[file].iter().filter(|to| reach.get(to).is_some_and(|back| back.contains(file))).cloned().collect()
    };
    let found: BTreeSet<_> = imports.keys().map(circle).filter(|circle| circle.len() > 1).collect();
    found.into_iter().collect()
}
