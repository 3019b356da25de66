//! Flags about images: where their files are, what their classes are called, and which images a run uses for what.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::data::{Broken, Check, ClassMap, Columns, Dataset, Fold, Looks, exists};
use crate::error::{Error, Result, shown};
use crate::flag::in_range;
use crate::gpu::cache::cache_dir;
use crate::train::tta::TtaArgs;

/// How every command reads a labelled data set.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DataArgs {
    /// Folder that the paths of list files, CSVs and Parquet files are relative to [default: the file's own]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Which folder is which output of the model: one `folder name` per line, or imagenet_class_index.json
    #[arg(long, value_name = "FILE")]
    pub class_map: Option<PathBuf>,
    /// The column of a Parquet file that has the images [default: the only one that can]
    #[arg(long, value_name = "NAME")]
    pub image_column: Option<String>,
    /// The column of a table that has the labels [default: label, or labels; of a Parquet file the only one with classes]
    #[arg(long, value_name = "NAME")]
    pub label_column: Option<String>,
    /// What stands between the labels of an image in that column, which may then have any number; ' ' for blanks [default: in a column
    /// labels, ; or |]
    #[arg(long, value_name = "TEXT")]
    pub label_separator: Option<String>,
    /// Leave out images that can't be read, instead of stopping before any work
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", default_value_t = false,
        action = clap::ArgAction::Set)]
    pub skip_broken: bool,
}

/// Looks at all images of `sets`, of which `progress` is told how many are done. Those that can't be read are an error, or are left
/// out with `skip_broken`.
///
/// # Errors
/// [`Error::Data`] naming all images that can't be read; or the data set, if none of its images can.
pub fn check(sets: &mut [Dataset], skip_broken: bool, progress: &mut dyn FnMut(usize, usize)) -> Result<Checked> {
    let all: Vec<&Dataset> = sets.iter().collect();
    let looks = Check::new(cache_dir()).run(&all, progress);
    if !skip_broken {
        looks.refuse_broken(&all)?;
    }
    let broken: Vec<Vec<Broken>> = sets.iter().map(|set| looks.broken(set)).collect();
    for (set, broken) in sets.iter_mut().zip(&broken).filter(|(_, broken)| !broken.is_empty()) {
        *set = looks.whole(set);
        if set.items.is_empty() {
            return Err(Error::data(
                &broken[0].path,
                format!("no image of {} can be read: {}", set.name, broken[0].why),
            ));
        }
    }
    Ok(Checked { looks, broken })
}

/// What a look at all images of some data sets found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// What each image is.
    pub looks: Looks,
    /// The images of each set that were left out.
    pub broken: Vec<Vec<Broken>>,
}

impl DataArgs {
    /// Opens the labelled data set at `path`, whose labels are its own until a [`ClassMap`] makes them a model's.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open(&self, path: &Path) -> Result<Dataset> {
        Dataset::open_as(path, self.root.as_deref(), &self.columns()?)
    }

    /// The images at `path`, with their labels if they have any.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_any(&self, path: &Path) -> Result<Dataset> {
        if Dataset::has_labels(path, &self.columns()?)? { self.open(path) } else { self.unlabelled(path) }
    }

    /// The images at `path`, whose labels play no part.
    ///
    /// # Errors
    /// As [`Dataset::unlabelled`].
    pub fn unlabelled(&self, path: &Path) -> Result<Dataset> {
        Dataset::unlabelled_as(path, self.root.as_deref(), &self.columns()?)
    }

    fn columns(&self) -> Result<Columns> {
        let (image, label) = (self.image_column.clone(), self.label_column.clone());
        let separator = self.label_separator.clone();
        match separator.as_deref() {
            Some("") => Err(Error::Usage("--label-separator must not be empty".into())),
            _ => Ok(Columns { image, label, separator }),
        }
    }

    /// [`check()`] with this group's flag.
    ///
    /// # Errors
    /// As [`check()`].
    pub fn check(&self, sets: &mut [Dataset], progress: &mut dyn FnMut(usize, usize)) -> Result<Checked> {
        check(sets, self.skip_broken, progress)
    }

    /// The class map file, if one is given.
    ///
    /// # Errors
    /// As [`ClassMap::open`].
    pub fn map(&self) -> Result<Option<ClassMap>> {
        self.class_map.as_deref().map(ClassMap::open).transpose()
    }
}

/// How a command reads images that it only evaluates.
#[derive(Args, Clone, Debug)]
pub struct EvalDataArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub files: DataArgs,
    /// Images that pass through the adapter at once
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub batch_size: usize,
}

impl EvalDataArgs {
    /// # Errors
    /// [`Error::Usage`] for a batch of no images.
    pub fn validate(&self) -> Result<()> {
        match self.batch_size {
            0 => Err(Error::Usage("--batch-size must be greater than 0".into())),
            _ => Ok(()),
        }
    }
}

