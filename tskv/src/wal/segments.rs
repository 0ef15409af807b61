//! The segment files: preallocated, one in reserve, appended to in batches, deleted oldest first.
//! Invariant: a segment's name is durable before its first batch is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::wire::Reader;

use super::format::{
    self, BATCH_ALIGNMENT, BATCH_HEADER_BYTES, BatchHeader, Place, RECORD_HEADER_BYTES, Record,
    SEGMENT_HEADER_BYTES,
};
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Error, Result};

/// Where a record stands: its header's offset and the length of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// The files of the log and the place where the next batch goes.
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    segment_bytes: u64,
    files: BTreeMap<u64, Arc<dyn DiskFile>>,
    end: Place,
    next_batch: u64,
}

/// Returns the path of a segment.
pub(super) fn path_of(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:016x}.wal"))
}

impl Segments {
    /// Takes over files found at start; `end` is where the next batch goes, in a file of `files`.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        folder: &Path,
        segment_bytes: u64,
        files: BTreeMap<u64, Arc<dyn DiskFile>>,
        (end, next_batch): (Place, u64),
    ) -> Self {
        Self { disk, folder: folder.to_path_buf(), segment_bytes, files, end, next_batch }
    }

    pub(super) fn current(&self) -> u64 {
        self.end.segment
    }

    pub(super) fn oldest(&self) -> u64 {
        self.files.keys().next().copied().unwrap_or(self.end.segment)
    }

    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    pub(super) fn has_reserve(&self) -> bool {
        self.files.keys().next_back().is_some_and(|last| *last > self.end.segment)
    }

    pub(super) fn file(&self, segment: u64) -> Result<(PathBuf, Arc<dyn DiskFile>)> {
        let path = path_of(&self.folder, segment);
        match self.files.get(&segment) {
            Some(file) => Ok((path, Arc::clone(file))),
            None => Err(Error::corrupt(&path, 0, "segment is gone")),
        }
    }

    /// Makes the next segment, so that the log can go on when the current one is full.
    pub(super) fn make_reserve(&mut self) -> Result<()> {
        if self.has_reserve() {
            return Ok(());
        }
        let number = self.files.keys().next_back().map_or(1, |last| last + 1);
        let path = path_of(&self.folder, number);
        let file = self.disk.create(&path).context("create", &path)?;
        let made = self.prepare(&*file, number);
        if let Err(source) = made {
            // Half made it would be refused at the next start; the space is wanted back too.
            self.disk.remove(&path).context("remove half-made", &path)?;
            return Err(Error::Io { context: format!("prepare {}", path.display()), source });
        }
        self.files.insert(number, file);
        Ok(())
    }

    fn prepare(&self, file: &dyn DiskFile, number: u64) -> std::io::Result<()> {
        file.allocate(self.segment_bytes)?;
        file.write_at(0, &format::segment_header(number))?;
        file.sync()?;
        self.disk.sync_folder(&self.folder)
    }

    /// Appends records as one batch and makes it durable. Returns where each stands.
    pub(super) fn append<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Record>,
    ) -> Result<Vec<Position>> {
        let mut body = Vec::new();
        let mut places = Vec::new();
        for record in records {
            let start = body.len();
            record.encode(&mut body);
            places.push((start as u64, (body.len() - start - RECORD_HEADER_BYTES) as u32));
        }
        let durable = self.end;
        let padded = (BATCH_HEADER_BYTES + body.len()).next_multiple_of(BATCH_ALIGNMENT) as u64;
        if self.end.offset + padded > self.segment_bytes && self.end.offset > SEGMENT_HEADER_BYTES {
            self.rotate()?;
        }
        let at = self.end;
        let len = u32::try_from(body.len()).expect("a batch is far below 4 GiB");
        let mut batch = BatchHeader { number: self.next_batch, durable, len }.encode(at);
        batch.append(&mut body);
        let (path, file) = self.file(at.segment)?;
        file.write_at(at.offset, &batch).context("append to", &path)?;
        file.sync().context("sync", &path)?;
        self.next_batch += 1;
        self.end.offset += padded;
        let position = |(start, len)| Position {
            segment: at.segment,
            offset: at.offset + BATCH_HEADER_BYTES as u64 + start,
            len,
        };
        Ok(places.into_iter().map(position).collect())
    }

    fn rotate(&mut self) -> Result<()> {
        self.make_reserve()?;
        let next = self.end.segment + 1;
        assert!(self.files.contains_key(&next), "segments are numbered without gaps");
        self.end = Place { segment: next, offset: SEGMENT_HEADER_BYTES };
        if let Err(error) = self.make_reserve() {
            tracing::warn!(%error, "no wal segment in reserve: writes are refused until there is one");
        }
        Ok(())
    }

    /// Deletes the oldest segment, which must not be the current one.
    pub(super) fn delete_oldest(&mut self) -> Result<()> {
        let oldest = self.oldest();
        assert!(oldest < self.end.segment, "the current segment is never deleted");
        let path = path_of(&self.folder, oldest);
        self.disk.remove(&path).context("remove", &path)?;
        self.files.remove(&oldest);
        self.disk.sync_folder(&self.folder).context("sync", &self.folder)
    }
}

/// Reads an entry's payload back and checks it.
pub(super) fn read_entry(path: &Path, file: &dyn DiskFile, at: Position) -> Result<Bytes> {
    let len = RECORD_HEADER_BYTES + at.len as usize;
    let bytes = file.read_at(at.offset, len).context("read", path)?;
    match Record::decode(&mut Reader::new(&bytes)) {
        Ok(Record::Entry { payload, .. }) => Ok(payload),
        Ok(_) => Err(Error::corrupt(path, at.offset, "another record than was written here")),
        Err(error) => Err(Error::corrupt(path, at.offset, error)),
    }
}
