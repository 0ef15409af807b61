//! The immutable set of files and tombstones of a vnode, and the paths of its files.
//! Invariant: files stand in the order of their rows' arrival; where two hold the same row, the later
//! file's is the newer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Context, Result};
use crate::run::Run;
use crate::summary::FileEntry;
use crate::tombstone::{Masks, Tombstone};
use crate::tsm::TsmFile;

/// A file of a version.
#[derive(Clone, Debug)]
pub(crate) struct VersionFile {
    pub(crate) entry: FileEntry,
    pub(crate) file: Arc<TsmFile>,
}

/// The files and tombstones that are valid together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Version {
    /// Oldest rows first.
    pub(crate) files: Vec<VersionFile>,
    /// The file each tombstone is kept in, and the tombstone.
    pub(crate) tombstones: Vec<(u64, Arc<Tombstone>)>,
}

/// What a reader of one table pins.
pub(crate) struct SuperVersion {
    pub(crate) version: Arc<Version>,
    /// Runs in memory, oldest first, each with the order of its arrival.
    pub(crate) runs: Vec<(u64, Arc<Run>)>,
    /// Tombstones in memory, each with the order of its arrival.
    pub(crate) tombstones: Vec<(u64, Arc<Tombstone>)>,
}

impl Version {
    /// Returns the tombstones of a file that are newer than what was applied to its rows.
    pub(crate) fn masks(&self, file: &FileEntry) -> impl Iterator<Item = &Arc<Tombstone>> {
        let seen = file.seen;
        self.tombstones.iter().map(|(_, one)| one).filter(move |one| one.index > seen)
    }
}

impl SuperVersion {
    /// Returns the tombstones that mask rows of a file of the version.
    pub(crate) fn file_masks(&self, file: &FileEntry, table: model::TableId) -> Masks {
        let kept = self.version.masks(file).filter(|one| one.table == table);
        kept.chain(self.tombstones.iter().map(|(_, one)| one)).map(Arc::clone).collect()
    }

    /// Returns the tombstones that mask rows of a run in memory.
    pub(crate) fn run_masks(&self, order: u64) -> Masks {
        let newer = self.tombstones.iter().filter(|(arrived, _)| *arrived > order);
        newer.map(|(_, one)| Arc::clone(one)).collect()
    }
}

/// Returns the path of a TSM file.
pub(crate) fn file_path(folder: &Path, number: u64) -> PathBuf {
    folder.join("tsm").join(format!("{number:016x}.tsm"))
}

/// Returns the path of a segment of series.
pub(crate) fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join("index").join(format!("{number:016x}.series"))
}

/// Returns the path of a file of tombstones.
pub(crate) fn tombstone_path(folder: &Path, number: u64) -> PathBuf {
    folder.join("tsm").join(format!("{number:016x}.tombstones"))
}

/// Removes what a flush or compaction left behind that never reached the summary, or no longer is
/// in it. `known` are the names that stay.
pub(crate) fn remove_orphans(disk: &dyn Disk, folder: &Path, known: &[PathBuf]) -> Result<()> {
    let names = match disk.list(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.context("list", folder)?,
    };
    for path in names.into_iter().map(|name| folder.join(name)) {
        if !known.contains(&path) {
            tracing::info!(path = %path.display(), "remove a file of no version");
            disk.remove(&path).context("remove", &path)?;
        }
    }
    Ok(())
}
