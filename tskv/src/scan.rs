//! Reads a table out of one vnode: prunes by series and time, merges files and memcache, yields
//! Arrow batches.
//!
//! Order: where [`VnodeScan::is_ordered`] says so, rows come by tag values (NULLs last), then time.
//! Memory: a unit of about [`UNIT_ROWS`] rows, and the pages it is made of.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, TimestampNanosecondArray, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use model::{ColumnId, TableId, TimeRange, ValueType};

use crate::error::{Error, Result};
use crate::run::{Columns, Run, merge};
use crate::series::{SeriesFilter, tag};
use crate::tsm::{RowGroup, TsmFile};

/// Rows merged at a time, estimated.
const UNIT_ROWS: usize = 65_536;
/// Series merged at a time.
const UNIT_SERIES_MAX: usize = 8_192;
/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;
/// Row groups kept decoded, for series that share them.
const GROUPS_CACHED: usize = 32;
/// Above this many series, rows in order of tags are given only where series are long.
const ORDERED_SERIES_MAX: usize = 16_384;

/// A column of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// What a reader pins: files and memcache runs, oldest first.
pub(crate) struct SuperVersion {
    pub(crate) files: Arc<Vec<Arc<TsmFile>>>,
    pub(crate) runs: Vec<Arc<Run>>,
}

/// What was read of how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// Files with rows of the table in the time range.
    pub files: usize,
    /// All files.
    pub files_all: usize,
    /// Row groups that had to be read at least once, as far as the scan came.
    pub groups: usize,
    /// Row groups of the table.
    pub groups_all: usize,
    /// Series the filter kept.
    pub series: usize,
}

/// A scan under way. It sees what was visible when it was opened; a clone starts where it stands.
#[derive(Clone)]
pub struct VnodeScan {
    request: ScanRequest,
    fields: Vec<(ColumnId, ValueType)>,
    files: Vec<(Arc<TsmFile>, Vec<usize>)>,
    runs: Vec<Arc<Run>>,
    /// In visiting order: id and key.
    series: Arc<Vec<(u32, Arc<[u8]>)>>,
    rank: Arc<HashMap<u32, u32>>,
    ordered: bool,
    next_series: usize,
    units: VecDeque<Unit>,
    ready: VecDeque<RecordBatch>,
    cache: VecDeque<((usize, usize), Arc<Run>)>,
    counts: ScanCounts,
}

/// Rows merged together: some series within some time.
#[derive(Clone, Copy, Debug)]
struct Unit {
    ranks: (usize, usize),
    times: TimeRange,
}

