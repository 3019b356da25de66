//! Entries that train nothing: the pre-trained model, WiSE-FT, LiNeS, soups. What they come to is kept in `blend.json`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::atomic::atomic_write;
use crate::checkpoint::Overrides;
use crate::compare::event::Event;
use crate::compare::outcome::{self, Outcome, SetFigures, values_by_image};
use crate::compare::select::Score;
use crate::data::loader::CACHE_BYTES;
use crate::data::{Fold, ImageCache, Preprocess};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::method::soups::Soup;
use crate::method::{Between, Snapshot};
use crate::train::blend::{Models, anchored};
use crate::train::by_image::{by_image, packed};
use crate::train::corrupted::{Test, with_copies};
use crate::train::evaluate::{Fitted, Predictor, Watched, evaluate_to_fit};
use crate::train::heads::align;
use crate::train::help;
use crate::train::imbalance_args::BestBy;
use crate::train::model_args::ModelArgs;
use crate::train::records::bits;
use crate::train::source::Source;
use crate::train::splits::Splits;
use crate::train::subset::evaluate_among;
use crate::train::tta::Tta;
use crate::train::zero_shot_args::ZeroShotArgs;
use crate::train::{self, Evaluation, TrainConfig};

/// What an entry without training has found.
const BLEND: &str = "blend.json";
/// The most images that pass through at once in an evaluation.
const BATCH: usize = 64;

/// A data set's images for selection and tests, opened once; with folds, those of one fold.
pub(super) struct Images {
    seen: Seen,
    pub(super) splits: Splits,
    select: Arc<ImageCache>,
    tests: Vec<Test>,
    /// The pre-trained model, with its outputs fitted to the classes.
    pub(super) pretrained: Source,
}

impl Images {
    pub(super) fn open(gpu: &Gpu, config: &TrainConfig, events: &mut dyn FnMut(Event)) -> Result<Images> {
        let mut pretrained = Source::open(&config.model, &config.overrides())?;
        let splits = Splits::open(gpu, config, &mut pretrained, &mut |event| match event {
            train::Event::Warning(text) => events(Event::Warning(text)),
            train::Event::Note(text) => events(Event::Note(text)),
            train::Event::Checked { done, of } => events(Event::Checked { done, of }),
            _ => {}
        })?;
        let notes = splits.notes(config);
        pretrained.recognised.notes.iter().map(help::note).chain(notes).for_each(|note| events(Event::Note(note)));
        let cache = |images: &crate::data::Dataset| ImageCache::new(images.clone(), CACHE_BYTES);
        let select = cache(splits.select.as_ref().unwrap_or(&splits.val));
        let tests = splits.tests.iter().map(|t| (t.name.clone(), t.id, cache(&t.images))).collect();
        let tests = with_copies(tests, &config.corruptions()?);
        Ok(Images { seen: Seen::by(config), splits, select, tests, pretrained })
    }
}

/// What decides which images a run has, and how its pre-trained model is opened.
#[derive(Clone, PartialEq)]
struct Seen {
    fold: Option<Fold>,
    model: ModelArgs,
    zero_shot: ZeroShotArgs,
}

impl Seen {
    fn by(config: &TrainConfig) -> Seen {
        Seen { fold: config.splits.fold, model: config.model_args.clone(), zero_shot: config.zero_shot.clone() }
    }
}

/// A data set's images with the pre-trained model, for whichever run is asked for: those of the first and of the latest stay open.
pub(super) struct Opened {
    pub(super) first: Images,
    latest: Option<Images>,
}

impl Opened {
    pub(super) fn new(first: Images) -> Opened {
        Opened { first, latest: None }
    }

    /// The paths of the selection images of a run of `config`, in their order.
    pub(super) fn selected(&mut self, gpu: &Gpu, config: &TrainConfig) -> Result<Vec<PathBuf>> {
        Ok(self.of(gpu, config)?.select.dataset().items.iter().map(|item| item.path.clone()).collect())
    }

