//! Rows not yet in a file, and the deletes that came with them: per table a list of sorted runs,
//! oldest first. Runs never change, so a reader pins them by cloning the list.
//!
//! Invariant: runs are merged only with neighbours between which no delete of the table arrived.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::TableId;

use crate::merge::{Columns, merge};
use crate::run::Run;
use crate::tombstone::{Masks, Tombstone};

/// Runs below this many rows are merged with their neighbours.
const SMALL_RUN_ROWS: usize = 4_096;
/// As many small runs of one size are merged at once: each row is copied once per power of it.
const MERGE_FACTOR: usize = 8;

/// The rows and deletes of one table, each with the order of its arrival.
#[derive(Debug, Default)]
pub(crate) struct TableRows {
    pub(crate) runs: Vec<(u64, Arc<Run>)>,
    pub(crate) tombstones: Vec<(u64, Arc<Tombstone>)>,
}

/// The memcache of a vnode.
#[derive(Debug, Default)]
pub(crate) struct Memcache {
    tables: BTreeMap<TableId, TableRows>,
    bytes: usize,
}

impl Memcache {
    /// Adds rows that are newer than all that are there.
    pub(crate) fn push(&mut self, table: TableId, order: u64, run: Run) {
        if run.rows() == 0 {
            return;
        }
        let bytes = run.bytes();
        let rows = self.tables.entry(table).or_default();
        rows.runs.push((order, Arc::new(run)));
        while let Some(count) = rows.mergeable() {
            let newest: Vec<_> = rows.runs.drain(rows.runs.len() - count..).collect();
            let newest: Vec<&Run> = newest.iter().map(|(_, run)| run.as_ref()).collect();
            rows.runs.push((order, Arc::new(merge(&newest, &Columns::All))));
        }
        self.bytes += bytes;
    }

    /// Adds a delete of what arrived before it.
    pub(crate) fn delete(&mut self, order: u64, tombstone: Tombstone) {
        let bytes = tombstone.bytes();
        let rows = self.tables.entry(tombstone.table).or_default();
        rows.tombstones.push((order, Arc::new(tombstone)));
        self.bytes += bytes;
    }

    /// Counts bytes that the rows take elsewhere in memory until they are flushed.
    pub(crate) fn hold(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Returns what is held of a table.
    pub(crate) fn table(&self, table: TableId) -> Option<&TableRows> {
        self.tables.get(&table)
    }

    /// Returns all tables in order of id.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (TableId, &TableRows)> {
        self.tables.iter().map(|(table, rows)| (*table, rows))
    }

    /// Returns the time of the last row.
    pub(crate) fn last_time(&self) -> Option<i64> {
        let runs = self.tables.values().flat_map(|rows| &rows.runs);
        runs.filter_map(|(_, run)| run.times.iter().max().copied()).max()
    }

    /// Returns the bytes that a flush will free.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether there is any row.
    pub(crate) fn has_rows(&self) -> bool {
        self.tables.values().any(|rows| !rows.runs.is_empty())
    }
}

impl TableRows {
    /// Returns the tombstones that arrived after a run.
    pub(crate) fn masks(&self, order: u64) -> Masks {
        let newer = self.tombstones.iter().filter(|(arrived, _)| *arrived > order);
        newer.map(|(_, one)| Arc::clone(one)).collect()
    }

    /// Returns how many of the newest runs are small, of about one size, and behind the last delete.
    fn mergeable(&self) -> Option<usize> {
        let tier = |run: &Run| run.rows().ilog(MERGE_FACTOR);
        let (_, newest) = self.runs.last()?;
        let barrier = self.tombstones.last().map_or(0, |(order, _)| *order);
        let same = self.runs.iter().rev().take_while(|(order, run)| {
            *order > barrier && run.rows() < SMALL_RUN_ROWS && tier(run) <= tier(newest)
        });
        (same.count() >= MERGE_FACTOR).then_some(MERGE_FACTOR)
    }
}
