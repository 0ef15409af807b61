//! The write path below the query layer: make buckets, wait for memory, split, propose.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meta::{Bucket, Command, ReplicaSet};
use model::{BucketId, DatabaseId, ErrorKind, Points};
use tskv::wal::WAL_ENTRY_BYTES_MAX;
use tskv::{Outcome, encode_write};

use crate::Cluster;
use crate::error::{Error, Result};
use crate::peers::{Request, Response};
use crate::router::{Part, missing_bucket, split};
use crate::vnodes::HostedVnode;

/// How long a writer waits for memory before it is told.
const MEMORY_PATIENCE: Duration = Duration::from_secs(60);

impl Cluster {
    /// Stores a batch: every row is committed and applied when this returns.
    ///
    /// # Errors
    /// `Partial` where some replica sets took their rows and others may not have; repeating is
    /// harmless. Other errors: nothing was stored.
    pub async fn write(self: &Arc<Self>, database: DatabaseId, points: Points) -> Result<()> {
        if points.rows() == 0 {
            return Ok(());
        }
        let mut parts = self.place(database, points).await?;
        if parts.len() == 1
            && let Some(part) = parts.pop()
        {
            return self.write_part(&part).await;
        }
        let writes = parts.into_iter().map(|part| {
            let cluster = Arc::clone(self);
            tokio::spawn(async move {
                let outcome = cluster.write_part(&part).await;
                outcome.map_err(|error| (part.bucket.id, error))
            })
        });
        let writes: Vec<_> = writes.collect();
        let count = writes.len();
        let mut failed = Vec::new();
        for write in writes {
            if let Err(failure) = write.await.map_err(Error::internal)? {
                failed.push(failure);
            }
        }
        let mut buckets: Vec<String> =
            failed.iter().map(|(bucket, _)| bucket.to_string()).collect();
        let parts = failed.len();
        buckets.dedup();
        let Some((_, first)) = failed.into_iter().next() else { return Ok(()) };
        let parts = format!("bucket {} ({} of {count} parts)", buckets.join(", "), parts);
        Err(Error::Partial { parts, first: first.to_string(), kind: first.kind() })
    }

    /// Splits a batch, making the buckets it needs.
    async fn place(&self, database: DatabaseId, points: Points) -> Result<Vec<Part>> {
        loop {
            let catalog = self.meta.catalog();
            let Some(time) = missing_bucket(&catalog, database, &points) else {
                return split(&catalog, database, points);
            };
            let (now, nodes) = (self.clock.now_ns(), Vec::new());
            self.meta.submit(&Command::CreateBucket { database, time, nodes, now }).await?;
        }
    }

    async fn write_part(&self, part: &Part) -> Result<()> {
        let id = self.vnodes.next_write(part.replica_set.id);
        let command = encode_write(id, self.clock.now_ns(), std::slice::from_ref(&part.points));
        self.propose((&part.bucket, &part.replica_set), command).await.map(|_| ())
    }

    /// Proposes a command where its replica set is led, and makes of its outcome what a writer is told.
    /// A repetition, after an answer that did not come, is known by its id and applied once.
    pub(crate) async fn propose(
        &self,
        (bucket, set): (&Bucket, &ReplicaSet),
        command: Bytes,
    ) -> Result<u64> {
        if command.len() > WAL_ENTRY_BYTES_MAX {
            return Err(Error::TooLarge { bytes: command.len() });
        }
        let here = |hosted: Arc<HostedVnode>| {
            let command = command.clone();
            async move {
                let outcome = self.propose_here(&hosted, (bucket.id, None), command).await?;
                let index = hosted.group.status().applied.unwrap_or(0);
                Ok((Response::Proposed { outcome, index }, Bytes::new()))
            }
        };
        let request = |vnode| Request::Propose { vnode, bucket: bucket.id, lock: None };
        let (_, response, _) = self.ask_leader((bucket, set), request, &command, here).await?;
        applied(bucket.id, response)
    }

    /// Wakes upkeep where a vnode, or all of them together, hold much in memory.
    pub(crate) fn flush_if_full(&self, hosted: &HostedVnode) {
        if hosted.beside.vnode.memcache_bytes() >= self.config.flush_bytes
            || self.gauge.bytes() >= self.config.memcache_bytes_max / 2
        {
            self.signals.flush_wanted();
        }
    }

    /// Holds the writer back while the memcaches are full: backpressure, not failure.
    pub(crate) async fn wait_for_memory(&self) -> Result<()> {
        let freed = async {
            loop {
                let flushed = self.signals.flushed();
                if self.gauge.bytes() < self.config.memcache_bytes_max {
                    return;
                }
                self.signals.flush_wanted();
                flushed.await;
            }
        };
        let waited = tokio::time::timeout(MEMORY_PATIENCE, freed).await;
        waited.map_err(|_| Error::Overloaded { seconds: MEMORY_PATIENCE.as_secs() })
    }
}

/// Makes of a command's outcome what a writer is told: an index that is not before the command's.
pub(crate) fn applied(bucket: BucketId, response: Response) -> Result<u64> {
    let Response::Proposed { outcome, index } = response else { return Err(response.into_error()) };
    match Outcome::from_code(outcome) {
        Some(Outcome::Applied | Outcome::AppliedBefore) => Ok(index),
        Some(Outcome::Unknown) | None => Err(Error::Partial {
            parts: format!("bucket {bucket}"),
            first: "the outcome is unknown".to_owned(),
            kind: ErrorKind::Unavailable,
        }),
    }
}
