//! The write path below the query layer: make buckets, wait for memory, split, propose.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use meta::{Bucket, Command, ReplicaSet, VnodePlace};
use model::{BucketId, DatabaseId, ErrorKind, Points};
use tskv::wal::WAL_ENTRY_BYTES_MAX;
use tskv::{Outcome, encode_write};

use crate::Cluster;
use crate::error::{Error, Result};
use crate::peers::{Request, Response, done, not_answered};
use crate::router::{Part, missing_bucket, split};
use crate::service::APPLY_PATIENCE;
use crate::vnodes::HostedVnode;

/// How long a writer waits for memory before it is told.
const MEMORY_PATIENCE: Duration = Duration::from_secs(60);

/// How often the rows of one write may be refused because their bucket ends.
const ENDS_MAX: u32 = 4;

/// What a write waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// It is durable with the member that leads. It is not seen yet, and is lost where that member is lost,
    /// or another leads, before others have it.
    One,
    /// It is durable with a majority of the members, and seen.
    #[default]
    Quorum,
    /// Every member has applied it.
    All,
    /// It is durable with a majority; or, where none can be had, with the node that was asked to write, which
    /// delivers it later. It is not seen before.
    Any,
}

impl Cluster {
    /// Stores a batch: every row is as durable as asked for when this returns.
    ///
    /// # Errors
    /// `Partial` where some replica sets took their rows and others may not have; repeating is
    /// harmless. Other errors: nothing was stored.
    pub async fn write(
        self: &Arc<Self>,
        database: DatabaseId,
        points: Points,
        consistency: Consistency,
    ) -> Result<()> {
        if points.rows() == 0 {
            return Ok(());
        }
        let parts = self.place(database, points).await?;
        let count = parts.len();
        let refused = self.write_parts(parts, consistency).await?;
        let Some(bucket) = refused.first().map(|part| part.bucket.id) else { return Ok(()) };
        let some_are_in = refused.len() < count;
        match Box::pin(self.write_again(database, refused, consistency)).await {
            Err(error) if some_are_in && !matches!(error, Error::Partial { .. }) => {
                Err(Error::Partial {
                    parts: format!("bucket {bucket}"),
                    first: error.to_string(),
                    kind: error.kind(),
                })
            }
            written => written,
        }
    }

    /// Writes parts to where they belong since their buckets have ended.
    async fn write_again(
        self: &Arc<Self>,
        database: DatabaseId,
        mut refused: Vec<Part>,
        consistency: Consistency,
    ) -> Result<()> {
        let mut ends = 0;
        while let Some(bucket) = refused.first().map(|part| part.bucket.id) {
            if ends == ENDS_MAX {
                return Err(Error::Ended { bucket });
            }
            ends += 1;
            let mut parts = Vec::new();
            for part in refused {
                self.wait_for_end(&part.bucket).await?;
                parts.extend(self.place(database, part.points).await?);
            }
            refused = self.write_parts(parts, consistency).await?;
        }
        Ok(())
    }

    /// Writes parts of a batch. Returns those that were refused, for their bucket has ended.
    async fn write_parts(
        self: &Arc<Self>,
        mut parts: Vec<Part>,
        consistency: Consistency,
    ) -> Result<Vec<Part>> {
        if parts.len() == 1
            && let Some(part) = parts.pop()
        {
            return match self.write_part(&part, consistency).await {
                Ok(()) => Ok(Vec::new()),
                Err(error) if self.was_ended(&part, &error) => Ok(vec![part]),
                Err(error) => Err(error),
            };
        }
        let writes = parts.into_iter().map(|part| {
            let cluster = Arc::clone(self);
            tokio::spawn(async move {
                let outcome = cluster.write_part(&part, consistency).await;
                (part, outcome)
            })
        });
        let writes: Vec<_> = writes.collect();
        let count = writes.len();
        let (mut refused, mut failed) = (Vec::new(), Vec::new());
        for write in writes {
            match write.await.map_err(Error::internal)? {
                (_, Ok(())) => {}
                (part, Err(error)) if self.was_ended(&part, &error) => refused.push(part),
                (part, Err(error)) => failed.push((part.bucket.id, error)),
            }
        }
        let mut buckets: Vec<String> =
            failed.iter().map(|(bucket, _)| bucket.to_string()).collect();
        let parts = failed.len();
        buckets.dedup();
        let Some((_, first)) = failed.into_iter().next() else { return Ok(refused) };
        let parts = format!("bucket {} ({} of {count} parts)", buckets.join(", "), parts);
        Err(Error::Partial { parts, first: first.to_string(), kind: first.kind() })
    }

