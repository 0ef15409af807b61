//! What a node does for the rows of others: takes their commands, holds locks, pins and reads scans.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::ipc::reader::StreamReader;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use meta::{Bucket, ReplicaSet};
use model::{BucketId, ErrorKind, VnodeId};
use parking_lot::Mutex;
use replication::transport::{Answer, Answers, CallError, Service};
use replication::{Bounds, HoldsGroup, Members, told};
use tokio::sync::{OwnedRwLockWriteGuard, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tskv::{Outcome, ScanRequest, VnodeScan};

use crate::Cluster;
use crate::end::last_time;
use crate::error::{Error, Result};
use crate::peers::{self, LockId, PinnedScan, Request, Response, ScanInfo, WireScan, failed};
use crate::read::Scan;
use crate::vnodes::HostedVnode;
use crate::wire_batch;

/// How long one waits for writes and other changes to end.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// A lock nobody renews is let go of after so long.
const LOCK_LEASE: Duration = Duration::from_secs(30);
/// A scan nobody reads is let go of after so long.
const SCAN_LEASE: Duration = Duration::from_secs(120);
/// The most scans pinned for others.
const SCANS_MAX: usize = 10_000;
/// The most locks held by others.
const LOCKS_MAX: usize = 10_000;
/// How long a group may take to answer a proposal.
const PROPOSAL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a member may take to apply what others have.
pub(crate) const APPLY_PATIENCE: Duration = Duration::from_secs(10);
/// Batches a reader may lag behind.
const BATCHES_AHEAD: usize = 4;
/// So few series are found sooner than another thread begins.
const SERIES_FEW: usize = 10_000;

/// What is held for others, and for statements of this node.
#[derive(Debug, Default)]
pub(crate) struct Held {
    next: AtomicU64,
    locks: Mutex<HashMap<LockId, HeldLock>>,
    scans: Mutex<HashMap<u64, HeldScan>>,
}

#[derive(Debug)]
struct HeldLock {
    hosted: Arc<HostedVnode>,
    /// The term in which the rows were read: in another one others may have written.
    term: u64,
    _guard: OwnedRwLockWriteGuard<()>,
    until: Instant,
}

#[derive(Debug)]
struct HeldScan {
    scan: VnodeScan,
    until: Instant,
}

/// A proposal under way in a task of its own.
struct Apart {
    proposed: oneshot::Receiver<replication::Result<(Bytes, u64)>>,
    task: AbortHandle,
}

/// Breaks a task off when it is dropped, unless it shall go on.
struct BrokenOff(Option<AbortHandle>);

impl BrokenOff {
    fn go_on(mut self) {
        self.0 = None;
    }
}

impl Drop for BrokenOff {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Held {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Lets go of what nobody asked about for long.
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        self.locks.lock().retain(|_, lock| lock.until > now);
        self.scans.lock().retain(|_, scan| scan.until > now);
    }

    /// Lets go of everything.
    pub(crate) fn clear(&self) {
        self.locks.lock().clear();
        self.scans.lock().clear();
    }

    /// Returns an id for a lock, which no other lock of any node has.
    pub(crate) fn lock_id(&self, session: u64) -> LockId {
        LockId { session, number: self.number() }
    }

    /// Lets go of the locks on a vnode that is to be removed.
    pub(crate) fn unlock_vnode(&self, vnode: VnodeId) {
        self.locks.lock().retain(|_, lock| lock.hosted.beside.vnode.id() != vnode);
    }

    pub(crate) fn unlock(&self, lock: LockId) {
        self.locks.lock().remove(&lock);
    }

    pub(crate) fn renew(&self, lock: LockId) -> Result<()> {
        let mut locks = self.locks.lock();
        let held = locks.get_mut(&lock).ok_or(Error::LockLost)?;
        held.until = Instant::now() + LOCK_LEASE;
        Ok(())
    }

    /// Returns the vnode a lock is on, and the term it holds in.
    fn locked(&self, lock: LockId) -> Result<(VnodeId, u64)> {
        self.renew(lock)?;
        let locks = self.locks.lock();
        let held = locks.get(&lock).ok_or(Error::LockLost)?;
        Ok((held.hosted.beside.vnode.id(), held.term))
    }
}

impl Cluster {
    /// Holds back the writers of a vnode's replica set, which it leads. A repetition finds the lock
    /// that is held already.
    pub(crate) async fn lock_here(&self, hosted: Arc<HostedVnode>, lock: LockId) -> Result<()> {
        if self.held.renew(lock).is_ok() {
            return Ok(());
        }
        let waiting = Arc::clone(&hosted.beside.changes).write_owned();
        let guard = tokio::time::timeout(LOCK_PATIENCE, waiting).await;
        let seconds = LOCK_PATIENCE.as_secs();
        let guard = guard.map_err(|_| Error::Locked { seconds })?;
        // Before the barrier: a term that begins later is another one.
        let term = hosted.group.status().term;
        hosted.group.read_barrier().await?;
        let until = Instant::now() + LOCK_LEASE;
        let mut locks = self.held.locks.lock();
        if locks.len() >= LOCKS_MAX {
            return Err(Error::Remote {
                kind: ErrorKind::LimitReached,
                message: format!("{LOCKS_MAX} replica sets are locked"),
            });
        }
        locks.insert(lock, HeldLock { hosted, term, _guard: guard, until });
        Ok(())
    }

    /// Proposes a command to a replica set that a vnode here leads. Returns the outcome's code and the index
    /// of its entry; where it is enough that the command is durable here, before anybody knows what becomes
    /// of it.
    pub(crate) async fn propose_here(
        &self,
        hosted: &Arc<HostedVnode>,
        (bucket, lock, only_durable): (BucketId, Option<LockId>, bool),
        command: Bytes,
    ) -> Result<(u8, u64)> {
        self.wal.admit()?;
        self.wait_for_memory().await?;
        // On the heap: few tenants have this limit, and its state would make every write's future large.
        let series = Box::pin(self.reserve_series(hosted, &command)).await?;
        let mut bounds = match lock {
            // Whoever has a lock holds back the others already.
            Some(lock) => {
                let (vnode, term) = self.held.locked(lock)?;
                if vnode != hosted.beside.vnode.id() {
                    return Err(Error::LockLost);
                }
                Bounds { term: Some(term), guard: Some(Box::new(series)), ..Bounds::default() }
            }
            // Kept until the command is applied, even where the writer waits no longer: who changes
            // rows must see it.
            None => {
                let shared = Arc::clone(&hosted.beside.changes).read_owned().await;
                Bounds { guard: Some(Box::new((shared, series))), ..Bounds::default() }
            }
        };
        // Where its bucket is ending nobody knows yet whether it will be taken.
        let is_ending =
            || self.meta.catalog().bucket(bucket).is_some_and(|bucket| bucket.ending.is_some());
        let proposed = if only_durable && !is_ending() {
            let (told_durable, durable) = oneshot::channel();
            bounds.durable = Some(told_durable);
            let Apart { mut proposed, task } = self.propose_apart(hosted, bounds, command);
            let broken_off = BrokenOff(Some(task));
            let proposed = tokio::select! {
                proposed = tokio::time::timeout(PROPOSAL_PATIENCE, &mut proposed) => proposed,
                () = told(Some(durable)) => {
                    self.flush_if_full(hosted);
                    broken_off.go_on();
                    proposed.close();
                    match proposed.try_recv() {
                        Ok(proposed) => Ok(Ok(proposed)),
                        Err(_) => return Ok((Outcome::Applied.code(), 0)),
                    }
                }
            };
            let gone = |_| Err(replication::Error::Stopped("the proposal broke off".to_owned()));
            proposed.map(|proposed| proposed.unwrap_or_else(gone))
        } else {
            let proposed = hosted.group.propose_within(command, bounds);
            tokio::time::timeout(PROPOSAL_PATIENCE, proposed).await
        };
        let late = |_| {
            let seconds = PROPOSAL_PATIENCE.as_secs();
            let message = format!("bucket {bucket}: no quorum answered within {seconds} s");
            replication::Error::NotReady(message)
        };
        let (reply, index) = match (proposed.map_err(late)?, lock) {
            (Err(replication::Error::NotLeader { .. }), Some(_)) => return Err(Error::LockLost),
            (reply, _) => reply?,
        };
        self.flush_if_full(hosted);
        Ok((reply.first().copied().unwrap_or(u8::MAX), index))
    }

    /// Proposes in a task of its own, for a writer who may be told before anybody knows what becomes of the
    /// command. Where it is refused then, for its bucket ends, it waits in the hand-off queue, which finds the
    /// bucket it belongs to.
    fn propose_apart(&self, hosted: &Arc<HostedVnode>, bounds: Bounds, command: Bytes) -> Apart {
        let (tell, proposed) = oneshot::channel();
        let (hosted, queue) = (Arc::clone(hosted), Arc::clone(&self.hand_off));
        let now = self.clock.now_ns();
        let catalog = self.meta.catalog();
        let set = catalog.replica_set_of(hosted.beside.vnode.id()).map(|(_, set)| set.id);
        let task = tokio::spawn(async move {
            let outcome = hosted.group.propose_within(command.clone(), bounds).await;
            // Who waits for it is told; whoever was told before hears no more.
            let Err(Ok((reply, _))) = tell.send(outcome) else { return };
            if reply.first() != Some(&Outcome::Ended.code()) {
                return;
            }
            let vnode = hosted.beside.vnode.id();
            let Some(set) = set else { return };
            if let Err(error) = queue.keep_for(set, now, command).await {
                tracing::error!(%vnode, %error, "a write that was only durable is lost");
            }
        });
        Apart { proposed, task: task.abort_handle() }
    }

    /// Pins what a scan of a vnode here sees, which leads. Where there are few series, on this thread.
    pub(crate) async fn open_scan_here(
        &self,
        hosted: &HostedVnode,
        request: &ScanRequest,
    ) -> Result<VnodeScan> {
        hosted.group.read_barrier().await?;
        let vnode = &hosted.beside.vnode;
        if vnode.series() <= SERIES_FEW {
            return Ok(vnode.scan(request.clone())?);
        }
        Self::pin(hosted, request).await
    }

    /// Pins what a scan of this node's vnode of a replica set sees, leader or not, once it lacks nothing
    /// that was acknowledged longer ago than `stale`.
    pub(crate) async fn open_scan_follower(
        &self,
        (bucket, set): (&Bucket, &ReplicaSet),
        stale: Duration,
        request: &ScanRequest,
    ) -> Result<VnodeScan> {
        let hosted = self.vnode(bucket, set).await?;
        let known = *hosted.beside.fresh.lock();
        let index = match known.filter(|(at, _)| at.elapsed() <= stale) {
            Some((_, index)) => index,
            None => {
                // Before it is asked: what is acknowledged meanwhile may be missing.
                let at = Instant::now();
                let index = self.read_index(bucket, set).await?;
                *hosted.beside.fresh.lock() = Some((at, index));
                index
            }
        };
        hosted.group.wait_for_applied(index, APPLY_PATIENCE).await?;
        Self::pin(&hosted, request).await
    }

    async fn open_scan_for_others(
        &self,
        vnode: VnodeId,
        stale_ms: Option<u64>,
        request: &ScanRequest,
    ) -> Result<VnodeScan> {
        let Some(ms) = stale_ms else {
            let hosted = self.vnode_by_id(vnode).await?;
            hosted.group.read_barrier().await?;
            return Self::pin(&hosted, request).await;
        };
        let (bucket, set) = self.set_here(vnode)?;
        self.open_scan_follower((&bucket, &set), Duration::from_millis(ms), request).await
    }

    /// Returns the index that holds all that a replica set has acknowledged.
    async fn read_index(&self, bucket: &Bucket, set: &ReplicaSet) -> Result<u64> {
        let here = |hosted: Arc<HostedVnode>| async move {
            Ok((Response::Proposed { outcome: 0, index: read_index(&hosted).await? }, Bytes::new()))
        };
        let request = |vnode| Request::ReadIndex { vnode };
        match self.ask_leader((bucket, set), request, &[], here).await?.1 {
            Response::Proposed { index, .. } => Ok(index),
            other => Err(other.into_error()),
        }
    }

    async fn pin(hosted: &HostedVnode, request: &ScanRequest) -> Result<VnodeScan> {
        let (vnode, request) = (Arc::clone(&hosted.beside.vnode), request.clone());
        let scan = tokio::task::spawn_blocking(move || vnode.scan(request));
        Ok(scan.await.map_err(Error::internal)??)
    }

    fn hold_scan(&self, scan: VnodeScan) -> Result<ScanInfo> {
        let number = self.held.number();
        let info = ScanInfo {
            scan: number,
            counts: scan.counts(),
            rows_about: scan.rows_about(),
            ordered: scan.is_ordered(),
            exact: scan.exact(),
        };
        let mut scans = self.held.scans.lock();
        if scans.len() >= SCANS_MAX {
            return Err(Error::Remote {
                kind: ErrorKind::LimitReached,
                message: format!("{SCANS_MAX} scans of other nodes are open"),
            });
        }
        scans.insert(number, HeldScan { scan, until: Instant::now() + SCAN_LEASE });
        Ok(info)
    }

    /// Returns this node's vnode by its id.
    pub(crate) async fn vnode_by_id(&self, vnode: VnodeId) -> Result<Arc<HostedVnode>> {
        let (bucket, set) = self.set_here(vnode)?;
        self.vnode(&bucket, &set).await
    }

    /// Returns the replica set of a vnode of this node.
    fn set_here(&self, vnode: VnodeId) -> Result<(Arc<Bucket>, ReplicaSet)> {
        let catalog = self.meta.catalog();
        let Some((bucket, set)) = catalog.replica_set_of(vnode) else {
            let message = format!("vnode {vnode} is not known here");
            return Err(replication::Error::NotReady(message).into());
        };
        let here = |place: &&meta::VnodePlace| place.id == vnode && place.node == self.config.node;
        if !set.vnodes.iter().any(|place| here(&place)) {
            let message = format!("vnode {vnode} is not on this node");
            return Err(replication::Error::NotReady(message).into());
        }
        Ok((Arc::clone(bucket), set.clone()))
    }

    async fn checksum_for_others(&self, vnode: VnodeId, index: u64) -> Result<Response> {
        match self.checksum_here(vnode, index).await {
            Ok(checksum) => Ok(Response::Checksum(checksum)),
            // Who asks wants to know of this replica, and would ask another.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                Ok(Response::Failed { kind: error.kind(), message: error.to_string() })
            }
            Err(error) => Err(error),
        }
    }

    async fn answer(self: &Arc<Self>, request: Request, payload: Bytes) -> Result<Response> {
        Ok(match request {
            Request::Propose { vnode, bucket, lock, only_durable } => {
                let hosted = self.vnode_by_id(vnode).await?;
                let how = (bucket, lock, only_durable);
                let (outcome, index) = self.propose_here(&hosted, how, payload).await?;
                Response::Proposed { outcome, index }
            }
            Request::Lock { vnode, lock } => {
                self.lock_here(self.vnode_by_id(vnode).await?, lock).await?;
                Response::Done
            }
            Request::Applied { vnode, index } => {
                let hosted = self.vnode_by_id(vnode).await?;
                hosted.group.wait_for_applied(index, APPLY_PATIENCE).await?;
                Response::Done
            }
            Request::ReadIndex { vnode } => {
                let hosted = self.vnode_by_id(vnode).await?;
                Response::Proposed { outcome: 0, index: read_index(&hosted).await? }
            }
            Request::LastTime { vnode } => {
                Response::LastTime(last_time(&*self.vnode_by_id(vnode).await?).await?)
            }
            Request::Lead { vnode } => {
                self.vnode_by_id(vnode).await?.group.read_barrier().await?;
                Response::Done
            }
            Request::Renew { lock } => self.held.renew(lock).map(|()| Response::Done)?,
            Request::Unlock { lock } => {
                self.held.unlock(lock);
                Response::Done
            }
            Request::OpenScan { vnode, scan, stale_ms } => {
                let request = request_of(scan, &payload)?;
                let scan = self.open_scan_for_others(vnode, stale_ms, &request).await?;
                Response::Scan(self.hold_scan(scan)?)
            }
            Request::CloseScan { scan } => {
                self.held.scans.lock().remove(&scan);
                Response::Done
            }
            Request::Compact { vnode } => {
                self.compact_whole(&*self.vnode_by_id(vnode).await?).await?;
                Response::Done
            }
            Request::Files => Response::Files(self.files_here().await),
            Request::HandedOff => Response::HandedOff(self.handed_off_here()),
            Request::Groups => Response::Groups(self.groups_here().await),
            Request::Checksum { vnode, index } => self.checksum_for_others(vnode, index).await?,
            Request::Leader { vnode } => {
                let status = self.vnode_by_id(vnode).await?.group.status();
                Response::NotLeader { leader: status.leader.map(|(_, node)| node) }
            }
            Request::Sleep { vnode, term, index } => {
                let cluster = Arc::clone(self);
                // To its end, whether or not who asked still waits.
                let slept =
                    tokio::spawn(async move { cluster.sleep_here(vnode, (term, index)).await });
                slept.await.map_err(Error::internal)??;
                Response::Done
            }
            Request::HandOver { vnode, to } => {
                let hosted = self.vnode_by_id(vnode).await?;
                self.hand_over_here(&hosted, to, LOCK_PATIENCE).await?;
                Response::Done
            }
        })
    }

    /// Returns a scan that is pinned here for another node. It does not end with its lease.
    ///
    /// # Errors
    /// One that nobody read for long.
    pub fn pinned_scan(&self, pinned: &PinnedScan) -> Result<Scan> {
        Ok(Scan::Here(Box::new(self.held_scan(pinned)?)))
    }

    fn held_scan(&self, pinned: &PinnedScan) -> Result<VnodeScan> {
        let scan = {
            let mut scans = self.held.scans.lock();
            let held = scans.get_mut(&pinned.scan).ok_or_else(|| Error::Remote {
                kind: ErrorKind::Unavailable,
                message: "the scan is not open any more".to_owned(),
            })?;
            held.until = Instant::now() + SCAN_LEASE;
            held.scan.clone()
        };
        let scan = scan.split(pinned.parts).into_iter().nth(pinned.part);
        let scan = scan.ok_or_else(|| Error::internal("a part of a scan that has fewer"))?;
        Ok(if pinned.last_rows { scan.only_last_rows() } else { scan })
    }

    fn stream_scan(&self, pinned: &PinnedScan) -> Result<Answers> {
        let mut scan = self.held_scan(pinned)?;
        let (sender, mut answers) = mpsc::channel(BATCHES_AHEAD);
        tokio::task::spawn_blocking(move || {
            let mut encoder = wire_batch::Encoder::default();
            loop {
                let message = match scan.next_batch() {
                    Ok(Some(batch)) => encoder.batch(&batch),
                    Ok(None) => Ok(encoder.end(&scan.counts())),
                    Err(error) => Ok(encoder.failure(&Error::from(error))),
                };
                let ended = encoder.has_ended();
                let message = message.map_err(|error| CallError::Refused(error.to_string()));
                if sender.blocking_send(message).is_err() || ended {
                    return;
                }
            }
        });
        Ok(stream::poll_fn(move |context| answers.poll_recv(context)).boxed())
    }
}

