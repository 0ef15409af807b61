//! What SQL itself can keep in a session: PREPARE and EXECUTE, DECLARE, FETCH and CLOSE.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::DateTime;

use datafusion::arrow::compute::cast_with_options;
use datafusion::arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use model::schema::TIME_ZONE;
use parking_lot::Mutex as SyncMutex;
use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::ingest::Intake;
use crate::instants::{parse_instant, parse_wall};
use crate::output::Output;
use crate::planning::Prepared;
use crate::session::Session;
use crate::sql::{FetchCount, Statement, select_values};
use crate::types::PgTypes;

/// The most statements a session keeps.
const PREPARED_MAX: usize = 1_024;
/// The most cursors a session keeps open; each pins files and memory.
const CURSORS_MAX: usize = 64;

/// What a session keeps by name.
#[derive(Default)]
pub(crate) struct Kept {
    prepared: SyncMutex<HashMap<String, Arc<Prepared>>>,
    cursors: SyncMutex<HashMap<String, Cursor>>,
}

#[derive(Clone)]
struct Cursor {
    schema: SchemaRef,
    hold: bool,
    rows: Arc<Mutex<CursorRows>>,
}

struct CursorRows {
    stream: SendableRecordBatchStream,
    /// What of the last batch was not fetched yet.
    rest: Option<RecordBatch>,
}

impl Kept {
    /// Returns the columns an EXECUTE or FETCH gives.
    pub(crate) fn columns(&self, statement: &Statement) -> Result<Option<SchemaRef>> {
        match statement {
            Statement::Execute(name, _) => Ok(self.prepared(name)?.columns.clone()),
            Statement::Fetch(name, _) => Ok(Some(self.cursor(name)?.schema)),
            _ => Ok(None),
        }
    }

    /// Returns the columns of an open cursor.
    pub(crate) fn cursor_columns(&self, name: &str) -> Option<SchemaRef> {
        self.cursor(name).ok().map(|cursor| cursor.schema)
    }

    fn prepared(&self, name: &str) -> Result<Arc<Prepared>> {
        let found = self.prepared.lock().get(name).map(Arc::clone);
        found.ok_or_else(|| {
            Error::new("26000", format!("prepared statement \"{name}\" does not exist"))
        })
    }

    fn cursor(&self, name: &str) -> Result<Cursor> {
        let found = self.cursors.lock().get(name).cloned();
        found.ok_or_else(|| Error::new("34000", format!("cursor \"{name}\" does not exist")))
    }

    /// Forgets a prepared statement, or all.
    pub(crate) fn deallocate(&self, name: Option<&str>) -> Result<Output> {
        match name {
            None => self.prepared.lock().clear(),
            Some(name) => {
                self.prepared(name)?;
                self.prepared.lock().remove(name);
            }
        }
        Ok(Output::Done(if name.is_some() { "DEALLOCATE" } else { "DEALLOCATE ALL" }))
    }

    /// Closes a cursor, or all.
    pub(crate) fn close(&self, name: Option<&str>) -> Result<Output> {
        match name {
            None => self.cursors.lock().clear(),
            Some(name) => {
                self.cursor(name)?;
                self.cursors.lock().remove(name);
            }
        }
        Ok(Output::Done(if name.is_some() { "CLOSE CURSOR" } else { "CLOSE CURSOR ALL" }))
    }

    /// Closes the cursors that live as long as the block of statements.
    pub(crate) fn end_block(&self) {
        self.cursors.lock().retain(|_, cursor| cursor.hold);
    }
}

impl Session {
    /// Keeps a statement under a name.
    pub(crate) async fn keep_prepared(
        &self,
        name: &str,
        types: &[ast::DataType],
        statement: &Statement,
    ) -> Result<Output> {
        if self.kept.prepared.lock().contains_key(name) {
            let message = format!("prepared statement \"{name}\" already exists");
            return Err(Error::new("42P05", message));
        }
        let declared = types.iter().map(|sql_type| arrow_type(sql_type).map(Some));
        let declared = declared.collect::<Result<Vec<_>>>()?;
        let prepared = self.prepare_statement(statement.clone(), &declared).await?;
        let mut kept = self.kept.prepared.lock();
        if kept.len() >= PREPARED_MAX {
            return Err(Error::new(
                "53400",
                format!("more than {PREPARED_MAX} prepared statements"),
            ));
        }
        kept.insert(name.to_owned(), Arc::new(prepared));
        Ok(Output::Done("PREPARE"))
    }

    /// Returns a kept statement, and its arguments.
    pub(crate) async fn kept_prepared(
        self: &Arc<Self>,
        name: &str,
        arguments: &[ast::Expr],
    ) -> Result<(Arc<Statement>, Vec<ScalarValue>)> {
        let prepared = self.kept.prepared(name)?;
        if arguments.len() != prepared.parameters.len() {
            let (given, wanted) = (arguments.len(), prepared.parameters.len());
            let message = format!("wrong number of parameters for prepared statement \"{name}\"");
            let hint = format!("expected {wanted} parameters but got {given}");
            return Err(Error::new("42601", message).hint(hint));
        }
        let statement = prepared.statement.as_ref().map(Arc::clone);
        let statement = statement.ok_or_else(|| Error::internal("an empty statement was kept"))?;
        if arguments.is_empty() {
            return Ok((statement, Vec::new()));
        }
        let mut rows = self.query(&select_values(arguments), &[]).await?;
        let batch = rows.next().await.ok_or_else(|| Error::internal("a row was expected"))??;
        let options = datafusion::arrow::compute::CastOptions { safe: false, ..Default::default() };
        let intake = Intake::of(self);
        let value = |(array, wanted): (&Arc<dyn datafusion::arrow::array::Array>, &DataType)| {
            if let DataType::Timestamp(TimeUnit::Nanosecond, of) = wanted {
                return instant(&ScalarValue::try_from_array(array, 0)?, of.is_some(), &intake);
            }
            let array = cast_with_options(array, wanted, &options)?;
            Ok(ScalarValue::try_from_array(&array, 0)?)
        };
        let params = batch.columns().iter().zip(&prepared.parameters).map(value);
        Ok((statement, params.collect::<Result<_>>()?))
    }

