//! The read path below the query layer: prune buckets, find who leads, pin scans.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use futures::{StreamExt, TryStreamExt, stream};
use meta::{Bucket, ReplicaSet};
use model::{DatabaseId, NodeId, TimeRange};
use tskv::{ExactCounts, KnownGroup, ScanCounts, ScanRequest, VnodeScan};

use crate::Cluster;
use crate::error::{Error, Result};
use crate::leader::{Leader, Search};
use crate::peers::{PinnedScan, Request, Response, WireScan};
use crate::remote_scan::RemoteScan;

/// Replica sets whose scans are opened at once.
const OPENED_AT_ONCE: usize = 16;

/// A scan of one vnode.
#[derive(Debug)]
pub struct ScanPart {
    /// The times its bucket holds.
    pub times: TimeRange,
    /// The pinned scan.
    pub scan: Scan,
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

/// A scan of a vnode, wherever it is. A clone begins where it was pinned.
#[derive(Clone, Debug)]
pub enum Scan {
    /// Of this node.
    Here(Box<VnodeScan>),
    /// Of another.
    There(Box<RemoteScan>),
}

impl Scan {
    /// Splits the scan by series into about `parts` scans; read one after another they yield what this
    /// one would.
    pub fn split(self, parts: usize) -> Vec<Self> {
        match self {
            Self::Here(scan) => {
                scan.split(parts).into_iter().map(|scan| Self::Here(Box::new(scan))).collect()
            }
            Self::There(scan) => {
                scan.split(parts).into_iter().map(|scan| Self::There(Box::new(scan))).collect()
            }
        }
    }

    /// Returns the node that reads, where it is another one, and what it knows the scan by. It is pinned
    /// there as long as a clone of this scan lives.
    pub fn elsewhere(&self) -> Option<(NodeId, PinnedScan)> {
        match self {
            Self::Here(_) => None,
            Self::There(scan) => Some((scan.node(), scan.pinned())),
        }
    }

    /// Returns whether rows come by tag values, then time.
    pub fn is_ordered(&self) -> bool {
        match self {
            Self::Here(scan) => scan.is_ordered(),
            Self::There(scan) => scan.is_ordered(),
        }
    }

    /// Returns what is known of the rows without reading them; `None` where only reading tells.
    pub fn exact(&self) -> Option<ExactCounts> {
        match self {
            Self::Here(scan) => scan.exact(),
            Self::There(scan) => scan.exact(),
        }
    }

    /// Returns about how many rows lie in row groups that need perhaps not be read, of whatever series.
    pub fn rows_known_about(&self) -> usize {
        match self {
            Self::Here(scan) => scan.rows_known_about(),
            Self::There(_) => 0,
        }
    }

    /// Returns whether little has to be decoded for it, and nothing comes from another node.
    pub fn reads_little(&self) -> bool {
        match self {
            Self::Here(scan) => scan.reads_little(),
            Self::There(_) => false,
        }
    }

    /// Returns row groups that an aggregate need not read, `most` of them at most, in the order of their rows.
    pub fn known_groups(&self, most: usize) -> Vec<KnownGroup> {
        match self {
            Self::Here(scan) => scan.known_groups(most),
            Self::There(_) => Vec::new(),
        }
    }

    /// Returns the tags asked for of row groups this scan knows, in order: a value for each group.
    pub fn tags_of(&self, known: &[KnownGroup]) -> Vec<ArrayRef> {
        match self {
            Self::Here(scan) => scan.tags_of(known),
            Self::There(_) => Vec::new(),
        }
    }

    /// Has the scan leave out row groups it knows.
    pub fn leave_out(&mut self, known: &[KnownGroup]) {
        match self {
            Self::Here(scan) => scan.leave_out(known),
            Self::There(_) => {}
        }
    }

    /// Has the answer come in a schema that differs in which tags are dictionaries; what another node reads comes
    /// as before.
    pub fn in_schema(&mut self, schema: &SchemaRef) {
        match self {
            Self::Here(scan) => scan.in_schema(schema),
            Self::There(_) => {}
        }
    }

    /// Makes the scan yield only the last row of each series.
    pub fn only_last_rows(self) -> Self {
        match self {
            Self::Here(scan) => Self::Here(Box::new(scan.only_last_rows())),
            Self::There(scan) => Self::There(Box::new(scan.only_last_rows())),
        }
    }

    /// Tells the scan that no more rows than these are wanted; it may yield more.
    pub fn limit(&mut self, rows: usize) {
        match self {
            Self::Here(scan) => scan.limit(rows),
            Self::There(_) => {}
        }
    }

