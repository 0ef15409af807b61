//! A file system in memory that forgets at a crash what was not synced.
//!
//! It keeps apart what is durable and what is pending, names as well as content. A crash applies any
//! subset of the pending sectors (512 bytes) and names, chosen by a seed. Every change is journaled,
//! so that a test can rebuild the state after each single operation.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile};

const SECTOR: usize = 512;

/// What a simulated disk does at the operation it was told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device fails; a failed sync drops what was pending.
    Io,
    /// The device is full. Only writes, creations and allocations fail so.
    NoSpace,
    /// The power goes: this and every later operation fails and leaves nothing.
    PowerCut,
}

/// An entry of the journal: a change of the disk, or a mark that the test set between two.
#[derive(Clone, Debug)]
pub enum SimEvent {
    /// A new, empty file under a name.
    Create(PathBuf, u64),
    /// Bytes written to a file.
    Write(u64, u64, Arc<[u8]>),
    /// A new length.
    SetLen(u64, u64),
    /// A file's content was made durable.
    Sync(u64),
    /// A name moved.
    Rename(PathBuf, PathBuf),
    /// A name removed.
    Remove(PathBuf),
    /// The names in a folder were made durable.
    SyncFolder(PathBuf),
    /// Set by [`SimDisk::mark`].
    Mark(u64),
}

#[derive(Clone, Debug, Default)]
struct SimInode {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write(u64, Arc<[u8]>),
    SetLen(u64),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// The whole state of a simulated disk at one moment.
#[derive(Clone, Debug, Default)]
pub struct SimState {
    inodes: BTreeMap<u64, SimInode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
}

/// A simulated disk. Clones share the same state. Folders need no making: a name implies them.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: SimState,
    journal: Vec<SimEvent>,
    next_inode: u64,
    operations: u64,
    fail_at: Option<(u64, Fault)>,
    is_full: bool,
}

impl Shared {
    fn lost_power(&self) -> bool {
        matches!(self.fail_at, Some((at, Fault::PowerCut)) if at <= self.operations)
    }

    /// Returns whether an event needs space that its file does not have yet.
    fn grows(&self, event: &SimEvent) -> bool {
        let size = |inode| self.state.inodes.get(inode).map_or(0, |inode| inode.now.len() as u64);
        match event {
            SimEvent::Create(..) => true,
            SimEvent::Write(inode, offset, bytes) => size(inode) < offset + bytes.len() as u64,
            SimEvent::SetLen(inode, len) => size(inode) < *len,
            _ => false,
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: u64,
}

impl SimState {
    /// Applies one event of a journal.
    pub fn apply(&mut self, event: &SimEvent) {
        match event {
            SimEvent::Create(path, inode) => {
                self.inodes.insert(*inode, SimInode::default());
                self.names.insert(path.clone(), *inode);
                self.pending_names.push(NameChange::Link(path.clone(), *inode));
            }
            SimEvent::Write(inode, offset, bytes) => {
                self.pend(*inode, Pending::Write(*offset, Arc::clone(bytes)));
            }
            SimEvent::SetLen(inode, len) => self.pend(*inode, Pending::SetLen(*len)),
            SimEvent::Sync(inode) => {
                if let Some(inode) = self.inodes.get_mut(inode) {
                    inode.durable.clone_from(&inode.now);
                    inode.pending.clear();
                }
            }
            SimEvent::Rename(from, to) => {
                rename(&mut self.names, from, to);
                self.pending_names.push(NameChange::Rename(from.clone(), to.clone()));
            }
            SimEvent::Remove(path) => {
                self.names.remove(path);
                self.pending_names.push(NameChange::Remove(path.clone()));
            }
            SimEvent::SyncFolder(folder) => self.sync_folder(folder),
            SimEvent::Mark(_) => {}
        }
    }

    fn pend(&mut self, inode: u64, pending: Pending) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            change(&mut inode.now, &pending, |_| true);
            inode.pending.push(pending);
        }
    }

    fn sync_folder(&mut self, folder: &Path) {
        let inside = |path: &Path| path.parent() == Some(folder);
        let (synced, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending_names).into_iter().partition(|change| match change {
                NameChange::Link(path, _) | NameChange::Remove(path) => inside(path),
                NameChange::Rename(from, to) => inside(from) || inside(to),
            });
        self.pending_names = kept;
        for change in &synced {
            change_name(&mut self.durable_names, change);
        }
    }

