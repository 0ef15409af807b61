//! The rows of a temporary table. They are replaced whole, so that a query reads what there was when it
//! began.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::catalog::{MemTable, Session as Planning, TableProvider};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;

use crate::error::{Error, Result};

/// The column of a row's number, where rows are wanted with it.
pub(super) const NUMBER: &str = "?number?";

/// What the rows of a table must obey.
#[derive(Clone, Debug, Default)]
pub(super) struct Constraints {
    /// Columns without NULL, by place.
    pub(super) not_null: Vec<usize>,
    /// Sets of columns, by place, whose values no two rows share unless one is NULL.
    pub(super) unique: Vec<Vec<usize>>,
    /// Columns of text of no more than so many characters, by place.
    pub(super) lengths: Vec<(usize, usize)>,
}

/// A temporary table.
#[derive(Debug)]
pub(crate) struct TemporaryTable {
    name: String,
    schema: SchemaRef,
    constraints: Constraints,
    rows: Mutex<Rows>,
}

#[derive(Debug)]
struct Rows {
    batches: Vec<RecordBatch>,
    /// The values of each set of columns that are there once.
    taken: Vec<HashSet<OwnedRow>>,
    held: MemoryReservation,
}

impl TemporaryTable {
    /// Begins an empty table, whose rows take memory of `pool`.
    pub(super) fn new(
        name: String,
        schema: SchemaRef,
        constraints: Constraints,
        pool: &Arc<dyn MemoryPool>,
    ) -> Self {
        let held = MemoryConsumer::new(format!("temporary table {name}")).register(pool);
        let taken = vec![HashSet::new(); constraints.unique.len()];
        let rows = Mutex::new(Rows { batches: Vec::new(), taken, held });
        Self { name, schema, constraints, rows }
    }

    pub(super) fn columns(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.rows.lock().held.size()
    }

    /// Returns the rows there are, as one batch.
    pub(super) fn all(&self) -> Result<RecordBatch> {
        Ok(concat_batches(&self.schema, &self.rows.lock().batches)?)
    }

    /// Adds rows: all or none.
    ///
    /// # Errors
    /// 23502, 23505, 53200.
    pub(super) fn append(&self, batches: Vec<RecordBatch>) -> Result<()> {
        let mut rows = self.rows.lock();
        let fresh = self.check(&batches, &rows.taken)?;
        rows.held.try_grow(bytes_of(&batches) + bytes_of_keys(&fresh))?;
        for (taken, fresh) in rows.taken.iter_mut().zip(fresh) {
            taken.extend(fresh);
        }
        rows.batches.extend(batches.into_iter().filter(|batch| batch.num_rows() > 0));
        Ok(())
    }

    /// Puts other rows in the place of all: or leaves them as they are.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub(super) fn replace(&self, batch: RecordBatch) -> Result<()> {
        let mut rows = self.rows.lock();
        let batches = vec![batch];
        let none = vec![HashSet::new(); self.constraints.unique.len()];
        let taken = self.check(&batches, &none)?;
        rows.held.try_resize(bytes_of(&batches) + bytes_of_keys(&taken))?;
        rows.taken = taken;
        rows.batches = batches;
        Ok(())
    }

    /// Checks rows to come beside those whose values are taken. Returns the values they take.
    fn check(
        &self,
        batches: &[RecordBatch],
        taken: &[HashSet<OwnedRow>],
    ) -> Result<Vec<HashSet<OwnedRow>>> {
        for batch in batches {
            for at in &self.constraints.not_null {
                if batch.column(*at).null_count() > 0 {
                    let (column, table) = (self.schema.field(*at).name(), &self.name);
                    return Err(Error::new(
                        "23502",
                        format!(
                            "null value in column \"{column}\" of relation \"{table}\" violates \
                             not-null constraint"
                        ),
                    ));
                }
            }
        }
        for (at, most) in &self.constraints.lengths {
            let columns =
                batches.iter().filter_map(|batch| batch.column(*at).as_string_opt::<i32>());
            if columns.flatten().flatten().any(|text| text.chars().count() > *most) {
                let name = self.schema.field(*at).name();
                let message = format!("value too long for type character varying({most})");
                return Err(Error::new("22001", format!("{message} (column \"{name}\")")));
            }
        }
        let sets = self.constraints.unique.iter().zip(taken);
        sets.map(|(columns, taken)| self.check_unique(batches, columns, taken)).collect()
    }

    fn check_unique(
        &self,
        batches: &[RecordBatch],
        columns: &[usize],
        taken: &HashSet<OwnedRow>,
    ) -> Result<HashSet<OwnedRow>> {
        let type_of = |at: &usize| SortField::new(self.schema.field(*at).data_type().clone());
        let converter = RowConverter::new(columns.iter().map(type_of).collect())?;
        let mut fresh = HashSet::new();
        for batch in batches {
            let values: Vec<ArrayRef> =
                columns.iter().map(|at| Arc::clone(batch.column(*at))).collect();
            let keys = converter.convert_columns(&values)?;
            for (row, key) in keys.iter().enumerate() {
                let key = key.owned();
                let is_null = values.iter().any(|column| column.is_null(row));
                if !is_null && (taken.contains(&key) || !fresh.insert(key)) {
                    let names: Vec<&str> =
                        columns.iter().map(|at| self.schema.field(*at).name().as_str()).collect();
                    let message = format!(
                        "duplicate key value violates unique constraint on ({}) of relation \"{}\"",
                        names.join(", "),
                        self.name
                    );
                    return Err(Error::new("23505", message));
                }
            }
        }
        Ok(fresh)
    }

    fn batches(&self) -> Vec<RecordBatch> {
        self.rows.lock().batches.clone()
    }
}

/// Bytes of a key in a set, beside those of its values.
const KEY_BYTES: usize = 48;

fn bytes_of_keys(sets: &[HashSet<OwnedRow>]) -> usize {
    sets.iter().flatten().map(|key| key.as_ref().len() + KEY_BYTES).sum()
}

pub(super) fn bytes_of(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::get_array_memory_size).sum()
}

type DfResult<T> = datafusion::common::Result<T>;

#[async_trait]
impl TableProvider for TemporaryTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Planning,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let rows = MemTable::try_new(self.schema(), vec![self.batches()])?;
        rows.scan(state, projection, filters, limit).await
    }
}

/// A temporary table's rows with their numbers, from 0, in the order of [`TemporaryTable::all`].
#[derive(Debug)]
pub(super) struct Numbered(pub(super) Arc<TemporaryTable>);

#[async_trait]
impl TableProvider for Numbered {
    fn schema(&self) -> SchemaRef {
        let number = Arc::new(Field::new(NUMBER, DataType::UInt64, false));
        let fields = self.0.schema.fields().iter().cloned().chain([number]);
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn Planning,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let mut next = 0;
        let numbered = self.0.batches().into_iter().map(|batch| {
            let end = next + batch.num_rows() as u64;
            let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(next..end));
            next = end;
            let columns = batch.columns().iter().cloned().chain([numbers]);
            RecordBatch::try_new(self.schema(), columns.collect())
        });
        let numbered = numbered.collect::<std::result::Result<Vec<_>, _>>()?;
        let rows = MemTable::try_new(self.schema(), vec![numbered])?;
        rows.scan(state, projection, filters, limit).await
    }
}
