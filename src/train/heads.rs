//! Two models of the same classes with their outputs in different orders: which row of one head is which row of the other.

use std::collections::HashMap;

use crate::checkpoint::Recognised;
use crate::data::name_some;
use crate::error::{Error, Result, shown};
use crate::train::source::Source;

/// How the outputs of one model lie to those of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// In the same order.
    Same,
    /// At least one of the models does not name its outputs: taken to be in the same order, one sentence.
    Assumed(String),
    /// Row `i` of the one is row `order[i]` of the other.
    Order(Vec<usize>),
    /// They are not of the same classes, one clause.
    Differ(String),
}

impl Rows {
    /// How the outputs of `other` lie to those of `one`: by the classes' names where both have them.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where the names are the same in another order, and two outputs share one.
    pub fn of(one: &Source, other: &Source) -> Result<Rows> {
        let count = |source: &Source| source.recognised.config.classes();
        let path = |source: &Source| shown(source.checkpoint.path());
        if count(one) != count(other) {
            let (has, of) = (count(other), count(one));
            return Ok(Rows::Differ(format!("{} has {has} outputs, {} {of}", path(other), path(one))));
        }
        let unnamed = |source: &&Source| source.recognised.classes.is_none() && count(source) > 0;
        let (Some(names), Some(others)) = (&one.recognised.classes, &other.recognised.classes) else {
            let unnamed: Vec<String> = [one, other].iter().filter(|s| unnamed(s)).map(|s| path(s)).collect();
            if unnamed.is_empty() {
                return Ok(Rows::Same);
            }
            let what = format!("{} does not name its outputs: taken to be in the order of", unnamed.join(" and "));
            let of = if unnamed.len() == 2 {
                "each other".into()
            } else {
                path(if unnamed[0] == path(one) { other } else { one })
            };
            return Ok(Rows::Assumed(format!("{what} {of}")));
        };
        if names == others {
            return Ok(Rows::Same);
        }
        let mut index: HashMap<&str, Vec<usize>> = HashMap::new();
        others.iter().enumerate().for_each(|(row, name)| index.entry(name).or_default().push(row));
        let lacking: Vec<&str> = names.iter().map(String::as_str).filter(|name| !index.contains_key(name)).collect();
        if !lacking.is_empty() {
            let some = name_some(lacking.iter().copied());
            return Ok(Rows::Differ(format!("{} has no output for {some} of {}", path(other), path(one))));
        }
        let rows: Vec<&Vec<usize>> = names.iter().map(|name| &index[name.as_str()]).collect();
        match rows.iter().zip(names).find(|(rows, _)| rows.len() > 1) {
            Some((_, name)) => Err(Error::checkpoint(
                other.checkpoint.path(),
                format!(
                    "several outputs are called {name:?}, and the others are not in the order of {}: which is which \
                         can't be told",
                    path(one)
                ),
            )),
            None => Ok(Rows::Order(rows.into_iter().map(|rows| rows[0]).collect())),
        }
    }

    /// What to tell the user, if anything: one sentence about the outputs of the model at `path`.
    pub fn note(&self, other: &Source) -> Option<String> {
        let path = shown(other.checkpoint.path());
        match self {
            Rows::Same => None,
            Rows::Assumed(what) => Some(what.clone()),
            Rows::Order(_) => {
                Some(format!("the outputs of {path} are in another order: its head's rows are matched by name"))
            }
            Rows::Differ(what) => Some(what.clone()),
        }
    }

    /// The values of a tensor of the head in the other's order; as they are unless the order differs.
    pub(super) fn permuted(&self, values: &[f32]) -> Vec<f32> {
        let Rows::Order(order) = self else { return values.to_vec() };
        let row = values.len() / order.len().max(1);
        order.iter().flat_map(|&from| &values[from * row..(from + 1) * row]).copied().collect()
    }
}

/// Puts the head of `other` in the order of `one`'s outputs. Returns what to tell the user, if anything.
///
/// # Errors
/// As [`Rows::of`]; [`Error::Checkpoint`] where the two are not of the same classes.
pub fn align(one: &Source, other: &mut Source) -> Result<Option<String>> {
    let rows = Rows::of(one, other)?;
    if let Rows::Differ(what) = &rows {
        return Err(other.checkpoint.error(format!("its classes are others: {what}")));
    }
    if let Rows::Order(_) = rows {
        let Recognised { config, classes, thresholds, .. } = &mut other.recognised;
        other.weights.iter_mut().filter(|(name, ..)| config.is_head(name)).for_each(|w| w.2 = rows.permuted(&w.2));
        thresholds.iter_mut().for_each(|thresholds| *thresholds = rows.permuted(thresholds));
        classes.clone_from(&one.recognised.classes);
    }
    Ok(rows.note(other))
}