    /// Returns what a machine finds that lost power now; `seed` chooses what survived of the pending.
    pub fn crash(&self, seed: u64) -> SimDisk {
        let mut random = Random(seed);
        let mut names = self.durable_names.clone();
        for change in &self.pending_names {
            if random.coin() {
                change_name(&mut names, change);
            }
        }
        let mut inodes = BTreeMap::new();
        for (number, inode) in &self.inodes {
            let mut content = inode.durable.clone();
            for pending in &inode.pending {
                change(&mut content, pending, |_| random.coin());
            }
            inodes.insert(
                *number,
                SimInode { now: content.clone(), durable: content, pending: Vec::new() },
            );
        }
        let next_inode = inodes.keys().last().map_or(0, |last| last + 1);
        let state =
            SimState { inodes, names: names.clone(), durable_names: names, pending_names: vec![] };
        let shared = Shared { state, next_inode, ..Shared::default() };
        SimDisk { shared: Arc::new(Mutex::new(shared)) }
    }
}

fn rename(names: &mut BTreeMap<PathBuf, u64>, from: &Path, to: &Path) {
    if let Some(inode) = names.remove(from) {
        names.insert(to.to_path_buf(), inode);
    }
}

fn change_name(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Rename(from, to) => rename(names, from, to),
        NameChange::Remove(path) => {
            names.remove(path);
        }
    }
}

/// Applies a pending change, or only those of its sectors that `survives` keeps.
fn change(content: &mut Vec<u8>, pending: &Pending, mut survives: impl FnMut(usize) -> bool) {
    match pending {
        Pending::SetLen(len) => {
            if survives(0) {
                content.resize(*len as usize, 0);
            }
        }
        Pending::Write(offset, bytes) => {
            let mut at = *offset as usize;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (sector, tail) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
                if survives(at / SECTOR) {
                    if content.len() < at + sector.len() {
                        content.resize(at + sector.len(), 0);
                    }
                    content[at..at + sector.len()].copy_from_slice(sector);
                }
                at += sector.len();
                rest = tail;
            }
        }
    }
}

/// A small seeded generator: splitmix64.
struct Random(u64);

impl Random {
    fn coin(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}

impl SimDisk {
    /// Writes a mark of the test into the journal.
    pub fn mark(&self, mark: u64) {
        self.shared.lock().journal.push(SimEvent::Mark(mark));
    }

    /// Returns all that happened so far, in order.
    pub fn journal(&self) -> Vec<SimEvent> {
        self.shared.lock().journal.clone()
    }

    /// Returns the state of this moment.
    pub fn state(&self) -> SimState {
        self.shared.lock().state.clone()
    }

    /// Returns how many changing operations were asked for so far.
    pub fn operations(&self) -> u64 {
        self.shared.lock().operations
    }

    /// Makes the `n`-th changing operation from the start fail, once.
    pub fn fail_operation(&self, n: u64, fault: Fault) {
        self.shared.lock().fail_at = Some((n, fault));
    }

    /// Fills the device up, or gives space back. A full one still takes what its files have space for.
    pub fn fill(&self, is_full: bool) {
        self.shared.lock().is_full = is_full;
    }

    /// Returns whether a [`Fault::PowerCut`] has come.
    pub fn lost_power(&self) -> bool {
        self.shared.lock().lost_power()
    }

    /// Changes one byte of a file, as bit rot does. Returns false where the file has no such byte.
    pub fn flip(&self, path: &Path, offset: usize, mask: u8) -> bool {
        let mut shared = self.shared.lock();
        let state = &mut shared.state;
        let inode = state.names.get(path).and_then(|inode| state.inodes.get_mut(inode));
        let Some(byte) = inode.and_then(|inode| inode.now.get_mut(offset)) else { return false };
        *byte ^= mask;
        true
    }

