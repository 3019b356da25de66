//! Models made of models that are there already: WiSE-FT or LiNeS between two checkpoints, soups of several. No training.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::Overrides;
use crate::data::loader::CACHE_BYTES;
use crate::data::{Dataset, ImageCache, Summary};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::method::soups::{Ingredients, Mixed, Origin, Soup};
use crate::method::{Between, Snapshot, best};
use crate::train::calibration::Logits;
use crate::train::data_args::{Checked, EvalDataArgs};
use crate::train::evaluate::{Evaluation, Figure, Predictor, Watched, evaluate_to_fit};
use crate::train::heads::align;
use crate::train::help;
use crate::train::labels::THRESHOLD;
use crate::train::model_args::ModelArgs;
use crate::train::project::anchor;
use crate::train::source::Source;
use crate::train::subset;

/// Labelled images on which blends of models are compared.
#[derive(Clone, Debug)]
pub struct HeldOut {
    images: Dataset,
    checked: Checked,
    /// How they are read.
    data: EvalDataArgs,
}

impl HeldOut {
    /// Opens the images at `val`, which `progress` follows: a folder with one folder per class, a list file or a CSV.
    ///
    /// # Errors
    /// As [`crate::train::data_args::DataArgs::open`] and [`crate::train::data_args::check`].
    pub fn open(val: &Path, data: EvalDataArgs, progress: &mut dyn FnMut(usize, usize)) -> Result<HeldOut> {
        let mut sets = [data.files.open(val)?];
        let checked = data.files.check(&mut sets, progress)?;
        let [images] = sets;
        Ok(HeldOut { images, checked, data })
    }

    /// The figure that models are compared by.
    pub fn figure(&self) -> Figure {
        Figure::of(self.images.is_multi_label())
    }

    /// Gives the figures and the logits of `source`'s model with any values; `progress` follows each evaluation.
    fn evaluator<'g>(
        &self,
        gpu: &'g Gpu,
        source: &Source,
        args: &ModelArgs,
        notes: &mut Vec<String>,
        progress: &'g mut dyn FnMut(usize, usize),
    ) -> Result<impl FnMut(&Snapshot) -> Result<(Evaluation, Logits)> + use<'g>> {
        let classes = source.class_map(self.data.files.map()?.as_ref(), &[&self.images])?;
        let preprocess = args.preprocess(&source.recognised.preprocess)?;
        let images = classes.label(&self.images)?;
        let summary = Summary::new("val", &images, &classes.names(), &self.checked.looks, &self.checked.broken[0]);
        notes.push(classes.to_string());
        notes.extend(summary.lines().into_iter().map(|(_, line)| line));
        notes.extend(subset::lacking("val", &images, &classes));
        let batch = self.data.batch_size.min(images.items.len());
        let mut model = Predictor::new(gpu, source.model(), &source.snapshot(), batch)?;
        let images: Arc<ImageCache> = ImageCache::new(images, CACHE_BYTES);
        Ok(move |values: &Snapshot| {
            model.load(values);
            let mut watched = Watched::new(&mut model, images.dataset(), progress);
            evaluate_to_fit(&mut watched, &images, &preprocess, classes.len())
        })
    }
}

/// A pre-trained model in the layout of a fine-tuned one.
#[derive(Clone, Debug)]
pub struct Anchored {
    /// Its values, and its running statistics. Where it has no counterpart, the fine-tuned values, so that they stay.
    pub values: Snapshot,
    /// Names of the tensors without a counterpart.
    pub kept: Vec<String>,
    /// What to tell the user about the order of the outputs.
    pub note: Option<String>,
}

