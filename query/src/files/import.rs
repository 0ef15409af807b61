//! COPY INTO a table: the rows of files, one file after another in the order of their names.
//!
//! Rows are stored as they are read. A row with the same tags and time as one that is there replaces it, so
//! that a statement that failed half way is simply run again.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectMeta;
use object_store::ObjectStoreExt;

use super::form::{FileForm, FileKind};
use super::location::{Location, failed, locate};
use crate::access::{Need, Object};
use crate::copy::{CopyFormat, CopyIn, ROW_BYTES_MAX, header_names};
use crate::error::{Error, Result};
use crate::ingest::{Cell, Intake, RowsBuilder, Target, store};
use crate::output::Output;
use crate::running::CopyProgress;
use crate::session::Session;
use crate::sql::CopyInto;

/// Rows are stored each time they take so many bytes.
const COMMIT_BYTES: usize = 4 << 20;

type Bytestream = BoxStream<'static, datafusion::common::Result<Bytes>>;

/// What every file of a statement is read with.
pub(super) struct Import {
    pub(super) session: Arc<Session>,
    pub(super) location: Location,
    pub(super) form: FileForm,
    pub(super) database: Arc<meta::Database>,
    pub(super) table: Arc<model::TableSchema>,
    /// The columns that are named; none where the files say them.
    pub(super) columns: Vec<String>,
    pub(super) progress: Arc<CopyProgress>,
}

impl Session {
    /// Runs COPY INTO a table.
    pub(super) async fn import(
        self: &Arc<Self>,
        copy: &CopyInto,
        (table, columns): (&[String], &[String]),
    ) -> Result<Output> {
        if self.temporary.named(table).is_some() {
            return Err(Error::unsupported("COPY into a temporary table").hint("use INSERT"));
        }
        let (database, table) = self.user_table(table)?;
        self.check(Need::Write(Object::table(database.id, table.id)))?;
        self.check(Need::Govern)?;
        let form = FileForm::of(&copy.format, &copy.url)?;
        let location =
            locate(self.database(), self.identity(), &copy.url, &copy.connection).await?;
        let files = location.objects().await?;
        if files.is_empty() {
            return Err(Error::new("58P01", format!("there is no file at \"{}\"", copy.url)));
        }
        self.note_write();
        let columns = columns.to_vec();
        let session = Arc::clone(self);
        let bytes_total = files.iter().map(|file| file.size).sum();
        let progress = self.begin_copy(("COPY FROM", "FILE"), bytes_total);
        let import = Import { session, location, form, database, table, columns, progress };
        let mut rows = 0;
        for file in &files {
            rows += import.file(file).await.map_err(|mut error| {
                if error.sqlstate == "XX000" {
                    // What its reader makes of a damaged file is no fault of the server's.
                    error.sqlstate = "22P04";
                }
                error.message = format!("file \"{}\": {}", file.location, error.message);
                error
            })?;
        }
        Ok(Output::Affected("COPY", rows))
    }
}

impl Import {
    async fn file(&self, file: &ObjectMeta) -> Result<u64> {
        match self.form.kind {
            FileKind::Csv { delimiter, header } => self.csv(file, delimiter, header).await,
            FileKind::NdJson => self.lines_of_json(file).await,
            FileKind::Parquet | FileKind::Avro => self.batches(file).await,
        }
    }

    /// Returns where rows go, in the columns named or else these of the file.
    pub(super) fn target(&self, found: &[String]) -> Result<Target> {
        self.target_of(if self.columns.is_empty() { found } else { &self.columns })
    }

    fn target_of(&self, names: &[String]) -> Result<Target> {
        let (database, table) = (Arc::clone(&self.database), Arc::clone(&self.table));
        Target::new(database, table, names, Intake::of(&self.session))
    }

    /// Returns the bytes of a file, unpacked.
    async fn bytes(&self, file: &ObjectMeta) -> Result<Bytestream> {
        let got = self.location.store.get(&file.location).await.map_err(failed)?;
        let progress = Arc::clone(&self.progress);
        let bytes = got.into_stream().map(move |piece| {
            let piece = piece?;
            progress.add_bytes(piece.len() as u64);
            Ok(piece)
        });
        let bytes = bytes.boxed();
        let compression = self.form.compression(file.location.as_ref());
        Ok(compression.convert_stream(bytes)?)
    }

