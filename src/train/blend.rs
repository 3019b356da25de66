//! Models made of models that are there already: WiSE-FT between two checkpoints, soups of several. No training.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::Overrides;
use crate::data::ImageCache;
use crate::data::loader::CACHE_BYTES;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::method::soups::{Ingredients, Mixed, Origin, Soup};
use crate::method::{Snapshot, best, wise};
use crate::train::data_args::EvalDataArgs;
use crate::train::evaluate::{Evaluation, Predictor, evaluate};
use crate::train::model_args::ModelArgs;
use crate::train::project::anchor;
use crate::train::source::Source;

/// Labelled images on which blends of models are compared.
#[derive(Clone, Debug)]
pub struct HeldOut {
    /// The images: a folder with one folder per class, a list file or a CSV.
    pub val: PathBuf,
    /// How they are read.
    pub data: EvalDataArgs,
}

impl HeldOut {
    /// Gives the accuracy of `source`'s model with any values.
    fn evaluator<'g>(
        &self,
        gpu: &'g Gpu,
        source: &Source,
        args: &ModelArgs,
    ) -> Result<impl FnMut(&Snapshot) -> Result<Evaluation> + use<'g>> {
        let classes = source.classes_by(self.data.files.class_map.as_deref())?;
        let preprocess = args.preprocess(&source.recognised.preprocess)?;
        let images = self.data.files.open(&self.val)?.with_classes(&classes)?;
        let batch = self.data.batch_size.min(images.items.len());
        let mut model = Predictor::new(gpu, source.model(), &source.snapshot(), batch)?;
        let images: Arc<ImageCache> = ImageCache::new(images, CACHE_BYTES);
        Ok(move |values: &Snapshot| {
            model.load(values);
            evaluate(&mut model, &images, &preprocess, classes.len())
        })
    }
}

/// The anchor of `finetuned` in its own layout, with the running statistics, and the names of the tensors that have none:
/// there the anchor is the fine-tuned value, so that they stay as they are.
///
/// # Errors
/// Where the two are not the same model but for the head.
pub fn anchored(pretrained: &Source, finetuned: &Source) -> Result<(Snapshot, Vec<String>)> {
    same_function(pretrained, finetuned)?;
    let (mut w, missing) = anchor(pretrained, finetuned)?;
    let model = finetuned.model();
    let mut kept = Vec::new();
    for ((param, missing), (name, _, own)) in model.layout().params.iter().zip(missing).zip(&finetuned.weights) {
        if missing || pretrained.recognised.initialised.contains(name) {
            w[param.offset..param.offset + param.len].copy_from_slice(own);
            kept.push(name.clone());
        }
    }
    let stats = pretrained.snapshot().stats;
    if stats.len() != model.buffers().len {
        return Err(pretrained.checkpoint.error("its running statistics are not those of the fine-tuned model"));
    }
    Ok((Snapshot { w, stats, batches: 0 }, kept))
}

fn same_function(a: &Source, b: &Source) -> Result<()> {
    if a.recognised.config.computes_like(&b.recognised.config) {
        return Ok(());
    }
    Err(b.checkpoint.error(format!(
        "heads, activation, eps or pooling differ from those of {}: see tpgm inspect on both",
        a.checkpoint.path().display()
    )))
}

/// What [`wise_file`] found: each α that was tried with its figures, and the one that was taken.
#[derive(Clone, Debug)]
pub struct WiseResult {
    /// α and its figures on the held-out images; empty where there was no sweep.
    pub tried: Vec<(f32, Evaluation)>,
    /// The α that was taken.
    pub alpha: f32,
    /// Names of the tensors that have no pre-trained counterpart: they stay as they were fine-tuned.
    pub kept: Vec<String>,
}

/// Writes the model between `pretrained` and `finetuned` to `out`: at `alphas[0]` where there is one α, else at the one that
/// is most accurate on the `held_out` images.
///
/// # Errors
/// Where the checkpoints are not of the same model, the images can't be used, or several α come without images.
pub fn wise_file(
    gpu: &Gpu,
    pretrained: &Path,
    finetuned: &Path,
    alphas: &[f32],
    held_out: Option<&HeldOut>,
    args: &ModelArgs,
    out: &Path,
) -> Result<WiseResult> {
    let overrides = args.overrides();
    // What was fine-tuned has its head.
    let tuned = Source::open(finetuned, &Overrides { head: None, ..overrides.clone() })?;
    let (anchor, kept) = anchored(&Source::open(pretrained, &overrides)?, &tuned)?;
    let values = tuned.snapshot();
    let mut tried = Vec::new();
    if let Some(held_out) = held_out {
        let mut evaluate = held_out.evaluator(gpu, &tuned, args)?;
        for &alpha in alphas {
            tried.push((alpha, evaluate(&wise::snapshot(&anchor, &values, alpha))?));
        }
    }
    let scores: Vec<(f64, f64)> = tried.iter().map(|(_, e)| (e.top1, e.loss)).collect();
    let alpha = match (best(&scores), alphas) {
        (Some(i), _) => alphas[i],
        (None, &[alpha]) => alpha,
        (None, _) => return Err(Error::Usage("several values of alpha need --val to choose among them".into())),
    };
    tuned.save(out, &wise::snapshot(&anchor, &values, alpha))?;
    Ok(WiseResult { tried, alpha, kept })
}

