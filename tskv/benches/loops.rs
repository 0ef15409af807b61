//! The hot loops of storage, through its public interface: what a codec packs and unpacks, what an append to the log takes until it
//! is durable, what merging files takes, what a scan takes of files and of memory.
//!
//! `cargo bench --workspace --bench loops` (after `. scripts/env.sh`). Files are in a folder of the system's for what is temporary.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench stops where it is wrong")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::Float64Array;
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use model::points::{PointsColumn, SeriesDictionary};
use model::{
    Codec, Column, ColumnId, ColumnKind, Points, SeriesKey, TableId, TableSchema, TimeRange,
    ValueType, VnodeId,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tskv::disk::OsDisk;
use tskv::wal::{Wal, WalConfig, WalWriter};
use tskv::{
    CompactionWish, DecodedCache, MemcacheGauge, Progress, ScanColumn, ScanRequest, Schemas,
    SeriesCache, SeriesFilter, TableFate, Vnode, VnodeConfig, WriteId, encode_write,
};

const TABLE: TableId = TableId(1);
const TAG: ColumnId = ColumnId(1);
const FIELD: ColumnId = ColumnId(2);
const SERIES: usize = 100;
const ROWS: usize = 100_000;
const SECOND: i64 = 1_000_000_000;

/// A vnode in a folder of its own.
struct Bench {
    _folder: tempfile::TempDir,
    vnode: Vnode,
    applied: u64,
}

impl Bench {
    fn new(codec: Codec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let schema = Arc::new(table(codec));
        let config = VnodeConfig {
            disk: Arc::new(OsDisk),
            folder: folder.path().to_path_buf(),
            gauge: Arc::new(MemcacheGauge::default()),
            cache: Arc::new(SeriesCache::default()),
            decoded: Arc::new(DecodedCache::default()),
            schemas: Schemas::new(move |_| TableFate::Live(Arc::clone(&schema))),
            partitions: 1,
            readers_max: None,
        };
        let vnode = Vnode::open(config, VnodeId(1)).unwrap();
        Self { _folder: folder, vnode, applied: 0 }
    }

    fn apply(&mut self, command: &Bytes) {
        self.applied += 1;
        let raft_state = Bytes::copy_from_slice(&self.applied.to_le_bytes());
        let progress = Progress { applied: self.applied, raft_state };
        self.vnode.apply(progress, std::slice::from_ref(command)).unwrap();
    }

    fn flush(&self) {
        self.vnode.flush().unwrap();
    }

    fn compact(&self) {
        self.vnode.compact(CompactionWish::Whole, &AtomicBool::new(false)).unwrap();
    }

    /// Reads all rows; returns how many.
    fn scan(&self) -> usize {
        let schema = Schema::new(vec![
            Field::new("time", model::schema::time_type(), false),
            Field::new("tag", DataType::Utf8, true),
            Field::new("value", DataType::Float64, true),
        ]);
        let request = ScanRequest {
            table: TABLE,
            columns: vec![
                ScanColumn::Time,
                ScanColumn::Tag(TAG),
                ScanColumn::Field(FIELD, ValueType::F64),
            ],
            schema: Arc::new(schema),
            times: TimeRange::ALL,
            filter: SeriesFilter::default(),
            values: Vec::new(),
            order: vec![TAG],
        };
        let mut scan = self.vnode.scan(request).unwrap();
        let mut rows = 0;
        while let Some(batch) = scan.next_batch().unwrap() {
            rows += batch.num_rows();
        }
        rows
    }
}

fn table(codec: Codec) -> TableSchema {
    let column = |id: u32, name: &str, kind, codec| Column {
        id: ColumnId(id),
        name: name.to_owned(),
        kind,
        not_null: false,
        codec,
        shape: None,
    };
    let columns = vec![
        column(0, "time", ColumnKind::Time, Codec::Default),
        column(TAG.0, "tag", ColumnKind::Tag, Codec::Default),
        column(FIELD.0, "value", ColumnKind::Field(ValueType::F64), codec),
    ];
    let database = model::DatabaseId(1);
    TableSchema { id: TABLE, database, name: "m".to_owned(), version: 1, next_column: 3, columns }
}

/// Rows of all series by turns, one a second each, from `start` on; values of one decimal that walk.
fn write(sequence: u64, start: i64, rows: usize) -> Bytes {
    let mut random = StdRng::seed_from_u64(sequence);
    let mut series = SeriesDictionary::default();
    let mut walks = [500_i32; SERIES];
    let mut points = Points {
        table: TABLE,
        series: Vec::new(),
        row_series: Vec::with_capacity(rows),
        times: Vec::with_capacity(rows),
        fields: Vec::new(),
    };
    let mut values = Vec::with_capacity(rows);
    for row in 0..rows {
        let number = row % SERIES;
        let tag = format!("host_{number:02}");
        let key = SeriesKey::encode(TABLE, [(TAG, Some(tag.as_str()))].into_iter());
        points.row_series.push(series.number(key.as_bytes()));
        points.times.push((start + (row / SERIES) as i64) * SECOND);
        walks[number] += random.random_range(-10..=10);
        values.push(f64::from(walks[number]) / 10.0);
    }
    points.series = series.into_keys();
    let values = Arc::new(Float64Array::from(values));
    points.fields = vec![PointsColumn { id: FIELD, value_type: ValueType::F64, values }];
    encode_write(WriteId { session: 1, sequence }, 0, &[points])
}

fn codecs(criterion: &mut Criterion) {
    let rows = write(1, 0, ROWS);
    let codecs = [
        Codec::Null,
        Codec::Gorilla,
        Codec::Quantile,
        Codec::Alp,
        Codec::Rle,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
        Codec::Default,
    ];
    let mut group = criterion.benchmark_group("flush");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(20);
    let filled = |codec| {
        let mut bench = Bench::new(codec);
        bench.apply(&rows);
        bench
    };
    for codec in codecs {
        group.bench_function(BenchmarkId::from_parameter(format!("{codec:?}")), |bencher| {
            let flushed = |bench: Bench| {
                bench.flush();
                bench
            };
            bencher.iter_batched(|| filled(codec), flushed, BatchSize::PerIteration);
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("scan of a file");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(20);
    for codec in codecs {
        let bench = filled(codec);
        bench.flush();
        group.bench_function(BenchmarkId::from_parameter(format!("{codec:?}")), |bencher| {
            bencher.iter(|| assert_eq!(bench.scan(), ROWS));
        });
    }
    group.finish();
}

fn scan_of_memory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan of memory");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(20);
    let mut bench = Bench::new(Codec::Default);
    bench.apply(&write(1, 0, ROWS));
    group.bench_function("sorted", |bencher| {
        bencher.iter(|| assert_eq!(bench.scan(), ROWS));
    });
    group.finish();
}

/// Files of the same times, each row of every file another; read merged, and compacted to one.
fn merges(criterion: &mut Criterion) {
    const FILES: usize = 4;
    let spread = |number: usize| write(number as u64, (number * 7) as i64, ROWS / FILES);
    let filled = || {
        let mut bench = Bench::new(Codec::Default);
        for number in 0..FILES {
            bench.apply(&spread(number));
            bench.flush();
        }
        bench
    };
    let mut group = criterion.benchmark_group("merge of 4 files");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(20);
    let bench = filled();
    let rows = bench.scan();
    group.bench_function("scan", |bencher| bencher.iter(|| assert_eq!(bench.scan(), rows)));
    group.bench_function("compaction", |bencher| {
        let compacted = |bench: Bench| {
            bench.compact();
            bench
        };
        bencher.iter_batched(filled, compacted, BatchSize::PerIteration);
    });
    group.finish();
}

/// One writer that waits until each entry is durable, and 16 at once, that share their fsyncs.
fn appends(criterion: &mut Criterion) {
    const BYTES: usize = 4_096;
    let folder = tempfile::tempdir().unwrap();
    let config =
        WalConfig { segment_bytes: 64 << 20, writer: WalWriter::Thread, on_failure: |_| {} };
    let wal = Wal::open(Arc::new(OsDisk), Path::new(folder.path()), &config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut group = criterion.benchmark_group("append of 4 KiB to the log");
    for writers in [1_u64, 16] {
        let logs: Vec<_> =
            (0..writers).map(|number| wal.log(VnodeId(writers * 100 + number))).collect();
        let mut index = 0;
        group.throughput(Throughput::Elements(writers)).sample_size(20);
        group.bench_function(BenchmarkId::new("writers", writers), |bencher| {
            bencher.iter(|| {
                index += 1;
                runtime.block_on(async {
                    let mut waiting = Vec::new();
                    for log in &logs {
                        let (sender, receiver) = tokio::sync::oneshot::channel();
                        let done = Box::new(move |outcome| drop(sender.send(outcome)));
                        log.append(vec![(index, Bytes::from(vec![7; BYTES]))], done).await;
                        waiting.push(receiver);
                    }
                    for one in waiting {
                        one.await.unwrap().unwrap();
                    }
                });
                for log in &logs {
                    log.evict(index);
                }
            });
        });
    }
    group.finish();
    runtime.block_on(wal.close());
}

criterion_group!(loops, codecs, scan_of_memory, merges, appends);
criterion_main!(loops);