    /// Those that a run of `config` has. What there is to say about them was said of the first.
    fn of(&mut self, gpu: &Gpu, config: &TrainConfig) -> Result<&Images> {
        let seen = Seen::by(config);
        if self.first.seen == seen {
            return Ok(&self.first);
        }
        let latest = match self.latest.take().filter(|images| images.seen == seen) {
            Some(latest) => latest,
            None => Images::open(gpu, config, &mut |_| {})?,
        };
        Ok(self.latest.insert(latest))
    }
}

/// A model's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Blend {
    select: Score,
    /// Which selection images are right.
    #[serde(default)]
    right: String,
    /// Their shares in what choices are made by, where that is not `right`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by_image: Option<String>,
    /// How many there are.
    #[serde(default)]
    images: usize,
    sets: Vec<SetFigures>,
}

/// The content of `blend.json`.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    /// What it was made of: anything else makes it stale.
    setup: String,
    blends: Vec<Blend>,
    /// Ingredients of a soup, in the order in which they were added.
    kept: Vec<usize>,
    /// The share of their mean's drift that it keeps, if not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    /// Seconds of all evaluations.
    seconds: f64,
}

/// What [`PostRun::run`] gives: an outcome for each value of α, or one.
pub(super) struct Blends {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) kept: Vec<usize>,
    /// See [`crate::method::soups::Mixed::share`].
    pub(super) share: Option<f64>,
    pub(super) seconds: f64,
    /// Whether they were there already.
    pub(super) skipped: bool,
}

/// The models that are evaluated.
#[derive(Clone, Debug)]
pub(super) enum Ingredients {
    /// The pre-trained model as it is.
    Pretrained,
    /// The models between it and this one, a value of α each.
    Between(Between, PathBuf, Vec<f32>),
    /// The soup of these, which have these accuracies on the selection images, if it asks for them.
    Soup(&'static dyn Soup, Vec<PathBuf>, Vec<f64>),
}

/// An entry without training, with one seed.
pub(super) struct PostRun<'a> {
    pub(super) ingredients: Ingredients,
    pub(super) dir: PathBuf,
    /// A run whose data and preprocessing it shares.
    pub(super) config: &'a TrainConfig,
    /// Whether the test sets see it, or only the selection images.
    pub(super) tested: bool,
}

