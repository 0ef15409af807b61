//! What the tools for stopped nodes say and do: every file is shown, damage is found, repair makes a vnode
//! open again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tskv::disk::{Disk, SimDisk, read_file};
use tskv::repair::Action;
use tskv::{WriteId, inspect, repair};

use crate::store::{Rows, TestVnode, TestWrite};

const VNODE: &str = "vnode";

/// A vnode of which all rows are in two files.
fn flushed() -> (SimDisk, Rows) {
    let mut random = StdRng::seed_from_u64(5);
    let disk = SimDisk::default();
    let mut store = TestVnode::open(&disk).unwrap();
    let mut rows = Rows::new();
    for sequence in 1..9 {
        let write = TestWrite::random(&mut random);
        store.write(WriteId { session: 1, sequence }, &write).unwrap();
        write.apply_to(&mut rows);
        if sequence % 4 == 0 {
            store.flush().unwrap();
        }
    }
    (disk, rows)
}

fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn file(disk: &SimDisk, folder: &str, ending: &str) -> PathBuf {
    let folder = Path::new(VNODE).join(folder);
    let names = disk.list(&folder).unwrap();
    folder.join(names.into_iter().find(|name| name.ends_with(ending)).unwrap())
}

#[test]
fn every_file_of_a_vnode_can_be_looked_into() {
    let (disk, _) = flushed();
    let pages = inspect::tsm(&disk, &file(&disk, "tsm", ".tsm")).unwrap();
    assert!(pages.rows.len() > 2);
    assert!(pages.rows.iter().all(|row| row.len() == pages.columns.len()));
    assert!(!inspect::index(&disk, &file(&disk, "index", ".series")).unwrap().rows.is_empty());
    assert!(!inspect::summary(&disk, &Path::new(VNODE).join("summary")).unwrap().rows.is_empty());
    let report = inspect::report(&disk, Path::new(VNODE)).unwrap();
    assert_eq!(report.rows.len(), 1);
    assert_eq!(report.rows[0].last().unwrap(), "0", "nothing is damaged");
    assert_eq!(inspect::verify(&shared(&disk), Path::new(VNODE)).unwrap(), []);
}

#[test]
fn a_damaged_file_is_named_and_taken_away_and_the_rest_opens() {
    let (disk, rows) = flushed();
    let path = file(&disk, "tsm", ".tsm");
    assert!(disk.flip(&path, 40, 1));
    let damages = inspect::verify(&shared(&disk), Path::new(VNODE)).unwrap();
    assert_eq!(damages.len(), 1);
    assert_eq!(damages[0].path, path);
    assert!(damages[0].offset.is_some());
    let dry = repair::repair(&shared(&disk), Path::new(VNODE), true).unwrap();
    assert_eq!(dry[0].action, Action::Quarantined);
    assert_eq!(inspect::verify(&shared(&disk), Path::new(VNODE)).unwrap().len(), 1);
    let done = repair::repair(&shared(&disk), Path::new(VNODE), false).unwrap();
    assert_eq!(done[0].action, Action::Quarantined);
    assert_eq!(inspect::verify(&shared(&disk), Path::new(VNODE)).unwrap(), []);
    let kept = Path::new(VNODE).join("quarantine").join(path.file_name().unwrap());
    assert!(read_file(&disk, &kept).is_ok());
    let left = TestVnode::open(&disk).unwrap().rows().unwrap();
    assert!(!left.is_empty() && left.len() < rows.len(), "the rows of the other file are there");
}

#[test]
fn an_index_whose_keys_can_be_read_is_built_anew() {
    let (disk, rows) = flushed();
    let path = file(&disk, "index", ".series");
    let len = read_file(&disk, &path).unwrap().len();
    let mut rebuilt = 0;
    for at in 0..len {
        let hurt = disk.state().crash(0);
        assert!(hurt.flip(&path, at, 1));
        let done = repair::repair(&shared(&hurt), Path::new(VNODE), false).unwrap();
        if done.iter().any(|one| one.action == Action::Rebuilt) {
            assert_eq!(TestVnode::open(&hurt).unwrap().rows().unwrap(), rows, "byte {at}");
            rebuilt += 1;
        }
    }
    assert!(rebuilt > 0, "hashes, entries and filter can be built anew");
}