/// The anchor of `finetuned` in its own layout and order of outputs.
///
/// # Errors
/// Where the two are not the same model but for the head.
pub fn anchored(pretrained: &Source, finetuned: &Source) -> Result<Anchored> {
    same_function(pretrained, finetuned)?;
    let (mut w, missing, note) = anchor(pretrained, finetuned)?;
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
    Ok(Anchored { values: Snapshot { w, stats, batches: 0 }, kept, note })
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

/// # Errors
/// Where one gives any number of labels and the other one class.
fn same_task(a: &Source, b: &Source) -> Result<()> {
    let gives = |source: &Source| match source.recognised.thresholds {
        Some(_) => "any number of labels",
        None => "one class",
    };
    if gives(a) == gives(b) {
        return Ok(());
    }
    let (own, other, path) = (gives(b), gives(a), a.checkpoint.path().display());
    Err(b.checkpoint.error(format!("it gives an image {own}, {path} {other}: their heads can't be mixed")))
}

/// What [`wise_file`] found: each α that was tried with its figures, and the one that was taken.
#[derive(Clone, Debug)]
pub struct WiseResult {
    /// α and its figures on the held-out images; empty without a sweep.
    pub tried: Vec<(f32, Evaluation)>,
    /// The α that was taken.
    pub alpha: f32,
    /// Names of the tensors that have no pre-trained counterpart: they stay as they were fine-tuned.
    pub kept: Vec<String>,
    /// What to tell the user about the classes, one sentence each.
    pub notes: Vec<String>,
}

/// Writes the model `between` `pretrained` and `finetuned` to `out`: at `alphas[0]` if there is one α, else at the one that
/// is most accurate on the `held_out` images, whose evaluations `progress` follows.
///
/// # Errors
/// Where the checkpoints are not of the same model, the images can't be used, or several α come without images.
pub fn wise_file(
    gpu: &Gpu,
    [pretrained, finetuned]: [&Path; 2],
    between: Between,
    alphas: &[f32],
    held_out: Option<&HeldOut>,
    args: &ModelArgs,
    out: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<WiseResult> {
    let overrides = args.overrides();
    // The fine-tuned model has its head.
    let tuned = Source::open(finetuned, &Overrides { head: None, ..overrides.clone() })?;
    let Anchored { values: anchor, kept, note } = anchored(&Source::open(pretrained, &overrides)?, &tuned)?;
    let (model, values) = (tuned.model(), tuned.snapshot());
    let at = |alpha| between.snapshot(&model, &anchor, &values, alpha);
    let (mut tried, mut thresholds, mut notes) = (Vec::new(), Vec::new(), assumed(&tuned, held_out)?);
    notes.extend(note);
    if let Some(held_out) = held_out {
        let mut evaluate = held_out.evaluator(gpu, &tuned, args, &mut notes, progress)?;
        for &alpha in alphas {
            let (evaluation, logits) = evaluate(&at(alpha))?;
            tried.push((alpha, evaluation));
            thresholds.push(logits.thresholds());
        }
    }
    let scores: Vec<(f64, f64)> = tried.iter().map(|(_, e)| (e.main(), e.loss)).collect();
    let (alpha, own) = match (best(&scores), alphas) {
        (Some(i), _) => (alphas[i], thresholds.swap_remove(i)),
        (None, &[alpha]) => (alpha, halves(&tuned, &mut notes)),
        (None, _) => return Err(Error::Usage("several values of alpha need --val to choose among them".into())),
    };
    tuned.save_with(out, &at(alpha), own.as_deref())?;
    Ok(WiseResult { tried, alpha, kept, notes })
}

/// The thresholds of a model made of `source` and others on which no images had a say: halves, which `notes` tell; none for a model that
/// gives one class.
fn halves(source: &Source, notes: &mut Vec<String>) -> Option<Vec<f32>> {
    let own = source.recognised.thresholds.as_ref()?;
    notes.push("labels are given from a probability of 0.5 on: --val fits thresholds to the new weights".into());
    Some(vec![THRESHOLD; own.len()])
}

/// The assumptions about `source`, and what its outputs are; with held-out images that is said when their classes are known.
fn assumed(source: &Source, held_out: Option<&HeldOut>) -> Result<Vec<String>> {
    let mut notes: Vec<String> = source.recognised.notes.iter().map(help::note).collect();
    if held_out.is_none() && source.recognised.config.classes() > 0 {
        notes.push(source.class_map(None, &[])?.to_string());
    }
    Ok(notes)
}

/// Models that a soup is made of, at `paths`: of one network, with the same classes.
pub struct Models<'a> {
    paths: &'a [PathBuf],
    overrides: Overrides,
    /// The first of them, under whose names a soup is saved.
    pub first: Source,
    /// What to tell the user about the order of their outputs.
    pub notes: Vec<String>,
}

impl Models<'_> {
    /// # Errors
    /// Naming a file that can't be read, or is not of the first one's model.
    pub fn open(paths: &[PathBuf], overrides: Overrides) -> Result<Models<'_>> {
        let path = paths.first().ok_or_else(|| Error::Usage("a soup needs --models".into()))?;
        let mut models = Models { paths, first: Source::open(path, &overrides)?, overrides, notes: Vec::new() };
        // What does not fit is an error before anything is computed.
        for i in 1..paths.len() {
            let note = models.open_one(i)?.1;
            models.notes.extend(note);
        }
        Ok(models)
    }

    /// The values of one of them.
    pub fn load(&self, i: usize) -> Result<Snapshot> {
        Ok(self.open_one(i)?.0.snapshot())
    }

    /// One of them with its outputs in the order of the first's, and what to tell the user about that.
    fn open_one(&self, i: usize) -> Result<(Source, Option<String>)> {
        let mut source = Source::open(&self.paths[i], &self.overrides)?;
        let note = alike(&self.first, &mut source)?;
        Ok((source, note))
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
            let (Anchored { values, kept, .. }, model) = (anchored(pretrained, &self.first)?, self.first.model());
            let is_new = model.layout().params.iter().map(|p| kept.contains(&p.name)).collect();
            Ok(Origin { model, values, is_new })
        });
        let (origin, load) = (origin.transpose()?, &mut |i| self.load(i));
        soup.mix(Ingredients { count: self.paths.len(), load, accuracies, evaluate, origin })
    }
}

