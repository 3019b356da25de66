//! The data sets of a run: opened, labelled by one list of classes.

use std::path::Path;

use crate::data::{Dataset, same_classes};
use crate::error::{Error, Result};
use crate::train::config::TrainConfig;
use crate::train::source::Source;
use crate::train::subset;

/// A test set.
#[derive(Clone, Debug)]
pub struct TestSet {
    /// Its name in reports.
    pub name: String,
    /// Whether it is in-distribution, where that was said.
    pub id: Option<bool>,
    /// Its images.
    pub images: Dataset,
}

/// All images of a run; labels index the model's classes.
#[derive(Clone, Debug)]
pub struct Splits {
    /// What the weights learn from.
    pub train: Dataset,
    /// What the radii learn from.
    pub val: Dataset,
    /// What the best checkpoint is chosen on, where that is not `val`.
    pub select: Option<Dataset>,
    /// What is reported.
    pub tests: Vec<TestSet>,
}

impl Splits {
    /// Opens the paths of `config` and fits the model's classes to those of the training images.
    pub fn open(config: &TrainConfig, source: &mut Source) -> Result<Splits> {
        let paths = &config.splits;
        let open = |path: &Path| paths.files.open(path);
        let train = open(&paths.train)?;
        let val = open(&paths.val)?;
        same_classes(&train, &val)?;
        let classes = source.fit_classes(&train.classes, config.seed);
        let select = paths.select.as_ref().map(|path| open(path)?.with_classes(&classes)).transpose()?;
        let tests = config
            .tests()?
            .into_iter()
            .map(|(name, path, id)| {
                let images = open(path)?.with_classes(&classes)?;
                Ok(TestSet { name: name.to_string(), id, images })
            })
            .collect::<Result<_>>()?;
        Ok(Splits { train: train.with_classes(&classes)?, val: val.with_classes(&classes)?, select, tests })
    }

    /// Sentences about what the splits are used for and what classes they have.
    pub fn notes(&self, config: &TrainConfig) -> Vec<String> {
        let shared = self.select.is_none() && config.method.val_batch().is_some();
        let shared = shared.then(|| {
            "radii are learned and the best checkpoint is chosen on the same images (val): --select gives the choice its own"
                .to_string()
        });
        let subsets = self.tests.iter().filter_map(|t| subset::note(&t.name, &t.images, config.splits.subset));
        shared.into_iter().chain(subsets).collect()
    }
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
