//! One look at every image before any work begins: is it whole, how large is it, and is it another one's twin. What a file was
//! found to be is kept on disk and holds as long as its size and times stay.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::check_cache::{self, Cache, Stamp};
use super::dataset::Dataset;
use super::decode::decode_bytes;
use super::look::Look;
use super::read;
use crate::error::{Error, Help, Result, quote, shown};

/// An image that can't be read, and why: one line without the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// Findings about the images of some data sets, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    found: HashMap<PathBuf, Result<Look, String>>,
}

impl Looks {
    /// What the image at `path` is, if it was looked at and is whole.
    pub fn get(&self, path: &Path) -> Option<&Look> {
        self.found.get(path)?.as_ref().ok()
    }

    /// The images of `dataset` that can't be read, in its order.
    pub fn broken(&self, dataset: &Dataset) -> Vec<Broken> {
        let why = |path: &Path| self.found.get(path)?.as_ref().err().cloned();
        dataset
            .items
            .iter()
            .filter_map(|item| Some(Broken { path: item.path.clone(), why: why(&item.path)? }))
            .collect()
    }

    /// `dataset` without the images that can't be read.
    pub fn whole(&self, dataset: &Dataset) -> Dataset {
        let mut dataset = dataset.clone();
        dataset.items.retain(|item| self.get(&item.path).is_some());
        dataset
    }

    /// Nothing, if every image of `datasets` is whole.
    ///
    /// # Errors
    /// [`Error::Data`] naming all images that can't be read, of many the first.
    pub fn refuse_broken(&self, datasets: &[&Dataset]) -> Result<()> {
        const SHOWN: usize = 8;
        let mut broken: Vec<Broken> = datasets.iter().flat_map(|dataset| self.broken(dataset)).collect();
        let mut seen = HashSet::new();
        broken.retain(|b| seen.insert(b.path.clone()));
        let Some(first) = broken.first() else { return Ok(()) };
        let what = match broken.len() {
            1 => first.why.clone(),
            n => {
                let one = |b: &Broken| format!("{} ({})", quote(&shown(&b.path)), quote(&b.why));
                let others: Vec<String> = broken[1..n.min(SHOWN)].iter().map(one).collect();
                let more = if n > SHOWN { format!(" and {} more", n - SHOWN) } else { String::new() };
                let others = others.join(", ");
                format!("{}; so are {others}{more}: {n} images can't be read", first.why)
            }
        };
        Err(Error::data(&first.path, what).with_help(Help::BrokenImages))
    }
}

/// How images are looked at.
#[derive(Clone, Debug)]
pub struct Check {
    /// The folder where findings are kept; none for nowhere.
    pub cache: Option<PathBuf>,
    /// What took less time than this is not kept: it is found as fast again.
    pub keep_after: Duration,
}

impl Check {
    /// Keeps what it finds in the folder `cache`.
    pub fn new(cache: Option<PathBuf>) -> Check {
        Check { cache, keep_after: Duration::from_secs(1) }
    }

    /// Looks at every image of `datasets` that was not looked at before, on all cores. `progress` is told how many of how many are
    /// done.
    pub fn run(&self, datasets: &[&Dataset], progress: &mut dyn FnMut(usize, usize)) -> Looks {
        /// Images between two calls of `progress`.
        const CHUNK: usize = 256;
        /// Findings are saved at least this often, in case the pass is stopped.
        const SAVE: Duration = Duration::from_secs(60);
        let started = Instant::now();
        let mut caches: BTreeMap<PathBuf, Cache> = BTreeMap::new();
        let mut homes: BTreeMap<&Path, PathBuf> = BTreeMap::new();
        for dataset in datasets {
            let of = || dataset.items.iter().map(|item| item.path.as_path());
            let root = check_cache::root(of());
            if let Some(folder) = &self.cache {
                caches.entry(root.clone()).or_insert_with(|| Cache::open(folder, &root)).expect(dataset.items.len());
            }
            of().for_each(|path| _ = homes.entry(path).or_insert_with(|| root.clone()));
        }
        let (paths, homes): (Vec<&Path>, Vec<PathBuf>) = homes.into_iter().unzip();
        let stamps: Vec<Option<Stamp>> = paths.par_iter().map(|path| Stamp::of(path)).collect();
        let known = |i: usize| caches.get(&homes[i])?.get(paths[i], stamps[i].as_ref()?);
        let mut found: Vec<Option<Result<Look, String>>> = (0..paths.len()).into_par_iter().map(known).collect();
        let unknown: Vec<usize> = (0..paths.len()).filter(|&i| found[i].is_none()).collect();
        let mut saved = Instant::now();
        for (chunk, done) in unknown.chunks(CHUNK).zip((0..).step_by(CHUNK)) {
            progress(done, unknown.len());
            let looks: Vec<Result<Look, String>> = chunk.par_iter().map(|&i| look(paths[i])).collect();
            for (&i, look) in chunk.iter().zip(looks) {
                if let (Some(cache), Some(stamp)) = (caches.get_mut(&homes[i]), &stamps[i]) {
                    cache.put(paths[i], stamp, &look);
                }
                found[i] = Some(look);
            }
            if saved.elapsed() > SAVE {
                caches.values().for_each(Cache::save);
                saved = Instant::now();
            }
        }
        if !unknown.is_empty() {
            progress(unknown.len(), unknown.len());
        }
        if !unknown.is_empty() && started.elapsed() >= self.keep_after {
            caches.values().for_each(Cache::save);
        }
        let found = paths.iter().zip(found).map(|(path, look)| (path.to_path_buf(), look.expect("all were looked at")));
        Looks { found: found.collect() }
    }
}

fn look(path: &Path) -> Result<Look, String> {
    let bytes = read::bytes(path).map_err(|error| match error {
        Error::Io { source, .. } => format!("cannot read: {source}"),
        Error::Data { what, .. } => what,
        other => other.to_string(),
    })?;
    let decoded = decode_bytes(&bytes)?;
    let mut pixels = Sha256::new();
    pixels.update(decoded.image.width().to_le_bytes());
    pixels.update(decoded.image.as_raw());
    Ok(Look {
        bytes: Sha256::digest(&bytes).into(),
        pixels: pixels.finalize().into(),
        size: [decoded.image.width(), decoded.image.height()],
        sixteen: decoded.sixteen,
    })
}
