//! Files of the hub on their way into the cache: whole and with the right digest, or not there at all.
//!
//! `hf-hub` has the cache's layout, the addresses, and requests with the token. Its own download takes a body that ends early for a
//! whole file and compares no digest, so bytes are read here: into `ETAG.incomplete`, which the next attempt goes on with, and
//! from there, once checked, to the name that everybody reads.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use hf_hub::Repo;
use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder};
use sha2::{Digest, Sha256};

use super::hub_model::{Model, is_word, watched};
use super::shards::CHUNK;
use crate::error::{Error, Result, quote};

/// Attempts at a request or a file, and the pause after the first; each further one is three times as long.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(200);
/// How long the hub may be silent.
const SILENCE: Duration = Duration::from_secs(30);
/// Bytes that a repository's list of files may take.
const MAX_LISTING: u64 = 32 << 20;
/// Redirects that are followed.
const HOPS: u32 = 5;

/// Why something could not be had.
pub(super) enum Fault {
    /// A connection or a server failed: another attempt may do better.
    Again(String),
    /// Another attempt would fail as well.
    Final(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Final(error)
    }
}

/// What the hub answers, before its body is read.
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Box<dyn Read>,
}

impl Answer {
    /// A header by its name in small letters.
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.parse().ok()
    }

    /// Where a body of part of a file begins, and the whole file's length.
    fn range(&self) -> Option<(u64, u64)> {
        let (range, whole) = self.header("content-range")?.strip_prefix("bytes ")?.split_once('/')?;
        Some((range.split_once('-')?.0.parse().ok()?, whole.parse().ok()?))
    }
}

/// A revision's commit and the names of its files.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// What a file is, as the hub says before it sends it.
struct Head {
    /// The name that the cache has it under: its SHA-256 where it is stored as a large file.
    etag: String,
    size: u64,
    /// The answer, where it has the file itself.
    answer: Option<Answer>,
}

impl Head {
    fn sha256(&self) -> Option<&str> {
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        (self.etag.len() == 64 && self.etag.chars().all(hex)).then_some(&self.etag)
    }
}

/// A model's side of the hub.
pub(super) struct Remote<'a> {
    model: &'a Model,
    api: Api,
}

impl<'a> Remote<'a> {
    pub(super) fn new(model: &'a Model) -> Result<Self> {
        let api = ApiBuilder::from_cache(model.cache.clone())
            .with_endpoint(model.endpoint.clone())
            .with_token(model.token.clone())
            .with_user_agent(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|e| model.error(format!("no connection to the hub: {e}")))?;
        Ok(Self { model, api })
    }

    /// Attempts at everything.
    pub(super) fn tries(&self) -> u32 {
        TRIES
    }

    /// What a fault is once nothing more is tried.
    pub(super) fn given_up(&self, fault: Fault) -> Error {
        match fault {
            Fault::Final(error) => error,
            Fault::Again(what) => self.model.error(format!("{what}: check the connection, and call again")),
        }
    }

    /// The commit that the revision is now, and its files, in up to so many attempts.
    pub(super) fn listing(&self, tries: u32) -> Result<Listing, Fault> {
        let model = self.model;
        let repo = model.at(&model.revision);
        let url = format!("{}/api/{}", model.endpoint, repo.api_url());
        let mut text = Vec::new();
        again(tries, || {
            text.clear();
            let answer = self.accepted(self.get(&repo, &url, 0, HOPS)?, None)?;
            let read = answer.body.take(MAX_LISTING).read_to_end(&mut text);
            read.map(drop).map_err(|e| Fault::Again(format!("the hub's list of files is cut off: {e}")))
        })?;
        let not_understood = |e| model.error(format!("{url} has no list of files ({e}): check HF_ENDPOINT"));
        let RepoInfo { sha, siblings } = serde_json::from_slice(&text).map_err(not_understood)?;
        if !is_word(&sha) {
            return Err(model.error(format!("the hub names a commit {:?}, which is none", quote(&sha))).into());
        }
        Ok(Listing { commit: sha, files: siblings.into_iter().map(|file| file.rfilename).collect() })
    }

    /// Sees to it that the cache has a file of a commit.
    pub(super) fn bring(&self, commit: &str, file: &str) -> Result<()> {
        match self.model.snapshot(commit).join(file).exists() {
            true => Ok(()),
            false => again(TRIES, || self.attempt(commit, file)).map_err(|fault| self.given_up(fault)),
        }
    }

