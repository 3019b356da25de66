//! A run directory, read into types: `config.toml`, `metrics.jsonl`, `evaluations.jsonl`, `radii.csv`, `drift.csv` and
//! `leaks.csv`.
//!
//! Unknown keys and columns are passed over, and so is a last line that was torn by an interrupted run; anything else
//! that can't be understood is an error with file and line.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::corrupted;
use super::evaluations::Evaluations;
use crate::error::{Error, Result};
use crate::train::run_dir::{EVALUATIONS, LEAKS};

/// What a test set is to the training data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In distribution.
    Id,
    /// Out of distribution.
    Ood,
}

/// One training step. A value that was logged as `null` (not a number) is NaN; one that was not logged is `None`.
#[derive(Clone, Debug, Default)]
pub struct TrainPoint {
    /// The step, counted over the whole run.
    pub step: u64,
    /// The epoch that the step belongs to.
    pub epoch: Option<u64>,
    /// The learning rate of this step.
    pub lr: Option<f64>,
    /// Mean loss over the training batch.
    pub train_loss: Option<f64>,
    /// Loss at the projected weights over the radius batch.
    pub radius_loss: Option<f64>,
}

/// One evaluation of one data set.
#[derive(Clone, Debug, Default)]
pub struct Eval {
    /// The step after which the model was evaluated.
    pub step: u64,
    /// The data set: `val` or a test set's name.
    pub set: String,
    /// How many images it holds.
    pub images: Option<u64>,
    /// Mean cross-entropy.
    pub loss: Option<f64>,
    /// Share of images whose first guess is right, 0 to 1.
    pub top1: Option<f64>,
    /// Share of images with the right class among the first five guesses, 0 to 1.
    pub top5: Option<f64>,
    /// Expected calibration error, 0 to 1.
    pub ece: Option<f64>,
    /// Brier score, 0 to 2.
    pub brier: Option<f64>,
    /// The temperature that was fitted for these weights, and loss and ECE at it.
    pub calibrated: Option<[f64; 3]>,
    /// Whether this belongs to the evaluation at the end of the run.
    pub is_final: bool,
    /// Which weights: `best`, `last` or `pretrained`.
    pub model: Option<String>,
    /// In or out of distribution, where the run knows.
    pub kind: Option<Kind>,
    /// Whether this is the pre-trained model, before any step.
    pub baseline: bool,
}

/// One tensor at one outer iteration.
#[derive(Clone, Copy, Debug)]
pub struct RadiusRow {
    /// The fine-tuning step.
    pub step: u64,
    /// Index into [`Radii::tensors`].
    pub tensor: usize,
    /// The radius right after the iteration's Adam step.
    pub radius: f64,
    /// The largest row norm of the drift.
    pub max_norm: f64,
    /// Rows outside the ball, which are those that give the radius a gradient.
    pub active_rows: u64,
    /// Rows of the tensor.
    pub rows: u64,
}

/// The radii over a run, in file order.
#[derive(Clone, Debug, Default)]
pub struct Radii {
    /// Tensor names in order of first appearance.
    pub tensors: Vec<String>,
    /// A row per tensor and outer iteration.
    pub rows: Vec<RadiusRow>,
}

/// How far one tensor has moved by the end of the run.
#[derive(Clone, Debug)]
pub struct DriftRow {
    /// The tensor's name.
    pub tensor: String,
    /// Its place from input to output, where the run says so.
    pub depth: Option<f64>,
    /// The largest absolute row sum of θ − θ₀.
    pub mars: f64,
    /// The L2 norm of θ − θ₀.
    pub l2: f64,
    /// Rows of the tensor.
    pub rows: u64,
}

/// An image that two splits share which should share none, from `leaks.csv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// The earlier split, and the image's path there.
    pub first: (String, String),
    /// The later one, and its path there.
    pub second: (String, String),
}

/// Everything that a run directory says about its run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The folder's name: how the page calls the run.
    pub name: String,
    /// The folder.
    pub dir: PathBuf,
    /// The resolved flags.
    pub config: toml::Table,
    /// Training steps in order.
    pub train: Vec<TrainPoint>,
    /// Evaluations in file order.
    pub evals: Vec<Eval>,
    /// The final evaluations in full; empty where the run did not write them.
    pub evaluations: Evaluations,
    /// Radii; empty for plain fine-tuning.
    pub radii: Radii,
    /// Drift at the end; empty where the run did not write it.
    pub drift: Vec<DriftRow>,
    /// Images in two splits; none where the run did not compare them.
    pub leaks: Option<Vec<Leak>>,
}

