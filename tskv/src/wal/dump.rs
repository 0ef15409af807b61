//! Reads the log for people, without changing it or taking anything of it for granted.

use std::path::Path;

use super::format::{
    BATCH_ALIGNMENT, BATCH_HEADER_BYTES, BatchHeader, Place, Record, SEGMENT_HEADER_BYTES,
    check_segment_header,
};
use super::recovery::{later_batch, open_files, read_batch};
use super::segments::path_of;
use crate::disk::Disk;
use crate::error::{Context, Error, Result};

/// A record, as people see it.
pub(crate) struct SeenRecord {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) batch: u64,
    pub(crate) kind: &'static str,
    pub(crate) vnode: u64,
    pub(crate) index: Option<u64>,
    pub(crate) bytes: usize,
}

/// Visits the records of all segments, up to a torn tail.
///
/// # Errors
/// `Corrupt` for what was durable and cannot be read.
pub(crate) fn each_record(
    disk: &dyn Disk,
    folder: &Path,
    visit: &mut dyn FnMut(SeenRecord),
) -> Result<()> {
    // The number of the batch that comes next; what lies behind it with a lower one is an older tail.
    let mut next_batch = 0;
    for (segment, file) in open_files(disk, folder)? {
        let path = path_of(folder, segment);
        let len = usize::try_from(file.size().context("measure", &path)?).unwrap_or(usize::MAX);
        let bytes = file.read_at(0, len).context("read", &path)?;
        let nowhere = Place { segment: 0, offset: 0 };
        if let Err(error) = check_segment_header(&bytes, segment) {
            if later_batch(&bytes, segment, nowhere).is_none() {
                continue;
            }
            return Err(Error::corrupt(&path, 0, error));
        }
        let mut offset = SEGMENT_HEADER_BYTES;
        loop {
            let at = Place { segment, offset };
            let rest = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
            let header = rest.and_then(|rest| BatchHeader::decode(rest, at).ok());
            let read = header
                .filter(|header| header.number >= next_batch)
                .map(|header| read_batch(&bytes, at, header.len).map(|records| (header, records)));
            let (header, records) = match read {
                Some(Ok(read)) => read,
                Some(Err((bad, reason))) => {
                    match later_batch(&bytes, segment, Place { segment, offset: bad }) {
                        Some(_) => return Err(Error::corrupt(&path, bad, reason)),
                        None => break,
                    }
                }
                None if later_batch(&bytes, segment, at).is_some() => {
                    return Err(Error::corrupt(&path, offset, "unreadable batch header"));
                }
                None => break,
            };
            next_batch = header.number + 1;
            for (record, position) in records {
                visit(seen(&record, (segment, position.offset, header.number)));
            }
            let len = BATCH_HEADER_BYTES as u64 + u64::from(header.len);
            offset += len.next_multiple_of(BATCH_ALIGNMENT as u64);
        }
    }
    Ok(())
}

fn seen(record: &Record, (segment, offset, batch): (u64, u64, u64)) -> SeenRecord {
    let (kind, index) = match record {
        Record::Entry { index, .. } => ("entry", Some(*index)),
        Record::Vote { .. } => ("vote", None),
        Record::Committed { .. } => ("committed", None),
        Record::Truncate { from, .. } => ("truncate", Some(*from)),
        Record::Purge { upto, .. } => ("purge", Some(*upto)),
        Record::Forget { .. } => ("forget", None),
    };
    SeenRecord {
        segment,
        offset,
        batch,
        kind,
        vnode: record.vnode().0,
        index,
        bytes: record.size(),
    }
}
