//! Sorted runs: rows ordered by (series, time), each key once. Memcache chunks, TSM pages and the
//! answers of scans are all runs, and one merge serves flush and read.
//!
//! Invariant: of rows with the same key the newest run wins, column by column, among those that
//! wrote the column.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BooleanBufferBuilder, MutableArrayData, UInt32Array,
    make_array, new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use model::points::{PointsColumn, array_bytes};
use model::{ColumnId, TimeRange, ValueType};

use crate::reader::Place;

/// A column of a run.
#[derive(Clone, Debug)]
pub(crate) struct RunColumn {
    pub(crate) id: ColumnId,
    pub(crate) value_type: ValueType,
    pub(crate) values: ArrayRef,
    /// Which rows wrote this column (with a value or NULL); `None` where all did.
    pub(crate) written: Option<BooleanBuffer>,
}

/// Rows of one table, sorted by (series, time), without duplicate keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) series: Vec<u32>,
    pub(crate) times: Vec<i64>,
    pub(crate) columns: Vec<RunColumn>,
}

/// What a merge is to yield.
pub(crate) enum Columns<'a> {
    /// Every column any run has, in order of id.
    All,
    /// These, in this order; NULL where no run has one.
    These(&'a [(ColumnId, ValueType)]),
}

impl Run {
    /// Sorts rows as they arrived; of equal keys the later row wins, column by column.
    pub(crate) fn sort(series: Vec<u32>, times: Vec<i64>, columns: &[PointsColumn]) -> Self {
        let columns = columns.iter().map(|column| RunColumn {
            id: column.id,
            value_type: column.value_type,
            values: Arc::clone(&column.values),
            written: None,
        });
        let unsorted = Self { series, times, columns: columns.collect() };
        let keys = (0..unsorted.rows()).map(|row| unsorted.key(row));
        if keys.is_sorted_by(|left, right| left < right) {
            return unsorted;
        }
        sort_rows(&unsorted)
    }

    pub(crate) fn rows(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn key(&self, row: usize) -> (u32, i64) {
        (self.series[row], self.times[row])
    }

    /// Returns the bytes of text in rows `start..end`: what a group of rows may grow large by.
    pub(crate) fn text_bytes(&self, start: usize, end: usize) -> usize {
        let texts = self.columns.iter().filter(|column| column.value_type == ValueType::Str);
        let bytes = texts.map(|column| {
            let offsets = column.values.as_string::<i32>().value_offsets();
            offsets[end].abs_diff(offsets[start]) as usize
        });
        bytes.sum()
    }

    /// Returns the bytes the run takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let columns = self.columns.iter().map(|column| array_bytes(&column.values) + 64);
        self.rows() * 12 + columns.sum::<usize>() + 128
    }

    pub(crate) fn column(&self, id: ColumnId) -> Option<&RunColumn> {
        self.columns.iter().find(|column| column.id == id)
    }

    /// Returns rows `start..end`, sharing the columns' buffers.
    pub(crate) fn slice(&self, start: usize, end: usize) -> Self {
        let columns = self.columns.iter().map(|column| column.slice(start, end));
        Self {
            series: self.series[start..end].to_vec(),
            times: self.times[start..end].to_vec(),
            columns: columns.collect(),
        }
    }

    /// Returns each series with its rows, as (series, start, end).
    pub(crate) fn series_rows(&self) -> impl Iterator<Item = (u32, usize, usize)> {
        let mut start = 0;
        let stretches = self.series.chunk_by(|a, b| a == b);
        stretches.map(move |stretch| {
            let rows = (stretch[0], start, start + stretch.len());
            start += stretch.len();
            rows
        })
    }

    /// Returns the rows of a series within a time range, as `start..end`.
    pub(crate) fn rows_of(&self, series: u32, times: TimeRange) -> (usize, usize) {
        let start = self.series.partition_point(|s| *s < series);
        let end = start + self.series[start..].partition_point(|s| *s == series);
        self.within(start, end, times)
    }

    /// Returns the series and times the rows lie within; there must be one.
    pub(crate) fn place(&self) -> Place {
        let mut times = TimeRange { min: i64::MAX, max: i64::MIN };
        for time in &self.times {
            times = TimeRange { min: times.min.min(*time), max: times.max.max(*time) };
        }
        Place { series: (self.series[0], self.series[self.rows() - 1]), times }
    }

