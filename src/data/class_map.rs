//! A class map: which folder (or number) of a data set is which output of a model, and what it is called. ImageNet's
//! folders are WordNet ids, and its subsets (ImageNet-A, -R) have folders for some of the 1,000 outputs only.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::dataset::{Dataset, Item};
use crate::error::{Error, Result};

/// Classes in the order of a model's outputs, by the name that data sets give them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassMap {
    path: PathBuf,
    /// (name in the data set, name for people), by output.
    classes: Vec<(String, String)>,
}

impl ClassMap {
    /// Reads a map: a text file with `n01440764 tench, Tinca tinca` a line, the outputs in the lines' order (ImageNet's
    /// `LOC_synset_mapping.txt`), or a JSON file `{"0": ["n01440764", "tench"], …}` (Keras' `imagenet_class_index.json`).
    ///
    /// # Errors
    /// [`Error::Data`] naming the line that has no name, a class that stands twice, or an output that is missing.
    pub fn open(path: impl AsRef<Path>) -> Result<ClassMap> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "cannot read", e))?;
        let classes = if text.trim_start().starts_with('{') { by_number(path, &text)? } else { by_line(path, &text)? };
        if classes.is_empty() {
            return Err(Error::data(path, "this class map is empty: give `folder name` a line"));
        }
        let mut seen = HashMap::new();
        for (folder, _) in &classes {
            if seen.insert(folder, ()).is_some() {
                return Err(Error::data(path, format!("the class {folder:?} stands twice in this map")));
            }
        }
        Ok(ClassMap { path: path.into(), classes })
    }

    /// The classes' names, by output.
    pub fn names(&self) -> Vec<String> {
        self.classes.iter().map(|(_, name)| name.clone()).collect()
    }

    /// Opens a labelled data set as [`Dataset::open`] does, with the classes of the map at `map` where one is given.
    ///
    /// # Errors
    /// As [`Dataset::open`], [`ClassMap::open`] and [`ClassMap::apply`].
    pub fn open_dataset(path: &Path, root: Option<&Path>, map: Option<&Path>) -> Result<Dataset> {
        let dataset = Dataset::open(path, root)?;
        match map {
            Some(map) => ClassMap::open(map)?.apply(&dataset),
            None => Ok(dataset),
        }
    }

    /// `dataset` with this map's classes, all of them and in their order, whichever of them it has images of.
    ///
    /// # Errors
    /// [`Error::Data`] naming a class of the data set that the map lacks.
    pub fn apply(&self, dataset: &Dataset) -> Result<Dataset> {
        let index: HashMap<&str, u32> = self.classes.iter().map(|(folder, _)| folder.as_str()).zip(0..).collect();
        let labels = dataset
            .classes
            .iter()
            .map(|class| {
                index.get(class.as_str()).copied().ok_or_else(|| {
                    let what = format!("the class {class:?} of {} is not in this map", dataset.name);
                    Error::data(&self.path, what)
                })
            })
            .collect::<Result<Vec<u32>>>()?;
        let item = |item: &Item| Item { path: item.path.clone(), label: labels[item.label as usize] };
        Ok(Dataset {
            name: dataset.name.clone(),
            classes: self.names(),
            items: dataset.items.iter().map(item).collect(),
        })
    }
}

fn by_line(path: &Path, text: &str) -> Result<Vec<(String, String)>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| match line.trim().split_once(char::is_whitespace) {
            Some((folder, name)) => Ok((folder.to_string(), name.trim().to_string())),
            None => Err(Error::data(path, format!("line {}: {line:?} has no name: give `folder name` a line", i + 1))),
        })
        .collect()
}

fn by_number(path: &Path, text: &str) -> Result<Vec<(String, String)>> {
    #[derive(Deserialize)]
    struct Entry(String, String);
    let entries: BTreeMap<usize, Entry> = serde_json::from_str(text)
        .map_err(|e| Error::data(path, format!("not a class map ({{\"0\": [\"folder\", \"name\"], …}}): {e}")))?;
    let gap = entries.keys().enumerate().find(|(i, number)| i != *number);
    if let Some((missing, _)) = gap {
        return Err(Error::data(path, format!("output {missing} is missing: number the classes from 0 without gaps")));
    }
    Ok(entries.into_values().map(|Entry(folder, name)| (folder, name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(name: &str, text: &str) -> Result<ClassMap> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        ClassMap::open(path)
    }

    fn subset() -> Dataset {
        let item = |path: &str, label| Item { path: path.into(), label };
        Dataset {
            name: "imagenet-a".into(),
            classes: vec!["n01".into(), "n03".into()],
            items: vec![item("n01/a.jpg", 0), item("n03/b.jpg", 1)],
        }
    }

    #[test]
    fn a_subset_of_the_folders_keeps_the_models_outputs() {
        for text in [
            "n01 tench, Tinca tinca\nn02 cock\n\nn03 junco\n",
            r#"{"0":["n01","tench, Tinca tinca"],"2":["n03","junco"],"1":["n02","cock"]}"#,
        ] {
            let mapped = map("map", text).unwrap().apply(&subset()).unwrap();
            assert_eq!(mapped.classes, ["tench, Tinca tinca", "cock", "junco"]);
            assert_eq!(mapped.items.iter().map(|i| i.label).collect::<Vec<_>>(), [0, 2]);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| map("map.txt", text).unwrap_err().to_string();
        assert!(error("n01 tench\nn02\n").contains("line 2"));
        assert!(error("n01 tench\nn01 cock\n").contains("\"n01\" stands twice"));
        assert!(error("\n").contains("empty"));
        assert!(error(r#"{"0":["n01","tench"],"2":["n03","junco"]}"#).contains("output 1 is missing"));
        assert!(error(r#"{"0": 3}"#).contains("not a class map"));
        let lacking = map("map.txt", "n01 tench\n").unwrap().apply(&subset()).unwrap_err().to_string();
        assert!(lacking.contains("\"n03\"") && lacking.contains("imagenet-a"), "{lacking}");
    }
}