impl Run {
    /// Reads the run directory `dir`.
    ///
    /// # Errors
    /// `dir` is no folder or lacks `config.toml` or `metrics.jsonl`; a file is unreadable or malformed.
    pub fn read(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            let what = if dir.exists() { "not a folder" } else { "no such folder" };
            return Err(Error::data(dir, format!("{what}; give the --out folder of a training run")));
        }
        let missing: Vec<_> = ["config.toml", "metrics.jsonl"].into_iter().filter(|f| !dir.join(f).is_file()).collect();
        if !missing.is_empty() {
            let what = format!(
                "not a run directory: no {}; give the --out folder of a training run",
                missing.join(" and no ")
            );
            return Err(Error::data(dir, what));
        }
        let config_path = dir.join("config.toml");
        let config = text(&config_path)?
            .parse::<toml::Table>()
            .map_err(|e| Error::data(&config_path, format!("not valid TOML: {}", e.message())))?;
        let (train, evals) = metrics(&dir.join("metrics.jsonl"))?;
        let name = fs::canonicalize(dir)
            .ok()
            .and_then(|full| full.file_name().map(|n| n.to_string_lossy().into_owned()))
            .unwrap_or_else(|| dir.display().to_string());
        let (radii, drift) = (radii(&dir.join("radii.csv"))?, drift(&dir.join("drift.csv"))?);
        let path = dir.join(EVALUATIONS);
        let full = if path.is_file() { Evaluations::parse(&path, &text(&path)?)? } else { Evaluations::default() };
        let leaks = leaks(&dir.join(LEAKS))?;
        Ok(Self { name, dir: dir.into(), config, train, evals, evaluations: full, radii, drift, leaks })
    }

    /// The resolved flag `key` as text, `-` and `_` taken as the same; also found one table down.
    pub fn setting(&self, key: &str) -> Option<String> {
        let same = |k: &str| k.replace('-', "_") == key.replace('-', "_");
        let find = |table: &toml::Table| table.iter().find(|(k, v)| same(k) && !v.is_table()).map(|(_, v)| plain(v));
        find(&self.config).or_else(|| self.config.values().filter_map(toml::Value::as_table).find_map(find))
    }

    /// The resolved flags as `key`, `value` text, tables flattened to `table.key`.
    pub fn settings(&self) -> Vec<(String, String)> {
        fn walk(prefix: &str, table: &toml::Table, out: &mut Vec<(String, String)>) {
            for (key, value) in table {
                match value {
                    toml::Value::Table(inner) => walk(&format!("{prefix}{key}."), inner, out),
                    other => out.push((format!("{prefix}{key}"), plain(other))),
                }
            }
        }
        let mut out = Vec::new();
        walk("", &self.config, &mut out);
        out
    }

    /// How many training steps the log covers, whether it counts from 0 or from 1.
    pub fn steps(&self) -> u64 {
        // Outer iterations of the post-hoc recipe have lines of their own, without a training loss.
        let steps = || self.train.iter().filter(|p| p.train_loss.is_some()).map(|p| p.step);
        match (steps().min(), steps().max()) {
            (Some(0), Some(last)) => last + 1,
            (_, last) => last.unwrap_or(0),
        }
    }

    /// The best top-1 on `val` during training (the first of equals).
    pub fn best_val(&self) -> Option<&Eval> {
        let value = |e: &Eval| e.top1.filter(|t| t.is_finite());
        let mut best: Option<&Eval> = None;
        for eval in self.evals.iter().filter(|e| e.set == "val" && !e.baseline && value(e).is_some()) {
            if best.is_none_or(|b| value(eval) > value(b)) {
                best = Some(eval);
            }
        }
        best
    }
}

