//! Deletes and updates: changes of rows that were read first.
//!
//! Whoever reads rows to change them holds the replica sets' change locks from before the reading
//! until the change is applied, so that nothing written in between is lost. Writers wait meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use meta::{Bucket, ReplicaSet};
use model::{DatabaseId, ErrorKind, NodeId, Points, TableId, TimeRange, VnodeId};
use replication::transport::CallError;
use tokio::task::JoinHandle;
use tskv::{
    Move, SeriesFilter, encode_delete_matching, encode_delete_rows, encode_move, encode_write,
};

use crate::Cluster;
use crate::error::{Error, Result};
use crate::peers::{LockId, Request, Response, done, not_answered};
use crate::router::{Part, split};
use crate::vnodes::HostedVnode;
use crate::write::{applied, fits_an_entry};

/// How often a lock is renewed while its statement runs.
const RENEWAL: Duration = Duration::from_secs(10);
/// How long the node that leads may take to apply a change.
const PROPOSE_PATIENCE: Duration = Duration::from_secs(20);
/// How long a node may take to say that it keeps a lock, or lets go of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The right to change rows of some buckets; writers wait until it is dropped.
#[derive(Debug)]
pub struct ChangeLock {
    database: DatabaseId,
    sets: Vec<LockedSet>,
    renewal: Option<JoinHandle<()>>,
    cluster: Arc<Cluster>,
    /// Whether a command was, or may have been, applied under it.
    used: AtomicBool,
}

/// A lock, held by the node that leads a replica set.
#[derive(Clone, Debug)]
struct LockedSet {
    bucket: Arc<Bucket>,
    shard: usize,
    node: NodeId,
    vnode: VnodeId,
    lock: LockId,
}

impl LockedSet {
    fn set(&self) -> &ReplicaSet {
        &self.bucket.replica_sets[self.shard]
    }
}

impl Cluster {
    /// Holds back the writers of all replica sets that may have rows of these times.
    ///
    /// # Errors
    /// `Locked` where others do not let go in time.
    pub async fn lock_for_change(
        self: &Arc<Self>,
        database: DatabaseId,
        times: TimeRange,
    ) -> Result<ChangeLock> {
        let cluster = Arc::clone(self);
        let used = AtomicBool::new(false);
        let mut lock = ChangeLock { database, sets: Vec::new(), renewal: None, cluster, used };
        // In one order everywhere, so that two changes never wait for each other.
        for bucket in self.meta.catalog().buckets(database, times) {
            for (shard, set) in bucket.replica_sets.iter().enumerate() {
                let number = self.held.lock_id(self.vnodes.session());
                let here = |hosted: Arc<HostedVnode>| async move {
                    self.lock_here(hosted, number).await?;
                    Ok((Response::Done, Bytes::new()))
                };
                let request = |vnode| Request::Lock { vnode, lock: number };
                let asked = self.ask_leader((&bucket, set), request, &[], here).await?;
                let (node, response, _) = asked;
                done(response)?;
                let place = set.vnodes.iter().find(|place| place.node == node);
                let vnode = place.map(|place| place.id);
                let vnode = vnode.ok_or_else(|| Error::internal("the leader is no member"))?;
                let bucket = Arc::clone(&bucket);
                lock.sets.push(LockedSet { bucket, shard, node, vnode, lock: number });
            }
        }
        let (cluster, sets) = (Arc::clone(self), lock.sets.clone());
        lock.renewal = Some(tokio::spawn(async move { cluster.renew(sets).await }));
        Ok(lock)
    }

