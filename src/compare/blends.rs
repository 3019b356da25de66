//! The entries that train nothing: which models each is made of, and with which seeds.

use std::path::{Path, PathBuf};

use crate::compare::config::PRETRAINED;
use crate::compare::entry_runs::{EntryRuns, PointRuns};
use crate::compare::event::{End, Event, Work};
use crate::compare::outcome::Outcome;
use crate::compare::plan::Cost;
use crate::compare::post::{Blends, Ingredients, Opened, PostRun};
use crate::compare::run::Comparison;
use crate::compare::select::choose;
use crate::compare::spec::{EntryKind, Over, TestPoints};
use crate::method::Between;
use crate::method::soups::Soup;
use crate::train::help::told;
use crate::train::records::Weights;

impl Comparison<'_> {
    /// Fills in the entries that train nothing, and puts the pre-trained model first.
    pub(super) fn post(&mut self, d: usize, images: &mut Opened, entries: &mut Vec<Option<EntryRuns>>) {
        let config = self.config;
        for (entry, method) in config.methods.iter().enumerate() {
            let (EntryKind::Between { from, .. } | EntryKind::Soup { from, .. }) = &method.kind else { continue };
            let at = Blending { d, entry, from: *from, runs: entries[*from].as_ref() };
            let made = match &method.kind {
                EntryKind::Between { between, alphas, test_points, .. } => {
                    self.between(at, images, (*between, alphas, *test_points))
                }
                EntryKind::Soup { soup, over: Over::Seeds, .. } => self.seed_soup(at, images, *soup),
                EntryKind::Soup { soup, .. } => self.grid_soup(at, images, *soup),
                EntryKind::Train(..) => continue,
            };
            entries[entry] = Some(made);
        }
        if images.first.pretrained.recognised.initialised.is_empty() {
            let runs = self.pretrained(d, images);
            entries.insert(
                0,
                Some(EntryRuns {
                    name: PRETRAINED.into(),
                    kind: "pretrained",
                    from: None,
                    points: vec![PointRuns { label: String::new(), runs }],
                    chosen: Some(0),
                    cost: Cost::default(),
                    ingredients: 0,
                    note: String::new(),
                }),
            );
        }
    }

    /// The pre-trained model: one for all seeds, or with folds tested on each.
    fn pretrained(&mut self, d: usize, images: &mut Opened) -> Vec<(Option<u64>, Result<Outcome, String>)> {
        let config = self.config;
        let (folder, data) = (config.data_dir(d).join(PRETRAINED), &config.data[d].name);
        let seeds: Vec<Option<u64>> = match config.folds {
            Some(_) => config.seeds.iter().copied().map(Some).collect(),
            None => vec![None],
        };
        let mut runs = Vec::new();
        for seed in seeds {
            let run = config.train_run(d, config.reference, 0, seed.unwrap_or(config.seeds[0]));
            let dir = seed.map_or(folder.clone(), |seed| folder.join(format!("seed-{seed}")));
            let of = seed.map_or(String::new(), |seed| format!(" seed {seed}"));
            let post = PostRun { ingredients: Ingredients::Pretrained, dir, config: &run.config, tested: true };
            let outcome = post
                .run(self.gpu, images, &mut running(self.events, &format!("{data} {PRETRAINED}{of}")))
                .map(|blends| blends.outcomes[0].clone())
                .map_err(|e| told(&e));
            if let Err(error) = &outcome {
                (self.events)(Event::Warning(format!("{data}: the pre-trained model{of}: {error}")));
            }
            runs.push((seed, outcome));
        }
        runs
    }

    /// The weights of a run that are compared.
    fn weights(&self, outcome: &Outcome) -> PathBuf {
        outcome.dir.join(if self.config.weights == Weights::Best { "best.safetensors" } else { "last.safetensors" })
    }

    fn post_dir(&self, at: Blending, of: &str) -> PathBuf {
        self.config.data_dir(at.d).join(&self.config.methods[at.entry].name).join(of)
    }

    /// Runs `ingredients` on the images of the runs with `seed`; one outcome per value of α, or an error for all.
    fn blend(
        &mut self,
        at: Blending,
        images: &mut Opened,
        name: String,
        (dir, seed): (&Path, u64),
        ingredients: Ingredients,
    ) -> Result<Blends, String> {
        let like = self.config.train_run(at.d, at.from, at.point(), seed);
        let run = PostRun { ingredients, dir: dir.into(), config: &like.config, tested: true };
        let blends = run.run(self.gpu, images, &mut running(self.events, &name));
        match blends {
            Ok(blends) => {
                let outcome = &blends.outcomes[blends.outcomes.len() - 1];
                let (id, ood) = (outcome.id(), self.ood(at.d, outcome));
                let end = End::Finished { id, ood, seconds: blends.seconds, resumed: false };
                self.done(name, if blends.skipped { End::Skipped } else { end });
                Ok(blends)
            }
            Err(error) => self.failed(name, told(&error)),
        }
    }

    fn failed<T>(&mut self, name: String, error: String) -> Result<T, String> {
        self.done(name, End::Failed(error.clone()));
        Err(error)
    }

    fn between(
        &mut self,
        at: Blending,
        images: &mut Opened,
        (between, alphas, test_points): (Between, &[f32], TestPoints),
    ) -> EntryRuns {
        let config = self.config;
        let point = |alpha: &f32| PointRuns { label: format!("alpha {alpha}"), runs: Vec::new() };
        let mut points: Vec<PointRuns> = alphas.iter().map(point).collect();
        let choice = |points: &[PointRuns]| choose(&EntryRuns::scores(points, config.tuning_seeds()));
        let (mut chosen, mut tested) = (None, 0..alphas.len());
        if test_points == TestPoints::Chosen {
            for seed in config.tuning_seeds() {
                let made = self.on_selection(at, images, (between, alphas), *seed);
                note(&mut points, *seed, made);
            }
            chosen = choice(&points);
            // Where none can be, all come to the test sets, or say below why they have failed.
            tested = chosen.map_or(tested, |chosen| chosen..chosen + 1);
            points[tested.clone()].iter_mut().for_each(|point| point.runs.clear());
        }
        for seed in &config.seeds {
            let name = format!("{} {} seed {seed}", config.data[at.d].name, config.methods[at.entry].name);
            let made = match model(at.runs, *seed) {
                Ok(outcome) => {
                    let alphas = alphas[tested.clone()].to_vec();
                    let ingredients = Ingredients::Between(between, self.weights(outcome), alphas);
                    let dir = self.post_dir(at, &format!("seed-{seed}"));
                    self.blend(at, images, name, (&dir, *seed), ingredients).map(|made| made.outcomes)
                }
                Err(error) => self.failed(name, error),
            };
            note(&mut points[tested.clone()], *seed, made);
        }
        let chosen = chosen.or_else(|| choice(&points));
        self.made(at, between.name(), points, chosen, 1, String::new())
    }

    /// What the selection images say of every α, with the model of one seed.
    fn on_selection(
        &mut self,
        at: Blending,
        images: &mut Opened,
        (between, alphas): (Between, &[f32]),
        seed: u64,
    ) -> Result<Vec<Outcome>, String> {
        let (config, method) = (self.config, &self.config.methods[at.entry]);
        let like = config.train_run(at.d, at.from, at.point(), seed);
        let run = PostRun {
            ingredients: Ingredients::Between(between, self.weights(model(at.runs, seed)?), alphas.to_vec()),
            dir: self.post_dir(at, &format!("seed-{seed}")).join("select"),
            config: &like.config,
            tested: false,
        };
        let name = format!("{} {} seed {seed}, every alpha", config.data[at.d].name, method.name);
        let blends = run.run(self.gpu, images, &mut running(self.events, &name));
        blends.map(|blends| blends.outcomes).map_err(|error| told(&error))
    }

    fn grid_soup(&mut self, at: Blending, images: &mut Opened, soup: &'static dyn Soup) -> EntryRuns {
        let (config, method) = (self.config, &self.config.methods[at.entry]);
        let (mut runs, mut notes) = (Vec::new(), Vec::new());
        let points = at.runs.map_or(&[][..], |from| &from.points);
        let mut most = 0;
        for seed in config.soup_seeds(at.entry) {
            let of: Vec<(String, Option<&Outcome>)> = points.iter().map(|p| (p.label.clone(), p.of(*seed))).collect();
            let (parts, failed) = parts(&of);
            most = most.max(parts.len());
            let name = format!("{} {} seed {seed}", config.data[at.d].name, method.name);
            let made = self.soup(at, images, name, (&format!("seed-{seed}"), *seed), &parts, soup);
            if let Ok(made) = &made {
                notes.push(format!("seed {seed}: {}", contents(made, (&parts, &failed), "")));
            }
            runs.push((Some(*seed), made.map(first)));
        }
        let points = vec![PointRuns { label: String::new(), runs }];
        self.made(at, "soup", points, Some(0), most, notes.join(". "))
    }

    fn seed_soup(&mut self, at: Blending, images: &mut Opened, soup: &'static dyn Soup) -> EntryRuns {
        let (config, method) = (self.config, &self.config.methods[at.entry]);
        let of: Vec<(String, Option<&Outcome>)> =
            config.seeds.iter().map(|seed| (format!("seed {seed}"), model(at.runs, *seed).ok())).collect();
        let (parts, failed) = parts(&of);
        let name = format!("{} {}", config.data[at.d].name, method.name);
        // Without folds, all seeds have the same images.
        let made = self.soup(at, images, name, ("all-seeds", config.seeds[0]), &parts, soup);
        let note = made.as_ref().map_or(String::new(), |made| contents(made, (&parts, &failed), " seeds"));
        let points = vec![PointRuns { label: String::new(), runs: vec![(None, made.map(first))] }];
        self.made(at, "soup", points, Some(0), parts.len(), note)
    }

    fn soup(
        &mut self,
        at: Blending,
        images: &mut Opened,
        name: String,
        (of, seed): (&str, u64),
        parts: &[(String, Outcome)],
        soup: &'static dyn Soup,
    ) -> Result<Blends, String> {
        if parts.is_empty() {
            return self.failed(name, "no run that it could be made of has finished".into());
        }
        let accuracies = parts.iter().filter(|_| soup.needs_images()).map(|(_, o)| o.select.by).collect();
        let paths = parts.iter().map(|(_, o)| self.weights(o)).collect();
        let dir = self.post_dir(at, of);
        self.blend(at, images, name, (&dir, seed), Ingredients::Soup(soup, paths, accuracies))
    }

    fn made(
        &self,
        at: Blending,
        kind: &'static str,
        points: Vec<PointRuns>,
        chosen: Option<usize>,
        ingredients: usize,
        note: String,
    ) -> EntryRuns {
        let name = self.config.methods[at.entry].name.clone();
        let from = at.runs.map(|from| from.name.clone());
        EntryRuns { name, kind, from, points, chosen, cost: self.config.cost(at.entry), ingredients, note }
    }
}

