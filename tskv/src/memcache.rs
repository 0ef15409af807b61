//! Rows not yet in a file: per table a list of sorted runs, oldest first. Runs never change, so a
//! reader pins them by cloning the list.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::TableId;

use crate::run::{Columns, Run, merge};

/// Runs below this many rows are merged with their neighbours.
const SMALL_RUN_ROWS: usize = 4_096;
/// As many small runs of one size are merged at once: each row is copied once per power of it.
const MERGE_FACTOR: usize = 8;

/// The memcache of a vnode.
#[derive(Debug, Default)]
pub(crate) struct Memcache {
    tables: BTreeMap<TableId, Vec<Arc<Run>>>,
    bytes: usize,
}

impl Memcache {
    /// Adds rows that are newer than all that are there. Returns the bytes they take.
    pub(crate) fn push(&mut self, table: TableId, run: Run) -> usize {
        if run.rows() == 0 {
            return 0;
        }
        let bytes = run.bytes();
        let runs = self.tables.entry(table).or_default();
        runs.push(Arc::new(run));
        while let Some(count) = mergeable(runs) {
            let newest: Vec<Arc<Run>> = runs.drain(runs.len() - count..).collect();
            let newest: Vec<&Run> = newest.iter().map(AsRef::as_ref).collect();
            runs.push(Arc::new(merge(&newest, &Columns::All)));
        }
        self.bytes += bytes;
        bytes
    }

    /// Returns the runs of a table, oldest first.
    pub(crate) fn runs(&self, table: TableId) -> &[Arc<Run>] {
        self.tables.get(&table).map_or(&[], Vec::as_slice)
    }

    /// Returns all tables in order of id.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (TableId, &[Arc<Run>])> {
        self.tables.iter().map(|(table, runs)| (*table, runs.as_slice()))
    }

    /// Returns the bytes that were pushed.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

/// Returns how many of the newest runs are small and of about one size.
fn mergeable(runs: &[Arc<Run>]) -> Option<usize> {
    let tier = |run: &Run| run.rows().ilog(MERGE_FACTOR);
    let newest = runs.last()?;
    let same = runs
        .iter()
        .rev()
        .take_while(|run| run.rows() < SMALL_RUN_ROWS && tier(run) <= tier(newest));
    (same.count() >= MERGE_FACTOR).then_some(MERGE_FACTOR)
}
