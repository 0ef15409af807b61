//! One vnode driven as a replica set of one member drives it, and the plain map it is compared with.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampNanosecondType};
use bytes::Bytes;
use model::points::{PointsColumn, SeriesDictionary};
use model::{ColumnId, Points, SeriesKey, TableId, TimeRange, ValueType, VnodeId};
use rand::Rng;
use rand::rngs::StdRng;
use tskv::disk::SimDisk;
use tskv::wal::{VnodeLog, Wal, WalConfig, WalWriter};
use tskv::{
    CompactionWish, DecodedCache, Error, MemcacheGauge, Outcome, Progress, ScanColumn, ScanRequest,
    Schemas, SeriesCache, SeriesFilter, ValueTest, Vnode, VnodeConfig, VnodeScan, WriteId,
    encode_delete_matching, encode_delete_rows, encode_end, encode_write,
};

pub(crate) const TABLE: TableId = TableId(9);
pub(crate) const TAG: ColumnId = ColumnId(1);
const FIELDS: [u32; 3] = [2, 3, 4];
const VNODE: VnodeId = VnodeId(5);

/// (tag value, time) → column → value; a column that nothing wrote is not there.
pub(crate) type Rows = BTreeMap<(Option<String>, i64), BTreeMap<u32, Option<i64>>>;

/// A write: the columns it names, and rows of (tag, time, values).
#[derive(Clone, Debug)]
pub(crate) struct TestWrite {
    pub(crate) columns: Vec<u32>,
    pub(crate) rows: Vec<(Option<String>, i64, Vec<Option<i64>>)>,
}

/// A delete: of single rows, or of all rows of some tag's value within some times.
#[derive(Clone, Debug)]
pub(crate) enum TestDelete {
    Rows(Vec<(Option<String>, i64)>),
    Matching(Option<Option<String>>, TimeRange),
}

pub(crate) struct TestVnode {
    wal: Arc<Wal>,
    log: VnodeLog,
    vnode: Vnode,
    next_index: u64,
}

impl TestVnode {
    /// Opens or recovers what is on `disk`. Flushes write one file: threads would make runs unlike.
    pub(crate) fn open(disk: &SimDisk) -> Result<Self, Error> {
        Self::open_partitioned(disk, 1)
    }

    /// As [`TestVnode::open`], with flushes that write several files at once.
    pub(crate) fn open_partitioned(disk: &SimDisk, partitions: usize) -> Result<Self, Error> {
        let disk = Arc::new(disk.clone());
        let config =
            WalConfig { segment_bytes: 2_048, writer: WalWriter::Caller, on_failure: |_| {} };
        let wal = Wal::open(Arc::<SimDisk>::clone(&disk), Path::new("wal"), &config)?;
        let gauge = Arc::new(MemcacheGauge::default());
        let folder = Path::new("vnode").to_path_buf();
        let cache = Arc::new(SeriesCache::default());
        let decoded = Arc::new(DecodedCache::default());
        let schemas = Schemas::unknown();
        let readers_max = Some(2);
        let config =
            VnodeConfig { disk, folder, gauge, cache, decoded, schemas, partitions, readers_max };
        let vnode = Vnode::open(config, VNODE)?;
        let log = wal.log(VNODE);
        let applied = vnode.progress().map_or(0, |progress| progress.applied);
        vnode.check_covers(log.purged().map_or(0, |(upto, _)| upto))?;
        let entries = log.read(applied + 1, u64::MAX, usize::MAX)?;
        let mut next_index = applied + 1;
        for entry in entries {
            apply(&vnode, next_index, &entry)?;
            next_index += 1;
        }
        Ok(Self { wal, log, vnode, next_index })
    }

    /// Logs and applies a write; it is acknowledged when this returns.
    pub(crate) fn write(&mut self, id: WriteId, write: &TestWrite) -> Result<Outcome, Error> {
        self.propose(encode_write(id, 0, &[write.points()]))
    }

    /// Logs and applies a delete; it is acknowledged when this returns.
    pub(crate) fn delete(&mut self, id: WriteId, delete: &TestDelete) -> Result<Outcome, Error> {
        self.propose(match delete {
            TestDelete::Rows(rows) => {
                let rows = rows.iter().map(|(tag, time)| (tag.clone(), *time, Vec::new()));
                let rows = TestWrite { columns: Vec::new(), rows: rows.collect() };
                encode_delete_rows(id, 0, &rows.points())
            }
            TestDelete::Matching(tag, times) => {
                let terms = tag.iter().map(|tag| (TAG, vec![tag.clone()])).collect();
                encode_delete_matching(
                    id,
                    0,
                    TABLE,
                    (&SeriesFilter { terms, ..SeriesFilter::default() }, *times),
                )
            }
        })
    }

