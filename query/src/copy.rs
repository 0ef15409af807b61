//! COPY: rows from a client, rows to a client, in PostgreSQL's text, csv and binary formats.
//!
//! COPY FROM stores each 4 MiB as it comes: a bad row ends it and says up to which line rows are kept.

mod decode;

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::sql::sqlparser::ast;
use tokio::task::JoinHandle;

use crate::access::Need;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::ingest::{Intake, RowsBuilder, Target, store};
use crate::output::Output;
use crate::running::{CopyProgress, Running};
use crate::session::Session;
use crate::sql::Statement;
pub use decode::CopyRow;
use decode::Decoder;
pub(crate) use decode::header_names;

/// Rows are stored each time they take so many bytes.
const COMMIT_BYTES: usize = 4 << 20;
/// The longest row.
pub(crate) const ROW_BYTES_MAX: usize = 16 << 20;

/// The format of a COPY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// PostgreSQL's text format.
    Text {
        /// Between fields.
        delimiter: u8,
        /// What NULL is written as.
        null: String,
        /// Whether the first line names columns.
        header: bool,
    },
    /// Comma-separated values.
    Csv {
        /// Between fields.
        delimiter: u8,
        /// What NULL is written as, without quotes.
        null: String,
        /// Whether the first line names columns.
        header: bool,
        /// Around fields.
        quote: u8,
        /// Before a quote within a field.
        escape: u8,
    },
    /// PostgreSQL's binary format.
    Binary,
}

/// Rows on their way in.
pub struct CopyIn {
    database: Arc<Database>,
    decoder: Decoder,
    builder: RowsBuilder,
    /// Parsing goes on while the rows before are stored.
    storing: Option<JoinHandle<Result<()>>>,
    stored_lines: u64,
    lines_under_way: u64,
    rows: u64,
    progress: Option<Arc<CopyProgress>>,
    /// Kept, so that the statement is told of while rows come.
    running: Option<Arc<Running>>,
}

impl std::fmt::Debug for CopyIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyIn").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// Rows on their way out.
pub struct CopyOut {
    /// How they are to be written.
    pub format: CopyFormat,
    /// The rows.
    pub rows: SendableRecordBatchStream,
}

impl CopyIn {
    /// Begins rows of a target.
    pub(crate) fn new(database: Arc<Database>, target: Target, format: CopyFormat) -> Self {
        Self {
            database,
            decoder: Decoder::new(format, target.columns.clone()),
            builder: RowsBuilder::new(target),
            storing: None,
            stored_lines: 0,
            lines_under_way: 0,
            rows: 0,
            progress: None,
            running: None,
        }
    }

    /// Tells of the statement until all rows are in.
    pub(crate) fn keep_running(&mut self, running: Arc<Running>) {
        self.running = Some(running);
    }

    /// Counts the rows as they are read.
    pub(crate) fn count_in(&mut self, progress: Arc<CopyProgress>) {
        self.progress = Some(progress);
    }

    /// Returns whether the format is binary, and the number of columns.
    pub fn shape(&self) -> (bool, usize) {
        (self.decoder.is_binary(), self.builder.target().columns.len())
    }

