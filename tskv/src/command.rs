//! The commands of a replica set's log: versioned bytes, encoded once by the writer.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use bytes::Bytes;
use model::Points;
use model::wire::{Decoded, Reader, Write, malformed};

use crate::sessions::WriteId;

const VERSION: u8 = 1;
const WRITE: u8 = 1;

/// A command as apply sees it.
#[derive(Debug)]
pub(crate) enum Command {
    Write { id: WriteId, time_ns: i64, points: Vec<Points> },
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
}

/// Encodes a write of rows; `time_ns` is the writer's clock.
// FORMAT: docs/formats/command.md, v1
pub fn encode_write(id: WriteId, time_ns: i64, points: &[Points]) -> Bytes {
    let mut out = Vec::new();
    out.put_u8(VERSION);
    out.put_u8(WRITE);
    out.put_u64(id.session);
    out.put_u64(id.sequence);
    out.put_i64(time_ns);
    out.put_varint(points.len() as u64);
    for points in points {
        points.encode(&mut out);
    }
    out.into()
}

impl Command {
    pub(crate) fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return malformed(format!("command version {version}; this program reads {VERSION}"));
        }
        match reader.u8()? {
            WRITE => {
                let id = WriteId { session: reader.u64()?, sequence: reader.u64()? };
                let time_ns = reader.i64()?;
                let count = reader.count(7)?;
                let points =
                    (0..count).map(|_| Points::decode(&mut reader)).collect::<Decoded<_>>()?;
                reader.finish()?;
                Ok(Self::Write { id, time_ns, points })
            }
            other => malformed(format!("command kind {other}")),
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
        }
    }

    /// Returns the outcome a byte stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Applied, Self::AppliedBefore, Self::Unknown].into_iter().find(|o| o.code() == code)
    }
}
