//! Whatever gives logits: a learner, a model that only predicts, and what watches either of them.

use std::collections::HashMap;

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Program, View};
use crate::method::{Learner, Snapshot};
use crate::model::{Activations, Cut, Mode, Model, Phase, Precision};
use crate::ops::Recorder;
use crate::ops::product::Product;
use crate::train::place::Place;

/// Whatever gives logits for a batch of images.
pub trait Classifier {
    /// The most images of a batch.
    fn capacity(&self) -> usize;
    /// Logits `[batch, classes]` of `images` `[batch, 3, size, size]`.
    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>>;
    /// Where it is among ranks that evaluate images together.
    fn place(&self) -> Place;
}

impl Classifier for Learner<'_> {
    fn place(&self) -> Place {
        Place::among(self.ranks().cloned())
    }

    fn capacity(&self) -> usize {
        Learner::capacity(self)
    }

    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        Learner::logits(self, images, batch)
    }
}

/// A classifier whose answers have to be numbers: an answer that is no number has no probability and no class.
pub struct Sound<'a> {
    model: &'a mut dyn Classifier,
    images: &'a Dataset,
    seen: usize,
}

impl<'a> Sound<'a> {
    /// Of `model`, for one pass over `images` in their order.
    pub fn new(model: &'a mut dyn Classifier, images: &'a Dataset) -> Sound<'a> {
        Sound { model, images, seen: 0 }
    }
}

impl Classifier for Sound<'_> {
    fn place(&self) -> Place {
        self.model.place()
    }

    fn capacity(&self) -> usize {
        self.model.capacity()
    }

    /// # Errors
    /// [`Error::Data`] naming the first image whose logits are not all finite.
    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        let logits = self.model.logits(images, batch)?;
        let classes = logits.len() / batch.max(1);
        let bad = logits.chunks(classes.max(1)).position(|row| !row.iter().all(|logit| logit.is_finite()));
        if let Some(item) = bad.and_then(|row| self.images.items.get(self.seen + row)) {
            let what = "the model's outputs for this image are not finite numbers: its weights are damaged, or too large for \
                        the precision";
            return Err(Error::data(&item.path, what));
        }
        self.seen += batch;
        Ok(logits)
    }
}

/// A classifier that tells how far an evaluation has come.
pub struct Watched<'a> {
    model: &'a mut dyn Classifier,
    done: usize,
    of: usize,
    tell: &'a mut dyn FnMut(usize, usize),
}

impl<'a> Watched<'a> {
    /// Calls `tell` with the images done and those there are, after each batch of one pass over `images`.
    pub fn new(model: &'a mut dyn Classifier, images: &Dataset, tell: &'a mut dyn FnMut(usize, usize)) -> Watched<'a> {
        Watched { model, done: 0, of: images.items.len(), tell }
    }
}

impl Classifier for Watched<'_> {
    fn place(&self) -> Place {
        self.model.place()
    }

    fn capacity(&self) -> usize {
        self.model.capacity()
    }

    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        let logits = self.model.logits(images, batch)?;
        // The other ranks have come as far.
        self.done = (self.done + batch * self.model.place().size()).min(self.of);
        (self.tell)(self.done, self.of);
        Ok(logits)
    }
}

/// A model that only predicts: no gradient, and blocks that share their activations.
#[derive(Debug)]
pub struct Predictor<'g> {
    gpu: &'g Gpu,
    model: Model,
    w: View,
    stats: View,
    acts: Activations,
    scratch: View,
    programs: HashMap<usize, Program>,
    /// Where the head begins, and what it has read so far: if that is to be kept.
    features: Option<(Cut, Vec<f32>)>,
}

impl<'g> Predictor<'g> {
    /// Uploads `values` and plans for batches of up to `batch` images.
    pub fn new(gpu: &'g Gpu, model: Model, values: &Snapshot, batch: usize) -> Result<Predictor<'g>> {
        Self::new_in(gpu, model, values, batch, Precision::F32)
    }

    /// As [`Predictor::new`], with activations in this precision.
    ///
    /// Errors where the device has no f16, or the model has a width that its kernels can't take.
    pub fn new_in(
        gpu: &'g Gpu,
        model: Model,
        values: &Snapshot,
        batch: usize,
        precision: Precision,
    ) -> Result<Predictor<'g>> {
        model.layout().segments(gpu.limits.max_storage_buffer_binding_size)?;
        let acts = model.plan(gpu, batch, Mode::Infer, precision)?.allocate(gpu)?;
        let (w, stats) = values.upload(gpu, &model)?;
        let scratch = acts.scratch();
        if acts.casts_weights() {
            let mut r = Recorder::new(gpu, &scratch);
            acts.cast_weights(&mut r, &w)?;
            Program::run(gpu, &[], &[&r.program])?;
        }
        Ok(Predictor { gpu, model, w, stats, acts, scratch, programs: HashMap::new(), features: None })
    }

    /// From now on keeps the features that the head reads, of each image that passes: see [`Predictor::features`].
    ///
    /// # Errors
    /// [`Error::Usage`] for a model without a head, or one whose head reads more than one value.
    pub fn keep_features(&mut self) -> Result<()> {
        let Model { config, .. } = &self.model;
        let params = &self.model.layout().params;
        let cut = self.acts.cut(config, &|place| config.is_head(&params[place].name));
        let width = config.width();
        let cut = cut.filter(|cut| self.acts.crossing_values(cut) == [width]);
        let cut =
            cut.ok_or_else(|| Error::Usage("this model has no head that reads its features: use `tpgm embed`".into()))?;
        self.features = Some((cut, Vec::new()));
        Ok(())
    }

    /// The features kept so far, `[images, features]`; empty without [`Predictor::keep_features`].
    pub fn features(self) -> Vec<f32> {
        self.features.map(|(_, kept)| kept).unwrap_or_default()
    }

    /// The products of its pass that nobody has measured on this adapter.
    pub fn untuned(&self) -> Result<Vec<Product>> {
        let mut r = Recorder::new(self.gpu, &self.scratch);
        self.acts.forward(&self.model, &mut r, self.capacity(), &self.w, &self.stats, Phase::Eval)?;
        Ok(r.untuned)
    }

    /// Takes other weights and running statistics of the same model.
    pub fn load(&mut self, values: &Snapshot) {
        let expected = (self.model.layout().len, self.model.buffers().len);
        assert_eq!((values.w.len(), values.stats.len()), expected, "values are images of the model's arenas");
        self.gpu.write(&self.w, &values.w);
        self.gpu.write(&self.stats, &values.stats);
    }
}

impl Classifier for Predictor<'_> {
    fn place(&self) -> Place {
        Place::default()
    }

    fn capacity(&self) -> usize {
        self.acts.batch()
    }

    fn logits(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        if !self.programs.contains_key(&batch) {
            let mut r = Recorder::new(self.gpu, &self.scratch);
            self.acts.forward(&self.model, &mut r, batch, &self.w, &self.stats, Phase::Eval)?;
            self.programs.insert(batch, r.program);
        }
        self.gpu.write(&self.acts.images(batch), images);
        Program::run(self.gpu, &[], &[&self.programs[&batch]])?;
        if let Some((cut, kept)) = &mut self.features {
            kept.extend(self.acts.read_crossing(self.gpu, cut, batch)?);
        }
        self.gpu.read(&self.acts.logits(batch))
    }
}