    /// Takes the next bytes, which may end anywhere.
    ///
    /// # Errors
    /// A bad row, with its line and column and the line up to which rows are kept.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.running.as_ref().map_or(Ok(()), |running| running.check())?;
        self.decoder.feed(bytes)?;
        let before = self.rows;
        self.drain(false).await?;
        if let Some(progress) = &self.progress {
            progress.add_rows(self.rows - before);
            if self.running.is_some() {
                progress.add_bytes(bytes.len() as u64);
            }
        }
        Ok(())
    }

    /// Ends the rows: all are stored when this returns. Returns their number.
    ///
    /// # Errors
    /// As [`CopyIn::push`]; an unfinished last row.
    pub async fn finish(mut self) -> Result<u64> {
        self.running.as_ref().map_or(Ok(()), |running| running.check())?;
        self.drain(true).await?;
        self.commit().await?;
        self.settle().await?;
        Ok(self.rows)
    }

    async fn drain(&mut self, at_end: bool) -> Result<()> {
        loop {
            match self.decoder.next_row(&mut self.builder, at_end) {
                Ok(CopyRow::Row) => self.rows += 1,
                Ok(CopyRow::Skipped) => {}
                Ok(CopyRow::NeedsMore) => return Ok(()),
                Err(error) => return Err(self.refused(error).await),
            }
            if self.builder.bytes() >= COMMIT_BYTES {
                self.commit().await?;
            }
        }
    }

    /// Begins to store what was gathered, once what came before it is stored.
    async fn commit(&mut self) -> Result<()> {
        self.settle().await?;
        if self.builder.rows() == 0 {
            return Ok(());
        }
        let (database, target) = (Arc::clone(&self.database), self.builder.target().clone());
        let points = match self.builder.finish(self.database.now_ns()) {
            Ok(points) => points,
            Err(error) => return Err(self.refused(error).await),
        };
        self.lines_under_way = self.decoder.line();
        self.storing = Some(tokio::spawn(async move { store(&database, &target, points).await }));
        Ok(())
    }

    async fn settle(&mut self) -> Result<()> {
        if let Some(storing) = self.storing.take() {
            storing.await.map_err(Error::internal)??;
            self.stored_lines = self.lines_under_way;
        }
        Ok(())
    }

    /// Adds to an error where it was, and what is kept.
    async fn refused(&mut self, mut error: Error) -> Error {
        if let Err(worse) = self.settle().await {
            return worse;
        }
        let table = &self.builder.target().table.name;
        let at = self.decoder.line() + 1;
        error.message = format!("{}, COPY {table}, line {at}", error.message);
        error.hint(match self.stored_lines {
            0 => "no row is kept".to_owned(),
            line => format!("rows up to line {line} are kept"),
        })
    }
}

impl Session {
    /// Begins a COPY.
    pub(crate) async fn copy(
        self: &Arc<Self>,
        copy: &ast::Statement,
        params: &[ScalarValue],
    ) -> Result<Output> {
        let ast::Statement::Copy { source, to, target, options, legacy_options, .. } = copy else {
            return Err(Error::internal("a COPY was expected"));
        };
        match target {
            ast::CopyTarget::Stdin | ast::CopyTarget::Stdout => {}
            ast::CopyTarget::File { .. } | ast::CopyTarget::Program { .. } => {
                let hint = "use COPY ... FROM STDIN, or \\copy in psql";
                return Err(Error::unsupported("COPY with a file of the server").hint(hint));
            }
        }
        let format = format_of(options, legacy_options)?;
        if *to {
            self.check(Need::See)?;
            let rows = self.query(&query_of(source)?, params).await?;
            return Ok(Output::CopyOut(CopyOut { format, rows }));
        }
        let ast::CopySource::Table { table_name, columns } = source else {
            return Err(Error::syntax("COPY of a query can only go TO STDOUT"));
        };
        let name = crate::planning::parts(table_name)?;
        if self.temporary.named(&name).is_some() {
            return Err(Error::unsupported("COPY into a temporary table").hint("use INSERT"));
        }
        let (database, table) = self.user_table(&name)?;
        let names: Vec<String> = columns.iter().map(crate::sql::fold).collect();
        let target = Target::new(database, table, &names, Intake::of(self))?;
        self.check(Need::Write(target.object()))?;
        self.note_write();
        let database = Arc::clone(self.database());
        let mut rows = CopyIn::new(database, target, format);
        rows.count_in(self.begin_copy(("COPY FROM", "PIPE"), 0));
        Ok(Output::CopyIn(Box::new(rows)))
    }
}

fn query_of(source: &ast::CopySource) -> Result<Statement> {
    let text = match source {
        ast::CopySource::Query(query) => {
            return Ok(crate::sql::of_query(query.clone()));
        }
        ast::CopySource::Table { table_name, columns } if columns.is_empty() => {
            format!("SELECT * FROM {table_name}")
        }
        ast::CopySource::Table { table_name, columns } => {
            let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
            format!("SELECT {} FROM {table_name}", columns.join(", "))
        }
    };
    crate::sql::parse_one(&text)?.ok_or_else(|| Error::internal("a query was expected"))
}

