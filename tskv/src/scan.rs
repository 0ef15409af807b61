//! Reads a table out of one vnode as Arrow batches, series in the order of their tags.
//!
//! Order: where [`VnodeScan::is_ordered`] says so, rows come by tag values (NULLs last), then time.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, TimestampNanosecondArray, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use model::{ColumnId, TableId, TimeRange, ValueType};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::reader::{ExactCounts, RowReader, RowRequest, ScanCounts};
use crate::run::Run;
use crate::series::{SeriesFilter, tag};
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
    /// The keys of the series, in visiting order.
    keys: Arc<Vec<Arc<[u8]>>>,
    ordered: bool,
    last_rows: bool,
    rows_about: usize,
    ready: VecDeque<RecordBatch>,
}

impl std::fmt::Debug for VnodeScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VnodeScan").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl VnodeScan {
    pub(crate) fn new(
        pinned: &SuperVersion,
        mut series: Vec<(u32, Arc<[u8]>)>,
        request: ScanRequest,
    ) -> Self {
        let rows_about = rows_about(pinned, &request);
        let ordered = series.len() <= ORDERED_SERIES_MAX || rows_about / series.len() >= ROWS_LONG;
        if ordered {
            sort_by_tags(&mut series, &request.order);
        }
        let fields = request.columns.iter().filter_map(|column| match column {
            ScanColumn::Field(id, value_type) => Some((*id, *value_type)),
            ScanColumn::Time | ScanColumn::Tag(_) => None,
        });
        let rows = RowRequest {
            table: request.table,
            times: request.times,
            fields: fields.collect(),
            series: series.iter().map(|(id, _)| *id).collect(),
        };
        Self {
            reader: RowReader::new(pinned, rows),
            keys: Arc::new(series.into_iter().map(|(_, key)| key).collect()),
            ordered,
            last_rows: false,
            rows_about,
            ready: VecDeque::new(),
            request,
        }
    }

    /// Splits the scan by series into about `parts` scans; read one after another they yield what this
    /// one would.
    pub fn split(self, parts: usize) -> Vec<Self> {
        let series = self.keys.len();
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
        self.request.filter.terms.is_empty().then(|| self.reader.exact()).flatten()
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
        let columns: Vec<ArrayRef> = self
            .request
            .columns
            .iter()
            .map(|column| match column {
                ScanColumn::Time => {
                    let times = TimestampNanosecondArray::from(run.times.clone());
                    Arc::new(times.with_timezone(model::schema::TIME_ZONE)) as ArrayRef
                }
                ScanColumn::Tag(id) => self.tag_column(run, *id),
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

    /// Builds a tag's column: each series' value once, then as often as it has rows.
    fn tag_column(&self, run: &Run, id: ColumnId) -> ArrayRef {
        let mut values: Vec<Option<&str>> = Vec::new();
        let mut picks = Vec::with_capacity(run.rows());
        let mut last = None;
        for rank in &run.series {
            if last != Some(*rank) {
                values.push(tag(&self.keys[*rank as usize], id));
                last = Some(*rank);
            }
            picks.push(values.len() as u32 - 1);
        }
        let values = StringArray::from(values);
        arrow::compute::take(&values, &UInt32Array::from(picks), None)
            .expect("picks are inside the values")
    }
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
