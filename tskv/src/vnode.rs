//! One replica's storage: opens, applies commands in log order, pins what a reader sees.
//!
//! Write path: `apply` → series ids → sorted run or tombstone → memcache. Flush (`flush`) turns the
//! memcache into a file, compaction (`compaction`) files into fewer. Read path: `scan` pins memcaches
//! and version.
//! Invariant: replay and live apply are the same function, and a flush records the applied index
//! with the rows, so that nothing is applied twice and nothing is skipped.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use model::{Points, TableId, VnodeId};
use parking_lot::Mutex;

use crate::checksum::PinnedRows;
use crate::command::{Change, Command, Outcome};
use crate::compaction::CompactionTotals;
use crate::damage::Damage;
use crate::decoded::DecodedCache;
use crate::disk::{Disk, FewOpen};
use crate::error::{Context, Error, Result};
use crate::image::{self, PinnedImage};
use crate::index::{SeriesCache, SeriesIndex};
use crate::memcache::Memcache;
use crate::run::Run;
use crate::scan::{ScanRequest, VnodeScan};
use crate::schemas::Schemas;
use crate::sessions::{Seen, Sessions};
use crate::summary::{self, Summary, VersionEdit};
use crate::tombstone::{Deleted, Tombstone};
use crate::version::{
    SuperVersion, Version, file_path, remove_orphans, segment_path, tombstone_path,
};

/// Bytes of rows in the memcaches of all vnodes that share it.
#[derive(Debug, Default)]
pub struct MemcacheGauge(pub(crate) AtomicUsize);

impl MemcacheGauge {
    /// Returns the bytes held now.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// What a vnode is opened with.
#[derive(Clone, Debug)]
pub struct VnodeConfig {
    /// Where its files are.
    pub disk: Arc<dyn Disk>,
    /// Its folder there.
    pub folder: PathBuf,
    /// Counts the bytes of rows in memory.
    pub gauge: Arc<MemcacheGauge>,
    /// The ids of series met lately.
    pub cache: Arc<SeriesCache>,
    /// Rows of files, decoded.
    pub decoded: Arc<DecodedCache>,
    /// What the catalog knows of tables.
    pub schemas: Schemas,
    /// Files that a flush writes at once.
    pub partitions: usize,
    /// Files that are kept open; `None`: all.
    pub readers_max: Option<usize>,
}

/// The storage of one replica.
#[derive(Debug)]
pub struct Vnode {
    id: VnodeId,
    pub(crate) folder: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) gauge: Arc<MemcacheGauge>,
    pub(crate) schemas: Schemas,
    pub(crate) partitions: usize,
    pub(crate) cache: Arc<SeriesCache>,
    decoded: Arc<DecodedCache>,
    pub(crate) series: Arc<SeriesIndex>,
    pub(crate) state: Mutex<State>,
    /// Held through a flush, so that flushes follow one another, and while an edit is appended.
    pub(crate) summary: Mutex<Summary>,
    /// Held through a compaction.
    pub(crate) compacting: Mutex<()>,
    pub(crate) next_file: AtomicU64,
    pub(crate) totals: CompactionTotals,
    pub(crate) pinned_images: Mutex<Vec<PinnedImage>>,
    pub(crate) pinned_rows: Mutex<Option<PinnedRows>>,
    pub(crate) damage: Damage,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) mutable: Memcache,
    pub(crate) frozen: Option<Arc<Memcache>>,
    pub(crate) version: Arc<Version>,
    pub(crate) sessions: Sessions,
    /// No row is later, where the vnode was ended.
    pub(crate) until: Option<i64>,
    pub(crate) progress: Option<Progress>,
    /// An entry was applied in part: what is in memory is no state of the log, and never flushed.
    pub(crate) is_halfway: bool,
    /// Numbers what arrives in memory, from 1 on.
    arrivals: u64,
}

/// How far the log was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The Raft index applied last.
    pub applied: u64,
    /// What Raft wants back at start: last log id and membership, opaque here.
    pub raft_state: Bytes,
}

/// What a vnode holds, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct VnodeSize {
    /// TSM files.
    pub files: usize,
    /// Their bytes.
    pub file_bytes: u64,
    /// Recorded deletes not yet worked into files.
    pub tombstones: usize,
    /// Bytes of rows not yet in a file.
    pub memcache_bytes: usize,
    /// Series.
    pub series: usize,
}

