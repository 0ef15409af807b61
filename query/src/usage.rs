//! What each tenant uses of this node: statements, requests, rows and bytes, counted where they pass.
//!
//! Counted by database and user, and over HTTP by route besides; `usage_schema` shows it. The counters
//! outlive the process: `kept` writes them down.

mod kept;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{DatabaseId, TenantId, UserId};
use parking_lot::RwLock;

pub use kept::UsageKeeper;

/// Who uses what: a database that is known by no id is none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UsageKey {
    pub(crate) tenant: TenantId,
    pub(crate) database: Option<DatabaseId>,
    pub(crate) user: UserId,
    /// The route, of what is counted of HTTP.
    pub(crate) route: Option<Arc<str>>,
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
    /// Requests over HTTP that read.
    HttpQueries,
    /// Requests over HTTP that write.
    HttpWrites,
    /// Bytes of their bodies, as they came.
    HttpBytesIn,
    /// Bytes of the answers, as they went.
    HttpBytesOut,
}

pub(crate) const COUNTED: [Counted; 10] = [
    Counted::Queries,
    Counted::Writes,
    Counted::RowsIn,
    Counted::BytesIn,
    Counted::RowsOut,
    Counted::BytesOut,
    Counted::HttpQueries,
    Counted::HttpWrites,
    Counted::HttpBytesIn,
    Counted::HttpBytesOut,
];

impl Counted {
    /// Returns the name of its table in `usage_schema`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queries => "coord_queries",
            Self::Writes => "coord_writes",
            Self::RowsIn => "coord_rows_in",
            Self::BytesIn => "coord_data_in",
            Self::RowsOut => "coord_rows_out",
            Self::BytesOut => "coord_data_out",
            Self::HttpQueries => "http_queries",
            Self::HttpWrites => "http_writes",
            Self::HttpBytesIn => "http_data_in",
            Self::HttpBytesOut => "http_data_out",
        }
    }

    /// Returns whether it is counted by route.
    pub(crate) fn by_route(self) -> bool {
        matches!(
            self,
            Self::HttpQueries | Self::HttpWrites | Self::HttpBytesIn | Self::HttpBytesOut
        )
    }
}

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

/// The counters of a route for who asks.
#[derive(Clone, Debug)]
pub struct RouteUsage(pub(crate) Arc<Counters>);

impl RouteUsage {
    /// Counts a request and the bytes of its body.
    pub fn asked(&self, writes: bool, bytes: usize) {
        self.0.add(if writes { Counted::HttpWrites } else { Counted::HttpQueries }, 1);
        self.0.add(Counted::HttpBytesIn, bytes as u64);
    }

    /// Counts bytes of an answer.
    pub fn answered(&self, bytes: usize) {
        self.0.add(Counted::HttpBytesOut, bytes as u64);
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
            counters.iter().map(|(key, counters)| (key.clone(), Arc::clone(counters))).collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// Moves what was counted under one key to another; `None` forgets it.
    pub(crate) fn rename(&self, name: impl Fn(&UsageKey) -> Option<UsageKey>) {
        let mut all = self.0.write();
        let old: Vec<_> =
            all.keys().filter(|key| name(key).as_ref() != Some(*key)).cloned().collect();
        for key in old {
            let Some(counters) = all.remove(&key) else { continue };
            if let Some(renamed) = name(&key) {
                let sum = all.entry(renamed).or_default();
                COUNTED.into_iter().for_each(|what| sum.add(what, counters.get(what)));
            }
        }
    }
}