impl PostRun<'_> {
    /// Evaluates on the selection images and on the test sets, or reads what an earlier call has found.
    ///
    /// `tell` is called with the images of an evaluation that are done, and those there are.
    pub(super) fn run(&self, gpu: &Gpu, images: &mut Opened, tell: &mut dyn FnMut(usize, usize)) -> Result<Blends> {
        let setup = self.setup()?;
        let path = self.dir.join(BLEND);
        let known = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<File>(&bytes).ok());
        let skipped = known.as_ref().is_some_and(|file| file.setup == setup);
        let file = match known.filter(|file| file.setup == setup) {
            Some(file) => file,
            None => {
                let file = self.make(gpu, images.of(gpu, self.config)?, tell, setup)?;
                let text = serde_json::to_vec(&file).expect("plain values always serialise");
                std::fs::create_dir_all(&self.dir).map_err(|e| Error::io(&self.dir, "cannot create this folder", e))?;
                atomic_write(&path, &text)?;
                // As it will be read the next time, to the last bit.
                serde_json::from_slice(&text).expect("the bytes that were just written")
            }
        };
        let best_by = self.config.imbalance.best_by;
        let outcome = |Blend { select, right, by_image, images, sets }: Blend| {
            let by_image = values_by_image(best_by, select.map.is_some(), by_image.as_deref(), (&right, images));
            let by_image = by_image.unwrap_or_default();
            Outcome { dir: self.dir.clone(), select, best_by, by_image, sets, took: None }
        };
        let outcomes = file.blends.into_iter().map(outcome).collect();
        Ok(Blends { outcomes, kept: file.kept, share: file.share, seconds: file.seconds, skipped })
    }

    /// Everything that decides the result: how the models are made, the weights' hashes, the images' paths.
    fn setup(&self) -> Result<String> {
        let hash = |path: &PathBuf| outcome::digest(path);
        let (kind, parts) = match &self.ingredients {
            Ingredients::Pretrained => (json!("pretrained"), Vec::new()),
            Ingredients::Between(between, path, alphas) => (json!({between.name(): alphas}), vec![hash(path)?]),
            Ingredients::Soup(soup, paths, accuracies) => (
                json!({"soup": soup.name(), "accuracies": accuracies}),
                paths.iter().map(hash).collect::<Result<Vec<_>>>()?,
            ),
        };
        let c = self.config;
        let mut setup = json!({
            "kind": kind, "parts": parts, "pretrained": hash(&c.model)?, "val": c.splits.val, "select": c.splits.select, "test": c.splits.test,
            "id": c.splits.id, "root": c.splits.files.root, "class_map": c.splits.files.class_map, "model": c.model_args,
            "corrupt": c.splits.corrupt, "subset": c.splits.subset,
        });
        let s = &c.splits;
        if let Some(fold) = s.fold {
            // The held-out images are a part of the training images.
            setup["fold"] = json!([fold, s.train, s.val_seed]);
        }
        if c.zero_shot.on() {
            setup["zero_shot"] = json!(c.zero_shot);
        }
        if s.val.as_os_str().is_empty() {
            // The selection images are then a part of the training images.
            setup["set_apart"] = json!([s.train, s.val_share, s.val_seed]);
        }
        if !matches!(c.imbalance.best_by, BestBy::Auto | BestBy::Top1) {
            setup["best_by"] = json!(c.imbalance.best_by);
        }
        if let Some(views) = s.views.tta.name() {
            setup["tta"] = json!(views);
        }
        for (key, value) in [
            ("image_column", &s.files.image_column),
            ("label_column", &s.files.label_column),
            ("label_separator", &s.files.label_separator),
        ] {
            if value.is_some() {
                setup[key] = json!(value);
            }
        }
        if s.files.skip_broken {
            setup["skip_broken"] = json!(true);
        }
        if !self.tested {
            setup["tested"] = json!(false);
        }
        Ok(setup.to_string())
    }

    fn make(&self, gpu: &Gpu, images: &Images, tell: &mut dyn FnMut(usize, usize), setup: String) -> Result<File> {
        let started = Instant::now();
        let overrides = self.config.overrides();
        // The images' labels are outputs of the pre-trained model.
        let open = |path: &Path| {
            let mut source = Source::open(path, &Overrides { head: None, ..overrides.clone() })?;
            align(&images.pretrained, &mut source)?;
            Ok::<_, Error>(source)
        };
        let (mut blends, mut kept, mut share) = (Vec::new(), Vec::new(), None);
        match &self.ingredients {
            Ingredients::Pretrained => {
                let mut judge = self.judge(gpu, &images.pretrained, images, tell)?;
                blends.push(judge.judge(&images.pretrained.snapshot())?);
            }
            Ingredients::Between(between, path, alphas) => {
                let tuned = open(path)?;
                let anchor = anchored(&images.pretrained, &tuned)?.values;
                let (mut judge, values) = (self.judge(gpu, &tuned, images, tell)?, tuned.snapshot());
                let model = tuned.model();
                for alpha in alphas {
                    blends.push(judge.judge(&between.snapshot(&model, &anchor, &values, *alpha))?);
                }
            }
            Ingredients::Soup(soup, paths, accuracies) => {
                let mut models = Models::open(paths, Overrides { head: None, ..overrides.clone() })?;
                align(&images.pretrained, &mut models.first)?;
                let mut judge = self.judge(gpu, &models.first, images, tell)?;
                let mut evaluate = |values: &Snapshot| Ok(judge.select(values)?.score.by);
                let mixed = models.mix(*soup, Some(&images.pretrained), accuracies, &mut evaluate)?;
                (kept, share) = (mixed.kept, mixed.share);
                blends.push(judge.judge(&mixed.values)?);
                std::fs::create_dir_all(&self.dir).map_err(|e| Error::io(&self.dir, "cannot create this folder", e))?;
                let thresholds = judge.select(&mixed.values)?.thresholds;
                let path = self.dir.join("model.safetensors");
                models.first.save_with(&path, &mixed.values, thresholds.as_deref())?;
            }
        }
        Ok(File { setup, blends, kept, share, seconds: started.elapsed().as_secs_f64() })
    }
}