    /// Narrows rows `start..end`, which are of one series, to a time range.
    pub(crate) fn within(&self, start: usize, end: usize, times: TimeRange) -> (usize, usize) {
        let within = &self.times[start..end];
        let from = start + within.partition_point(|time| *time < times.min);
        let to = start + within.partition_point(|time| *time <= times.max);
        (from, to.max(from))
    }

    /// Returns the named rows, each under another series number; the result is sorted only if the
    /// caller's order is.
    pub(crate) fn pick(&self, rows: &[u32], series: Vec<u32>) -> Self {
        let picks = UInt32Array::from(rows.to_vec());
        Self {
            series,
            times: rows.iter().map(|row| self.times[*row as usize]).collect(),
            columns: self.columns.iter().map(|column| column.pick(&picks)).collect(),
        }
    }
}

impl RunColumn {
    /// Returns rows `start..end`, sharing the buffers.
    pub(crate) fn slice(&self, start: usize, end: usize) -> Self {
        Self {
            id: self.id,
            value_type: self.value_type,
            values: self.values.slice(start, end - start),
            written: self.written.as_ref().map(|written| written.slice(start, end - start)),
        }
    }

    /// Returns the named rows.
    pub(crate) fn pick(&self, rows: &UInt32Array) -> Self {
        let picked = |written: &BooleanBuffer| {
            rows.values().iter().map(|row| written.value(*row as usize)).collect()
        };
        Self {
            id: self.id,
            value_type: self.value_type,
            values: take(&self.values, rows, None).expect("rows are inside the run"),
            written: self.written.as_ref().map(picked),
        }
    }
}

/// Rows of one series that lie together in one run.
#[derive(Clone, Copy)]
struct Piece {
    series: u32,
    first: i64,
    last: i64,
    run: usize,
    start: usize,
    end: usize,
}

/// One row of one of the runs that are merged.
#[derive(Clone, Copy)]
struct Row {
    time: i64,
    run: usize,
    row: usize,
}

/// A part of a merge's answer.
enum Part {
    /// Rows that meet no others.
    Whole(Piece),
    /// Rows of one series out of several runs: the answer takes one of each group of equal times,
    /// the newest last.
    Met { series: u32, rows: Vec<Row> },
}

/// Merges runs, oldest first, into one. Rows are compared one by one only where runs overlap.
pub(crate) fn merge(runs: &[&Run], columns: &Columns<'_>) -> Run {
    let wanted = wanted_columns(runs, columns);
    if let [run] = runs {
        return project(run, &wanted);
    }
    let mut pieces: Vec<Piece> = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        pieces.extend(run.series_rows().map(|(series, start, end)| {
            let (first, last) = (run.times[start], run.times[end - 1]);
            Piece { series, first, last, run: number, start, end }
        }));
    }
    pieces.sort_by_key(|piece| (piece.series, piece.first, piece.run));
    let mut parts = Vec::with_capacity(pieces.len());
    let mut start = 0;
    while start < pieces.len() {
        let (series, mut last) = (pieces[start].series, pieces[start].last);
        let mut end = start + 1;
        while end < pieces.len() && pieces[end].series == series && pieces[end].first <= last {
            last = last.max(pieces[end].last);
            end += 1;
        }
        parts.push(match &pieces[start..end] {
            [alone] => Part::Whole(*alone),
            met => met_rows(runs, met),
        });
        start = end;
    }
    assemble(runs, &parts, &wanted)
}

/// Sorts the rows of one run as they arrived, in any order, with all columns written.
fn sort_rows(run: &Run) -> Run {
    let rows = run.series.iter().zip(&run.times).zip(0_u32..);
    let mut order: Vec<_> = rows.map(|((series, time), row)| (*series, *time, row)).collect();
    order.sort_unstable();
    // Every row writes every column: of rows with one key the last is what they leave.
    let newest = order.chunk_by(|left, right| (left.0, left.1) == (right.0, right.1));
    let newest = newest.filter_map(<[_]>::last);
    let (mut series, mut times) =
        (Vec::with_capacity(order.len()), Vec::with_capacity(order.len()));
    let mut rows = Vec::with_capacity(order.len());
    for (number, time, row) in newest {
        series.push(*number);
        times.push(*time);
        rows.push(*row);
    }
    let rows = UInt32Array::from(rows);
    let columns =
        wanted_columns(&[run], &Columns::All).into_iter().filter_map(|(id, value_type)| {
            let values = take(&run.column(id)?.values, &rows, None);
            let values = values.expect("rows of a run are inside every column");
            Some(RunColumn { id, value_type, values, written: None })
        });
    Run { columns: columns.collect(), series, times }
}

