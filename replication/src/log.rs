//! The seam to a log, and openraft's view of it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use model::wire::Malformed;
use openraft::entry::RaftEntry;
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{
    AnyError, EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftLogId, RaftLogReader,
    StorageIOError,
};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::codec;
use crate::types::{Commands, Entry, LogId, StorageError, TypeConfig, Vote};

/// Called with the outcome once entries are durable.
pub type Completion = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The most bytes of entries sent to a follower at once.
const READ_BYTES_MAX: usize = 1 << 20;

/// The log of one member of one group. Entries and states are opaque bytes.
pub trait LogStore: Clone + Send + Sync + 'static {
    /// Returns the log id of the last purged entry.
    fn purged(&self) -> io::Result<Option<Bytes>>;
    /// Returns the last entry that is there.
    fn last(&self) -> io::Result<Option<Bytes>>;
    /// Returns the entries from `start` to before `end` that are there, stopping after `bytes_max`
    /// but not before the first.
    fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Bytes>>;
    /// Returns the stored vote.
    fn vote(&self) -> io::Result<Option<Bytes>>;
    /// Returns what was last noted as committed.
    fn committed(&self) -> io::Result<Option<Bytes>>;
    /// Appends entries by index: readable on return, durable when `done` hears of success.
    fn append(
        &self,
        entries: Vec<(u64, Bytes)>,
        done: Completion,
    ) -> impl Future<Output = io::Result<()>> + Send;
    /// Stores the vote, durably.
    fn save_vote(&self, vote: Bytes) -> impl Future<Output = io::Result<()>> + Send;
    /// Notes what is committed; need not be durable.
    fn save_committed(&self, committed: Bytes) -> impl Future<Output = io::Result<()>> + Send;
    /// Removes the entries from `from` on.
    fn truncate(&self, from: u64) -> impl Future<Output = io::Result<()>> + Send;
    /// Removes the entries up to and with `upto`, whose log id is given.
    fn purge(&self, upto: u64, log_id: Bytes) -> impl Future<Output = io::Result<()>> + Send;
}

/// How much of the log a machine holds durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Covered {
    /// All up to this index.
    UpTo(Option<u64>),
    /// It failed to take an image: what it would have covered must stay.
    Failed,
}

/// Who waits for entries to be durable here. An entry is known by where its first command lies: openraft
/// hands the bytes on as they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durable(Arc<Mutex<HashMap<usize, Vec<oneshot::Sender<()>>>>>);

/// Returns once it is told that an entry is durable here; never, where nobody will tell.
pub async fn told(durable: Option<oneshot::Receiver<()>>) {
    if let Some(durable) = durable
        && durable.await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Forgets who waits once the entry is over.
pub(crate) struct Noted(Durable, usize);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.0.lock().remove(&self.1);
    }
}

fn place(commands: &Commands) -> usize {
    commands.0.first().map_or(0, |first| first.as_ptr().addr())
}

impl Durable {
    /// Notes who waits for an entry that is about to be proposed.
    pub(crate) fn note(
        &self,
        commands: &Commands,
        waiting: Vec<oneshot::Sender<()>>,
    ) -> Option<Noted> {
        if waiting.is_empty() {
            return None;
        }
        let place = place(commands);
        self.0.lock().insert(place, waiting);
        Some(Noted(self.clone(), place))
    }

    fn take(&self, commands: &Commands) -> Vec<oneshot::Sender<()>> {
        self.0.lock().remove(&place(commands)).unwrap_or_default()
    }
}

/// openraft's view of a [`LogStore`].
#[derive(Clone, Debug)]
pub(crate) struct RaftLog<L> {
    pub(crate) store: L,
    pub(crate) durable: Durable,
    /// What the machine holds; `None` where no machine is asked, in tests of the log alone.
    pub(crate) covered: Option<watch::Receiver<Covered>>,
}

fn read_error(error: &io::Error) -> StorageError {
    StorageIOError::read_logs(AnyError::new(error)).into()
}

fn write_error(error: &io::Error) -> StorageError {
    StorageIOError::write_logs(AnyError::new(error)).into()
}