/// Where a blend is made: data set, its entry, the entry that it is made of with its runs.
#[derive(Clone, Copy)]
struct Blending<'a> {
    d: usize,
    entry: usize,
    from: usize,
    runs: Option<&'a EntryRuns>,
}

impl Blending<'_> {
    /// The grid point whose models are taken: its settings say how they see an image.
    fn point(&self) -> usize {
        self.runs.and_then(|from| from.chosen).unwrap_or(0)
    }
}

/// Of the models that a soup is to be made of, by name: those that there are, and the names of the others. A run that failed is no
/// ingredient: diverged weights have no place in a mean.
fn parts(of: &[(String, Option<&Outcome>)]) -> (Vec<(String, Outcome)>, Vec<String>) {
    let there = of.iter().filter_map(|(name, outcome)| Some((name.clone(), (*outcome)?.clone())));
    (there.collect(), of.iter().filter(|(_, outcome)| outcome.is_none()).map(|(name, _)| name.clone()).collect())
}

/// The outcome of a soup.
fn first(mut made: Blends) -> Outcome {
    made.outcomes.remove(0)
}

/// Which of `parts` are in a soup, which have `failed`, and how much of their drift it keeps, where that is not all.
fn contents(made: &Blends, (parts, failed): (&[(String, Outcome)], &[String]), what: &str) -> String {
    let kept: Vec<&str> = made.kept.iter().map(|i| parts[*i].0.as_str()).collect();
    let share =
        made.share.map(|share| format!(", with {:.0} % of their mean's drift", 100.0 * share)).unwrap_or_default();
    let lost = failed.len();
    let failed = if failed.is_empty() { String::new() } else { format!("; {} failed", failed.join(" and ")) };
    format!("{} of {}{what} ({}{failed}){share}", kept.len(), parts.len() + lost, kept.join("; "))
}

/// Adds to each of `points` its outcome with `seed`, or to all the same error.
fn note(points: &mut [PointRuns], seed: u64, made: Result<Vec<Outcome>, String>) {
    match made {
        Ok(outcomes) => {
            points.iter_mut().zip(outcomes).for_each(|(point, o)| point.runs.push((Some(seed), Ok(o))));
        }
        Err(error) => points.iter_mut().for_each(|point| point.runs.push((Some(seed), Err(error.clone())))),
    }
}

/// Tells of the images of an evaluation of the entry called `name`.
fn running(events: &mut dyn FnMut(Event), name: &str) -> impl FnMut(usize, usize) {
    move |done, of| events(Event::Running { name: name.into(), what: Work::Images, done, of })
}

/// The reported run of `from` with `seed`.
fn model(from: Option<&EntryRuns>, seed: u64) -> Result<&Outcome, String> {
    let chosen = from.and_then(|from| Some(&from.points[from.chosen?]));
    chosen.and_then(|point| point.of(seed)).ok_or_else(|| "the run that it is made of has failed".into())
}
