//! One `[[method]]` of CONFIG.toml: a method that trains, with its grid, or one that is made of another's models.

use serde::Deserialize;
use toml::{Table, Value};

use crate::compare::spec::{EntryKind, Over, Point, TestPoints, refuse, repeated};
use crate::error::Result;
use crate::method::between::{Between, alphas};
use crate::method::soups::{SOUPS, named};
use crate::train::data_args::SplitArgs;
use crate::train::lines::{Lines, Section};
use crate::train::model_args::ModelArgs;
use crate::train::resolve::{check, keys_of, merge, resolve, typed};

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct BetweenKeys {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "method")]
    _method: String,
    from: Option<String>,
    alphas: Option<Vec<f32>>,
    test_points: TestPoints,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct SoupKeys {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "method")]
    _method: String,
    from: Option<String>,
    kind: Option<String>,
    over: Option<Over>,
    every_seed: Option<bool>,
}

/// Whether `key` is a data set's: an entry that changed it would be compared on something else.
fn is_of_data(key: &str) -> bool {
    key == "model" || keys_of::<SplitArgs>().iter().any(|own| own == key)
}

/// The entry that a post-hoc one is made of: the one called `from`, or else the first that trains.
fn origin(lines: &Lines, place: Section, from: Option<&str>, names: &[String], tables: &[Table]) -> Result<usize> {
    let method = |i: usize| tables[i].get("method").and_then(Value::as_str).unwrap_or(&names[i]).to_string();
    let trains = |i: usize| !["wise", "lines", "soup"].contains(&method(i).as_str());
    let wanted = from.unwrap_or("vanilla");
    match names.iter().position(|name| name == wanted) {
        Some(i) if trains(i) => Ok(i),
        Some(_) => Err(lines.error(place, Some("from"), format!("from: {wanted} trains nothing"))),
        None => {
            let what = match from {
                Some(_) => format!("from: no method is called {wanted}"),
                None => "from is missing: which method's models are taken (there is none called vanilla)".into(),
            };
            Err(lines.error(place, Some("from"), what))
        }
    }
}

pub(super) fn between_kind(
    between: Between,
    lines: &Lines,
    place: Section,
    table: &Table,
    names: &[String],
    tables: &[Table],
) -> Result<EntryKind> {
    let keys: BetweenKeys = lines.typed(place, table)?;
    let from = origin(lines, place, keys.from.as_deref(), names, tables)?;
    let alphas = keys.alphas.unwrap_or_else(|| alphas(11));
    let bad = |what: &str| Err(lines.error(place, Some("alphas"), format!("alphas: {what}")));
    if alphas.is_empty() || alphas.iter().any(|alpha| !(0.0..=1.0).contains(alpha)) {
        return bad("give numbers from 0 (pre-trained) to 1 (fine-tuned)");
    }
    if repeated(alphas.iter()).is_some() {
        return bad("one is there twice");
    }
    Ok(EntryKind::Between { between, from, alphas, test_points: keys.test_points })
}

pub(super) fn soup_kind(
    lines: &Lines,
    place: Section,
    table: &Table,
    (entries, tables): (&[String], &[Table]),
    (seeds, folds): (&[u64], bool),
) -> Result<EntryKind> {
    let keys: SoupKeys = lines.typed(place, table)?;
    let from = origin(lines, place, keys.from.as_deref(), entries, tables)?;
    let names = || SOUPS.iter().map(|soup| soup.name()).collect::<Vec<_>>().join(", ");
    let kind = keys.kind.ok_or_else(|| lines.error(place, None, format!("kind is missing: one of {}", names())))?;
    let soup = named(&kind).map_err(|e| lines.error(place, Some("kind"), format!("kind: {e}")))?;
    let over = keys.over.unwrap_or(Over::Grid);
    if folds && over == Over::Seeds {
        let what = "over: a soup over folds can't be had, since each fold's model has learned images that the others are tested on; \
                    over = \"grid\" makes one in each fold";
        return Err(lines.error(place, Some("over"), what));
    }
    if folds && keys.every_seed == Some(false) {
        let what =
            "every-seed: with folds, a soup is made in each, as methods are tested on all of them: leave false out";
        return Err(lines.error(place, Some("every-seed"), what));
    }
    let every_seed = keys.every_seed.unwrap_or(folds);
    if every_seed && over == Over::Seeds {
        return Err(lines.error(place, Some("every-seed"), "every-seed goes with over = \"grid\""));
    }
    let origin = &entries[from];
    let grid = tables[from].get("grid").and_then(Value::as_table).cloned().unwrap_or_default();
    let count = |list: &Value| list.as_array().map_or(0, Vec::len);
    let (models, of) = match over {
        Over::Grid => (grid.values().map(count).product(), format!("{origin} has no grid of several points")),
        Over::Seeds => (seeds.len(), "there is one seed".to_string()),
    };
    if models < 2 {
        let other = if over == Over::Grid { "over = \"seeds\"" } else { "over = \"grid\"" };
        let what = format!("a soup takes two models or more, and {of}: give more, or {other}");
        return Err(lines.error(place, table.contains_key("over").then_some("over"), what));
    }
    let sees = |key: &&String| keys_of::<ModelArgs>().iter().any(|own| own == *key);
    if let (Over::Grid, Some(key)) = (over, grid.keys().find(sees)) {
        let what = format!(
            "the models of {origin} differ in {key}, so that there is no one way in which their mean sees an image: over = \"seeds\" takes \
             those of the chosen point"
        );
        return Err(lines.error(place, table.contains_key("over").then_some("over"), what));
    }
    Ok(EntryKind::Soup { from, soup, over, every_seed })
}

