//! The commands of a replica set's log: versioned bytes, encoded once by the writer.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use bytes::Bytes;
use model::wire::{Decoded, Reader, Write, malformed};
use model::{ColumnId, Points, TableId, TimeRange};

use crate::index::SeriesFilter;
use crate::sessions::WriteId;

const VERSION: u8 = 1;
const WRITE: u8 = 1;
const DELETE_ROWS: u8 = 2;
const DELETE_MATCHING: u8 = 3;
const MOVE: u8 = 4;
const CHECKSUM: u8 = 5;
const END: u8 = 6;

/// A command as apply sees it.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) id: WriteId,
    pub(crate) time_ns: i64,
    pub(crate) change: Change,
}

/// What a command changes.
#[derive(Debug)]
pub(crate) enum Change {
    /// Rows are written.
    Write(Vec<Points>),
    /// The rows a batch names, by series and time, are deleted.
    DeleteRows(Points),
    /// The rows of some series within some times are deleted.
    DeleteMatching { table: TableId, filter: SeriesFilter, times: TimeRange },
    /// Rows are deleted and others written in their stead.
    Move { deleted: Points, written: Points },
    /// Nothing changes; what is visible is kept for a checksum.
    Checksum,
    /// No rows later than this are taken any more.
    End { until: i64 },
}

/// Rows that change their series: which are deleted, and what is written.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// The rows as they were, without fields.
    pub deleted: &'a Points,
    /// The rows as they become.
    pub written: &'a Points,
}

/// What applying a command did; alike on every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The rows are there.
    Applied,
    /// The rows were there already: this was a retry.
    AppliedBefore,
    /// A retry so late that nobody knows any more; it was not applied.
    Unknown,
    /// It has rows later than the vnode takes any more; nothing of it was applied.
    Ended,
}

/// Encodes a write of rows; `time_ns` is the writer's clock.
// FORMAT: docs/formats/command.md, v1
pub fn encode_write(id: WriteId, time_ns: i64, points: &[Points]) -> Bytes {
    let mut out = begin(WRITE, id, time_ns);
    out.put_varint(points.len() as u64);
    for points in points {
        points.encode(&mut out);
    }
    out.into()
}

/// Encodes a delete of the rows a batch names; it has no fields.
pub fn encode_delete_rows(id: WriteId, time_ns: i64, rows: &Points) -> Bytes {
    assert!(rows.fields.is_empty(), "a delete names rows, not values");
    let mut out = begin(DELETE_ROWS, id, time_ns);
    rows.encode(&mut out);
    out.into()
}

/// Encodes a delete of the rows of some series of a table within some times.
///
/// # Panics
/// Where the filter has tests: a command names values.
pub fn encode_delete_matching(
    id: WriteId,
    time_ns: i64,
    table: TableId,
    (filter, times): (&SeriesFilter, TimeRange),
) -> Bytes {
    assert!(filter.tests.is_empty(), "a delete names the values of tags");
    let mut out = begin(DELETE_MATCHING, id, time_ns);
    out.put_u32(table.0);
    out.put_i64(times.min);
    out.put_i64(times.max);
    out.put_varint(filter.terms.len() as u64);
    for (column, values) in &filter.terms {
        out.put_u32(column.0);
        out.put_varint(values.len() as u64);
        for value in values {
            out.put_u8(u8::from(value.is_some()));
            out.put_bytes(value.as_deref().unwrap_or_default().as_bytes());
        }
    }
    out.into()
}

/// Encodes a move of rows to other series.
pub fn encode_move(id: WriteId, time_ns: i64, moved: &Move<'_>) -> Bytes {
    assert!(moved.deleted.fields.is_empty(), "a delete names rows, not values");
    let mut out = begin(MOVE, id, time_ns);
    moved.deleted.encode(&mut out);
    moved.written.encode(&mut out);
    out.into()
}

/// Encodes the wish for a checksum of what is visible at its place in the log.
pub fn encode_checksum(id: WriteId, time_ns: i64) -> Bytes {
    begin(CHECKSUM, id, time_ns).into()
}

/// Encodes the end of a vnode's times: rows later than `until` are refused from its place in the log on.
pub fn encode_end(id: WriteId, time_ns: i64, until: i64) -> Bytes {
    let mut out = begin(END, id, time_ns);
    out.put_i64(until);
    out.into()
}

