//! What can go wrong between a query and its data.

use model::{BucketId, ErrorKind};

/// An error of the cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalog refused or is away.
    #[error(transparent)]
    Meta(#[from] meta::Error),
    /// Storage of this node failed.
    #[error(transparent)]
    Storage(#[from] tskv::Error),
    /// A replica set cannot take or give rows now.
    #[error(transparent)]
    Replication(#[from] replication::Error),
    /// Memory for new rows did not become free in time.
    #[error("no memory for new rows was freed within {seconds} s")]
    Overloaded {
        /// How long was waited.
        seconds: u64,
    },
    /// Others did not let go of the rows that are to be changed in time.
    #[error("writes or changes by others did not end within {seconds} s")]
    Locked {
        /// How long was waited.
        seconds: u64,
    },
    /// A tenant may not have as many series.
    #[error("tenant \"{tenant}\" may have {max} series on a node (max_series), not {wanted}")]
    SeriesLimit {
        /// Whose rows they are.
        tenant: String,
        /// How many it may have.
        max: u64,
        /// How many there would be.
        wanted: u64,
    },
    /// The rows of one batch take more bytes than an entry of the log may have.
    #[error("a batch of rows takes {bytes} bytes, more than an entry of the log may have")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Some parts of a write are in, some may not be. Repeating the write is harmless.
    #[error("part of the rows may not be stored: {parts}: {first}")]
    Partial {
        /// Which buckets.
        parts: String,
        /// The first error.
        first: String,
        /// Its kind.
        kind: ErrorKind,
    },
    /// The rows are later than their bucket may hold any more: they belong to another. Nothing was stored.
    #[error("bucket {bucket} takes no rows so late any more")]
    Ended {
        /// Which.
        bucket: BucketId,
    },
    /// Another node says what is wrong, or gives no answer.
    #[error("{message}")]
    Remote {
        /// What a caller can do about it.
        kind: ErrorKind,
        /// What it says.
        message: String,
    },
    /// The rows to be changed were read under a lock that is held no more: repeat the statement.
    #[error("the lock on the rows to be changed was lost: another node leads them now")]
    LockLost,
    /// A fault of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Shorthand of a result of the cluster.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Returns what a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Meta(error) => error.kind(),
            Self::Storage(error) => error.kind(),
            Self::Replication(error) => error.kind(),
            Self::Overloaded { .. } | Self::Locked { .. } => ErrorKind::Unavailable,
            Self::TooLarge { .. } | Self::SeriesLimit { .. } => ErrorKind::LimitReached,
            Self::Partial { kind, .. } | Self::Remote { kind, .. } => *kind,
            Self::LockLost | Self::Ended { .. } => ErrorKind::Unavailable,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn internal(error: impl ToString) -> Self {
        Self::Internal(error.to_string())
    }
}
