//! The data sets of a run: opened, labelled by one list of classes.

use std::path::{Path, PathBuf};

use crate::atomic::atomic_write;
use crate::data::{Broken, ClassMap, Dataset, FOLD, LeftOut, Looks, Summary, flip_doubt, hold_out, split_off};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::train::config::TrainConfig;
use crate::train::data_args::Checked;
use crate::train::events::Event;
use crate::train::source::Source;
use crate::train::subset;
use crate::train::zero_shot::Told;

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
    /// The sets whose results are reported.
    pub tests: Vec<TestSet>,
    /// Which class is which output.
    pub classes: ClassMap,
    /// What each image is.
    pub looks: Looks,
    /// What each of them holds: train, val, select, and the test sets.
    pub summaries: Vec<Summary>,
}

/// The file of a run directory that has the summaries.
pub const SUMMARIES: &str = "data.json";

/// A path that the user has given.
fn given(path: &PathBuf) -> Option<&PathBuf> {
    (!path.as_os_str().is_empty()).then_some(path)
}

impl Splits {
    /// Opens the paths of `config`, looks at every image, makes a zero-shot head if that is asked for, fits the model's classes to those of
    /// the training images, and tells
    /// what there is. Without `--val`, a share of the training images is set apart.
    ///
    /// # Errors
    /// [`Error::Data`] naming what can't be read or understood, or all images that can't; a class that the training images lack;
    /// training images of one class alone.
    pub fn open(gpu: &Gpu, config: &TrainConfig, source: &mut Source, events: &mut dyn FnMut(Event)) -> Result<Splits> {
        let paths = &config.splits;
        let tests = config.tests()?;
        let own = [("train", Some(&paths.train)), ("val", given(&paths.val)), ("select", paths.select.as_ref())];
        let named: Vec<(&str, &Path)> = own
            .into_iter()
            .filter_map(|(name, path)| Some((name, path?.as_path())))
            .chain(tests.iter().map(|(name, path, _)| (*name, *path)))
            .collect();
        let mut sets = named.iter().map(|(_, path)| paths.files.open(path)).collect::<Result<Vec<Dataset>>>()?;
        let multi_label = sets[0].is_multi_label();
        let mut named_sets = named.iter().zip(&sets);
        if let Some(((name, path), _)) = named_sets.find(|(_, set)| set.is_multi_label() != multi_label) {
            let (own, train) =
                if multi_label { ("one class", "any number of labels") } else { ("any number of labels", "one class") };
            let what =
                format!("the images of {name} have {own} each, those of train {train}: all splits must be alike");
            return Err(Error::data(path, what));
        }
        config.refuse_for_labels(multi_label)?;
        let Checked { looks, mut broken } =
            paths.files.check(&mut sets, &mut |done, of| events(Event::Checked { done, of }))?;
        if sets[0].items.iter().all(|item| item.label == sets[0].items[0].label) {
            let what = match multi_label {
                true => "all training images have the same labels: there is nothing to tell apart",
                false => {
                    "all training images are of one class: there is nothing to tell apart; give a folder with one folder per class"
                }
            };
            return Err(Error::data(&paths.train, what));
        }
        let file = paths.files.map()?;
        if config.zero_shot.on() {
            let classes = source.voted_classes(&sets[0], &sets, file.as_ref())?.names();
            let mut tell = |told: Told| events(told.into());
            config.zero_shot.apply(gpu, source, &config.model_args, &classes, &mut tell)?;
        }
        let classes = source.fit_classes(&sets[0], file.as_ref(), config.seed)?;
        let mut sets = sets.iter().map(|set| classes.label(set)).collect::<Result<Vec<Dataset>>>()?;
        Dataset::unite(&mut sets);
        let mut names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
        let held_out = paths.fold.map(|fold| {
            let (train, held_out) = hold_out(&sets[0], &looks, fold, paths.val_seed);
            sets[0] = train;
            sets.push(Dataset { left_out: LeftOut::default(), ..held_out });
            broken.push(Vec::new());
            names.push(FOLD);
            TestSet { name: FOLD.into(), id: Some(true), images: sets[sets.len() - 1].clone() }
        });
        if let Some(fold) = held_out.as_ref().filter(|fold| fold.images.items.is_empty()) {
            let what = format!("no class has images enough for --fold: the test set {} is empty", fold.name);
            return Err(Error::data(&paths.train, what));
        }
        if given(&paths.val).is_none() {
            let (train, val) = split_off(&sets[0], &looks, paths.val_share, paths.val_seed);
            let (share, of) = (val.items.len(), sets[0].items.len());
            if val.items.is_empty() {
                let what = "no class has two images, so that none can be set apart for validation: give --val";
                return Err(Error::data(&paths.train, what));
            }
            events(Event::Note(format!(
                "no --val: {share} of the {of} training images are set apart for validation, by class (--val-share {}, \
                 --val-seed {})",
                paths.val_share, paths.val_seed
            )));
            sets[0] = train;
            sets.insert(1, Dataset { left_out: LeftOut::default(), ..val });
            broken.insert(1, Vec::new());
            names.insert(1, "val");
        }
        let class_names = classes.names();
        let of = |((name, set), broken): ((&&str, &Dataset), &Vec<Broken>)| {
            Summary::new(name, set, &class_names, &looks, broken)
        };
        let summaries: Vec<Summary> = names.iter().zip(&sets).zip(&broken).map(of).collect();
        for (is_warning, line) in summaries.iter().flat_map(Summary::lines) {
            events(if is_warning { Event::Warning(line) } else { Event::Note(line) });
        }
        if let Some(hint) = summaries[0].hint(source.recognised.preprocess.image_size) {
            events(Event::Note(format!("{hint}: a smaller --image-size may do as well and is faster")));
        }
        let mut sets = sets.into_iter();
        let mut next = || sets.next().expect("a set for each name");
        let (train, val) = (next(), next());
        let select = paths.select.as_ref().map(|_| next());
        let test = |(name, _, id): (&str, &Path, Option<bool>)| TestSet { name: name.to_string(), id, images: next() };
        let tests = tests.into_iter().map(test).collect::<Vec<_>>().into_iter().chain(held_out).collect();
        Ok(Splits { train, val, select, tests, classes, looks, summaries })
    }

