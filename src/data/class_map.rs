//! Which class of a data set is which output of a model: the only place that puts classes in an order.
//!
//! A class is identified by its id: the name of its folder, or its label in a list. Its name is for people, and two classes
//! may share one. The order of a model's outputs comes from, in this order:
//!
//! 1. the model's own class names, to which ids are matched (through the class map file, if there is one);
//! 2. the class map file;
//! 3. the ids: if all of them are numbers of outputs, they are; other numbers sort as numbers, everything else as strings.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::class_file::{self, Class};
use super::dataset::Dataset;
use super::item::Item;
use super::label_sets::LabelSets;
use super::names::name_some;
use crate::error::{Error, Help, Result};

/// What a model says of its outputs.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a> {
    /// Its file, for errors.
    pub model: &'a Path,
    /// How many it has.
    pub count: usize,
    /// Their names, if it has any.
    pub names: Option<&'a [String]>,
}

/// The classes in the order of a model's outputs, and how that order was decided. Its text is one line with the first and the
/// last three pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassMap {
    classes: Vec<Class>,
    why: String,
    /// The class map file, if these are its classes.
    file: Option<PathBuf>,
}

impl ClassMap {
    /// Reads a class map file: one `folder name` per line, or `imagenet_class_index.json`.
    ///
    /// # Errors
    /// [`Error::Data`] naming the line or the class that is wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<ClassMap> {
        let path = path.as_ref();
        let why = format!("in the order of {}", path.display());
        Ok(ClassMap { classes: class_file::read(path)?, why, file: Some(path.into()) })
    }

    /// The classes of a model that is used as it is, on `sets` (which [`Self::label`] then labels), with what the class map
    /// `file` says.
    ///
    /// # Errors
    /// [`Error::Data`] where the file does not fit the model, lacks a class of a data set, or gives one name to several classes
    /// that the model has in another order; where the model names nothing and the ids don't tell which outputs they are.
    pub fn of_model(model: Outputs, file: Option<&ClassMap>, sets: &[&Dataset]) -> Result<ClassMap> {
        if let Some(file) = file {
            sets.iter().try_for_each(|set| file.check(set))?;
        }
        match (model.names, file) {
            (Some(names), None) => {
                let classes = names.iter().map(|name| Class::named(name)).collect();
                Ok(ClassMap { classes, why: "as the model names them".into(), file: None })
            }
            (Some(names), Some(file)) => file.translated(names, sets),
            (None, Some(file)) if file.len() == model.count => Ok(file.clone()),
            (None, Some(file)) => {
                let what = format!("this map has {} classes, the model {} outputs", file.len(), model.count);
                Err(Error::data(file.path(), what))
            }
            (None, None) => Self::of_unnamed(model, sets),
        }
    }

    /// The classes of a model that is trained on `train`, and whether its head stays: it does if its outputs are just these
    /// classes. A new head has them in the order of the class map `file`, or else of their ids.
    ///
    /// # Errors
    /// [`Error::Data`] where the file lacks a class of the training images, or these have no labels.
    pub fn for_training(model: Outputs, file: Option<&ClassMap>, train: &Dataset) -> Result<(ClassMap, bool)> {
        let base = match file {
            Some(file) => {
                file.check(train)?;
                file.clone()
            }
            None => Self::of_ids(train)?,
        };
        if model.count == base.len() {
            let Some(names) = model.names else {
                let why = format!("{}, since the model does not name its outputs", base.why);
                return Ok((ClassMap { why, ..base }, true));
            };
            if let Some(classes) = base.permuted(names) {
                return Ok((ClassMap { classes, why: "as the model names them".into(), file: base.file }, true));
            }
        }
        let why = format!("of a new head, {}", base.why);
        Ok((ClassMap { why, ..base }, false))
    }

    /// The classes of `train` alone, in the order that a new head has them.
    ///
    /// # Errors
    /// [`Error::Usage`] where it has no labels.
    pub fn of_ids(train: &Dataset) -> Result<ClassMap> {
        labelled(train)?;
        let (ids, why) = ordered(train.classes.iter().map(String::as_str));
        Ok(ClassMap { classes: ids.into_iter().map(Class::named).collect(), why, file: None })
    }

    /// The number of outputs.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether there are none; no map is made of no classes.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// The classes' names, by output.
    pub fn names(&self) -> Vec<String> {
        self.classes.iter().map(|class| class.name.clone()).collect()
    }

    /// The same images with labels that are outputs, and `classes` that are the ids of all outputs.
    ///
    /// # Errors
    /// [`Error::Data`] naming the first image of a class that is none of these, or that could be several of them;
    /// [`Error::Usage`] where the images have no labels.
    pub fn label(&self, dataset: &Dataset) -> Result<Dataset> {
        labelled(dataset)?;
        let mut index: HashMap<&str, Option<u32>> = HashMap::new();
        for (class, output) in self.classes.iter().zip(0..) {
            index.entry(&class.id).and_modify(|twice| *twice = None).or_insert(Some(output));
        }
        let outputs: Vec<Option<&Option<u32>>> = dataset.classes.iter().map(|id| index.get(id.as_str())).collect();
        let is_unclear = |class: &&u32| !matches!(outputs[**class as usize], Some(Some(_)));
        let unclear = dataset.items.iter().filter_map(|item| {
            let class = dataset.classes_of(&item.label).iter().find(is_unclear)?;
            Some((item, *class))
        });
        if let Some((item, class)) = unclear.min_by_key(|(_, class)| *class) {
            let (output, name) = (outputs[class as usize], &dataset.name);
            let class = &dataset.classes[class as usize];
            let what = match output {
                Some(_) => format!(
                    "the class {class:?} of {name:?} could be several outputs of the model, which have this name"
                ),
                None => format!(
                    "a label outside the classes: {class:?} of {name:?} is not among the {} known ({}); remove its \
                     images or rename the class",
                    self.len(),
                    name_some(self.classes.iter().map(|class| class.id.as_str()))
                ),
            };
            return Err(Error::data(&item.path, what).with_help(Help::ClassMap));
        }
        let output =
            |class: &u32| outputs[*class as usize].copied().flatten().expect("unclear labels were found above");
        let mut items = dataset.items.clone();
        let sets = match dataset.sets {
            Some(_) => {
                let own = |item: &Item| dataset.classes_of(&item.label).iter().map(output).collect();
                let (sets, labels) = LabelSets::of(items.iter().map(own));
                items.iter_mut().zip(labels).for_each(|(item, label)| item.label = label);
                Some(Arc::new(sets))
            }
            None => {
                items.iter_mut().for_each(|item| item.label = output(&item.label));
                None
            }
        };
        Ok(Dataset {
            name: dataset.name.clone(),
            classes: self.classes.iter().map(|class| class.id.clone()).collect(),
            items,
            sets,
            left_out: dataset.left_out.clone(),
        })
    }

    /// The names of the classes that a data set labelled by this map has no image of.
    pub fn lacking(&self, dataset: &Dataset) -> Vec<&str> {
        let lacking = self.classes.iter().zip(dataset.counts()).filter(|(_, images)| *images == 0);
        lacking.map(|(class, _)| class.name.as_str()).collect()
    }

    fn path(&self) -> &Path {
        self.file.as_deref().unwrap_or(Path::new("class map"))
    }

    /// Whether every class of `dataset` that has images is in this file.
    fn check(&self, dataset: &Dataset) -> Result<()> {
        let known: HashSet<&str> = self.classes.iter().map(|class| class.id.as_str()).collect();
        match used(dataset).into_iter().find(|id| !known.contains(id)) {
            None => Ok(()),
            Some(id) => {
                Err(Error::data(self.path(), format!("the class {id:?} of {} is not in this map", dataset.name)))
            }
        }
    }

    /// Which of a model's outputs, called `names`, each class could be: by name, or else by id. The same names in the same order
    /// are the same outputs, whatever is called alike.
    fn candidates(&self, names: &[String]) -> Vec<Vec<usize>> {
        if self.classes.iter().map(|class| &class.name).eq(names) {
            return (0..names.len()).map(|output| vec![output]).collect();
        }
        let mut outputs: HashMap<&str, Vec<usize>> = HashMap::new();
        names.iter().enumerate().for_each(|(output, name)| outputs.entry(name).or_default().push(output));
        let of = |name: &str| outputs.get(name).cloned().unwrap_or_default();
        let named = |class: &Class| match of(&class.name) {
            none if none.is_empty() => of(&class.id),
            some => some,
        };
        self.classes.iter().map(named).collect()
    }

    /// These classes in the order of the outputs `names`, if each is just one of them.
    fn permuted(&self, names: &[String]) -> Option<Vec<Class>> {
        let mut classes: Vec<Option<Class>> = vec![None; names.len()];
        for (class, candidates) in self.classes.iter().zip(self.candidates(names)) {
            let [output] = candidates[..] else { return None };
            if classes[output].replace(class.clone()).is_some() {
                return None;
            }
        }
        classes.into_iter().collect()
    }

    /// The outputs `names` with this file's ids.
    fn translated(&self, names: &[String], sets: &[&Dataset]) -> Result<ClassMap> {
        let mut classes: Vec<Class> = names.iter().map(|name| Class::named(name)).collect();
        let used: HashSet<&str> = sets.iter().flat_map(|set| used(set)).collect();
        let mut taken: HashMap<usize, &Class> = HashMap::new();
        for (class, candidates) in self.classes.iter().zip(self.candidates(names)) {
            let other = candidates.first().and_then(|output| taken.get(output));
            if candidates.len() > 1 || other.is_some() {
                if used.contains(class.id.as_str()) || other.is_some_and(|other| used.contains(other.id.as_str())) {
                    let what = format!(
                        "several classes have the name {:?}, and the model has its outputs in another order: which of \
                         them {:?} is can't be told",
                        class.name, class.id
                    );
                    return Err(Error::data(self.path(), what));
                }
            } else if let Some(&output) = candidates.first() {
                taken.insert(output, class);
                classes[output].id = class.id.clone();
            }
        }
        let why = format!("as the model names them, by the ids of {}", self.path().display());
        Ok(ClassMap { classes, why, file: self.file.clone() })
    }

    /// The outputs of a model without names.
    fn of_unnamed(model: Outputs, sets: &[&Dataset]) -> Result<ClassMap> {
        sets.iter().try_for_each(|set| labelled(set))?;
        let count = model.count;
        let ids: BTreeSet<&str> = sets.iter().flat_map(|set| set.classes.iter().map(String::as_str)).collect();
        let numbers: Option<HashSet<u64>> = ids.iter().map(|id| number(id)).collect();
        if numbers.is_some_and(|n| n.len() == ids.len() && n.iter().all(|n| (*n as usize) < count)) {
            let mut classes: Vec<Class> = (0..count).map(|output| Class::named(&output.to_string())).collect();
            ids.iter().for_each(|id| classes[number(id).unwrap_or(0) as usize] = Class::named(id));
            return Ok(ClassMap {
                classes,
                why: "by number, since the model does not name its outputs".into(),
                file: None,
            });
        }
        if ids.len() == count {
            let (ids, why) = ordered(ids.into_iter());
            let classes = ids.into_iter().map(Class::named).collect();
            let why = format!("{why}, since the model does not name its outputs");
            return Ok(ClassMap { classes, why, file: None });
        }
        let what = format!(
            "this model does not name its {count} outputs, and the data has {} classes ({})",
            ids.len(),
            name_some(ids.iter().copied())
        );
        Err(Error::data(model.model, what).with_help(Help::ClassMap))
    }
}

