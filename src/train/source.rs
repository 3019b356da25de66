//! A model on its way from a checkpoint into an arena, and back.

use std::collections::BTreeMap;
use std::path::Path;

use crate::checkpoint::{self, Checkpoint, Overrides, Recognised, Weight};
use crate::data::{ClassMap, Dataset, Outputs};
use crate::error::{Error, Result};
use crate::method::Snapshot;
use crate::model::Model;
use crate::shapes::ParamLayout;
use crate::train::labels::THRESHOLD;

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
        let mut recognised = checkpoint::recognise(&checkpoint, overrides)?;
        if let Some(doubt) = recognised.preprocess.doubt() {
            recognised.notes.push(format!("warning: the checkpoint's {doubt}").into());
        }
        let weights = checkpoint::weights(&checkpoint, &recognised)?;
        let stats = checkpoint::statistics(&checkpoint, &recognised)?;
        Ok(Source { checkpoint, recognised, weights, stats })
    }

    /// The same without a head: what comes out is the features that would enter it.
    pub fn without_head(mut self) -> Source {
        let Recognised { config, classes, .. } = &mut self.recognised;
        self.weights.retain(|(name, ..)| !config.is_head(name));
        config.set_classes(0);
        *classes = None;
        checkpoint::forget_task(&mut self.recognised);
        self
    }

    /// Whether its head is new, without a pre-trained counterpart.
    pub fn has_new_head(&self) -> bool {
        let Recognised { config, initialised, .. } = &self.recognised;
        initialised.iter().any(|name| config.is_head(name))
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

    /// What it says of its outputs.
    fn outputs(&self) -> Outputs<'_> {
        let Recognised { config, classes, .. } = &self.recognised;
        Outputs { model: self.checkpoint.path(), count: config.classes(), names: classes.as_deref() }
    }

    /// Makes the model's outputs the classes of `train`, or those of the class map `file`: as they are if the checkpoint has just
    /// these classes, else with a new head, which a note of [`Recognised`] reports.
    ///
    /// # Errors
    /// As [`ClassMap::for_training`]; [`Error::Checkpoint`] where the head of `--head` has other classes.
    pub fn fit_classes(&mut self, train: &Dataset, file: Option<&ClassMap>, seed: u64) -> Result<ClassMap> {
        let (classes, keeps_head) = ClassMap::for_training(self.outputs(), file, train)?;
        let names = classes.names();
        if keeps_head && self.recognised.thresholds.is_some() {
            self.refuse_other_task(train)?;
        }
        if !keeps_head {
            if let Some(head) = &self.recognised.head_file {
                let (own, of) = (head.classes, classes.len());
                let named = if head.names.is_some() { "names " } else { "has " };
                let what = format!(
                    "this head {named}other classes ({own}) than {} ({of}): give a head for these, or none",
                    train.name
                );
                return Err(Error::checkpoint(&head.path, what));
            }
            checkpoint::replace_head(&mut self.recognised, &mut self.weights, &names, seed);
        }
        if train.is_multi_label() {
            self.recognised.thresholds.get_or_insert_with(|| vec![THRESHOLD; classes.len()]);
        }
        // Names that the outputs have already stay theirs, by which others know them.
        self.recognised.classes.get_or_insert(names);
        self.recognised.notes.push(classes.to_string().into());
        Ok(classes)
    }

    /// The names of the model's outputs; their numbers, if nobody named them.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where it has no head.
    pub fn classes(&self) -> Result<Vec<String>> {
        Ok(self.class_map(None, &[])?.names())
    }

    /// The classes that the model's outputs stand for, with what the class map `file` says and with the ids of `sets`.
    ///
    /// # Errors
    /// As [`ClassMap::of_model`]; [`Error::Checkpoint`] where it has no head.
    pub fn class_map(&self, file: Option<&ClassMap>, sets: &[&Dataset]) -> Result<ClassMap> {
        if self.recognised.config.classes() == 0 {
            return Err(self
                .checkpoint
                .error("this model has no head: fine-tune it (tpgm finetune), or take its features (tpgm embed)"));
        }
        sets.iter().try_for_each(|set| self.refuse_other_task(set))?;
        ClassMap::of_model(self.outputs(), file, sets)
    }

    /// # Errors
    /// [`Error::Checkpoint`] where images may have any number of labels and the model gives one, or the other way round.
    fn refuse_other_task(&self, images: &Dataset) -> Result<()> {
        let gives = match (self.recognised.thresholds.is_some(), images.is_multi_label()) {
            (true, false) => "this model gives an image any number of labels, and the images of",
            (false, true) => "this model gives an image one class, and the images of",
            _ => return Ok(()),
        };
        let have = if images.is_multi_label() { "may have any number" } else { "have one each" };
        Err(self.checkpoint.error(format!("{gives} {} {have}: give data, or a model, of the same kind", images.name)))
    }

    /// The classes that the images of `train` vote for, whatever the model's outputs are; `sets` are to be answered with one of them.
    ///
    /// # Errors
    /// As [`ClassMap::for_training`]; [`Error::Usage`] where images may have any number of labels.
    pub fn voted_classes(&self, train: &Dataset, sets: &[Dataset], file: Option<&ClassMap>) -> Result<ClassMap> {
        if let Some(set) = sets.iter().chain([train]).find(|set| set.is_multi_label()) {
            let what = "has images with any number of labels: --zero-shot and --knn answer with one class";
            return Err(Error::Usage(format!("{} {what}", set.name)));
        }
        match file {
            Some(_) => {
                let outputs = Outputs { model: self.checkpoint.path(), count: 0, names: None };
                Ok(ClassMap::for_training(outputs, file, train)?.0)
            }
            None => ClassMap::of_ids(train),
        }
    }

    /// Saves `values` under this checkpoint's names, types and metadata.
    pub fn save(&self, path: &Path, values: &Snapshot) -> Result<()> {
        self.save_with(path, values, None)
    }

    /// [`Self::save`] with other `thresholds` of the labels than its own, if it is a multi-label model.
    pub fn save_with(&self, path: &Path, values: &Snapshot, thresholds: Option<&[f32]>) -> Result<()> {
        let model = self.model();
        let tensors = model.layout().unpack(&values.w).chain(model.buffers().unpack(&values.stats));
        let tensors: Vec<Weight> =
            tensors.map(|(p, values)| (p.name.clone(), p.shape.clone(), values.to_vec())).collect();
        let replaced: BTreeMap<_, _> = checkpoint::replacements(&self.recognised, &tensors);
        let counters = (self.recognised.counters.as_slice(), values.batches);
        let mut metadata = checkpoint::tpgm_metadata(&self.recognised);
        let own = self.recognised.thresholds.as_deref();
        metadata.extend(checkpoint::task_metadata(&self.checkpoint, own.map(|own| thresholds.unwrap_or(own))));
        checkpoint::save_counted(path, &self.checkpoint, &replaced, counters, &metadata)
    }
}
