//! The numbers of a comparison, as tables, the page and `results.json` have them.

use std::path::PathBuf;

use serde::Serialize;

use crate::compare::advice;
use crate::compare::choice::{Choice, Places};
use crate::compare::config::CompareConfig;
use crate::compare::entry_runs::EntryRuns;
use crate::compare::outcome::{Outcome, SetFigures};
use crate::compare::plan::Cost;
use crate::compare::select::{self, Score};
use crate::compare::stats::{Estimate, LogitFit, estimate, paired};
use crate::data::Dataset;
use crate::train::TrainConfig;
use crate::train::records::Weights;
use crate::train::splits::Splits;

/// A comparison's results.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// The page's title.
    pub title: String,
    /// The adapter of this call; runs from earlier calls name theirs in their `run.json`.
    pub adapter: String,
    /// Seeds of the reported runs.
    pub seeds: Vec<u64>,
    /// Folds of the training images, of which each run holds out that of its seed; none where test sets are the same for all runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folds: Option<usize>,
    /// Seeds that the grids were run with: the first of `seeds`.
    pub grid_seeds: usize,
    /// Which weights were compared.
    pub weights: Weights,
    /// The method that differences are taken to.
    pub reference: String,
    /// By data set.
    pub data: Vec<DataResults>,
    /// Runs that failed: name and error.
    pub failures: Vec<(String, String)>,
}

/// The results on one data set.
#[derive(Clone, Debug, Serialize)]
pub struct DataResults {
    /// The data set.
    pub name: String,
    /// Where its images are, and who sees which.
    pub uses: DataUse,
    /// OOD sets that count once in the mean.
    pub groups: Vec<Vec<String>>,
    /// Test sets in order.
    pub sets: Vec<SetInfo>,
    /// Whether images may have any number of labels: accuracies are then mean average precisions.
    pub multi_label: bool,
    /// What OOD accuracy is expected at an ID accuracy; none where there are too few models to tell.
    pub baseline: Option<LogitFit>,
    /// By method; the pre-trained model first where it has a head for these classes.
    pub entries: Vec<EntryResults>,
    /// What to know before anything is read from these figures, one sentence each.
    pub advice: Vec<String>,
}

impl DataResults {
    /// The views of each test image that the models answered to, if more than the image: the same for all.
    pub fn views(&self) -> Option<&str> {
        // What an earlier version has judged lacks it.
        let mut models = self.entries.iter().flat_map(|entry| &entry.models);
        models.find_map(|model| model.sets.first()?.tta.as_deref())
    }
}

/// A test set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SetInfo {
    /// Its name.
    pub name: String,
    /// Whether it is in-distribution.
    pub id: bool,
    /// Images.
    pub images: u64,
}

/// Paths and sizes of a data set's splits.
#[derive(Clone, Debug, Serialize)]
pub struct DataUse {
    /// The pre-trained model.
    pub model: PathBuf,
    /// Training images.
    pub train: (PathBuf, usize),
    /// Validation images, on which radii are learned.
    pub val: (PathBuf, usize),
    /// Selection images, where these are apart.
    pub select: Option<(PathBuf, usize)>,
    /// Test sets: name, path, images, whether in-distribution.
    pub tests: Vec<(String, PathBuf, usize, bool)>,
    /// The same image in two splits that should share none, one sentence each.
    pub leaks: Vec<String>,
    /// Top-1 accuracy on the ID test sets of always answering with one class, the most frequent of each; of images with any number of
    /// labels, the mean average precision of knowing nothing.
    pub chance: f64,
    /// Whether images may have any number of labels.
    #[serde(skip)]
    pub multi_label: bool,
}

impl DataUse {
    /// Of `config`'s splits.
    pub fn new(config: &TrainConfig, splits: &Splits, leaks: Vec<String>) -> DataUse {
        let paths = config.tests().unwrap_or_default();
        let test = |(i, (name, path, id)): (usize, &(&str, &std::path::Path, Option<bool>))| {
            let images = splits.tests.get(i).map_or(0, |t| t.images.items.len());
            (name.to_string(), path.to_path_buf(), images, id.unwrap_or(false))
        };
        let held_out = config
            .splits
            .fold
            .and_then(|_| splits.tests.last())
            .map(|fold| (fold.name.clone(), config.splits.train.clone(), fold.images.items.len(), true));
        DataUse {
            model: config.model.clone(),
            train: (config.splits.train.clone(), splits.train.items.len()),
            val: (config.splits.val.clone(), splits.val.items.len()),
            select: config.splits.select.clone().zip(splits.select.as_ref().map(|s| s.items.len())),
            tests: paths.iter().enumerate().map(test).chain(held_out).collect(),
            leaks,
            chance: chance(splits),
            multi_label: splits.train.is_multi_label(),
        }
    }
}

