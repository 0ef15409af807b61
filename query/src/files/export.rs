//! COPY INTO a location: the rows of a table or a query, as files.
//!
//! Files become visible when all rows are sent, so that a statement that fails or is killed leaves none.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::mpsc;

use super::form::FileForm;
use super::location::{Location, failed, locate};
use super::upload::{Sent, send};
use crate::access::Need;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::rows::RowWriter;
use crate::running::CopyProgress;
use crate::session::Session;
use crate::sql::{CopyInto, FileOptions, Statement};
use crate::threads::AbortOnDrop;

/// A file is ended at so many bytes, before they are compressed.
const FILE_BYTES: usize = 128 << 20;
/// The most files of one statement.
const FILES_MAX: usize = 10_000;
/// Pieces of a file that may wait to be sent.
const PIECES_AHEAD: usize = 4;

type Bytestream = BoxStream<'static, datafusion::common::Result<Bytes>>;

/// A file that is being written.
struct Writing {
    rows: RowWriter,
    bytes: usize,
    pieces: mpsc::Sender<datafusion::common::Result<Bytes>>,
    sending: AbortOnDrop<Sent>,
}

/// Where the files of a statement go.
struct Target {
    location: Location,
    form: FileForm,
    /// What the names of files begin with; `None` where the location is the one file.
    run: Option<String>,
    progress: Arc<CopyProgress>,
}

impl Session {
    /// Runs COPY INTO a location.
    pub(super) async fn export(
        self: &Arc<Self>,
        copy: &CopyInto,
        source: &Statement,
    ) -> Result<Output> {
        // They are the tenant's: a file is there for all who may read files.
        self.check(Need::Govern)?;
        let form = FileForm::of(&copy.format, &copy.url)?;
        let overwrite = overwrites(&copy.options)?;
        let location =
            locate(self.database(), self.identity(), &copy.url, &copy.connection).await?;
        let rows = self.query(source, &[]).await?;
        let old = location.objects().await?;
        if !overwrite && let Some(there) = old.first() {
            let message = format!("there is a file \"{}\" already", there.location);
            return Err(Error::new("42P07", message).hint("COPY_OPTIONS = (overwrite = true)"));
        }
        let run = (!FileForm::names_file(&copy.url)).then(|| {
            let at = chrono::DateTime::from_timestamp_nanos(self.now_ns());
            format!("{}-", at.format("%Y%m%dT%H%M%S%9f"))
        });
        let progress = self.begin_copy(("COPY TO", "FILE"), 0);
        let target = Target { location, form, run, progress };
        let (sent, count) = target.write(rows).await?;
        let mut made = Vec::with_capacity(sent.len());
        for one in sent {
            match one.complete().await {
                Ok(path) => made.push(path),
                Err(error) => {
                    // All or none are to be seen.
                    for path in &made {
                        drop(target.location.store.delete(path).await);
                    }
                    return Err(error);
                }
            }
        }
        target.sync(&made).await?;
        let ending = format!(".{}", form.ending());
        let replaced = old.iter().filter(|object| {
            object.location.as_ref().ends_with(&ending) && !made.contains(&object.location)
        });
        for object in replaced {
            target.location.store.delete(&object.location).await.map_err(failed)?;
        }
        Ok(Output::Affected("COPY", count))
    }
}

fn overwrites(options: &FileOptions) -> Result<bool> {
    let mut overwrite = false;
    for (name, value) in options {
        let value = value.parse().map_err(|_| {
            Error::new("22023", format!("{name} must be true or false, not \"{value}\""))
        })?;
        match name.as_str() {
            "overwrite" => overwrite = value,
            "auto_infer_schema" => {}
            _ => {
                let error = Error::new("22023", format!("unknown option of COPY_OPTIONS: {name}"));
                return Err(error.hint("options are overwrite, auto_infer_schema"));
            }
        }
    }
    Ok(overwrite)
}

impl Target {
    /// Sends all rows. Returns the files, which nobody sees yet, and the number of rows.
    async fn write(&self, mut rows: SendableRecordBatchStream) -> Result<(Vec<Sent>, u64)> {
        let (schema, mut sent, mut count) = (rows.schema(), Vec::new(), 0);
        let mut writing = Some(self.begin(0, &schema)?);
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            count += batch.num_rows() as u64;
            let mut file = match writing.take() {
                Some(file) => file,
                None => self.begin(sent.len(), &schema)?,
            };
            self.progress.add_rows(batch.num_rows() as u64);
            let ready = file.rows.put(batch)?;
            self.progress.add_bytes(ready.len() as u64);
            file.put(ready).await;
            if file.sending.is_finished() {
                // It ends before the rows only where it failed.
                drop(file.sending.finish().await?);
                return Err(Error::new("58030", "a file could not be sent"));
            }
            if file.bytes >= FILE_BYTES && self.run.is_some() {
                sent.push(file.end().await?);
            } else {
                writing = Some(file);
            }
        }
        if let Some(file) = writing.take() {
            sent.push(file.end().await?);
        }
        Ok((sent, count))
    }

    fn begin(
        &self,
        number: usize,
        schema: &datafusion::arrow::datatypes::SchemaRef,
    ) -> Result<Writing> {
        if number == FILES_MAX {
            return Err(Error::new("54000", format!("a COPY writes {FILES_MAX} files at most")));
        }
        let path = match &self.run {
            None => self.location.path.clone(),
            Some(run) => {
                let name = format!("{run}{number:05}.{}", self.form.ending());
                let folder = self.location.path.as_ref();
                let separator = if folder.is_empty() { "" } else { "/" };
                let path = Path::parse(format!("{folder}{separator}{name}"));
                path.map_err(|error| Error::new("22023", error.to_string()))?
            }
        };
        let rows = RowWriter::new(self.form.rows()?, schema)?;
        let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
        let bytes = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        let bytes: Bytestream =
            self.form.compression("").convert_to_compress_stream(bytes.boxed())?;
        let store: Arc<dyn ObjectStore> = Arc::clone(&self.location.store);
        let sending = AbortOnDrop(tokio::spawn(send(store, path, bytes)));
        Ok(Writing { rows, bytes: 0, pieces, sending })
    }

    /// Makes files of this machine durable.
    async fn sync(&self, made: &[Path]) -> Result<()> {
        let Some(folder) = self.location.folder.clone() else { return Ok(()) };
        let files: Vec<_> = made.iter().map(|path| folder.join(path.as_ref())).collect();
        let synced = tokio::task::spawn_blocking(move || {
            for file in files {
                std::fs::File::open(&file)?.sync_all()?;
                // The names of the folders that were made on the way too.
                for above in file.ancestors().skip(1).take_while(|above| above.starts_with(&folder))
                {
                    std::fs::File::open(above)?.sync_all()?;
                }
            }
            Ok::<_, std::io::Error>(())
        });
        synced
            .await
            .map_err(Error::internal)?
            .map_err(|error| Error::new("58030", error.to_string()))
    }
}

impl Writing {
    async fn put(&mut self, bytes: Vec<u8>) {
        self.bytes += bytes.len();
        if !bytes.is_empty() {
            // Who sends may have failed: it says so at the end.
            drop(self.pieces.send(Ok(Bytes::from(bytes))).await);
        }
    }

    async fn end(mut self) -> Result<Sent> {
        let rest = self.rows.end()?;
        self.bytes += rest.len();
        drop(self.pieces.send(Ok(Bytes::from(rest))).await);
        drop(self.pieces);
        self.sending.finish().await
    }
}
