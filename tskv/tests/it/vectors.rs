//! Long series of which few rows are asked for: only vectors of their row groups are decoded, and nobody notices.

use std::collections::BTreeMap;

use model::{ColumnId, TimeRange};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tskv::disk::SimDisk;
use tskv::{CompactionWish, Comparison, Number, SeriesFilter, ValueTest, WriteId};

use crate::store::{Rows, TAG, TestDelete, TestVnode, TestWrite};

const TAGS: [Option<&str>; 3] = [None, Some("a"), Some("b")];
/// Rows of each of the series; together some row groups, which two of them share.
const ROWS: [i64; 3] = [11_000, 3_000, 1_500];

/// Makes up rows of a series: values that go up and down, one that is mostly NULL, one that hardly changes.
fn walk(random: &mut StdRng, tag: Option<&str>, times: std::ops::Range<i64>) -> TestWrite {
    let mut value = 0;
    let rows = times.map(|time| {
        value += random.random_range(-20..=20);
        let seldom = random.random_bool(0.0003).then_some(time);
        (tag.map(str::to_owned), time, vec![Some(value), seldom, Some(time / 4_000)])
    });
    TestWrite { columns: vec![2, 3, 4], rows: rows.collect() }
}

/// Returns the rows of a series, or of all, within some times, that pass a test, where there is one.
fn expected(
    rows: &Rows,
    tag: Option<Option<&str>>,
    times: TimeRange,
    test: Option<ValueTest>,
) -> Rows {
    let passes = |row: &BTreeMap<u32, Option<i64>>, test: ValueTest| match (
        row.get(&test.column.0).copied().flatten(),
        test.number,
    ) {
        (Some(value), Number::I64(number)) => match test.comparison {
            Comparison::Gt => value > number,
            _ => value <= number,
        },
        _ => false,
    };
    let wanted = rows.iter().filter(|((of, time), row)| {
        tag.is_none_or(|tag| of.as_deref() == tag)
            && times.contains(*time)
            && test.is_none_or(|test| passes(row, test))
    });
    wanted.map(|(key, row)| (key.clone(), row.clone())).collect()
}

/// Asks for rows of some series within some times, and for those that pass a test too.
fn compare(random: &mut StdRng, store: &TestVnode, rows: &Rows) {
    for _ in 0..150 {
        let tag = random.random_bool(0.7).then(|| TAGS[random.random_range(0..TAGS.len())]);
        let min = random.random_range(-100..11_000);
        let length = [1, 300, 3_000][random.random_range(0..3)];
        let times = TimeRange { min, max: min + random.random_range(0..length) };
        let terms = tag.iter().map(|tag| (TAG, vec![tag.map(str::to_owned)])).collect();
        let filter = SeriesFilter { terms, ..SeriesFilter::default() };
        let number = Number::I64(random.random_range(-1_000..1_000));
        let comparison = [Comparison::Gt, Comparison::LtEq][random.random_range(0..2)];
        let column = ColumnId([2, 2, 3, 4][random.random_range(0..4)]);
        let test = ValueTest { column, comparison, number };
        assert_eq!(store.scan(times, filter.clone()).unwrap(), expected(rows, tag, times, None));
        let passing = store.scan_tested(times, filter, test).unwrap();
        assert_eq!(
            expected(&passing, None, TimeRange::ALL, Some(test)),
            expected(rows, tag, times, Some(test))
        );
    }
}

#[test]
fn few_rows_of_long_series_are_what_was_written() {
    let mut random = StdRng::seed_from_u64(7);
    let mut store = TestVnode::open(&SimDisk::default()).unwrap();
    let mut rows = Rows::new();
    let mut sequence = 0;
    let mut write = |store: &mut TestVnode, rows: &mut Rows, write: TestWrite| {
        sequence += 1;
        store.write(WriteId { session: 1, sequence }, &write).unwrap();
        write.apply_to(rows);
    };
    for (tag, count) in TAGS.into_iter().zip(ROWS) {
        for start in (0..count).step_by(1_000) {
            write(&mut store, &mut rows, walk(&mut random, tag, start..(start + 1_000).min(count)));
        }
    }
    store.flush().unwrap();
    store.compact(CompactionWish::Whole).unwrap();
    let often =
        ValueTest { column: ColumnId(4), comparison: Comparison::GtEq, number: Number::I64(0) };
    let seldom = ValueTest { column: ColumnId(3), ..often };
    assert!(store.vectors_read(TimeRange::ALL, seldom).unwrap() > 0, "a few rows pass");
    let some = TimeRange { min: 5_000, max: 5_099 };
    assert!(
        (1..=2).contains(&store.vectors_read(some, often).unwrap()),
        "a hundred of 15,500 rows"
    );
    assert_eq!(store.vectors_read(TimeRange::ALL, often).unwrap(), 0, "all rows");
    compare(&mut random, &store, &rows);
    // Later rows in between, in memory and in a file of their own, some without a column; deletes over the old ones.
    write(&mut store, &mut rows, walk(&mut random, Some("a"), 1_900..2_200));
    let mut without = walk(&mut random, None, 10_500..11_200);
    without.columns.truncate(1);
    without.rows.iter_mut().for_each(|(_, _, values)| values.truncate(1));
    write(&mut store, &mut rows, without);
    let times = TimeRange { min: 500, max: 2_600 };
    for delete in [
        TestDelete::Matching(Some(Some("b".to_owned())), times),
        TestDelete::Matching(None, TimeRange { min: 4_000, max: 4_100 }),
    ] {
        sequence += 1;
        store.delete(WriteId { session: 1, sequence }, &delete).unwrap();
        delete.apply_to(&mut rows);
    }
    compare(&mut random, &store, &rows);
    store.flush().unwrap();
    compare(&mut random, &store, &rows);
    store.compact(CompactionWish::Whole).unwrap();
    compare(&mut random, &store, &rows);
}
