//! Makes a stopped vnode with damaged files one that opens. What is taken away is kept beside it.
//!
//! A damaged TSM file is lost with its rows: where there are other replicas, dropping the vnode and letting
//! it be made anew is better. A damaged segment of series is written anew from its keys, if these can be read.
//! A damaged file of tombstones or a damaged summary is left: without the first deleted rows would be back,
//! without the second nobody knows which files count.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, parent};
use crate::error::{Context, Result};
use crate::index::{salvage_keys, write_segment};
use crate::inspect::{self, Damage};
use crate::summary::{self, Summary, VersionEdit};
use crate::version::{file_path, segment_path};

/// Where damaged files are kept, in the vnode's folder.
const QUARANTINE: &str = "quarantine";

/// What was done about a damaged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// What was wrong.
    pub damage: Damage,
    /// What was done.
    pub action: Action,
}

/// What is done about a damaged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was taken away, and its rows with it.
    Quarantined,
    /// It was written anew.
    Rebuilt,
    /// It was left as it is.
    Left,
}

impl Action {
    /// Returns the word people read.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::Rebuilt => "rebuilt",
            Self::Left => "left",
        }
    }
}

/// Repairs the vnodes below a folder of a stopped node. With `dry` nothing is changed.
///
/// # Errors
/// What the disk says; what was repaired before stays repaired.
pub fn repair(disk: &Arc<dyn Disk>, folder: &Path, dry: bool) -> Result<Vec<Repair>> {
    let mut repairs = Vec::new();
    for vnode in inspect::vnodes(&**disk, folder)? {
        for damage in inspect::damages_of(&**disk, &vnode)? {
            let action = mend(disk, &vnode, &damage.path, dry)?;
            repairs.push(Repair { damage, action });
        }
    }
    Ok(repairs)
}

fn mend(disk: &Arc<dyn Disk>, vnode: &Path, path: &Path, dry: bool) -> Result<Action> {
    if path == vnode.join(summary::NAME) {
        return Ok(Action::Left);
    }
    let whole = inspect::whole(&**disk, vnode)?;
    let file = whole.files.iter().find(|entry| file_path(vnode, entry.number) == path);
    let segment = whole.segments.iter().find(|number| segment_path(vnode, **number) == path);
    let (number, fresh) = match (file, segment) {
        (Some(entry), _) => (entry.number, None),
        (None, Some(number)) => match salvage_keys(&**disk, path) {
            Ok(salvaged) => (*number, Some(salvaged)),
            Err(_) => return Ok(Action::Left),
        },
        (None, None) => return Ok(Action::Left),
    };
    let action = if fresh.is_some() { Action::Rebuilt } else { Action::Quarantined };
    if dry {
        return Ok(action);
    }
    let mut edit = VersionEdit {
        removed: vec![number],
        applied: whole.applied,
        raft_state: whole.raft_state.clone(),
        sessions: whole.sessions.clone(),
        until: whole.until,
        next_file: whole.next_file,
        ..VersionEdit::default()
    };
    if let Some((first, keys)) = fresh {
        let number = whole.next_file;
        write_segment(disk, &segment_path(vnode, number), first, &keys)?;
        edit.segments.push(number);
        edit.next_file = number + 1;
    }
    Summary::open(Arc::clone(disk), &vnode.join(summary::NAME))?.append(edit)?;
    quarantine(&**disk, vnode, path)?;
    Ok(action)
}

/// Moves a file away, under a name that says where it was.
fn quarantine(disk: &dyn Disk, vnode: &Path, path: &Path) -> Result<()> {
    let folder = vnode.join(QUARANTINE);
    disk.make_folders(&folder).context("make", &folder)?;
    let name = path.file_name().map(PathBuf::from).unwrap_or_default();
    let kept = folder.join(name);
    match disk.rename(path, &kept) {
        // A file that is missing is damaged too.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.context("move", path)?,
    }
    disk.sync_folder(&folder).context("sync", &folder)?;
    disk.sync_folder(parent(path)).context("sync", parent(path))
}
