//! Models by their name on the Hugging Face hub, `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION`: found in the cache that Python's
//! `huggingface_hub` fills too, or fetched into it.
//!
//! Of a repository, only the files of [`CONFIGS`], one of [`WEIGHTS`] and the shards that an index names are ever asked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::foreign;
use super::hub_fetch::{Fault, Remote};
use super::hub_model::{Model, is_word};
use super::shards::{INDEX, Index};
use crate::atomic::atomic_write;
use crate::error::{Error, Result, quote};

/// The configurations that are read, if there are any, and what cuts texts into tokens.
const CONFIGS: [&str; 6] = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "open_clip_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
];
/// The weights, of which the first that is there counts.
const WEIGHTS: [&str; 3] = ["model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors"];
/// Files that an error names.
const NAMED: usize = 4;

/// The file that `path` names on the hub; nothing where it is the path of a file.
///
/// The answer is the same for the whole process, whatever happens to the revision meanwhile.
///
/// # Errors
/// Where the name is none; where the model is neither in the cache nor to be had, or has no safetensors file; and where
/// the cache can't be written.
pub(super) fn resolve(path: &Path) -> Result<Option<PathBuf>> {
    static FOUND: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());

    let Some(model) = Model::named(path)? else { return Ok(None) };
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = found.get(path) {
        return Ok(Some(file.clone()));
    }
    let file = model.file()?;
    found.insert(path.into(), file.clone());
    Ok(Some(file))
}

impl Model {
    /// The weights' file, or their index, in the cache.
    fn file(&self) -> Result<PathBuf> {
        if self.offline {
            return self.in_cache().ok_or_else(|| {
                let cache = self.cache.path().display();
                self.error(format!(
                    "not in the cache {cache}, or not whole, and HF_HUB_OFFLINE is set: unset it, or fill the cache on \
                     another machine"
                ))
            });
        }
        let remote = Remote::new(self)?;
        let cached = self.in_cache();
        let listing = match (remote.listing(if cached.is_some() { 1 } else { remote.tries() }), cached) {
            (Ok(listing), _) => listing,
            (Err(Fault::Again(what)), Some(file)) => {
                tracing::warn!("{}: {what}: what the cache has is used", self.path.display());
                return Ok(file);
            }
            (Err(fault), _) => return Err(remote.given_up(fault)),
        };
        let has = |file: &&str| listing.files.iter().any(|listed| listed == file);
        let Some(weights) = WEIGHTS.into_iter().find(|file| has(file)) else {
            return Err(self.error(no_weights(&listing.files)));
        };
        let folder = self.snapshot(&listing.commit);
        for file in CONFIGS.into_iter().filter(|file| has(file)).chain([weights]) {
            remote.bring(&listing.commit, file)?;
        }
        for shard in shards(&folder.join(weights))? {
            if !is_word(&shard) || !shard.ends_with(".safetensors") {
                return Err(self.error(format!("{weights} names {:?}, which is no shard", quote(&shard))));
            }
            if !has(&shard.as_str()) {
                return Err(self.error(format!("its shard {shard} is not on the hub: tell the model's owner")));
            }
            remote.bring(&listing.commit, &shard)?;
        }
        // Last, so that no reference is to a commit that is there in part.
        let (reference, commit) = (self.reference(), listing.commit);
        let known = fs::read_to_string(&reference).is_ok_and(|known| known.trim() == commit);
        if commit != self.revision && !known {
            let parent = reference.parent().unwrap_or(&reference);
            fs::create_dir_all(parent).map_err(|e| Error::io(parent, "cannot write", e))?;
            atomic_write(&reference, commit.as_bytes())?;
        }
        Ok(folder.join(weights))
    }

    /// The same without a request, where the cache has all of it.
    fn in_cache(&self) -> Option<PathBuf> {
        // A revision that is a commit's own name has no reference.
        let known = fs::read_to_string(self.reference()).map(|commit| commit.trim().to_string());
        let commit = known.ok().filter(|commit| is_word(commit)).unwrap_or_else(|| self.revision.clone());
        let folder = self.snapshot(&commit);
        let is_whole = |weights: &PathBuf| {
            let there = |shard: &String| is_word(shard) && folder.join(shard).exists();
            weights.exists() && shards(weights).is_ok_and(|shards| shards.iter().all(there))
        };
        WEIGHTS.map(|file| folder.join(file)).into_iter().find(is_whole)
    }
}

/// The shards of an index; none of another file.
fn shards(weights: &Path) -> Result<Vec<String>> {
    match weights.to_string_lossy().ends_with(INDEX) {
        true => Ok(Index::read(weights.into())?.files()?.into_iter().map(String::from).collect()),
        false => Ok(Vec::new()),
    }
}

/// What to do about a repository with these files and none of [`WEIGHTS`].
fn no_weights(files: &[String]) -> String {
    let some = |files: Vec<&str>| {
        let more = if files.len() > NAMED { ", ..." } else { "" };
        format!("{}{more}", quote(&files[..files.len().min(NAMED)].join(", ")))
    };
    let of = |is: &dyn Fn(&str) -> bool| files.iter().map(String::as_str).filter(|f| is(f)).collect::<Vec<_>>();
    let (safetensors, other) = (of(&|file| file.ends_with(".safetensors")), of(&foreign::is_other));
    if !safetensors.is_empty() {
        let some = some(safetensors);
        return format!("has no model.safetensors, but {some}: download the one that you mean, and give its path");
    }
    if !other.is_empty() {
        return format!("has no safetensors, but {}: convert it as {} shows", some(other), foreign::GUIDE);
    }
    match files.is_empty() {
        true => "has no files: check the name".into(),
        false => format!("has no weights, but {}: check the name", some(of(&|_| true))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_without_safetensors_is_told_by_what_it_has() {
        let what = |files: &[&str]| no_weights(&files.iter().map(|f| f.to_string()).collect::<Vec<_>>());
        assert!(what(&["a.safetensors", "b.bin"]).contains("but a.safetensors: download"));
        let told = what(&["README.md", "pytorch_model.bin", "tf_model.h5"]);
        assert!(told.contains("no safetensors, but pytorch_model.bin, tf_model.h5: convert"), "{told}");
        assert!(what(&["1.pt", "2.pt", "3.pt", "4.pt", "5.pt"]).contains("4.pt, ...: convert"));
        assert!(what(&["README.md"]).contains("no weights, but README.md"));
        assert!(what(&[]).contains("no files"));
    }
}
