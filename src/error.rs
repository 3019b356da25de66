//! The one error type of the crate's boundary: what went wrong, where, and what to do about it, on one line.

use std::path::{Path, PathBuf};

/// Everything that a user's machine, files or flags can make go wrong. A bug of ours is an assert instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable adapter, or the driver rejected our work.
    #[error("{0}")]
    Adapter(String),
    /// The device was lost in the middle of the work; a new one may do it.
    #[error("{0}")]
    Lost(String),
    /// The adapter's limits or memory are too small for this model; says which and how much is needed.
    #[error("{0}")]
    Limit(String),
    /// A checkpoint or its `config.json` that can't be read, understood or written.
    #[error("{}: {what}", path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it and what to do.
        what: String,
    },
    /// An image, class folder, list file or CSV that can't be used.
    #[error("{}: {what}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it and what to do.
        what: String,
    },
    /// The operating system refused to read or write.
    #[error("{}: {what}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted, as in "cannot write".
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A training run that can't go on, such as one whose loss is not a number.
    #[error("{0}")]
    Train(String),
    /// Work that Ctrl-C or SIGTERM has ended, with its state saved: exit code 130 or 143, as shells have it.
    #[error("{what}")]
    Stopped {
        /// The signal's number.
        signal: u8,
        /// By which signal, and how to go on.
        what: String,
    },
    /// Flags that do not fit together: exit code 2.
    #[error("{0}")]
    Usage(String),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A checkpoint error about `path`.
    pub fn checkpoint(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.as_ref().into(), what: what.into() }
    }

    /// A data error about `path`.
    pub fn data(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::Data { path: path.as_ref().into(), what: what.into() }
    }

    /// An operating-system error while doing `what` ("cannot read", "cannot write") to `path`.
    pub fn io(path: impl AsRef<Path>, what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().into(), what: what.into(), source }
    }

    /// The process exit code: 2 for wrong usage, 128 and the number of a signal, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Stopped { signal, .. } => 128 + signal,
            _ => 1,
        }
    }
}
