//! Reads a table out of one vnode as Arrow batches, series in the order of their tags.
//!
//! Order: where [`VnodeScan::is_ordered`] says so, rows come by tag values (NULLs last), then time.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, TimestampNanosecondArray, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use model::series_key::tags;
use model::{ColumnId, TableId, TimeRange, ValueType};
use serde::{Deserialize, Serialize};

use crate::damage::Damage;
use crate::decoded::DecodedCache;
use crate::error::{Error, Result};
use crate::index::{SeriesFilter, SeriesIndex};
use crate::reader::{ExactCounts, RowReader, RowRequest, ScanCounts};
use crate::run::Run;
use crate::value_test::ValueTest;
use crate::version::SuperVersion;

/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;
/// Above this many series, rows in order of tags are given only where series are long.
const ORDERED_SERIES_MAX: usize = 16_384;
/// So many rows make a series long.
const ROWS_LONG: usize = 1_024;

/// A column of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScanColumn {
    /// The time.
    Time,
    /// A tag.
    Tag(ColumnId),
    /// A field.
    Field(ColumnId, ValueType),
}

/// What to read.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// The table.
    pub table: TableId,
    /// The columns of the answer, in order.
    pub columns: Vec<ScanColumn>,
    /// The schema of the answer: one field for each of `columns`.
    pub schema: SchemaRef,
    /// Rows outside are not returned.
    pub times: TimeRange,
    /// Series it does not keep are not returned.
    pub filter: SeriesFilter,
    /// Rows that fail one of these may be left out; the fields are among the columns.
    pub values: Vec<ValueTest>,
    /// All tags of the table, in the order rows are to come by.
    pub order: Vec<ColumnId>,
}

impl ScanRequest {
    fn wants_tags(&self) -> bool {
        self.columns.iter().any(|column| matches!(column, ScanColumn::Tag(_)))
    }
}

/// A scan under way. It sees what was visible when it was opened; a clone starts where it stands.
#[derive(Clone)]
pub struct VnodeScan {
    request: ScanRequest,
    reader: RowReader,
    keys: Keys,
    ordered: bool,
    last_rows: bool,
    rows_about: usize,
    ready: VecDeque<RecordBatch>,
    damage: Damage,
}

/// The keys of the series.
#[derive(Clone)]
enum Keys {
    /// All of them, in visiting order.
    Known(Arc<Vec<Arc<[u8]>>>),
    /// Where they are looked up as rows come.
    Within(Arc<SeriesIndex>),
}

