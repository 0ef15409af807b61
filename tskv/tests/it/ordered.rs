//! Rows of many series come in the order of their tags, however often they are asked for and whatever came between.

use model::TimeRange;
use tskv::disk::SimDisk;
use tskv::{SeriesFilter, WriteId};

use crate::store::{Rows, TAG, TestVnode, TestWrite};

/// Writes a row of each of some series, the last tag first.
fn write(store: &mut TestVnode, sequence: u64, hosts: std::ops::Range<i64>) {
    let tag = |host: i64| (host != 7).then(|| format!("host {}", host % 1_000));
    let rows = hosts.rev().map(|host| (tag(host), host, vec![Some(host)]));
    let write = TestWrite { columns: vec![2], rows: rows.collect() };
    store.write(WriteId { session: 1, sequence }, &write).unwrap();
}

/// Reads everything twice, which checks the order, and once more by the values of the tag.
fn read(store: &TestVnode) -> Rows {
    let all = store.rows().unwrap();
    assert_eq!(store.rows().unwrap(), all);
    let tags: Vec<Option<String>> = all.keys().map(|(tag, _)| tag.clone()).collect();
    let few = SeriesFilter { terms: vec![(TAG, tags[..70].to_vec())], ..SeriesFilter::default() };
    for _ in 0..2 {
        let found = store.scan(TimeRange::ALL, few.clone()).unwrap();
        let expected = all.iter().filter(|((tag, _), _)| tags[..70].contains(tag));
        assert_eq!(found, expected.map(|(key, row)| (key.clone(), row.clone())).collect::<Rows>());
    }
    all
}

#[test]
fn series_that_come_later_and_those_of_an_image_stand_where_they_belong() {
    let mut store = TestVnode::open(&SimDisk::default()).unwrap();
    write(&mut store, 1, 0..100);
    assert_eq!(read(&store).len(), 100);
    write(&mut store, 2, 100..200);
    assert_eq!(read(&store).len(), 200);
    store.flush().unwrap();
    write(&mut store, 3, 50..150);
    assert_eq!(read(&store).len(), 200);
    // As many series under the same ids, but others.
    let mut other = TestVnode::open(&SimDisk::default()).unwrap();
    for part in 1..=5 {
        write(&mut other, part as u64, 260 + 40 * part..300 + 40 * part);
    }
    other.flush().unwrap();
    let expected = read(&other);
    store.take_image(&other).unwrap();
    assert_eq!(read(&store), expected);
}
