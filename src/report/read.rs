//! A run directory, read into types.
//!
//! Unknown keys and columns are passed over, and so is a last line that was torn by an interrupted run; anything else
//! that can't be understood is an error with file and line.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::corrupted;
use super::evaluations::Evaluations;
use crate::data::Summary;
use crate::error::{Error, Result, quote};
use crate::train::evaluate::Figure;
use crate::train::examples::{EXAMPLES, Examples};
use crate::train::json_lines::lines;
use crate::train::label_examples::{LABEL_EXAMPLES, LabelExamples};
use crate::train::preview::{SHOWN, Shown};
use crate::train::records::{DriftRow, EvaluationLine, Metric, RadiusRow, Session, ShareRow, StepLine};
use crate::train::run_dir::{ADVICE, DRIFT_OVER_TIME, EVALUATIONS, LEAKS, SESSIONS, SHARES};
use crate::train::sessions;
use crate::train::splits::SUMMARIES;

/// The radii over a run, in file order.
#[derive(Clone, Debug, Default)]
pub struct Radii {
    /// Tensor names in order of first appearance.
    pub tensors: Vec<String>,
    /// A row per tensor and outer iteration, with the index of its tensor's name.
    pub rows: Vec<(usize, RadiusRow)>,
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
    pub train: Vec<StepLine>,
    /// Evaluations in file order.
    pub evals: Vec<EvaluationLine>,
    /// The final evaluations in full; empty where the run did not write them.
    pub evaluations: Evaluations,
    /// Radii; empty for plain fine-tuning.
    pub radii: Radii,
    /// Drift at the end; empty where the run did not write it.
    pub drift: Vec<DriftRow>,
    /// Drift at each evaluation on the way; empty where the run did not write it.
    pub drift_over_time: Vec<DriftRow>,
    /// Shares of `digrap` at each evaluation; empty for other methods.
    pub shares: Vec<ShareRow>,
    /// Images in two splits; none where the run did not compare them.
    pub leaks: Option<Vec<Leak>>,
    /// What each split holds; empty where the run did not write it.
    pub data: Vec<Summary>,
    /// Training images as the model got them; empty where the run did not write them.
    pub shown: Vec<Shown>,
    /// Images with the model's answers; none where the run did not write them.
    pub examples: Option<Examples>,
    /// Images with the labels that the model gives, where they may have any number; none where the run did not write them.
    pub label_examples: Option<LabelExamples>,
    /// The processes that the run went on in; empty where the run did not write them.
    pub sessions: Vec<Session>,
    /// What to try next; none where the run did not write it, or has not come to its end.
    pub advice: Option<Vec<String>>,
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
        Ok(Self {
            name,
            dir: dir.into(),
            config,
            train,
            evals,
            evaluations: full,
            radii,
            drift,
            drift_over_time: Csv::read(&dir.join(DRIFT_OVER_TIME), &DriftRow::COLUMNS)?.rows()?,
            shares: Csv::read(&dir.join(SHARES), &ShareRow::COLUMNS)?.rows()?,
            leaks,
            data: json(&dir.join(SUMMARIES))?.unwrap_or_default(),
            shown: Shown::read(&dir.join(SHOWN))?,
            examples: Examples::read(&dir.join(EXAMPLES))?,
            label_examples: LabelExamples::read(&dir.join(LABEL_EXAMPLES))?,
            sessions: sessions::read(&dir.join(SESSIONS))?,
            advice: json(&dir.join(ADVICE))?,
        })
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

    /// The figure that its evaluations are judged by first.
    pub fn figure(&self) -> Figure {
        Figure::of(self.evals.iter().any(EvaluationLine::is_multi_label))
    }

