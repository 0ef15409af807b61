//! The write-ahead log of a node: the Raft logs of all its vnodes in one append stream, so that one
//! fsync serves every vnode that has something to say (group commit).
//!
//! Invariants: a completion reports success only after fsync; batch n + 1 is written only after batch
//! n is durable; a failed write or fsync stops the log for good and is never retried.
//!
//! `dump` shows records to people, `format` lays out bytes, `segments` owns the files, `records` is what each vnode's log holds now,
//! `recovery` reads it back at start.

mod dump;
mod format;
mod records;
mod recovery;
mod segments;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use model::VnodeId;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::disk::Disk;
use crate::error::{Error, Result};
pub(crate) use dump::each_record;
use format::Record;
use records::{Entry, Logs};
use segments::Segments;

/// The folder of the log in a data directory.
pub const FOLDER: &str = "wal";
/// The most bytes of one entry.
pub const WAL_ENTRY_BYTES_MAX: usize = 64 << 20;
/// The most requests waiting for the next fsync.
const QUEUE_REQUESTS_MAX: usize = 4_096;
/// The batch is closed at this size.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct WalConfig {
    /// The size of a segment file, preallocated.
    pub segment_bytes: u64,
    /// Who writes what is appended.
    pub writer: WalWriter,
    /// Called once when a write or fsync has failed; the process must not go on.
    pub on_failure: fn(&Error),
}

/// Who writes to the files of a log. Only a thread is meant for disks that are not simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalWriter {
    /// A thread of the log.
    Thread,
    /// Whoever appends, at once.
    Caller,
    /// Whoever calls [`Wal::write_queued`]: until then, what was appended is as lost as in a crash.
    Test,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, writer: WalWriter::Thread, on_failure: |_| {} }
    }
}

/// What a log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalTotals {
    /// Batches made durable, one fsync each.
    pub syncs: u64,
    /// Requests that were in them: more than batches where one fsync served many.
    pub requests: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Nanoseconds it took to write the batches and make them durable.
    pub sync_ns: u64,
}

/// The same, while it is being counted.
#[derive(Debug, Default)]
struct Counts {
    syncs: AtomicU64,
    requests: AtomicU64,
    bytes: AtomicU64,
    sync_ns: AtomicU64,
}

impl Counts {
    fn add(&self, requests: &[Request], since: Instant) {
        let add = |to: &AtomicU64, more: u64| to.fetch_add(more, Ordering::Relaxed);
        add(&self.syncs, 1);
        add(&self.requests, requests.len() as u64);
        add(&self.bytes, requests.iter().map(|request| request.size() as u64).sum());
        add(&self.sync_ns, since.elapsed().as_nanos() as u64);
    }
}

/// Called with the outcome once records are durable.
pub type Completion = Box<dyn FnOnce(Result<()>) + Send>;

struct Request {
    records: Vec<(Record, Option<Arc<Entry>>)>,
    done: Completion,
}

/// The log of a node.
pub struct Wal {
    folder: PathBuf,
    logs: Arc<Mutex<Logs>>,
    writer: Arc<Mutex<Writer>>,
    queue: Mutex<Option<mpsc::Sender<Request>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// What waits for [`Wal::write_queued`].
    queued: Mutex<Option<mpsc::Receiver<Request>>>,
    failed: Arc<AtomicBool>,
    has_reserve: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").field("folder", &self.folder).finish_non_exhaustive()
    }
}

