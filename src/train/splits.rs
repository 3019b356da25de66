//! The data sets of a run: opened, labelled by one list of classes, and checked against each other.

use std::path::Path;

use crate::data::{ClassMap, Dataset, overlaps, same_classes};
use crate::error::{Error, Result};
use crate::train::config::TrainConfig;
use crate::train::source::Source;

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
        let open = |path: &Path| ClassMap::open_dataset(path, config.root.as_deref(), config.class_map.as_deref());
        let train = open(&config.train)?;
        let val = open(&config.val)?;
        same_classes(&train, &val)?;
        let classes = source.fit_classes(&train.classes, config.seed);
        let select = config.select.as_ref().map(|path| open(path)?.with_classes(&classes)).transpose()?;
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

    /// A warning for each pair of splits that share images, by content. Two test sets may: nothing is learned from them.
    pub fn leaks(&self) -> Result<Vec<String>> {
        let mut sets: Vec<(&str, &Dataset)> = vec![("train", &self.train), ("val", &self.val)];
        sets.extend(self.select.as_ref().map(|select| ("select", select)));
        let learned_from = sets.len();
        sets.extend(self.tests.iter().map(|t| (t.name.as_str(), &t.images)));
        let is_test = |name: &str| sets.iter().position(|(set, _)| *set == name).is_some_and(|i| i >= learned_from);
        let mut pairs: Vec<((String, String), usize, String)> = Vec::new();
        for overlap in overlaps(&sets)? {
            let pair = (overlap.first.0, overlap.second.0);
            if is_test(&pair.0) && is_test(&pair.1) {
                continue;
            }
            match pairs.iter_mut().find(|(names, ..)| *names == pair) {
                Some((_, count, _)) => *count += 1,
                None => pairs.push((pair, 1, overlap.second.1.display().to_string())),
            }
        }
        let warning = |((first, second), count, example): ((String, String), usize, String)| {
            format!(
                "{count} images of {second} are in {first} as well, such as {example}: results on {second} will flatter, \
                 remove them from one of the two"
            )
        };
        Ok(pairs.into_iter().map(warning).collect())
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