    /// Returns whether a part was not taken because its bucket has ended, or is gone.
    fn was_ended(&self, part: &Part, error: &Error) -> bool {
        matches!(error, Error::Ended { .. }) || self.meta.catalog().bucket(part.bucket.id).is_none()
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

    async fn write_part(&self, part: &Part, consistency: Consistency) -> Result<()> {
        let id = self.vnodes.next_write(part.replica_set.id);
        let command = encode_write(id, self.clock.now_ns(), std::slice::from_ref(&part.points));
        let set = (&*part.bucket, &part.replica_set);
        if consistency == Consistency::Any {
            return self.write_or_hand_off(set, command).await;
        }
        let only_durable = consistency == Consistency::One;
        let index = self.propose_until(set, command, only_durable).await?;
        if consistency == Consistency::All {
            Box::pin(self.wait_for_all(set, index)).await?;
        }
        Ok(())
    }

    /// Waits until all members of a replica set have applied an index.
    async fn wait_for_all(&self, (bucket, set): (&Bucket, &ReplicaSet), index: u64) -> Result<()> {
        let members = set.vnodes.iter().filter(|place| place.state.counts());
        let applied = members.map(|place| async move {
            let applied = self.wait_for_one((bucket, set), place, index).await;
            applied.map_err(|error| Error::Partial {
                parts: format!("bucket {}, by a majority but not node {}", bucket.id, place.node),
                first: error.to_string(),
                kind: ErrorKind::Unavailable,
            })
        });
        join_all(applied).await.into_iter().collect()
    }

    async fn wait_for_one(
        &self,
        (bucket, set): (&Bucket, &ReplicaSet),
        place: &VnodePlace,
        index: u64,
    ) -> Result<()> {
        if place.node == self.config.node {
            let hosted = self.vnode(bucket, set).await?;
            return Ok(hosted.group.wait_for_applied(index, APPLY_PATIENCE).await?);
        }
        let peers = self.peers.as_ref().ok_or_else(|| Error::internal("no other nodes"))?;
        let request = Request::Applied { vnode: place.id, index };
        let asked = peers.ask(place.node, &request, &[], APPLY_PATIENCE).await;
        done(asked.map_err(|error| not_answered(&error))?.0)
    }

    /// Proposes a command where its replica set is led, and makes of its outcome what a writer is told.
    /// A repetition, after an answer that did not come, is known by its id and applied once.
    pub(crate) async fn propose(&self, set: (&Bucket, &ReplicaSet), command: Bytes) -> Result<u64> {
        self.propose_until(set, command, false).await
    }

    async fn propose_until(
        &self,
        (bucket, set): (&Bucket, &ReplicaSet),
        command: Bytes,
        only_durable: bool,
    ) -> Result<u64> {
        fits_an_entry(&command)?;
        let here = |hosted: Arc<HostedVnode>| {
            let command = command.clone();
            async move {
                let how = (bucket.id, None, only_durable);
                let (outcome, index) = self.propose_here(&hosted, how, command).await?;
                Ok((Response::Proposed { outcome, index }, Bytes::new()))
            }
        };
        let bucket_id = bucket.id;
        let request =
            |vnode| Request::Propose { vnode, bucket: bucket_id, lock: None, only_durable };
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

/// Refuses a command that an entry of the log cannot hold.
pub(crate) fn fits_an_entry(command: &[u8]) -> Result<()> {
    let bytes = command.len();
    if bytes > WAL_ENTRY_BYTES_MAX { Err(Error::TooLarge { bytes }) } else { Ok(()) }
}

/// Makes of a command's outcome what a writer is told: the index of its entry.
pub(crate) fn applied(bucket: BucketId, response: Response) -> Result<u64> {
    let Response::Proposed { outcome, index } = response else { return Err(response.into_error()) };
    match Outcome::from_code(outcome) {
        Some(Outcome::Applied | Outcome::AppliedBefore) => Ok(index),
        Some(Outcome::Ended) => Err(Error::Ended { bucket }),
        Some(Outcome::Unknown) | None => Err(Error::Partial {
            parts: format!("bucket {bucket}"),
            first: "the outcome is unknown".to_owned(),
            kind: ErrorKind::Unavailable,
        }),
    }
}
