//! The seam to a state machine, and openraft's view of it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use model::wire::Malformed;
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StorageIOError,
};
use tokio::sync::{mpsc, watch};

use crate::codec;
use crate::log::Covered;
use crate::network::Pieces;
use crate::types::{Entry, LogId, Replies, StorageError, StoredMembership, TypeConfig};

/// A full copy of a machine's data, and the raft state it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// As given to [`Machine::apply`]; `None` where nothing was applied yet.
    pub raft_state: Option<Bytes>,
    /// The data, in the machine's own format.
    pub data: Bytes,
}

/// What a group replicates.
pub trait Machine: Send + Sync + 'static {
    /// Returns the raft state given to the last `apply`.
    fn applied(&self) -> io::Result<Option<Bytes>>;
    /// Applies the commands of the entry at `index` and keeps `raft_state` with what they change.
    /// Returns one reply a command. An error stops the group.
    fn apply(
        &self,
        index: u64,
        raft_state: Bytes,
        commands: Vec<Bytes>,
    ) -> impl Future<Output = io::Result<Vec<Bytes>>> + Send;
    /// Makes durable all that was applied, so that the log up to there may be purged.
    fn snapshot(&self) -> impl Future<Output = io::Result<Image>> + Send;
    /// Returns what the last `snapshot` or `install` made durable.
    fn last_snapshot(&self) -> io::Result<Option<Image>>;
    /// Replaces all data; the files the image names were fetched.
    fn install(&self, image: Image) -> impl Future<Output = io::Result<()>> + Send;

    /// Brings here the files that an image names, before it is installed. What was fetched already,
    /// by an attempt that broke off, is not fetched again. An image that is all data names none.
    fn fetch(&self, _image: &Image, _from: Pieces) -> impl Future<Output = io::Result<()>> + Send {
        async { Ok(()) }
    }

    /// Returns a piece of a file that `last_snapshot` named lately.
    fn read_piece(
        &self,
        part: &str,
        _offset: u64,
        _len: u32,
    ) -> impl Future<Output = io::Result<Bytes>> + Send {
        let message = format!("an image has no file {part}");
        async { Err(io::Error::new(io::ErrorKind::NotFound, message)) }
    }
}

/// The files of a [`Machine`], whatever machine it is.
pub(crate) trait Files: Send + Sync {
    fn fetch<'a>(&'a self, image: &'a Image, from: Pieces) -> BoxFuture<'a, io::Result<()>>;
    fn read_piece<'a>(
        &'a self,
        part: &'a str,
        offset: u64,
        len: u32,
    ) -> BoxFuture<'a, io::Result<Bytes>>;
}

impl<M: Machine> Files for M {
    fn fetch<'a>(&'a self, image: &'a Image, from: Pieces) -> BoxFuture<'a, io::Result<()>> {
        Machine::fetch(self, image, from).boxed()
    }

    fn read_piece<'a>(
        &'a self,
        part: &'a str,
        offset: u64,
        len: u32,
    ) -> BoxFuture<'a, io::Result<Bytes>> {
        Machine::read_piece(self, part, offset, len).boxed()
    }
}

/// openraft's view of a [`Machine`].
#[derive(Debug)]
pub(crate) struct RaftMachine<M> {
    machine: Arc<M>,
    membership: StoredMembership,
    covered: watch::Sender<Covered>,
    /// Dropped with the last view of the machine, so that who closes the group can wait for it.
    in_use: mpsc::Sender<()>,
}

fn read_error(error: &io::Error) -> StorageError {
    StorageIOError::read_state_machine(AnyError::new(error)).into()
}

fn write_error(error: &io::Error) -> StorageError {
    StorageIOError::write_state_machine(AnyError::new(error)).into()
}

fn malformed(error: &Malformed) -> StorageError {
    StorageIOError::read_state_machine(AnyError::new(error)).into()
}

impl<M: Machine> RaftMachine<M> {
    pub(crate) fn new(machine: Arc<M>, in_use: mpsc::Sender<()>) -> Self {
        let (covered, _) = watch::channel(Covered::UpTo(None));
        Self { machine, membership: StoredMembership::default(), covered, in_use }
    }

    /// Returns how much of the log the machine holds durably, as it grows.
    pub(crate) fn covered(&self) -> watch::Receiver<Covered> {
        self.covered.subscribe()
    }

    fn cover(&self, upto: Option<LogId>) {
        self.covered.send_modify(|covered| {
            if let Covered::UpTo(index) = covered {
                *index = (*index).max(upto.map(|log_id| log_id.index));
            }
        });
    }
}

fn state_of(bytes: Option<&Bytes>) -> Result<(Option<LogId>, StoredMembership), StorageError> {
    let state = bytes.map(|bytes| codec::decode_state(bytes)).transpose();
    Ok(state.map_err(|error| malformed(&error))?.unwrap_or_default())
}

fn snapshot_of(image: Image) -> Result<Snapshot<TypeConfig>, StorageError> {
    let (last_log_id, last_membership) = state_of(image.raft_state.as_ref())?;
    // The same data has the same id wherever it lies.
    let snapshot_id = last_log_id.map_or_else(|| "empty".to_owned(), |id| id.to_string());
    let meta = SnapshotMeta { last_log_id, last_membership, snapshot_id };
    Ok(Snapshot { meta, snapshot: Box::new(image.data) })
}

impl<M: Machine> RaftStateMachine<TypeConfig> for RaftMachine<M> {
    type SnapshotBuilder = RaftMachine<M>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = self.machine.applied().map_err(|error| read_error(&error))?;
        let state = state_of(applied.as_ref())?;
        self.membership = state.1.clone();
        // What was there when the machine was opened, it has read from its disk.
        self.cover(state.0);
        Ok(state)
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Replies>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut replies = Vec::with_capacity(entries.len());
        for entry in entries {
            let commands = match entry.payload {
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Normal(commands) => commands.0,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Vec::new()
                }
            };
            let state = codec::encode_state(Some(entry.log_id), &self.membership);
            let applied = self.machine.apply(entry.log_id.index, state, commands).await;
            let applied = applied
                .map_err(|error| StorageIOError::apply(entry.log_id, AnyError::new(&error)))?;
            replies.push(Replies(applied));
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        Self {
            machine: Arc::clone(&self.machine),
            membership: self.membership.clone(),
            covered: self.covered.clone(),
            in_use: self.in_use.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, openraft::BasicNode>,
        snapshot: Box<Bytes>,
    ) -> Result<(), StorageError> {
        self.membership = meta.last_membership.clone();
        let raft_state = Some(codec::encode_state(meta.last_log_id, &meta.last_membership));
        let installed = self.machine.install(Image { raft_state, data: *snapshot }).await;
        match &installed {
            Ok(()) => self.cover(meta.last_log_id),
            Err(_) => drop(self.covered.send_replace(Covered::Failed)),
        }
        installed.map_err(|error| write_error(&error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let image = self.machine.last_snapshot().map_err(|error| read_error(&error))?;
        image.map(snapshot_of).transpose()
    }
}

impl<M: Machine> RaftSnapshotBuilder<TypeConfig> for RaftMachine<M> {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let image = self.machine.snapshot().await.map_err(|error| write_error(&error))?;
        let snapshot = snapshot_of(image)?;
        self.cover(snapshot.meta.last_log_id);
        Ok(snapshot)
    }
}