impl Vnode {
    /// Opens the vnode of a folder, or begins an empty one there.
    ///
    /// # Errors
    /// Files the summary names that are missing or damaged: `Corrupt`, naming the file.
    pub fn open(config: VnodeConfig, id: VnodeId) -> Result<Self> {
        let VnodeConfig { disk, folder, gauge, cache, decoded, schemas, partitions, readers_max } =
            config;
        let disk: Arc<dyn Disk> = match readers_max {
            Some(max) => Arc::new(FewOpen::new(disk, max)),
            None => disk,
        };
        for part in ["tsm", "index"] {
            let folder = folder.join(part);
            disk.make_folders(&folder).context("make", &folder)?;
        }
        let summary = Summary::open(Arc::clone(&disk), &folder.join(summary::NAME))?;
        let whole = summary.whole().clone();
        let (version, series) = image::load(&*disk, &folder, &whole, &cache)?;
        remove_strangers(&*disk, &folder, &whole)?;
        let progress = (!whole.raft_state.is_empty())
            .then_some(Progress { applied: whole.applied, raft_state: whole.raft_state });
        let state = State {
            mutable: Memcache::default(),
            frozen: None,
            version: Arc::new(version),
            sessions: whole.sessions,
            until: whole.until,
            progress,
            is_halfway: false,
            arrivals: 0,
        };
        Ok(Self {
            id,
            folder,
            disk,
            gauge,
            schemas,
            partitions: partitions.max(1),
            cache,
            decoded,
            series: Arc::new(series),
            state: Mutex::new(state),
            summary: Mutex::new(summary),
            compacting: Mutex::new(()),
            next_file: AtomicU64::new(whole.next_file),
            totals: CompactionTotals::default(),
            pinned_images: Mutex::default(),
            pinned_rows: Mutex::default(),
            damage: Damage::default(),
        })
    }

    /// Returns the vnode's id.
    pub fn id(&self) -> VnodeId {
        self.id
    }

    /// Returns whether a file was found damaged by who read it since the vnode was opened.
    pub fn is_damaged(&self) -> bool {
        self.damage.was_found()
    }

    /// Returns whether its disk may take long.
    pub fn blocks(&self) -> bool {
        self.disk.blocks()
    }

    /// Returns how far the log was applied, `None` for a new vnode.
    pub fn progress(&self) -> Option<Progress> {
        self.state.lock().progress.clone()
    }

    /// Returns how far the log is covered by files.
    pub fn flushed(&self) -> Option<Progress> {
        let summary = self.summary.lock();
        let whole = summary.whole();
        (!whole.raft_state.is_empty())
            .then(|| Progress { applied: whole.applied, raft_state: whole.raft_state.clone() })
    }

    /// Checks that files hold all that was purged from the log up to index `purged`.
    ///
    /// # Errors
    /// `Corrupt` where rows are in neither: the summary was damaged or replaced.
    pub fn check_covers(&self, purged: u64) -> Result<()> {
        let applied = self.flushed().map_or(0, |flushed| flushed.applied);
        if purged <= applied {
            return Ok(());
        }
        let reason = format!("the log was purged up to {purged}, files hold up to {applied}");
        Err(Error::corrupt(&self.folder.join(summary::NAME), 0, reason))
    }

