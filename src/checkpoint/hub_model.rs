//! A model of the Hugging Face hub by its name, and what the environment says of the hub and the cache.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use crate::error::{Error, Result};

/// What a name begins with.
const PREFIX: &str = "hf://";
/// The revision of a name without one.
const MAIN: &str = "main";

/// Told how many bytes of a file are there by now; dropped when it is there or has failed.
pub type Fetching = Box<dyn FnMut(u64)>;

static WATCH: OnceLock<fn(&str, u64) -> Fetching> = OnceLock::new();

/// From now on, `watch` is called for each file of weights that is fetched, with its name and its bytes. The first call counts.
pub fn watch_fetches(watch: fn(&str, u64) -> Fetching) {
    let _ = WATCH.set(watch);
}

/// Begins to show how a file is fetched.
pub(super) fn watched(name: &str, bytes: u64) -> Option<Fetching> {
    WATCH.get().map(|watch| watch(name, bytes))
}

/// Repository and revision, where both are made of letters, digits, `-`, `_` and `.`; only a revision has slashes.
fn parse(text: &str) -> Option<(&str, &str)> {
    let (repo, revision) = text.split_once('@').unwrap_or((text, MAIN));
    let (owner, name) = repo.split_once('/')?;
    (is_word(owner) && is_word(name) && revision.split('/').all(is_word)).then_some((repo, revision))
}

/// Whether `text` is a file's name that stays in its folder on every system, and means itself in an address.
pub(super) fn is_word(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let whole = text.starts_with(edge) && text.ends_with(edge) && text.chars().all(fits);
    whole && !text.contains("..") && text.len() <= 128
}

/// A variable of the environment that is not empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A model of the hub, and what the environment says of the hub and the cache.
pub(super) struct Model {
    /// As the user names it.
    pub(super) path: PathBuf,
    /// `OWNER/NAME`.
    pub(super) name: String,
    pub(super) revision: String,
    /// The hub's address, without a slash at the end.
    pub(super) endpoint: String,
    pub(super) token: Option<String>,
    pub(super) cache: Cache,
    /// Whether nothing may be fetched.
    pub(super) offline: bool,
}

impl Model {
    /// The model that `path` names; nothing where it is the path of a file.
    ///
    /// # Errors
    /// Where the name is none, and where the environment makes no sense.
    pub(super) fn named(path: &Path) -> Result<Option<Self>> {
        let Some(text) = path.to_str().and_then(|text| text.strip_prefix(PREFIX)) else { return Ok(None) };
        let (repo, revision) = parse(text).ok_or_else(|| {
            let what =
                "not a model's name: give hf://OWNER/NAME or hf://OWNER/NAME@REVISION, of letters, digits, -, _ and .";
            Error::checkpoint(path, what)
        })?;
        Self::new(path, repo, revision).map(Some)
    }

    fn new(path: &Path, name: &str, revision: &str) -> Result<Self> {
        let wrong = |what: &str| Error::checkpoint(path, what);
        let folder = |name: &str| variable(name).map(PathBuf::from);
        let home = folder("HF_HOME")
            .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| dirs::home_dir().map(|home| home.join(".cache").join("huggingface")))
            .ok_or_else(|| wrong("there is no home folder for the cache: set HF_HOME to a folder"))?;
        let cache = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
        let written = || fs::read_to_string(folder("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"))).ok();
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).or_else(written);
        let token = token.map(|token| token.trim().to_string()).filter(|token| !token.is_empty());
        if token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(wrong(
                "the token for the hub has spaces or other characters that no token has: check HF_TOKEN",
            ));
        }
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let is_set = |name| {
            variable(name).is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
        };
        Ok(Self {
            path: path.into(),
            name: name.into(),
            revision: revision.into(),
            endpoint: endpoint.trim_end_matches('/').into(),
            token,
            cache: Cache::new(cache.unwrap_or_else(|| home.join("hub"))),
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
        })
    }

    /// An error about this model.
    pub(super) fn error(&self, what: impl Into<String>) -> Error {
        Error::checkpoint(&self.path, what)
    }

    /// The model at a branch, tag or commit.
    pub(super) fn at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.name.clone(), RepoType::Model, revision.into())
    }

    /// Its part of the cache.
    pub(super) fn cached(&self) -> CacheRepo {
        self.cache.repo(self.at(&self.revision))
    }

    /// Where the cache has a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.cached().pointer_path(commit)
    }

    /// Where the cache notes which commit the revision is.
    pub(super) fn reference(&self) -> PathBuf {
        let folder = self.cache.path().join(self.at(&self.revision).folder_name());
        folder.join("refs").join(&self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        for (text, repo, revision) in [
            ("timm/vit_small_patch16_224.augreg_in1k", "timm/vit_small_patch16_224.augreg_in1k", "main"),
            ("a-b/c.d@v1.0", "a-b/c.d", "v1.0"),
            ("a/b@refs/pr/1", "a/b", "refs/pr/1"),
            (&format!("a/b@{hash}"), "a/b", hash),
        ] {
            assert_eq!(parse(text), Some((repo, revision)), "{text}");
        }
    }

    #[test]
    fn what_could_leave_the_cache_is_no_name() {
        let long = format!("a/{}", "b".repeat(129));
        for text in [
            "",
            "a",
            "/",
            "a/",
            "/b",
            "a/b/c",
            "../b",
            "a/..",
            "a/b..c",
            "./b",
            "a/.b",
            "-a/b",
            "a/b@",
            "a/b@..",
            "a/b@/x",
            "a/b@x//y",
            "a/b@x/../../y",
            "a/b@c@d",
            "a b/c",
            "a/b?c",
            "a/b%2e",
            "a/b\\c",
            "a:b/c",
            "a/b\n",
            "ä/b",
            "a/b.",
            &long,
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