struct Writer {
    segments: Segments,
    logs: Arc<Mutex<Logs>>,
    on_failure: fn(&Error),
    failed: Arc<AtomicBool>,
    has_reserve: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

/// One vnode's view of the log.
#[derive(Clone, Debug)]
pub struct VnodeLog {
    wal: Arc<Wal>,
    vnode: VnodeId,
}

impl Wal {
    /// Opens the log in `folder`, reads what is there and cuts a torn tail.
    ///
    /// # Errors
    /// A record damaged before the end known durable: `Corrupt`, with file and offset.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, config: &WalConfig) -> Result<Arc<Self>> {
        let (segments, logs) = recovery::recover(disk, folder, config.segment_bytes)?;
        let logs = Arc::new(Mutex::new(logs));
        let failed = Arc::new(AtomicBool::new(false));
        let has_reserve = Arc::new(AtomicBool::new(segments.has_reserve()));
        let counts = Arc::new(Counts::default());
        let writer = Arc::new(Mutex::new(Writer {
            segments,
            logs: Arc::clone(&logs),
            on_failure: config.on_failure,
            failed: Arc::clone(&failed),
            has_reserve: Arc::clone(&has_reserve),
            counts: Arc::clone(&counts),
        }));
        let (sender, receiver) = mpsc::channel(QUEUE_REQUESTS_MAX);
        let (mut thread, mut queued) = (None, None);
        let queue = match config.writer {
            WalWriter::Thread => {
                let writer = Arc::clone(&writer);
                let spawned = std::thread::Builder::new().name("wal".to_owned());
                let spawned = spawned.spawn(move || run(&writer, receiver));
                let failed = |source| Error::Io { context: "start wal thread".to_owned(), source };
                thread = Some(spawned.map_err(failed)?);
                Some(sender)
            }
            WalWriter::Caller => None,
            WalWriter::Test => {
                queued = Some(receiver);
                Some(sender)
            }
        };
        Ok(Arc::new(Self {
            folder: folder.to_path_buf(),
            logs,
            writer,
            queue: Mutex::new(queue),
            thread: Mutex::new(thread),
            queued: Mutex::new(queued),
            failed,
            has_reserve,
            counts,
        }))
    }

    /// Returns what was done since the log was opened.
    pub fn totals(&self) -> WalTotals {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { syncs, requests, bytes, sync_ns } = &*self.counts;
        WalTotals {
            syncs: read(syncs),
            requests: read(requests),
            bytes: read(bytes),
            sync_ns: read(sync_ns),
        }
    }

    /// Returns the bytes of entries that are kept in memory, as they are not applied yet.
    pub fn bytes_in_memory(&self) -> usize {
        self.logs.lock().bytes_in_memory()
    }

    /// Returns one vnode's view.
    pub fn log(self: &Arc<Self>, vnode: VnodeId) -> VnodeLog {
        VnodeLog { wal: Arc::clone(self), vnode }
    }

    /// Returns the vnodes that have entries not yet purged: they hold rows no file holds.
    pub fn vnodes_with_entries(&self) -> Vec<VnodeId> {
        self.logs.lock().vnodes_with_entries()
    }

    /// Returns the vnodes whose entries keep the oldest segment from being deleted, when more than
    /// `segments_max` are there.
    pub fn holders_of_oldest(&self, segments_max: usize) -> Vec<VnodeId> {
        let oldest = {
            let writer = self.writer.lock();
            if writer.segments.count() <= segments_max {
                return Vec::new();
            }
            writer.segments.oldest()
        };
        self.logs.lock().holding(oldest)
    }

    /// Refuses when the log has no segment in reserve, so that no append ever meets a full disk.
    ///
    /// # Errors
    /// `NoSpace`, `Stopped`.
    pub fn admit(&self) -> Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(stopped());
        }
        if self.has_reserve.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut writer = self.writer.lock();
        if writer.make_reserve() { Ok(()) } else { Err(Error::NoSpace(self.folder.clone())) }
    }

    /// Drops everything of a vnode that no longer exists.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn forget(&self, vnode: VnodeId) -> Result<()> {
        self.logs.lock().forget(vnode);
        self.submit_and_wait(Record::Forget { vnode }).await
    }

    /// Writes what is queued, with one fsync, where [`WalWriter::Test`] writes. Returns whether anything was.
    pub fn write_queued(&self) -> bool {
        let mut queued = self.queued.lock();
        let requests = std::iter::from_fn(|| queued.as_mut()?.try_recv().ok());
        let requests: Vec<Request> = requests.collect();
        let any = !requests.is_empty();
        if any {
            self.writer.lock().perform(requests);
        }
        any
    }

    /// Writes out what is queued and ends the writer thread.
    pub async fn close(&self) {
        drop(self.queue.lock().take());
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the wal thread panicked");
            }
        }
    }

    async fn submit(&self, request: Request) {
        if self.failed.load(Ordering::Acquire) {
            return (request.done)(Err(stopped()));
        }
        let queue = self.queue.lock().clone();
        match queue {
            Some(queue) => {
                if let Err(refused) = queue.send(request).await {
                    (refused.0.done)(Err(stopped()));
                }
            }
            None if self.thread.lock().is_none() => self.writer.lock().perform(vec![request]),
            None => (request.done)(Err(stopped())),
        }
    }

    async fn submit_and_wait(&self, record: Record) -> Result<()> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let done: Completion = Box::new(move |outcome| {
            if sender.send(outcome).is_err() {
                tracing::debug!("nobody waits for this wal record any more");
            }
        });
        self.submit(Request { records: vec![(record, None)], done }).await;
        receiver.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> Error {
    Error::Stopped("write-ahead log".to_owned())
}

