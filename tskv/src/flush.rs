//! Flush: the memcache becomes a TSM file, new series a segment, deletes a tombstone file.
//! Invariant: the files are durable before the version edit that names them, and the edit before
//! anybody reads the files.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{Context, Error, Result};
use crate::index::{Segment, write_segment};
use crate::memcache::{Memcache, TableRows};
use crate::merge::{Columns, merge};
use crate::reader::survivors;
use crate::run::Run;
use crate::sessions::Sessions;
use crate::summary::{FileEntry, VersionEdit};
use crate::tombstone::{self, Tombstone};
use crate::tsm::{Effort, TsmFile, TsmWriter};
use crate::version::{Version, VersionFile, file_path, segment_path, tombstone_path};
use crate::vnode::{Progress, Vnode};

/// Rows with more bytes of text are merged in parts: an Arrow array holds 2 GiB of it.
const MERGE_TEXT_BYTES_MAX: usize = 1 << 30;

/// Rows of each run that are looked at to find partitions of one size.
const SAMPLES_OF_RUN: usize = 256;

struct Frozen {
    memcache: Arc<Memcache>,
    version: Arc<Version>,
    progress: Progress,
    sessions: Sessions,
    until: Option<i64>,
    /// The id of the first series that no segment holds, and the keys from there on.
    series: (u32, Vec<Arc<[u8]>>),
}

/// What a flush adds to the version.
#[derive(Default)]
struct Added {
    files: Vec<VersionFile>,
    tombstones: Vec<(u64, Arc<Tombstone>)>,
    segment: Option<Arc<Segment>>,
}

impl Vnode {
    /// Writes all rows applied so far to files, with the progress they stand for. Returns that
    /// progress. Blocks on the disk.
    ///
    /// # Errors
    /// What the disk says; the vnode must then be stopped.
    pub fn flush(&self) -> Result<Option<Progress>> {
        let mut summary = self.summary.lock();
        let Some(frozen) = self.freeze(summary.whole())? else {
            summary.confirm()?;
            let whole = summary.whole();
            return Ok((!whole.raft_state.is_empty()).then(|| Progress {
                applied: whole.applied,
                raft_state: whole.raft_state.clone(),
            }));
        };
        let mut edit = VersionEdit {
            applied: frozen.progress.applied,
            raft_state: frozen.progress.raft_state.clone(),
            sessions: frozen.sessions.clone(),
            until: frozen.until,
            ..VersionEdit::default()
        };
        let added = self.write_files(&frozen, &mut edit)?;
        edit.next_file = self.next_file.load(Ordering::Acquire);
        summary.append(edit)?;
        let mut state = self.state.lock();
        let mut version = state.version.as_ref().clone();
        version.files.extend(added.files);
        version.tombstones.extend(added.tombstones);
        state.version = Arc::new(version);
        if let Some(segment) = added.segment {
            self.series.flushed(segment);
        }
        state.frozen = None;
        self.gauge.0.fetch_sub(frozen.memcache.bytes(), Ordering::AcqRel);
        Ok(Some(frozen.progress))
    }

    /// Takes what is to be flushed; `None` where nothing was applied since the last flush.
    fn freeze(&self, flushed: &VersionEdit) -> Result<Option<Frozen>> {
        let mut state = self.state.lock();
        if state.is_halfway {
            return Err(Error::Stopped("an entry of the log was applied in part".to_owned()));
        }
        let Some(progress) = state.progress.clone() else { return Ok(None) };
        if progress.applied == flushed.applied && !flushed.raft_state.is_empty() {
            return Ok(None);
        }
        assert!(state.frozen.is_none(), "flushes follow one another");
        // Under the state's lock: a series or write that came between would be lost on replay.
        let series = self.series.fresh();
        let memcache = Arc::new(std::mem::take(&mut state.mutable));
        state.frozen = Some(Arc::clone(&memcache));
        let version = Arc::clone(&state.version);
        let (sessions, until) = (state.sessions.clone(), state.until);
        Ok(Some(Frozen { memcache, version, progress, sessions, until, series }))
    }

