//! The hand-off queue: writes of `consistency = 'any'` that no majority could take, kept by this node until one
//! can.
//!
//! Each is a file of its own, made durable before the writer is told; oldest first they are proposed again,
//! under a fresh id, and so take their place in the order of the log then: over newer values, where there
//! are such. What is not delivered in time is given up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meta::{Bucket, ReplicaSet};
use model::wire::{Decoded, Write};
use model::{ErrorKind, NodeId, ReplicaSetId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tskv::disk::{Disk, read_file, replace_file};
use tskv::{renumber, rows_written, sealed};

use crate::Cluster;
use crate::error::{Error, Result};
use crate::peers::{Request, Response};
use crate::write::{Consistency, fits_an_entry};

const FOLDER: &str = "hand_off";
const MAGIC: &[u8; 8] = b"CNOSHAND";
const VERSION: u32 = 1;
/// What a file takes at least.
const BLOCK: u64 = 4096;
/// How long a majority may take before a write is kept.
const PATIENCE: Duration = Duration::from_secs(1);
/// A replica set that had no majority is not asked again for so long.
const AWAY_TIME: Duration = Duration::from_secs(1);

/// What waits for a replica set at one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOff {
    /// The node that keeps it.
    pub node: NodeId,
    /// Which replica set it is for.
    pub replica_set: ReplicaSetId,
    /// Writes.
    pub writes: u64,
    /// Bytes of disk.
    pub bytes: u64,
    /// When the oldest was written, nanoseconds.
    pub oldest_ns: i64,
}

/// A write that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    replica_set: ReplicaSetId,
    since_ns: i64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    bytes: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Replica sets that had no majority, and when.
    away: HashMap<ReplicaSetId, Instant>,
}

/// The queue of a node.
#[derive(Debug)]
pub(crate) struct HandOff {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
}

// FORMAT: docs/formats/hand_off.md, v1
fn encode(replica_set: ReplicaSetId, since_ns: i64, command: &[u8]) -> Vec<u8> {
    let mut bytes = sealed::begin(MAGIC, VERSION);
    bytes.put_u32(replica_set.0);
    bytes.put_i64(since_ns);
    bytes.put_bytes(command);
    sealed::seal(bytes)
}

fn decode(bytes: &[u8]) -> Decoded<(ReplicaSetId, i64, Bytes)> {
    let mut reader = sealed::open(bytes, MAGIC, VERSION)?;
    let (replica_set, since_ns) = (ReplicaSetId(reader.u32()?), reader.i64()?);
    Ok((replica_set, since_ns, Bytes::copy_from_slice(reader.bytes()?)))
}

fn taken(len: usize) -> u64 {
    (len as u64).next_multiple_of(BLOCK)
}