/// Mean over the ID test sets of the share of the most frequent class.
fn chance(splits: &Splits) -> f64 {
    let largest = |images: &Dataset| {
        let counts = images.counts();
        let share = |images_of: usize| images_of as f64 / images.items.len().max(1) as f64;
        match images.is_multi_label() {
            // What mAP comes to where nothing is known: each class's share.
            true => {
                let there: Vec<f64> = counts.into_iter().filter(|n| *n > 0).map(share).collect();
                there.iter().sum::<f64>() / there.len().max(1) as f64
            }
            false => share(counts.into_iter().max().unwrap_or(0)),
        }
    };
    let of: Vec<f64> = splits.tests.iter().filter(|t| t.id == Some(true)).map(|t| largest(&t.images)).collect();
    of.iter().sum::<f64>() / of.len().max(1) as f64
}

/// One method on one data set.
#[derive(Clone, Debug, Serialize)]
pub struct EntryResults {
    /// Its name.
    pub name: String,
    /// `pretrained`, `trained`, `wise`, `lines` or `soup`.
    pub kind: &'static str,
    /// The entry that it is made of, where it trains nothing.
    pub from: Option<String>,
    /// One sentence about it; may be empty.
    pub note: String,
    /// Its grid, or the values of α: every point with its mean over the tuning seeds.
    pub points: Vec<PointResults>,
    /// Index of the point that is reported.
    pub chosen: Option<usize>,
    /// How sure that choice is; none without a grid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// The reported models.
    pub models: Vec<ModelResults>,
    /// Their means; none where no run has finished.
    pub summary: Option<Summary>,
    /// Runs that it took.
    pub cost: Cost,
    /// Mean seconds of training behind one model; none where all runs were resumed.
    pub seconds: Option<f64>,
    /// Bytes planned on the device for training.
    pub memory: Option<u64>,
}

/// A point of a grid.
#[derive(Clone, Debug, Serialize)]
pub struct PointResults {
    /// Its values; empty without a grid.
    pub label: String,
    /// Mean on the selection images over the tuning seeds; none where one of these runs failed.
    pub select: Option<Score>,
    /// 1 for the best.
    pub rank: Option<usize>,
    /// Mean ID and OOD accuracy over the seeds that all points have. No choice depends on them.
    pub accuracy: Option<(f64, f64)>,
    /// The first error among its runs.
    pub error: Option<String>,
}

/// A reported model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelResults {
    /// Its seed; none for one model for all seeds.
    pub seed: Option<u64>,
    /// Its folder.
    pub dir: PathBuf,
    /// On the selection images.
    pub select: Score,
    /// Mean top-1, or mAP, over ID sets.
    pub id: f64,
    /// Mean top-1, or mAP, over OOD sets, a group counting once.
    pub ood: f64,
    /// By test set.
    pub sets: Vec<SetFigures>,
}

/// Means over the reported models, as shares, with 95 % intervals.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// On the selection images.
    pub select: Estimate,
    /// ID mean.
    pub id: Estimate,
    /// OOD mean.
    pub ood: Estimate,
    /// Each test set.
    pub sets: Vec<Estimate>,
    /// ID mean minus that of the reference with the same seed; none for the reference.
    pub id_gain: Option<Estimate>,
    /// The same of the OOD mean.
    pub ood_gain: Option<Estimate>,
    /// Effective robustness: OOD mean minus the OOD mean expected at the model's ID accuracy.
    pub effective: Option<Estimate>,
}

