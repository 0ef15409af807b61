//! One replica's storage: applies commands in log order, flushes, recovers, opens scans.
//!
//! Write path: `apply` → series ids → sorted run → memcache. Flush: freeze → TSM file and series
//! segment → version edit → new version. Read path: `scan` pins memcaches and version.
//! Invariant: replay and live apply are the same function, and a flush records the applied index
//! with the rows, so that nothing is applied twice and nothing is skipped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use model::{Points, TableId, VnodeId};
use parking_lot::{Mutex, RwLock};

use crate::command::{Command, Outcome};
use crate::disk::Disk;
use crate::error::{Context, Error, Result};
use crate::memcache::Memcache;
use crate::run::{Columns, Run, merge};
use crate::scan::{ScanRequest, SuperVersion, VnodeScan};
use crate::series::{self, SeriesTable};
use crate::sessions::{Seen, Sessions};
use crate::summary::{Summary, VersionEdit};
use crate::tsm::{TsmFile, TsmWriter};

/// Bytes of rows in the memcaches of all vnodes that share it.
#[derive(Debug, Default)]
pub struct MemcacheGauge(AtomicUsize);

impl MemcacheGauge {
    /// Returns the bytes held now.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// The storage of one replica.
#[derive(Debug)]
pub struct Vnode {
    id: VnodeId,
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    gauge: Arc<MemcacheGauge>,
    series: RwLock<SeriesTable>,
    state: Mutex<State>,
    /// Held through a flush, so that flushes follow one another.
    summary: Mutex<Summary>,
}

#[derive(Debug)]
struct State {
    mutable: Memcache,
    frozen: Option<Arc<Memcache>>,
    files: Arc<Vec<Arc<TsmFile>>>,
    sessions: Sessions,
    progress: Option<Progress>,
    flushed_series: usize,
}

/// How far the log was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The Raft index applied last.
    pub applied: u64,
    /// What Raft wants back at start: last log id and membership, opaque here.
    pub raft_state: Bytes,
}

struct Frozen {
    memcache: Arc<Memcache>,
    progress: Progress,
    sessions: Sessions,
    series: (usize, usize),
}

/// What a vnode holds, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VnodeSize {
    /// TSM files.
    pub files: usize,
    /// Their bytes.
    pub file_bytes: u64,
    /// Bytes of rows not yet in a file.
    pub memcache_bytes: usize,
    /// Series.
    pub series: usize,
}