/// Returns the index that holds all that was acknowledged, of a vnode that leads.
async fn read_index(hosted: &HostedVnode) -> Result<u64> {
    hosted.group.read_barrier().await?;
    Ok(hosted.group.status().applied.unwrap_or(0))
}

fn request_of(scan: WireScan, schema: &[u8]) -> Result<ScanRequest> {
    let reader = StreamReader::try_new(schema, None).map_err(Error::internal)?;
    let WireScan { table, columns, times, filter, values, order } = scan;
    Ok(ScanRequest { table, columns, schema: reader.schema(), times, filter, values, order })
}

/// The cluster as a service. It does not keep the cluster alive.
pub(crate) struct RowsService(pub(crate) Weak<Cluster>);

fn stopping() -> CallError {
    CallError::Refused("the node is stopping".to_owned())
}

impl Service for RowsService {
    fn call(self: Arc<Self>, request: Bytes) -> BoxFuture<'static, Answer> {
        async move {
            let cluster = self.0.upgrade().ok_or_else(stopping)?;
            let (request, payload) = peers::decode(&request)?;
            let response = cluster.answer(request, payload).await;
            let response = response.unwrap_or_else(|error| failed(&error));
            Ok(peers::encode(&response, &[]))
        }
        .boxed()
    }

    fn stream(self: Arc<Self>, request: Bytes) -> Answers {
        let answers = || {
            let cluster = self.0.upgrade().ok_or_else(stopping)?;
            let (read, _) = peers::decode(&request)?;
            cluster.stream_scan(&read).map_err(|error| CallError::Refused(error.to_string()))
        };
        answers().unwrap_or_else(|error| stream::once(async { Err(error) }).boxed())
    }
}

/// The vnodes of a node as members of their groups.
pub(crate) struct VnodeMembers(pub(crate) Weak<Cluster>);

impl Members for VnodeMembers {
    fn member(&self, member: u64) -> BoxFuture<'_, replication::Result<Arc<dyn HoldsGroup>>> {
        async move {
            let stopping = || replication::Error::NotReady("the node is stopping".to_owned());
            let cluster = self.0.upgrade().ok_or_else(stopping)?;
            let called = async {
                let (bucket, set) = cluster.set_here(VnodeId(member))?;
                cluster.called_vnode(&bucket, &set).await
            };
            match called.await {
                Ok(hosted) => Ok(hosted as Arc<dyn HoldsGroup>),
                Err(Error::Replication(error)) => Err(error),
                Err(error) => Err(replication::Error::NotReady(error.to_string())),
            }
        }
        .boxed()
    }

    fn admit(&self) -> replication::Result<()> {
        let admitted = self.0.upgrade().map_or(Ok(()), |cluster| cluster.wal.admit());
        admitted.map_err(|error| replication::Error::NotReady(error.to_string()))
    }
}
