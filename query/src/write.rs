//! Rows that front ends decoded themselves: the table and its columns grow as the rows need.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::datatypes::DataType;
use meta::{AlterTable, Command, NewColumn, RateGroup};
use model::points::{POINTS_ROWS_MAX, PointsColumn, SeriesDictionary};
use model::series_key::TAG_VALUE_BYTES_MAX;
use model::{Codec, Column, ColumnKind, Points, SeriesKey, TableSchema, ValueType};

use crate::access::{Need, Object};
use crate::error::{Error, Result};
use crate::ingest::{Target, admit, count, null_value, size};
use crate::session::Session;
use crate::usage::Counted;

/// Into how many parts rows are taken apart, at most, to find those that are refused.
const PARTS_MAX: usize = 2_000;
/// How often the table is looked at again when others change it meanwhile.
const ATTEMPTS: usize = 8;

/// Rows of one table that have the same fields.
#[derive(Clone, Debug)]
pub struct RowBatch {
    /// The table, in the session's database.
    pub table: String,
    /// The distinct tag sets: names and values.
    pub series: Vec<Vec<(String, String)>>,
    /// For each row, its index in `series`.
    pub row_series: Vec<u32>,
    /// For each row, nanoseconds since the epoch.
    pub times: Vec<i64>,
    /// Names and values of the fields.
    pub fields: Vec<(String, ArrayRef)>,
}

impl RowBatch {
    /// Returns some of the rows, and the series they are of.
    fn part(&self, rows: Range<usize>) -> Self {
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        let mut series = Vec::new();
        let number = |old: &u32| {
            *numbers.entry(*old).or_insert_with(|| {
                series.push(self.series[*old as usize].clone());
                series.len() as u32 - 1
            })
        };
        let row_series = self.row_series[rows.clone()].iter().map(number).collect();
        let slice = |(name, values): &(String, ArrayRef)| {
            (name.clone(), values.slice(rows.start, rows.len()))
        };
        Self {
            table: self.table.clone(),
            row_series,
            times: self.times[rows.clone()].to_vec(),
            fields: self.fields.iter().map(slice).collect(),
            series,
        }
    }
}

/// What became of rows that were written as far as they could be.
#[derive(Debug, Default)]
pub struct Written {
    /// How many are stored.
    pub kept: usize,
    /// Rows that are not, and why.
    pub refused: Vec<(Range<usize>, Error)>,
}

impl Session {
    /// Stores those rows that can be: where some are refused the others are written without them, in halves of
    /// halves. What fails for another reason than the rows' own ends it.
    pub async fn write_rows(&self, batch: &RowBatch) -> Written {
        let mut written = Written::default();
        if let Err(error) = self.begin_write().await {
            written.refused.push((0..batch.times.len(), error));
            return written;
        }
        let mut left: Vec<Range<usize>> = std::iter::once(0..batch.times.len()).collect();
        let mut attempts = 0;
        while let Some(rows) = left.pop() {
            attempts += 1;
            let whole = rows.len() == batch.times.len();
            let stored = match whole {
                true => self.store_rows(batch).await,
                false => self.store_rows(&batch.part(rows.clone())).await,
            };
            match stored {
                Ok(()) => written.kept += rows.len(),
                Err(error) if error.is_of_rows() && rows.len() > 1 && attempts < PARTS_MAX => {
                    let middle = rows.start + rows.len() / 2;
                    left.extend([middle..rows.end, rows.start..middle]);
                }
                Err(error) if error.is_of_rows() => written.refused.push((rows, error)),
                Err(error) => {
                    let failed = std::iter::once(rows).chain(left.drain(..));
                    written.refused.extend(failed.map(|rows| (rows, error.clone())));
                }
            }
        }
        written
    }

    /// Stores rows; every one is durable and visible when this returns. A table or column that is not
    /// there is made.
    ///
    /// # Errors
    /// 42804 for values of another type than their column's; what INSERT would say.
    pub async fn write(&self, batch: &RowBatch) -> Result<()> {
        self.begin_write().await?;
        self.store_rows(batch).await
    }

    /// Counts one write, where the tenant's limits let it begin.
    async fn begin_write(&self) -> Result<()> {
        self.check_password()?;
        self.usage().add(Counted::Writes, 1);
        self.admission().take(RateGroup::CoordWrites, 1).await
    }

    async fn store_rows(&self, batch: &RowBatch) -> Result<()> {
        let database = self.user_database(&self.database_name())?;
        let catalog = self.database().catalog();
        let table = catalog.table(database.id, &batch.table).map(|table| table.id);
        // Who may write to the database may have a table made by its rows.
        self.check(Need::Write(Object { database: database.id, table }))?;
        let (usage, admission) = (self.usage(), self.admission());
        let table = self.grown_table(&database, batch).await?;
        let target = Target::whole(database, table);
        target.check_alive(&batch.times, self.now_ns())?;
        let mut points = points(&target.table, batch)?;
        admit(&target.table, &mut points)?;
        let rows = points.rows();
        for start in (0..rows).step_by(POINTS_ROWS_MAX) {
            let end = (start + POINTS_ROWS_MAX).min(rows);
            let part = if end - start == rows {
                points.clone()
            } else {
                points.select(&(start as u32..end as u32).collect::<Vec<_>>())
            };
            let size = size(&part);
            admission.take(RateGroup::CoordDataIn, size.1).await?;
            let cluster = self.database().cluster();
            cluster.write(target.database.id, part, self.consistency()).await?;
            count(&usage, size);
        }
        Ok(())
    }