    /// Returns about how many rows lie in what has to be read.
    pub fn rows_about(&self) -> usize {
        match self {
            Self::Here(scan) => scan.rows_about(),
            Self::There(scan) => scan.rows_about(),
        }
    }

    /// Returns about how many rows will come; `None` where another node would have to tell.
    pub fn rows_expected(&self) -> Option<usize> {
        match self {
            Self::Here(scan) => Some(scan.rows_expected()),
            Self::There(_) => None,
        }
    }

    /// Returns what was read so far.
    pub fn counts(&self) -> ScanCounts {
        match self {
            Self::Here(scan) => scan.counts(),
            Self::There(scan) => scan.counts(),
        }
    }

    /// Returns the next rows; `None` at the end. Blocks on disk or network: for async threads only where it
    /// reads little, or all of them have such work and give way in between.
    ///
    /// # Errors
    /// A damaged file; a node that is gone.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Self::Here(scan) => Ok(scan.next_batch()?),
            Self::There(scan) => scan.next_batch(),
        }
    }
}

/// Which members are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// Those that lead: all that was acknowledged is seen.
    #[default]
    Leader,
    /// Any, the one of this node first: what was acknowledged longer ago than this is seen; where it is
    /// nothing, all.
    Any {
        /// How old what is seen may be.
        stale: Duration,
    },
}

impl Cluster {
    /// Opens the scans of a table's rows.
    ///
    /// # Errors
    /// A vnode that does not open; a replica set nobody leads.
    pub async fn scan(
        &self,
        database: DatabaseId,
        request: &ScanRequest,
        from: ReadFrom,
    ) -> Result<Scans> {
        let catalog = self.meta.catalog();
        let buckets = catalog.buckets(database, request.times);
        let sets = buckets.iter().flat_map(|bucket| {
            bucket.replica_sets.iter().map(move |replica_set| (bucket, replica_set))
        });
        let scans = sets.map(|(bucket, replica_set)| async move {
            let scan = match from {
                ReadFrom::Leader => None,
                ReadFrom::Any { stale } => {
                    self.scan_any((bucket, replica_set), request, stale).await?
                }
            };
            let scan = match scan {
                Some(scan) => scan,
                None => self.scan_replica_set(bucket, replica_set, request).await?,
            };
            Ok::<_, Error>(ScanPart { times: bucket.times, scan })
        });
        // On the heap, as they are many.
        let scans = stream::iter(scans.map(Box::pin).collect::<Vec<_>>()).buffered(OPENED_AT_ONCE);
        let parts = scans.try_collect().await?;
        let buckets_all = catalog.buckets(database, TimeRange::ALL).len();
        Ok(Scans { parts, buckets_all, buckets: buckets.len() })
    }

    /// Pins a scan where the replica set is led: all that was acknowledged is there.
    async fn scan_replica_set(
        &self,
        bucket: &Bucket,
        set: &ReplicaSet,
        request: &ScanRequest,
    ) -> Result<Scan> {
        let mut search = Search::new(self, bucket, set);
        loop {
            match Box::pin(search.next()).await? {
                Leader::Here(hosted) => match self.open_scan_here(&hosted, request).await {
                    Ok(scan) => return Ok(Scan::Here(Box::new(scan))),
                    Err(Error::Replication(replication::Error::NotLeader { leader })) => {
                        search.not_leader(leader.map(|(_, node)| node)).await;
                    }
                    Err(error) => return Err(error),
                },
                Leader::There(place) => {
                    let (scan, schema) = wire(request)?;
                    let open = Request::OpenScan { vnode: place.id, scan, stale_ms: None };
                    let Some((response, _)) = search.ask(place, &open, &schema).await? else {
                        continue;
                    };
                    let Response::Scan(info) = response else { return Err(response.into_error()) };
                    let peers = self.peers.clone();
                    let peers = peers.ok_or_else(|| Error::internal("there are no other nodes"))?;
                    let scan = RemoteScan::new(peers, place.node, info);
                    return Ok(Scan::There(Box::new(scan)));
                }
            }
        }
    }
}

pub(crate) fn wire(request: &ScanRequest) -> Result<(WireScan, Vec<u8>)> {
    let scan = WireScan {
        table: request.table,
        columns: request.columns.clone(),
        times: request.times,
        filter: request.filter.clone(),
        values: request.values.clone(),
        order: request.order.clone(),
    };
    let schema = Arc::clone(&request.schema);
    let writer = StreamWriter::try_new(Vec::new(), &schema).map_err(Error::internal)?;
    Ok((scan, writer.into_inner().map_err(Error::internal)?))
}