    /// The best top-1, or mAP, on `val` during training (the first of equals).
    pub fn best_val(&self) -> Option<&EvaluationLine> {
        let value = |e: &EvaluationLine| e.main().filter(|t| t.is_finite());
        let mut best: Option<&EvaluationLine> = None;
        for eval in self.evals.iter().filter(|e| e.set == "val" && !e.is_baseline() && value(e).is_some()) {
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

fn metrics(path: &Path) -> Result<(Vec<StepLine>, Vec<EvaluationLine>)> {
    let (mut train, mut evals): (Vec<StepLine>, Vec<EvaluationLine>) = (Vec::new(), Vec::new());
    let mut copies = Vec::new();
    for line in lines(path, &text(path)?, Metric::parse)? {
        match line {
            Metric::Evaluation(e) if e.corruption.is_some() => corrupted::add(&mut copies, *e),
            Metric::Evaluation(e) => evals.push(*e),
            Metric::Placed(_) => {}
            Metric::Step(step) => {
                // A resumed run logs some steps again: the later lines are the ones that led to the weights.
                let last = train.iter().rev().find(|p| p.train_loss.is_some()).map(|p| p.step);
                if step.train_loss.is_some() && last.is_some_and(|last| last >= step.step) {
                    train.retain(|p| p.step < step.step);
                }
                train.push(step);
            }
        }
    }
    evals.extend(copies.into_iter().map(|(mean, _)| mean));
    Ok((train, evals))
}

/// A CSV file's rows by column name; an absent file has none.
struct Csv {
    path: PathBuf,
    header: csv::StringRecord,
    records: Vec<csv::StringRecord>,
}

impl Csv {
    fn read(path: &Path, needed: &[&str]) -> Result<Self> {
        let mut table = Self { path: path.into(), header: csv::StringRecord::new(), records: Vec::new() };
        if !path.is_file() {
            return Ok(table);
        }
        let text = text(path)?;
        // Without its line end the last row may have lost digits, which no parser would notice.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(whole.as_bytes());
        let fail = |e: csv::Error| Error::data(path, format!("not a readable CSV file: {e}"));
        table.header = reader.headers().map_err(fail)?.clone();
        let has = |column: &str| table.header.iter().any(|c| c == column);
        if let (Some(lost), false) = (needed.iter().find(|c| !has(c)), whole.is_empty()) {
            return Err(Error::data(path, format!("no column {lost:?}; the first line must name the columns")));
        }
        table.records = reader.records().collect::<Result<_, _>>().map_err(fail)?;
        Ok(table)
    }

    fn field<'a>(&self, record: &'a csv::StringRecord, column: &str) -> Option<&'a str> {
        record.get(self.header.iter().position(|c| c == column)?)
    }

    /// The rows as `T`, whose fields are the columns.
    fn rows<T: serde::de::DeserializeOwned>(&self) -> Result<Vec<T>> {
        let row = |record: &csv::StringRecord| {
            record.deserialize(Some(&self.header)).map_err(|e| {
                let line = record.position().map_or(0, csv::Position::line);
                let what = match e.kind() {
                    csv::ErrorKind::Deserialize { err, .. } => match err.field().map(|field| field as usize) {
                        Some(i) => {
                            let (column, value) =
                                (self.header.get(i).unwrap_or("?"), record.get(i).unwrap_or_default());
                            format!("{column} is {value:?}: {}", err.kind())
                        }
                        None => err.kind().to_string(),
                    },
                    _ => e.to_string(),
                };
                Error::data(&self.path, format!("line {line}: {what}"))
            })
        };
        self.records.iter().map(row).collect()
    }
}

fn radii(path: &Path) -> Result<Radii> {
    let mut radii = Radii::default();
    let mut index: HashMap<String, usize> = HashMap::new();
    for row in Csv::read(path, &RadiusRow::COLUMNS)?.rows::<RadiusRow>()? {
        let tensor = *index.entry(row.tensor.clone()).or_insert_with(|| {
            radii.tensors.push(row.tensor.clone());
            radii.tensors.len() - 1
        });
        radii.rows.push((tensor, row));
    }
    Ok(radii)
}

fn drift(path: &Path) -> Result<Vec<DriftRow>> {
    let mut rows: Vec<DriftRow> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for row in Csv::read(path, &DriftRow::COLUMNS)?.rows::<DriftRow>()? {
        // Where a tensor stands more than once, the last word counts: the end of the run.
        match index.get(&row.tensor) {
            Some(&at) => rows[at] = row,
            None => {
                index.insert(row.tensor.clone(), rows.len());
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

/// What the JSON file at `path` holds; none without such a file.
fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    let value = serde_json::from_str(&text(path)?);
    value.map(Some).map_err(|e| Error::data(path, format!("can't be understood: {}", quote(&e.to_string()))))
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
