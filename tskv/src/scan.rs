//! Reads a table out of one vnode as Arrow batches, series in the order of their tags.
//!
//! Order: where [`VnodeScan::is_ordered`] says so, rows come by tag values (NULLs last), then time.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, TimestampNanosecondArray, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use model::series_key::tag;
use model::{ColumnId, TableId, TimeRange, ValueType};
use serde::{Deserialize, Serialize};

use crate::damage::Damage;
use crate::error::{Error, Result};
use crate::index::{SeriesFilter, SeriesIndex};
use crate::reader::{ExactCounts, RowReader, RowRequest, ScanCounts};
use crate::run::Run;
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
    /// All tags of the table, in the order rows are to come by.
    pub order: Vec<ColumnId>,
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
        damage: Damage,
    ) -> Result<Self> {
        let rows_about = rows_about(pinned, &request);
        let ordered = ids.len() <= ORDERED_SERIES_MAX || rows_about / ids.len() >= ROWS_LONG;
        let keys = if ordered {
            let keys = index.keys(&ids)?;
            let mut series: Vec<(u32, Arc<[u8]>)> = ids.into_iter().zip(keys).collect();
            sort_by_tags(&mut series, &request.order);
            let keys;
            (ids, keys) = series.into_iter().unzip();
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
        };
        Ok(Self {
            reader: RowReader::new(pinned, rows),
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
        self.request.filter.is_empty().then(|| self.reader.exact()).flatten()
    }

    /// Makes the scan yield only the last row of each series.
    pub fn only_last_rows(mut self) -> Self {
        self.last_rows = true;
        self
    }

    /// Returns about how many rows there are.
    pub fn rows_about(&self) -> usize {
        self.rows_about
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
        let wants_tags = self.request.columns.iter().any(|one| matches!(one, ScanColumn::Tag(_)));
        let keys = if wants_tags { self.keys_of(run)? } else { Vec::new() };
        let columns: Vec<ArrayRef> = self
            .request
            .columns
            .iter()
            .map(|column| match column {
                ScanColumn::Time => {
                    let times = TimestampNanosecondArray::from(run.times.clone());
                    Arc::new(times.with_timezone(model::schema::TIME_ZONE)) as ArrayRef
                }
                ScanColumn::Tag(id) => tag_column(run, &keys, *id),
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

/// Builds a tag's column: each series' value once, then as often as it has rows.
fn tag_column(run: &Run, keys: &[Arc<[u8]>], id: ColumnId) -> ArrayRef {
    let values: StringArray = keys.iter().map(|key| tag(key, id)).collect();
    let mut picks = Vec::with_capacity(run.rows());
    for (number, (_, start, end)) in run.series_rows().enumerate() {
        picks.resize(picks.len() + end - start, number as u32);
    }
    arrow::compute::take(&values, &UInt32Array::from(picks), None)
        .expect("picks are inside the values")
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

/// Sorts series by their tag values in the order of `columns`, NULLs last.
fn sort_by_tags(series: &mut [(u32, Arc<[u8]>)], columns: &[ColumnId]) {
    series.sort_by_cached_key(|(id, key)| {
        let values = columns.iter().map(|column| {
            let value = tag(key, *column);
            (value.is_none(), value.unwrap_or_default().to_owned())
        });
        (values.collect::<Vec<_>>(), *id)
    });
}
