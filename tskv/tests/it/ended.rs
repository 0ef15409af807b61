//! A vnode that was ended refuses later rows, on every replica and after every restart.

use tskv::disk::SimDisk;
use tskv::{CompactionWish, Outcome, WriteId, encode_write, rows_written};

use crate::store::{TestVnode, TestWrite};

fn id(sequence: u64) -> WriteId {
    WriteId { session: 1, sequence }
}

fn rows(times: &[i64]) -> TestWrite {
    let rows = times.iter().map(|time| (Some("a".to_owned()), *time, vec![Some(*time)]));
    TestWrite { columns: vec![2], rows: rows.collect() }
}

#[test]
fn rows_later_than_the_end_are_refused_whole_and_retries_are_known() {
    let mut store = TestVnode::open(&SimDisk::default()).unwrap();
    assert_eq!(store.vnode().last_time(), None);
    assert_eq!(store.write(id(1), &rows(&[5, 20])).unwrap(), Outcome::Applied);
    store.end(id(2), 10).unwrap();
    assert_eq!(store.vnode().last_time(), Some(20), "what was there before stays");
    assert_eq!(store.write(id(3), &rows(&[1, 11])).unwrap(), Outcome::Ended);
    assert_eq!(store.write(id(1), &rows(&[5, 20])).unwrap(), Outcome::AppliedBefore);
    assert_eq!(store.rows().unwrap().len(), 2, "the row of time 1 came with one of time 11");
    store.end(id(4), 20).unwrap();
    store.end(id(5), 15).unwrap();
    assert_eq!(store.write(id(3), &rows(&[1, 11])).unwrap(), Outcome::Applied, "20 stays the end");
    assert_eq!(store.write(id(6), &rows(&[21])).unwrap(), Outcome::Ended);
    assert_eq!(store.rows().unwrap().len(), 4);
}

#[test]
fn the_end_outlives_flush_compaction_restart_and_goes_with_an_image() {
    let (disk, other) = (SimDisk::default(), SimDisk::default());
    let mut store = TestVnode::open(&disk).unwrap();
    store.write(id(1), &rows(&[5])).unwrap();
    store.end(id(2), 10).unwrap();
    drop(store);
    let mut store = TestVnode::open(&disk).unwrap();
    assert_eq!(store.write(id(3), &rows(&[11])).unwrap(), Outcome::Ended, "out of the log");
    store.flush().unwrap();
    store.write(id(4), &rows(&[6])).unwrap();
    store.flush().unwrap();
    store.compact(CompactionWish::Whole).unwrap();
    let mut behind = TestVnode::open(&other).unwrap();
    behind.take_image(&store).unwrap();
    drop((store, behind));
    for disk in [disk, other] {
        let mut store = TestVnode::open(&disk).unwrap();
        assert_eq!(store.vnode().last_time(), Some(10), "it takes rows up to there");
        assert_eq!(store.write(id(5), &rows(&[11])).unwrap(), Outcome::Ended, "out of the summary");
        assert_eq!(store.write(id(6), &rows(&[10])).unwrap(), Outcome::Applied);
    }
}

#[test]
fn the_rows_of_a_refused_command_can_be_had_again() {
    let points = rows(&[1, 2]).points();
    let command = encode_write(id(1), 0, std::slice::from_ref(&points));
    let found = rows_written(&command).unwrap();
    assert_eq!((found.len(), &found[0].times), (1, &points.times));
    assert!(rows_written(b"no command").is_err());
}
