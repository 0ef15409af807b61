//! The read path below the query layer: prune buckets, open vnodes, pin scans.

use model::{DatabaseId, TimeRange};
use tskv::{ScanRequest, VnodeScan};

use crate::Cluster;
use crate::error::Result;

/// A scan of one vnode.
#[derive(Debug)]
pub struct ScanPart {
    /// The times its bucket holds.
    pub times: TimeRange,
    /// The pinned scan.
    pub scan: VnodeScan,
}

/// The scans that together yield every row asked for, once.
#[derive(Debug)]
pub struct Scans {
    /// In order of bucket, then shard.
    pub parts: Vec<ScanPart>,
    /// Buckets of the database, whether or not they are read.
    pub buckets_all: usize,
    /// Buckets that are read.
    pub buckets: usize,
}

impl Cluster {
    /// Opens the scans of a table's rows.
    ///
    /// # Errors
    /// A vnode that does not open.
    pub async fn scan(&self, database: DatabaseId, request: &ScanRequest) -> Result<Scans> {
        let catalog = self.meta.catalog();
        let buckets = catalog.buckets(database, request.times);
        let mut parts = Vec::with_capacity(buckets.len());
        for bucket in &buckets {
            for replica_set in &bucket.replica_sets {
                let hosted = self.vnode(bucket, replica_set).await?;
                let scan = hosted.beside.vnode.scan(request.clone());
                parts.push(ScanPart { times: bucket.times, scan });
            }
        }
        let buckets_all = catalog.buckets(database, TimeRange::ALL).len();
        Ok(Scans { parts, buckets_all, buckets: buckets.len() })
    }
}
