//! Tombstones: recorded deletes, and the files that keep them.
//!
//! Invariant: a tombstone masks only rows older than itself. A file says up to which Raft index
//! tombstones were applied to its rows; rows in memory are told apart by the order of their arrival.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::path::Path;
use std::sync::Arc;

use model::wire::{Decoded, Reader, Write, malformed};
use model::{TableId, TimeRange};

use crate::disk::{Disk, read_file, write_new_file};
use crate::error::{Context, Error, Result};
use crate::sealed;

const MAGIC: &[u8; 8] = b"CNOSTMB\0";
const VERSION: u32 = 1;
const ALL: u8 = 0;
const SERIES: u8 = 1;
const ROWS: u8 = 2;

/// A recorded delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// The Raft index of the command.
    pub(crate) index: u64,
    pub(crate) table: TableId,
    pub(crate) rows: Deleted,
}

/// Which rows of a table a tombstone deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// Those of every series within the times.
    All(TimeRange),
    /// Those of these series, ascending, within the times.
    Series(Vec<u32>, TimeRange),
    /// These, ascending.
    Rows(Vec<(u32, i64)>),
}

/// The tombstones that are newer than the rows of one source.
pub(crate) type Masks = Arc<[Arc<Tombstone>]>;

impl Tombstone {
    /// Returns the bytes it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        64 + match &self.rows {
            Deleted::All(_) => 0,
            Deleted::Series(series, _) => series.len() * 4,
            Deleted::Rows(rows) => rows.len() * 16,
        }
    }

    /// Returns whether it may delete a row of these series within these times.
    pub(crate) fn touches(&self, series: (u32, u32), times: &TimeRange) -> bool {
        match &self.rows {
            Deleted::All(deleted) => deleted.overlaps(times),
            Deleted::Series(ids, deleted) => {
                let first = ids.partition_point(|id| *id < series.0);
                deleted.overlaps(times) && ids.get(first).is_some_and(|id| *id <= series.1)
            }
            Deleted::Rows(rows) => {
                let first = rows.partition_point(|(id, _)| *id < series.0);
                let last = rows.partition_point(|(id, _)| *id <= series.1);
                let inside = rows.get(first..last).unwrap_or_default();
                inside.iter().any(|(_, time)| times.contains(*time))
            }
        }
    }

    /// Clears the places of deleted rows of one series, whose times ascend.
    fn clear(&self, series: u32, times: &[i64], kept: &mut [bool]) {
        let mut clear_range = |range: &TimeRange| {
            let from = times.partition_point(|time| *time < range.min);
            let to = times.partition_point(|time| *time <= range.max);
            kept.get_mut(from..to.max(from)).unwrap_or_default().fill(false);
        };
        match &self.rows {
            Deleted::All(range) => clear_range(range),
            Deleted::Series(ids, range) => {
                if ids.binary_search(&series).is_ok() {
                    clear_range(range);
                }
            }
            Deleted::Rows(rows) => {
                let first = rows.partition_point(|(id, _)| *id < series);
                let of_series = rows.iter().skip(first).take_while(|(id, _)| *id == series);
                for (_, time) in of_series {
                    if let Ok(at) = times.binary_search(time)
                        && let Some(place) = kept.get_mut(at)
                    {
                        *place = false;
                    }
                }
            }
        }
    }
}

/// Returns which rows of a series survive; `None` where all do. `times` ascend.
pub(crate) fn surviving(masks: &Masks, series: u32, times: &[i64]) -> Option<Vec<bool>> {
    let (first, last) = (*times.first()?, *times.last()?);
    let range = TimeRange { min: first, max: last };
    let mut touching = masks.iter().filter(|one| one.touches((series, series), &range)).peekable();
    touching.peek()?;
    let mut kept = vec![true; times.len()];
    for tombstone in touching {
        tombstone.clear(series, times, &mut kept);
    }
    Some(kept)
}

/// Unites tombstones that all sources see or all do not: those of one flush. Single rows of a table
/// become one tombstone, so that many small deletes cost a reader no more than one large one.
pub(crate) fn unite(tombstones: &[Arc<Tombstone>], index: u64) -> Vec<Tombstone> {
    let mut united: Vec<Tombstone> = Vec::new();
    for tombstone in tombstones {
        let single = |other: &&mut Tombstone| {
            other.table == tombstone.table && matches!(other.rows, Deleted::Rows(_))
        };
        let known = united.iter_mut().find(single);
        match (known.map(|other| &mut other.rows), &tombstone.rows) {
            (Some(Deleted::Rows(rows)), Deleted::Rows(more)) => rows.extend_from_slice(more),
            _ => united.push(Tombstone { index, ..tombstone.as_ref().clone() }),
        }
    }
    for tombstone in &mut united {
        if let Deleted::Rows(rows) = &mut tombstone.rows {
            rows.sort_unstable();
            rows.dedup();
        }
    }
    united
}

