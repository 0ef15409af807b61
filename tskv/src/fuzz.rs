//! Every decoder of stored bytes under mutated bytes: none panics, none runs away, and what it accepts
//! has the shape that was asked for. Checksums stand around these bytes, so they are left out here: the
//! decoders behind them are what a wrong program would meet.
//!
//! `CNOSDB_FUZZ_ROUNDS` says how many inputs each target gets (20,000; by hand some millions),
//! `CNOSDB_FUZZ_SEED` where the random numbers begin.
#![allow(clippy::indexing_slicing, reason = "a test stops where it is wrong")]

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, UInt64Array,
};
use model::points::PointsColumn;
use model::wire::Reader;
use model::{Codec, ColumnId, ColumnKind, Points, SeriesKey, TableId, TimeRange, ValueType};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::command::{Command, encode_write};
use crate::run::{Run, RunColumn};
use crate::sessions::{Sessions, WriteId};
use crate::summary::{self, FileEntry, VersionEdit};
use crate::tsm::Effort;
use crate::tsm::encodings;

const ROWS: usize = 300;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Feeds mutations of `seeds` to `decode`.
fn fuzz(seeds: &[Vec<u8>], decode: impl Fn(&[u8])) {
    let mut random = StdRng::seed_from_u64(from_env("CNOSDB_FUZZ_SEED", 1));
    seeds.iter().for_each(|seed| decode(seed));
    for _ in 0..from_env("CNOSDB_FUZZ_ROUNDS", 20_000) {
        let seed = &seeds[random.random_range(0..seeds.len())];
        let other = &seeds[random.random_range(0..seeds.len())];
        decode(&mutated(seed, other, &mut random));
    }
}

fn mutated(seed: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    const TELLING: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0xfe, 64, 65];
    let mut bytes = seed.to_vec();
    for _ in 0..random.random_range(1..6) {
        let at = if bytes.is_empty() { 0 } else { random.random_range(0..bytes.len()) };
        // Heads say how long what follows is: they are hurt more often.
        let at = if random.random_bool(0.5) { at.min(random.random_range(0..24)) } else { at };
        let end = (at + random.random_range(1..16)).min(bytes.len());
        match random.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = TELLING[random.random_range(0..TELLING.len())],
            2 => bytes.truncate(at),
            3 if at < end => drop(bytes.drain(at..end)),
            4 => bytes.insert(at.min(bytes.len()), random.random()),
            5 if at < end => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ if !other.is_empty() => {
                let from = random.random_range(0..other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {}
        }
    }
    bytes
}

fn columns() -> Vec<(ArrayRef, ValueType)> {
    let rows = 0..ROWS as i64;
    let some = |row: &i64| row % 7 != 0;
    let ints = rows.clone().map(|row| some(&row).then_some(row * row - 500));
    let wild = rows.clone().map(|row| Some(row.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)));
    let unsigned = rows.clone().map(|row| some(&row).then_some(row as u64 * 3));
    let floats = rows.clone().map(|row| some(&row).then_some(row as f64 / 10.0));
    let waves = rows.clone().map(|row| Some((row as f64 / 9.0).sin()));
    let bools = rows.clone().map(|row| some(&row).then_some(row % 3 == 0));
    let texts = rows.map(|row| some(&row).then(|| format!("text {}", row % 11)));
    vec![
        (Arc::new(Int64Array::from_iter(ints)), ValueType::I64),
        (Arc::new(Int64Array::from_iter(wild)), ValueType::I64),
        (Arc::new(UInt64Array::from_iter(unsigned)), ValueType::U64),
        (Arc::new(Float64Array::from_iter(floats)), ValueType::F64),
        (Arc::new(Float64Array::from_iter(waves)), ValueType::F64),
        (Arc::new(BooleanArray::from_iter(bools)), ValueType::Bool),
        (Arc::new(StringArray::from_iter(texts)), ValueType::Str),
    ]
}

#[test]
fn pages_of_values_under_mutation() {
    const CODECS: [&str; 16] = [
        "default",
        "null",
        "delta",
        "deltats",
        "quantile",
        "gorilla",
        "alp",
        "bitpack",
        "dictionary",
        "rle",
        "snappy",
        "zstd",
        "lz4",
        "gzip",
        "zlib",
        "bzip",
    ];
    for of in [ValueType::I64, ValueType::U64, ValueType::F64, ValueType::Bool, ValueType::Str] {
        let mut seeds = Vec::new();
        for (values, value_type) in columns() {
            for codec in CODECS.map(|name| Codec::named(name, None).unwrap()) {
                if codec.fits(ColumnKind::Field(value_type)) {
                    for effort in [Effort::Light, Effort::Dense] {
                        seeds.push(encodings::encode(&values, value_type, effort, codec));
                    }
                }
            }
        }
        fuzz(&seeds, |bytes| {
            if let Ok(values) = encodings::decode(bytes, of, ROWS) {
                assert_eq!(values.len(), ROWS);
                assert_eq!(values.data_type(), &of.arrow());
            }
        });
    }
}

