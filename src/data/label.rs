//! From labels as they are written to classes: numbers or names throughout, one for each image or any number.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::columns::Columns;
use super::item::Item;
use super::label_sets::LabelSets;
use crate::error::{Error, Result, quote};

/// More classes than any data set has; a larger number is a slip that would otherwise cost gigabytes of class names.
const MAX_CLASSES: u32 = 1 << 20;

/// The label or labels that are written for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// One class.
    One(String),
    /// Any number of classes.
    Several(Vec<String>),
}

impl Label {
    /// Of a JSON value: text or a number is one class, a list of these is several; none for anything else.
    /// The label in a JSON object: in the key that `columns` names, else in the first of `keys` that is there; none where it is null
    /// or nowhere.
    ///
    /// # Errors
    /// A key that is missing, or that holds no label: the fault in words.
    pub(super) fn in_object(
        object: &serde_json::Value,
        keys: &[&str],
        columns: &Columns,
    ) -> std::result::Result<Option<Label>, String> {
        let (key, value) = match &columns.label {
            Some(key) => (key.as_str(), object.get(key).ok_or_else(|| format!("there is no `{}`", quote(key)))?),
            None => match keys.iter().find_map(|key| Some((*key, object.get(key)?))) {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        match (value, &columns.separator) {
            (serde_json::Value::Null, _) => Ok(None),
            (serde_json::Value::String(text), Some(_)) => Ok(Some(Label::Several(columns.split(text)))),
            _ => match Label::of_json(value) {
                Some(label) => Ok(Some(label)),
                None => Err(format!("`{}` is neither text nor a number, nor a list of these", quote(key))),
            },
        }
    }

    fn of_json(value: &serde_json::Value) -> Option<Label> {
        let one = |value: &serde_json::Value| match value {
            serde_json::Value::String(name) => Some(name.clone()),
            serde_json::Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        match value {
            serde_json::Value::Array(all) => all.iter().map(one).collect::<Option<_>>().map(Label::Several),
            _ => one(value).map(Label::One),
        }
    }
}

/// An image and its label as written, and where: `line 3`.
pub(super) struct Entry {
    pub(super) at: String,
    pub(super) path: PathBuf,
    pub(super) label: Label,
}

/// Labelled images.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) classes: Vec<String>,
    pub(super) items: Vec<Item>,
    /// The sets of classes that labels are places of, if images may have several.
    pub(super) sets: Option<Arc<LabelSets>>,
}

/// A word of a label, and where it is written.
struct Word<'a> {
    at: &'a str,
    text: &'a str,
}

/// The entries of `file` as items, in their order. `declared` are classes that are there whether an image has them or not.
///
/// # Errors
/// [`Error::Data`] where numbers and names, or one label and lists of labels, are mixed; where no image has any label.
pub(super) fn found(file: &Path, entries: Vec<Entry>, declared: &[String]) -> Result<Found> {
    let Some(first) = entries.first() else { return Err(Error::data(file, "there are no images in it")) };
    let is_list = |entry: &Entry| matches!(entry.label, Label::Several(_));
    if let Some(entry) = entries.iter().find(|entry| is_list(entry) != is_list(first)) {
        let [own, other] = [entry, first].map(|entry| if is_list(entry) { "a list of labels" } else { "one label" });
        let what = format!("{}: {own}, but {} has {other}: use lists throughout, or none", entry.at, first.at);
        return Err(Error::data(file, what));
    }
    let several = is_list(first);
    let words = entries.iter().flat_map(|Entry { at, label, .. }| {
        let texts = match label {
            Label::One(text) => std::slice::from_ref(text),
            Label::Several(texts) => texts.as_slice(),
        };
        texts.iter().map(move |text| Word { at, text })
    });
    let declared = declared.iter().map(|text| Word { at: "the header", text });
    let words: Vec<Word> = declared.chain(words).collect();
    if words.is_empty() {
        return Err(Error::data(file, "no image has a label: there are no classes"));
    }
    let (classes, labels) = classes_of(file, &words)?;
    // Those of the declared classes come first.
    let mut labels = labels[words.len() - entries.iter().map(|entry| count(&entry.label)).sum::<usize>()..].iter();
    let own: Vec<Vec<u32>> =
        entries.iter().map(|entry| labels.by_ref().take(count(&entry.label)).copied().collect()).collect();
    let (sets, labels) = match several {
        true => {
            let (sets, labels) = LabelSets::of(own.into_iter());
            (Some(Arc::new(sets)), labels)
        }
        false => (None, own.into_iter().flatten().collect()),
    };
    let items = entries.into_iter().zip(labels).map(|(entry, label)| Item { path: entry.path, label });
    Ok(Found { classes, items: items.collect(), sets })
}

fn count(label: &Label) -> usize {
    match label {
        Label::One(_) => 1,
        Label::Several(texts) => texts.len(),
    }
}

/// Class names, and a class for each word. The first word decides whether they are numbers or names.
fn classes_of(file: &Path, words: &[Word]) -> Result<(Vec<String>, Vec<u32>)> {
    let first = &words[0];
    let at = |word: &Word, what: String| Error::data(file, format!("{}: {what}", word.at));
    if !is_number(first.text) {
        if let Some(word) = words.iter().find(|word| is_number(word.text)) {
            let what = format!(
                "the label {:?} is a number, but {} has the name {:?}: use numbers or names throughout",
                quote(word.text),
                first.at,
                quote(first.text)
            );
            return Err(at(word, what));
        }
        let names: BTreeSet<&str> = words.iter().map(|word| word.text).collect();
        let classes: Vec<&str> = names.into_iter().collect();
        let index = |word: &Word| classes.binary_search(&word.text).expect("every label is a class") as u32;
        let labels = words.iter().map(index).collect();
        return Ok((classes.into_iter().map(str::to_owned).collect(), labels));
    }
    let mut labels = Vec::with_capacity(words.len());
    for word in words {
        if !is_number(word.text) {
            let what = format!(
                "the label {:?} is not a number, but {} has {:?}: use numbers or names throughout",
                quote(word.text),
                first.at,
                quote(first.text)
            );
            return Err(at(word, what));
        }
        match word.text.parse::<u32>() {
            Ok(label) if label < MAX_CLASSES => labels.push(label),
            _ => {
                let label = quote(word.text);
                let what = format!("the label {label} is no class number: they count from 0 to {}", MAX_CLASSES - 1);
                return Err(at(word, what));
            }
        }
    }
    let max = labels.iter().max().expect("there is a word");
    Ok(((0..=*max).map(|class| class.to_string()).collect(), labels))
}

/// Also "-1", "+2" and "1.5", which are no class numbers but surely no names either.
fn is_number(label: &str) -> bool {
    label.parse::<f64>().is_ok() && label.bytes().any(|b| b.is_ascii_digit())
}