fn met_rows(runs: &[&Run], pieces: &[Piece]) -> Part {
    let mut pieces = pieces.to_vec();
    pieces.sort_by_key(|piece| piece.run);
    let mut rows = Vec::with_capacity(pieces.iter().map(|piece| piece.end - piece.start).sum());
    for piece in &pieces {
        let times = &runs[piece.run].times;
        let of_piece = (piece.start..piece.end).map(|row| (times[row], row));
        rows.extend(of_piece.map(|(time, row)| Row { time, run: piece.run, row }));
    }
    // Stable: rows of one time stay in the order of their runs, and sorted runs merge in linear time.
    rows.sort_by_key(|row| row.time);
    Part::Met { series: pieces[0].series, rows }
}

fn wanted_columns(runs: &[&Run], columns: &Columns<'_>) -> Vec<(ColumnId, ValueType)> {
    match columns {
        Columns::These(these) => these.to_vec(),
        Columns::All => {
            let all = runs.iter().flat_map(|run| &run.columns);
            let mut all: Vec<_> = all.map(|column| (column.id, column.value_type)).collect();
            all.sort_by_key(|(id, _)| *id);
            all.dedup_by_key(|(id, _)| *id);
            all
        }
    }
}

fn project(run: &Run, wanted: &[(ColumnId, ValueType)]) -> Run {
    let column = |(id, value_type): &(ColumnId, ValueType)| match run.column(*id) {
        Some(column) => column.clone(),
        None => RunColumn {
            id: *id,
            value_type: *value_type,
            values: new_null_array(&value_type.arrow(), run.rows()),
            written: Some(BooleanBuffer::new_unset(run.rows())),
        },
    };
    Run {
        series: run.series.clone(),
        times: run.times.clone(),
        columns: wanted.iter().map(column).collect(),
    }
}

fn assemble(runs: &[&Run], parts: &[Part], wanted: &[(ColumnId, ValueType)]) -> Run {
    let most = |part: &Part| match part {
        Part::Whole(piece) => piece.end - piece.start,
        Part::Met { rows, .. } => rows.len(),
    };
    let most = parts.iter().map(most).sum();
    let (mut series, mut times) = (Vec::with_capacity(most), Vec::with_capacity(most));
    for part in parts {
        match part {
            Part::Whole(piece) => {
                times.extend_from_slice(&runs[piece.run].times[piece.start..piece.end]);
                series.resize(times.len(), piece.series);
            }
            Part::Met { series: number, rows } => {
                times.extend(rows.chunk_by(|a, b| a.time == b.time).map(|same| same[0].time));
                series.resize(times.len(), *number);
            }
        }
    }
    let rows = times.len();
    let columns = wanted.iter().map(|column| assemble_column(runs, parts, rows, *column));
    Run { series, times, columns: columns.collect() }
}

fn assemble_column(
    runs: &[&Run],
    parts: &[Part],
    rows: usize,
    (id, value_type): (ColumnId, ValueType),
) -> RunColumn {
    let columns: Vec<Option<&RunColumn>> = runs.iter().map(|run| run.column(id)).collect();
    let sources: Vec<ArrayData> =
        columns.iter().flatten().map(|column| column.values.to_data()).collect();
    if sources.is_empty() {
        let values = new_null_array(&value_type.arrow(), rows);
        let written = Some(BooleanBuffer::new_unset(rows));
        return RunColumn { id, value_type, values, written };
    }
    // Where every run writes every row there are no NULLs but those it writes.
    let leaves_out = columns.iter().any(|one| one.is_none_or(|column| column.written.is_some()));
    let mut picked = Picked {
        source_of: numbered(&columns),
        values: MutableArrayData::new(sources.iter().collect(), leaves_out, rows),
        written: BooleanBufferBuilder::new(rows),
        pending: None,
    };
    let wrote = |run: usize, row: usize| {
        columns[run].is_some_and(|column| column.written.as_ref().is_none_or(|w| w.value(row)))
    };
    for part in parts {
        match part {
            Part::Whole(piece) => {
                picked.take(piece.run, piece.start, piece.end);
                match columns[piece.run].map(|column| &column.written) {
                    Some(None) => picked.written.append_n(piece.end - piece.start, true),
                    Some(Some(written)) => {
                        let slice = written.slice(piece.start, piece.end - piece.start);
                        picked.written.append_buffer(&slice);
                    }
                    None => picked.written.append_n(piece.end - piece.start, false),
                }
            }
            Part::Met { rows, .. } => {
                for same in rows.chunk_by(|a, b| a.time == b.time) {
                    let newest = same.iter().rev().find(|row| wrote(row.run, row.row));
                    picked.written.append(newest.is_some());
                    match newest {
                        Some(row) => picked.take(row.run, row.row, row.row + 1),
                        None => picked.null(),
                    }
                }
            }
        }
    }
    picked.finish(id, value_type)
}

