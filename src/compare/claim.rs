//! Which process makes which run, where several work on one comparison: on one machine, or on several with a shared file system.
//!
//! A claim is a file in the run's folder. Whoever creates it, exclusively, makes the run. It names its owner, and the owner
//! writes it anew every few seconds. Of a dead owner's claim nothing changes any more, so another process takes the run over.
//! No clocks are compared: each process watches a claim for itself. On the owner's own machine its lock tells at once.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::random;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::stop;

/// The file in a run's folder.
const CLAIM: &str = "claim";
/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(5);
/// Without a sign of life for so long, an owner is dead.
const DEAD: Duration = Duration::from_secs(60);
/// Between two looks at what other processes have made.
const LOOK: Duration = Duration::from_secs(2);

/// What a claim says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// The machine.
    host: String,
    /// The process on it.
    process: u32,
    /// Tells apart two claims of one process, and processes of one number in two containers.
    token: u64,
    /// Whether the file is locked as long as the owner lives, as processes on its machine can see.
    locked: bool,
    /// Signs of life so far.
    beat: u64,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)
    }
}

/// What came of trying to claim a run.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is ours until this is dropped.
    Ours(Claim),
    /// Another process has it, which may not have said yet who it is.
    Others(Option<Owner>),
}

/// How this process claims runs, and what it has seen of the claims of others.
#[derive(Debug)]
pub(super) struct Claims {
    host: String,
    beat: Duration,
    dead: Duration,
    /// What each claim of another process said last, and since when.
    seen: HashMap<PathBuf, (Vec<u8>, Instant)>,
}

impl Claims {
    pub(super) fn new() -> Claims {
        Claims::of(gethostname::gethostname().to_string_lossy().into_owned(), BEAT, DEAD)
    }

    fn of(host: String, beat: Duration, dead: Duration) -> Claims {
        Claims { host, beat, dead, seen: HashMap::new() }
    }

    /// Claims the run in `dir`, and makes the folder.
    ///
    /// # Errors
    /// Where the folder can't be written.
    pub(super) fn take(&mut self, dir: &Path) -> Result<Taken> {
        fs::create_dir_all(dir).map_err(|e| Error::io(dir, "cannot create this folder", e))?;
        let path = dir.join(CLAIM);
        loop {
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => {
                    self.seen.remove(&path);
                    return Claim::begin(path, file, &self.host, self.beat).map(Taken::Ours);
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io(&path, "cannot claim this run", e)),
            }
            let text = match fs::read(&path) {
                Ok(text) => text,
                // It has just ended.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                // Nothing is known: wait, as for a sign of life.
                Err(_) => {
                    self.seen.remove(&path);
                    return Ok(Taken::Others(None));
                }
            };
            let owner: Option<Owner> = serde_json::from_slice(&text).ok();
            // Held until the file is out of the way, so that one process alone finds the owner dead.
            let free = owner.as_ref().filter(|o| o.locked && o.host == self.host).and_then(|_| unlocked(&path));
            if free.is_none() && !self.silent(&path, &text) {
                return Ok(Taken::Others(owner));
            }
            if !remove(&path, &text)? {
                self.seen.remove(&path);
                return Ok(Taken::Others(None));
            }
        }
    }

    /// Whether a claim has said this, and nothing else, for too long.
    fn silent(&mut self, path: &Path, text: &[u8]) -> bool {
        match self.seen.get(path) {
            Some((before, since)) if before == text => since.elapsed() > self.dead,
            _ => {
                self.seen.insert(path.into(), (text.to_vec(), Instant::now()));
                false
            }
        }
    }
}

/// The file of a claim, locked, if its owner no longer has it.
fn unlocked(path: &Path) -> Option<File> {
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    file.try_lock().ok().map(|()| file)
}

/// Removes the claim at `path` if it still says `text`. Of several processes one alone succeeds.
fn remove(path: &Path, text: &[u8]) -> Result<bool> {
    let away = path.with_extension(format!("dead-{:016x}", random::<u64>()));
    match fs::rename(path, &away) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::io(path, "cannot take this claim over", e)),
    }
    let same = fs::read(&away).is_ok_and(|found| found == text);
    if !same {
        // Another process was faster: this is its claim. Where it noticed already that the file was gone, it has ended.
        let _ = fs::hard_link(&away, path);
    }
    let _ = fs::remove_file(&away);
    Ok(same)
}

/// A run that is ours.
#[derive(Debug)]
pub(super) struct Claim {
    end: Option<Sender<()>>,
    heart: Option<JoinHandle<()>>,
}

