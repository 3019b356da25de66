//! What the user gave: flags on a command line, and the keys of a file. A run's own `config.toml` is such a file, in which
//! comments mark the values that were filled in.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use toml::Table;

use crate::data::Augment;
use crate::error::{Error, Result};
use crate::train::config::TrainConfig;
use crate::train::lines::{Lines, Section, syntax};
use crate::train::resolve::{KEYS, check, command, filled, merge, resolve, table};

/// The comment behind a value of `config.toml` that was filled in.
const DEFAULT: &str = "# default";

/// The flags of a run that a command line has, with the values that a file would give them. Part of a command's flags as
/// `#[command(flatten)]`.
#[derive(Debug)]
pub struct Flags(Result<Table>);

impl Flags {
    /// Of a command line, as `["--model", "m", "--steps", "3"]`.
    ///
    /// # Errors
    /// [`Error::Usage`] with the parser's first line.
    pub fn parse(words: impl IntoIterator<Item: Into<OsString> + Clone>) -> Result<Flags> {
        let matches = command().try_get_matches_from(words);
        let flags = matches.and_then(|matches| Flags::from_arg_matches(&matches)).map_err(|e| {
            let text = e.to_string();
            let line = text.lines().next().unwrap_or_default();
            Error::Usage(line.strip_prefix("error: ").unwrap_or(line).into())
        })?;
        Ok(flags)
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.0.as_ref().map_or(Vec::new(), |flags| flags.keys().cloned().collect())
    }