impl fmt::Display for ClassMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ENDS: usize = 3;
        let pair = |(output, class): (usize, &Class)| match class.id == class.name {
            true => format!("{output} = {}", shortened(&class.id)),
            false => format!("{output} = {} ({})", shortened(&class.id), shortened(&class.name)),
        };
        let pairs: Vec<String> = self.classes.iter().enumerate().map(pair).collect();
        let shown = match pairs.len() {
            n if n > 2 * ENDS => format!("{}, …, {}", pairs[..ENDS].join(", "), pairs[n - ENDS..].join(", ")),
            _ => pairs.join(", "),
        };
        write!(f, "{} classes {}: {shown}", self.len(), self.why)
    }
}

/// A name that leaves room for others on a line.
fn shortened(name: &str) -> String {
    const MOST: usize = 40;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.into(),
    }
}

/// Ids in the order of outputs, if nothing else decides it, and which order that is.
fn ordered<'a>(ids: impl Iterator<Item = &'a str>) -> (Vec<&'a str>, String) {
    let mut ids: Vec<&str> = ids.collect();
    ids.sort_unstable();
    if ids.iter().any(|id| number(id).is_none()) {
        return (ids, "in the order of their names".into());
    }
    let by_string = ids.clone();
    ids.sort_by_key(|id| number(id));
    let differs = ids.iter().zip(&by_string).find(|(number, string)| number != string);
    let why = match differs {
        None => "in the order of their numbers".to_string(),
        Some((number, string)) => format!("in the order of their numbers, {number} before {string}"),
    };
    (ids, why)
}

/// An id that is a number.
fn number(id: &str) -> Option<u64> {
    let digits = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    if digits { id.parse().ok() } else { None }
}

fn labelled(dataset: &Dataset) -> Result<()> {
    if !dataset.classes.is_empty() {
        return Ok(());
    }
    let what = "has no labels: give a folder with one folder per class, a list file or a CSV";
    Err(Error::Usage(format!("{} {what}", dataset.name)))
}

/// The ids of the classes that have images.
fn used(dataset: &Dataset) -> BTreeSet<&str> {
    let all = dataset.items.iter().flat_map(|item| dataset.classes_of(&item.label));
    all.filter_map(|class| Some(dataset.classes.get(*class as usize)?.as_str())).collect()
}