impl Claim {
    fn begin(path: PathBuf, mut file: File, host: &str, every: Duration) -> Result<Claim> {
        // Elsewhere a lock would keep others from reading who has it.
        let locked = cfg!(unix) && file.try_lock().is_ok();
        let mut owner = Owner { host: host.into(), process: std::process::id(), token: random(), locked, beat: 0 };
        sign(&mut file, &owner).map_err(|e| Error::io(&path, "cannot claim this run", e))?;
        let (end, ended) = channel();
        let heart = std::thread::spawn(move || {
            // Of two processes that find one owner dead, the slower may move the other's claim away for a moment.
            let mut missed = 0;
            while missed < 2 && ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                if is_of(&path, owner.token) {
                    missed = 0;
                    owner.beat += 1;
                    // A disk that is full for a while may be none at the next beat.
                    let _ = sign(&mut file, &owner);
                } else {
                    missed += 1;
                }
            }
            if missed > 1 {
                let dir = path.parent().unwrap_or(&path).display();
                let silent = DEAD.as_secs();
                stop::fail(format!(
                    "{dir}: another process has taken this run over: this one was silent for {silent} s"
                ));
            }
            if is_of(&path, owner.token) {
                let _ = fs::remove_file(&path);
            }
        });
        Ok(Claim { end: Some(end), heart: Some(heart) })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(heart) = self.heart.take() {
            let _ = heart.join();
        }
    }
}

/// Writes over the sign that was there; all signs have one length, so that no reader finds the end of the one before.
fn sign(file: &mut File, owner: &Owner) -> std::io::Result<()> {
    let text = serde_json::to_string(owner).expect("plain values always serialise");
    file.rewind()?;
    file.write_all(format!("{text:<255}\n").as_bytes())?;
    file.sync_data()
}

fn is_of(path: &Path, token: u64) -> bool {
    let owner = fs::read(path).ok().and_then(|text| serde_json::from_slice::<Owner>(&text).ok());
    owner.is_some_and(|owner| owner.token == token)
}

/// Sleeps until other processes may have come further.
///
/// # Errors
/// Where this one was asked to stop.
pub(super) fn wait() -> Result<()> {
    let until = Instant::now() + LOOK;
    while Instant::now() < until {
        stop::check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    fn on(host: &str) -> Claims {
        Claims::of(host.into(), SHORT, 20 * SHORT)
    }

    fn ours(taken: Taken) -> Claim {
        match taken {
            Taken::Ours(claim) => claim,
            Taken::Others(owner) => panic!("{owner:?} has it"),
        }
    }

    #[test]
    fn one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let claim = ours(on("here").take(&run).unwrap());
        for host in ["here", "there"] {
            let Taken::Others(Some(owner)) = on(host).take(&run).unwrap() else { panic!("two owners") };
            assert_eq!(owner.to_string(), format!("process {} on here", std::process::id()));
        }
        drop(claim);
        assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
        ours(on("there").take(&run).unwrap());
    }

    #[test]
    fn a_living_owner_keeps_its_run_and_a_dead_one_loses_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut there = on("there");
        let claim = ours(on("here").take(dir.path()).unwrap());
        for _ in 0..60 {
            assert!(matches!(there.take(dir.path()).unwrap(), Taken::Others(_)));
            std::thread::sleep(SHORT);
        }
        // What a machine leaves that has lost its power.
        let text = fs::read(dir.path().join(CLAIM)).unwrap();
        drop(claim);
        fs::write(dir.path().join(CLAIM), text).unwrap();
        let started = Instant::now();
        let claim = loop {
            match there.take(dir.path()).unwrap() {
                Taken::Ours(claim) => break claim,
                Taken::Others(_) => std::thread::sleep(SHORT),
            }
        };
        assert!(started.elapsed() > 20 * SHORT, "{:?}", started.elapsed());
        drop(claim);
    }

    #[test]
    fn on_one_machine_a_killed_owner_is_known_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner { host: "here".into(), process: 1, token: 7, locked: true, beat: 3 };
        fs::write(dir.path().join(CLAIM), serde_json::to_vec(&owner).unwrap()).unwrap();
        assert!(matches!(on("there").take(dir.path()).unwrap(), Taken::Others(Some(found)) if found == owner));
        if cfg!(unix) {
            ours(on("here").take(dir.path()).unwrap());
        }
    }

    #[test]
    fn of_many_that_find_a_dead_owner_one_takes_over() {
        let dir = tempfile::tempdir().unwrap();
        let dead = Owner { host: "gone".into(), process: 1, token: 7, locked: true, beat: 3 };
        for _ in 0..5 {
            fs::write(dir.path().join(CLAIM), serde_json::to_vec(&dead).unwrap()).unwrap();
            let watch = || {
                let mut claims = on("here");
                loop {
                    match claims.take(dir.path()).unwrap() {
                        Taken::Ours(claim) => return Some(claim),
                        Taken::Others(Some(owner)) if owner != dead => return None,
                        Taken::Others(_) => std::thread::sleep(SHORT / 20),
                    }
                }
            };
            let taken: Vec<Option<Claim>> = std::thread::scope(|scope| {
                let watching: Vec<_> = (0..4).map(|_| scope.spawn(watch)).collect();
                watching.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(taken.iter().flatten().count(), 1);
        }
    }
}
