//! What each tenant uses of this node: statements, rows and bytes, counted where they pass.
//!
//! Counted since the start of the process, by database and user; `usage_schema` shows it, and limits on
//! rates can be kept by it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{DatabaseId, TenantId, UserId};
use parking_lot::RwLock;

/// Who uses what: a database that is known by no id is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UsageKey {
    pub(crate) tenant: TenantId,
    pub(crate) database: Option<DatabaseId>,
    pub(crate) user: UserId,
}

/// What can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Statements that read.
    Queries,
    /// Statements, batches and bodies that write.
    Writes,
    /// Rows stored.
    RowsIn,
    /// Bytes of these rows, as they are logged.
    BytesIn,
    /// Rows given to clients.
    RowsOut,
    /// Bytes of these rows in memory.
    BytesOut,
}

pub(crate) const COUNTED: [Counted; 6] = [
    Counted::Queries,
    Counted::Writes,
    Counted::RowsIn,
    Counted::BytesIn,
    Counted::RowsOut,
    Counted::BytesOut,
];

/// The counters of one key.
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; COUNTED.len()]);

impl Counters {
    pub(crate) fn add(&self, what: Counted, by: u64) {
        self.0[what as usize].fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, what: Counted) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }
}

/// All counters of this node.
#[derive(Debug, Default)]
pub(crate) struct Usage(RwLock<HashMap<UsageKey, Arc<Counters>>>);

impl Usage {
    /// Returns the counters of a key, to be kept by who counts often.
    pub(crate) fn of(&self, key: UsageKey) -> Arc<Counters> {
        if let Some(found) = self.0.read().get(&key) {
            return Arc::clone(found);
        }
        Arc::clone(self.0.write().entry(key).or_default())
    }

    /// Returns all there is, in order.
    pub(crate) fn all(&self) -> Vec<(UsageKey, Arc<Counters>)> {
        let counters = self.0.read();
        let mut all: Vec<_> =
            counters.iter().map(|(key, counters)| (*key, Arc::clone(counters))).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }
}
