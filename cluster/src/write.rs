//! The write path below the query layer: make buckets, wait for memory, split, propose.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meta::Command;
use model::{BucketId, DatabaseId, ErrorKind, Points};
use tskv::wal::WAL_ENTRY_BYTES_MAX;
use tskv::{Outcome, encode_write};

use crate::Cluster;
use crate::error::{Error, Result};
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
        self.wal.admit()?;
        self.wait_for_memory().await?;
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
        let buckets: Vec<String> = failed.iter().map(|(bucket, _)| bucket.to_string()).collect();
        let Some((_, first)) = failed.into_iter().next() else { return Ok(()) };
        let parts = format!("bucket {} ({} of {count} parts)", buckets.join(", "), buckets.len());
        Err(Error::Partial { parts, first: first.to_string(), kind: first.kind() })
    }

    /// Splits a batch, making the buckets it needs.
    async fn place(&self, database: DatabaseId, points: Points) -> Result<Vec<Part>> {
        loop {
            let catalog = self.meta.catalog();
            let Some(time) = missing_bucket(&catalog, database, &points) else {
                return split(&catalog, database, points);
            };
            let now = self.clock.now_ns();
            let nodes = vec![self.config.node];
            self.meta.submit(&Command::CreateBucket { database, time, nodes, now }).await?;
        }
    }

    async fn write_part(&self, part: &Part) -> Result<()> {
        let hosted = self.vnode(&part.bucket, &part.replica_set).await?;
        let _shared = hosted.beside.changes.read().await;
        self.propose_write(&hosted, part).await
    }

    pub(crate) async fn propose_write(&self, hosted: &HostedVnode, part: &Part) -> Result<()> {
        let id = self.vnodes.next_write(hosted.beside.vnode.id());
        let command = encode_write(id, self.clock.now_ns(), std::slice::from_ref(&part.points));
        self.propose(hosted, part.bucket.id, command).await
    }

    /// Proposes a command and makes of its outcome what a writer is told.
    pub(crate) async fn propose(
        &self,
        hosted: &HostedVnode,
        bucket: BucketId,
        command: Bytes,
    ) -> Result<()> {
        if command.len() > WAL_ENTRY_BYTES_MAX {
            return Err(Error::TooLarge { bytes: command.len() });
        }
        let reply = hosted.group.propose(command).await?;
        if hosted.beside.vnode.memcache_bytes() >= self.config.flush_bytes
            || self.gauge.bytes() >= self.config.memcache_bytes_max / 2
        {
            self.signals.flush_wanted();
        }
        match reply.first().copied().and_then(Outcome::from_code) {
            Some(Outcome::Applied | Outcome::AppliedBefore) => Ok(()),
            Some(Outcome::Unknown) | None => Err(Error::Partial {
                parts: format!("bucket {bucket}"),
                first: "the outcome is unknown".to_owned(),
                kind: ErrorKind::Unavailable,
            }),
        }
    }

    /// Holds the writer back while the memcaches are full: backpressure, not failure.
    async fn wait_for_memory(&self) -> Result<()> {
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