/// What a training run uses each data set for.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SplitArgs {
    /// A folder with the splits: its folder train is the default of --train, val (or valid, or validation) of --val, and test of
    /// --test; or data/train-*.parquet and so on
    #[arg(long, value_name = "ROOT")]
    pub data: Option<PathBuf>,
    /// Training images: a folder with one folder per class, a list file (one `path label` per line), a CSV (path,label), an archive
    /// (.tar, .tar.gz, .zip), a folder with metadata.csv or metadata.jsonl, WebDataset's shards, or Parquet files
    #[arg(long, value_name = "PATH", value_parser = path, default_value = "", hide_default_value = true)]
    pub train: PathBuf,
    /// Validation images: what the radii are learned on [default: a share of the training images, set apart]
    #[arg(long, value_name = "PATH", value_parser = path, default_value = "", hide_default_value = true)]
    pub val: PathBuf,
    /// Without --val: the share of each class's training images that is set apart for validation
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    pub val_share: f64,
    /// Without --val: decides which images are set apart, whatever --seed is
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub val_seed: u64,
    /// Hold out the K-th of N parts of the training images as the in-distribution test set fold: of each class alike, by --val-seed.
    /// `compare --folds N` gives each run its own
    #[arg(long, value_name = "K/N")]
    pub fold: Option<Fold>,
    /// Images on which the best checkpoint is chosen [default: those of --val]
    #[arg(long, value_name = "PATH")]
    pub select: Option<PathBuf>,
    /// A test set to report, NAME=PATH; may be given several times
    #[arg(long, value_name = "NAME=PATH", num_args = 1..)]
    pub test: Vec<String>,
    /// Names of the test sets that are in-distribution; the others then count as out-of-distribution
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub id: Vec<String>,
    /// Corrupted copies of the in-distribution test sets as further OOD sets: KIND, KIND:SEVERITY or KIND:A..B, or all
    #[arg(long, value_name = "KIND[:SEVERITY]", num_args = 1..)]
    pub corrupt: Vec<String>,
    /// On each test set, let the model answer only with classes that the set has images of (ImageNet-A, -R)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL", default_value_t = false,
        action = clap::ArgAction::Set)]
    pub subset: bool,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub views: TtaArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub files: DataArgs,
}

impl SplitArgs {
    /// The defaults that follow from `--data`, by their keys.
    pub(super) fn following(&self) -> Table {
        let Some(root) = &self.data else { return Table::new() };
        // Hugging Face's data sets have the splits' shards in one folder.
        let shards =
            |name: &str| [root.join("data"), root.clone()].map(|folder| folder.join(format!("{name}-*.parquet")));
        let places = |name: &&str| [vec![root.join(name)], shards(name).into()].concat();
        let first = |names: &[&str]| names.iter().flat_map(places).find(|path| exists(path));
        let text = |path: PathBuf| path.to_str().map(String::from);
        let mut out = Table::new();
        for (key, names) in [("train", &["train"][..]), ("val", &["val", "valid", "validation"])] {
            out.extend(first(names).and_then(text).map(|path| (key.to_string(), path.into())));
        }
        let test = first(&["test"]).and_then(text);
        out.extend(test.map(|path| ("test".to_string(), vec![format!("test={path}")].into())));
        out
    }

    /// # Errors
    /// [`Error::Usage`] without training images.
    pub(super) fn validate(&self) -> Result<()> {
        in_range("val-share", self.val_share, |share| share > 0.0 && share < 1.0, "above 0 and below 1")?;
        match (&self.data, self.train.as_os_str().is_empty()) {
            (Some(root), true) => Err(Error::Usage(format!(
                "--data {}: there is no folder train in it; if it has one folder per class, give it as --train",
                shown(root)
            ))),
            (None, true) => {
                Err(Error::Usage("--train is missing: give it, or --data, as a flag or in --config".into()))
            }
            (_, false) => Ok(()),
        }
    }
}

/// A path that a file of settings can hold, so UTF-8; empty if the user has not given it yet.
pub(super) fn path(text: &str) -> Result<PathBuf, Infallible> {
    Ok(text.into())
}

/// `NAME=PATH` arguments taken apart; names are not repeated.
pub fn named_paths(arguments: &[String]) -> Result<Vec<(&str, &Path)>> {
    let mut named: Vec<(&str, &Path)> = Vec::new();
    for argument in arguments {
        let (name, path) =
            argument.split_once('=').filter(|(n, p)| !n.is_empty() && !p.is_empty()).ok_or_else(|| {
                Error::Usage(format!("'{argument}': a data set is given as NAME=PATH, such as sketch=data/sketch"))
            })?;
        if named.iter().any(|(other, _)| *other == name) {
            return Err(Error::Usage(format!("two data sets are called {name}")));
        }
        named.push((name, Path::new(path)));
    }
    Ok(named)
}
