//! Reads a table out of one vnode as Arrow batches, series in the order of their tags.
//!
//! Order: where [`VnodeScan::is_ordered`] says so, rows come by tag values (NULLs last), then time.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampNanosecondArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use model::{ColumnId, TableId, TimeRange, ValueType};
use serde::{Deserialize, Serialize};

use crate::damage::Damage;
use crate::decoded::DecodedCache;
use crate::error::{Error, Result};
use crate::index::{SeriesFilter, SeriesIndex};
use crate::ordered::{OrderedSeries, SeriesAsked};
use crate::reader::known::KnownGroup;
use crate::reader::{ExactCounts, RowReader, RowRequest, ScanCounts};
use crate::run::{Run, RunColumn};
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
    /// The schema of the answer: one field for each of `columns`. A tag that is a dictionary there comes as one,
    /// in which each series of the scan has its place; two places may have the same text.
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
    /// Returns the tags of the answer, in order.
    fn tags(&self) -> Vec<ColumnId> {
        let tags = self.columns.iter().filter_map(|column| match column {
            ScanColumn::Tag(id) => Some(*id),
            ScanColumn::Time | ScanColumn::Field(..) => None,
        });
        tags.collect()
    }
}

/// A scan under way. It sees what was visible when it was opened; a clone starts where it stands.
#[derive(Clone)]
pub struct VnodeScan {
    request: ScanRequest,
    reader: RowReader,
    tags: Tags,
    ordered: bool,
    last_rows: bool,
    rows_about: usize,
    /// What is left of the last run.
    open: Option<OpenRun>,
    damage: Damage,
}

/// The tags of the series.
#[derive(Clone)]
enum Tags {
    /// All of them, in visiting order.
    Known(Arc<OrderedSeries>),
    /// Where they are looked up as rows come.
    Within(Arc<SeriesIndex>),
}

impl std::fmt::Debug for VnodeScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VnodeScan").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// A run that is given out batch by batch.
#[derive(Clone)]
struct OpenRun {
    series: ScalarBuffer<u32>,
    times: ArrayRef,
    columns: Vec<RunColumn>,
    /// The first row of the next batch.
    next: usize,
}