/// Models that a soup is made of, at `paths`: of one network, with the same classes.
pub struct Models<'a> {
    paths: &'a [PathBuf],
    overrides: Overrides,
    /// The first of them, under whose names a soup is saved.
    pub first: Source,
}

impl Models<'_> {
    /// # Errors
    /// Naming a file that can't be read, or is not of the first one's model.
    pub fn open(paths: &[PathBuf], overrides: Overrides) -> Result<Models<'_>> {
        let path = paths.first().ok_or_else(|| Error::Usage("a soup needs --models".into()))?;
        let models = Models { paths, first: Source::open(path, &overrides)?, overrides };
        // What does not fit is an error before anything is computed.
        (1..paths.len()).try_for_each(|i| models.load(i).map(drop))?;
        Ok(models)
    }

    /// The values of one of them.
    pub fn load(&self, i: usize) -> Result<Snapshot> {
        let source = Source::open(&self.paths[i], &self.overrides)?;
        alike(&self.first, &source)?;
        Ok(source.snapshot())
    }

    /// The soup of all, near `pretrained` if it asks for an anchor.
    ///
    /// # Errors
    /// Where they are not of the pre-trained model, or one can't be evaluated.
    pub fn mix(
        &self,
        soup: &dyn Soup,
        pretrained: Option<&Source>,
        accuracies: &[f64],
        evaluate: &mut dyn FnMut(&Snapshot) -> Result<f64>,
    ) -> Result<Mixed> {
        let origin = pretrained.filter(|_| soup.needs_anchor()).map(|pretrained| {
            let ((values, kept), model) = (anchored(pretrained, &self.first)?, self.first.model());
            let is_new = model.layout().params.iter().map(|p| kept.contains(&p.name)).collect();
            Ok(Origin { model, values, is_new })
        });
        let (origin, load) = (origin.transpose()?, &mut |i| self.load(i));
        soup.mix(Ingredients { count: self.paths.len(), load, accuracies, evaluate, origin })
    }
}

/// Writes the `soup` of `models` to `out`. Returns their accuracies on the `held_out` images, if it asks for these, and what is in
/// it.
///
/// # Errors
/// As [`Models::open`] and [`Models::mix`], or where the images can't be used.
pub fn soup_file(
    gpu: &Gpu,
    soup: &dyn Soup,
    models: &[PathBuf],
    pretrained: Option<&Path>,
    held_out: Option<&HeldOut>,
    args: &ModelArgs,
    out: &Path,
) -> Result<(Vec<f64>, Mixed)> {
    let models = Models::open(models, args.overrides())?;
    let pretrained = pretrained.map(|path| Source::open(path, &args.overrides())).transpose()?;
    let evaluator = held_out.map(|held_out| held_out.evaluator(gpu, &models.first, args)).transpose()?;
    let mut accuracies = Vec::new();
    let mixed = match evaluator {
        Some(mut evaluate) => {
            for i in 0..models.paths.len() {
                accuracies.push(evaluate(&models.load(i)?)?.top1);
            }
            models.mix(soup, pretrained.as_ref(), &accuracies, &mut |values| Ok(evaluate(values)?.top1))?
        }
        None => models.mix(soup, pretrained.as_ref(), &[], &mut |_| unreachable!("without held-out images"))?,
    };
    models.first.save(out, &mixed.values)?;
    Ok((accuracies, mixed))
}

/// Whether the values of `other` can be averaged with those of `first`.
///
/// # Errors
/// Naming the file and the first tensor or class list that differs.
pub fn alike(first: &Source, other: &Source) -> Result<()> {
    same_function(first, other)?;
    let shape = |(name, shape, _): &(String, Vec<usize>, Vec<f32>)| (name.clone(), shape.clone());
    let tensors = |s: &Source| s.weights.iter().chain(&s.stats).map(shape).collect::<Vec<_>>();
    let (a, b) = (tensors(first), tensors(other));
    let than = first.checkpoint.path().display();
    if let Some(((name, shape), _)) = b.iter().zip(&a).find(|(b, a)| a != b) {
        return Err(other
            .checkpoint
            .error(format!("tensor {name} {shape:?} is not as in {than}: a soup is of one model")));
    }
    if a.len() != b.len() {
        return Err(other.checkpoint.error(format!("it has other tensors than {than}: a soup is of one model")));
    }
    match (&first.recognised.classes, &other.recognised.classes) {
        (Some(a), Some(b)) if a != b => {
            Err(other.checkpoint.error(format!("its classes, or their order, are not those of {than}")))
        }
        _ => Ok(()),
    }
}