fn run(writer: &Mutex<Writer>, mut queue: mpsc::Receiver<Request>) {
    while let Some(first) = queue.blocking_recv() {
        let mut bytes = first.size();
        let mut requests = vec![first];
        while bytes < BATCH_BYTES_MAX
            && let Ok(next) = queue.try_recv()
        {
            bytes += next.size();
            requests.push(next);
        }
        writer.lock().perform(requests);
    }
}

impl Request {
    fn size(&self) -> usize {
        self.records.iter().map(|(record, _)| record.size()).sum()
    }
}

impl Writer {
    /// Makes the records of all requests durable with one fsync, then answers each.
    fn perform(&mut self, requests: Vec<Request>) {
        let begun = Instant::now();
        let outcome = self.write(&requests);
        self.counts.add(&requests, begun);
        let failure = outcome.as_ref().err().map(ToString::to_string);
        if let Err(error) = &outcome {
            self.failed.store(true, Ordering::Release);
            (self.on_failure)(error);
        }
        for request in requests {
            (request.done)(match &failure {
                None => Ok(()),
                Some(failure) => Err(Error::Stopped(failure.clone())),
            });
        }
        if failure.is_none()
            && let Err(error) = self.collect_garbage()
        {
            tracing::warn!(%error, "old wal segments stay for now");
        }
    }

    fn write(&mut self, requests: &[Request]) -> Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(stopped());
        }
        let records: Vec<&(Record, Option<Arc<Entry>>)> =
            requests.iter().flat_map(|request| &request.records).collect();
        let positions = self.segments.append(records.iter().map(|(record, _)| record))?;
        self.has_reserve.store(self.segments.has_reserve(), Ordering::Release);
        let current = self.segments.current();
        let mut logs = self.logs.lock();
        for ((record, entry), position) in records.into_iter().zip(positions) {
            match entry {
                Some(entry) => entry.set_position(position),
                None => logs.state_written(record.vnode(), current),
            }
        }
        Ok(())
    }

    fn make_reserve(&mut self) -> bool {
        let made = self.segments.make_reserve();
        self.has_reserve.store(made.is_ok(), Ordering::Release);
        match &made {
            Ok(()) => tracing::info!("a wal segment is in reserve again: writes are taken"),
            // Said when it was lost; there are as many tries as refused writes.
            Err(error) => tracing::debug!(%error, "still no wal segment in reserve"),
        }
        made.is_ok()
    }

    /// Deletes the oldest segments while nothing live is in them; votes, commit and purge points
    /// they hold are written forward first.
    fn collect_garbage(&mut self) -> Result<()> {
        while self.segments.oldest() < self.segments.current() {
            let oldest = self.segments.oldest();
            let forward = {
                let logs = self.logs.lock();
                if !logs.holding(oldest).is_empty() {
                    return Ok(());
                }
                logs.states_in(oldest)
            };
            if !forward.is_empty() {
                self.segments.append(forward.iter())?;
                let current = self.segments.current();
                let mut logs = self.logs.lock();
                for record in &forward {
                    logs.state_moved(record.vnode(), current);
                }
            }
            self.segments.delete_oldest()?;
        }
        Ok(())
    }
}

impl VnodeLog {
    /// Returns the vnode this log is of.
    pub fn vnode(&self) -> VnodeId {
        self.vnode
    }