impl Vnode {
    /// Opens the vnode in `folder`, or begins an empty one there.
    ///
    /// # Errors
    /// Files the summary names that are missing or damaged: `Corrupt`, naming the file.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        id: VnodeId,
        gauge: Arc<MemcacheGauge>,
    ) -> Result<Self> {
        for part in ["tsm", "index"] {
            let folder = folder.join(part);
            disk.make_folders(&folder).context("make", &folder)?;
        }
        let summary = Summary::open(Arc::clone(&disk), &folder.join("summary"))?;
        let whole = summary.whole().clone();
        let mut series = SeriesTable::default();
        for number in &whole.segments {
            series::read_segment(&*disk, &segment_path(folder, *number), &mut series)?;
        }
        let mut files = Vec::with_capacity(whole.files.len());
        for number in &whole.files {
            files.push(Arc::new(TsmFile::open(&*disk, &file_path(folder, *number))?));
        }
        remove_orphans(&*disk, &folder.join("tsm"), &whole.files)?;
        remove_orphans(&*disk, &folder.join("index"), &whole.segments)?;
        let progress = (!whole.raft_state.is_empty())
            .then_some(Progress { applied: whole.applied, raft_state: whole.raft_state });
        let state = State {
            mutable: Memcache::default(),
            frozen: None,
            files: Arc::new(files),
            sessions: whole.sessions,
            progress,
            flushed_series: series.len(),
        };
        Ok(Self {
            id,
            folder: folder.to_path_buf(),
            disk,
            gauge,
            series: RwLock::new(series),
            state: Mutex::new(state),
            summary: Mutex::new(summary),
        })
    }

    /// Returns the vnode's id.
    pub fn id(&self) -> VnodeId {
        self.id
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
        Err(Error::corrupt(&self.folder.join("summary"), 0, reason))
    }

    /// Applies the commands of one log entry and notes the progress that comes with them.
    ///
    /// # Errors
    /// Bytes that are no command: the replica must stop, for its log is not what was proposed.
    pub fn apply(&self, progress: Progress, commands: &[Bytes]) -> Result<Vec<Outcome>> {
        let decoded = commands.iter().map(|command| Command::decode(command));
        let decoded =
            decoded.collect::<std::result::Result<Vec<_>, _>>().map_err(Error::Command)?;
        let mut outcomes = Vec::with_capacity(decoded.len());
        let mut state = self.state.lock();
        for Command::Write { id, time_ns, points } in decoded {
            outcomes.push(match state.sessions.note(id, time_ns) {
                Seen::Before => Outcome::AppliedBefore,
                Seen::TooLongAgo => Outcome::Unknown,
                Seen::Never => {
                    for points in points {
                        let (table, run) = self.run_of(points);
                        let bytes = state.mutable.push(table, run);
                        self.gauge.0.fetch_add(bytes, Ordering::AcqRel);
                    }
                    Outcome::Applied
                }
            });
        }
        let before = state.progress.as_ref().map_or(0, |before| before.applied);
        assert!(before <= progress.applied, "apply went back from {before}: {progress:?}");
        state.progress = Some(progress);
        Ok(outcomes)
    }

    fn run_of(&self, points: Points) -> (TableId, Run) {
        let ids: Vec<u32> = {
            let mut series = self.series.write();
            points.series.iter().map(|key| series.id(key)).collect()
        };
        let series = points.row_series.iter().map(|number| ids[*number as usize]).collect();
        (points.table, Run::sort(series, points.times, &points.fields))
    }

    /// Returns the bytes of rows not yet in a file.
    pub fn memcache_bytes(&self) -> usize {
        let state = self.state.lock();
        state.mutable.bytes() + state.frozen.as_ref().map_or(0, |frozen| frozen.bytes())
    }

    /// Returns what the vnode holds.
    pub fn size(&self) -> VnodeSize {
        let memcache_bytes = self.memcache_bytes();
        let files = Arc::clone(&self.state.lock().files);
        VnodeSize {
            files: files.len(),
            file_bytes: files.iter().map(|file| file.bytes()).sum(),
            memcache_bytes,
            series: self.series.read().len(),
        }
    }

    /// Writes all rows applied so far to files, with the progress they stand for. Returns that
    /// progress. Blocks on the disk.
    ///
    /// # Errors
    /// What the disk says; the vnode must then be stopped.
    pub fn flush(&self) -> Result<Option<Progress>> {
        let mut summary = self.summary.lock();
        let Some(frozen) = self.freeze(summary.whole()) else {
            summary.confirm()?;
            let whole = summary.whole();
            return Ok((!whole.raft_state.is_empty()).then(|| Progress {
                applied: whole.applied,
                raft_state: whole.raft_state.clone(),
            }));
        };
        let mut edit = VersionEdit {
            next_file: summary.whole().next_file,
            applied: frozen.progress.applied,
            raft_state: frozen.progress.raft_state.clone(),
            sessions: frozen.sessions.clone(),
            ..VersionEdit::default()
        };
        let file = self.write_files(&frozen, &mut edit)?;
        summary.append(edit)?;
        let mut state = self.state.lock();
        if let Some(file) = file {
            let mut files = state.files.as_ref().clone();
            files.push(file);
            state.files = Arc::new(files);
        }
        state.flushed_series = frozen.series.1;
        state.frozen = None;
        self.gauge.0.fetch_sub(frozen.memcache.bytes(), Ordering::AcqRel);
        Ok(Some(frozen.progress))
    }

    /// Takes what is to be flushed; `None` where nothing was applied since the last flush.
    fn freeze(&self, flushed: &VersionEdit) -> Option<Frozen> {
        let mut state = self.state.lock();
        let progress = state.progress.clone()?;
        if progress.applied == flushed.applied && !flushed.raft_state.is_empty() {
            return None;
        }
        assert!(state.frozen.is_none(), "flushes follow one another");
        // Under the state's lock: a series or write that came between would be lost on replay.
        let series = (state.flushed_series, self.series.read().len());
        let memcache = Arc::new(std::mem::take(&mut state.mutable));
        state.frozen = Some(Arc::clone(&memcache));
        Some(Frozen { memcache, progress, sessions: state.sessions.clone(), series })
    }

    fn write_files(&self, frozen: &Frozen, edit: &mut VersionEdit) -> Result<Option<Arc<TsmFile>>> {
        let (first, end) = frozen.series;
        if first < end {
            let keys = self.series.read().range(first, end);
            let path = segment_path(&self.folder, edit.next_file);
            series::write_segment(&*self.disk, &path, first, &keys)?;
            edit.segments.push(edit.next_file);
            edit.next_file += 1;
        }
        if frozen.memcache.is_empty() {
            return Ok(None);
        }
        let path = file_path(&self.folder, edit.next_file);
        let mut writer = TsmWriter::create(Arc::clone(&self.disk), &path)?;
        for (table, runs) in frozen.memcache.tables() {
            let runs: Vec<&Run> = runs.iter().map(AsRef::as_ref).collect();
            writer.write_table(table, &merge(&runs, &Columns::All))?;
        }
        writer.finish()?;
        edit.files.push(edit.next_file);
        edit.next_file += 1;
        Ok(Some(Arc::new(TsmFile::open(&*self.disk, &path)?)))
    }

    /// Pins what is visible now and prepares to read it.
    pub fn scan(&self, request: ScanRequest) -> VnodeScan {
        let pinned = {
            let state = self.state.lock();
            let frozen = state.frozen.iter().flat_map(|frozen| frozen.runs(request.table));
            SuperVersion {
                files: Arc::clone(&state.files),
                runs: frozen.chain(state.mutable.runs(request.table)).map(Arc::clone).collect(),
            }
        };
        // After the pin: rows pinned have their series already.
        let series = self.series.read().matching(request.table, &request.filter);
        VnodeScan::new(pinned, series, request)
    }

    /// Reads and checks every byte of every file.
    ///
    /// # Errors
    /// `Corrupt`, naming file and offset.
    pub fn verify(&self) -> Result<()> {
        let files = Arc::clone(&self.state.lock().files);
        files.iter().try_for_each(|file| file.verify())
    }
}

impl Drop for Vnode {
    fn drop(&mut self) {
        // What is still in the memcache is in the log; only the count of it ends here.
        self.gauge.0.fetch_sub(self.memcache_bytes(), Ordering::AcqRel);
    }
}

fn file_path(folder: &Path, number: u64) -> PathBuf {
    folder.join("tsm").join(format!("{number:016x}.tsm"))
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join("index").join(format!("{number:016x}.series"))
}

/// Removes what a flush left behind that never reached the summary.
fn remove_orphans(disk: &dyn Disk, folder: &Path, known: &[u64]) -> Result<()> {
    let names = match disk.list(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.context("list", folder)?,
    };
    for name in names {
        let number = name.split('.').next().and_then(|stem| u64::from_str_radix(stem, 16).ok());
        if number.is_none_or(|number| !known.contains(&number)) {
            let path = folder.join(name);
            tracing::info!(path = %path.display(), "remove a file of an unfinished flush");
            disk.remove(&path).context("remove", &path)?;
        }
    }
    Ok(())
}
