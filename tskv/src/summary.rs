//! The summary of a vnode: the log of version edits, from which its version is rebuilt at start.
//! Invariant: an edit is durable before the version it makes is seen, and the files it names are
//! durable before it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use model::wire::{Decoded, Reader, Write, malformed};

use crate::disk::{Disk, DiskFile, read_file, replace_file};
use crate::error::{Context, Error, Result};
use crate::sessions::Sessions;

/// The name of the file in a vnode's folder.
pub(crate) const NAME: &str = "summary";
const MAGIC: &[u8; 8] = b"CNOSSUM\0";
const VERSION: u32 = 2;
const HEADER_BYTES: u64 = 16;
const FRAME_HEADER_BYTES: usize = 16;
/// The log is written anew, as one edit, above this size.
const REWRITE_BYTES: u64 = 4 << 20;

/// A TSM file, as the summary names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileEntry {
    pub(crate) number: u64,
    /// Tombstones up to this Raft index were applied to its rows.
    pub(crate) seen: u64,
    /// How often its rows were merged, at most.
    pub(crate) level: u8,
}

/// A change of a vnode's version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VersionEdit {
    /// Files of any kind that are no longer valid.
    pub(crate) removed: Vec<u64>,
    /// Files added, oldest rows first: where the first removed file stood, else at the end.
    pub(crate) files: Vec<FileEntry>,
    /// Tombstone files added.
    pub(crate) tombstones: Vec<u64>,
    /// Series segments added, lowest ids first.
    pub(crate) segments: Vec<u64>,
    /// The next file number to use.
    pub(crate) next_file: u64,
    /// Everything up to this Raft index is in the files.
    pub(crate) applied: u64,
    /// What Raft knew then: last log id and membership, opaque here.
    pub(crate) raft_state: Bytes,
    pub(crate) sessions: Sessions,
    /// No row is later, where the vnode was ended.
    pub(crate) until: Option<i64>,
}

/// The open summary.
#[derive(Debug)]
pub(crate) struct Summary {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    end: u64,
    next_number: u64,
    /// All edits so far as one.
    whole: VersionEdit,
}

/// What the bytes of a summary say.
pub(crate) struct Edits {
    /// Each edit with its number and offset.
    pub(crate) list: Vec<(u64, u64, VersionEdit)>,
    /// All of them as one.
    pub(crate) whole: VersionEdit,
    /// Where the last of them ends; what follows was torn.
    pub(crate) end: u64,
}

/// Reads the edits of a summary up to a torn last one.
pub(crate) fn edits(path: &Path, bytes: &[u8]) -> Result<Edits> {
    if bytes.get(..HEADER_BYTES as usize) != Some(&header()[..]) {
        return Err(Error::corrupt(path, 0, format!("not a summary of version {VERSION}")));
    }
    let mut read = Edits { list: Vec::new(), whole: VersionEdit::default(), end: HEADER_BYTES };
    let mut at = HEADER_BYTES as usize;
    while let Some((number, edit, len)) = frame_at(bytes, at) {
        if read.list.last().is_some_and(|(before, ..)| number != before + 1) {
            return Err(Error::corrupt(path, at as u64, "edit out of order"));
        }
        let edit = decode(edit).map_err(|error| Error::corrupt(path, at as u64, error))?;
        read.whole.merge(edit.clone());
        read.list.push((number, at as u64, edit));
        at += len;
    }
    if (at + 1..bytes.len()).any(|later| frame_at(bytes, later).is_some()) {
        return Err(Error::corrupt(path, at as u64, "unreadable edit"));
    }
    read.end = at as u64;
    Ok(read)
}

impl Summary {
    /// Opens the summary, replays its edits and cuts a torn last one.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let mut summary = Self {
            disk: Arc::clone(&disk),
            path: path.to_path_buf(),
            file: None,
            end: HEADER_BYTES,
            next_number: 1,
            whole: VersionEdit::default(),
        };
        let bytes = match read_file(&*disk, path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(summary),
            other => other.context("read", path)?,
        };
        let edits = edits(path, &bytes)?;
        summary.next_number = edits.list.last().map_or(1, |(number, ..)| number + 1);
        summary.whole = edits.whole;
        summary.end = edits.end;
        if edits.end < bytes.len() as u64 {
            tracing::info!(path = %path.display(), offset = edits.end, "cut a torn version edit");
            let file = disk.open(path).context("open", path)?;
            file.set_len(edits.end).context("cut", path)?;
            file.sync().context("sync", path)?;
        }
        // The file is left as it is until the next edit, which writes it anew: see `confirm`.
        Ok(summary)
    }

    /// Returns all edits so far as one.
    pub(crate) fn whole(&self) -> &VersionEdit {
        &self.whole
    }

    /// Appends an edit and makes it durable.
    pub(crate) fn append(&mut self, edit: VersionEdit) -> Result<()> {
        assert!(edit.applied >= self.whole.applied, "summary went back: {edit:?}");
        self.whole.merge(edit.clone());
        match &self.file {
            Some(file) if self.end < REWRITE_BYTES => {
                let frame = frame(self.next_number, &edit, self.end);
                file.write_at(self.end, &frame).context("append to", &self.path)?;
                file.sync().context("sync", &self.path)?;
                self.end += frame.len() as u64;
            }
            _ => return self.rewrite(),
        }
        self.next_number += 1;
        Ok(())
    }

    /// Makes durable what was read when the summary was opened. Before that nothing may be purged:
    /// an edit whose sync failed is still in the page cache, and reads as if it were on disk.
    pub(crate) fn confirm(&mut self) -> Result<()> {
        if self.file.is_none() && !self.whole.raft_state.is_empty() {
            return self.rewrite();
        }
        Ok(())
    }

    /// Writes all edits as one into a fresh file.
    fn rewrite(&mut self) -> Result<()> {
        let mut bytes = header();
        bytes.extend_from_slice(&frame(self.next_number, &self.whole, HEADER_BYTES));
        replace_file(&*self.disk, &self.path, &bytes).context("replace", &self.path)?;
        self.end = bytes.len() as u64;
        self.file = Some(self.disk.open(&self.path).context("open", &self.path)?);
        self.next_number += 1;
        Ok(())
    }
}

