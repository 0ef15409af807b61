//! The index beside a plain list of keys: whatever was flushed and merged meanwhile, it finds the same.

use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use model::wire::Write;
use model::{ColumnId, SeriesKey};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::disk::{Disk, SimDisk, read_file, write_new_file};

const TABLES: u32 = 3;

fn random_key(random: &mut StdRng) -> Box<[u8]> {
    let values = [None, Some(""), Some("a"), Some("b"), Some("b\0"), Some("host_12")];
    let mut tag = |column: u32| (ColumnId(column), values[random.random_range(0..values.len())]);
    let tags = [tag(1), tag(2)];
    let unique = random.random_range(0..400).to_string();
    let table = TableId(random.random_range(1..=TABLES));
    let tags = tags.into_iter().chain([(ColumnId(7), Some(unique.as_str()))]);
    SeriesKey::encode(table, tags).as_bytes().into()
}

fn random_filter(random: &mut StdRng) -> SeriesFilter {
    let values = [None, Some("a"), Some("b"), Some("b\0"), Some("nobody"), Some("17"), Some("18")];
    let terms = (0..random.random_range(0..3)).map(|_| {
        let column = ColumnId([1, 2, 7, 9][random.random_range(0..4)]);
        let wanted = (0..random.random_range(0..3))
            .map(|_| values[random.random_range(0..values.len())].map(str::to_owned));
        (column, wanted.collect())
    });
    let terms = terms.collect();
    let bounds = [None, Some(""), Some("a"), Some("b"), Some("b\0"), Some("17"), Some("host_2")];
    let tests = (0..random.random_range(0..3)).map(|_| {
        let column = ColumnId([1, 2, 7, 9][random.random_range(0..4)]);
        let bound = |random: &mut StdRng| {
            let at = bounds[random.random_range(0..bounds.len())].map(str::to_owned);
            let included = random.random();
            at.map_or(Bound::Unbounded, |at| {
                if included { Bound::Included(at) } else { Bound::Excluded(at) }
            })
        };
        let test = match random.random_range(0..4) {
            0..2 => TagTest::Within(bound(random), bound(random)),
            2 => TagTest::NoneOf(vec!["a".to_owned(), "17".to_owned()]),
            _ => TagTest::Matches { pattern: "^(b|1.)".to_owned(), negated: random.random() },
        };
        (column, test)
    });
    SeriesFilter { terms, tests: tests.collect() }
}

struct Indexed {
    disk: Arc<dyn Disk>,
    index: SeriesIndex,
    /// In order of id.
    keys: Vec<Box<[u8]>>,
    next_file: u64,
}

impl Indexed {
    fn new() -> Self {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::default());
        disk.make_folders(Path::new("vnode/index")).unwrap();
        let index = SeriesIndex::open(&*disk, Path::new("vnode"), &[], Arc::default()).unwrap();
        Self { disk, index, keys: Vec::new(), next_file: 0 }
    }

    fn path(&mut self) -> (u64, PathBuf) {
        self.next_file += 1;
        (self.next_file, segment_path(Path::new("vnode"), self.next_file))
    }

    fn give(&mut self, keys: &[Box<[u8]>]) {
        let (ids, _) = self.index.give_ids(keys).unwrap();
        for (key, id) in keys.iter().zip(ids) {
            if id as usize == self.keys.len() {
                self.keys.push(key.clone());
            }
            assert_eq!(self.keys[id as usize], *key);
        }
    }

    /// Flushes what is fresh; `late` comes while it is written.
    fn flush(&mut self, late: &[Box<[u8]>]) {
        let (first, keys) = self.index.fresh();
        if keys.is_empty() {
            return;
        }
        let (number, path) = self.path();
        write_segment(&self.disk, &path, first, &keys).unwrap();
        self.give(late);
        let segment = Segment::open(&*self.disk, &path, number).unwrap();
        segment.verify().unwrap();
        self.index.flushed(Arc::new(segment));
    }

    fn merge(&mut self, random: &mut StdRng) {
        let segments = self.index.segments();
        if segments.len() < 2 {
            return;
        }
        let start = random.random_range(0..segments.len() - 1);
        let end = random.random_range(start + 2..=segments.len());
        let (number, path) = self.path();
        let go_on = AtomicBool::new(false);
        assert!(merge(&self.disk, &path, &segments[start..end], &go_on).unwrap());
        let merged = Segment::open(&*self.disk, &path, number).unwrap();
        merged.verify().unwrap();
        self.index.merged(&segments[start..end], Arc::new(merged));
        assert_eq!(self.index.segments().len(), segments.len() + 1 - (end - start));
    }

    fn reopen(&mut self) {
        let numbers: Vec<u64> = self.index.segments().iter().map(|one| one.number()).collect();
        let cache = Arc::default();
        let index = SeriesIndex::open(&*self.disk, Path::new("vnode"), &numbers, cache).unwrap();
        self.keys.truncate(index.len());
        self.index = index;
    }

    fn check(&self, random: &mut StdRng) {
        assert_eq!(self.index.len(), self.keys.len());
        let asked: Vec<Box<[u8]>> = (0..5).map(|_| random_key(random)).collect();
        let walked = asked
            .iter()
            .map(|key| self.keys.iter().position(|other| other == key).map(|place| place as u32));
        assert_eq!(self.index.find(&asked).unwrap(), walked.collect::<Vec<_>>());
        let (table, filter) = (TableId(random.random_range(1..=TABLES)), random_filter(random));
        let found = self.index.matching(table, &filter).unwrap();
        let sieve = filter.sieve();
        let of_table = (0..)
            .zip(&self.keys)
            .filter(|(_, key)| model::series_key::check(key) == Ok(table) && sieve.keeps(key));
        let (ids, keys): (Vec<u32>, Vec<&Box<[u8]>>) = of_table.unzip();
        assert_eq!(found, ids, "{table} {filter:?}");
        let loaded = self.index.keys(&ids).unwrap();
        assert!(loaded.iter().zip(keys).all(|(one, other)| **one == **other));
    }
}