/// Writes tombstones as one file.
// FORMAT: docs/formats/tombstone.md, v1
pub(crate) fn write(disk: &dyn Disk, path: &Path, tombstones: &[Tombstone]) -> Result<()> {
    let mut bytes = sealed::begin(MAGIC, VERSION);
    bytes.put_varint(tombstones.len() as u64);
    for tombstone in tombstones {
        bytes.put_u64(tombstone.index);
        bytes.put_u32(tombstone.table.0);
        match &tombstone.rows {
            Deleted::All(times) => {
                bytes.put_u8(ALL);
                put_times(times, &mut bytes);
            }
            Deleted::Series(series, times) => {
                bytes.put_u8(SERIES);
                put_times(times, &mut bytes);
                bytes.put_varint(series.len() as u64);
                series.iter().for_each(|id| bytes.put_u32(*id));
            }
            Deleted::Rows(rows) => {
                bytes.put_u8(ROWS);
                bytes.put_varint(rows.len() as u64);
                for (series, time) in rows {
                    bytes.put_u32(*series);
                    bytes.put_i64(*time);
                }
            }
        }
    }
    write_new_file(disk, path, &sealed::seal(bytes)).context("write", path)
}

/// Reads a file of tombstones.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<Arc<Tombstone>>> {
    let bytes = read_file(disk, path).context("read", path)?;
    decode(&bytes).map_err(|error| Error::corrupt(path, 0, error))
}

fn decode(bytes: &[u8]) -> Decoded<Vec<Arc<Tombstone>>> {
    let mut reader = sealed::open(bytes, MAGIC, VERSION)?;
    let count = reader.count(14)?;
    let mut tombstones = Vec::with_capacity(count);
    for _ in 0..count {
        let (index, table) = (reader.u64()?, TableId(reader.u32()?));
        let rows = match reader.u8()? {
            ALL => Deleted::All(take_times(&mut reader)?),
            SERIES => {
                let times = take_times(&mut reader)?;
                let count = reader.count(4)?;
                let series = (0..count).map(|_| reader.u32()).collect::<Decoded<Vec<_>>>()?;
                if !series.is_sorted_by(|a, b| a < b) {
                    return malformed("series out of order");
                }
                Deleted::Series(series, times)
            }
            ROWS => {
                let count = reader.count(12)?;
                let rows = (0..count).map(|_| Ok((reader.u32()?, reader.i64()?)));
                let rows = rows.collect::<Decoded<Vec<_>>>()?;
                if !rows.is_sorted_by(|a, b| a < b) {
                    return malformed("rows out of order");
                }
                Deleted::Rows(rows)
            }
            other => return malformed(format!("tombstone kind {other}")),
        };
        tombstones.push(Arc::new(Tombstone { index, table, rows }));
    }
    reader.finish()?;
    Ok(tombstones)
}

fn put_times(times: &TimeRange, out: &mut Vec<u8>) {
    out.put_i64(times.min);
    out.put_i64(times.max);
}

fn take_times(reader: &mut Reader<'_>) -> Decoded<TimeRange> {
    Ok(TimeRange { min: reader.i64()?, max: reader.i64()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tombstone(rows: Deleted) -> Arc<Tombstone> {
        Arc::new(Tombstone { index: 7, table: TableId(3), rows })
    }

    #[test]
    fn masks_clear_ranges_series_and_single_rows() {
        let range = |min, max| TimeRange { min, max };
        let masks: Masks = Arc::from([
            tombstone(Deleted::All(range(0, 1))),
            tombstone(Deleted::Series(vec![4, 6], range(5, 9))),
            tombstone(Deleted::Rows(vec![(4, 3), (5, 4)])),
        ]);
        let kept = surviving(&masks, 4, &[1, 2, 3, 4, 5]);
        assert_eq!(kept, Some(vec![false, true, false, true, false]));
        assert_eq!(surviving(&masks, 5, &[2, 3]), None);
        assert_eq!(surviving(&masks, 4, &[]), None);
    }

    #[test]
    fn a_file_survives_a_round_trip_and_no_flipped_bit_goes_unseen() {
        let disk = crate::disk::SimDisk::default();
        let folder = Path::new("t");
        disk.make_folders(folder).unwrap();
        let written = unite(
            &[
                tombstone(Deleted::Rows(vec![(4, 3)])),
                tombstone(Deleted::Rows(vec![(1, 9), (4, 3)])),
                tombstone(Deleted::Series(vec![1, 2], TimeRange::ALL)),
            ],
            9,
        );
        assert_eq!(written.len(), 2);
        write(&disk, &folder.join("a"), &written).unwrap();
        let back = read(&disk, &folder.join("a")).unwrap();
        assert!(back.iter().map(AsRef::as_ref).eq(&written));
        let bytes = read_file(&disk, &folder.join("a")).unwrap();
        for at in 0..bytes.len() {
            let mut hurt = bytes.clone();
            if let Some(byte) = hurt.get_mut(at) {
                *byte ^= 1;
            }
            assert!(decode(&hurt).is_err(), "byte {at}");
        }
    }
}
