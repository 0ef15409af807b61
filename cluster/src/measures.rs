//! What this node's part of the data can tell of itself to those who watch it.

use std::collections::BTreeMap;

use model::{DatabaseId, VnodeId};
use tskv::SeriesCacheTotals;
use tskv::wal::WalTotals;

use crate::Cluster;

/// The Raft groups of one database, as the members on this node know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupTotals {
    /// Groups led here.
    pub led: u64,
    /// Groups that follow another node's member.
    pub followed: u64,
    /// Groups that know no leader.
    pub leaderless: u64,
    /// Their terms, added up: it grows with each election.
    pub terms: u64,
    /// Entries of the members here that are not applied yet.
    pub unapplied: u64,
    /// Entries that the slowest members of groups led here lack.
    pub behind: u64,
}

/// Bytes of memory by who takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageMemory {
    /// Rows and series not yet in a file.
    pub memcache: usize,
    /// Entries of logs that are not applied yet.
    pub log_tail: usize,
    /// The ids of series met lately.
    pub series_cache: usize,
    /// Rows of files, decoded.
    pub decoded_cache: usize,
}

impl Cluster {
    /// Returns what this node's log has done since it was opened.
    pub fn wal_totals(&self) -> WalTotals {
        self.wal.totals()
    }

    /// Returns what the cache of series' ids has done.
    pub fn series_cache_totals(&self) -> SeriesCacheTotals {
        self.series_cache.totals()
    }

    /// Returns what memory storage takes.
    pub fn storage_memory(&self) -> StorageMemory {
        StorageMemory {
            memcache: self.gauge.bytes(),
            log_tail: self.wal.bytes_in_memory(),
            series_cache: self.series_cache.totals().bytes,
            decoded_cache: self.decoded_cache.bytes(),
        }
    }

    /// Returns how the Raft groups that are open here do, by database.
    pub async fn group_totals(&self) -> BTreeMap<DatabaseId, GroupTotals> {
        let catalog = self.meta.catalog();
        let mut all: BTreeMap<DatabaseId, GroupTotals> = BTreeMap::new();
        for (member, hosted) in self.vnodes.open_now() {
            let Some((bucket, _)) = catalog.replica_set_of(VnodeId(member)) else { continue };
            let status = hosted.group.status();
            let totals = all.entry(bucket.database).or_default();
            let leads = status.leader.map(|(leader, _)| leader == member);
            match leads {
                Some(true) => totals.led += 1,
                Some(false) => totals.followed += 1,
                None => totals.leaderless += 1,
            }
            totals.terms += status.term;
            totals.unapplied += status.unapplied();
            if leads == Some(true) {
                totals.behind += status.behind();
            }
        }
        all
    }
}