    /// Appends entries, numbered on from the last: readable when this returns, durable when `done` is
    /// called with success.
    pub async fn append(&self, entries: Vec<(u64, Bytes)>, done: Completion) {
        let records = {
            let mut logs = self.wal.logs.lock();
            let log = logs.of(self.vnode);
            let add = |(index, payload): (u64, Bytes)| {
                let entry = log.push(index, payload.clone());
                (Record::Entry { vnode: self.vnode, index, payload }, Some(entry))
            };
            let mut records: Vec<_> = entries.into_iter().map(add).collect();
            if let Some(committed) = log.take_unwritten_committed() {
                records.push((Record::Committed { vnode: self.vnode, committed }, None));
            }
            records
        };
        self.wal.submit(Request { records, done }).await;
    }

    /// Stores the vote; durable when this returns.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn save_vote(&self, vote: Bytes) -> Result<()> {
        self.wal.logs.lock().of(self.vnode).vote = Some(vote.clone());
        self.wal.submit_and_wait(Record::Vote { vnode: self.vnode, vote }).await
    }

    /// Notes what is committed. It goes to disk with the next entry of this vnode, costing no fsync of
    /// its own: the state machine is rebuilt from the log either way.
    pub fn note_committed(&self, committed: Bytes) {
        self.wal.logs.lock().of(self.vnode).note_committed(committed);
    }

    /// Removes the entries from `from` on; durable when this returns.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn truncate(&self, from: u64) -> Result<()> {
        self.wal.logs.lock().of(self.vnode).truncate(from);
        self.wal.submit_and_wait(Record::Truncate { vnode: self.vnode, from }).await
    }

    /// Removes the entries up to and with `upto`, remembering its log id; durable on return.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn purge(&self, upto: u64, log_id: Bytes) -> Result<()> {
        self.wal.logs.lock().of(self.vnode).purge(upto, log_id.clone());
        self.wal.submit_and_wait(Record::Purge { vnode: self.vnode, upto, log_id }).await
    }

    /// Returns the vote, if one was stored.
    pub fn vote(&self) -> Option<Bytes> {
        self.wal.logs.lock().of(self.vnode).vote.clone()
    }

    /// Returns what was last noted as committed.
    pub fn committed(&self) -> Option<Bytes> {
        self.wal.logs.lock().of(self.vnode).committed.clone()
    }

    /// Returns the index and log id up to which entries were purged.
    pub fn purged(&self) -> Option<(u64, Bytes)> {
        self.wal.logs.lock().of(self.vnode).purged.clone()
    }

    /// Returns the bytes of the entries that are not purged.
    pub fn bytes(&self) -> u64 {
        self.wal.logs.lock().of(self.vnode).bytes()
    }

    /// Returns the index of the last entry, if there is an entry.
    pub fn last_index(&self) -> Option<u64> {
        self.wal.logs.lock().of(self.vnode).last_index()
    }

    /// Returns the payloads of the entries from `start` to before `end` that are there; stops after
    /// `bytes_max`, but not before the first.
    ///
    /// # Errors
    /// `Corrupt`, or what the disk says.
    pub fn read(&self, start: u64, end: u64, bytes_max: usize) -> Result<Vec<Bytes>> {
        let entries = self.wal.logs.lock().of(self.vnode).range(start, end);
        let mut payloads = Vec::with_capacity(entries.len());
        let mut bytes = 0;
        for entry in entries {
            let payload = match entry.cached() {
                Some(payload) => payload,
                None => self.wal.read_entry(&entry)?,
            };
            bytes += payload.len();
            payloads.push(payload);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(payloads)
    }

    /// Lets go of the payloads kept in memory up to and with `upto`; they are read from disk if
    /// they are wanted again.
    pub fn evict(&self, upto: u64) {
        self.wal.logs.lock().of(self.vnode).evict(upto);
    }
}

impl Wal {
    fn read_entry(&self, entry: &Entry) -> Result<Bytes> {
        let position = entry.position().ok_or_else(stopped)?;
        let (path, file) = self.writer.lock().segments.file(position.segment)?;
        segments::read_entry(&path, &*file, position)
    }
}

#[cfg(test)]
mod tests;
