//! The seam to files: everything tskv stores goes through [`Disk`], the system's or a simulated one.
//!
//! Invariant: nothing counts as stored until `sync` of the file and, for a new or renamed name,
//! `sync_dir` of its folder have returned.

mod few_open;
mod os;
mod sim;

use std::fmt::Debug;
use std::io::Result;
use std::path::Path;
use std::sync::Arc;

pub(crate) use few_open::FewOpen;
pub use os::OsDisk;
pub use sim::{Fault, SimDisk, SimEvent, SimState};

/// A file system.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Creates a file that must not be there yet.
    fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>>;
    /// Opens a file that is there, for reading and writing.
    fn open(&self, path: &Path) -> Result<Arc<dyn DiskFile>>;
    /// Returns the names in a folder, sorted.
    fn list(&self, folder: &Path) -> Result<Vec<String>>;
    /// Makes a folder and those above it, durably.
    fn make_folders(&self, folder: &Path) -> Result<()>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file's name.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Removes a folder with all it holds; one that is not there is no error.
    fn remove_folder(&self, folder: &Path) -> Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> Result<()>;
    /// Returns whether operations may take long, so that they belong on a thread of their own.
    fn blocks(&self) -> bool {
        true
    }
}

/// An open file.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads exactly `len` bytes.
    fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>>;
    /// Writes all bytes.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// Returns the length in bytes.
    fn size(&self) -> Result<u64>;
    /// Cuts or extends (with zeros) to a length.
    fn set_len(&self, len: u64) -> Result<()>;
    /// Takes space for `len` bytes from the file system, so that writes inside cannot fail for want
    /// of it; extends with zeros.
    fn allocate(&self, len: u64) -> Result<()>;
    /// Makes content and length durable.
    fn sync(&self) -> Result<()>;
}

/// Writes a new file whole and makes it and its name durable.
///
/// # Errors
/// A file of that name that is there already, and what the disk says.
pub fn write_new_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let file = disk.create(path)?;
    file.write_at(0, bytes)?;
    file.sync()?;
    disk.sync_folder(parent(path))
}

/// Replaces a file so that a crash leaves the old or the new content, never a mixture.
///
/// # Errors
/// What the disk says.
pub fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let fresh = path.with_extension("new");
    match disk.remove(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    write_new_file(disk, &fresh, bytes)?;
    disk.rename(&fresh, path)?;
    disk.sync_folder(parent(path))
}

/// Reads a file whole.
///
/// # Errors
/// What the disk says.
pub fn read_file(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>> {
    let file = disk.open(path)?;
    let len = usize::try_from(file.size()?).map_err(std::io::Error::other)?;
    file.read_at(0, len)
}

/// Returns the folder a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("."))
}