    fn perform(&self, event: SimEvent) -> Result<()> {
        let mut shared = self.shared.lock();
        shared.operations += 1;
        if shared.lost_power() {
            return Err(Error::other("simulated power cut"));
        }
        if let Some((at, fault)) = shared.fail_at
            && at == shared.operations
        {
            let takes_space =
                matches!(event, SimEvent::Create(..) | SimEvent::Write(..) | SimEvent::SetLen(..));
            if fault == Fault::Io {
                if let SimEvent::Sync(inode) = event
                    && let Some(inode) = shared.state.inodes.get_mut(&inode)
                {
                    inode.pending.clear();
                }
                return Err(Error::other("simulated device error"));
            }
            if takes_space {
                return Err(full());
            }
        }
        if shared.is_full && shared.grows(&event) {
            return Err(full());
        }
        shared.state.apply(&event);
        shared.journal.push(event);
        Ok(())
    }
}

fn full() -> Error {
    Error::new(ErrorKind::StorageFull, "simulated full device")
}

fn not_found(path: &Path) -> Error {
    Error::new(ErrorKind::NotFound, format!("{} is not there", path.display()))
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        let inode = {
            let mut shared = self.shared.lock();
            if shared.state.names.contains_key(path) {
                return Err(Error::new(ErrorKind::AlreadyExists, "file exists"));
            }
            shared.next_inode += 1;
            shared.next_inode
        };
        self.perform(SimEvent::Create(path.to_path_buf(), inode))?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>> {
        let inode = self.shared.lock().state.names.get(path).copied();
        let inode = inode.ok_or_else(|| not_found(path))?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>> {
        let shared = self.shared.lock();
        let mut names: Vec<String> = Vec::new();
        for path in shared.state.names.keys() {
            let first = path.strip_prefix(folder).ok().and_then(|rest| rest.components().next());
            let Some(name) = first.map(|name| name.as_os_str().to_string_lossy()) else { continue };
            if names.last().is_none_or(|last| *last != name) {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    fn make_folders(&self, _folder: &Path) -> Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        if !self.shared.lock().state.names.contains_key(from) {
            return Err(not_found(from));
        }
        self.perform(SimEvent::Rename(from.to_path_buf(), to.to_path_buf()))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        if !self.shared.lock().state.names.contains_key(path) {
            return Err(not_found(path));
        }
        self.perform(SimEvent::Remove(path.to_path_buf()))
    }

    fn remove_folder(&self, folder: &Path) -> Result<()> {
        let inside: Vec<PathBuf> = {
            let shared = self.shared.lock();
            shared.state.names.keys().filter(|path| path.starts_with(folder)).cloned().collect()
        };
        inside.iter().try_for_each(|path| self.remove(path))
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        self.perform(SimEvent::SyncFolder(folder.to_path_buf()))
    }

    fn blocks(&self) -> bool {
        false
    }
}

impl SimFile {
    fn with<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        let shared = self.disk.shared.lock();
        read(shared.state.inodes.get(&self.inode).map_or(&[][..], |inode| &inode.now))
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.with(|now| {
            let start = offset as usize;
            let bytes = start.checked_add(len).and_then(|end| now.get(start..end));
            bytes.map(<[u8]>::to_vec).ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.disk.perform(SimEvent::Write(self.inode, offset, bytes.into()))
    }

    fn size(&self) -> Result<u64> {
        Ok(self.with(|now| now.len() as u64))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.disk.perform(SimEvent::SetLen(self.inode, len))
    }

    fn allocate(&self, len: u64) -> Result<()> {
        if self.size()? < len { self.set_len(len) } else { Ok(()) }
    }

    fn sync(&self) -> Result<()> {
        self.disk.perform(SimEvent::Sync(self.inode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_every_crash_and_what_was_not_may_not() {
        let disk = SimDisk::default();
        let path = Path::new("d/f");
        let file = disk.create(path).unwrap();
        file.write_at(0, &[1; 600]).unwrap();
        file.sync().unwrap();
        disk.sync_folder(Path::new("d")).unwrap();
        file.write_at(600, &[2; 1_000]).unwrap();
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let after = disk.state().crash(seed);
            let content = super::super::read_file(&after, path).unwrap();
            assert_eq!(content[..600], [1; 600]);
            lengths.insert(content.len());
        }
        assert!(lengths.len() > 1, "some crashes keep the tail, some lose it");
    }

    #[test]
    fn a_name_without_a_synced_folder_may_be_lost() {
        let disk = SimDisk::default();
        disk.create(Path::new("d/f")).unwrap().sync().unwrap();
        let kept = (0..64).filter(|seed| disk.state().crash(*seed).open(Path::new("d/f")).is_ok());
        let kept = kept.count();
        assert!(0 < kept && kept < 64, "{kept} of 64");
    }
}
