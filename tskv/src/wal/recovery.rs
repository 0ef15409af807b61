//! Reads the log back at start.
//!
//! A bad record at or after the last end known durable is the tail of a write that was never
//! acknowledged: it is cut and the cut is synced. A bad record before that end is corruption.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use model::wire::Reader;

use super::format::{
    self, BATCH_ALIGNMENT, BATCH_HEADER_BYTES, BatchHeader, Place, RECORD_HEADER_BYTES, Record,
    SEGMENT_HEADER_BYTES,
};
use super::records::Logs;
use super::segments::{Position, Segments, path_of};
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Error, Result};

struct Found {
    /// Where the last whole batch ends.
    end: Place,
    /// The number of the next batch, once one was seen.
    next_batch: Option<u64>,
    /// Where the first bad record or header stands and why it is bad.
    bad: Option<(Place, String)>,
}

/// Opens all segments of `folder`, making the first when there is none.
pub(super) fn recover(
    disk: Arc<dyn Disk>,
    folder: &Path,
    segment_bytes: u64,
) -> Result<(Segments, Logs)> {
    disk.make_folders(folder).context("make", folder)?;
    let mut files = open_files(&*disk, folder)?;
    let mut logs = Logs::default();
    let first = files.keys().next().copied();
    let start = Place { segment: first.unwrap_or(1), offset: SEGMENT_HEADER_BYTES };
    let mut found = Found { end: start, next_batch: None, bad: None };
    let numbers: Vec<u64> = files.keys().copied().collect();
    for pair in numbers.windows(2) {
        if pair[1] != pair[0] + 1 {
            let path = path_of(folder, pair[0] + 1);
            return Err(Error::corrupt(&path, 0, "segment is missing"));
        }
    }
    for number in &numbers {
        let path = path_of(folder, *number);
        let file = Arc::clone(&files[number]);
        let len = usize::try_from(file.size().context("measure", &path)?).unwrap_or(usize::MAX);
        let bytes = file.read_at(0, len).context("read", &path)?;
        if let Err(error) = format::check_segment_header(&bytes, *number) {
            let nowhere = Place { segment: 0, offset: 0 };
            let is_last = *number == numbers[numbers.len() - 1];
            if is_last && later_batch(&bytes, *number, nowhere).is_none() {
                // It was being made when the power went: nothing was ever written to it.
                disk.remove(&path).context("remove half-made", &path)?;
                disk.sync_folder(folder).context("sync", folder)?;
                files.remove(number);
                break;
            }
            return Err(Error::corrupt(&path, 0, error));
        }
        read_segment(&path, *number, &bytes, (&mut found, &mut logs))?;
    }
    if found.bad.is_some() {
        cut_tail(&files, folder, segment_bytes, found.end)?;
    } else if let Some(file) = files.get(&found.end.segment) {
        // A process killed between write and sync left its last batch in the page cache alone, and
        // the next batch will call it durable.
        let path = path_of(folder, found.end.segment);
        file.sync().context("sync", &path)?;
    }
    let resume = (found.end, found.next_batch.unwrap_or(1));
    let mut segments = Segments::new(disk, folder, segment_bytes, files, resume);
    if segments.count() == 0 {
        segments.make_reserve()?;
    }
    segments.make_reserve()?;
    Ok((segments, logs))
}

pub(super) fn open_files(
    disk: &dyn Disk,
    folder: &Path,
) -> Result<BTreeMap<u64, Arc<dyn DiskFile>>> {
    let mut files = BTreeMap::new();
    let names = match disk.list(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        other => other.context("list", folder)?,
    };
    for name in names {
        let Some(number) = name.strip_suffix(".wal").and_then(|n| u64::from_str_radix(n, 16).ok())
        else {
            tracing::warn!(name, "a file that is no wal segment is left alone");
            continue;
        };
        let path = path_of(folder, number);
        files.insert(number, disk.open(&path).context("open", &path)?);
    }
    Ok(files)
}

