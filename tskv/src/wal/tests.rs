//! The log by itself: order, recovery, damage, segments.

use std::path::Path;

use super::*;
use crate::disk::SimDisk;

const FOLDER: &str = "wal";

fn config() -> WalConfig {
    WalConfig { segment_bytes: 4_096, writer: WalWriter::Caller, on_failure: |_| {} }
}

fn open(disk: &SimDisk) -> Result<Arc<Wal>> {
    Wal::open(Arc::new(disk.clone()), Path::new(FOLDER), &config())
}

async fn append(log: &VnodeLog, index: u64, payload: &str) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    let done: Completion = Box::new(move |outcome| sender.send(outcome).unwrap());
    log.append(vec![(index, payload)], done).await;
    receiver.await.unwrap().unwrap();
}

fn entries(log: &VnodeLog) -> Vec<String> {
    let entries = log.read(0, u64::MAX, usize::MAX).unwrap();
    entries.iter().map(|entry| String::from_utf8(entry.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn what_was_appended_is_read_back_after_a_restart() {
    let disk = SimDisk::default();
    let wal = open(&disk).unwrap();
    let (a, b) = (wal.log(VnodeId(1)), wal.log(VnodeId(2)));
    for index in 0..5 {
        append(&a, index, &format!("a{index}")).await;
        append(&b, index, &format!("b{index}")).await;
    }
    a.truncate(3).await.unwrap();
    append(&a, 3, "a3 again").await;
    b.purge(1, Bytes::from_static(b"b one")).await.unwrap();
    a.save_vote(Bytes::from_static(b"vote")).await.unwrap();
    a.evict(2);
    assert_eq!(entries(&a), ["a0", "a1", "a2", "a3 again"]);
    let wal = open(&disk.state().crash(1)).unwrap();
    let (a, b) = (wal.log(VnodeId(1)), wal.log(VnodeId(2)));
    assert_eq!(entries(&a), ["a0", "a1", "a2", "a3 again"]);
    assert_eq!(entries(&b), ["b2", "b3", "b4"]);
    assert_eq!(b.purged(), Some((1, Bytes::from_static(b"b one"))));
    assert_eq!(a.vote(), Some(Bytes::from_static(b"vote")));
}

#[tokio::test]
async fn segments_are_deleted_once_purged_and_states_are_carried_forward() {
    let disk = SimDisk::default();
    let wal = open(&disk).unwrap();
    let (busy, quiet) = (wal.log(VnodeId(1)), wal.log(VnodeId(2)));
    quiet.save_vote(Bytes::from_static(b"quiet vote")).await.unwrap();
    for index in 0..200 {
        append(&busy, index, &"x".repeat(100)).await;
    }
    assert!(wal.holders_of_oldest(2) == [VnodeId(1)]);
    busy.purge(198, Bytes::from_static(b"198")).await.unwrap();
    assert!(wal.holders_of_oldest(3).is_empty());
    let files = disk.list(Path::new(FOLDER)).unwrap();
    assert!(files.len() <= 3, "{files:?}");
    let wal = open(&disk.state().crash(7)).unwrap();
    assert_eq!(wal.log(VnodeId(2)).vote(), Some(Bytes::from_static(b"quiet vote")));
    assert_eq!(wal.log(VnodeId(1)).last_index(), Some(199));
    assert_eq!(wal.vnodes_with_entries(), [VnodeId(1)]);
}

#[tokio::test]
async fn damage_before_the_durable_end_is_refused_and_a_torn_tail_is_cut() {
    let disk = SimDisk::default();
    let wal = open(&disk).unwrap();
    let log = wal.log(VnodeId(1));
    for index in 0..10 {
        append(&log, index, &format!("entry {index}")).await;
    }
    let path = Path::new(FOLDER).join("0000000000000001.wal");
    let whole = crate::disk::read_file(&disk, &path).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in 0..used {
        let hurt = disk.state().crash(0);
        assert!(hurt.flip(&path, at, 0x10));
        match open(&hurt) {
            Err(Error::Corrupt { path: named, .. }) => assert_eq!(named, path),
            Err(other) => panic!("byte {at}: {other}"),
            Ok(wal) => {
                // Only the last batch may be taken for a torn tail; padding may not matter at all.
                let left = entries(&wal.log(VnodeId(1)));
                assert!(left.len() >= 9, "byte {at}: {left:?}");
                assert!(left.iter().enumerate().all(|(n, entry)| *entry == format!("entry {n}")));
            }
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_refused_before_the_log_runs_out() {
    let disk = SimDisk::default();
    let wal = open(&disk).unwrap();
    let log = wal.log(VnodeId(1));
    let mut index = 0;
    while wal.admit().is_ok() {
        disk.fail_operation(disk.operations() + 3, crate::disk::Fault::NoSpace);
        append(&log, index, &"x".repeat(500)).await;
        index += 1;
        assert!(index < 100, "the reserve is never used");
        if !wal.has_reserve.load(Ordering::Acquire) {
            disk.fail_operation(disk.operations() + 1, crate::disk::Fault::NoSpace);
        }
    }
    assert!(matches!(wal.admit(), Ok(())), "space is back, and so is the log");
}