/// Gives runs of the same folder name their parent's too, and a number where that is not enough.
pub fn tell_apart(runs: &mut [Run]) {
    let count = |runs: &[Run]| {
        let mut counts = HashMap::new();
        for run in runs {
            *counts.entry(run.name.clone()).or_insert(0) += 1;
        }
        counts
    };
    let same = count(runs);
    for run in runs.iter_mut().filter(|r| same[&r.name] > 1) {
        let full = fs::canonicalize(&run.dir).unwrap_or_else(|_| run.dir.clone());
        if let Some(parent) = full.parent().and_then(Path::file_name) {
            run.name = format!("{}/{}", parent.to_string_lossy(), run.name);
        }
    }
    let same = count(runs);
    let mut seen = HashMap::new();
    for run in runs.iter_mut().filter(|r| same[&r.name] > 1) {
        let nth = seen.entry(run.name.clone()).and_modify(|n| *n += 1).or_insert(1);
        run.name = format!("{} ({nth})", run.name);
    }
}

fn text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|e| Error::io(path, "cannot read", e))?;
    // A write cut in the middle of a character must not cost the whole file.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(s) => s.clone(),
        toml::Value::Array(items) if items.is_empty() => "none".into(),
        toml::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn metrics(path: &Path) -> Result<(Vec<TrainPoint>, Vec<Eval>)> {
    let text = text(path)?;
    let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()).collect();
    let (mut train, mut evals): (Vec<TrainPoint>, Vec<Eval>) = (Vec::new(), Vec::new());
    let mut copies = Vec::new();
    for (at, (index, line)) in lines.iter().enumerate() {
        let fail = |what: String| Error::data(path, format!("line {}: {what}", index + 1));
        let object: Map<String, Value> = match serde_json::from_str(line) {
            Ok(object) => object,
            Err(_) if at + 1 == lines.len() => break, // the run was stopped in the middle of a write
            Err(e) => return Err(fail(format!("not a JSON object ({e}); delete the line to go on without it"))),
        };
        if object.contains_key("corruption") {
            corrupted::add(&mut copies, eval(&object).map_err(fail)?);
        } else if object.contains_key("eval") {
            evals.push(eval(&object).map_err(fail)?);
        } else {
            let point = train_point(&object).map_err(fail)?;
            // A resumed run logs some steps again: the later lines are the ones that led to the weights.
            let last = train.iter().rev().find(|p| p.train_loss.is_some()).map(|p| p.step);
            if point.train_loss.is_some() && last.is_some_and(|last| last >= point.step) {
                train.retain(|p| p.step < point.step);
            }
            train.push(point);
        }
    }
    evals.extend(copies.into_iter().map(|(mean, _)| mean));
    Ok((train, evals))
}

fn number(object: &Map<String, Value>, key: &str) -> Result<Option<f64>, String> {
    match object.get(key) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(f64::NAN)), // JSON has no NaN
        Some(value) => value.as_f64().map(Some).ok_or_else(|| format!("\"{key}\" is {value}, which is no number")),
    }
}

fn count(object: &Map<String, Value>, key: &str) -> Result<Option<u64>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| format!("\"{key}\" is {value}, which is no count")),
    }
}

fn step(object: &Map<String, Value>) -> Result<u64, String> {
    count(object, "step")?.ok_or_else(|| "no \"step\"".into())
}

fn train_point(object: &Map<String, Value>) -> Result<TrainPoint, String> {
    Ok(TrainPoint {
        step: step(object)?,
        epoch: count(object, "epoch")?,
        lr: number(object, "lr")?,
        train_loss: number(object, "train_loss")?,
        radius_loss: number(object, "radius_loss")?,
    })
}

fn eval(object: &Map<String, Value>) -> Result<Eval, String> {
    let word = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_string);
    let flag = |key: &str| object.get(key).and_then(Value::as_bool).unwrap_or(false);
    let model = word("model");
    let at_temperature = object.get("calibrated").and_then(Value::as_object);
    let calibrated = match (number(object, "temperature")?, at_temperature) {
        (Some(t), Some(at)) => Some([Some(t), number(at, "loss")?, number(at, "ece")?].map(|v| v.unwrap_or(f64::NAN))),
        _ => None,
    };
    Ok(Eval {
        step: step(object)?,
        set: word("eval").ok_or("\"eval\" is not the name of a data set")?,
        images: count(object, "images")?,
        loss: number(object, "loss")?,
        top1: number(object, "top1")?,
        top5: number(object, "top5")?,
        ece: number(object, "ece")?,
        brier: number(object, "brier")?,
        calibrated,
        is_final: flag("final"),
        baseline: flag("baseline") || model.as_deref() == Some("pretrained"),
        kind: match word("kind").as_deref() {
            Some("id") => Some(Kind::Id),
            Some("ood") => Some(Kind::Ood),
            _ => None,
        },
        model,
    })
}