    /// Opens a cursor.
    pub(crate) async fn declare(
        self: &Arc<Self>,
        name: &str,
        hold: bool,
        query: &Statement,
    ) -> Result<Output> {
        if !hold && !self.is_in_block() {
            let message = "DECLARE CURSOR can only be used in transaction blocks";
            return Err(Error::new("25P01", message).hint("BEGIN first, or declare it WITH HOLD"));
        }
        if self.kept.cursors.lock().contains_key(name) {
            return Err(Error::new("42P03", format!("cursor \"{name}\" already exists")));
        }
        if self.kept.cursors.lock().len() >= CURSORS_MAX {
            return Err(Error::new("53400", format!("more than {CURSORS_MAX} open cursors")));
        }
        let stream = self.query(query, &[]).await?;
        let schema = stream.schema();
        let rows = Arc::new(Mutex::new(CursorRows { stream, rest: None }));
        self.kept.cursors.lock().insert(name.to_owned(), Cursor { schema, hold, rows });
        Ok(Output::Done("DECLARE CURSOR"))
    }

    /// Gives the next rows of a cursor.
    pub(crate) fn fetch(&self, name: &str, count: FetchCount) -> Result<Output> {
        let cursor = self.kept.cursor(name)?;
        let left = match count {
            FetchCount::Rows(rows) => rows,
            FetchCount::All => usize::MAX,
            FetchCount::Backward => {
                return Err(Error::new("55000", "cursor can only scan forward"));
            }
        };
        let rows = futures::stream::try_unfold((cursor.rows, left), |(rows, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let mut held = rows.lock().await;
            let batch = match held.rest.take() {
                Some(rest) => Some(rest),
                None => held.stream.next().await.transpose()?,
            };
            let Some(batch) = batch else { return Ok(None) };
            let taken = left.min(batch.num_rows());
            if taken < batch.num_rows() {
                held.rest = Some(batch.slice(taken, batch.num_rows() - taken));
            }
            drop(held);
            Ok(Some((batch.slice(0, taken), (rows, left - taken))))
        });
        Ok(Output::Fetched(Box::pin(RecordBatchStreamAdapter::new(cursor.schema, rows))))
    }
}

/// Returns the Arrow type of a parameter's declared type.
fn arrow_type(sql_type: &ast::DataType) -> Result<DataType> {
    use ast::DataType as Sql;
    if let Some(field) = PgTypes.plan_type_field(sql_type)? {
        return Ok(field.data_type().clone());
    }
    Ok(match sql_type {
        Sql::SmallInt(_) | Sql::Int2(_) => DataType::Int16,
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) => DataType::Int32,
        Sql::BigInt(_) | Sql::Int8(_) => DataType::Int64,
        Sql::Real | Sql::Float4 => DataType::Float32,
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 => DataType::Float64,
        Sql::Boolean | Sql::Bool => DataType::Boolean,
        Sql::Text | Sql::Varchar(_) | Sql::String(_) => DataType::Utf8,
        Sql::Date => DataType::Date32,
        Sql::Timestamp(..) => model::schema::time_type(),
        other => return Err(Error::unsupported(format!("parameter of type {other}"))),
    })
}

/// Makes an argument an instant, or a wall time: what has no zone is meant in the session's.
fn instant(value: &ScalarValue, zoned: bool, intake: &Intake) -> Result<ScalarValue> {
    const SECOND_NS: i64 = 1_000_000_000;
    let zone = zoned.then(|| TIME_ZONE.into());
    let wall = |ns: i64| intake.zone.instant(&DateTime::from_timestamp_nanos(ns).naive_utc());
    let shown = |ns: i64| ns.checked_add(i64::from(intake.zone.offset_at(ns)) * SECOND_NS);
    let ns = match value {
        value if value.is_null() => return Ok(ScalarValue::TimestampNanosecond(None, zone)),
        ScalarValue::Utf8(Some(text)) if zoned => parse_instant(text, &intake.zone, intake.now_ns),
        ScalarValue::Utf8(Some(text)) => parse_wall(text, &intake.zone, intake.now_ns),
        ScalarValue::TimestampNanosecond(Some(ns), Some(_)) if zoned => Some(*ns),
        ScalarValue::TimestampNanosecond(Some(ns), Some(_)) => shown(*ns),
        ScalarValue::TimestampNanosecond(Some(ns), None) if zoned => wall(*ns),
        ScalarValue::TimestampNanosecond(Some(ns), None) => Some(*ns),
        ScalarValue::Date32(Some(days)) => {
            let ns = i64::from(*days) * 86_400 * SECOND_NS;
            if zoned { wall(ns) } else { Some(ns) }
        }
        _ => None,
    };
    let ns = ns.ok_or_else(|| {
        let message =
            format!("invalid input syntax for type timestamp with time zone: \"{value}\"");
        Error::new("22007", message)
    })?;
    Ok(ScalarValue::TimestampNanosecond(Some(ns), zone))
}