pub(super) fn train_kind(lines: &Lines, place: Section, table: &Table, data: &[Table]) -> Result<EntryKind> {
    refuse(lines, place, table, &["seed"])?;
    let of_data: Vec<&str> = table.keys().map(String::as_str).filter(|key| is_of_data(key)).collect();
    refuse(lines, place, table, &of_data)?;
    let mut keys = table.clone();
    let name = keys.remove("name").unwrap_or_else(|| Value::String(String::new()));
    keys.entry("method").or_insert(name);
    let grid = match keys.remove("grid") {
        None => Table::new(),
        Some(Value::Table(grid)) => grid,
        Some(_) => return Err(lines.error(place, Some("grid"), "grid: lists by key, as grid.lr = [0.1, 0.01]")),
    };
    check(lines, place, &keys)?;
    let points = points(lines, place, &grid)?;
    let configs = data.iter().map(|under| {
        let one = |point: &Point| {
            let own = merge(keys.clone(), &point.values);
            let mut given = merge(under.clone(), &own);
            given.insert("seed".into(), Value::Integer(0));
            let at = if point.label.is_empty() { String::new() } else { format!("at {}: ", point.label) };
            resolve(&given, &own).map_err(|e| lines.error(place, None, format!("{at}{e}")))
        };
        points.iter().map(one).collect::<Result<Vec<_>>>()
    });
    let configs = configs.collect::<Result<Vec<_>>>()?;
    Ok(EntryKind::Train(points, configs))
}

/// The cartesian product of the grid's lists; the last key varies fastest.
fn points(lines: &Lines, place: Section, grid: &Table) -> Result<Vec<Point>> {
    let mut points = vec![Point { label: String::new(), folder: String::new(), values: Table::new() }];
    for (key, values) in grid {
        let at = format!("grid.{key}");
        let wrong = |what: String| lines.error(place, Some(&at), format!("grid.{key}: {what}"));
        if key == "seed" || key == "method" || is_of_data(key) {
            return Err(wrong("this is no key to search over".into()));
        }
        let values = values.as_array().filter(|values| !values.is_empty());
        let values = values.ok_or_else(|| wrong("give a list of values".into()))?;
        if repeated(values.iter().map(|v| word(v).to_string())).is_some() {
            return Err(wrong("a value is there twice".into()));
        }
        for value in values {
            let alone = Table::from_iter([(key.clone(), value.clone())]);
            typed(&alone).map_err(|e| wrong(e.message().into()))?;
        }
        points = points.iter().flat_map(|point| values.iter().map(move |value| point.with(key, value))).collect();
    }
    if let Some(point) = points.first() {
        check(lines, place, &point.values)?;
    }
    match repeated(points.iter().map(|point| &point.folder)) {
        Some(folder) => {
            Err(lines.error(place, Some("grid"), format!("grid: two points would share the folder {folder}")))
        }
        None => Ok(points),
    }
}

/// A value as it reads in a table.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Float(v) if *v != 0.0 && !(1e-4..1e6).contains(&v.abs()) => format!("{v:e}"),
        Value::Float(v) => format!("{v}"),
        Value::Array(items) => items.iter().map(word).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

impl Point {
    fn with(&self, key: &str, value: &Value) -> Point {
        let text = word(value);
        let tidy = |c: char| if c.is_ascii_alphanumeric() || ".-+".contains(c) { c } else { '-' };
        let part = format!("{key}-{}", text.chars().map(tidy).collect::<String>());
        let join = |a: &str, between: &str, b: String| if a.is_empty() { b } else { format!("{a}{between}{b}") };
        let mut values = self.values.clone();
        values.insert(key.into(), value.clone());
        Point { label: join(&self.label, ", ", format!("{key} {text}")), folder: join(&self.folder, "_", part), values }
    }
}