impl Results {
    /// Puts together what `runs` (by data set, then by entry) came to. `places` has those of each data set's selection images where tuning
    /// seeds have different ones.
    pub(super) fn new(
        config: &CompareConfig,
        adapter: &str,
        runs: Vec<Vec<Option<EntryRuns>>>,
        uses: Vec<DataUse>,
        places: &[Option<Places>],
    ) -> Results {
        let reference = config.methods[config.reference].name.clone();
        let mut failures = Vec::new();
        let mut data = Vec::new();
        for (((runs, uses), set), places) in runs.into_iter().zip(uses).zip(&config.data).zip(places) {
            let runs: Vec<EntryRuns> = runs.into_iter().flatten().collect();
            for entry in &runs {
                // An entry made of one model fails once, at whichever α.
                let is_shared = |seed: &Option<u64>, error: &String| {
                    let mut first = entry.points[0].runs.iter();
                    entry.kind != "trained" && first.any(|(s, o)| s == seed && o.as_ref().err() == Some(error))
                };
                for (p, point) in entry.points.iter().enumerate() {
                    for (seed, outcome) in &point.runs {
                        if let Err(error) = outcome {
                            let shared = is_shared(seed, error);
                            if shared && p > 0 {
                                continue;
                            }
                            let seed = seed.map(|s| format!(" seed {s}")).unwrap_or_default();
                            let label = if point.label.is_empty() || shared {
                                String::new()
                            } else {
                                format!(" ({})", point.label)
                            };
                            failures.push((format!("{} {}{label}{seed}", set.name, entry.name), error.clone()));
                        }
                    }
                }
            }
            data.push(of_data(config, &reference, (set.name.clone(), set.groups.clone()), uses, runs, places.as_ref()));
        }
        Results {
            title: config.title.clone(),
            adapter: adapter.into(),
            seeds: config.seeds.clone(),
            folds: config.folds,
            grid_seeds: config.grid_seeds,
            weights: config.weights,
            reference,
            data,
            failures,
        }
    }
}

fn of_data(
    config: &CompareConfig,
    reference: &str,
    (name, groups): (String, Vec<Vec<String>>),
    uses: DataUse,
    runs: Vec<EntryRuns>,
    places: Option<&Places>,
) -> DataResults {
    let model = |(seed, outcome): (Option<u64>, &Outcome)| ModelResults {
        seed,
        dir: outcome.dir.clone(),
        select: outcome.select,
        id: outcome.id(),
        ood: outcome.ood(&groups),
        sets: outcome.sets.clone(),
    };
    let sound = |entry: &EntryRuns, point: usize| -> Vec<ModelResults> {
        let runs = entry.points[point].runs.iter();
        runs.filter_map(|(seed, outcome)| Some((*seed, outcome.as_ref().ok()?))).map(model).collect()
    };
    let reported = |entry: &EntryRuns| entry.chosen.map_or(Vec::new(), |point| sound(entry, point));
    // The family of plain models: the pre-trained one and every run of the reference, all its grid points and seeds.
    let family = runs.iter().filter(|e| e.kind == "pretrained" || e.name == reference);
    let family: Vec<(f64, f64)> = family
        .flat_map(|e| (0..e.points.len()).flat_map(|p| sound(e, p)).collect::<Vec<_>>())
        .map(|m| (m.id, m.ood))
        .collect();
    let baseline = LogitFit::new(&family);
    let plain: Vec<ModelResults> = runs.iter().find(|e| e.name == reference).map(&reported).unwrap_or_default();
    let mut sets: Vec<SetInfo> = Vec::new();
    let mut entries = Vec::new();
    for entry in &runs {
        let models = reported(entry);
        if let (Some(first), true) = (models.first(), sets.is_empty()) {
            sets = first.sets.iter().map(|s| SetInfo { name: s.name.clone(), id: s.id, images: s.images }).collect();
        }
        let tuning = EntryRuns::scores(&entry.points, config.tuning_seeds());
        let scores: Vec<Option<Score>> = tuning.iter().map(|scores| select::mean(scores)).collect();
        let ranks = select::ranks(&scores);
        let shared = shared_seeds((0..entry.points.len()).map(|p| sound(entry, p)));
        let points = entry.points.iter().enumerate().map(|(p, point)| {
            let models: Vec<ModelResults> = sound(entry, p).into_iter().filter(|m| shared.contains(&m.seed)).collect();
            let mean = |f: fn(&ModelResults) -> f64| models.iter().map(f).sum::<f64>() / models.len() as f64;
            PointResults {
                label: point.label.clone(),
                select: scores[p],
                rank: ranks[p],
                accuracy: models.first().filter(|m| !m.sets.is_empty()).map(|_| (mean(|m| m.id), mean(|m| m.ood))),
                error: point.runs.iter().find_map(|(_, outcome)| outcome.as_ref().err().cloned()),
            }
        });
        // An entry made of other models takes the time of theirs.
        let trained = match &entry.from {
            Some(from) => runs.iter().find(|e| e.name == *from),
            None => Some(entry),
        };
        let (seconds, memory) = trained.map_or((None, None), took);
        entries.push(EntryResults {
            name: entry.name.clone(),
            kind: entry.kind,
            from: entry.from.clone(),
            note: entry.note.clone(),
            points: points.collect(),
            chosen: entry.chosen,
            choice: Choice::new(entry, config.tuning_seeds(), places),
            summary: summary(&models, (entry.name != reference).then_some(&plain), baseline.as_ref()),
            models,
            cost: entry.cost,
            seconds: seconds.map(|s| s * entry.ingredients.max(1) as f64),
            memory,
        });
    }
    let chosen = runs.iter().zip(&entries).filter_map(|(runs, entry)| Some((runs, entry.choice.as_ref()?)));
    let undecided: Vec<String> = chosen.filter_map(|(runs, choice)| advice::undecided(runs, choice)).collect();
    // The pre-trained model has not been asked to learn these classes.
    let trained = entries.iter().filter(|entry| entry.kind != "pretrained");
    let means: Vec<(&str, f64)> =
        trained.filter_map(|entry| Some((entry.name.as_str(), entry.summary.as_ref()?.id.mean))).collect();
    let images = sets.iter().filter(|set| set.id).map(|set| set.images).sum();
    let multi_label = uses.multi_label;
    let at_chance = advice::at_chance(&means, uses.chance, images).filter(|_| !multi_label);
    let of = |soup: &EntryRuns| runs.iter().find(|entry| Some(&entry.name) == soup.from.as_ref());
    let soups = runs.iter().filter(|entry| entry.kind == "soup");
    let fallen = soups.filter_map(|soup| advice::fallen(soup, of(soup)?));
    let advice = at_chance.into_iter().chain(undecided).chain(fallen).collect();
    DataResults { name, uses, groups, sets, multi_label, baseline, entries, advice }
}

