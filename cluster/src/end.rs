//! Ending buckets before their time: later rows go to others, which have the shards, replicas and places that
//! the database asks for by then.
//!
//! 1. meta notes the last time that the bucket shall hold;
//! 2. each replica set takes it through its log, and refuses later rows from there on;
//! 3. where one of them holds later rows already that time moves on, and all are told anew; then meta ends the
//!    bucket.
//!
//! Writers that are refused wait for the end, and carry it on where nobody does.
//! Invariant: no row lies in a bucket whose times do not hold it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use meta::{Bucket, Command, ReplicaSet};
use model::{BucketId, DatabaseId, ErrorKind};
use tskv::encode_end;

use crate::Cluster;
use crate::error::{Error, Result};
use crate::peers::{Request, Response};
use crate::vnodes::HostedVnode;

/// How often the last time of a bucket may move on.
const ROUNDS_MAX: u32 = 8;
/// How long writers wait before they carry on what others began.
const PATIENCE: Duration = Duration::from_secs(1);

/// What became of a bucket that was to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedBucket {
    /// Which.
    pub bucket: BucketId,
    /// Its database.
    pub database: DatabaseId,
    /// The last time it holds, nanoseconds; `None` where it is gone, for it held no rows.
    pub until: Option<i64>,
}

impl Cluster {
    /// Ends the buckets of a database, or of all, that hold the present or the future.
    ///
    /// # Errors
    /// A replica set that nobody leads. The buckets before it have ended; repeating is harmless.
    pub async fn end_hot_buckets(&self, only: Option<DatabaseId>) -> Result<Vec<EndedBucket>> {
        self.meta.refresh().await;
        let (catalog, now) = (self.meta.catalog(), self.clock.now_ns());
        let is_hot = |bucket: &&Arc<Bucket>| {
            bucket.times.max > now && only.is_none_or(|only| only == bucket.database)
        };
        let mut ended = Vec::new();
        for bucket in catalog.all_buckets().filter(is_hot) {
            let (id, database) = (bucket.id, bucket.database);
            // One that holds nothing and has not begun ends before it begins.
            self.end_bucket(id, now.max(bucket.times.min.saturating_sub(1))).await?;
            let until = self.meta.catalog().bucket(id).map(|bucket| bucket.times.max);
            ended.push(EndedBucket { bucket: id, database, until });
        }
        Ok(ended)
    }

    async fn end_bucket(&self, id: BucketId, mut until: i64) -> Result<()> {
        // Sets that are told refuse rows until all are: none is where one cannot be.
        if let Some(bucket) = self.meta.catalog().bucket(id) {
            let led = bucket.replica_sets.iter().map(|set| self.ensure_led(bucket, set));
            try_join_all(led).await?;
        }
        for _ in 0..ROUNDS_MAX {
            match self.meta.submit(&Command::BeginEnd { bucket: id, until }).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                other => other?,
            };
            let catalog = self.meta.catalog();
            let Some(bucket) = catalog.bucket(id) else { return Ok(()) };
            // None: another has ended it.
            let Some(noted) = bucket.ending else { return Ok(()) };
            let sets = bucket.replica_sets.iter();
            let last = try_join_all(sets.map(|set| self.end_set((bucket, set), noted))).await?;
            match last.into_iter().flatten().max() {
                Some(last) if last > noted => until = last,
                _ => {
                    let told = bucket.replica_sets.iter().map(|set| set.id).collect();
                    self.meta
                        .submit(&Command::EndBucket { bucket: id, until: noted, told })
                        .await?;
                    // Another may have moved it on meanwhile, or put another set in place.
                    let catalog = self.meta.catalog();
                    if catalog.bucket(id).is_none_or(|bucket| bucket.ending.is_none()) {
                        return Ok(());
                    }
                }
            }
        }
        let message = format!("bucket {id} gets ever later rows: its end has to wait");
        Err(Error::Remote { kind: ErrorKind::Unavailable, message })
    }

    /// Has a replica set refuse rows later than `until`. Returns the time of the last it holds, or takes.
    async fn end_set(&self, set: (&Bucket, &ReplicaSet), until: i64) -> Result<Option<i64>> {
        let command = encode_end(self.vnodes.next_write(set.1.id), self.clock.now_ns(), until);
        Box::pin(self.propose(set, command)).await?;
        let here = |hosted: Arc<HostedVnode>| async move {
            Ok((Response::LastTime(last_time(&hosted).await?), Bytes::new()))
        };
        let request = |vnode| Request::LastTime { vnode };
        match self.ask_leader(set, request, &[], here).await?.1 {
            Response::LastTime(last) => Ok(last),
            other => Err(other.into_error()),
        }
    }

    /// Waits until a bucket that refused rows has ended, or may take them after all; carries its end on where
    /// nobody does.
    pub(crate) async fn wait_for_end(&self, refused: &Bucket) -> Result<()> {
        let mut catalogs = self.meta.watch();
        let ended = catalogs.wait_for(|catalog| {
            catalog.bucket(refused.id).is_none_or(|bucket| bucket.times != refused.times)
        });
        if tokio::time::timeout(PATIENCE, ended).await.is_ok() {
            return Ok(());
        }
        self.meta.refresh().await;
        match self.meta.catalog().bucket(refused.id).and_then(|bucket| bucket.ending) {
            Some(until) => Box::pin(self.end_bucket(refused.id, until)).await,
            None => Ok(()),
        }
    }
}

/// Returns the time of the last row of a vnode that leads.
pub(crate) async fn last_time(hosted: &HostedVnode) -> Result<Option<i64>> {
    hosted.group.read_barrier().await?;
    Ok(hosted.beside.vnode.last_time())
}
