//! A disk that keeps few files open: one that was opened for reading is closed once others were opened
//! after it, and opened again when it is read.
//!
//! Invariant: who opened a file reads that file, whatever happens to its name: a file is open, and stays
//! so, before its name goes.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{Disk, DiskFile};

/// A disk of which at most so many files that were opened are open at once. Files that were created stay
/// open, and so do those whose names are gone.
pub(crate) struct FewOpen {
    disk: Arc<dyn Disk>,
    pool: Arc<Pool>,
}

struct Pool {
    max: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// A file may be opened more than once.
    by_path: HashMap<PathBuf, Vec<Weak<Slot>>>,
    /// Those that are open, the one opened longest ago first.
    open: VecDeque<Weak<Slot>>,
}

/// A file that may be closed.
struct Slot {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    pool: Arc<Pool>,
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    file: Option<Arc<dyn DiskFile>>,
    /// Its name is gone: it could not be opened again.
    is_held: bool,
}

impl FewOpen {
    pub(crate) fn new(disk: Arc<dyn Disk>, max: usize) -> Self {
        Self { disk, pool: Arc::new(Pool { max: max.max(1), known: Mutex::default() }) }
    }

    /// Keeps files open whose names go: one, or all below a folder.
    fn hold(&self, path: &Path) -> Result<()> {
        let held: Vec<Arc<Slot>> = {
            let mut known = self.pool.known.lock();
            known.by_path.retain(|_, slots| slots.iter().any(|slot| slot.strong_count() > 0));
            let below = known.by_path.iter().filter(|(one, _)| one.starts_with(path));
            below.flat_map(|(_, slots)| slots).filter_map(Weak::upgrade).collect()
        };
        held.iter().try_for_each(|slot| slot.hold())
    }
}

impl Pool {
    /// Notes that a file was opened, and closes what is too much.
    fn opened(&self, slot: &Arc<Slot>) {
        let closed: Vec<Arc<Slot>> = {
            let mut known = self.known.lock();
            known.open.push_back(Arc::downgrade(slot));
            let over = known.open.len().saturating_sub(self.max);
            known.open.drain(..over).filter_map(|one| one.upgrade()).collect()
        };
        for slot in closed {
            let mut state = slot.state.lock();
            if !state.is_held {
                state.file = None;
            }
        }
    }
}

impl Slot {
    fn file(self: &Arc<Self>) -> Result<Arc<dyn DiskFile>> {
        let file = {
            let mut state = self.state.lock();
            if let Some(file) = &state.file {
                return Ok(Arc::clone(file));
            }
            Arc::clone(state.file.insert(self.disk.open(&self.path)?))
        };
        self.pool.opened(self);
        Ok(file)
    }

    fn hold(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.file.is_none() {
            state.file = Some(self.disk.open(&self.path)?);
        }
        state.is_held = true;
        Ok(())
    }
}

/// What is given to who opens a file.
struct Reopened(Arc<Slot>);

impl fmt::Debug for Reopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reopened").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for FewOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FewOpen").field("max", &self.pool.max).finish_non_exhaustive()
    }
}

impl DiskFile for Reopened {
    fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.0.file()?.read_at(offset, len)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.file()?.write_at(offset, bytes)
    }

    fn size(&self) -> Result<u64> {
        self.0.file()?.size()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0.file()?.set_len(len)
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.0.file()?.allocate(len)
    }

    fn sync(&self) -> Result<()> {
        self.0.file()?.sync()
    }
}

impl Disk for FewOpen {
    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        self.disk.create(path)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        let slot = Arc::new(Slot {
            path: path.to_path_buf(),
            disk: Arc::clone(&self.disk),
            pool: Arc::clone(&self.pool),
            state: Mutex::default(),
        });
        slot.file()?;
        let mut known = self.pool.known.lock();
        let slots = known.by_path.entry(path.to_path_buf()).or_default();
        slots.retain(|slot| slot.strong_count() > 0);
        slots.push(Arc::downgrade(&slot));
        drop(known);
        Ok(Arc::new(Reopened(slot)))
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn make_folders(&self, folder: &Path) -> Result<()> {
        self.disk.make_folders(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.hold(from)?;
        self.hold(to)?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.hold(path)?;
        self.disk.remove(path)
    }

    fn remove_folder(&self, folder: &Path) -> Result<()> {
        self.hold(folder)?;
        self.disk.remove_folder(folder)
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        self.disk.sync_folder(folder)
    }

    fn blocks(&self) -> bool {
        self.disk.blocks()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{OsDisk, write_new_file};
    use super::*;

    /// Returns how many files of the process lie in a folder.
    fn open_below(folder: &Path) -> usize {
        let all = std::fs::read_dir("/proc/self/fd").expect("linux");
        let paths = all.filter_map(|one| std::fs::read_link(one.ok()?.path()).ok());
        paths.filter(|path| path.starts_with(folder)).count()
    }

    #[test]
    fn few_files_are_open_and_all_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FewOpen::new(Arc::new(OsDisk), 3);
        let path = |at: u8| folder.path().join(format!("{at}"));
        let files: Vec<_> = (0..10)
            .map(|at| {
                write_new_file(&disk, &path(at), &[at; 4]).unwrap();
                disk.open(&path(at)).unwrap()
            })
            .collect();
        let read = |at: u8| files[usize::from(at)].read_at(1, 2).unwrap();
        for at in (0..10).chain([5, 0, 9, 0]) {
            assert_eq!(read(at), [at; 2]);
            assert!(open_below(folder.path()) <= 3);
        }
        // One whose name is gone, or another's, is read on; so is one that was opened again meanwhile.
        drop(disk.open(&path(4)).unwrap());
        disk.remove(&path(4)).unwrap();
        disk.rename(&path(5), &path(6)).unwrap();
        for at in (0..10).chain(0..10) {
            assert_eq!(read(at), [at; 2]);
        }
        drop(files);
        assert_eq!(open_below(folder.path()), 0);
    }
}
