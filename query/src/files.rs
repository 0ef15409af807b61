//! Files outside of the database: rows read from them and written to them, on this machine's disk below one
//! folder, in S3, Google Cloud Storage or Azure.
//!
//! | module     | holds                                                       |
//! |------------|-------------------------------------------------------------|
//! | `location` | where files are, who may use which place, and how           |
//! | `form`     | how rows are written in them                                |
//! | `import`   | COPY INTO a table                                           |
//! | `batches`  | of files of Parquet and Avro                                |
//! | `external` | external tables                                             |
//! | `listing`  | files as a table, read by DataFusion                        |
//! | `export`   | COPY INTO a location                                        |
//! | `visible`  | a store without the files others keep for themselves        |
//! | `upload`   | bytes to an object that nobody sees until it is whole       |
//!
//! Invariant: no file is opened and no host is called but those the node's configuration names, and no
//! credentials of the node are used.

mod batches;
mod export;
mod external;
mod form;
mod import;
mod listing;
mod location;
mod upload;
mod visible;

pub(crate) use external::{ExternalParts, ExternalTable, external_parts};

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::output::Output;
use crate::session::Session;
use crate::sql::{CopyInto, CopyIntoWhat};
use crate::threads::AbortOnDrop;

/// What of the outside the node lets its users use.
#[derive(Clone, Debug, Default)]
pub struct FilesConfig {
    /// The folder of files; each tenant has one of its name in it.
    pub folder: PathBuf,
    /// How URLs of objects may begin, such as `s3://bucket/reports/`.
    pub urls: Vec<String>,
    /// Hosts other than the clouds' own that may be called, such as `http://127.0.0.1:9000`.
    pub endpoints: Vec<String>,
}

impl Session {
    /// Runs COPY INTO, on the threads of queries: files are unpacked and read there.
    pub(crate) async fn copy_into(self: &Arc<Self>, copy: &CopyInto) -> Result<Output> {
        let (session, copy) = (Arc::clone(self), copy.clone());
        let run = async move {
            match &copy.what {
                CopyIntoWhat::Table { table, columns } => {
                    session.import(&copy, (table, columns)).await
                }
                CopyIntoWhat::Location(source) => session.export(&copy, source).await,
            }
        };
        AbortOnDrop(self.database().query_threads().spawn(run)).finish().await
    }
}
