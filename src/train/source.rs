//! A model on its way from a checkpoint into an arena, and back.

use std::collections::BTreeMap;
use std::path::Path;

use crate::checkpoint::{self, Checkpoint, Overrides, Recognised, Weight};
use crate::data::ClassMap;
use crate::error::{Error, Result};
use crate::method::Snapshot;
use crate::model::Model;
use crate::shapes::ParamLayout;

/// A checkpoint with its weights, ready to be uploaded.
#[derive(Debug)]
pub struct Source {
    /// The file.
    pub checkpoint: Checkpoint,
    /// What it holds.
    pub recognised: Recognised,
    /// Its weights, in layout order.
    pub weights: Vec<Weight>,
    /// Its running statistics, in the order of the model's buffers.
    pub stats: Vec<Weight>,
}

impl Source {
    /// Opens, recognises and reads `path`.
    pub fn open(path: &Path, overrides: &Overrides) -> Result<Source> {
        let checkpoint = Checkpoint::open(path)?;
        let recognised = checkpoint::recognise(&checkpoint, overrides)?;
        let weights = checkpoint::weights(&checkpoint, &recognised)?;
        let stats = checkpoint::statistics(&checkpoint, &recognised)?;
        Ok(Source { checkpoint, recognised, weights, stats })
    }

    /// The model.
    pub fn model(&self) -> Model {
        Model::new(self.recognised.config.clone())
    }

    /// The weights and running statistics as images of the model's arenas.
    pub fn snapshot(&self) -> Snapshot {
        let model = self.model();
        let pack = |layout: &ParamLayout, tensors: &[Weight]| layout.pack(tensors.iter().map(|t| t.2.as_slice()));
        Snapshot { w: pack(model.layout(), &self.weights), stats: pack(model.buffers(), &self.stats), batches: 0 }
    }

    /// Makes the model's outputs the classes `names`: as they are where the checkpoint has just these classes, else
    /// with a new head, which the notes of [`Recognised`] say aloud. Returns the classes in the model's order.
    pub fn fit_classes(&mut self, names: &[String], seed: u64) -> Vec<String> {
        let has_head = self.recognised.config.classes() > 0;
        let known = self.recognised.classes.clone();
        match known {
            Some(known) if has_head && sorted(&known) == sorted(names) => known,
            None if has_head && self.recognised.config.classes() == names.len() => {
                let (count, first) = (names.len(), &names[0]);
                let what = format!(
                    "the checkpoint does not name its {count} classes: taken in the data set's order, {first} first"
                );
                self.recognised.notes.push(what.into());
                self.recognised.classes = Some(names.to_vec());
                names.to_vec()
            }
            _ => {
                checkpoint::replace_head(&mut self.recognised, &mut self.weights, names, seed);
                names.to_vec()
            }
        }
    }

    /// The classes that the model's outputs stand for.
    ///
    /// Errors where it has no head, or one whose classes nobody named.
    pub fn classes(&self) -> Result<Vec<String>> {
        let path = self.checkpoint.path();
        if self.recognised.config.classes() == 0 {
            return Err(Error::checkpoint(path, "this model has no head: fine-tune it first (tpgm finetune)"));
        }
        self.recognised
            .classes
            .clone()
            .map_or_else(|| Ok((0..self.recognised.config.classes()).map(|c| c.to_string()).collect()), Ok)
    }

    /// As [`Source::classes`]; where the checkpoint does not name them, they are those of the class map at `map`.
    pub fn classes_by(&self, map: Option<&Path>) -> Result<Vec<String>> {
        match map {
            Some(map) if self.recognised.classes.is_none() => {
                let names = ClassMap::open(map)?.names();
                if names.len() == self.recognised.config.classes() {
                    return Ok(names);
                }
                let (has, outputs) = (names.len(), self.recognised.config.classes());
                Err(Error::data(map, format!("this map has {has} classes, the model {outputs} outputs")))
            }
            _ => self.classes(),
        }
    }

    /// Saves `values` under this checkpoint's names, types and metadata.
    pub fn save(&self, path: &Path, values: &Snapshot) -> Result<()> {
        let model = self.model();
        let tensors = model.layout().unpack(&values.w).chain(model.buffers().unpack(&values.stats));
        let tensors: Vec<Weight> =
            tensors.map(|(p, values)| (p.name.clone(), p.shape.clone(), values.to_vec())).collect();
        let replaced: BTreeMap<_, _> = checkpoint::replacements(&self.recognised, &tensors);
        let counters = (self.recognised.counters.as_slice(), values.batches);
        let metadata = checkpoint::tpgm_metadata(&self.recognised);
        checkpoint::save_counted(path, &self.checkpoint, &replaced, counters, &metadata)
    }
}

fn sorted(names: &[String]) -> Vec<&String> {
    let mut names: Vec<&String> = names.iter().collect();
    names.sort();
    names
}
