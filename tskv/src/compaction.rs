//! Compaction: neighbouring files become one, deletes are worked into them, what the catalog dropped
//! is left out.
//!
//! Files lie in order of arrival, so only neighbours are merged: size-tiered, by how often their rows
//! were merged already. Memory is one unit of rows (`reader`), disk the size of the files merged.
//! Invariant: the new file is durable before the edit that names it; the old ones are removed after.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use model::{ColumnId, TableId, ValueType};

use crate::error::{Context, Result};
use crate::index::{Segment, SeriesFilter, merge, segments_due};
use crate::reader::{RowReader, RowRequest};
use crate::schemas::TableFate;
use crate::summary::{FileEntry, VersionEdit};
use crate::tsm::{Effort, TsmFile, TsmWriter};
use crate::version::{SuperVersion, Version, VersionFile, file_path, segment_path, tombstone_path};
use crate::vnode::Vnode;

/// So many fresh files are merged into one.
const FRESH_FILES: usize = 4;
/// So many merged files of one level are merged into one of the next.
const LEVEL_FILES: usize = 8;
/// Files of this level are merged no more by themselves.
const LEVEL_MAX: u8 = 4;
/// Compactions of more bytes happen only on demand or when a vnode has become cold.
const BYTES_MAX: u64 = 8 << 30;
/// A cold vnode with fewer bytes is always made one run.
const COLD_BYTES: u64 = 256 << 20;
/// A larger one once this share of its bytes is not in its largest run.
const COLD_SHARE: u64 = 10;
/// With so many recorded deletes, readers are relieved of them.
const TOMBSTONES_MAX: usize = 64;

/// What is to be compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactionWish {
    /// What the levels ask for, if anything.
    Due,
    /// Everything to one sorted run, where that costs little for what is new: for a vnode that nobody
    /// writes to any more.
    Cold,
    /// Everything, to one sorted run.
    Whole,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionReport {
    /// Files merged.
    pub files: usize,
    /// Their bytes.
    pub bytes_read: u64,
    /// Bytes of the file they became; none where no row was left.
    pub bytes_written: u64,
}

/// What was written to files since the vnode was opened.
#[derive(Debug, Default)]
pub struct CompactionTotals {
    flushed_bytes: AtomicU64,
    compacted_bytes: AtomicU64,
    compactions: AtomicU64,
    running: AtomicBool,
}

impl CompactionTotals {
    pub(crate) fn flushed(&self, bytes: u64) {
        self.flushed_bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Returns bytes written by flushes, bytes written by compactions, and the number of these.
    pub fn get(&self) -> (u64, u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        (load(&self.flushed_bytes), load(&self.compacted_bytes), load(&self.compactions))
    }

    /// Returns whether a compaction is under way.
    pub fn running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }
}

impl Vnode {
    /// Returns what was written to files since the vnode was opened.
    pub fn compaction_totals(&self) -> &CompactionTotals {
        &self.totals
    }

    /// Returns whether a wish would find work.
    pub fn compaction_is_due(&self, wish: CompactionWish) -> bool {
        let version = Arc::clone(&self.state.lock().version);
        self.pick(&version, wish).is_some() || self.pick_segments(wish).is_some()
    }

    /// Compacts what is wished for; `None` where there is nothing to do, where another compaction is
    /// under way, or where `stop` was set meanwhile. Blocks on the disk.
    ///
    /// # Errors
    /// A damaged file, what the disk says: the version is then as it was.
    pub fn compact(
        &self,
        wish: CompactionWish,
        stop: &AtomicBool,
    ) -> Result<Option<CompactionReport>> {
        let Some(_only) = self.compacting.try_lock() else { return Ok(None) };
        let version = Arc::clone(&self.state.lock().version);
        let (files, segments) = (self.pick(&version, wish), self.pick_segments(wish));
        if files.is_none() && segments.is_none() {
            return Ok(None);
        }
        self.totals.running.store(true, Ordering::Release);
        let merged = match segments {
            Some(segments) => self.merge_segments(&segments, stop),
            None => Ok(()),
        };
        let report = merged.and_then(|()| match files {
            Some(range) => self.merge_files(&version, range, stop),
            None => Ok(Some(CompactionReport::default())),
        });
        self.totals.running.store(false, Ordering::Release);
        self.damage.note(report)
    }

