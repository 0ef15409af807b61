//! Random upserts, deletes, retries, flushes, compactions and restarts leave what a plain map would
//! hold.

use model::TimeRange;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tskv::disk::SimDisk;
use tskv::{CompactionWish, Outcome, SeriesFilter, WriteId};

use crate::store::{Rows, TAG, TestDelete, TestVnode, TestWrite};

/// Returns the last row of each tag within some times.
fn last(rows: &Rows, times: TimeRange) -> Rows {
    let mut last = Rows::new();
    for ((tag, time), values) in rows.iter().filter(|((_, time), _)| times.contains(*time)) {
        last.retain(|(other, _), _| other != tag);
        last.insert((tag.clone(), *time), values.clone());
    }
    last
}

/// Returns how often the number of rows was known without reading them.
fn check(seed: u64, steps: usize) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = SimDisk::default();
    let mut store = TestVnode::open_partitioned(&disk, 3).unwrap();
    let mut rows = Rows::new();
    let mut sent: Vec<(WriteId, TestWrite)> = Vec::new();
    let mut counted = 0;
    for step in 0..steps {
        match random.random_range(0..25) {
            0 | 20 => store.flush().unwrap(),
            1 => {
                drop(store);
                store = TestVnode::open_partitioned(&disk, 3).unwrap();
            }
            2 | 3 if !sent.is_empty() => {
                let (id, write) = &sent[random.random_range(0..sent.len())];
                assert_eq!(store.write(*id, write).unwrap(), Outcome::AppliedBefore);
            }
            4 => {
                assert_eq!(store.rows().unwrap(), rows, "seed {seed}, step {step}");
                if let Some(exact) = store.exact_rows() {
                    assert_eq!(exact, rows.len(), "seed {seed}, step {step}");
                    counted += 1;
                }
            }
            24 => {
                let max = random.random_range(-20..25);
                let times = TimeRange { min: i64::MIN, max };
                assert_eq!(store.last_rows(times).unwrap(), last(&rows, times), "seed {seed}");
            }
            5 => {
                let from = random.random_range(-25..20);
                let times = TimeRange { min: from, max: from + random.random_range(0..20) };
                let wanted = if random.random_bool(0.5) { Some("a".to_owned()) } else { None };
                let terms = vec![(TAG, vec![wanted.clone()])];
                let filter = SeriesFilter { terms, ..SeriesFilter::default() };
                let mut expected = rows.clone();
                expected.retain(|(tag, time), _| *tag == wanted && times.contains(*time));
                assert_eq!(store.scan(times, filter).unwrap(), expected, "seed {seed}");
            }
            21 => {
                let wish = [CompactionWish::Due, CompactionWish::Whole];
                store.compact(wish[random.random_range(0..2)]).unwrap();
            }
            22 | 23 => {
                let delete = TestDelete::random(&mut random);
                let id = WriteId { session: 9, sequence: step as u64 + 1 };
                assert_eq!(store.delete(id, &delete).unwrap(), Outcome::Applied);
                delete.apply_to(&mut rows);
            }
            _ => {
                let write = TestWrite::random(&mut random);
                let id = WriteId { session: random.random_range(1..4), sequence: step as u64 + 1 };
                assert_eq!(store.write(id, &write).unwrap(), Outcome::Applied);
                write.apply_to(&mut rows);
                sent.push((id, write));
            }
        }
    }
    assert_eq!(store.rows().unwrap(), rows, "seed {seed}");
    store.flush().unwrap();
    store.vnode().verify().unwrap();
    store.compact(CompactionWish::Whole).unwrap();
    assert_eq!(store.rows().unwrap(), rows, "seed {seed}, compacted");
    let size = store.vnode().size();
    assert!(size.files <= 1 && size.tombstones == 0, "one run without deletes: {size:?}");
    assert_eq!(store.last_rows(TimeRange::ALL).unwrap(), last(&rows, TimeRange::ALL));
    assert_eq!(store.exact_rows(), Some(rows.len()), "one run tells its rows: seed {seed}");
    assert!(store.wal().vnodes_with_entries().is_empty(), "a flushed log is purged");
    counted
}

#[test]
fn upserts_deletes_retries_flushes_compactions_and_restarts_equal_a_plain_map() {
    let counted: usize = (0..120).map(|seed| check(seed, 150)).sum();
    assert!(counted > 0, "some counts were known without reading");
}

#[test]
fn long_series_over_many_row_groups_equal_a_plain_map() {
    let mut random = StdRng::seed_from_u64(1);
    let disk = SimDisk::default();
    let mut store = TestVnode::open_partitioned(&disk, 3).unwrap();
    let mut rows = Rows::new();
    // Six flushes whose times overlap by half; two series of about 70,000 rows each.
    for flush in 0..6_i64 {
        for part in 0..5_i64 {
            let start = flush * 10_000 + part * 4_000;
            let tags = ["a", "b"].map(|tag| Some(tag.to_owned()));
            let times = (start..start + 4_000).filter(|_| random.random_bool(0.9));
            let times: Vec<i64> = times.collect();
            let row =
                |tag: &Option<String>, time: i64| (tag.clone(), time, vec![Some(time ^ flush)]);
            let written = tags.iter().flat_map(|tag| times.iter().map(move |time| row(tag, *time)));
            let write =
                TestWrite { columns: vec![2 + (flush % 2) as u32], rows: written.collect() };
            let id = WriteId { session: 1, sequence: (flush * 5 + part + 1) as u64 };
            store.write(id, &write).unwrap();
            write.apply_to(&mut rows);
        }
        let times = TimeRange { min: flush * 10_000 + 500, max: flush * 10_000 + 700 };
        let delete = TestDelete::Matching(Some(Some("b".to_owned())), times);
        store.delete(WriteId { session: 2, sequence: flush as u64 + 1 }, &delete).unwrap();
        delete.apply_to(&mut rows);
        store.flush().unwrap();
    }
    assert!(rows.len() > 130_000, "{} rows", rows.len());
    assert!(store.rows().unwrap() == rows, "before compaction");
    assert!(store.last_rows(TimeRange::ALL).unwrap() == last(&rows, TimeRange::ALL));
    store.compact(CompactionWish::Due).unwrap();
    assert!(store.rows().unwrap() == rows, "after one compaction");
    store.compact(CompactionWish::Whole).unwrap();
    let store = TestVnode::open_partitioned(&disk, 3).unwrap();
    assert!(store.rows().unwrap() == rows, "as one run, after a restart");
    assert!(store.last_rows(TimeRange::ALL).unwrap() == last(&rows, TimeRange::ALL));
    let earlier = TimeRange { min: i64::MIN, max: 30_000 };
    assert!(store.last_rows(earlier).unwrap() == last(&rows, earlier));
    assert_eq!(store.exact_rows(), Some(rows.len()));
    assert_eq!(store.vnode().size().files, 1);
}