    fn attempt(&self, commit: &str, file: &str) -> Result<(), Fault> {
        let repo = self.model.at(commit);
        let url = self.api.repo(repo.clone()).url(file);
        let mut head = self.head(&repo, &url, file)?;
        let blob = self.model.cached().blob_path(&head.etag);
        let pointer = self.model.snapshot(commit).join(file);
        let locks = self.model.cache.path().join(".locks").join(repo.folder_name());
        for folder in [blob.parent(), pointer.parent(), Some(locks.as_path())].into_iter().flatten() {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, "cannot write", e))?;
        }
        // Python's lock too: of two that want the same file, one fetches it.
        let lock = locks.join(format!("{}.lock", head.etag));
        let lock = File::create(&lock).and_then(|file| match file.lock() {
            // Some file systems have no locks.
            Err(e) if e.kind() != io::ErrorKind::Unsupported => Err(e),
            _ => Ok(file),
        });
        let lock = lock.map_err(|e| Error::io(&locks, "cannot lock", e))?;
        if fs::metadata(&blob).map_or(true, |there| there.len() != head.size) {
            let part = blob.with_file_name(format!("{}.incomplete", head.etag));
            self.download(&repo, &url, file, &mut head, &part)?;
            fs::rename(&part, &blob).map_err(|e| Error::io(&blob, "cannot write", e))?;
        }
        drop(lock);
        point(&pointer, &blob).map_err(|e| Error::io(&pointer, "cannot write", e))?;
        Ok(())
    }

    /// Asks for a file without leaving the hub: behind a redirect to a storage, nobody says what the file is.
    fn head(&self, repo: &Repo, url: &str, file: &str) -> Result<Head, Fault> {
        let mut url = url.to_string();
        let (mut etag, mut size) = (None, None);
        for _ in 0..=HOPS {
            let answer = self.accepted(self.get(repo, &url, 0, 0)?, Some(file))?;
            let header = |name: &str| answer.header(name).map(String::from);
            let redirect = (300..400).contains(&answer.status);
            etag = etag.or_else(|| header("x-linked-etag"));
            size = size.or_else(|| header("x-linked-size"));
            if let Some(path) = header("location").filter(|to| redirect && to.starts_with('/')) {
                // A model that was renamed, or a copy nearby.
                let host = url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at);
                url = format!("{}{path}", &url[..host]);
                continue;
            }
            if !redirect {
                // Those of a redirect would be about its own body.
                etag = etag.or_else(|| header("etag"));
                size = size.or_else(|| header("content-length"));
            }
            let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_string());
            let (Some(etag), Some(size)) = (etag.filter(|etag| is_word(etag)), size.and_then(|size| size.parse().ok()))
            else {
                let what = format!("the hub does not say what {file} is (no usable ETag and size): check HF_ENDPOINT");
                return Err(self.model.error(what).into());
            };
            return Ok(Head { etag, size, answer: (!redirect).then_some(answer) });
        }
        Err(self.model.error(format!("the hub redirects {file} in a circle: check HF_ENDPOINT")).into())
    }

    /// Fetches a file, or the rest of it, to `part`, and checks it.
    fn download(&self, repo: &Repo, url: &str, file: &str, head: &mut Head, part: &Path) -> Result<(), Fault> {
        let unwritable = |e: io::Error| Fault::Final(Error::io(part, "cannot write", e));
        let size = head.size;
        let differs = |what: String| Fault::Final(self.model.error(format!("{file}: {what}: try again later")));
        // Without a digest nobody could tell that two halves don't belong together.
        let there = if head.sha256().is_some() { fs::metadata(part).map_or(0, |part| part.len()) } else { 0 };
        let begun = if there > size { 0 } else { there };
        let mut out = OpenOptions::new().create(true).truncate(false).write(true).open(part).map_err(unwritable)?;
        if begun < size {
            let answer = match head.answer.take().filter(|_| begun == 0) {
                Some(answer) => answer,
                None => self.get(repo, url, begun, HOPS)?,
            };
            if answer.status == 416 {
                fs::remove_file(part).map_err(unwritable)?;
                return Err(Fault::Again(format!("{file}: the hub does not go on at byte {begun}")));
            }
            let answer = self.accepted(answer, Some(file))?;
            let (from, whole) = match answer.range().filter(|_| answer.status == 206) {
                Some((from, whole)) => (from, Some(whole)),
                None => (0, answer.number("content-length")),
            };
            if let Some(whole) = whole.filter(|whole| *whole != size) {
                return Err(differs(format!("the hub says that it has {size} bytes, and sends {whole}")));
            }
            if from != 0 && from != begun {
                return Err(differs(format!("the hub sends it from byte {from} on instead of {begun}")));
            }
            let mut done = from;
            out.set_len(done).and_then(|()| out.seek(SeekFrom::Start(done))).map_err(unwritable)?;
            self.copy(answer.body, &mut out, file, &mut done, size).map_err(|fault| match fault {
                Some(e) => unwritable(e),
                None if done > size => differs(format!("the hub says that it has {size} bytes, and sends more")),
                None => Fault::Again(format!("{file}: the connection ended after {done} of {size} bytes")),
            })?;
        }
        out.set_len(size).and_then(|()| out.sync_all()).map_err(unwritable)?;
        let Some(want) = head.sha256() else { return Ok(()) };
        let got = sha256(part).map_err(|e| Error::io(part, "cannot read", e))?;
        if got == want {
            return Ok(());
        }
        fs::remove_file(part).map_err(unwritable)?;
        let what = format!("its SHA-256 is {got}, and {want} on the hub");
        Err(if begun > 0 { Fault::Again(format!("{file}: {what}")) } else { differs(what) })
    }

    /// Copies a body that should end at byte `size`. The error is that of writing; nothing where the body is at fault.
    fn copy(
        &self,
        mut body: Box<dyn Read>,
        out: &mut File,
        file: &str,
        done: &mut u64,
        size: u64,
    ) -> Result<(), Option<io::Error>> {
        let is_large = file.ends_with(".safetensors");
        let mut watch = is_large.then(|| watched(&format!("{}/{file}", self.model.path.display()), size)).flatten();
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(None),
            };
            *done += read as u64;
            if *done > size {
                return Err(None);
            }
            out.write_all(&buffer[..read]).map_err(Some)?;
            watch.iter_mut().for_each(|watch| watch(*done));
        }
        if *done == size { Ok(()) } else { Err(None) }
    }

    /// Asks for an address, from byte `from` on. A redirect to another host never takes the token along.
    fn get(&self, repo: &Repo, url: &str, from: u64, redirects: u32) -> Result<Answer, Fault> {
        // hf-hub has no request to another address than this one, but what it makes can be sent there.
        let mut request = self.api.repo(repo.clone()).info_request().uri(url).header("Accept-Encoding", "identity");
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let response = request
            .config()
            .http_status_as_error(false)
            .max_redirects(redirects)
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build()
            .call()
            .map_err(|e| Fault::Again(format!("{} cannot be reached ({e})", self.model.endpoint)))?;
        let (parts, body) = response.into_parts();
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_string(), text(value.as_bytes())));
        Ok(Answer { status: parts.status.as_u16(), headers: headers.collect(), body: Box::new(body.into_reader()) })
    }

    /// An answer that has the requested content, or says where that is.
    fn accepted(&self, answer: Answer, file: Option<&str>) -> Result<Answer, Fault> {
        let Model { name, revision, endpoint, token, .. } = self.model;
        let what = match (answer.status, answer.header("x-error-code"), file) {
            (200..=399, ..) => return Ok(answer),
            (status @ (408 | 500..), ..) => return Err(Fault::Again(format!("the hub answers {status}"))),
            (429, ..) => "the hub takes no more requests for now (429): wait some minutes, or set HF_TOKEN".into(),
            (403, ..) | (_, Some("GatedRepo"), _) => {
                let status = answer.status;
                format!(
                    "access to this model is restricted ({status}): accept its terms at {endpoint}/{name}, and set HF_TOKEN to \
                     a token that may read it"
                )
            }
            (401, ..) if token.is_some() => {
                "no such model, or one that this HF_TOKEN may not read (401): check the name and the token".into()
            }
            (401, ..) => {
                "no such model, or a private one (401): check the name, or set HF_TOKEN to a token that may read it"
                    .into()
            }
            (404, _, Some(file)) => format!("the hub lists {file}, but does not have it (404): try again later"),
            (404, Some("RevisionNotFound"), _) => format!("it has no revision {revision} (404): check what follows @"),
            (404, ..) => format!("no such model at {endpoint}, or not this revision of it (404): check the name"),
            (status, ..) => format!("the hub answers {status}: check the name and HF_ENDPOINT"),
        };
        Err(self.model.error(what).into())
    }
}