fn malformed(error: &Malformed) -> StorageError {
    StorageIOError::new(ErrorSubject::Logs, ErrorVerb::Read, AnyError::new(error)).into()
}

impl<L: LogStore> RaftLog<L> {
    /// Waits until the machine holds durably what is to be purged: openraft purges the log while an
    /// image is still being installed, and a crash in between would leave neither.
    async fn wait_until_covered(&self, upto: u64) -> io::Result<()> {
        let Some(covered) = &self.covered else { return Ok(()) };
        let mut covered = covered.clone();
        let reached = covered.wait_for(|covered| match covered {
            Covered::UpTo(index) => *index >= Some(upto),
            Covered::Failed => true,
        });
        match reached.await.map(|reached| *reached) {
            Ok(Covered::UpTo(_)) => Ok(()),
            Ok(Covered::Failed) | Err(_) => Err(io::Error::other("the machine took no image")),
        }
    }

    fn entries(&self, start: u64, end: u64, bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        let entries = self.store.read(start, end, bytes_max).map_err(|error| read_error(&error))?;
        let decoded = entries.iter().map(codec::decode_entry);
        decoded.collect::<Result<_, _>>().map_err(|error| malformed(&error))
    }
}

impl<L: LogStore> RaftLogReader<TypeConfig> for RaftLog<L> {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => *before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(start, end, usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let entries = self.entries(start, end, READ_BYTES_MAX)?;
        let purged = self.get_log_state().await?.last_purged_log_id;
        match purged {
            // Purged meanwhile: openraft would ask for them for ever. An entry that does not follow is
            // refused by the link, and openraft looks again at what is there.
            Some(purged) if entries.is_empty() && start <= purged.index => {
                let misplaced = LogId::new(purged.leader_id, start + 1);
                Ok(vec![Entry::new_blank(misplaced)])
            }
            _ => Ok(entries),
        }
    }
}

impl<L: LogStore> RaftLogStorage<TypeConfig> for RaftLog<L> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let purged = self.store.purged().map_err(|error| read_error(&error))?;
        let purged = purged.map(|bytes| codec::decode_log_id(&bytes)).transpose();
        let purged = purged.map_err(|error| malformed(&error))?;
        let last = self.store.last().map_err(|error| read_error(&error))?;
        let last = last.map(|entry| codec::entry_log_id(&entry)).transpose();
        let last = last.map_err(|error| malformed(&error))?;
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let saved = self.store.save_vote(codec::encode_vote(vote)).await;
        saved.map_err(|error| StorageIOError::write_vote(AnyError::new(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.store.vote().map_err(|error| read_error(&error))?;
        let vote = vote.map(|bytes| codec::decode_vote(&bytes)).transpose();
        vote.map_err(|error| malformed(&error))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let Some(committed) = committed else { return Ok(()) };
        let saved = self.store.save_committed(codec::encode_log_id(committed)).await;
        saved.map_err(|error| write_error(&error))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let committed = self.store.committed().map_err(|error| read_error(&error))?;
        let committed = committed.map(|bytes| codec::decode_log_id(&bytes)).transpose();
        committed.map_err(|error| malformed(&error))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut waiting = Vec::new();
        let encode = |entry: Entry| {
            if let EntryPayload::Normal(commands) = &entry.payload {
                waiting.extend(self.durable.take(commands));
            }
            (entry.get_log_id().index, codec::encode_entry(&entry))
        };
        let entries: Vec<_> = entries.into_iter().map(encode).collect();
        let done: Completion = Box::new(move |outcome| {
            if outcome.is_ok() {
                for one in waiting {
                    if one.send(()).is_err() {
                        tracing::trace!("who waited was answered otherwise");
                    }
                }
            }
            callback.log_io_completed(outcome);
        });
        self.store.append(entries, done).await.map_err(|error| write_error(&error))
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.store.truncate(log_id.index).await.map_err(|error| write_error(&error))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.wait_until_covered(log_id.index).await.map_err(|error| write_error(&error))?;
        let purged = self.store.purge(log_id.index, codec::encode_log_id(log_id)).await;
        purged.map_err(|error| write_error(&error))
    }
}