impl OpenRun {
    fn new(run: Run) -> Self {
        let Run { series, times, columns } = run;
        let times = TimestampNanosecondArray::new(times, None);
        let times = times.with_timezone(model::schema::TIME_ZONE);
        Self { series, times: Arc::new(times), columns, next: 0 }
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
        let tags = if ordered || (keeps_keys && !request.tags().is_empty()) {
            let order = if ordered { request.order.clone() } else { Vec::new() };
            let asked = SeriesAsked::new(index, request.table, &ids, (order, request.tags()));
            let series = ordered_series(index, ids, asked, decoded)?;
            ids = series.ids.clone();
            Tags::Known(series)
        } else {
            Tags::Within(Arc::clone(index))
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
            tags,
            ordered,
            last_rows: false,
            rows_about,
            open: None,
            request,
            damage,
        })
    }

    /// Has the answer come in a schema that differs in which tags are dictionaries.
    pub fn in_schema(&mut self, schema: &SchemaRef) {
        self.request.schema = Arc::clone(schema);
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

    /// Returns about how many rows lie in row groups that need perhaps not be read, of whatever series.
    pub fn rows_known_about(&self) -> usize {
        if self.knows_groups() { self.reader.rows_of_single_series() } else { 0 }
    }

    fn knows_groups(&self) -> bool {
        let has_tags = matches!(self.tags, Tags::Known(_)) || self.request.tags().is_empty();
        has_tags && self.request.values.is_empty() && !self.last_rows
    }

    /// Returns row groups that an aggregate need not read, `most` of them at most, in the order of their rows.
    pub fn known_groups(&self, most: usize) -> Vec<KnownGroup> {
        if self.knows_groups() { self.reader.known_groups(most) } else { Vec::new() }
    }

    /// Returns the tags asked for of row groups this scan knows, in order: a value for each group.
    pub fn tags_of(&self, known: &[KnownGroup]) -> Vec<ArrayRef> {
        let Tags::Known(series) = &self.tags else { return Vec::new() };
        let places: Vec<u32> = known.iter().map(|group| group.series).collect();
        (0..self.request.tags().len()).map(|number| series.texts(number, &places)).collect()
    }

    /// Has the scan leave out row groups it knows.
    pub fn leave_out(&mut self, known: &[KnownGroup]) {
        self.reader.leave_out(known);
        self.rows_about -= known.iter().map(|group| group.rows).sum::<usize>();
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

    /// Returns whether little has to be decoded for it.
    pub fn reads_little(&self) -> bool {
        !self.last_rows && self.reader.reads_little()
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
        let mut open = match self.open.take() {
            Some(open) => open,
            None => match self.next_run()? {
                Some(run) => OpenRun::new(run),
                None => return Ok(None),
            },
        };
        let batch = self.batch(&open)?;
        open.next += BATCH_ROWS;
        self.open = (open.next < open.series.len()).then_some(open);
        Ok(Some(batch))
    }

    /// Returns the next run that has rows.
    fn next_run(&mut self) -> Result<Option<Run>> {
        loop {
            let run = if self.last_rows {
                self.reader.next_last_rows()?
            } else {
                self.reader.next_run()?
            };
            if run.as_ref().is_none_or(|run| run.rows() > 0) {
                return Ok(run);
            }
        }
    }

    /// Makes the next batch of a run; those of one share its columns.
    fn batch(&self, open: &OpenRun) -> Result<RecordBatch> {
        let start = open.next;
        let count = BATCH_ROWS.min(open.series.len() - start);
        let mut tags = self.tag_columns(&open.series.slice(start, count))?.into_iter();
        let columns = self.request.columns.iter().map(|column| match column {
            ScanColumn::Time => open.times.slice(start, count),
            ScanColumn::Tag(_) => tags.next().expect("one for each tag asked for"),
            ScanColumn::Field(id, _) => {
                let column = open.columns.iter().find(|column| column.id == *id);
                column.expect("a merge yields every field asked for").values.slice(start, count)
            }
        });
        let columns = columns.collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let schema = Arc::clone(&self.request.schema);
        RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|error| Error::Stopped(format!("scan: {error}")))
    }

    /// Builds the columns of the tags asked for.
    fn tag_columns(&self, places: &ScalarBuffer<u32>) -> Result<Vec<ArrayRef>> {
        let wanted = self.request.tags();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        // A run numbers series by their places in the scan.
        let (series, places) = match &self.tags {
            Tags::Known(series) => (Arc::clone(series), places.clone()),
            Tags::Within(index) => {
                let stretches = || places.chunk_by(|a, b| a == b);
                let ids = stretches().map(|rows| self.reader.series()[rows[0] as usize]).collect();
                let mut numbers = Vec::with_capacity(places.len());
                for (number, rows) in stretches().enumerate() {
                    numbers.resize(numbers.len() + rows.len(), number as u32);
                }
                (self.series_within(index, ids, wanted)?, numbers.into())
            }
        };
        let fields = self.request.columns.iter().zip(self.request.schema.fields());
        let tags = fields.filter(|(column, _)| matches!(column, ScanColumn::Tag(_)));
        let columns = tags.enumerate().map(|(number, (_, field))| match field.data_type() {
            DataType::Dictionary(..) => series.dictionary(number, &places),
            _ => series.texts(number, &places),
        });
        Ok(columns.collect())
    }

    fn series_within(
        &self,
        index: &SeriesIndex,
        ids: Vec<u32>,
        wanted: Vec<ColumnId>,
    ) -> Result<Arc<OrderedSeries>> {
        let asked = SeriesAsked::new(index, self.request.table, &ids, (Vec::new(), wanted));
        Ok(Arc::new(OrderedSeries::read(index, ids, &asked)?))
    }
}

/// Returns series in the order of their tags, those that were asked for lately where they are the same.
fn ordered_series(
    index: &SeriesIndex,
    ids: Vec<u32>,
    asked: SeriesAsked,
    decoded: &DecodedCache,
) -> Result<Arc<OrderedSeries>> {
    let kept = if asked.are_many() { decoded.series(&asked) } else { None };
    if let Some(kept) = kept.filter(|kept| kept.are(&ids)) {
        return Ok(kept);
    }
    let series = Arc::new(OrderedSeries::read(index, ids, &asked)?);
    if asked.are_many() {
        decoded.put_series(asked, &series);
    }
    Ok(series)
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