    /// Returns the segments of the index that are to become one.
    fn pick_segments(&self, wish: CompactionWish) -> Option<Vec<Arc<Segment>>> {
        let segments = self.series.segments();
        let sizes: Vec<usize> = segments.iter().map(|one| one.ids().len()).collect();
        let all: usize = sizes.iter().sum();
        let largest = sizes.iter().max().copied().unwrap_or(0);
        let little_is_new = (all - largest) * (COLD_SHARE as usize) < all;
        let due = match wish {
            CompactionWish::Due => segments_due(&sizes)?,
            CompactionWish::Cold if little_is_new => segments_due(&sizes)?,
            CompactionWish::Cold | CompactionWish::Whole => 0..segments.len(),
        };
        (due.len() > 1).then(|| segments[due].to_vec())
    }

    /// Makes neighbouring segments of the index one.
    fn merge_segments(&self, old: &[Arc<Segment>], stop: &AtomicBool) -> Result<()> {
        let number = self.file_number();
        let path = segment_path(&self.folder, number);
        let written = merge(&self.disk, &path, old, stop);
        if !matches!(written, Ok(true)) {
            self.discard(&path);
            return written.map(|_| ());
        }
        let segment = Arc::new(Segment::open(&*self.disk, &path, number)?);
        let mut summary = self.summary.lock();
        let removed = old.iter().map(|one| one.number()).collect();
        let segments = vec![number];
        let edit = VersionEdit { removed, segments, ..self.edit_without_progress(summary.whole()) };
        summary.append(edit)?;
        self.series.merged(old, segment);
        drop(summary);
        self.remove_merged(old.iter().map(|one| one.path().to_path_buf()));
        Ok(())
    }

    /// Begins an edit that covers no more of the log than all before it.
    fn edit_without_progress(&self, whole: &VersionEdit) -> VersionEdit {
        VersionEdit {
            next_file: self.next_file.load(Ordering::Acquire),
            applied: whole.applied,
            raft_state: whole.raft_state.clone(),
            sessions: whole.sessions.clone(),
            until: whole.until,
            ..VersionEdit::default()
        }
    }