    /// Logs and applies an end: no later rows are taken.
    pub(crate) fn end(&mut self, id: WriteId, until: i64) -> Result<Outcome, Error> {
        self.propose(encode_end(id, 0, until))
    }

    fn propose(&mut self, command: Bytes) -> Result<Outcome, Error> {
        let (sender, mut receiver) = tokio::sync::oneshot::channel();
        let done = Box::new(move |outcome| sender.send(outcome).unwrap());
        block_on(self.log.append(vec![(self.next_index, command.clone())], done));
        receiver.try_recv().unwrap()?;
        let outcome = apply(&self.vnode, self.next_index, &command)?;
        self.next_index += 1;
        Ok(outcome)
    }

    pub(crate) fn flush(&self) -> Result<(), Error> {
        if let Some(progress) = self.vnode.flush()? {
            block_on(self.log.purge(progress.applied, progress.raft_state))?;
        }
        Ok(())
    }

    /// Compacts everything to one sorted run, or what is due.
    pub(crate) fn compact(&self, wish: CompactionWish) -> Result<(), Error> {
        self.vnode.compact(wish, &AtomicBool::new(false)).map(|_| ())
    }

    /// Replaces what is here by an image of another replica, in one go or in pieces of several.
    pub(crate) fn take_image(&mut self, from: &Self) -> Result<(), Error> {
        let Some((progress, manifest)) = from.vnode.image()? else { return Ok(()) };
        while let Some(piece) = self.vnode.missing_piece(&manifest)? {
            let bytes = from.vnode.read_piece(&piece.part, piece.offset, piece.len)?;
            self.vnode.keep_piece(&manifest, &piece, &bytes)?;
        }
        self.vnode.check_image(&manifest)?;
        self.vnode.install_image(&manifest, progress.raft_state.clone())?;
        self.next_index = progress.applied + 1;
        block_on(self.log.purge(progress.applied, progress.raft_state))
    }

    pub(crate) fn wal(&self) -> &Arc<Wal> {
        &self.wal
    }

    pub(crate) fn vnode(&self) -> &Vnode {
        &self.vnode
    }

    /// Reads everything.
    pub(crate) fn rows(&self) -> Result<Rows, Error> {
        self.scan(TimeRange::ALL, SeriesFilter::default())
    }

    /// Reads what lies within `times` and is kept by `filter`, and checks the promised order.
    pub(crate) fn scan(&self, times: TimeRange, filter: SeriesFilter) -> Result<Rows, Error> {
        Self::read(self.vnode.scan(Self::request(times, filter))?)
    }

    /// Reads what lies within `times` and is kept by `filter`, but maybe not what fails a test.
    pub(crate) fn scan_tested(
        &self,
        times: TimeRange,
        filter: SeriesFilter,
        test: ValueTest,
    ) -> Result<Rows, Error> {
        let request = ScanRequest { values: vec![test], ..Self::request(times, filter) };
        Self::read(self.vnode.scan(request)?)
    }

    /// Returns how many vectors are decoded by themselves for rows within `times` that pass a test.
    pub(crate) fn vectors_read(&self, times: TimeRange, test: ValueTest) -> Result<usize, Error> {
        let request = Self::request(times, SeriesFilter::default());
        let mut scan = self.vnode.scan(ScanRequest { values: vec![test], ..request })?;
        while scan.next_batch()?.is_some() {}
        Ok(scan.counts().vectors)
    }

    /// Reads the last row of each tag within `times`.
    pub(crate) fn last_rows(&self, times: TimeRange) -> Result<Rows, Error> {
        let request = Self::request(times, SeriesFilter::default());
        Self::read(self.vnode.scan(request)?.only_last_rows())
    }

    /// Returns the number of rows, where it is known without reading them.
    pub(crate) fn exact_rows(&self) -> Option<usize> {
        let request = Self::request(TimeRange::ALL, SeriesFilter::default());
        self.vnode.scan(request).ok()?.exact().map(|exact| exact.rows)
    }

    fn request(times: TimeRange, filter: SeriesFilter) -> ScanRequest {
        let mut columns = vec![ScanColumn::Time, ScanColumn::Tag(TAG)];
        let mut fields = vec![
            Field::new("time", model::schema::time_type(), false),
            Field::new("tag", DataType::Utf8, true),
        ];
        for id in FIELDS {
            columns.push(ScanColumn::Field(ColumnId(id), ValueType::I64));
            fields.push(Field::new(format!("f{id}"), DataType::Int64, true));
        }
        let schema = Arc::new(Schema::new(fields));
        ScanRequest {
            table: TABLE,
            columns,
            schema,
            times,
            filter,
            values: Vec::new(),
            order: vec![TAG],
        }
    }

