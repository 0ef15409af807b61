//! What a statement gives back.

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

use crate::copy::{CopyIn, CopyOut};

/// The result of a statement.
pub enum Output {
    /// Rows, as they are computed.
    Rows(SendableRecordBatchStream),
    /// Rows of a cursor, as they are computed.
    Fetched(SendableRecordBatchStream),
    /// A command that changed rows: its tag's first word, and how many.
    Affected(&'static str, u64),
    /// A command without rows: its tag.
    Done(&'static str),
    /// A block of statements began or ended; its tag.
    Begin(&'static str),
    /// See [`Output::Begin`].
    End(&'static str),
    /// A block goes on that may have failed; the tag.
    Resumed(&'static str),
    /// The client shall now send rows.
    CopyIn(Box<CopyIn>),
    /// Rows for the client to store.
    CopyOut(CopyOut),
    /// There was no statement.
    Empty,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(_) | Self::Fetched(_) => f.write_str("Rows"),
            Self::Affected(tag, rows) => write!(f, "Affected({tag}, {rows})"),
            Self::Done(tag) | Self::Begin(tag) | Self::End(tag) | Self::Resumed(tag) => {
                f.write_str(tag)
            }
            Self::CopyIn(_) => f.write_str("CopyIn"),
            Self::CopyOut(_) => f.write_str("CopyOut"),
            Self::Empty => f.write_str("Empty"),
        }
    }
}

/// Something a user should know that is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `NOTICE` or `WARNING`.
    pub severity: &'static str,
    /// PostgreSQL's code.
    pub sqlstate: &'static str,
    /// What.
    pub message: String,
}

impl Notice {
    pub(crate) fn plain(message: impl Into<String>) -> Self {
        Self { severity: "NOTICE", sqlstate: "00000", message: message.into() }
    }

    pub(crate) fn warning(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { severity: "WARNING", sqlstate, message: message.into() }
    }
}

/// Gives one batch as rows.
pub(crate) fn rows(batch: RecordBatch) -> Output {
    let schema = batch.schema();
    let stream = futures::stream::once(async move { Ok(batch) });
    Output::Rows(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
}
