//! What can go wrong with the catalog.

use model::ErrorKind;
use serde::{Deserialize, Serialize};

/// An error of the catalog. `Refused` is the deterministic answer of the state machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Error {
    /// The command contradicts the catalog; nothing was changed.
    #[error("{message}")]
    Refused {
        /// What a caller can do about it.
        kind: ErrorKind,
        /// Names the object.
        message: String,
    },
    /// The catalog cannot be changed now.
    #[error("the catalog is unavailable: {0}")]
    Unavailable(String),
    /// Nobody knows whether the command was, or will be, done.
    #[error("whether it was done is not known: {0}")]
    Unknown(String),
    /// Stored bytes are not what was written.
    #[error("the catalog is damaged: {0}")]
    Corrupt(String),
}

/// Shorthand of a result of the catalog.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Returns what a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { kind, .. } => *kind,
            Self::Unavailable(_) | Self::Unknown(_) => ErrorKind::Unavailable,
            Self::Corrupt(_) => ErrorKind::Corrupt,
        }
    }

    pub(crate) fn refused(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Refused { kind, message: message.into() }
    }

    pub(crate) fn not_found(what: &str, name: &str) -> Self {
        Self::refused(ErrorKind::NotFound, format!("{what} \"{name}\" does not exist"))
    }

    pub(crate) fn exists(what: &str, name: &str) -> Self {
        Self::refused(ErrorKind::AlreadyExists, format!("{what} \"{name}\" already exists"))
    }
}