    /// Applies the commands of one log entry and notes the progress that comes with them.
    ///
    /// # Errors
    /// Bytes that are no command: the replica must stop, for its log is not what was proposed. Series
    /// that cannot be looked up: it must stop as well.
    pub fn apply(&self, progress: Progress, commands: &[Bytes]) -> Result<Vec<Outcome>> {
        let decoded = commands.iter().map(|command| Command::decode(command));
        let decoded =
            decoded.collect::<std::result::Result<Vec<_>, _>>().map_err(Error::Command)?;
        // Series that are known are looked up before anything changes, and before others wait.
        for points in decoded.iter().flat_map(|command| command.change.batches()) {
            self.series.find(&points.series)?;
        }
        let mut outcomes = Vec::with_capacity(decoded.len());
        let mut state = self.state.lock();
        let held = state.mutable.bytes();
        for command in decoded {
            outcomes.push(match state.note(&command) {
                Some(outcome) => outcome,
                None => {
                    let applied = self.apply_change(&mut state, progress.applied, command.change);
                    if let Err(error) = applied {
                        state.is_halfway = true;
                        self.gauge.0.fetch_add(state.mutable.bytes() - held, Ordering::AcqRel);
                        return Err(error);
                    }
                    Outcome::Applied
                }
            });
        }
        self.gauge.0.fetch_add(state.mutable.bytes() - held, Ordering::AcqRel);
        let before = state.progress.as_ref().map_or(0, |before| before.applied);
        assert!(before <= progress.applied, "apply went back from {before}: {progress:?}");
        state.progress = Some(progress);
        Ok(outcomes)
    }

    /// Does what a command says.
    fn apply_change(&self, state: &mut State, index: u64, change: Change) -> Result<()> {
        match change {
            Change::Write(batches) => {
                for points in batches {
                    let (table, run, of_series) = self.run_of(points)?;
                    let order = state.arrive();
                    state.mutable.push(table, order, run);
                    state.mutable.hold(of_series);
                }
            }
            Change::DeleteRows(points) => self.delete_rows(state, index, &points)?,
            Change::Move { deleted, written } => {
                self.delete_rows(state, index, &deleted)?;
                self.apply_change(state, index, Change::Write(vec![written]))?;
            }
            Change::Checksum => {
                self.pin_for_checksum(state, index);
            }
            Change::End { until } => {
                state.until = Some(state.until.map_or(until, |before| before.max(until)));
            }
            Change::DeleteMatching { table, filter, times } => {
                let rows = if filter.is_empty() {
                    Deleted::All(times)
                } else {
                    Deleted::Series(self.series.matching(table, &filter)?, times)
                };
                let order = state.arrive();
                state.mutable.delete(order, Tombstone { index, table, rows });
            }
        }
        Ok(())
    }

    fn delete_rows(&self, state: &mut State, index: u64, points: &Points) -> Result<()> {
        let rows = Deleted::Rows(self.known_rows(points)?);
        let order = state.arrive();
        state.mutable.delete(order, Tombstone { index, table: points.table, rows });
        Ok(())
    }

    /// Returns the table and the rows of a batch, and the bytes its new series take.
    fn run_of(&self, points: Points) -> Result<(TableId, Run, usize)> {
        let (ids, bytes) = self.series.give_ids(&points.series)?;
        let series = points.row_series.iter().map(|number| ids[*number as usize]).collect();
        Ok((points.table, Run::sort(series, points.times, &points.fields), bytes))
    }

    /// Returns the rows a batch names, of series there are, sorted.
    fn known_rows(&self, points: &Points) -> Result<Vec<(u32, i64)>> {
        let ids = self.series.find(&points.series)?;
        let rows = points.row_series.iter().zip(&points.times);
        let mut rows: Vec<(u32, i64)> =
            rows.filter_map(|(number, time)| Some((ids[*number as usize]?, *time))).collect();
        rows.sort_unstable();
        rows.dedup();
        Ok(rows)
    }

    /// Returns the bytes of rows not yet in a file.
    pub fn memcache_bytes(&self) -> usize {
        let state = self.state.lock();
        state.mutable.bytes() + state.frozen.as_ref().map_or(0, |frozen| frozen.bytes())
    }

    /// Returns a time that no row is later than, of those it holds and, where it was ended, of those it takes;
    /// `None` where there never was a row. Of rows that were deleted since some may count.
    pub fn last_time(&self) -> Option<i64> {
        let state = self.state.lock();
        let in_files = state.version.files.iter().flat_map(|one| one.file.groups());
        let in_files = in_files.map(|group| group.times.max);
        let memcaches = [state.frozen.as_deref(), Some(&state.mutable)];
        let in_memory = memcaches.into_iter().flatten().filter_map(Memcache::last_time);
        in_files.chain(in_memory).chain(state.until).max()
    }

    /// Returns the number of series.
    pub fn series(&self) -> usize {
        self.series.len()
    }