    /// Removes half a file, which is of no use; should this fail too, the next start removes it.
    fn discard(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path) {
            tracing::debug!(%error, path = %path.display(), "left behind");
        }
    }

    /// Removes files that no version has any more. Those who read them read on: the name goes, the file
    /// stays until they close it.
    fn remove_merged(&self, paths: impl Iterator<Item = PathBuf>) {
        for path in paths {
            if let Err(error) = self.disk.remove(&path) {
                tracing::warn!(%error, path = %path.display(), "a merged file is left behind");
            }
        }
    }

    fn pick(&self, version: &Version, wish: CompactionWish) -> Option<Range<usize>> {
        let all = 0..version.files.len();
        let entries: Vec<(u8, u64)> =
            version.files.iter().map(|one| (one.entry.level, one.file.bytes())).collect();
        match wish {
            CompactionWish::Cold => {
                let bytes: u64 = entries.iter().map(|(_, bytes)| bytes).sum();
                let largest = entries.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
                let worth = bytes <= COLD_BYTES || (bytes - largest) * COLD_SHARE >= bytes;
                if worth { self.pick(version, CompactionWish::Whole) } else { None }
            }
            CompactionWish::Whole => {
                let is_one_run = matches!(entries.as_slice(), [] | [(LEVEL_MAX.., _)]);
                let clean = version.tombstones.is_empty() && !self.holds_dropped(version);
                (!all.is_empty() && (!is_one_run || !clean)).then_some(all)
            }
            CompactionWish::Due => {
                let touched = |one: &VersionFile| {
                    version.masks(&one.entry).any(|tombstone| one.file.touched_by(tombstone))
                };
                let deletes = || {
                    let first = version.files.iter().position(touched)?;
                    let last = version.files.iter().rposition(touched)?;
                    (version.tombstones.len() >= TOMBSTONES_MAX).then_some(first..last + 1)
                };
                let dropped = || self.holds_mostly_dropped(version).then_some(all);
                level_due(&entries, self.partitions).or_else(deletes).or_else(dropped)
            }
        }
    }

    fn holds_dropped(&self, version: &Version) -> bool {
        self.dropped_rows(version).0 > 0
    }

    fn holds_mostly_dropped(&self, version: &Version) -> bool {
        let (dropped, rows) = self.dropped_rows(version);
        dropped > 0 && dropped >= rows / 3
    }

    /// Returns the rows of dropped tables, and all rows.
    fn dropped_rows(&self, version: &Version) -> (u64, u64) {
        let (mut dropped, mut rows) = (0, 0);
        for one in &version.files {
            for (table, count) in one.file.rows_by_table() {
                rows += count;
                if matches!(self.schemas.table(table), TableFate::Dropped) {
                    dropped += count;
                }
            }
        }
        (dropped, rows)
    }

    fn merge_files(
        &self,
        version: &Version,
        range: Range<usize>,
        stop: &AtomicBool,
    ) -> Result<Option<CompactionReport>> {
        let inputs = &version.files[range.clone()];
        let level = inputs.iter().map(|one| one.entry.level).max().unwrap_or(0);
        let whole = range.len() == version.files.len();
        let seen = inputs.iter().map(|one| one.entry.seen);
        let seen = seen.chain(version.tombstones.iter().map(|(_, one)| one.index)).max();
        let entry = FileEntry {
            number: self.file_number(),
            seen: seen.unwrap_or(0),
            level: if whole { LEVEL_MAX } else { (level + 1).min(LEVEL_MAX) },
        };
        let pinned = Version { files: inputs.to_vec(), tombstones: version.tombstones.clone() };
        let path = file_path(&self.folder, entry.number);
        let written = self.write_merged(pinned, entry, stop);
        let written = match written {
            Ok(Some(file)) => file,
            other => {
                self.discard(&path);
                return other.map(|_| None);
            }
        };
        let report = CompactionReport {
            files: inputs.len(),
            bytes_read: inputs.iter().map(|one| one.file.bytes()).sum(),
            bytes_written: written.as_ref().map_or(0, |one| one.file.bytes()),
        };
        self.install(inputs, written)?;
        self.totals.compacted_bytes.fetch_add(report.bytes_written, Ordering::AcqRel);
        self.totals.compactions.fetch_add(1, Ordering::AcqRel);
        Ok(Some(report))
    }

    /// Writes the merged file. Returns `None` where it was stopped, `Some(None)` where no row is left.
    fn write_merged(
        &self,
        pinned: Version,
        entry: FileEntry,
        stop: &AtomicBool,
    ) -> Result<Option<Option<VersionFile>>> {
        let path = file_path(&self.folder, entry.number);
        let mut writer =
            TsmWriter::create(Arc::clone(&self.disk), &path, Effort::Dense, &self.schemas)?;
        let tables = tables(&pinned);
        let pinned =
            SuperVersion { version: Arc::new(pinned), runs: Vec::new(), tombstones: Vec::new() };
        for table in tables {
            let fate = self.schemas.table(table);
            if matches!(fate, TableFate::Dropped) {
                continue;
            }
            let mut fields = columns(&pinned.version, table);
            fields.retain(|(id, _)| fate.keeps(*id));
            let series = self.series.matching(table, &SeriesFilter::default())?;
            let request = RowRequest::all(table, fields, series.clone());
            let mut reader = RowReader::new(&pinned, request);
            while let Some(mut run) = reader.next_run()? {
                if stop.load(Ordering::Acquire) {
                    return Ok(None);
                }
                run.series = run.series.iter().map(|place| series[*place as usize]).collect();
                writer.write_rows(table, run)?;
            }
        }
        if !writer.finish()? {
            self.disk.remove(&path).context("remove", &path)?;
            return Ok(Some(None));
        }
        let file = Arc::new(TsmFile::open(&*self.disk, &path)?);
        Ok(Some(Some(VersionFile { entry, file })))
    }

    /// Puts the merged file in the place of the old ones, and forgets deletes that mask nothing more.
    fn install(&self, inputs: &[VersionFile], merged: Option<VersionFile>) -> Result<()> {
        let mut summary = self.summary.lock();
        let gone =
            |one: &VersionFile| inputs.iter().any(|input| input.entry.number == one.entry.number);
        let mut version = self.state.lock().version.as_ref().clone();
        let at = version.files.iter().position(gone).unwrap_or(version.files.len());
        version.files.retain(|one| !gone(one));
        version.files.splice(at..at, merged.clone());
        let unneeded = unneeded_tombstones(&version);
        version.tombstones.retain(|(number, _)| !unneeded.contains(number));
        let mut removed: Vec<u64> = inputs.iter().map(|one| one.entry.number).collect();
        removed.extend(&unneeded);
        let files = merged.iter().map(|one| one.entry).collect();
        let edit = VersionEdit { removed, files, ..self.edit_without_progress(summary.whole()) };
        summary.append(edit)?;
        self.state.lock().version = Arc::new(version);
        drop(summary);
        let files = inputs.iter().map(|one| one.file.path().to_path_buf());
        let tombstones = unneeded.iter().map(|number| tombstone_path(&self.folder, *number));
        self.remove_merged(files.chain(tombstones));
        Ok(())
    }
}

