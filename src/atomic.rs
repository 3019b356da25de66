//! Files that are either the old one or the whole new one, never something in between.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Writes `bytes` to `path`, replacing any earlier file in one step.
///
/// # Errors
/// Where the folder can't be written, the disk is full, or `path` is something other than a regular file. The old
/// file is then untouched and nothing is left beside it.
pub fn atomic_write(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write(bytes)?;
    file.commit()
}

/// A file under way: written under another name in the same folder, it takes its own name at [`AtomicFile::commit`].
/// Dropped before that, it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    temporary: PathBuf,
    out: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Opens a temporary file beside `path`.
    ///
    /// # Errors
    /// Where the folder is missing or can't be written, or `path` is a folder or a device.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);

        let path = path.as_ref().to_path_buf();
        // A rename would happily put a plain file in the place of /dev/null.
        if fs::metadata(&path).is_ok_and(|m| !m.is_file()) || path.file_name().is_none() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(Error::io(path, "cannot write", source));
        }
        loop {
            // Not made of the target's name, which may already be as long as a name can be.
            let name = format!(".tpgm-{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
            let temporary = folder(&path).join(name);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => return Ok(Self { path, temporary, out: Some(BufWriter::new(file)) }),
                // Left by a process that was killed and had our number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io(path, "cannot write", e)),
            }
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// As the system gives them, a full disk above all.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        out.write_all(bytes).map_err(|e| Error::io(&self.path, "cannot write", e))
    }

    /// Brings everything to the disk and gives the file its name.
    ///
    /// # Errors
    /// As the system gives them; the temporary file is then removed and the old file stays.
    pub fn commit(mut self) -> Result<()> {
        let Some(out) = self.out.take() else { return Ok(()) };
        let done = out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&self.temporary, &self.path));
        if let Err(e) = done {
            let _ = fs::remove_file(&self.temporary);
            return Err(Error::io(&self.path, "cannot write", e));
        }
        // The file is whole by now; some file systems can't sync a folder, which is no reason to report a failure.
        #[cfg(unix)]
        let _ = File::open(folder(&self.path)).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // `commit` has taken the writer.
        if self.out.take().is_some() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Removes what processes that were killed have left in `dir`. Only for folders that nobody else writes.
pub fn remove_temporaries(dir: &Path) {
    let is_ours = |name: &str| name.starts_with(".tpgm-") && name.ends_with(".tmp");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_str().is_some_and(is_ours)) {
        let _ = fs::remove_file(entry.path());
    }
}

/// The folder that holds `path`.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