impl std::fmt::Debug for VnodeScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VnodeScan").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl VnodeScan {
    pub(crate) fn new(
        pinned: SuperVersion,
        mut series: Vec<(u32, Arc<[u8]>)>,
        request: ScanRequest,
    ) -> Self {
        let mut counts = ScanCounts {
            files_all: pinned.files.len(),
            series: series.len(),
            ..ScanCounts::default()
        };
        let mut files = Vec::new();
        let mut rows = pinned.runs.iter().map(|run| run.rows()).sum::<usize>();
        for file in pinned.files.iter() {
            let of_table = |group: &&RowGroup| group.table == request.table;
            counts.groups_all += file.groups().iter().filter(of_table).count();
            let inside = |group: &RowGroup| {
                group.table == request.table && group.times.overlaps(&request.times)
            };
            let numbered = file.groups().iter().enumerate().filter(|(_, group)| inside(group));
            let groups: Vec<usize> = numbered.map(|(number, _)| number).collect();
            rows += groups.iter().map(|n| file.groups()[*n].rows as usize).sum::<usize>();
            if !groups.is_empty() {
                counts.files += 1;
                files.push((Arc::clone(file), groups));
            }
        }
        let ordered = series.len() <= ORDERED_SERIES_MAX || rows / series.len() >= 1_024;
        if ordered {
            sort_by_tags(&mut series, &request.order);
        }
        let rank = series.iter().enumerate().map(|(rank, (id, _))| (*id, rank as u32)).collect();
        let fields = request.columns.iter().filter_map(|column| match column {
            ScanColumn::Field(id, value_type) => Some((*id, *value_type)),
            ScanColumn::Time | ScanColumn::Tag(_) => None,
        });
        Self {
            fields: fields.collect(),
            files,
            runs: pinned.runs,
            series: Arc::new(series),
            rank: Arc::new(rank),
            ordered,
            next_series: 0,
            units: VecDeque::new(),
            ready: VecDeque::new(),
            cache: VecDeque::new(),
            counts,
            request,
        }
    }

    /// Returns whether rows come by tag values, then time.
    pub fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Returns what was read so far.
    pub fn counts(&self) -> ScanCounts {
        self.counts
    }

    /// Returns the next rows; `None` at the end. Blocks on the disk.
    ///
    /// # Errors
    /// `Corrupt`, naming file and offset; what the disk says.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while self.ready.is_empty() {
            let Some(unit) = self.next_unit() else { return Ok(None) };
            let run = self.read(unit)?;
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

    fn next_unit(&mut self) -> Option<Unit> {
        if let Some(unit) = self.units.pop_front() {
            return Some(unit);
        }
        let start = self.next_series;
        let mut rows = 0;
        while self.next_series < self.series.len() && self.next_series - start < UNIT_SERIES_MAX {
            let estimate = self.estimate(self.series[self.next_series].0);
            if rows > 0 && rows + estimate > UNIT_ROWS {
                break;
            }
            rows += estimate;
            self.next_series += 1;
        }
        if start == self.next_series {
            return None;
        }
        let ranks = (start, self.next_series);
        if ranks.1 - ranks.0 == 1 && rows > 2 * UNIT_ROWS {
            self.units = self
                .slices(self.series[start].0, rows)
                .into_iter()
                .map(|times| Unit { ranks, times })
                .collect();
            return self.units.pop_front();
        }
        Some(Unit { ranks, times: self.request.times })
    }

    fn groups_of(&self, series: u32) -> impl Iterator<Item = &RowGroup> {
        self.files.iter().flat_map(move |(file, groups)| {
            let groups = groups.iter().map(|number| &file.groups()[*number]);
            groups.filter(move |group| group.series.0 <= series && series <= group.series.1)
        })
    }

    fn estimate(&self, series: u32) -> usize {
        let in_files =
            self.groups_of(series).map(|group| (group.rows / group.series_count) as usize);
        let in_runs = self.runs.iter().map(|run| {
            let (start, end) = run.rows_of(series, self.request.times);
            end - start
        });
        in_files.sum::<usize>() + in_runs.sum::<usize>()
    }

    /// Cuts the time of one long series where its row groups end.
    fn slices(&self, series: u32, rows: usize) -> Vec<TimeRange> {
        let all = self.request.times;
        let mut ends: Vec<i64> = self.groups_of(series).map(|group| group.times.max).collect();
        for run in &self.runs {
            let (start, end) = run.rows_of(series, all);
            ends.extend(run.times[start..end].iter().skip(UNIT_ROWS / 8).step_by(UNIT_ROWS / 8));
        }
        ends.sort_unstable();
        let step = (ends.len() / (rows / UNIT_ROWS).max(1)).max(1);
        let mut slices = Vec::new();
        let mut from = all.min;
        for end in ends.iter().skip(step - 1).step_by(step) {
            if from <= *end && *end < all.max {
                slices.push(TimeRange { min: from, max: *end });
                from = *end + 1;
            }
        }
        slices.push(TimeRange { min: from, max: all.max });
        slices
    }

    /// Reads the rows of a unit out of all sources; their series are ranks.
    fn read(&mut self, unit: Unit) -> Result<Run> {
        let mut parts: Vec<Run> = Vec::new();
        let mut ids: Vec<u32> =
            self.series[unit.ranks.0..unit.ranks.1].iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        for file in 0..self.files.len() {
            for at in 0..self.files[file].1.len() {
                let number = self.files[file].1[at];
                let group = &self.files[file].0.groups()[number];
                let first = ids.partition_point(|id| *id < group.series.0);
                let holds = ids.get(first).is_some_and(|id| *id <= group.series.1);
                if holds && group.times.overlaps(&unit.times) {
                    let run = self.group(file, number)?;
                    parts.extend(self.part(&run, &ids, unit));
                }
            }
        }
        for run in &self.runs {
            parts.extend(self.part(run, &ids, unit));
        }
        let parts: Vec<&Run> = parts.iter().collect();
        Ok(merge(&parts, &Columns::These(&self.fields)))
    }

    fn group(&mut self, file: usize, number: usize) -> Result<Arc<Run>> {
        let key = (file, number);
        if let Some((_, run)) = self.cache.iter().find(|(cached, _)| *cached == key) {
            return Ok(Arc::clone(run));
        }
        let (file, _) = &self.files[file];
        let run = Arc::new(file.read(&file.groups()[number], &self.fields)?);
        self.counts.groups += 1;
        if self.cache.len() == GROUPS_CACHED {
            self.cache.pop_front();
        }
        self.cache.push_back((key, Arc::clone(&run)));
        Ok(run)
    }

    /// Takes the rows of a unit out of one run.
    fn part(&self, run: &Run, ids: &[u32], unit: Unit) -> Option<Run> {
        let mut picks: Vec<u32> = Vec::new();
        let mut ranks = Vec::new();
        let mut take = |(start, end): (usize, usize), id: u32| {
            if start < end {
                picks.extend(start as u32..end as u32);
                ranks.resize(picks.len(), self.rank[&id]);
            }
        };
        let (first, last) = (*run.series.first()?, *run.series.last()?);
        let from = ids.partition_point(|id| *id < first);
        let to = ids.partition_point(|id| *id <= last);
        for id in &ids[from..to.max(from)] {
            take(run.rows_of(*id, unit.times), *id);
        }
        let (start, end) = (*picks.first()? as usize, *picks.last()? as usize + 1);
        if end - start == picks.len() {
            let mut part = run.slice(start, end);
            part.series = ranks;
            return Some(part);
        }
        Some(run.pick(&picks, ranks))
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
                values.push(tag(&self.series[*rank as usize].1, id));
                last = Some(*rank);
            }
            picks.push(values.len() as u32 - 1);
        }
        let values = StringArray::from(values);
        arrow::compute::take(&values, &UInt32Array::from(picks), None)
            .expect("picks are inside the values")
    }
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