impl HandOff {
    /// Opens the queue of a data directory. What is damaged is put aside.
    pub(crate) fn open(disk: Arc<dyn Disk>, data_dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let folder = data_dir.join(FOLDER);
        disk.make_folders(&folder)?;
        let mut state = State::default();
        for name in disk.list(&folder)? {
            let path = folder.join(&name);
            let Some(number) = name.strip_suffix(".write").and_then(|number| number.parse().ok())
            else {
                continue;
            };
            let bytes = read_file(&*disk, &path)?;
            match decode(&bytes) {
                Ok((replica_set, since_ns, _)) => {
                    state.insert(
                        number,
                        Waiting { replica_set, since_ns, bytes: taken(bytes.len()) },
                    );
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a write that waits is put aside");
                    disk.rename(&path, &path.with_extension("damaged"))?;
                }
            }
        }
        Ok(Self { disk, folder, bytes_max, state: Mutex::new(state) })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number}.write"))
    }

    /// Keeps a write. Blocks on the disk.
    fn keep(&self, replica_set: ReplicaSetId, since_ns: i64, command: &[u8]) -> Result<()> {
        let file = encode(replica_set, since_ns, command);
        let bytes = taken(file.len());
        let number = {
            let mut state = self.state.lock();
            if state.bytes + bytes > self.bytes_max {
                let message = format!(
                    "the hand-off queue of this node is full ({} bytes: storage.hand_off_bytes)",
                    self.bytes_max
                );
                return Err(Error::Remote { kind: ErrorKind::LimitReached, message });
            }
            state.bytes += bytes;
            state.last += 1;
            state.last
        };
        let written = replace_file(&*self.disk, &self.path(number), &file);
        let mut state = self.state.lock();
        state.bytes -= bytes;
        written.map_err(Error::internal)?;
        state.insert(number, Waiting { replica_set, since_ns, bytes });
        Ok(())
    }

    /// Keeps a write.
    pub(crate) async fn keep_for(
        self: &Arc<Self>,
        replica_set: ReplicaSetId,
        since_ns: i64,
        command: Bytes,
    ) -> Result<()> {
        self.blocking(move |queue| queue.keep(replica_set, since_ns, &command)).await
    }

    /// Returns the command of a write that waits. Blocks on the disk.
    fn command(&self, number: u64) -> Result<Bytes> {
        let bytes = read_file(&*self.disk, &self.path(number)).map_err(Error::internal)?;
        Ok(decode(&bytes).map_err(Error::internal)?.2)
    }

    /// Lets go of a write. Blocks on the disk.
    fn remove(&self, number: u64) -> Result<()> {
        match self.disk.remove(&self.path(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::internal(error));
            }
            Ok(()) | Err(_) => self.state.lock().remove(number),
        }
        self.disk.sync_folder(&self.folder).map_err(Error::internal)
    }

    /// Puts a write aside that cannot be delivered, for people to look at. Blocks on the disk.
    fn put_aside(&self, number: u64) -> Result<()> {
        let path = self.path(number);
        self.state.lock().remove(number);
        self.disk.rename(&path, &path.with_extension("refused")).map_err(Error::internal)
    }

    /// Does what blocks on the disk.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let queue = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&queue)).await;
        done.map_err(Error::internal)?
    }

    fn waiting(&self) -> Vec<(u64, Waiting)> {
        self.state.lock().waiting.iter().map(|(number, waiting)| (*number, *waiting)).collect()
    }

    fn note_away(&self, set: ReplicaSetId) {
        self.state.lock().away.insert(set, Instant::now());
    }

    fn is_away(&self, set: ReplicaSetId) -> bool {
        let mut state = self.state.lock();
        state.away.retain(|_, since| since.elapsed() < AWAY_TIME);
        state.away.contains_key(&set)
    }
}

impl State {
    fn insert(&mut self, number: u64, waiting: Waiting) {
        self.last = self.last.max(number);
        self.bytes += waiting.bytes;
        self.waiting.insert(number, waiting);
    }

    fn remove(&mut self, number: u64) {
        if let Some(gone) = self.waiting.remove(&number) {
            self.bytes -= gone.bytes;
        }
    }
}

