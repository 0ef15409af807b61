//! A replica set's member: the node's log as its Raft log, a vnode as its state machine.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use replication::{Completion, Image, LogStore, Machine};
use tskv::wal::VnodeLog;
use tskv::{Progress, Vnode};

/// A vnode's part of the node's log, as replication wants it.
#[derive(Clone, Debug)]
pub struct VnodeLogStore(pub VnodeLog);

/// A vnode, as replication wants it.
#[derive(Debug)]
pub struct VnodeMachine {
    vnode: Arc<Vnode>,
    log: VnodeLog,
}

fn other(error: tskv::Error) -> io::Error {
    io::Error::other(error)
}

impl LogStore for VnodeLogStore {
    fn purged(&self) -> io::Result<Option<Bytes>> {
        Ok(self.0.purged().map(|(_, log_id)| log_id))
    }

    fn last(&self) -> io::Result<Option<Bytes>> {
        let Some(last) = self.0.last_index() else { return Ok(None) };
        Ok(self.0.read(last, last + 1, usize::MAX).map_err(other)?.pop())
    }

    fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Bytes>> {
        self.0.read(start, end, bytes_max).map_err(other)
    }

    fn vote(&self) -> io::Result<Option<Bytes>> {
        Ok(self.0.vote())
    }

    fn committed(&self) -> io::Result<Option<Bytes>> {
        Ok(self.0.committed())
    }

    async fn append(&self, entries: Vec<(u64, Bytes)>, done: Completion) -> io::Result<()> {
        let done = Box::new(move |outcome: tskv::Result<()>| done(outcome.map_err(other)));
        self.0.append(entries, done).await;
        Ok(())
    }

    async fn save_vote(&self, vote: Bytes) -> io::Result<()> {
        self.0.save_vote(vote).await.map_err(other)
    }

    async fn save_committed(&self, committed: Bytes) -> io::Result<()> {
        self.0.note_committed(committed);
        Ok(())
    }

    async fn truncate(&self, from: u64) -> io::Result<()> {
        self.0.truncate(from).await.map_err(other)
    }

    async fn purge(&self, upto: u64, log_id: Bytes) -> io::Result<()> {
        self.0.purge(upto, log_id).await.map_err(other)
    }
}

impl VnodeMachine {
    /// Joins a vnode with its log.
    pub fn new(vnode: Arc<Vnode>, log: VnodeLog) -> Self {
        Self { vnode, log }
    }
}

fn image(progress: Option<Progress>) -> Image {
    Image { raft_state: progress.map(|progress| progress.raft_state), data: Bytes::new() }
}

impl Machine for VnodeMachine {
    fn applied(&self) -> io::Result<Option<Bytes>> {
        Ok(self.vnode.progress().map(|progress| progress.raft_state))
    }

    async fn apply(
        &self,
        index: u64,
        raft_state: Bytes,
        commands: Vec<Bytes>,
    ) -> io::Result<Vec<Bytes>> {
        let vnode = Arc::clone(&self.vnode);
        let progress = Progress { applied: index, raft_state };
        let apply = move || vnode.apply(progress, &commands);
        let outcomes = tokio::task::spawn_blocking(apply).await.map_err(io::Error::other)?;
        self.log.evict(index);
        let reply = |outcome: tskv::Outcome| Bytes::copy_from_slice(&[outcome.code()]);
        Ok(outcomes.map_err(other)?.into_iter().map(reply).collect())
    }

    async fn snapshot(&self) -> io::Result<Image> {
        let vnode = Arc::clone(&self.vnode);
        let flushed = tokio::task::spawn_blocking(move || vnode.flush()).await;
        Ok(image(flushed.map_err(io::Error::other)?.map_err(other)?))
    }

    fn last_snapshot(&self) -> io::Result<Option<Image>> {
        let flushed = self.vnode.flushed();
        Ok(flushed.is_some().then(|| image(flushed)))
    }

    async fn install(&self, _image: Image) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a group of one receives no image"))
    }
}