    /// Returns how many series the rows of a command would make. Blocks on the disk.
    ///
    /// # Errors
    /// Bytes that are no command; a damaged segment of the index, what the disk says.
    pub fn new_series(&self, command: &Bytes) -> Result<usize> {
        let command = Command::decode(command).map_err(Error::Command)?;
        let mut fresh = HashSet::new();
        for points in command.change.written() {
            let found = self.series.find(&points.series)?;
            let keys = points.series.iter().zip(found);
            fresh.extend(keys.filter(|(_, id)| id.is_none()).map(|(key, _)| key));
        }
        Ok(fresh.len())
    }

    /// Returns what the vnode holds.
    pub fn size(&self) -> VnodeSize {
        let memcache_bytes = self.memcache_bytes();
        let version = Arc::clone(&self.state.lock().version);
        VnodeSize {
            files: version.files.len(),
            file_bytes: version.files.iter().map(|one| one.file.bytes()).sum(),
            tombstones: version.tombstones.len(),
            memcache_bytes,
            series: self.series.len(),
        }
    }

    /// Pins what is visible now and prepares to read it. Blocks on the disk.
    ///
    /// # Errors
    /// A damaged segment of the index, what the disk says.
    pub fn scan(&self, request: ScanRequest) -> Result<VnodeScan> {
        let pinned = self.pin(request.table);
        // After the pin: rows pinned have their series already.
        let series = self.series.matching(request.table, &request.filter);
        let series = self.damage.note(series)?;
        let damage = self.damage.clone();
        VnodeScan::new(&pinned, (series, &self.series), request, (&self.decoded, damage))
    }

    pub(crate) fn pin(&self, table: TableId) -> SuperVersion {
        self.state.lock().pin(table)
    }

    /// Reads and checks every byte of every file.
    ///
    /// # Errors
    /// `Corrupt`, naming file and offset.
    pub fn verify(&self) -> Result<()> {
        let version = Arc::clone(&self.state.lock().version);
        version.files.iter().try_for_each(|one| one.file.verify())?;
        self.series.segments().iter().try_for_each(|segment| segment.verify())
    }
}

impl State {
    /// Notes a command. Returns its outcome where it is a retry, or refused: then it was never seen.
    fn note(&mut self, command: &Command) -> Option<Outcome> {
        if self.until.is_some_and(|until| command.change.is_later_than(until))
            && self.sessions.seen(command.id) == Seen::Never
        {
            return Some(Outcome::Ended);
        }
        match self.sessions.note(command.id, command.time_ns) {
            Seen::Before => Some(Outcome::AppliedBefore),
            Seen::TooLongAgo => Some(Outcome::Unknown),
            Seen::Never => None,
        }
    }

    pub(crate) fn pin(&self, table: TableId) -> SuperVersion {
        let memcaches = [self.frozen.as_deref(), Some(&self.mutable)];
        let rows = || memcaches.iter().flatten().filter_map(|memcache| memcache.table(table));
        SuperVersion {
            version: Arc::clone(&self.version),
            runs: rows().flat_map(|rows| rows.runs.clone()).collect(),
            tombstones: rows().flat_map(|rows| rows.tombstones.clone()).collect(),
        }
    }

    fn arrive(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }
}

impl Drop for Vnode {
    fn drop(&mut self) {
        // What is still in the memcache is in the log; only the count of it ends here.
        self.gauge.0.fetch_sub(self.memcache_bytes(), Ordering::AcqRel);
    }
}

/// Removes the files that no version has: of a flush or compaction that a crash interrupted.
fn remove_strangers(disk: &dyn Disk, folder: &Path, whole: &VersionEdit) -> Result<()> {
    let files = whole.files.iter().map(|entry| file_path(folder, entry.number));
    let tombstones = whole.tombstones.iter().map(|number| tombstone_path(folder, *number));
    let known: Vec<PathBuf> = files.chain(tombstones).collect();
    remove_orphans(disk, &folder.join("tsm"), &known)?;
    let incoming = folder.join("incoming");
    disk.remove_folder(&incoming).context("remove", &incoming)?;
    let known: Vec<PathBuf> =
        whole.segments.iter().map(|number| segment_path(folder, *number)).collect();
    remove_orphans(disk, &folder.join("index"), &known)
}