/// Writes the `soup` of `models`, near `pretrained` if it asks for an anchor, to `out`. Returns their accuracies on the `held_out`
/// images, if it asks for these, and the soup with its ingredients; `progress` follows the evaluations.
///
/// # Errors
/// As [`Models::open`] and [`Models::mix`], or where the images can't be used.
pub fn soup_file(
    gpu: &Gpu,
    soup: &dyn Soup,
    (models, pretrained): (&[PathBuf], Option<&Path>),
    held_out: Option<&HeldOut>,
    args: &ModelArgs,
    out: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(Vec<f64>, Mixed, Vec<String>)> {
    let models = Models::open(models, args.overrides())?;
    let mut notes = assumed(&models.first, held_out)?;
    notes.extend(models.notes.clone());
    let pretrained = pretrained.map(|path| Source::open(path, &args.overrides())).transpose()?;
    let evaluator = held_out.map(|held_out| held_out.evaluator(gpu, &models.first, args, &mut notes, progress));
    let mut accuracies = Vec::new();
    let (mixed, thresholds) = match evaluator.transpose()? {
        Some(mut evaluate) => {
            for i in 0..models.paths.len() {
                accuracies.push(evaluate(&models.load(i)?)?.0.main());
            }
            let mixed =
                models.mix(soup, pretrained.as_ref(), &accuracies, &mut |values| Ok(evaluate(values)?.0.main()))?;
            let multi_label = models.first.recognised.thresholds.is_some();
            let thresholds = if multi_label { evaluate(&mixed.values)?.1.thresholds() } else { None };
            (mixed, thresholds)
        }
        None => {
            let mixed = models.mix(soup, pretrained.as_ref(), &[], &mut |_| unreachable!("without held-out images"))?;
            (mixed, halves(&models.first, &mut notes))
        }
    };
    models.first.save_with(out, &mixed.values, thresholds.as_deref())?;
    Ok((accuracies, mixed, notes))
}

/// Makes the values of `other` such that they can be averaged with those of `first`: the outputs in the same order. Returns what to
/// tell the user about that, if anything.
///
/// # Errors
/// Naming the file and the first tensor or class list that differs.
pub fn alike(first: &Source, other: &mut Source) -> Result<Option<String>> {
    same_function(first, other)?;
    same_task(first, other)?;
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
    align(first, other)
}
