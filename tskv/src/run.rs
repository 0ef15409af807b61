//! Sorted runs: rows ordered by (series, time), each key once. Memcache chunks, TSM pages and the
//! answers of scans are all runs, and one merge serves flush and read.
//!
//! Invariant: of rows with the same key the newest run wins, column by column, among those that
//! wrote the column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBufferBuilder, UInt32Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{interleave, take};
use model::points::{PointsColumn, array_bytes};
use model::{ColumnId, TimeRange, ValueType};

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
        merge(&[&unsorted], &Columns::All)
    }

    pub(crate) fn rows(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn key(&self, row: usize) -> (u32, i64) {
        (self.series[row], self.times[row])
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
        let columns = self.columns.iter().map(|column| RunColumn {
            id: column.id,
            value_type: column.value_type,
            values: column.values.slice(start, end - start),
            written: column.written.as_ref().map(|written| written.slice(start, end - start)),
        });
        Self {
            series: self.series[start..end].to_vec(),
            times: self.times[start..end].to_vec(),
            columns: columns.collect(),
        }
    }

    /// Returns the rows of a series within a time range, as `start..end`.
    pub(crate) fn rows_of(&self, series: u32, times: TimeRange) -> (usize, usize) {
        let start = self.series.partition_point(|s| *s < series);
        let end = start + self.series[start..].partition_point(|s| *s == series);
        let within = &self.times[start..end];
        let from = start + within.partition_point(|time| *time < times.min);
        let to = start + within.partition_point(|time| *time <= times.max);
        (from, to.max(from))
    }

    /// Returns the named rows, each under another series number; the result is sorted only if the
    /// caller's order is.
    pub(crate) fn pick(&self, rows: &[u32], series: Vec<u32>) -> Self {
        let picks = UInt32Array::from(rows.to_vec());
        let pick_column = |column: &RunColumn| RunColumn {
            id: column.id,
            value_type: column.value_type,
            values: take(&column.values, &picks, None).expect("rows are inside the run"),
            written: column
                .written
                .as_ref()
                .map(|written| rows.iter().map(|row| written.value(*row as usize)).collect()),
        };
        Self {
            series,
            times: rows.iter().map(|row| self.times[*row as usize]).collect(),
            columns: self.columns.iter().map(pick_column).collect(),
        }
    }
}

/// One row of one of the runs that are merged.
#[derive(Clone, Copy)]
struct Row {
    series: u32,
    run: u32,
    time: i64,
    row: u32,
}

/// Merges runs, oldest first, into one. The inputs need not be sorted: they only merge faster.
pub(crate) fn merge(runs: &[&Run], columns: &Columns<'_>) -> Run {
    let wanted = wanted_columns(runs, columns);
    if let [run] = runs
        && (1..run.rows()).all(|row| run.key(row - 1) < run.key(row))
    {
        return project(run, &wanted);
    }
    let mut rows = Vec::with_capacity(runs.iter().map(|run| run.rows()).sum());
    for (number, run) in runs.iter().enumerate() {
        for row in 0..run.rows() {
            let (series, time) = run.key(row);
            rows.push(Row { series, run: number as u32, time, row: row as u32 });
        }
    }
    // Stable: rows of one key stay in the order of their runs, and sorted runs merge in linear time.
    rows.sort_by_key(|row| (row.series, row.time));
    let mut starts = Vec::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        if at == 0 || (rows[at - 1].series, rows[at - 1].time) != (row.series, row.time) {
            starts.push(at);
        }
    }
    Run {
        series: starts.iter().map(|at| rows[*at].series).collect(),
        times: starts.iter().map(|at| rows[*at].time).collect(),
        columns: wanted.iter().map(|column| merge_column(runs, &rows, &starts, *column)).collect(),
    }
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

fn merge_column(
    runs: &[&Run],
    rows: &[Row],
    starts: &[usize],
    (id, value_type): (ColumnId, ValueType),
) -> RunColumn {
    // Source 0 is a single NULL, for rows whose column no run wrote.
    let null = new_null_array(&value_type.arrow(), 1);
    let mut sources: Vec<&dyn Array> = vec![null.as_ref()];
    let mut source_of = vec![0_usize; runs.len()];
    let mut columns = vec![None; runs.len()];
    for (number, run) in runs.iter().enumerate() {
        if let Some(column) = run.column(id) {
            source_of[number] = sources.len();
            columns[number] = Some(column);
            sources.push(column.values.as_ref());
        }
    }
    let mut picks = Vec::with_capacity(starts.len());
    let mut written = BooleanBufferBuilder::new(starts.len());
    for (at, start) in starts.iter().enumerate() {
        let end = starts.get(at + 1).copied().unwrap_or(rows.len());
        let newest = rows[*start..end].iter().rev().find(|row| {
            columns[row.run as usize].is_some_and(|column| {
                column.written.as_ref().is_none_or(|written| written.value(row.row as usize))
            })
        });
        written.append(newest.is_some());
        picks.push(newest.map_or((0, 0), |row| (source_of[row.run as usize], row.row as usize)));
    }
    let written = written.finish();
    let values = interleave(&sources, &picks).expect("sources are of one type");
    RunColumn {
        id,
        value_type,
        values,
        written: (written.count_set_bits() < written.len()).then_some(written),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array};
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