#[test]
fn pages_of_vectors_under_mutation() {
    const ROWS: usize = 2_500;
    let walk = |row: usize| ((row * row) % 1_009) as f64 / 8.0;
    let some = (0..ROWS).map(|row| (!(900..2_100).contains(&row)).then(|| walk(row)));
    let wave = |row: usize| (row as f64 / 9.0).sin();
    let pages: [(ArrayRef, ValueType); 3] = [
        (Arc::new(Float64Array::from_iter_values((0..ROWS).map(wave))), ValueType::F64),
        (Arc::new(Float64Array::from_iter(some)), ValueType::F64),
        (Arc::new(Int64Array::from_iter((0..ROWS).map(|row| walk(row) as i64))), ValueType::I64),
    ];
    let encode = |(values, of): (ArrayRef, ValueType)| {
        encodings::encode(&values, of, Effort::Dense, Codec::Default)
    };
    fuzz(&pages.map(encode), |bytes| {
        for (wanted, rows) in [(0..1, 1_024), (2..3, 452), (0..3, ROWS)] {
            if let Ok(values) = encodings::decode_vectors(bytes, ValueType::F64, ROWS, wanted) {
                assert_eq!(values.len(), rows);
            }
        }
    });
}

#[test]
fn pages_of_keys_under_mutation() {
    let times: Vec<i64> = (0..ROWS as i64).map(|row| row * 10).collect();
    let series: Vec<i64> = (0..ROWS as i64).map(|row| row / 50).collect();
    let stretches = vec![50; ROWS / 50];
    let seeds: Vec<Vec<u8>> = [Effort::Light, Effort::Dense]
        .into_iter()
        .flat_map(|effort| {
            [&times, &series].map(|keys| encodings::encode_keys(keys, &stretches, effort))
        })
        .collect();
    fuzz(&seeds, |bytes| {
        if let Ok(keys) = encodings::decode_keys(bytes, ROWS) {
            assert_eq!(keys.len(), ROWS);
        }
    });
}

#[test]
fn pages_of_rows_under_mutation() {
    let types: Vec<(ColumnId, ValueType)> = columns()
        .iter()
        .enumerate()
        .map(|(at, (_, value_type))| (ColumnId(at as u32 + 1), *value_type))
        .collect();
    let of_column =
        |(values, (id, value_type)): ((ArrayRef, ValueType), &(ColumnId, ValueType))| RunColumn {
            id: *id,
            value_type: *value_type,
            values: values.0,
            written: None,
        };
    let run = Run {
        series: (0..ROWS as u32).collect(),
        times: (0..ROWS as i64).collect(),
        columns: columns().into_iter().zip(&types).map(of_column).collect(),
    };
    fuzz(&[encodings::encode_run(&run)], |bytes| {
        if let Ok(run) = encodings::decode_run(bytes, &types) {
            assert!(run.columns.iter().all(|column| column.values.len() == run.rows()));
            assert_eq!(run.series.len(), run.times.len());
        }
    });
}

fn points() -> Points {
    let key = |host: &str| {
        SeriesKey::encode(TableId(7), [(ColumnId(1), Some(host))].into_iter()).as_bytes().into()
    };
    let fields = columns().into_iter().enumerate().map(|(at, (values, value_type))| PointsColumn {
        id: ColumnId(at as u32 + 2),
        value_type,
        values,
    });
    Points {
        table: TableId(7),
        series: vec![key("a"), key("b"), key("c")],
        row_series: (0..ROWS as u32).map(|row| row % 3).collect(),
        times: (0..ROWS as i64).collect(),
        fields: fields.collect(),
    }
}

#[test]
fn commands_under_mutation() {
    let id = WriteId { session: 9, sequence: 4 };
    let keys = Points { fields: Vec::new(), ..points() };
    let filter = crate::SeriesFilter {
        terms: vec![(ColumnId(1), vec![Some("a".to_owned()), None])],
        ..crate::SeriesFilter::default()
    };
    let seeds = [
        encode_write(id, 5, &[points()]),
        crate::encode_delete_rows(id, 5, &keys),
        crate::encode_delete_matching(id, 5, TableId(7), (&filter, TimeRange { min: 1, max: 9 })),
        crate::encode_checksum(id, 5),
        crate::encode_end(id, 5, 7),
    ];
    fuzz(&seeds.map(|seed| seed.to_vec()), |bytes| {
        if let Ok(command) = Command::decode(bytes) {
            for points in command.change.batches() {
                assert!(points.row_series.iter().all(|at| (*at as usize) < points.series.len()));
                assert!(points.fields.iter().all(|field| field.values.len() == points.rows()));
            }
        }
    });
}

#[test]
fn version_edits_under_mutation() {
    let mut sessions = Sessions::default();
    for sequence in 1..40 {
        sessions.note(WriteId { session: sequence % 5, sequence }, sequence as i64);
    }
    let edit = VersionEdit {
        removed: vec![1, 2],
        files: vec![FileEntry { number: 3, seen: 9, level: 1 }],
        tombstones: vec![4],
        segments: vec![5],
        next_file: 6,
        applied: 77,
        raft_state: bytes::Bytes::from_static(b"state"),
        sessions,
        until: Some(8),
    };
    let bytes = summary::encode(&edit);
    assert_eq!(summary::decode(&bytes).unwrap(), edit);
    fuzz(&[bytes], |bytes| drop(summary::decode(bytes)));
}

#[test]
fn batches_of_points_under_mutation() {
    let mut bytes = Vec::new();
    points().encode(&mut bytes);
    fuzz(&[bytes], |bytes| {
        if let Ok(points) = Points::decode(&mut Reader::new(bytes)) {
            assert!(points.fields.iter().all(|field| field.values.len() == points.rows()));
        }
    });
}