/// Returns the rows that a command writes.
///
/// # Errors
/// What is no command of this version.
pub fn rows_written(command: &[u8]) -> Decoded<Vec<Points>> {
    Ok(match Command::decode(command)?.change {
        Change::Write(batches) => batches,
        Change::Move { written, .. } => vec![written],
        Change::DeleteRows(_)
        | Change::DeleteMatching { .. }
        | Change::Checksum
        | Change::End { .. } => Vec::new(),
    })
}

/// Returns a command under another id and time: another write of the same rows.
///
/// # Errors
/// What is no command of this version.
pub fn renumber(command: &[u8], id: WriteId, time_ns: i64) -> Decoded<Bytes> {
    let mut reader = Reader::new(command);
    let (version, kind) = (reader.u8()?, reader.u8()?);
    if version != VERSION {
        return malformed(format!("command version {version}; this program reads {VERSION}"));
    }
    reader.take(3 * size_of::<u64>())?;
    let mut out = begin(kind, id, time_ns);
    out.extend_from_slice(reader.take(reader.remaining())?);
    Ok(out.into())
}

fn begin(kind: u8, id: WriteId, time_ns: i64) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u8(VERSION);
    out.put_u8(kind);
    out.put_u64(id.session);
    out.put_u64(id.sequence);
    out.put_i64(time_ns);
    out
}

impl Command {
    pub(crate) fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return malformed(format!("command version {version}; this program reads {VERSION}"));
        }
        let kind = reader.u8()?;
        let id = WriteId { session: reader.u64()?, sequence: reader.u64()? };
        let time_ns = reader.i64()?;
        let change = match kind {
            WRITE => {
                let count = reader.count(7)?;
                let points = (0..count).map(|_| Points::decode(&mut reader));
                Change::Write(points.collect::<Decoded<_>>()?)
            }
            DELETE_ROWS => Change::DeleteRows(Points::decode(&mut reader)?),
            DELETE_MATCHING => take_matching(&mut reader)?,
            MOVE => {
                let deleted = Points::decode(&mut reader)?;
                Change::Move { deleted, written: Points::decode(&mut reader)? }
            }
            CHECKSUM => Change::Checksum,
            END => Change::End { until: reader.i64()? },
            other => return malformed(format!("command kind {other}")),
        };
        reader.finish()?;
        Ok(Self { id, time_ns, change })
    }
}

fn take_matching(reader: &mut Reader<'_>) -> Decoded<Change> {
    let table = TableId(reader.u32()?);
    let times = TimeRange { min: reader.i64()?, max: reader.i64()? };
    let count = reader.count(5)?;
    let mut terms = Vec::with_capacity(count);
    for _ in 0..count {
        let column = ColumnId(reader.u32()?);
        let count = reader.count(2)?;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            let is_some = reader.u8()? != 0;
            let value = reader.str()?;
            values.push(is_some.then(|| value.to_owned()));
        }
        terms.push((column, values));
    }
    let filter = SeriesFilter { terms, ..SeriesFilter::default() };
    Ok(Change::DeleteMatching { table, filter, times })
}

impl Change {
    /// Returns the batches whose series come to be where they are not there.
    pub(crate) fn written(&self) -> Vec<&Points> {
        match self {
            Self::Write(batches) => batches.iter().collect(),
            Self::Move { written, .. } => vec![written],
            Self::DeleteRows(_)
            | Self::DeleteMatching { .. }
            | Self::Checksum
            | Self::End { .. } => Vec::new(),
        }
    }

    /// Returns whether it writes a row later than `until`.
    pub(crate) fn is_later_than(&self, until: i64) -> bool {
        self.written().iter().any(|points| points.times.iter().any(|time| *time > until))
    }

    /// Returns the batches it names series by.
    pub(crate) fn batches(&self) -> Vec<&Points> {
        match self {
            Self::Write(batches) => batches.iter().collect(),
            Self::DeleteRows(points) => vec![points],
            Self::Move { deleted, written } => vec![deleted, written],
            Self::DeleteMatching { .. } | Self::Checksum | Self::End { .. } => Vec::new(),
        }
    }
}

impl Outcome {
    /// Returns the byte that stands for the outcome in a reply.
    pub fn code(self) -> u8 {
        match self {
            Self::Applied => 0,
            Self::AppliedBefore => 1,
            Self::Unknown => 2,
            Self::Ended => 3,
        }
    }

    /// Returns the outcome a byte stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        let all = [Self::Applied, Self::AppliedBefore, Self::Unknown, Self::Ended];
        all.into_iter().find(|outcome| outcome.code() == code)
    }
}
