//! Where the keys of a TOML file stand, so that errors name their line.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};

/// A TOML text with the places of its keys.
#[derive(Debug)]
pub struct Lines<'a> {
    file: PathBuf,
    text: &'a str,
    root: Spanned<DeTable<'a>>,
}

/// A table of the file: the whole, `[NAME]`, or one of `[[NAME]]`.
#[derive(Clone, Copy, Debug)]
pub enum Section<'a> {
    /// The whole file.
    Root,
    /// `[NAME]`.
    Table(&'a str),
    /// The n-th `[[NAME]]`, and what errors call it.
    Item(&'a str, usize, &'a str),
}

impl<'a> Lines<'a> {
    /// Parses `text`, which stands in `file`.
    ///
    /// # Errors
    /// Naming the line that is no TOML.
    pub fn parse(file: &Path, text: &'a str) -> Result<Lines<'a>> {
        let root = DeTable::parse(text).map_err(|e| syntax(file, text, &e))?;
        Ok(Lines { file: file.into(), text, root })
    }

    /// An error about `key` of the table at `place`.
    pub fn error(&self, place: Section, key: Option<&str>, what: impl std::fmt::Display) -> Error {
        let whose = match place {
            Section::Item(kind, _, name) if !name.is_empty() => format!("{kind} {name}: "),
            _ => String::new(),
        };
        let line = 1 + self.text[..self.start(place, key).min(self.text.len())].matches('\n').count();
        let what = what.to_string();
        Error::Usage(format!(
            "{}: line {line}: {whose}{}",
            self.file.display(),
            what.lines().next().unwrap_or_default()
        ))
    }

    /// `table` as a `T`, whose fields all have defaults. An error names the line of the key that fails by itself.
    ///
    /// # Errors
    /// A key that `T` does not have, or a value of another kind.
    pub fn typed<T: DeserializeOwned>(&self, place: Section, table: &toml::Table) -> Result<T> {
        self.checked(place, table, |table| table.clone().try_into())
    }

    /// What `make` makes of `table`, of which any key may be missing. An error names the line of the key that fails by itself.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn checked<T>(
        &self,
        place: Section,
        table: &toml::Table,
        make: impl Fn(&toml::Table) -> Result<T, toml::de::Error>,
    ) -> Result<T> {
        make(table).map_err(|whole| {
            let alone =
                |key: &String, value: &toml::Value| make(&toml::Table::from_iter([(key.clone(), value.clone())])).err();
            let failing = table.iter().find_map(|(key, value)| Some((key, alone(key, value)?)));
            match failing {
                Some((key, e)) => {
                    let unknown = e.message().starts_with("unknown field");
                    let what = if unknown { e.message().to_string() } else { format!("{key}: {}", e.message()) };
                    self.error(place, Some(key), what)
                }
                None => self.error(place, None, whole.message()),
            }
        })
    }

    /// What stands behind the value of `key`, a key of the whole file, on its last line.
    pub fn rest(&self, key: &str) -> Option<&str> {
        let (_, value) = self.root.get_ref().iter().find(|(k, _)| k.get_ref() == key)?;
        self.text.get(value.span().end..)?.lines().next()
    }

    /// Where `key` of the table at `place` starts, or else the table.
    fn start(&self, place: Section, key: Option<&str>) -> usize {
        let find = |table: &DeTable<'a>, key: &str| {
            table.iter().find(|(k, _)| k.get_ref() == key).map(|(k, v)| (k.span().start, v.clone()))
        };
        let root = self.root.get_ref();
        let (start, table) = match place {
            Section::Root => (0, Some(root.clone())),
            Section::Table(name) => match find(root, name) {
                Some((start, value)) => (start, value.get_ref().as_table().cloned()),
                None => (0, None),
            },
            Section::Item(name, nth, _) => {
                let item = find(root, name).and_then(|(_, v)| match v.get_ref() {
                    DeValue::Array(items) => items.get(nth).cloned(),
                    _ => None,
                });
                match item {
                    Some(item) => (item.span().start, item.get_ref().as_table().cloned()),
                    None => (0, None),
                }
            }
        };
        // `grid.lr` is a key of a table in the table.
        let mut at = (start, table);
        for part in key.into_iter().flat_map(|key| key.split('.')) {
            match at.1.as_ref().and_then(|table| find(table, part)) {
                Some((start, value)) => at = (start, value.get_ref().as_table().cloned()),
                None => break,
            }
        }
        at.0
    }
}

/// The error about a text that is no TOML, or has another form than expected.
pub fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> Error {
    let line = 1 + error.span().map_or(0, |s| text[..s.start.min(text.len())].matches('\n').count());
    let message = error.message().lines().next().unwrap_or_default();
    Error::Usage(format!("{}: line {line}: {message}", file.display()))
}
