//! The bytes of the write-ahead log.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use bytes::Bytes;
use model::VnodeId;
use model::wire::{Decoded, Reader, Write, malformed};

/// First bytes of every segment.
const SEGMENT_MAGIC: &[u8; 8] = b"CNOSWAL\0";
/// The version of the log's format.
pub(super) const VERSION: u32 = 1;
/// Length of a segment's header.
pub(super) const SEGMENT_HEADER_BYTES: u64 = 32;
/// Length of a batch's header.
pub(super) const BATCH_HEADER_BYTES: usize = 48;
/// Length of what stands before a record's body: length and checksum.
pub(super) const RECORD_HEADER_BYTES: usize = 8;
/// Batches begin at multiples of this.
pub(super) const BATCH_ALIGNMENT: usize = 16;

const BATCH_MAGIC: u32 = 0x4254_4357;

/// A place in the log: a segment and an offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Entry { vnode: VnodeId, index: u64, payload: Bytes },
    Vote { vnode: VnodeId, vote: Bytes },
    Committed { vnode: VnodeId, committed: Bytes },
    Truncate { vnode: VnodeId, from: u64 },
    Purge { vnode: VnodeId, upto: u64, log_id: Bytes },
    Forget { vnode: VnodeId },
}

/// The head of a batch: the records one fsync made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// Grows by one with each batch of the log.
    pub(super) number: u64,
    /// Where the batch before it ended; everything before that was durable when this was written.
    pub(super) durable: Place,
    /// Bytes of all records.
    pub(super) len: u32,
}

impl Record {
    pub(super) fn vnode(&self) -> VnodeId {
        match self {
            Self::Entry { vnode, .. }
            | Self::Vote { vnode, .. }
            | Self::Committed { vnode, .. }
            | Self::Truncate { vnode, .. }
            | Self::Purge { vnode, .. }
            | Self::Forget { vnode } => *vnode,
        }
    }

    fn parts(&self) -> (u8, u64, &[u8]) {
        match self {
            Self::Entry { index, payload, .. } => (1, *index, payload),
            Self::Vote { vote, .. } => (2, 0, vote),
            Self::Committed { committed, .. } => (3, 0, committed),
            Self::Truncate { from, .. } => (4, *from, &[]),
            Self::Purge { upto, log_id, .. } => (5, *upto, log_id),
            Self::Forget { .. } => (6, 0, &[]),
        }
    }

    /// Returns the bytes the record takes in a batch.
    pub(super) fn size(&self) -> usize {
        RECORD_HEADER_BYTES + 17 + self.parts().2.len()
    }

    /// Appends length, checksum and body.
    // FORMAT: docs/formats/wal.md, v1
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (kind, number, payload) = self.parts();
        let len = u32::try_from(17 + payload.len()).expect("entries are at most 64 MiB");
        let mut hasher = crc32fast::Hasher::new();
        let mut head = Vec::with_capacity(17);
        head.put_u8(kind);
        head.put_u64(self.vnode().0);
        head.put_u64(number);
        hasher.update(&head);
        hasher.update(payload);
        out.put_u32(len);
        out.put_u32(hasher.finalize());
        out.extend_from_slice(&head);
        out.extend_from_slice(payload);
    }

    /// Reads the record at the front of `reader`; `None` where its checksum fails.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let len = reader.u32()?;
        let crc = reader.u32()?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let body = reader.take(len)?;
        if crc32fast::hash(body) != crc {
            return malformed("record checksum");
        }
        let mut body = Reader::new(body);
        let kind = body.u8()?;
        let vnode = VnodeId(body.u64()?);
        let number = body.u64()?;
        let bytes = Bytes::copy_from_slice(body.take(body.remaining())?);
        Ok(match kind {
            1 => Self::Entry { vnode, index: number, payload: bytes },
            2 => Self::Vote { vnode, vote: bytes },
            3 => Self::Committed { vnode, committed: bytes },
            4 => Self::Truncate { vnode, from: number },
            5 => Self::Purge { vnode, upto: number, log_id: bytes },
            6 => Self::Forget { vnode },
            other => return malformed(format!("record kind {other}")),
        })
    }
}

/// Returns the header of a segment.
pub(super) fn segment_header(number: u64) -> Vec<u8> {
    let mut bytes = SEGMENT_MAGIC.to_vec();
    bytes.put_u32(VERSION);
    bytes.put_u64(number);
    let crc = crc32fast::hash(&bytes);
    bytes.put_u32(crc);
    bytes.resize(usize::try_from(SEGMENT_HEADER_BYTES).unwrap_or(32), 0);
    bytes
}

/// Checks the header of a segment.
pub(super) fn check_segment_header(bytes: &[u8], number: u64) -> Decoded<()> {
    let mut reader = Reader::new(bytes);
    if reader.take(8)? != SEGMENT_MAGIC {
        return malformed("not a wal segment");
    }
    let version = reader.u32()?;
    if version != VERSION {
        return malformed(format!("wal version {version}; this program reads {VERSION}"));
    }
    if bytes.get(..24) != segment_header(number).get(..24) {
        return malformed("segment header");
    }
    Ok(())
}

impl BatchHeader {
    /// Returns the header's bytes; the checksum covers the place too, so that bytes of a batch that
    /// stand elsewhere (inside a payload, say) are no batch.
    // FORMAT: docs/formats/wal.md, v1
    pub(super) fn encode(&self, at: Place) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BATCH_HEADER_BYTES);
        bytes.put_u32(BATCH_MAGIC);
        bytes.put_u32(self.len);
        bytes.put_u64(self.number);
        bytes.put_u64(self.durable.segment);
        bytes.put_u64(self.durable.offset);
        let crc = self.crc(at);
        bytes.put_u32(crc);
        bytes.resize(BATCH_HEADER_BYTES, 0);
        bytes
    }

    fn crc(&self, at: Place) -> u32 {
        let mut covered = Vec::with_capacity(48);
        for part in [self.number, self.durable.segment, self.durable.offset, at.segment, at.offset]
        {
            covered.put_u64(part);
        }
        covered.put_u32(self.len);
        crc32fast::hash(&covered)
    }

    /// Reads a header that stands at `at`.
    pub(super) fn decode(bytes: &[u8], at: Place) -> Decoded<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != BATCH_MAGIC {
            return malformed("no batch");
        }
        let len = reader.u32()?;
        let number = reader.u64()?;
        let durable = Place { segment: reader.u64()?, offset: reader.u64()? };
        let header = Self { number, durable, len };
        if reader.u32()? != header.crc(at) || reader.take(12)?.iter().any(|byte| *byte != 0) {
            return malformed("batch header checksum");
        }
        Ok(header)
    }
}
