//! A replica set's member: the node's log as its Raft log, a vnode as its state machine.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use replication::{Completion, Image, LogStore, Machine, Pieces};
use tokio::sync::Mutex;
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
    /// Whether there are others who may want an image.
    gives_images: bool,
    /// Held while an image is fetched: two would write the same files.
    fetching: Mutex<()>,
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
    pub fn new(vnode: Arc<Vnode>, log: VnodeLog, gives_images: bool) -> Self {
        Self { vnode, log, gives_images, fetching: Mutex::default() }
    }

    /// Runs what blocks on the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Vnode) -> tskv::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        if !self.vnode.blocks() {
            return work(&self.vnode).map_err(other);
        }
        let vnode = Arc::clone(&self.vnode);
        let done = tokio::task::spawn_blocking(move || work(&vnode)).await;
        done.map_err(io::Error::other)?.map_err(other)
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
        let progress = Progress { applied: index, raft_state };
        let outcomes = self.blocking(move |vnode| vnode.apply(progress, &commands)).await;
        self.log.evict(index);
        let reply = |outcome: tskv::Outcome| Bytes::copy_from_slice(&[outcome.code()]);
        Ok(outcomes?.into_iter().map(reply).collect())
    }

    async fn snapshot(&self) -> io::Result<Image> {
        Ok(image(self.blocking(Vnode::flush).await?))
    }

    fn last_snapshot(&self) -> io::Result<Option<Image>> {
        if self.gives_images {
            let given = self.vnode.image().map_err(other)?;
            return Ok(given.map(|(progress, data)| Image { data, ..image(Some(progress)) }));
        }
        let flushed = self.vnode.flushed();
        Ok(flushed.is_some().then(|| image(flushed)))
    }

    async fn fetch(&self, image: &Image, from: Pieces) -> io::Result<()> {
        let _alone = self.fetching.lock().await;
        let manifest = image.data.clone();
        tracing::info!(vnode = %self.vnode.id(), "an image is fetched");
        loop {
            let wanted = manifest.clone();
            let piece = self.blocking(move |vnode| vnode.missing_piece(&wanted)).await?;
            let Some(piece) = piece else {
                // Before raft hears of it: a failed installation would stop the group.
                return self.blocking(move |vnode| vnode.check_image(&manifest)).await;
            };
            let bytes = from.read(&piece.part, piece.offset, piece.len).await?;
            let wanted = manifest.clone();
            self.blocking(move |vnode| vnode.keep_piece(&wanted, &piece, &bytes)).await?;
        }
    }

    async fn read_piece(&self, part: &str, offset: u64, len: u32) -> io::Result<Bytes> {
        let part = part.to_owned();
        self.blocking(move |vnode| vnode.read_piece(&part, offset, len)).await
    }

    async fn install(&self, image: Image) -> io::Result<()> {
        let Image { raft_state, data } = image;
        let raft_state = raft_state.unwrap_or_default();
        self.blocking(move |vnode| vnode.install_image(&data, raft_state)).await?;
        tracing::info!(vnode = %self.vnode.id(), "an image replaced what was here");
        Ok(())
    }
}