    /// Keeps locks until told to stop. One that is lost shows itself when it is used.
    async fn renew(&self, sets: Vec<LockedSet>) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            for set in &sets {
                let request = Request::Renew { lock: set.lock };
                if let Err(error) = self.ask_holder(set, &request).await {
                    tracing::warn!(%error, "a lock was not renewed");
                }
            }
        }
    }

    async fn ask_holder(&self, set: &LockedSet, request: &Request) -> Result<()> {
        if set.node == self.config.node {
            return match request {
                Request::Unlock { lock } => {
                    self.held.unlock(*lock);
                    Ok(())
                }
                _ => self.held.renew(set.lock),
            };
        }
        let peers = self.peers.as_ref().ok_or_else(|| Error::internal("no other nodes"))?;
        let asked = peers.ask(set.node, request, &[], PATIENCE).await;
        done(asked.map_err(|error| not_answered(&error))?.0)
    }

    /// Proposes a command under a lock, where the lock is held: elsewhere others may have written.
    async fn propose_locked(
        &self,
        lock: &ChangeLock,
        set: &LockedSet,
        command: Bytes,
    ) -> Result<()> {
        fits_an_entry(&command)?;
        let proposed = self.propose_where_locked(set, command).await;
        let Err(refused @ (Error::LockLost | Error::Ended { .. })) = proposed else {
            lock.used.store(true, Ordering::Relaxed);
            return proposed;
        };
        if lock.used.load(Ordering::Relaxed) {
            // The first commands of the statement are in, so that repeating it could do them twice.
            return Err(Error::Partial {
                parts: format!("bucket {}", set.bucket.id),
                first: refused.to_string(),
                kind: ErrorKind::Unavailable,
            });
        }
        Err(refused)
    }

    async fn propose_where_locked(&self, set: &LockedSet, command: Bytes) -> Result<()> {
        let bucket = set.bucket.id;
        if set.node == self.config.node {
            let hosted = self.vnode(&set.bucket, set.set()).await?;
            let (outcome, index) =
                self.propose_here(&hosted, (bucket, Some(set.lock), false), command).await?;
            return applied(bucket, Response::Proposed { outcome, index }).map(|_| ());
        }
        let peers = self.peers.as_ref().ok_or_else(|| Error::internal("no other nodes"))?;
        let request = Request::Propose {
            vnode: set.vnode,
            bucket,
            lock: Some(set.lock),
            only_durable: false,
        };
        match peers.ask(set.node, &request, &command, PROPOSE_PATIENCE).await {
            Ok((response, _)) => applied(bucket, response).map(|_| ()),
            // It was not sent, and the lock is with a node that is away.
            Err(CallError::Unreachable { .. }) => Err(Error::LockLost),
            Err(error) => Err(Error::Partial {
                parts: format!("bucket {bucket}"),
                first: error.to_string(),
                kind: error.kind(),
            }),
        }
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
        for set in lock.sets.iter().filter(|set| set.bucket.times.overlaps(&times)) {
            let id = self.vnodes.next_write(set.set().id);
            let now = self.clock.now_ns();
            let command = encode_delete_matching(id, now, table, (filter, times));
            self.propose_locked(lock, set, command).await?;
        }
        Ok(())
    }

    /// Deletes the rows a batch names by series and time.
    ///
    /// # Errors
    /// A replica set that does not take the delete.
    pub async fn delete_rows(&self, lock: &ChangeLock, rows: Points) -> Result<()> {
        for part in split(&self.meta.catalog(), lock.database, rows)? {
            let set = lock.set(&part)?;
            let id = self.vnodes.next_write(part.replica_set.id);
            let command = encode_delete_rows(id, self.clock.now_ns(), &part.points);
            self.propose_locked(lock, set, command).await?;
        }
        Ok(())
    }

    /// Writes values into rows that were read under the lock.
    ///
    /// # Errors
    /// A replica set that does not take the rows.
    pub async fn write_locked(&self, lock: &ChangeLock, points: Points) -> Result<()> {
        for part in split(&self.meta.catalog(), lock.database, points)? {
            self.write_part_locked(lock, &part).await?;
        }
        Ok(())
    }

    async fn write_part_locked(&self, lock: &ChangeLock, part: &Part) -> Result<()> {
        let id = self.vnodes.next_write(part.replica_set.id);
        let command = encode_write(id, self.clock.now_ns(), std::slice::from_ref(&part.points));
        self.propose_locked(lock, lock.set(part)?, command).await
    }

    /// Moves rows of one replica set to other series, in one command; rows that change their replica
    /// set are written there before they are deleted here. `moved` is row by row where `old` goes. Where
    /// several replica sets are locked, or rows are moved by several calls, no row may move to where
    /// another of them was: it would be deleted with that one.
    ///
    /// # Errors
    /// A replica set that does not take the change.
    pub async fn move_rows(&self, lock: &ChangeLock, old: Points, moved: Points) -> Result<()> {
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
            self.write_part_locked(lock, &part).await?;
        }
        for (part, written) in together {
            let set = lock.set(&part)?;
            let id = self.vnodes.next_write(part.replica_set.id);
            let moved = Move { deleted: &part.points, written: &written.points };
            let command = encode_move(id, self.clock.now_ns(), &moved);
            self.propose_locked(lock, set, command).await?;
        }
        for part in alone {
            let set = lock.set(&part)?;
            let id = self.vnodes.next_write(part.replica_set.id);
            let command = encode_delete_rows(id, self.clock.now_ns(), &part.points);
            self.propose_locked(lock, set, command).await?;
        }
        Ok(())
    }
}

impl ChangeLock {
    /// Returns how many replica sets are locked.
    pub fn replica_sets(&self) -> usize {
        self.sets.len()
    }

    fn set(&self, part: &Part) -> Result<&LockedSet> {
        let mut sets = self.sets.iter();
        let found = sets.find(|locked| locked.set().id == part.replica_set.id);
        found.ok_or_else(|| Error::internal("a row outside of the locked buckets"))
    }
}

impl Drop for ChangeLock {
    fn drop(&mut self) {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
        for set in std::mem::take(&mut self.sets) {
            if set.node == self.cluster.config.node {
                self.cluster.held.unlock(set.lock);
                continue;
            }
            let cluster = Arc::clone(&self.cluster);
            tokio::spawn(async move {
                let request = Request::Unlock { lock: set.lock };
                if let Err(error) = cluster.ask_holder(&set, &request).await {
                    tracing::warn!(%error, "a lock ends by itself, later");
                }
            });
        }
    }
}
