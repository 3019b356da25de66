//! Class map files: which folder (or number) of a data set is which output of a model, and what it is called. ImageNet's
//! folders are WordNet ids, and its subsets (ImageNet-A, -R) have folders for some of the 1,000 outputs only.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use serde::Deserialize;

use super::read::text_file;
use crate::error::{Error, Result, quote};
use crate::flag::without_mark;

/// One output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// What data sets call it: a folder, or a label of a list.
    pub id: String,
    /// What people call it.
    pub name: String,
}

impl Class {
    /// Called by its id.
    pub(super) fn named(id: &str) -> Class {
        Class { id: id.into(), name: id.into() }
    }
}

/// The classes of a text file with `n01440764 tench, Tinca tinca` in each line, the outputs in the lines' order (ImageNet's
/// `LOC_synset_mapping.txt`), or of a JSON file `{"0": ["n01440764", "tench"], …}` (Keras' `imagenet_class_index.json`).
///
/// # Errors
/// [`Error::Data`] naming the line that has no name, a folder that is there twice, or an output that is missing. Two folders
/// may have one name.
pub(super) fn read(path: &Path) -> Result<Vec<Class>> {
    let text = text_file(path)?;
    let text = without_mark(&text);
    let classes = if text.trim_start().starts_with('{') { by_number(path, text)? } else { by_line(path, text)? };
    if classes.is_empty() {
        return Err(Error::data(path, "this class map is empty: give one `folder name` per line"));
    }
    let mut seen = HashSet::new();
    match classes.iter().find(|class| !seen.insert(&class.id)) {
        Some(class) => Err(Error::data(path, format!("the class {:?} is in this map twice", class.id))),
        None => Ok(classes),
    }
}

fn by_line(path: &Path, text: &str) -> Result<Vec<Class>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| match line.trim().split_once(char::is_whitespace) {
            Some((id, name)) => Ok(Class { id: id.into(), name: name.trim().into() }),
            None => {
                let line = quote(line.trim());
                Err(Error::data(path, format!("line {}: {line} has no name: give one `folder name` per line", i + 1)))
            }
        })
        .collect()
}

fn by_number(path: &Path, text: &str) -> Result<Vec<Class>> {
    #[derive(Deserialize)]
    struct Entry(String, String);
    let entries: BTreeMap<usize, Entry> = serde_json::from_str(text)
        .map_err(|e| Error::data(path, format!("not a class map ({{\"0\": [\"folder\", \"name\"], …}}): {e}")))?;
    let gap = entries.keys().enumerate().find(|(i, number)| i != *number);
    if let Some((missing, _)) = gap {
        return Err(Error::data(path, format!("output {missing} is missing: number the classes from 0 without gaps")));
    }
    Ok(entries.into_values().map(|Entry(id, name)| Class { id, name }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Result<Vec<Class>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn lines_and_json_say_the_same() {
        for text in [
            "n01 tench, Tinca tinca\nn02 cock\n\nn03 cock\n",
            r#"{"0":["n01","tench, Tinca tinca"],"2":["n03","cock"],"1":["n02","cock"]}"#,
        ] {
            let classes = map(text).unwrap();
            let ids: Vec<&str> = classes.iter().map(|c| c.id.as_str()).collect();
            let names: Vec<&str> = classes.iter().map(|c| c.name.as_str()).collect();
            assert_eq!((ids, names), (vec!["n01", "n02", "n03"], vec!["tench, Tinca tinca", "cock", "cock"]));
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| map(text).unwrap_err().to_string();
        assert!(error("n01 tench\nn02\n").contains("line 2"));
        assert!(error("n01 tench\nn01 cock\n").contains("\"n01\" is in this map twice"));
        assert!(error("\n").contains("empty"));
        assert!(error(r#"{"0":["n01","tench"],"2":["n03","junco"]}"#).contains("output 1 is missing"));
        assert!(error(r#"{"0": 3}"#).contains("not a class map"));
        let long = error(&"x".repeat(1 << 20));
        assert!(long.len() < 500, "{} characters", long.len());
    }
}
