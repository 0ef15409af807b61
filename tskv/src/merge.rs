//! The merge of sorted runs: one serves flush, compaction and read.
//!
//! Invariant: of rows with the same key the newest run wins, column by column, among those that
//! wrote the column.

use arrow::array::{Array, ArrayData, BooleanBufferBuilder, MutableArrayData, make_array};
use model::{ColumnId, ValueType};

use crate::run::{Run, RunColumn};

/// So many rows that lie together, and meet no others, are a run of their own: to copy them would take longer
/// than to work on one more run.
const SHARED_ROWS_MIN: usize = 4_096;

/// What a merge is to yield.
pub(crate) enum Columns<'a> {
    /// Every column any run has, in order of id.
    All,
    /// These, in this order; NULL where no run has one.
    These(&'a [(ColumnId, ValueType)]),
}

/// Rows of one series that lie together in one of the runs that are merged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// The number of the series in the answer.
    pub(crate) series: u32,
    /// The number of the run.
    pub(crate) run: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Piece {
    fn rows(&self) -> usize {
        self.end - self.start
    }
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
        let columns = wanted.iter().map(|column| run.column_or_nulls(*column)).collect();
        return Run { columns, ..(*run).clone() };
    }
    let pieces = runs.iter().enumerate().flat_map(|(number, run)| {
        let rows = run.series_rows();
        rows.map(move |(series, start, end)| Piece { series, run: number, start, end })
    });
    assemble(runs, &parts(runs, pieces.collect()), &wanted)
}

/// Merges pieces of runs, oldest first, into runs that follow one another; each has the columns wanted, NULL
/// where it has none. Many rows that lie together and meet no others share the columns of the run they are in.
pub(crate) fn merge_pieces(
    runs: &[&Run],
    pieces: Vec<Piece>,
    wanted: &[(ColumnId, ValueType)],
) -> Vec<Run> {
    let parts = parts(runs, pieces);
    let mut merged = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < parts.len() {
        let together = lying_together(&parts[at..]);
        let next = at + together.len().max(1);
        if together.iter().map(Piece::rows).sum::<usize>() >= SHARED_ROWS_MIN {
            if start < at {
                merged.push(assemble(runs, &parts[start..at], wanted));
            }
            merged.push(shared(runs, &together, wanted));
            start = next;
        }
        at = next;
    }
    if start < parts.len() {
        merged.push(assemble(runs, &parts[start..], wanted));
    }
    merged
}

/// Puts pieces in order, and tells which of them meet.
fn parts(runs: &[&Run], pieces: Vec<Piece>) -> Vec<Part> {
    let first = |piece: &Piece| runs[piece.run].times[piece.start];
    let last = |piece: &Piece| runs[piece.run].times[piece.end - 1];
    let mut pieces = pieces;
    pieces.sort_by_key(|piece| (piece.series, first(piece), piece.run));
    let mut parts = Vec::with_capacity(pieces.len());
    let mut start = 0;
    while start < pieces.len() {
        let (series, mut latest) = (pieces[start].series, last(&pieces[start]));
        let mut end = start + 1;
        while end < pieces.len() && pieces[end].series == series && first(&pieces[end]) <= latest {
            latest = latest.max(last(&pieces[end]));
            end += 1;
        }
        parts.push(match &pieces[start..end] {
            [alone] => Part::Whole(*alone),
            met => met_rows(runs, met),
        });
        start = end;
    }
    parts
}

/// Returns the pieces, from the first part on, that lie together in one run; none where the first part meets others.
fn lying_together(parts: &[Part]) -> Vec<Piece> {
    let mut together: Vec<Piece> = Vec::new();
    for part in parts {
        let Part::Whole(piece) = part else { break };
        if together.last().is_some_and(|last| (last.run, last.end) != (piece.run, piece.start)) {
            break;
        }
        together.push(*piece);
    }
    together
}

/// Makes a run of pieces that lie together, which shares its columns.
fn shared(runs: &[&Run], pieces: &[Piece], wanted: &[(ColumnId, ValueType)]) -> Run {
    let (first, last) = (pieces[0], pieces[pieces.len() - 1]);
    let rows = runs[first.run].slice(first.start, last.end);
    let mut series = Vec::with_capacity(rows.rows());
    for piece in pieces {
        series.resize(series.len() + piece.rows(), piece.series);
    }
    let columns = wanted.iter().map(|column| rows.column_or_nulls(*column)).collect();
    Run { series: series.into(), times: rows.times, columns }
}

fn met_rows(runs: &[&Run], pieces: &[Piece]) -> Part {
    let mut pieces = pieces.to_vec();
    pieces.sort_by_key(|piece| piece.run);
    let mut rows = Vec::with_capacity(pieces.iter().map(Piece::rows).sum());
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

fn assemble(runs: &[&Run], parts: &[Part], wanted: &[(ColumnId, ValueType)]) -> Run {
    let most = |part: &Part| match part {
        Part::Whole(piece) => piece.rows(),
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
    Run { series: series.into(), times: times.into(), columns: columns.collect() }
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
        return RunColumn::unwritten((id, value_type), rows);
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
                    Some(None) => picked.written.append_n(piece.rows(), true),
                    Some(Some(written)) => {
                        let slice = written.slice(piece.start, piece.rows());
                        picked.written.append_buffer(&slice);
                    }
                    None => picked.written.append_n(piece.rows(), false),
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
    use std::ops::Range;
    use std::sync::Arc;

    use super::*;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use model::points::PointsColumn;

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
        assert_eq!((old.series.to_vec(), cells(&old, 1)), (vec![0, 1], vec![Some(2), Some(3)]));
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

    #[test]
    fn pieces_that_share_columns_are_the_rows_of_the_merge() {
        let run = |parts: &[(u32, Range<i64>)], of: i64| {
            let (mut series, mut times) = (Vec::new(), Vec::new());
            for (number, part) in parts {
                times.extend(part.clone());
                series.resize(times.len(), *number);
            }
            let values = times.iter().map(|time| Some(10 * time + of)).collect();
            Run::sort(series, times, &[column(1, values)])
        };
        // Long and short stretches, of one series and of several, some of which meet.
        let runs = [
            run(&[(1, 0..9_000), (2, 0..6_000), (3, 0..9)], 0),
            run(&[(1, 9_000..9_100), (2, 5_999..12_000), (4, 7..9)], 1),
            run(&[(3, 9..8_000), (5, 0..8_000)], 2),
        ];
        let runs: Vec<&Run> = runs.iter().collect();
        let pieces = runs.iter().enumerate().flat_map(|(number, run)| {
            let rows = run.series_rows();
            rows.map(move |(series, start, end)| Piece { series, run: number, start, end })
        });
        let fields = [(ColumnId(1), ValueType::I64), (ColumnId(2), ValueType::F64)];
        let whole = merge(&runs, &Columns::These(&fields));
        let parts = merge_pieces(&runs, pieces.collect(), &fields);
        assert!(parts.len() > 3, "{} parts", parts.len());
        let keys = |run: &Run| (0..run.rows()).map(|row| run.key(row)).collect::<Vec<_>>();
        assert_eq!(parts.iter().flat_map(keys).collect::<Vec<_>>(), keys(&whole));
        assert_eq!(
            parts.iter().flat_map(|run| cells(run, 1)).collect::<Vec<_>>(),
            cells(&whole, 1)
        );
        assert!(parts.iter().all(|run| run.columns[1].values.null_count() == run.rows()));
    }
}