    async fn csv(&self, file: &ObjectMeta, delimiter: u8, header: bool) -> Result<u64> {
        let mut bytes = self.bytes(file).await?;
        let mut begin = Vec::new();
        while header && !begin.contains(&b'\n') {
            let Some(piece) = bytes.next().await else { break };
            begin.extend_from_slice(&piece?);
            if begin.len() > ROW_BYTES_MAX {
                return Err(Error::new("54000", "its first line is longer than 16 MiB"));
            }
        }
        let first = begin.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let names = if header { header_names(first, delimiter)? } else { Vec::new() };
        if header && begin.is_empty() {
            return Err(Error::new("22P04", "it is empty: it has no header"));
        }
        let unwanted = names.iter().find(|name| !self.columns.contains(name));
        let target = match unwanted {
            Some(name) if !self.columns.is_empty() => {
                let message = format!("its header names \"{name}\", which is not asked for");
                return Err(Error::new("42703", message).hint("name all columns of the file"));
            }
            // The order is the file's, whatever order they are asked for in.
            _ if header => self.target_of(&names)?,
            _ => self.target(&names)?,
        };
        let format =
            CopyFormat::Csv { delimiter, null: String::new(), header, quote: b'"', escape: b'"' };
        let database = Arc::clone(self.session.database());
        let mut rows = CopyIn::new(database, target, format);
        rows.count_in(Arc::clone(&self.progress));
        rows.push(&begin).await?;
        while let Some(piece) = bytes.next().await {
            rows.push(&piece?).await?;
        }
        rows.finish().await
    }

    async fn lines_of_json(&self, file: &ObjectMeta) -> Result<u64> {
        let mut bytes = self.bytes(file).await?;
        let every: Vec<String> = self.table.columns.iter().map(|one| one.name.clone()).collect();
        let target = self.target(&every)?;
        let (mut rest, mut line) = (Vec::new(), 0);
        let mut builder = RowsBuilder::new(target);
        let mut rows = 0;
        loop {
            let piece = bytes.next().await.transpose()?;
            let ended = piece.is_none();
            rest.extend_from_slice(&piece.unwrap_or_default());
            let whole = if ended {
                rest.len()
            } else {
                rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
            };
            if rest.len() - whole > ROW_BYTES_MAX {
                return Err(Error::new("54000", "a line is longer than 16 MiB"));
            }
            if whole == 0 && !ended {
                continue;
            }
            for text in rest[..whole].split(|byte| *byte == b'\n') {
                line += 1;
                if text.trim_ascii().is_empty() {
                    continue;
                }
                if let Err(mut error) = push_object(&mut builder, text) {
                    error.message = format!("{}, line {line}", error.message);
                    return Err(error);
                }
                rows += 1;
                self.progress.add_rows(1);
                if builder.bytes() >= COMMIT_BYTES {
                    self.store(&mut builder).await?;
                }
            }
            // What is behind the last line's end is no line of its own.
            line -= usize::from(whole > 0 && rest[whole - 1] == b'\n');
            rest.drain(..whole);
            if ended {
                self.store(&mut builder).await?;
                return Ok(rows);
            }
        }
    }

    async fn store(&self, builder: &mut RowsBuilder) -> Result<()> {
        if builder.rows() == 0 {
            return Ok(());
        }
        let points = builder.finish(self.session.now_ns())?;
        store(self.session.database(), builder.target(), points).await
    }
}

/// Adds the row of an object; what it leaves out is NULL.
fn push_object(builder: &mut RowsBuilder, text: &[u8]) -> Result<()> {
    let invalid = |error: serde_json::Error| {
        Error::new("22P02", format!("invalid input syntax for type json: {error}"))
    };
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(text).map_err(invalid)?;
    let columns = builder.target().columns.clone();
    if let Some(unknown) = object.keys().find(|key| columns.iter().all(|one| one.name != **key)) {
        let table = &builder.target().table.name;
        let message = format!("column \"{unknown}\" of relation \"{table}\" does not exist");
        return Err(Error::new("42703", message));
    }
    for (at, column) in columns.iter().enumerate() {
        let number;
        let cell = match object.get(&column.name) {
            None | Some(serde_json::Value::Null) => Cell::Null,
            Some(serde_json::Value::Bool(value)) => Cell::Bool(*value),
            Some(serde_json::Value::String(text)) => Cell::Text(text),
            Some(serde_json::Value::Number(value)) => {
                number = value.to_string();
                Cell::Number(&number)
            }
            Some(_) => {
                let message = format!("column \"{}\" holds an object or a list", column.name);
                return Err(Error::new("42804", message));
            }
        };
        if let Err(mut error) = builder.push(at, cell) {
            builder.drop_partial_row();
            error.message = format!("{}, column {}", error.message, column.name);
            return Err(error);
        }
    }
    builder.end_row();
    Ok(())
}