    fn read(mut scan: VnodeScan) -> Result<Rows, Error> {
        let mut rows = Rows::new();
        let mut last = None;
        while let Some(batch) = scan.next_batch()? {
            let time = batch.column(0).as_primitive::<TimestampNanosecondType>();
            let tags = batch.column(1).as_string::<i32>();
            for row in 0..batch.num_rows() {
                let tag = tags.is_valid(row).then(|| tags.value(row).to_owned());
                let key = (tag.is_none(), tag.clone(), time.value(row));
                assert!(last.is_none_or(|last| last < key) || !scan.is_ordered(), "out of order");
                last = Some(key);
                let values = FIELDS.iter().enumerate().map(|(at, id)| {
                    let values = batch.column(at + 2).as_primitive::<Int64Type>();
                    (*id, values.is_valid(row).then(|| values.value(row)))
                });
                let doubled = rows.insert((tag, time.value(row)), values.collect());
                assert!(doubled.is_none(), "row twice");
            }
        }
        Ok(rows)
    }
}

fn apply(vnode: &Vnode, index: u64, command: &Bytes) -> Result<Outcome, Error> {
    let raft_state = Bytes::copy_from_slice(&index.to_le_bytes());
    let progress = Progress { applied: index, raft_state };
    Ok(vnode.apply(progress, std::slice::from_ref(command))?[0])
}

/// Drives a future that never waits, as nothing does without a writer thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("the log without a thread never waits"),
    }
}

impl TestWrite {
    /// Makes up a write over few series and times, so that rows meet.
    pub(crate) fn random(random: &mut StdRng) -> Self {
        let mut columns = FIELDS.to_vec();
        columns.retain(|_| random.random_bool(0.6));
        let rows = (0..random.random_range(1..12)).map(|_| {
            let tag = [None, Some(""), Some("a"), Some("b")][random.random_range(0..4)];
            let values = columns
                .iter()
                .map(|_| random.random_bool(0.8).then(|| random.random_range(-1_000..1_000)));
            let values = values.collect();
            (tag.map(str::to_owned), random.random_range(-20..20), values)
        });
        let rows = rows.collect();
        Self { columns, rows }
    }

    pub(crate) fn points(&self) -> Points {
        let mut series = SeriesDictionary::default();
        let row_series = self.rows.iter().map(|(tag, _, _)| {
            let key = SeriesKey::encode(TABLE, [(TAG, tag.as_deref())].into_iter());
            series.number(key.as_bytes())
        });
        let row_series = row_series.collect();
        let fields = self.columns.iter().enumerate().map(|(at, id)| PointsColumn {
            id: ColumnId(*id),
            value_type: ValueType::I64,
            values: Arc::new(Int64Array::from_iter(self.rows.iter().map(|row| row.2[at]))),
        });
        Points {
            table: TABLE,
            series: series.into_keys(),
            row_series,
            times: self.rows.iter().map(|row| row.1).collect(),
            fields: fields.collect(),
        }
    }

    /// Does to the map what the write does to the vnode.
    pub(crate) fn apply_to(&self, rows: &mut Rows) {
        for (tag, time, values) in &self.rows {
            let empty = || FIELDS.iter().map(|id| (*id, None)).collect();
            let row = rows.entry((tag.clone(), *time)).or_insert_with(empty);
            for (id, value) in self.columns.iter().zip(values) {
                row.insert(*id, *value);
            }
        }
    }
}

impl TestDelete {
    /// Makes up a delete that meets rows of [`TestWrite::random`].
    pub(crate) fn random(random: &mut StdRng) -> Self {
        let tag = |random: &mut StdRng| {
            [None, Some(""), Some("a"), Some("b")][random.random_range(0..4)].map(str::to_owned)
        };
        if random.random_bool(0.5) {
            let rows = 0..random.random_range(1..8);
            return Self::Rows(rows.map(|_| (tag(random), random.random_range(-20..20))).collect());
        }
        let min = random.random_range(-22..20);
        let times = TimeRange { min, max: min + random.random_range(0..12) };
        let tag = random.random_bool(0.7).then(|| tag(random));
        Self::Matching(tag, if random.random_bool(0.1) { TimeRange::ALL } else { times })
    }

    /// Does to the map what the delete does to the vnode.
    pub(crate) fn apply_to(&self, rows: &mut Rows) {
        match self {
            Self::Rows(deleted) => deleted.iter().for_each(|key| {
                rows.remove(key);
            }),
            Self::Matching(tag, times) => rows.retain(|(row_tag, time), _| {
                !(times.contains(*time) && tag.as_ref().is_none_or(|tag| tag == row_tag))
            }),
        }
    }
}