    /// Returns the table with all columns the rows name, making what is missing.
    async fn grown_table(
        &self,
        database: &meta::Database,
        batch: &RowBatch,
    ) -> Result<Arc<TableSchema>> {
        for _ in 0..ATTEMPTS {
            let catalog = self.database().catalog();
            let found = catalog.table(database.id, &batch.table);
            let missing = missing_columns(found.map(AsRef::as_ref), batch)?;
            if database.options.strict_write {
                check_strict(found.map(AsRef::as_ref), &missing, batch)?;
            }
            let commands = match found {
                Some(table) if missing.is_empty() => return Ok(Arc::clone(table)),
                Some(table) => {
                    let add = |column| Command::AlterTable {
                        table: table.id,
                        change: AlterTable::Add(column),
                    };
                    missing.into_iter().map(add).collect()
                }
                None => vec![Command::CreateTable {
                    database: database.id,
                    name: batch.table.clone(),
                    columns: missing,
                }],
            };
            match self.submit_all(commands).await {
                Ok(()) => {}
                // Another writer was quicker: look again.
                Err(error) if ["42P07", "42701"].contains(&error.sqlstate) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new("55006", format!("table \"{}\" is being changed by others", batch.table)))
    }
}

/// Returns the columns rows name and a table lacks, tags first; checks the types of the others.
fn missing_columns(table: Option<&TableSchema>, batch: &RowBatch) -> Result<Vec<NewColumn>> {
    let known = |name: &str| table.and_then(|table| table.column(name));
    let mut missing: Vec<NewColumn> = Vec::new();
    for (name, _) in batch.series.iter().flatten() {
        match known(name).map(|column| column.kind) {
            Some(ColumnKind::Tag) => {}
            Some(_) => return Err(conflict(name, "a tag", &batch.table)),
            None if missing.iter().any(|column| column.name == *name) => {}
            None => missing.push(NewColumn {
                name: name.clone(),
                kind: ColumnKind::Tag,
                not_null: false,
                codec: Codec::Default,
                shape: None,
            }),
        }
    }
    for (name, values) in &batch.fields {
        let value_type = value_type(values.data_type())?;
        match known(name).map(|column| column.kind) {
            Some(ColumnKind::Field(known)) if known == value_type => {}
            Some(_) => return Err(conflict(name, value_type.sql(), &batch.table)),
            None if missing.iter().any(|column| column.name == *name) => {
                return Err(conflict(name, value_type.sql(), &batch.table));
            }
            None => missing.push(NewColumn {
                name: name.clone(),
                kind: ColumnKind::Field(value_type),
                not_null: false,
                codec: Codec::Default,
                shape: None,
            }),
        }
    }
    Ok(missing)
}

/// Refuses what STRICT_WRITE does not let rows make.
fn check_strict(
    table: Option<&TableSchema>,
    missing: &[NewColumn],
    batch: &RowBatch,
) -> Result<()> {
    let error = match (table, missing.first()) {
        (None, _) => Error::new("42P01", format!("relation \"{}\" does not exist", batch.table)),
        (Some(table), Some(column)) => {
            let message =
                format!("column \"{}\" of relation \"{}\" does not exist", column.name, table.name);
            Error::new("42703", message)
        }
        (Some(_), None) => return Ok(()),
    };
    Err(error.hint("the database has STRICT_WRITE: tables and columns are made by SQL"))
}

fn conflict(column: &str, given: &str, table: &str) -> Error {
    Error::new("42804", format!("column \"{column}\" of \"{table}\" is not {given}"))
}

fn value_type(data_type: &DataType) -> Result<ValueType> {
    [ValueType::I64, ValueType::U64, ValueType::F64, ValueType::Bool, ValueType::Str]
        .into_iter()
        .find(|value_type| value_type.arrow() == *data_type)
        .ok_or_else(|| Error::internal("a field of another type than fields have"))
}

fn points(table: &TableSchema, batch: &RowBatch) -> Result<Points> {
    let mut dictionary = SeriesDictionary::default();
    let mut numbers = Vec::with_capacity(batch.series.len());
    let mut key = Vec::new();
    let mut tags: Vec<&Column> = table.tags().collect();
    tags.sort_by_key(|tag| tag.id);
    for series in &batch.series {
        let mut values = Vec::with_capacity(series.len());
        for tag in &tags {
            let value = series.iter().find(|(name, _)| *name == tag.name);
            let value = value.map(|(_, value)| value.as_str());
            if value.is_none() && tag.not_null {
                return Err(null_value(&tag.name, &table.name));
            }
            if value.is_some_and(|value| value.len() > TAG_VALUE_BYTES_MAX) {
                let message = format!("a value of tag \"{}\" is longer than 16 KiB", tag.name);
                return Err(Error::new("22001", message));
            }
            values.push((tag.id, value));
        }
        key.clear();
        SeriesKey::encode_into(&mut key, table.id, values.into_iter());
        numbers.push(dictionary.number(&key));
    }
    let fields = batch.fields.iter().map(|(name, values)| {
        let column = table.column(name).ok_or_else(|| Error::internal("a column was just made"))?;
        let value_type = value_type(values.data_type())?;
        Ok(PointsColumn { id: column.id, value_type, values: Arc::clone(values) })
    });
    Ok(Points {
        table: table.id,
        series: dictionary.into_keys(),
        row_series: batch.row_series.iter().map(|number| numbers[*number as usize]).collect(),
        times: batch.times.clone(),
        fields: fields.collect::<Result<_>>()?,
    })
}