/// Attempts something up to so many times, with pauses.
fn again<T>(tries: u32, mut attempt: impl FnMut() -> Result<T, Fault>) -> Result<T, Fault> {
    let mut pause = PAUSE;
    for _ in 1..tries {
        match attempt() {
            Err(Fault::Again(what)) => tracing::debug!("{what}: once more"),
            done => return done,
        }
        sleep(pause);
        pause *= 3;
    }
    attempt()
}

/// SHA-256 of a file in hexadecimal.
fn sha256(path: &Path) -> io::Result<String> {
    let (mut file, mut digest) = (File::open(path)?, Sha256::new());
    io::copy(&mut file, &mut digest)?;
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes `pointer`, in a folder of `snapshots/`, the name of a file in `blobs/`.
fn point(pointer: &Path, blob: &Path) -> io::Result<()> {
    if pointer.exists() {
        return Ok(());
    }
    // A link to a file that is not there any more.
    if pointer.is_symlink() {
        fs::remove_file(pointer)?;
    }
    #[cfg(unix)]
    {
        let name = blob.file_name().unwrap_or_default();
        match std::os::unix::fs::symlink(Path::new("../../blobs").join(name), pointer) {
            // Somebody else was faster.
            Err(_) if pointer.exists() => Ok(()),
            done => done,
        }
    }
    // Elsewhere not everybody may make links; Python moves files there too.
    #[cfg(not(unix))]
    fs::rename(blob, pointer)
}
