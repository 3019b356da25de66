//! Class names in sentences, since text towers learned from sentences.

use std::collections::HashSet;
use std::path::Path;

use crate::error::{Error, Result};
use crate::flag::without_mark;

/// What a class name takes the place of.
const PLACE: &str = "{}";

/// Sentences, each with a place for a class name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Templates(Vec<String>);

/// One plain sentence.
const SIMPLE: [&str; 1] = ["a photo of a {}."];

/// Pictures of a thing as people take and draw them.
const VARIED: [&str; 30] = [
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of one {}.",
    "a picture of my {}.",
    "a close-up of a {}.",
    "a {} seen from far away.",
    "a small {} in a large picture.",
    "a picture filled by a {}.",
    "a {} at the edge of a picture.",
    "part of a {}.",
    "a blurry photo of a {}.",
    "a sharp photo of a {}.",
    "a grainy photo of a {}.",
    "a bright photo of a {}.",
    "a dark photo of a {}.",
    "a black and white photo of a {}.",
    "a colourful picture of a {}.",
    "a good picture of a {}.",
    "a poor picture of a {}.",
    "a {} outdoors.",
    "a {} indoors.",
    "a {} on a white background.",
    "many {}.",
    "an unusual {}.",
    "a drawing of a {}.",
    "a pencil sketch of a {}.",
    "a painting of a {}.",
    "a cartoon of a {}.",
    "an icon of a {}.",
    "a sculpture of a {}.",
];

impl Templates {
    /// The set of that name, `simple` or `varied`, or else those of the file `named`, one per line; lines that are empty or begin with
    /// # count for nothing.
    ///
    /// # Errors
    /// [`Error::Usage`] where it is neither, and for a template without its place; [`Error::Io`] where the file can't be read.
    pub fn named(named: &str) -> Result<Templates> {
        match named {
            "simple" => return Self::new(SIMPLE.map(String::from).to_vec(), "simple"),
            "varied" => return Self::new(VARIED.map(String::from).to_vec(), "varied"),
            _ => {}
        }
        let path = Path::new(named);
        if !path.is_file() {
            let what = "there is no set of templates of this name, simple or varied, and no such file";
            return Err(Error::Usage(format!("{named}: {what}")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "cannot read", e))?;
        let counts = |line: &&str| !line.is_empty() && !line.starts_with('#');
        Self::new(without_mark(&text).lines().map(str::trim).filter(counts).map(String::from).collect(), named)
    }

    /// These templates, which came from `place`.
    ///
    /// # Errors
    /// [`Error::Usage`] without any template, and for one that has no place for a name.
    pub fn new(templates: Vec<String>, place: &str) -> Result<Templates> {
        match templates.iter().find(|template| !template.contains(PLACE)) {
            Some(template) => {
                let what = format!("{place}: the template {template:?} has no {PLACE}, where the class name goes");
                Err(Error::Usage(what))
            }
            None if templates.is_empty() => Err(Error::Usage(format!("{place}: there is no template"))),
            None => Ok(Templates(templates)),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// `name` in each of them.
    pub fn sentences(&self, name: &str) -> impl Iterator<Item = String> {
        self.0.iter().map(move |template| template.replace(PLACE, name))
    }
}

/// The class names in the file `path`, one per line; the last line may end or not.
///
/// # Errors
/// [`Error::Io`] where it can't be read; [`Error::Data`] as [`check_names`].
pub fn names_of(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "cannot read", e))?;
    let names: Vec<String> = without_mark(&text).lines().map(|line| line.trim().to_string()).collect();
    check_names(&names).map_err(|what| Error::data(path, what))?;
    Ok(names)
}

/// Checks that each class has a name of its own.
///
/// # Errors
/// The fault, one clause: no names, an empty one, or one that is there twice.
pub fn check_names(names: &[String]) -> Result<(), String> {
    if names.is_empty() {
        return Err("has no class names, one per line".into());
    }
    let mut seen = HashSet::new();
    for (i, name) in names.iter().enumerate() {
        if name.trim().is_empty() {
            return Err(format!("the name of class {} is empty", i + 1));
        }
        if !seen.insert(name) {
            return Err(format!("two classes are called {name:?}: give each a name of its own"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_their_places() {
        let two = Templates::new(vec!["a {}.".into(), "{} or {}".into()], "test").unwrap();
        assert_eq!(two.sentences("cat").collect::<Vec<_>>(), ["a cat.", "cat or cat"]);
        for set in ["simple", "varied"] {
            let set = Templates::named(set).unwrap();
            let sentences: HashSet<String> = set.sentences("x").collect();
            assert_eq!(sentences.len(), set.count());
        }
        assert!(Templates::new(vec!["a photo".into()], "--template").unwrap_err().to_string().contains("has no {}"));
        assert!(Templates::named("nonsense").is_err());
    }

    #[test]
    fn names_are_there_once_and_not_empty() {
        let check = |names: &[&str]| check_names(&names.iter().map(|n| n.to_string()).collect::<Vec<_>>());
        check(&["cat", "dog"]).unwrap();
        assert!(check(&[]).is_err() && check(&["cat", " "]).is_err() && check(&["cat", "cat"]).is_err());
    }
}