    /// The settings of a run: these flags over those of `file`, over the defaults.
    ///
    /// # Errors
    /// Whatever the file has wrong, with the line; [`Error::Usage`] where values are missing, out of range or contradict each
    /// other.
    pub fn resolve(self, file: Option<&FileSettings>) -> Result<TrainConfig> {
        let flags = self.0?;
        let under = file.map_or(Table::new(), |file| file.given.clone());
        resolve(&merge(under, &flags), &flags)
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        TrainConfig::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        TrainConfig::augment_args_for_update(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags, clap::Error> {
        let config = TrainConfig::from_arg_matches(matches)?;
        let flags = command();
        let given = |arg: &&Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        let given: Vec<&Arg> = flags.get_arguments().filter(given).collect();
        Ok(Flags(match table(&config) {
            Ok(mut all) => Ok(given.iter().filter_map(|arg| all.remove_entry(arg.get_long()?)).collect()),
            Err(e) => Err(unwritable(&given, matches, &e)),
        }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Flags::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The error about a flag whose value no TOML file can hold.
fn unwritable(given: &[&Arg], matches: &ArgMatches, error: &str) -> Error {
    for arg in given {
        let flag = arg.get_long().unwrap_or_default();
        for raw in matches.get_raw(arg.get_id().as_str()).into_iter().flatten() {
            match raw.to_str() {
                None => {
                    let shown = raw.to_string_lossy();
                    return Error::Usage(format!(
                        "--{flag} {shown:?}: not UTF-8, which config.toml has to be: rename it"
                    ));
                }
                Some(text) if text.parse::<u64>().is_ok_and(|number| i64::try_from(number).is_err()) => {
                    return Error::Usage(format!("--{flag} {text}: it must be at most {}", i64::MAX));
                }
                Some(_) => {}
            }
        }
    }
    Error::Usage(format!("a value that config.toml can't hold: {error}"))
}

/// What the user gave in a file.
#[derive(Clone, Debug)]
pub struct FileSettings {
    /// Its values, without those that were filled in.
    pub given: Table,
    /// Something to know about them.
    pub note: Option<String>,
}

impl FileSettings {
    /// Reads a file for `--config`. A value that is marked as a default is one only as long as it is the default of the file's
    /// other values: after an edit, or from a version with other defaults, it counts as given.
    ///
    /// # Errors
    /// [`Error::Io`] where it can't be read; [`Error::Usage`] naming a line that is no TOML, has an unknown key or a wrong value.
    pub fn read(file: &Path) -> Result<FileSettings> {
        let text = std::fs::read_to_string(file).map_err(|e| Error::io(file, "cannot read", e))?;
        let lines = Lines::parse(file, &text)?;
        let all: Table = text.parse().map_err(|e| syntax(file, &text, &e))?;
        check(&lines, Section::Root, &all)?;
        let is_marked = |key: &str| lines.rest(key).is_some_and(|rest| rest.trim() == DEFAULT);
        let (marked, mut given): (Table, Table) = all.into_iter().partition(|(key, _)| is_marked(key));
        let defaults = written(&given);
        // A run of an earlier version wrote every setting that it knew, and marked none.
        let whole = marked.is_empty() && 2 * given.len() > defaults.len();
        let note = whole.then(|| {
            let file = file.display();
            format!(
                "{file} marks no defaults: all of its values count as given, and none follows --method or --optimizer"
            )
        });
        given.extend(marked.into_iter().filter(|(key, value)| defaults.get(key) != Some(value)));
        Ok(FileSettings { given, note })
    }
}

impl FileSettings {
    /// Reads the `config.toml` of a run that goes on: what its version did without a flag for it counts as given.
    ///
    /// # Errors
    /// As [`FileSettings::read`].
    pub fn of_run(file: &Path) -> Result<FileSettings> {
        let mut settings = Self::read(file)?;
        let text = std::fs::read_to_string(file).map_err(|e| Error::io(file, "cannot read", e))?;
        let all: Table = text.parse().expect("read before");
        for (key, earlier) in EARLIER.iter().filter(|(key, _)| !all.contains_key(*key)) {
            settings.given.insert(key.to_string(), earlier(&all));
        }
        Ok(settings)
    }
}

/// The values that `config.toml` would have for `given`, which has been checked key by key.
fn written(given: &Table) -> Table {
    filled(given).map(|config| config.values().into_iter().collect()).unwrap_or_default()
}

/// What versions before a flag did, where that is not its default: the key, and its value for the settings of such a version.
type Earlier = (&'static str, fn(&Table) -> toml::Value);

/// The settings that may change when a run is resumed: how long it is, what it takes of the machine, and how often it looks and saves.
const MAY_CHANGE: [&str; 9] = [
    "early-stop",
    "epochs",
    "steps",
    "micro-batch",
    "memory-limit",
    "recompute",
    "eval-every",
    "save-every",
    "strict-splits",
];

const EARLIER: [Earlier; 1] = [("drop-last", |then| (then.get("no-shuffle") != Some(&true.into())).into())];

impl TrainConfig {
    /// The keys of `config.toml` with their values, in the order of `--help`. What sets another method is there only if the user
    /// gave it.
    ///
    /// # Panics
    /// Where a value is no TOML, which [`Flags`] and files can't give.
    fn values(&self) -> Vec<(String, toml::Value)> {
        let mut values = table(self).expect("checked when the settings were resolved");
        let wanted = KEYS.iter().filter(|key| !self.is_foreign(key));
        wanted.filter_map(|key| values.remove_entry(key.as_str())).collect()
    }

    /// The text of `config.toml`: every setting, with a mark behind those that were filled in.
    pub fn to_toml(&self) -> String {
        let line = |(key, value): (String, toml::Value)| {
            let mark = if self.given.contains(&key) { String::new() } else { format!(" {DEFAULT}") };
            let text = toml::to_string(&Table::from_iter([(key, value)])).expect("a plain value");
            format!("{}{mark}\n", text.trim_end())
        };
        self.values().into_iter().map(line).collect()
    }

    /// The first setting in which this run differs from the one with the `config.toml` of the text `then`, with both values.
    /// No difference is what has no effect in this run, and a default of a setting that `then` lacks: the version that wrote it
    /// did not have that flag; `EARLIER` has the exceptions.
    pub fn difference(&self, then: &str) -> Option<String> {
        self.differences(then).into_iter().next().map(|(_, what)| what)
    }

    /// The settings in which this run differs from the one with the `config.toml` of the text `then`, which is resumed: those that
    /// may change, each with both values.
    ///
    /// # Errors
    /// The first that may not change, with both values.
    pub fn changes(&self, then: &str) -> Result<Vec<String>, String> {
        let may = |(key, what): (String, String)| if MAY_CHANGE.contains(&key.as_str()) { Ok(what) } else { Err(what) };
        self.differences(then).into_iter().map(may).collect()
    }

    fn differences(&self, then: &str) -> Vec<(String, String)> {
        let Ok(mut then) = then.parse::<Table>() else {
            return vec![(String::new(), "its settings can't be read".into())];
        };
        for (key, earlier) in EARLIER {
            let value = earlier(&then);
            then.entry(key).or_insert(value);
        }
        // Earlier versions wrote augmentations as one word.
        if let Some(augment) = then.get_mut("augment")
            && let Ok(read) = augment.clone().try_into::<Augment>()
        {
            *augment = toml::Value::try_from(read).expect("a list of words");
        }
        let now: Table = self.values().into_iter().collect();
        // Earlier versions called the default by the figure that it stands for.
        if then.get("best-by") == Some(&"top1".into()) && now.get("best-by") == Some(&"auto".into()) {
            then.insert("best-by".into(), "auto".into());
        }
        let keys: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
        let mut keys: Vec<&String> = keys.into_iter().collect();
        // What the user asks for says more than what follows from it.
        keys.sort_by_key(|key| (!self.given.contains(*key), *key));
        let is_new = |key: &str| !then.contains_key(key) && !self.given.contains(key);
        let differs = |key: &str| then.get(key) != now.get(key) && !is_new(key) && self.idle(key).is_none();
        let value = |table: &Table, key: &str| table.get(key).map_or("unset".into(), toml::Value::to_string);
        let what =
            |key: &String| (key.clone(), format!("{key} was {}, is now {}", value(&then, key), value(&now, key)));
        keys.into_iter().filter(|key| differs(key)).map(what).collect()
    }
}
