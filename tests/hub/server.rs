//! A hub on the loopback: the paths of the real one, with faults on demand, and a list of what it was asked for.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

/// What goes wrong with the next body of weights.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The connection ends after so many bytes.
    Cut(usize),
    /// It announces and sends only so many bytes.
    Short(usize),
    /// It announces no length, and sends the file and more.
    Long,
    /// The first byte is another one.
    Damaged,
    /// The whole file, whatever part was asked for.
    Whole,
    /// This status instead.
    Status(u16),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) token: Option<String>,
}

/// A commit's files by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
pub(crate) struct State {
    /// Commit and files by `OWNER/NAME` and revision.
    pub(crate) repos: BTreeMap<(String, String), (String, Files)>,
    /// Names that are listed, beside those of the files.
    pub(crate) listed: Vec<String>,
    /// Faults of the next bodies of weights.
    pub(crate) faults: VecDeque<Fault>,
    /// Status and `X-Error-Code` of every list of files, and of every file.
    pub(crate) refuse: [Option<(u16, &'static str)>; 2],
    /// What the hub says of files instead of the truth.
    pub(crate) etag: Option<String>,
    pub(crate) size: Option<usize>,
    pub(crate) asked: Vec<Asked>,
}

pub(crate) struct Hub {
    pub(crate) address: String,
    pub(crate) state: Arc<Mutex<State>>,
}

/// A commit's name, for what `seed` stands for.
pub(crate) fn commit(seed: &str) -> String {
    sha256(seed.as_bytes())[..40].to_string()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

impl Hub {
    pub(crate) fn start() -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let served = state.clone();
        // Ends with the process: it waits for connections and does nothing else.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = served.clone();
                thread::spawn(move || serve(stream, &state, port));
            }
        });
        Hub { address: format!("http://127.0.0.1:{port}"), state }
    }

    /// Serves `files` as a model at its branch `revision`; the commit.
    pub(crate) fn put(&self, name: &str, revision: &str, files: &[(&str, &[u8])]) -> String {
        let files: Files = files.iter().map(|(file, bytes)| (file.to_string(), bytes.to_vec())).collect();
        let commit = commit(&format!("{name} {revision} {files:?}"));
        let mut state = self.state.lock().unwrap();
        for known_as in [revision, &commit] {
            state.repos.insert((name.into(), known_as.into()), (commit.clone(), files.clone()));
        }
        commit
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// The requests since the last call.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, port: u16) {
    let Some((path, headers)) = request(&mut stream) else { return };
    let mut state = state.lock().unwrap();
    let range = headers.get("range").cloned();
    state.asked.push(Asked { path: path.clone(), range: range.clone(), token: headers.get("authorization").cloned() });
    let answer = answer(&mut state, &path, range.as_deref(), port);
    drop(state);
    // A client that has gone away is no fault of the server.
    let _ = stream.write_all(&answer);
}

fn request(stream: &mut TcpStream) -> Option<(String, BTreeMap<String, String>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_string();
    let headers = lines.filter_map(|line| line.split_once(": "));
    Some((path, headers.map(|(name, value)| (name.to_lowercase(), value.to_string())).collect()))
}

fn respond(status: u16, headers: &[(&str, String)], body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} Answer\r\nConnection: close\r\n");
    headers.iter().for_each(|(name, value)| out += &format!("{name}: {value}\r\n"));
    let mut out = format!("{out}\r\n").into_bytes();
    out.extend(body);
    out
}

fn whole(status: u16, headers: &[(&str, String)], body: &[u8]) -> Vec<u8> {
    let length = ("Content-Length", body.len().to_string());
    respond(status, &[headers, &[length]].concat(), body)
}

fn refused(status: u16, code: &str) -> Vec<u8> {
    whole(status, &[("X-Error-Code", code.to_string())], b"{}")
}

fn answer(state: &mut State, path: &str, range: Option<&str>, port: u16) -> Vec<u8> {
    if let Some(rest) = path.strip_prefix("/api/models/") {
        if let Some((status, code)) = state.refuse[0] {
            return refused(status, code);
        }
        let Some((name, revision)) = rest.split_once("/revision/") else { return refused(404, "") };
        let key = (name.to_string(), revision.replace("%2F", "/"));
        let Some((commit, files)) = state.repos.get(&key) else {
            let known = state.repos.keys().any(|(known, _)| known == name);
            return refused(404, if known { "RevisionNotFound" } else { "RepoNotFound" });
        };
        let names = files.keys().chain(&state.listed);
        let siblings: Vec<_> = names.map(|file| serde_json::json!({"rfilename": file})).collect();
        let body = serde_json::json!({"id": name, "sha": commit, "siblings": siblings});
        return whole(200, &[], body.to_string().as_bytes());
    }
    if let Some(hash) = path.strip_prefix("/storage/") {
        let files = state.repos.values().flat_map(|(_, files)| files.values());
        let Some(bytes) = files.into_iter().find(|bytes| sha256(bytes) == hash).cloned() else {
            return refused(404, "");
        };
        return body(state.faults.pop_front(), &bytes, range);
    }
    let Some((name, rest)) = path.trim_start_matches('/').split_once("/resolve/") else { return refused(404, "") };
    if let Some((status, code)) = state.refuse[1] {
        return refused(status, code);
    }
    let Some((revision, file)) = rest.split_once('/') else { return refused(404, "") };
    let Some((commit, files)) = state.repos.get(&(name.to_string(), revision.to_string())) else {
        return refused(404, "RevisionNotFound");
    };
    let Some(bytes) = files.get(file) else { return refused(404, "EntryNotFound") };
    let hash = sha256(bytes);
    let commit = ("X-Repo-Commit", commit.clone());
    // Weights are in another place; all else comes from the hub itself.
    if file.ends_with(".safetensors") {
        let headers = [
            commit,
            ("ETag", "\"of the redirect\"".to_string()),
            ("X-Linked-Etag", format!("\"{}\"", state.etag.as_ref().unwrap_or(&hash))),
            ("X-Linked-Size", state.size.unwrap_or(bytes.len()).to_string()),
            ("Location", format!("http://localhost:{port}/storage/{hash}")),
        ];
        return whole(302, &headers, b"Found. Redirecting");
    }
    whole(200, &[commit, ("ETag", format!("W/\"{}\"", &hash[..40]))], bytes)
}

fn body(fault: Option<Fault>, bytes: &[u8], range: Option<&str>) -> Vec<u8> {
    let whole_file = matches!(fault, Some(Fault::Whole));
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from: usize = from.filter(|_| !whole_file).unwrap_or(0);
    if from >= bytes.len() {
        return refused(416, "");
    }
    let part = &bytes[from..];
    let range = ("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()));
    let (status, headers) = if from > 0 { (206, vec![range]) } else { (200, Vec::new()) };
    match fault {
        None | Some(Fault::Whole) => whole(status, &headers, part),
        Some(Fault::Cut(at)) => {
            let length = ("Content-Length", part.len().to_string());
            respond(status, &[headers, vec![length]].concat(), &part[..at.min(part.len())])
        }
        Some(Fault::Short(length)) => whole(200, &[], &bytes[..length]),
        Some(Fault::Long) => respond(200, &[], &[bytes, b"more"].concat()),
        Some(Fault::Damaged) => {
            let mut bytes = part.to_vec();
            bytes[0] ^= 1;
            whole(status, &headers, &bytes)
        }
        Some(Fault::Status(status)) => refused(status, ""),
    }
}