/// Returns the neighbours that levels ask to merge. `files` are (level, bytes), oldest first; a flush writes
/// `partitions` of them.
fn level_due(files: &[(u8, u64)], partitions: usize) -> Option<Range<usize>> {
    let mut due: Option<(u8, Range<usize>)> = None;
    let mut start = 0;
    for stretch in files.chunk_by(|a, b| a.0 == b.0) {
        let (level, _) = stretch[0];
        let wanted = if level == 0 { FRESH_FILES * partitions } else { LEVEL_FILES };
        let bytes: u64 = stretch.iter().map(|(_, bytes)| bytes).sum();
        let lower = due.as_ref().is_none_or(|(other, _)| level < *other);
        if level < LEVEL_MAX && stretch.len() >= wanted && bytes <= BYTES_MAX && lower {
            due = Some((level, start..start + stretch.len()));
        }
        start += stretch.len();
    }
    due.map(|(_, range)| range)
}

/// Returns the numbers of tombstone files of which no tombstone masks a row of any file.
fn unneeded_tombstones(version: &Version) -> Vec<u64> {
    let masks_something = |number: u64| {
        let mut of_file = version.tombstones.iter().filter(|(other, _)| *other == number);
        of_file.any(|(_, tombstone)| {
            version
                .files
                .iter()
                .any(|one| tombstone.index > one.entry.seen && one.file.touched_by(tombstone))
        })
    };
    let mut numbers: Vec<u64> = version.tombstones.iter().map(|(number, _)| *number).collect();
    numbers.dedup();
    numbers.retain(|number| !masks_something(*number));
    numbers
}

fn tables(version: &Version) -> Vec<TableId> {
    let files = version.files.iter();
    let mut tables: Vec<TableId> =
        files.flat_map(|one| one.file.rows_by_table()).map(|(table, _)| table).collect();
    tables.sort_unstable();
    tables.dedup();
    tables
}

fn columns(version: &Version, table: TableId) -> Vec<(ColumnId, ValueType)> {
    let mut columns = Vec::new();
    for one in &version.files {
        for group in &one.file.groups()[one.file.groups_of(table)] {
            columns.extend(group.column_types());
        }
        columns.sort_unstable_by_key(|(id, _)| *id);
        columns.dedup_by_key(|(id, _)| *id);
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_files_are_merged_by_four_and_levels_by_eight() {
        assert_eq!(level_due(&[(0, 1); 3], 1), None);
        assert_eq!(level_due(&[(0, 1); 7], 2), None);
        assert_eq!(level_due(&[(0, 1); 8], 2), Some(0..8));
        assert_eq!(level_due(&[(2, 9), (0, 1), (0, 1), (0, 1), (0, 1)], 1), Some(1..5));
        assert_eq!(level_due(&[(1, 1); 8], 1), Some(0..8));
        let both: Vec<_> = [[(1, 1); 8], [(0, 1); 8]].concat();
        assert_eq!(level_due(&both, 1), Some(8..16), "the lower level goes first");
        assert_eq!(level_due(&[(0, BYTES_MAX); 4], 1), None);
        assert_eq!(level_due(&[(LEVEL_MAX, 1); 9], 1), None);
    }

    #[test]
    fn a_row_is_written_less_than_five_times_in_a_thousand_flushes() {
        let mut files: Vec<(u8, u64)> = Vec::new();
        let mut written = 0;
        for _ in 0..1_024 {
            files.push((0, 1));
            written += 1;
            while let Some(range) = level_due(&files, 1) {
                let (level, bytes) = (files[range.start].0, range.len() as u64);
                let bytes = files[range.clone()].iter().map(|(_, b)| b).sum::<u64>().max(bytes);
                written += bytes;
                files.splice(range, [(level + 1, bytes)]);
            }
        }
        assert!(written < 5 * 1_024, "{written} written of 1024");
        assert!(files.len() < 24, "{} files", files.len());
    }
}
