//! A checksum of a vnode's rows at one place of the log, to compare replicas by.
//!
//! The command that asks for it pins what is visible when it is applied: the same rows on each replica,
//! however they lie in files. Rows and values are hashed one by one and the hashes added up, so that
//! neither files nor the order of reading matter. What was dropped from the catalog is left out, for
//! replicas forget it at different times.

use std::collections::{BTreeSet, HashMap};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, UInt64Type};
use model::series_key::hash_bytes;
use model::{ColumnId, TableId, ValueType};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::Result;
use crate::index::{SeriesFilter, SeriesIndex};
use crate::reader::{RowReader, RowRequest};
use crate::run::Run;
use crate::schemas::TableFate;
use crate::version::SuperVersion;
use crate::vnode::{State, Vnode};

/// The checksum of a vnode's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VnodeChecksum {
    /// The Raft index it stands for.
    pub index: u64,
    /// Rows.
    pub rows: u64,
    /// Hashes of rows and values, added up.
    pub hash: u64,
}

/// What was visible when a checksum was asked for.
pub(crate) struct PinnedRows {
    pub(crate) since: Instant,
    index: u64,
    tables: Vec<(TableId, SuperVersion)>,
}

impl std::fmt::Debug for PinnedRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinnedRows").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Vnode {
    /// Keeps what is visible at an index; what was kept before is forgotten.
    pub(crate) fn pin_for_checksum(&self, state: &State, index: u64) {
        let in_memory = [state.frozen.as_deref(), Some(&state.mutable)];
        let in_memory = in_memory.into_iter().flatten().flat_map(|one| one.tables());
        let in_files = state.version.files.iter().flat_map(|one| one.file.rows_by_table());
        let tables: BTreeSet<TableId> =
            in_memory.map(|(table, _)| table).chain(in_files.map(|(table, _)| table)).collect();
        let tables = tables.into_iter().map(|table| (table, state.pin(table))).collect();
        *self.pinned_rows.lock() = Some(PinnedRows { since: Instant::now(), index, tables });
    }

    /// Returns the checksum of the rows kept last; `None` where none are kept. Blocks on the disk.
    ///
    /// # Errors
    /// A damaged file.
    pub fn checksum(&self) -> Result<Option<VnodeChecksum>> {
        let Some(PinnedRows { index, tables, .. }) = self.pinned_rows.lock().take() else {
            return Ok(None);
        };
        let mut sum = VnodeChecksum { index, rows: 0, hash: 0 };
        for (table, pinned) in tables {
            let TableFate::Live(schema) = self.schemas.table(table) else { continue };
            let fields = schema.fields().map(|(column, value_type)| (column.id, value_type));
            let fields: Vec<(ColumnId, ValueType)> = fields.collect();
            let series = self.series.matching(table, &SeriesFilter::default())?;
            let request = RowRequest::all(table, fields, series.clone());
            let mut reader = RowReader::new(&pinned, request);
            while let Some(run) = reader.next_run()? {
                add_run(&mut sum, table, &run, (&series, &self.series))?;
            }
        }
        self.damage.clear();
        Ok(Some(sum))
    }
}

/// Adds the rows of a run, in which a series is its place among the ids.
fn add_run(
    sum: &mut VnodeChecksum,
    table: TableId,
    run: &Run,
    (series, index): (&[u32], &SeriesIndex),
) -> Result<()> {
    let places: Vec<u32> = run.series_rows().map(|(place, _, _)| place).collect();
    let ids: Vec<u32> = places.iter().map(|place| series[*place as usize]).collect();
    let hashes = index.keys(&ids)?.into_iter().map(|key| hash_bytes(&key));
    let keys: HashMap<u32, u64> = places.into_iter().zip(hashes).collect();
    let mut bytes = Vec::new();
    for row in 0..run.rows() {
        bytes.clear();
        bytes.extend_from_slice(&table.0.to_le_bytes());
        bytes.extend_from_slice(&keys[&run.series[row]].to_le_bytes());
        bytes.extend_from_slice(&run.times[row].to_le_bytes());
        let row_bytes = bytes.len();
        sum.rows += 1;
        sum.hash = sum.hash.wrapping_add(hash_bytes(&bytes));
        for column in &run.columns {
            bytes.truncate(row_bytes);
            bytes.extend_from_slice(&column.id.0.to_le_bytes());
            if put_value(&column.values, row, &mut bytes) {
                sum.hash = sum.hash.wrapping_add(hash_bytes(&bytes));
            }
        }
    }
    Ok(())
}

/// Appends a value's bytes. Returns false where it is NULL.
fn put_value(values: &ArrayRef, row: usize, out: &mut Vec<u8>) -> bool {
    if values.is_null(row) {
        return false;
    }
    if let Some(values) = values.as_primitive_opt::<Float64Type>() {
        out.extend_from_slice(&values.value(row).to_bits().to_le_bytes());
    } else if let Some(values) = values.as_primitive_opt::<Int64Type>() {
        out.extend_from_slice(&values.value(row).to_le_bytes());
    } else if let Some(values) = values.as_primitive_opt::<UInt64Type>() {
        out.extend_from_slice(&values.value(row).to_le_bytes());
    } else if let Some(values) = values.as_boolean_opt() {
        out.push(u8::from(values.value(row)));
    } else if let Some(values) = values.as_string_opt::<i32>() {
        out.extend_from_slice(values.value(row).as_bytes());
    }
    true
}