/// A model on the selection images.
struct Selected {
    score: Score,
    /// Which of the images are right; none of images with any number of labels.
    right: Vec<bool>,
    /// How many images there are.
    images: usize,
    /// The share of each in what choices are made by, where that is not `right`.
    by_image: Option<Vec<f32>>,
    /// From which probability on each label is given, of such images.
    thresholds: Option<Vec<f32>>,
}

/// Evaluates values of one model.
struct Judge<'g, 'i> {
    model: Predictor<'g>,
    preprocess: Preprocess,
    classes: usize,
    /// Whether a test set with fewer classes than the model is judged among its own.
    subset: bool,
    /// The views of a test image.
    tta: Tta,
    /// What choices are made by.
    best_by: BestBy,
    images: &'i Images,
    /// The test sets that see the model.
    tests: &'i [Test],
    tell: &'i mut dyn FnMut(usize, usize),
}

impl PostRun<'_> {
    fn judge<'g, 'i>(
        &self,
        gpu: &'g Gpu,
        source: &Source,
        images: &'i Images,
        tell: &'i mut dyn FnMut(usize, usize),
    ) -> Result<Judge<'g, 'i>> {
        let config = self.config;
        let preprocess = config.model_args.preprocess(&source.recognised.preprocess)?;
        let model = Predictor::new(gpu, source.model(), &source.snapshot(), config.optim.batch_size.min(BATCH))?;
        Ok(Judge {
            model,
            preprocess,
            classes: source.recognised.config.classes(),
            subset: config.splits.subset,
            tta: config.splits.views.tta,
            best_by: config.imbalance.best_by,
            images,
            tests: if self.tested { &images.tests } else { &[] },
            tell,
        })
    }
}

impl Judge<'_, '_> {
    /// What the selection images say.
    fn select(&mut self, values: &Snapshot) -> Result<Selected> {
        self.model.load(values);
        let mut watched = Watched::new(&mut self.model, self.images.select.dataset(), self.tell);
        let (e, logits) = evaluate_to_fit(&mut watched, &self.images.select, &self.preprocess, self.classes)?;
        let (score, by_image) = (Score::of(self.best_by, &e), by_image(self.best_by, &logits));
        Ok(Selected { score, right: e.right, images: e.images, by_image, thresholds: logits.thresholds() })
    }

    fn judge(&mut self, values: &Snapshot) -> Result<Blend> {
        let Selected { score: select, right, images: selected, by_image, thresholds } = self.select(values)?;
        let chosen = Fitted { temperature: None, thresholds: thresholds.as_deref() };
        let mut sets = Vec::new();
        for (name, id, images) in self.tests {
            let (preprocess, classes) = (&self.preprocess, self.classes);
            let mut viewed = self.tta.of(&mut self.model, preprocess.image_size);
            let mut watched = Watched::new(&mut viewed, images.dataset(), self.tell);
            let e = evaluate_among(&mut watched, images, preprocess, classes, self.subset, chosen)?;
            let (name, images, id) = (name.clone(), e.images as u64, id.unwrap_or(false));
            let Evaluation { top1, top5, balanced, macro_f1, loss, ece, labels, .. } = e;
            let (map, micro_f1) = labels.map(|labels| (labels.map, labels.at_half.micro_f1)).unzip();
            let tta = self.tta.name().map(String::from);
            sets.push(SetFigures { name, id, images, top1, top5, balanced, map, micro_f1, macro_f1, loss, ece, tta });
        }
        let by_image = by_image.map(|values| packed(&values));
        Ok(Blend { select, right: bits(&right), by_image, images: selected, sets })
    }
}