/// Replays the batches of one segment. Once something bad was seen, only looks for proof that it
/// was durable.
fn read_segment(
    path: &Path,
    segment: u64,
    bytes: &[u8],
    (found, logs): (&mut Found, &mut Logs),
) -> Result<()> {
    let mut offset = SEGMENT_HEADER_BYTES;
    if found.bad.is_none() {
        while let Some(header) = whole_header(bytes, Place { segment, offset }, found) {
            let at = Place { segment, offset };
            let expected = found.next_batch.unwrap_or(header.number);
            if header.number != expected {
                return Err(Error::corrupt(path, offset, "batch out of order"));
            }
            match read_batch(bytes, at, header.len) {
                Ok(records) => replay(path, records, logs)?,
                Err((bad, reason)) => {
                    found.bad = Some((Place { segment, offset: bad }, reason));
                    break;
                }
            }
            let len = BATCH_HEADER_BYTES as u64 + u64::from(header.len);
            offset += len.next_multiple_of(BATCH_ALIGNMENT as u64);
            found.end = Place { segment, offset };
            found.next_batch = Some(header.number + 1);
        }
        if found.bad.is_none() && bytes.iter().skip(offset as usize).any(|byte| *byte != 0) {
            let reason = "unreadable batch header".to_owned();
            found.bad = Some((Place { segment, offset }, reason));
        }
    }
    let Some((bad, reason)) = &found.bad else { return Ok(()) };
    match later_batch(bytes, segment, *bad) {
        Some(_) => {
            let file = path.with_file_name(format!("{:016x}.wal", bad.segment));
            Err(Error::corrupt(&file, bad.offset, reason))
        }
        None => Ok(()),
    }
}

fn whole_header(bytes: &[u8], at: Place, found: &Found) -> Option<BatchHeader> {
    let header = BatchHeader::decode(bytes.get(at.offset as usize..)?, at).ok()?;
    // What an older batch left behind a cut is not a batch of ours.
    (header.number >= found.next_batch.unwrap_or(0)).then_some(header)
}

/// Reads the records of a batch; where one is bad, says where. A batch was acknowledged as a whole
/// or not at all, so nothing of a bad one is replayed.
pub(super) fn read_batch(
    bytes: &[u8],
    at: Place,
    len: u32,
) -> std::result::Result<Vec<(Record, Position)>, (u64, String)> {
    let start = at.offset + BATCH_HEADER_BYTES as u64;
    let body = bytes.get(start as usize..).unwrap_or_default();
    let body = body.get(..len as usize).ok_or_else(|| (start, "batch is cut off".to_owned()))?;
    let mut reader = Reader::new(body);
    let mut records = Vec::new();
    while reader.remaining() > 0 {
        let offset = start + reader.position() as u64;
        let record = Record::decode(&mut reader).map_err(|error| (offset, error.to_string()))?;
        let body_len = start + reader.position() as u64 - offset - RECORD_HEADER_BYTES as u64;
        let len = u32::try_from(body_len).map_err(|error| (offset, error.to_string()))?;
        records.push((record, Position { segment: at.segment, offset, len }));
    }
    Ok(records)
}

fn replay(path: &Path, records: Vec<(Record, Position)>, logs: &mut Logs) -> Result<()> {
    records.into_iter().try_for_each(|(record, position)| {
        let replayed = logs.replay(record, position);
        replayed.map_err(|reason| Error::corrupt(path, position.offset, reason))
    })
}

/// Looks behind `bad` for a batch that was written when `bad` was already durable.
pub(super) fn later_batch(bytes: &[u8], segment: u64, bad: Place) -> Option<BatchHeader> {
    let first = if segment == bad.segment { bad.offset } else { SEGMENT_HEADER_BYTES };
    let mut offset = first.next_multiple_of(BATCH_ALIGNMENT as u64);
    while let Some(rest) = bytes.get(offset as usize..)
        && rest.len() >= BATCH_HEADER_BYTES
    {
        if let Ok(header) = BatchHeader::decode(rest, Place { segment, offset })
            && header.durable > bad
        {
            return Some(header);
        }
        offset += BATCH_ALIGNMENT as u64;
    }
    None
}

fn cut_tail(
    files: &BTreeMap<u64, Arc<dyn DiskFile>>,
    folder: &Path,
    segment_bytes: u64,
    end: Place,
) -> Result<()> {
    let Some(file) = files.get(&end.segment) else { return Ok(()) };
    let path = path_of(folder, end.segment);
    tracing::info!(path = %path.display(), offset = end.offset, "cut a torn tail");
    file.set_len(end.offset).context("cut", &path)?;
    file.allocate(segment_bytes).context("extend", &path)?;
    file.sync().context("sync", &path)
}