/// A CSV file's rows by column name; an absent file has none.
struct Csv {
    path: PathBuf,
    columns: HashMap<String, usize>,
    records: Vec<csv::StringRecord>,
}

impl Csv {
    fn read(path: &Path, needed: &[&str]) -> Result<Self> {
        let mut table = Self { path: path.into(), columns: HashMap::new(), records: Vec::new() };
        if !path.is_file() {
            return Ok(table);
        }
        let text = text(path)?;
        // Without its line end the last row may have lost digits, which no parser would notice.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let mut reader = csv::Reader::from_reader(whole.as_bytes());
        let fail = |e: csv::Error| Error::data(path, format!("not a readable CSV file: {e}"));
        table.columns =
            reader.headers().map_err(fail)?.iter().enumerate().map(|(i, c)| (c.trim().to_string(), i)).collect();
        if let (Some(lost), false) = (needed.iter().find(|c| !table.columns.contains_key(**c)), whole.is_empty()) {
            return Err(Error::data(path, format!("no column {lost:?}; the first line must name the columns")));
        }
        table.records = reader.records().collect::<Result<_, _>>().map_err(fail)?;
        Ok(table)
    }

    fn field<'a>(&self, record: &'a csv::StringRecord, column: &str) -> Option<&'a str> {
        self.columns.get(column).and_then(|&i| record.get(i)).map(str::trim)
    }

    fn parse<T: std::str::FromStr>(&self, record: &csv::StringRecord, column: &str) -> Result<T> {
        let field = self.field(record, column).unwrap_or_default();
        field.parse().map_err(|_| {
            let line = record.position().map_or(0, csv::Position::line);
            Error::data(&self.path, format!("line {line}: {column} is {field:?}, which is no number"))
        })
    }
}

fn radii(path: &Path) -> Result<Radii> {
    let table = Csv::read(path, &["step", "tensor", "radius", "max_norm", "active_rows", "rows"])?;
    let mut radii = Radii::default();
    let mut index: HashMap<String, usize> = HashMap::new();
    for record in &table.records {
        let name = table.field(record, "tensor").unwrap_or_default();
        let tensor = match index.get(name) {
            Some(&known) => known,
            None => {
                radii.tensors.push(name.to_string());
                index.insert(name.to_string(), index.len());
                index.len() - 1
            }
        };
        radii.rows.push(RadiusRow {
            step: table.parse(record, "step")?,
            tensor,
            radius: table.parse(record, "radius")?,
            max_norm: table.parse(record, "max_norm")?,
            active_rows: table.parse(record, "active_rows")?,
            rows: table.parse(record, "rows")?,
        });
    }
    Ok(radii)
}

fn drift(path: &Path) -> Result<Vec<DriftRow>> {
    let table = Csv::read(path, &["tensor", "mars_drift", "l2_drift"])?;
    let mut rows: Vec<DriftRow> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for record in &table.records {
        let tensor = table.field(record, "tensor").unwrap_or_default().to_string();
        let row = DriftRow {
            depth: table.field(record, "depth").and_then(|d| d.parse().ok()),
            mars: table.parse(record, "mars_drift")?,
            l2: table.parse(record, "l2_drift")?,
            rows: table.field(record, "rows").and_then(|r| r.parse().ok()).unwrap_or(0),
            tensor: tensor.clone(),
        };
        // Where a tensor stands more than once, the last word counts: the end of the run.
        match index.get(&tensor) {
            Some(&at) => rows[at] = row,
            None => {
                index.insert(tensor, rows.len());
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

fn leaks(path: &Path) -> Result<Option<Vec<Leak>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let columns = ["first_split", "first_path", "second_split", "second_path"];
    let table = Csv::read(path, &columns)?;
    let leak = |record: &csv::StringRecord| {
        let [a, b, c, d] = columns.map(|name| table.field(record, name).unwrap_or_default().to_string());
        Leak { first: (a, b), second: (c, d) }
    };
    Ok(Some(table.records.iter().map(leak).collect()))
}