/// Gives each run that has the column its place among the sources.
fn numbered(columns: &[Option<&RunColumn>]) -> Vec<Option<usize>> {
    let mut next = 0;
    let number = |column: &Option<&RunColumn>| {
        column.map(|_| {
            next += 1;
            next - 1
        })
    };
    columns.iter().map(number).collect()
}

/// A column under way; neighbouring rows of one source are copied together.
struct Picked<'a> {
    source_of: Vec<Option<usize>>,
    values: MutableArrayData<'a>,
    written: BooleanBufferBuilder,
    pending: Option<(usize, usize, usize)>,
}

impl Picked<'_> {
    fn take(&mut self, run: usize, start: usize, end: usize) {
        let Some(source) = self.source_of[run] else {
            self.settle();
            self.nulls(end - start);
            return;
        };
        if let Some((pending, _, until)) = &mut self.pending
            && (*pending, *until) == (source, start)
        {
            *until = end;
            return;
        }
        self.settle();
        self.pending = Some((source, start, end));
    }

    fn null(&mut self) {
        self.settle();
        self.nulls(1);
    }

    fn settle(&mut self) {
        if let Some((source, start, end)) = self.pending.take() {
            let extended = self.values.try_extend(source, start, end);
            extended.expect("merges are cut before their text passes 2 GiB");
        }
    }

    fn nulls(&mut self, count: usize) {
        self.values.try_extend_nulls(count).expect("NULLs have no text");
    }

    fn finish(mut self, id: ColumnId, value_type: ValueType) -> RunColumn {
        self.settle();
        let written = self.written.finish();
        RunColumn {
            id,
            value_type,
            values: make_array(self.values.freeze()),
            written: (written.count_set_bits() < written.len()).then_some(written),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::Int64Type;

    fn column(id: u32, values: Vec<Option<i64>>) -> PointsColumn {
        let values = Arc::new(Int64Array::from(values));
        PointsColumn { id: ColumnId(id), value_type: ValueType::I64, values }
    }

    fn cells(run: &Run, id: u32) -> Vec<Option<i64>> {
        run.column(ColumnId(id)).unwrap().values.as_primitive::<Int64Type>().iter().collect()
    }

    #[test]
    fn the_last_write_wins_per_column_and_a_written_null_counts() {
        let old = Run::sort(
            vec![1, 0, 1],
            vec![5, 9, 5],
            &[column(1, vec![Some(1), Some(2), Some(3)]), column(2, vec![Some(7); 3])],
        );
        assert_eq!((old.series.clone(), cells(&old, 1)), (vec![0, 1], vec![Some(2), Some(3)]));
        let new = Run::sort(vec![1], vec![5], &[column(1, vec![None])]);
        let merged = merge(&[&old, &new], &Columns::All);
        assert_eq!(cells(&merged, 1), [Some(2), None]);
        assert_eq!(cells(&merged, 2), [Some(7), Some(7)]);
        assert!(merged.column(ColumnId(1)).unwrap().written.is_none());
    }

    #[test]
    fn a_column_that_nothing_wrote_stays_unwritten() {
        let a = Run::sort(vec![0], vec![1], &[column(1, vec![Some(1)])]);
        let b = Run::sort(vec![0], vec![2], &[column(2, vec![Some(2)])]);
        let merged = merge(&[&a, &b], &Columns::All);
        assert_eq!(cells(&merged, 2), [None, Some(2)]);
        let again = merge(&[&merged, &Run::default()], &Columns::All);
        let written = again.column(ColumnId(2)).unwrap().written.clone().unwrap();
        assert_eq!((written.value(0), written.value(1)), (false, true));
    }
}
