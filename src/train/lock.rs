//! A run directory is written by one process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The file in the run directory. The system releases it when its process ends, however it ends.
const LOCK: &str = "lock";

/// The directory of a run, as long as this process writes it. The file goes with it.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// # Errors
    /// [`Error::Train`] naming the process that has it, or a folder that can't be written.
    pub(crate) fn take(dir: &Path) -> Result<Lock> {
        let path = dir.join(LOCK);
        let failed = |e| Error::io(&path, "cannot lock this run", e);
        loop {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
            match file.try_lock() {
                // Its last owner may have removed it since it was opened: then there is another file of that name, or none.
                Ok(()) if !is_at(&file, &path) => continue,
                Ok(()) => {
                    let owner = format!("process {}\n", std::process::id());
                    let written =
                        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(owner.as_bytes()));
                    written.map_err(failed)?;
                    return Ok(Lock { path, file });
                }
                Err(TryLockError::WouldBlock) => {
                    let mut owner = String::new();
                    let _ = file.read_to_string(&mut owner);
                    let owner = if owner.trim().is_empty() { "another process" } else { owner.trim() };
                    return Err(Error::Train(format!(
                        "{}: {owner} is writing this run: wait for its end, stop it, or give another --out",
                        dir.display()
                    )));
                }
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
        }
    }
}

/// Whether `path` is still `file`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |m: fs::Metadata| (m.dev(), m.ino());
    file.metadata().is_ok_and(|own| fs::metadata(path).is_ok_and(|there| id(own) == id(there)))
}

/// Elsewhere an open file can't be removed.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is locked, so that nobody removes the file of the next owner.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert!(!dir.path().join(LOCK).exists());
        // What a killed process leaves is no lock.
        fs::write(dir.path().join(LOCK), "process 1\n").unwrap();
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn many_at_once_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let held = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(lock) = Lock::take(dir.path()) {
                            assert_eq!(held.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                            held.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            drop(lock);
                        }
                    }
                });
            }
        });
    }
}
