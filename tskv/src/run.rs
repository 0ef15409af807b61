//! Sorted runs: rows ordered by (series, time), each key once. Memcache chunks, TSM pages and the
//! answers of scans are all runs. A part of a run shares its columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt32Array, new_null_array};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
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
    pub(crate) series: ScalarBuffer<u32>,
    pub(crate) times: ScalarBuffer<i64>,
    pub(crate) columns: Vec<RunColumn>,
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
        let columns = columns.collect();
        let unsorted = Self { series: series.into(), times: times.into(), columns };
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

    /// Returns a column; one that nobody wrote, where the run has none.
    pub(crate) fn column_or_nulls(&self, column: (ColumnId, ValueType)) -> RunColumn {
        let unwritten = || RunColumn::unwritten(column, self.rows());
        self.column(column.0).cloned().unwrap_or_else(unwritten)
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
            series: self.series.slice(start, end - start),
            times: self.times.slice(start, end - start),
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
        for time in self.times.iter() {
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
            series: series.into(),
            times: rows.iter().map(|row| self.times[*row as usize]).collect(),
            columns: self.columns.iter().map(|column| column.pick(&picks)).collect(),
        }
    }
}

impl RunColumn {
    /// Makes a column of NULLs that nobody wrote.
    pub(crate) fn unwritten((id, value_type): (ColumnId, ValueType), rows: usize) -> Self {
        let values = new_null_array(&value_type.arrow(), rows);
        Self { id, value_type, values, written: Some(BooleanBuffer::new_unset(rows)) }
    }

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
    let mut columns: Vec<&RunColumn> = run.columns.iter().collect();
    columns.sort_by_key(|column| column.id);
    columns.dedup_by_key(|column| column.id);
    let columns = columns.into_iter().map(|column| column.pick(&rows)).collect();
    Run { columns, series: series.into(), times: times.into() }
}
