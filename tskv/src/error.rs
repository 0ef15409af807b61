//! What can go wrong in storage, by what the caller can do about it.

use std::path::{Path, PathBuf};

use model::ErrorKind;
use model::wire::Malformed;

/// An error of storage.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk did not do what it was asked.
    #[error("{context}: {source}")]
    Io {
        /// What was being done, and to which path.
        context: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Stored bytes are not what was written.
    #[error("corrupt file {path} at byte {offset}: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A command's bytes are not a command of a version known here.
    #[error("unreadable command: {0}")]
    Command(Malformed),
    /// The disk is full: nothing can be appended until space is freed.
    #[error("no space left for the write-ahead log in {0}")]
    NoSpace(PathBuf),
    /// The log or vnode was stopped after an earlier failure or by its owner.
    #[error("storage is stopped: {0}")]
    Stopped(String),
}

/// Shorthand of a result of storage.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Returns what a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Internal,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Command(_) => ErrorKind::InvalidInput,
            Self::NoSpace(_) => ErrorKind::LimitReached,
            Self::Stopped(_) => ErrorKind::Unavailable,
        }
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, reason: impl ToString) -> Self {
        Self::Corrupt { path: path.to_path_buf(), offset, reason: reason.to_string() }
    }
}

/// Gives an IO error its context.
pub(crate) trait Context<T> {
    fn context(self, doing: &str, path: &Path) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, doing: &str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { context: format!("{doing} {}", path.display()), source })
    }
}