    /// How many training images a run of `config` has.
    ///
    /// # Errors
    /// As [`Splits::open`], about the training images.
    pub fn train_images(config: &TrainConfig) -> Result<usize> {
        let paths = &config.splits;
        let mut sets = [paths.files.open(&paths.train)?];
        let Checked { looks, .. } = paths.files.check(&mut sets, &mut |_, _| {})?;
        let [train] = &sets;
        let rest = paths.fold.map(|fold| hold_out(train, &looks, fold, paths.val_seed).0);
        let train = rest.as_ref().unwrap_or(train);
        Ok(match given(&paths.val) {
            Some(_) => train.items.len(),
            None => split_off(train, &looks, paths.val_share, paths.val_seed).0.items.len(),
        })
    }

    /// Writes `data.json`: what each split holds.
    ///
    /// # Errors
    /// [`Error::Io`] where the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.summaries).expect("plain values, and paths that are UTF-8");
        atomic_write(path, (text + "\n").as_bytes())
    }

    /// Sentences about what the splits are used for and what classes they have.
    pub fn notes(&self, config: &TrainConfig) -> Vec<String> {
        let shared = self.select.is_none() && config.method.val_batch().is_some();
        let shared = shared.then(|| {
            "radii are learned and the best checkpoint is chosen on the same images (val): --select gives the choice its own"
                .to_string()
        });
        let held_out = [Some(("val", &self.val)), self.select.as_ref().map(|select| ("select", select))];
        let held_out =
            held_out.into_iter().flatten().filter_map(|(name, set)| subset::lacking(name, set, &self.classes));
        let subset = config.splits.subset;
        let tests = self.tests.iter().filter_map(|t| subset::note(&t.name, &t.images, &self.classes, subset));
        let augmented = match config.method.solves() {
            true => "training images are not augmented".to_string(),
            false => config.augment.note(),
        };
        let flips = config.augment.transforms().words.flip;
        let doubt = flip_doubt(&self.classes.names()).filter(|_| flips);
        let doubt = doubt.map(|why| format!("training images are flipped: {why}; --no-flip if that matters"));
        let unequal = config.imbalance.note(&self.train, &self.classes.names());
        shared.into_iter().chain(held_out).chain(tests).chain(unequal).chain([augmented]).chain(doubt).collect()
    }
}