    /// Takes a number for a file.
    pub(crate) fn file_number(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::AcqRel)
    }

    fn write_files(&self, frozen: &Frozen, edit: &mut VersionEdit) -> Result<Added> {
        let mut added = Added::default();
        let (first, keys) = &frozen.series;
        if !keys.is_empty() {
            let number = self.file_number();
            let path = segment_path(&self.folder, number);
            write_segment(&self.disk, &path, *first, keys)?;
            added.segment = Some(Arc::new(Segment::open(&*self.disk, &path, number)?));
            edit.segments.push(number);
        }
        if frozen.memcache.has_rows() {
            added.files = self.write_rows(&frozen.memcache, frozen.progress.applied)?;
            edit.files.extend(added.files.iter().map(|one| one.entry));
        }
        let kept = self.kept_tombstones(frozen);
        if !kept.is_empty() {
            let number = self.file_number();
            tombstone::write(&*self.disk, &tombstone_path(&self.folder, number), &kept)?;
            edit.tombstones.push(number);
            added.tombstones = kept.into_iter().map(|one| (number, Arc::new(one))).collect();
        }
        Ok(added)
    }

    /// Writes the rows of a memcache: one file, or one for each of its partitions, each by a thread.
    fn write_rows(&self, memcache: &Memcache, seen: u64) -> Result<Vec<VersionFile>> {
        let bounds = bounds(memcache, self.partitions);
        let parts = bounds.iter().zip(bounds.iter().skip(1)).map(|(from, to)| {
            let entry = FileEntry { number: self.file_number(), seen, level: 0 };
            (entry, *from..*to)
        });
        let mut parts: Vec<_> = parts.collect();
        let last = parts.pop();
        std::thread::scope(|scope| {
            let write = |(entry, series)| {
                let work = move || self.write_partition(memcache, entry, series);
                std::thread::Builder::new().name("flush".to_owned()).spawn_scoped(scope, work)
            };
            let begun = parts.into_iter().map(write).collect::<std::io::Result<Vec<_>>>();
            let begun = begun.map_err(|source| Error::Io {
                context: "start a thread that flushes".to_owned(),
                source,
            })?;
            let last = last.map(|(entry, series)| self.write_partition(memcache, entry, series));
            let mut files = Vec::with_capacity(begun.len() + 1);
            for thread in begun {
                let written = thread.join();
                files.extend(written.map_err(|_| Error::Stopped("a flush".to_owned()))??);
            }
            files.extend(last.transpose()?.flatten());
            Ok(files)
        })
    }

    /// Writes the rows of some series; `None` where deletes have left none.
    fn write_partition(
        &self,
        memcache: &Memcache,
        entry: FileEntry,
        series: Range<u64>,
    ) -> Result<Option<VersionFile>> {
        let path = file_path(&self.folder, entry.number);
        let mut writer =
            TsmWriter::create(Arc::clone(&self.disk), &path, Effort::Light, &self.schemas)?;
        for (table, rows) in memcache.tables() {
            for run in merged(rows, &series) {
                writer.write_rows(table, run)?;
            }
        }
        if writer.finish()? {
            let file = Arc::new(TsmFile::open(&*self.disk, &path)?);
            self.totals.flushed(file.bytes());
            return Ok(Some(VersionFile { entry, file }));
        }
        self.disk.remove(&path).context("remove", &path)?;
        Ok(None)
    }

    /// Returns the tombstones that mask rows of files, united by table.
    fn kept_tombstones(&self, frozen: &Frozen) -> Vec<Tombstone> {
        let touches_file = |tombstone: &Tombstone| {
            frozen.version.files.iter().any(|one| one.file.touched_by(tombstone))
        };
        let tables = frozen.memcache.tables();
        let all: Vec<Arc<Tombstone>> = tables
            .flat_map(|(_, rows)| &rows.tombstones)
            .map(|(_, one)| Arc::clone(one))
            .filter(|one| touches_file(one))
            .collect();
        tombstone::unite(&all, frozen.progress.applied)
    }
}

/// Returns the series that partitions begin with, and one beyond all: of about as many rows each.
fn bounds(memcache: &Memcache, partitions: usize) -> Vec<u64> {
    let mut bounds = vec![0];
    if partitions > 1 {
        let runs = memcache.tables().flat_map(|(_, rows)| &rows.runs);
        let some = runs.flat_map(|(_, run)| {
            run.series.iter().step_by(run.rows() / SAMPLES_OF_RUN + 1).copied()
        });
        let mut some: Vec<u32> = some.collect();
        some.sort_unstable();
        let starts = (1..partitions).map(|number| some[number * some.len() / partitions]);
        bounds.extend(starts.map(u64::from));
        bounds.dedup();
    }
    bounds.push(u64::from(u32::MAX) + 1);
    bounds
}

/// Merges the rows of some series of a table that were not deleted meanwhile, in as many parts as text
/// needs.
fn merged(rows: &TableRows, series: &Range<u64>) -> Vec<Run> {
    let mut left: Vec<Arc<Run>> = Vec::with_capacity(rows.runs.len());
    for (order, run) in &rows.runs {
        let masks = rows.masks(*order);
        let run = of_series(run, series);
        if run.rows() == 0 {
            continue;
        }
        left.push(match survivors(&run, &masks) {
            Some(survivors) => Arc::new(survivors),
            None => run,
        });
    }
    if left.is_empty() {
        return Vec::new();
    }
    let mut runs = Vec::new();
    let left: Vec<&Run> = left.iter().map(AsRef::as_ref).collect();
    merge_in_parts(&left, &mut runs);
    runs
}

/// Returns the rows of some series.
fn of_series(run: &Arc<Run>, series: &Range<u64>) -> Arc<Run> {
    let before = |bound: u64| run.series.partition_point(|one| u64::from(*one) < bound);
    let (start, end) = (before(series.start), before(series.end));
    if end - start == run.rows() { Arc::clone(run) } else { Arc::new(run.slice(start, end)) }
}

fn merge_in_parts(runs: &[&Run], out: &mut Vec<Run>) {
    let text: usize = runs.iter().map(|run| run.text_bytes(0, run.rows())).sum();
    let longest = runs.iter().max_by_key(|run| run.rows());
    let middle = longest.filter(|run| run.rows() > 1).map(|run| run.key(run.rows() / 2));
    match middle.filter(|_| text > MERGE_TEXT_BYTES_MAX) {
        None => out.push(merge(runs, &Columns::All)),
        Some(middle) => {
            let halves = runs.iter().map(|run| {
                let at = (0..run.rows()).position(|row| run.key(row) >= middle);
                let at = at.unwrap_or(run.rows());
                (run.slice(0, at), run.slice(at, run.rows()))
            });
            let (below, above): (Vec<Run>, Vec<Run>) = halves.unzip();
            merge_in_parts(&below.iter().collect::<Vec<_>>(), out);
            merge_in_parts(&above.iter().collect::<Vec<_>>(), out);
        }
    }
}