#[derive(Default)]
struct Options {
    format: Option<String>,
    delimiter: Option<char>,
    null: Option<String>,
    header: bool,
    quote: Option<char>,
    escape: Option<char>,
}

fn format_of(options: &[ast::CopyOption], legacy: &[ast::CopyLegacyOption]) -> Result<CopyFormat> {
    let mut read = Options::default();
    for option in options {
        match option {
            ast::CopyOption::Format(name) => read.format = Some(name.value.to_ascii_lowercase()),
            ast::CopyOption::Delimiter(delimiter) => read.delimiter = Some(*delimiter),
            ast::CopyOption::Null(null) => read.null = Some(null.clone()),
            ast::CopyOption::Header(header) => read.header = *header,
            ast::CopyOption::Quote(quote) => read.quote = Some(*quote),
            ast::CopyOption::Escape(escape) => read.escape = Some(*escape),
            ast::CopyOption::Encoding(encoding)
                if encoding.to_ascii_uppercase().replace('-', "") == "UTF8" => {}
            other => return Err(Error::unsupported(format!("COPY option {other}"))),
        }
    }
    for option in legacy {
        match option {
            ast::CopyLegacyOption::Binary => read.format = Some("binary".to_owned()),
            ast::CopyLegacyOption::Delimiter(delimiter) => read.delimiter = Some(*delimiter),
            ast::CopyLegacyOption::Null(null) => read.null = Some(null.clone()),
            ast::CopyLegacyOption::Header => read.header = true,
            ast::CopyLegacyOption::Csv(options) => {
                read.format = Some("csv".to_owned());
                for option in options {
                    match option {
                        ast::CopyLegacyCsvOption::Header => read.header = true,
                        ast::CopyLegacyCsvOption::Quote(quote) => read.quote = Some(*quote),
                        ast::CopyLegacyCsvOption::Escape(escape) => read.escape = Some(*escape),
                        other => return Err(Error::unsupported(format!("COPY option {other}"))),
                    }
                }
            }
            other => return Err(Error::unsupported(format!("COPY option {other}"))),
        }
    }
    read.format()
}

impl Options {
    fn format(self) -> Result<CopyFormat> {
        let byte = |what: &str, found: Option<char>, default: u8| match found {
            None => Ok(default),
            Some(c) if c.is_ascii() && c != '\n' && c != '\r' => Ok(c as u8),
            Some(_) => {
                Err(Error::new("22023", format!("COPY {what} must be a single one-byte character")))
            }
        };
        let delimiter = self.delimiter;
        match self.format.as_deref() {
            None | Some("text") => {
                if self.quote.is_some() || self.escape.is_some() {
                    return Err(Error::new("22023", "COPY QUOTE and ESCAPE need the csv format"));
                }
                Ok(CopyFormat::Text {
                    delimiter: byte("DELIMITER", delimiter, b'\t')?,
                    null: self.null.unwrap_or_else(|| "\\N".to_owned()),
                    header: self.header,
                })
            }
            Some("csv") => {
                let quote = byte("QUOTE", self.quote, b'"')?;
                Ok(CopyFormat::Csv {
                    delimiter: byte("DELIMITER", delimiter, b',')?,
                    null: self.null.unwrap_or_default(),
                    header: self.header,
                    quote,
                    escape: byte("ESCAPE", self.escape, quote)?,
                })
            }
            Some("binary") => {
                if delimiter.is_some() || self.null.is_some() || self.header {
                    return Err(Error::new(
                        "22023",
                        "COPY BINARY takes no DELIMITER, NULL or HEADER",
                    ));
                }
                Ok(CopyFormat::Binary)
            }
            Some(other) => {
                Err(Error::new("22023", format!("COPY format \"{other}\" not recognized")))
            }
        }
    }
}

impl CopyOut {
    /// Returns the columns of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }
}