impl Cluster {
    /// Writes where a majority takes it at once; else keeps the write for later.
    pub(crate) async fn write_or_hand_off(
        &self,
        (bucket, set): (&Bucket, &ReplicaSet),
        command: Bytes,
    ) -> Result<()> {
        fits_an_entry(&command)?;
        if !self.hand_off.is_away(set.id) {
            let proposed = Box::pin(self.propose((bucket, set), command.clone()));
            match tokio::time::timeout(PATIENCE, proposed).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error @ Error::Ended { .. })) => return Err(error),
                Ok(Err(error)) if error.kind() != ErrorKind::Unavailable => return Err(error),
                Ok(Err(_)) | Err(_) => self.hand_off.note_away(set.id),
            }
        }
        self.hand_off.keep_for(set.id, self.clock.now_ns(), command).await
    }

    /// Delivers what waits for replica sets that have a majority again; gives up what waited too long.
    pub(crate) async fn deliver(self: &Arc<Self>) {
        let catalog = self.meta.catalog();
        let age = i64::try_from(self.config.hand_off_max.as_nanos()).unwrap_or(i64::MAX);
        let mut away = BTreeSet::new();
        for (number, waiting) in self.hand_off.waiting() {
            let id = waiting.replica_set;
            let mut ended: fn(&HandOff, u64) -> Result<()> = HandOff::remove;
            if self.clock.now_ns().saturating_sub(waiting.since_ns) > age {
                tracing::error!(replica_set = %id, "a write waited too long and is given up");
            } else {
                if away.contains(&id) {
                    continue;
                }
                let delivered = match catalog.replica_set(id) {
                    Some((bucket, set)) => Box::pin(self.deliver_one((bucket, set), number)).await,
                    None => Box::pin(self.deliver_elsewhere(number)).await,
                };
                match delivered {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::Unavailable => {
                        tracing::debug!(replica_set = %id, %error, "writes wait on");
                        away.insert(id);
                        continue;
                    }
                    // Those behind it must not wait for what will never be.
                    Err(error) => {
                        tracing::error!(replica_set = %id, number, %error, "a write that waited is refused");
                        ended = HandOff::put_aside;
                    }
                }
            }
            if let Err(error) = self.hand_off.blocking(move |queue| ended(queue, number)).await {
                tracing::error!(number, %error, "a write that waits no more is kept on");
            }
        }
    }

    async fn deliver_one(self: &Arc<Self>, set: (&Bucket, &ReplicaSet), number: u64) -> Result<()> {
        let command = self.hand_off.blocking(move |queue| queue.command(number)).await?;
        // Under its first id it might be taken for one so old that nobody knows whether it was applied.
        let id = self.vnodes.next_write(set.1.id);
        let command = renumber(&command, id, self.clock.now_ns()).map_err(Error::internal)?;
        let proposed = tokio::time::timeout(PATIENCE, self.propose(set, command)).await;
        let late = |_| Error::Remote {
            kind: ErrorKind::Unavailable,
            message: "no majority answers".to_owned(),
        };
        match proposed.map_err(late)? {
            Err(Error::Ended { .. }) => {
                self.wait_for_end(set.0).await?;
                self.deliver_elsewhere(number).await
            }
            proposed => proposed.map(|_| ()),
        }
    }

    /// Writes the rows of a write that waits to where they belong by now: its bucket has ended, or is gone.
    async fn deliver_elsewhere(self: &Arc<Self>, number: u64) -> Result<()> {
        let command = self.hand_off.blocking(move |queue| queue.command(number)).await?;
        for points in rows_written(&command).map_err(Error::internal)? {
            // Of a table that was dropped nothing is wanted.
            let catalog = self.meta.catalog();
            let Some(table) = catalog.table_by_id(points.table) else { continue };
            self.write(table.database, points, Consistency::Quorum).await?;
        }
        Ok(())
    }

    /// Returns what waits in the queue of this node.
    pub(crate) fn handed_off_here(&self) -> Vec<HandedOff> {
        let mut sets = BTreeMap::new();
        for (_, waiting) in self.hand_off.waiting() {
            let none = HandedOff {
                node: self.config.node,
                replica_set: waiting.replica_set,
                writes: 0,
                bytes: 0,
                oldest_ns: waiting.since_ns,
            };
            let one = sets.entry(waiting.replica_set).or_insert(none);
            one.writes += 1;
            one.bytes += waiting.bytes;
            one.oldest_ns = one.oldest_ns.min(waiting.since_ns);
        }
        sets.into_values().collect()
    }

    /// Returns what waits in the queues of all nodes. A node that does not answer is left out.
    pub async fn handed_off(&self) -> Vec<HandedOff> {
        let mut all = self.handed_off_here();
        for response in self.ask_all(&Request::HandedOff).await {
            if let Response::HandedOff(more) = response {
                all.extend(more);
            }
        }
        all.sort_by_key(|one| (one.node, one.replica_set));
        all
    }
}

#[cfg(test)]
mod tests {
    use tskv::disk::SimDisk;

    use super::*;

    fn open(disk: &SimDisk) -> HandOff {
        HandOff::open(Arc::new(disk.clone()), Path::new("data"), 5 * BLOCK).unwrap()
    }

    #[test]
    fn what_is_kept_outlives_a_power_cut_and_the_queue_has_a_limit() {
        let disk = SimDisk::default();
        let queue = open(&disk);
        for write in 1..=5_u8 {
            queue.keep(ReplicaSetId(7), i64::from(write), &[write; 100]).unwrap();
        }
        let refused = queue.keep(ReplicaSetId(7), 6, b"one more").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LimitReached);
        let kept = queue.waiting();
        for seed in 0..16 {
            let queue = open(&disk.state().crash(seed));
            assert_eq!(queue.waiting(), kept);
            assert_eq!(queue.command(3).unwrap(), [3; 100].as_slice());
            queue.remove(3).unwrap();
            queue.keep(ReplicaSetId(8), 6, b"there is place again").unwrap();
            assert_eq!(queue.waiting().last().unwrap().0, 6, "numbers are not used again");
        }
    }

    #[test]
    fn a_damaged_write_is_put_aside_and_the_others_are_delivered() {
        let disk = SimDisk::default();
        let queue = open(&disk);
        queue.keep(ReplicaSetId(7), 1, b"first").unwrap();
        queue.keep(ReplicaSetId(7), 2, b"second").unwrap();
        assert!(disk.flip(&queue.path(1), 20, 1));
        let numbers: Vec<u64> = open(&disk).waiting().iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [2]);
    }
}
