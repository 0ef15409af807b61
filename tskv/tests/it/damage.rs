//! Damaged files are detected or harmless: never a panic, never a different row.

use std::path::{Path, PathBuf};

use model::TimeRange;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tskv::disk::{Disk, Fault, SimDisk};
use tskv::{Error, WriteId};

use crate::store::{Rows, TestDelete, TestVnode, TestWrite};

/// A vnode with two files, a delete over them, and nothing left in its log.
fn flushed() -> (SimDisk, Rows) {
    let mut random = StdRng::seed_from_u64(3);
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
    let delete = TestDelete::Matching(Some(Some("a".to_owned())), TimeRange { min: -5, max: 5 });
    store.delete(WriteId { session: 1, sequence: 9 }, &delete).unwrap();
    delete.apply_to(&mut rows);
    store.flush().unwrap();
    (disk, rows)
}

fn files(disk: &SimDisk) -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("vnode/summary")];
    for folder in ["vnode/tsm", "vnode/index"] {
        let names = disk.list(Path::new(folder)).unwrap();
        files.extend(names.into_iter().map(|name| Path::new(folder).join(name)));
    }
    files
}

fn check(disk: &SimDisk, rows: &Rows, what: &str) {
    match TestVnode::open(disk).and_then(|store| store.rows()) {
        Err(Error::Corrupt { .. } | Error::Io { .. }) => {}
        Err(other) => panic!("{what}: {other}"),
        Ok(read) => assert_eq!(read, *rows, "{what}"),
    }
}

#[test]
fn every_flipped_byte_is_detected_or_harmless() {
    let (disk, rows) = flushed();
    assert_eq!(files(&disk).len(), 5, "summary, two tsm files, series, tombstones");
    for path in files(&disk) {
        let len = tskv::disk::read_file(&disk, &path).unwrap().len();
        for at in 0..len {
            let hurt = disk.state().crash(0);
            assert!(hurt.flip(&path, at, 1 << (at % 8)));
            check(&hurt, &rows, &format!("{} byte {at}", path.display()));
        }
    }
}

#[test]
fn every_shortened_file_is_detected_or_harmless() {
    let (disk, rows) = flushed();
    for path in files(&disk) {
        let len = disk.open(&path).unwrap().size().unwrap();
        for short in 0..len {
            let hurt = disk.state().crash(0);
            hurt.open(&path).unwrap().set_len(short).unwrap();
            check(&hurt, &rows, &format!("{} cut to {short}", path.display()));
        }
    }
}

#[test]
fn a_failure_of_any_single_operation_loses_nothing_acknowledged() {
    for fault in [Fault::Io, Fault::NoSpace] {
        for n in 1..400 {
            let disk = SimDisk::default();
            let mut random = StdRng::seed_from_u64(n);
            let mut sure = Rows::new();
            let mut store = TestVnode::open(&disk).unwrap();
            disk.fail_operation(disk.operations() + n, fault);
            let mut maybe = Rows::new();
            for sequence in 1..40 {
                let write = TestWrite::random(&mut random);
                write.apply_to(&mut maybe);
                if store.write(WriteId { session: 1, sequence }, &write).is_err() {
                    break;
                }
                write.apply_to(&mut sure);
                if sequence % 6 == 0 && store.flush().is_err() {
                    break;
                }
            }
            let rows = TestVnode::open(&disk.state().crash(n)).unwrap().rows().unwrap();
            assert!(rows == sure || rows == maybe, "{fault:?} at operation {n}");
        }
    }
}