#[test]
fn an_index_finds_what_a_walk_over_all_keys_finds() {
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut indexed = Indexed::new();
        for _ in 0..60 {
            let count = random.random_range(1..60);
            let mut keys: Vec<Box<[u8]>> = (0..count).map(|_| random_key(&mut random)).collect();
            match random.random_range(0..10) {
                0..5 => indexed.give(&keys),
                5..7 => {
                    keys.truncate(3);
                    indexed.flush(&keys);
                }
                7..9 => indexed.merge(&mut random),
                _ => indexed.reopen(),
            }
            indexed.check(&mut random);
        }
    }
}

#[test]
fn values_with_more_series_than_a_block_holds_are_found_whole() {
    let mut indexed = Indexed::new();
    let key = |n: u32| -> Box<[u8]> {
        let (unique, side) =
            (format!("host_{n}"), if n.is_multiple_of(2) { "even" } else { "odd" });
        let tags = [(ColumnId(1), Some(unique.as_str())), (ColumnId(2), Some(side))];
        SeriesKey::encode(TableId(1), tags.into_iter()).as_bytes().into()
    };
    let keys: Vec<Box<[u8]>> = (0..20_000).map(key).collect();
    indexed.give(&keys[..9_000]);
    indexed.flush(&[]);
    indexed.give(&keys[9_000..]);
    indexed.flush(&[]);
    indexed.merge(&mut StdRng::seed_from_u64(0));
    let of = |column, value: &str| {
        let terms = vec![(column, vec![Some(value.to_owned())])];
        SeriesFilter { terms, ..SeriesFilter::default() }
    };
    let filter = of(ColumnId(2), "odd");
    let found = indexed.index.matching(TableId(1), &filter).unwrap();
    assert_eq!(found, (0..20_000).filter(|id| id % 2 == 1).collect::<Vec<u32>>());
    let one = of(ColumnId(1), "host_777");
    assert_eq!(indexed.index.matching(TableId(1), &one).unwrap(), [777]);
    let bounds = [Bound::Included("host_1999".to_owned()), Bound::Excluded("host_2".to_owned())];
    let [low, high] = bounds;
    let tests = vec![(ColumnId(1), TagTest::Within(low, high))];
    let some = SeriesFilter { tests, ..SeriesFilter::default() };
    let ids = indexed.index.matching(TableId(1), &some).unwrap();
    assert_eq!(ids, [vec![1_999], (19_990..20_000).collect::<Vec<u32>>()].concat());
    indexed.index.cache.forget();
    let ids = indexed.index.find(&keys).unwrap();
    assert_eq!(ids, (0..20_000).map(Some).collect::<Vec<_>>());
}

#[test]
fn no_flipped_bit_and_no_cut_of_a_segment_goes_unseen() {
    let mut random = StdRng::seed_from_u64(5);
    let mut indexed = Indexed::new();
    let keys: Vec<Box<[u8]>> = (0..150).map(|_| random_key(&mut random)).collect();
    indexed.give(&keys);
    indexed.flush(&[]);
    let good = read_file(&*indexed.disk, indexed.index.segments()[0].path()).unwrap();
    let broken = |bytes: &[u8]| {
        let disk = SimDisk::default();
        disk.make_folders(Path::new("index")).unwrap();
        let path = Path::new("index/1");
        write_new_file(&disk, path, bytes).unwrap();
        let read = Segment::open(&disk, path, 1).and_then(|segment| segment.verify());
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
    };
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        broken(&bytes);
        broken(&good[..at]);
    }
}

#[test]
fn no_bytes_of_a_block_make_its_decoder_panic() {
    let mut random = StdRng::seed_from_u64(9);
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = Vec::new();
        for _ in 0..random.random_range(0..12) {
            match random.random_range(0..4) {
                0 => bytes.put_varint(random.random::<u64>() >> random.random_range(0..64)),
                1 => bytes.put_bytes(b"\x01\0\0\0\x01\x01a"),
                _ => bytes.push(random.random()),
            }
        }
        segment::decode_anything(&bytes);
    }
}
