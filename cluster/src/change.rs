//! Deletes and updates: changes of rows that were read first.
//!
//! Whoever reads rows to change them holds the replica sets' change locks from before the reading
//! until the change is applied, so that nothing written in between is lost. Writers wait meanwhile.

use std::sync::Arc;
use std::time::Duration;

use meta::Bucket;
use model::{DatabaseId, Points, TableId, TimeRange};
use tokio::sync::OwnedRwLockWriteGuard;
use tskv::{Move, SeriesFilter, encode_delete_matching, encode_delete_rows, encode_move};

use crate::Cluster;
use crate::error::{Error, Result};
use crate::router::split;
use crate::vnodes::HostedVnode;

/// How long one waits for writes and other changes to end.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// The right to change rows of some buckets; writers wait until it is dropped.
#[derive(Debug)]
pub struct ChangeLock {
    database: DatabaseId,
    sets: Vec<LockedSet>,
}

#[derive(Debug)]
struct LockedSet {
    bucket: Arc<Bucket>,
    shard: usize,
    hosted: Arc<HostedVnode>,
    _guard: OwnedRwLockWriteGuard<()>,
}

impl Cluster {
    /// Holds back the writers of all replica sets that may have rows of these times.
    ///
    /// # Errors
    /// `Locked` where others do not let go in time.
    pub async fn lock_for_change(
        &self,
        database: DatabaseId,
        times: TimeRange,
    ) -> Result<ChangeLock> {
        let mut sets = Vec::new();
        // In one order everywhere, so that two changes never wait for each other.
        for bucket in self.meta.catalog().buckets(database, times) {
            for (shard, replica_set) in bucket.replica_sets.iter().enumerate() {
                let hosted = self.vnode(&bucket, replica_set).await?;
                let lock = Arc::clone(&hosted.beside.changes).write_owned();
                let guard = tokio::time::timeout(LOCK_PATIENCE, lock).await;
                let seconds = LOCK_PATIENCE.as_secs();
                let guard = guard.map_err(|_| Error::Locked { seconds })?;
                sets.push(LockedSet { bucket: Arc::clone(&bucket), shard, hosted, _guard: guard });
            }
        }
        Ok(ChangeLock { database, sets })
    }

    /// Deletes the rows of some series within some times.
    ///
    /// # Errors
    /// A replica set that does not take the delete.
    pub async fn delete_matching(
        &self,
        lock: &ChangeLock,
        table: TableId,
        (filter, times): (&SeriesFilter, TimeRange),
    ) -> Result<()> {
        self.wal.admit()?;
        for set in lock.sets.iter().filter(|set| set.bucket.times.overlaps(&times)) {
            let id = self.vnodes.next_write(set.hosted.beside.vnode.id());
            let now = self.clock.now_ns();
            let command = encode_delete_matching(id, now, table, (filter, times));
            self.propose(&set.hosted, set.bucket.id, command).await?;
        }
        Ok(())
    }

    /// Deletes the rows a batch names by series and time.
    ///
    /// # Errors
    /// A replica set that does not take the delete.
    pub async fn delete_rows(&self, lock: &ChangeLock, rows: Points) -> Result<()> {
        self.wal.admit()?;
        for part in split(&self.meta.catalog(), lock.database, rows)? {
            let hosted = lock.hosted(&part.bucket, &part.replica_set)?;
            let id = self.vnodes.next_write(hosted.beside.vnode.id());
            let command = encode_delete_rows(id, self.clock.now_ns(), &part.points);
            self.propose(hosted, part.bucket.id, command).await?;
        }
        Ok(())
    }

    /// Writes values into rows that were read under the lock.
    ///
    /// # Errors
    /// A replica set that does not take the rows.
    pub async fn write_locked(&self, lock: &ChangeLock, points: Points) -> Result<()> {
        self.wal.admit()?;
        for part in split(&self.meta.catalog(), lock.database, points)? {
            let hosted = lock.hosted(&part.bucket, &part.replica_set)?;
            self.propose_write(hosted, &part).await?;
        }
        Ok(())
    }

    /// Moves rows of one replica set to other series, in one command; rows that change their replica
    /// set are written there before they are deleted here. `moved` is row by row where `old` goes. Where
    /// several replica sets are locked, or rows are moved by several calls, no row may move to where
    /// another of them was: it would be deleted with that one.
    ///
    /// # Errors
    /// A replica set that does not take the change.
    pub async fn move_rows(&self, lock: &ChangeLock, old: Points, moved: Points) -> Result<()> {
        self.wal.admit()?;
        let catalog = self.meta.catalog();
        let mut written = split(&catalog, lock.database, moved)?;
        let deleted = split(&catalog, lock.database, old)?;
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        for part in deleted {
            let same = written.iter().position(|other| other.replica_set.id == part.replica_set.id);
            match same {
                Some(at) => together.push((part, written.swap_remove(at))),
                None => alone.push(part),
            }
        }
        for part in written {
            let hosted = lock.hosted(&part.bucket, &part.replica_set)?;
            self.propose_write(hosted, &part).await?;
        }
        for (part, written) in together {
            let hosted = lock.hosted(&part.bucket, &part.replica_set)?;
            let id = self.vnodes.next_write(hosted.beside.vnode.id());
            let moved = Move { deleted: &part.points, written: &written.points };
            let command = encode_move(id, self.clock.now_ns(), &moved);
            self.propose(hosted, part.bucket.id, command).await?;
        }
        for part in alone {
            let hosted = lock.hosted(&part.bucket, &part.replica_set)?;
            let id = self.vnodes.next_write(hosted.beside.vnode.id());
            let command = encode_delete_rows(id, self.clock.now_ns(), &part.points);
            self.propose(hosted, part.bucket.id, command).await?;
        }
        Ok(())
    }
}

impl ChangeLock {
    /// Returns how many replica sets are locked.
    pub fn replica_sets(&self) -> usize {
        self.sets.len()
    }

    fn hosted(&self, bucket: &Bucket, set: &meta::ReplicaSet) -> Result<&Arc<HostedVnode>> {
        let found = self.sets.iter().find(|locked| {
            locked.bucket.id == bucket.id && bucket.replica_sets[locked.shard].id == set.id
        });
        let found = found.map(|locked| &locked.hosted);
        found.ok_or_else(|| Error::internal("a row outside of the locked buckets"))
    }
}