impl std::fmt::Debug for VnodeScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VnodeScan").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl VnodeScan {
    pub(crate) fn new(
        pinned: &SuperVersion,
        (mut ids, index): (Vec<u32>, &Arc<SeriesIndex>),
        request: ScanRequest,
        (decoded, damage): (&Arc<DecodedCache>, Damage),
    ) -> Result<Self> {
        let rows_about = rows_about(pinned, &request);
        let keeps_keys = ids.len() <= ORDERED_SERIES_MAX || rows_about / ids.len() >= ROWS_LONG;
        // Without the first of them nobody can tell that rows come in the order of their tags.
        let first = request.order.first().map(|first| ScanColumn::Tag(*first));
        let ordered = keeps_keys && first.is_none_or(|first| request.columns.contains(&first));
        let keys = if ordered || (keeps_keys && request.wants_tags()) {
            let mut keys = index.keys(&ids)?;
            if ordered {
                (ids, keys) = sorted_by_tags(&ids, &keys, &request.order);
            }
            Keys::Known(Arc::new(keys))
        } else {
            Keys::Within(Arc::clone(index))
        };
        let fields = request.columns.iter().filter_map(|column| match column {
            ScanColumn::Field(id, value_type) => Some((*id, *value_type)),
            ScanColumn::Time | ScanColumn::Tag(_) => None,
        });
        let rows = RowRequest {
            table: request.table,
            times: request.times,
            fields: fields.collect(),
            series: ids,
            tests: request.values.clone(),
        };
        Ok(Self {
            reader: RowReader::new(pinned, rows).with_cache(Arc::clone(decoded)),
            keys,
            ordered,
            last_rows: false,
            rows_about,
            ready: VecDeque::new(),
            request,
            damage,
        })
    }

    /// Splits the scan by series into about `parts` scans; read one after another they yield what this
    /// one would.
    pub fn split(self, parts: usize) -> Vec<Self> {
        let series = self.reader.series().len();
        let parts = parts.clamp(1, series.max(1));
        let part = |number: usize| {
            let mut scan = self.clone();
            scan.reader.restrict(series * number / parts, series * (number + 1) / parts);
            scan
        };
        (0..parts).map(part).collect()
    }

    /// Returns whether rows come by tag values, then time.
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Returns what is known of the rows without reading them; `None` where only reading tells.
    pub fn exact(&self) -> Option<ExactCounts> {
        let are_all = self.request.filter.is_empty() && self.request.values.is_empty();
        are_all.then(|| self.reader.exact()).flatten()
    }

    /// Makes the scan yield only the last row of each series.
    pub fn only_last_rows(mut self) -> Self {
        self.last_rows = true;
        self
    }

    /// Tells the scan that no more rows than these are wanted; it may yield more.
    pub fn limit(&mut self, rows: usize) {
        self.reader.limit(rows);
    }

    /// Returns about how many rows lie in what has to be read.
    pub fn rows_about(&self) -> usize {
        self.rows_about
    }

    /// Returns about how many rows will come.
    pub fn rows_expected(&self) -> usize {
        if self.last_rows { self.counts().series } else { self.reader.rows_expected() }
    }

    /// Returns what was read so far.
    pub fn counts(&self) -> ScanCounts {
        self.reader.counts()
    }

    /// Returns the next rows; `None` at the end. Blocks on the disk.
    ///
    /// # Errors
    /// `Corrupt`, naming file and offset; what the disk says.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let next = self.read_batch();
        self.damage.note(next)
    }

    fn read_batch(&mut self) -> Result<Option<RecordBatch>> {
        while self.ready.is_empty() {
            let run = if self.last_rows {
                self.reader.next_last_rows()?
            } else {
                self.reader.next_run()?
            };
            let Some(run) = run else { return Ok(None) };
            let mut start = 0;
            while start < run.rows() {
                let end = (start + BATCH_ROWS).min(run.rows());
                let batch = self.batch(&run.slice(start, end))?;
                self.ready.push_back(batch);
                start = end;
            }
        }
        Ok(self.ready.pop_front())
    }

    fn batch(&self, run: &Run) -> Result<RecordBatch> {
        let tags = if self.request.wants_tags() { self.tag_columns(run)? } else { Vec::new() };
        let mut tags = tags.into_iter();
        let columns: Vec<ArrayRef> = self
            .request
            .columns
            .iter()
            .map(|column| match column {
                ScanColumn::Time => {
                    let times = TimestampNanosecondArray::from(run.times.clone());
                    Arc::new(times.with_timezone(model::schema::TIME_ZONE)) as ArrayRef
                }
                ScanColumn::Tag(_) => tags.next().expect("one for each tag asked for"),
                ScanColumn::Field(id, _) => {
                    let column = run.column(*id).expect("the merge yields every field asked for");
                    Arc::clone(&column.values)
                }
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(run.rows()));
        let schema = Arc::clone(&self.request.schema);
        RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|error| Error::Stopped(format!("scan: {error}")))
    }

    /// Builds the columns of the tags asked for: each series' value once, then as often as it has rows.
    fn tag_columns(&self, run: &Run) -> Result<Vec<ArrayRef>> {
        let wanted = self.request.columns.iter().filter_map(|column| match column {
            ScanColumn::Tag(id) => Some(*id),
            ScanColumn::Time | ScanColumn::Field(..) => None,
        });
        let wanted: Vec<ColumnId> = wanted.collect();
        let keys = self.keys_of(run)?;
        let found = values_of(&keys, &wanted);
        let mut picks = Vec::with_capacity(run.rows());
        for (number, (_, start, end)) in run.series_rows().enumerate() {
            picks.resize(picks.len() + end - start, number as u32);
        }
        let picks = UInt32Array::from(picks);
        let column = |at: usize| {
            let of_tag = found.iter().skip(at).step_by(wanted.len());
            let values: StringArray = of_tag.copied().collect();
            arrow::compute::take(&values, &picks, None).expect("picks are inside the values")
        };
        Ok((0..wanted.len()).map(column).collect())
    }

    /// Returns the key of each series of a run, in the order of its rows.
    fn keys_of(&self, run: &Run) -> Result<Vec<Arc<[u8]>>> {
        let places = run.series_rows().map(|(place, _, _)| place as usize);
        match &self.keys {
            Keys::Known(keys) => Ok(places.map(|place| Arc::clone(&keys[place])).collect()),
            Keys::Within(index) => {
                let ids: Vec<u32> = places.map(|place| self.reader.series()[place]).collect();
                index.keys(&ids)
            }
        }
    }
}

/// Returns the values of some tags of each key, key after key; `None` for NULL.
fn values_of<'a>(keys: &'a [Arc<[u8]>], wanted: &[ColumnId]) -> Vec<Option<&'a str>> {
    let mut values = vec![None; keys.len() * wanted.len()];
    for (row, key) in values.chunks_exact_mut(wanted.len().max(1)).zip(keys) {
        for (id, value) in tags(key) {
            let places = wanted.iter().enumerate().filter(|(_, one)| **one == id);
            places.for_each(|(at, _)| row[at] = Some(value));
        }
    }
    values
}

/// Returns about how many rows of the table lie within the times.
fn rows_about(pinned: &SuperVersion, request: &ScanRequest) -> usize {
    let in_memory: usize = pinned.runs.iter().map(|(_, run)| run.rows()).sum();
    let in_files = pinned.version.files.iter().flat_map(|one| {
        let groups = &one.file.groups()[one.file.groups_of(request.table)];
        let inside = groups.iter().filter(|group| group.times.overlaps(&request.times));
        inside.map(|group| group.rows as usize)
    });
    in_memory + in_files.sum::<usize>()
}

/// Returns series and their keys by their tag values in the order of `columns`, NULLs last.
fn sorted_by_tags(
    ids: &[u32],
    keys: &[Arc<[u8]>],
    columns: &[ColumnId],
) -> (Vec<u32>, Vec<Arc<[u8]>>) {
    let values = values_of(keys, columns);
    let of = |place: usize| {
        let values = &values[place * columns.len()..(place + 1) * columns.len()];
        values.iter().map(|value| (value.is_none(), *value))
    };
    let mut places: Vec<usize> = (0..ids.len()).collect();
    places.sort_by(|a, b| of(*a).cmp(of(*b)).then(ids[*a].cmp(&ids[*b])));
    places.into_iter().map(|place| (ids[place], Arc::clone(&keys[place]))).unzip()
}