/// The seeds that all points of a grid have that have any: with others, a chosen point's mean could not be held against the rest.
fn shared_seeds(points: impl Iterator<Item = Vec<ModelResults>>) -> Vec<Option<u64>> {
    let mut seeds =
        points.map(|models| models.iter().map(|m| m.seed).collect::<Vec<_>>()).filter(|own| !own.is_empty());
    let mut shared = seeds.next().unwrap_or_default();
    seeds.for_each(|own| shared.retain(|seed| own.contains(seed)));
    shared
}

/// Mean seconds and largest plan of the reported runs; the time of a resumed run is not known.
fn took(entry: &EntryRuns) -> (Option<f64>, Option<u64>) {
    let Some(point) = entry.chosen else { return (None, None) };
    let took: Vec<_> = entry.points[point].runs.iter().filter_map(|(_, r)| r.as_ref().ok()?.took.as_ref()).collect();
    let whole: Vec<f64> = took.iter().filter(|t| !t.resumed).map(|t| t.seconds).collect();
    (estimate(&whole).map(|e| e.mean), took.iter().map(|t| t.memory).max())
}

fn summary(models: &[ModelResults], plain: Option<&Vec<ModelResults>>, baseline: Option<&LogitFit>) -> Option<Summary> {
    let of = |f: &dyn Fn(&ModelResults) -> f64| estimate(&models.iter().map(f).collect::<Vec<_>>());
    let pairs = |models: &[ModelResults], f: fn(&ModelResults) -> f64| -> Vec<(Option<u64>, f64)> {
        models.iter().map(|m| (m.seed, f(m))).collect()
    };
    let gain = |f: fn(&ModelResults) -> f64| plain.and_then(|plain| paired(&pairs(models, f), &pairs(plain, f)));
    let sets = models.first()?.sets.len();
    Some(Summary {
        select: of(&|m| m.select.main())?,
        id: of(&|m| m.id)?,
        ood: of(&|m| m.ood)?,
        sets: (0..sets).filter_map(|i| of(&|m| m.sets[i].main())).collect(),
        id_gain: gain(|m| m.id),
        ood_gain: gain(|m| m.ood),
        effective: baseline.and_then(|fit| of(&|m| fit.effective(m.id, m.ood))),
    })
}