impl VersionEdit {
    fn merge(&mut self, later: Self) {
        let gone = |file: &FileEntry| later.removed.contains(&file.number);
        let at = self.files.iter().position(gone).unwrap_or(self.files.len());
        self.files.retain(|file| !gone(file));
        self.files.splice(at..at, later.files);
        self.tombstones.retain(|number| !later.removed.contains(number));
        self.tombstones.extend(later.tombstones);
        let gone = |number: &u64| later.removed.contains(number);
        let at = self.segments.iter().position(gone).unwrap_or(self.segments.len());
        self.segments.retain(|number| !gone(number));
        self.segments.splice(at..at, later.segments);
        self.next_file = self.next_file.max(later.next_file);
        self.applied = later.applied;
        self.raft_state = later.raft_state;
        self.sessions = later.sessions;
        self.until = later.until;
    }
}

fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.put_u32(VERSION);
    bytes.put_u32(crc32fast::hash(&bytes));
    bytes
}

/// Frames an edit: length, checksum, number, then the edit. The checksum covers the offset as well,
/// so that an edit's bytes elsewhere are no edit.
// FORMAT: docs/formats/summary.md, v2
fn frame(number: u64, edit: &VersionEdit, offset: u64) -> Vec<u8> {
    let body = encode(edit);
    let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
    bytes.put_u32(u32::try_from(body.len()).expect("an edit is far below 4 GiB"));
    bytes.put_u32(frame_crc(number, offset, &body));
    bytes.put_u64(number);
    bytes.extend_from_slice(&body);
    bytes
}

fn frame_crc(number: u64, offset: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

fn frame_at(bytes: &[u8], at: usize) -> Option<(u64, &[u8], usize)> {
    let mut reader = Reader::new(bytes.get(at..)?);
    let len = reader.u32().ok()? as usize;
    let crc = reader.u32().ok()?;
    let number = reader.u64().ok()?;
    let body = reader.take(len).ok()?;
    let whole = len > 0 && frame_crc(number, at as u64, body) == crc;
    whole.then_some((number, body, FRAME_HEADER_BYTES + len))
}

pub(crate) fn encode(edit: &VersionEdit) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_varint(edit.files.len() as u64);
    for file in &edit.files {
        out.put_u64(file.number);
        out.put_u64(file.seen);
        out.put_u8(file.level);
    }
    for list in [&edit.removed, &edit.tombstones, &edit.segments] {
        out.put_varint(list.len() as u64);
        for number in list {
            out.put_u64(*number);
        }
    }
    out.put_u64(edit.next_file);
    out.put_u64(edit.applied);
    out.put_bytes(&edit.raft_state);
    edit.sessions.encode(&mut out);
    if let Some(until) = edit.until {
        out.put_i64(until);
    }
    out
}

pub(crate) fn decode(bytes: &[u8]) -> Decoded<VersionEdit> {
    let mut reader = Reader::new(bytes);
    let count = reader.count(17)?;
    let mut files = Vec::with_capacity(count);
    for _ in 0..count {
        let (number, seen, level) = (reader.u64()?, reader.u64()?, reader.u8()?);
        files.push(FileEntry { number, seen, level });
    }
    let mut lists = [Vec::new(), Vec::new(), Vec::new()];
    for list in &mut lists {
        for _ in 0..reader.count(8)? {
            list.push(reader.u64()?);
        }
    }
    let [removed, tombstones, segments] = lists;
    let (next_file, applied) = (reader.u64()?, reader.u64()?);
    let raft_state = Bytes::copy_from_slice(reader.bytes()?);
    let sessions = Sessions::decode(&mut reader)?;
    let until = (reader.remaining() > 0).then(|| reader.i64()).transpose()?;
    if reader.remaining() > 0 {
        return malformed("edit too long");
    }
    Ok(VersionEdit {
        removed,
        files,
        tombstones,
        segments,
        next_file,
        applied,
        raft_state,
        sessions,
        until,
    })
}
