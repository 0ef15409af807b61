//! What nodes ask each other about rows: bytes of requests and responses, and the way there.
//!
//! A message is the length of its JSON head, the head, and a payload that is sent as it is.
// FORMAT: docs/formats/rpc.md, v1

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::wire::{Reader, Write};
use model::{BucketId, DatabaseId, ErrorKind, NodeId, TableId, TimeRange, VnodeId};
use replication::transport::{Answers, CallError, Transport};
use serde::{Deserialize, Serialize};
use tskv::{ExactCounts, ScanColumn, ScanCounts, SeriesFilter, ValueTest, VnodeChecksum};

use crate::compaction::VnodeFiles;
use crate::error::{Error, Result};
use crate::hand_off::HandedOff;

/// The service's name.
pub(crate) const ROWS: &str = "rows";

/// What a node is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Propose the payload to the replica set of a vnode, which leads; under a lock, or none; answer once
    /// it is applied, or durable there.
    Propose {
        vnode: VnodeId,
        bucket: BucketId,
        lock: Option<LockId>,
        #[serde(default)]
        only_durable: bool,
    },
    /// Answer once a vnode has applied an index.
    Applied { vnode: VnodeId, index: u64 },
    /// The index that holds all that was acknowledged before, by a vnode that leads.
    ReadIndex { vnode: VnodeId },
    /// Hold back the writers of a vnode's replica set.
    Lock { vnode: VnodeId, lock: LockId },
    /// Keep a lock.
    Renew { lock: LockId },
    /// Let writers on.
    Unlock { lock: LockId },
    /// The time of the last row of a vnode that leads.
    LastTime { vnode: VnodeId },
    /// Say whether a vnode leads, once a quorum agrees; its group is founded where it was not.
    Lead { vnode: VnodeId },
    /// Pin what a scan sees, of a vnode that leads; or of one that follows and lacks nothing older than
    /// so many milliseconds.
    OpenScan {
        vnode: VnodeId,
        scan: WireScan,
        #[serde(default)]
        stale_ms: Option<u64>,
    },
    /// Let go of it.
    CloseScan { scan: u64 },
    /// Flush and compact a vnode to one run.
    Compact { vnode: VnodeId },
    /// What vnodes are open, and how large are they?
    Files,
    /// What waits in the hand-off queue?
    HandedOff,
    /// What do groups look like from here?
    Groups,
    /// The checksum of the rows that a vnode kept for it, at this index.
    Checksum { vnode: VnodeId, index: u64 },
    /// Which node leads the replica set of a vnode, as far as the vnode knows?
    Leader { vnode: VnodeId },
    /// Hand the lead over to another vnode.
    HandOver { vnode: VnodeId, to: VnodeId },
    /// Close a vnode that has applied all of its log, which ends there, until somebody calls it.
    Sleep { vnode: VnodeId, term: u64, index: u64 },
}

/// A lock: the session of the node that asked for it, and a number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct LockId {
    pub(crate) session: u64,
    pub(crate) number: u64,
}

/// A scan that a node pins for another, or one part of it: what is streamed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PinnedScan {
    pub(crate) scan: u64,
    pub(crate) part: usize,
    pub(crate) parts: usize,
    pub(crate) last_rows: bool,
}

/// What a node answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    /// The outcome of a command, as the machine encodes it.
    Proposed {
        outcome: u8,
        index: u64,
    },
    Done,
    Scan(ScanInfo),
    Files(Vec<VnodeFiles>),
    HandedOff(Vec<HandedOff>),
    Groups(Vec<GroupReport>),
    Checksum(VnodeChecksum),
    LastTime(Option<i64>),
    /// Nothing was done: another member leads, on this node where one is known.
    NotLeader {
        leader: Option<NodeId>,
    },
    /// Nobody knows whether it was done; repeating is harmless.
    Unknown {
        reason: String,
    },
    /// Nothing was done: the lock it named is held no more.
    LockLost,
    /// It was refused, and nothing was done.
    Failed {
        kind: ErrorKind,
        message: String,
    },
}

/// A scan request on its way; the schema is the payload.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireScan {
    pub(crate) table: TableId,
    pub(crate) columns: Vec<ScanColumn>,
    pub(crate) times: TimeRange,
    pub(crate) filter: SeriesFilter,
    #[serde(default)]
    pub(crate) values: Vec<ValueTest>,
    pub(crate) order: Vec<model::ColumnId>,
}

/// What is known of a pinned scan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ScanInfo {
    pub(crate) scan: u64,
    pub(crate) counts: ScanCounts,
    pub(crate) rows_about: usize,
    pub(crate) ordered: bool,
    pub(crate) exact: Option<ExactCounts>,
}

/// A vnode's group, as the vnode sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupReport {
    /// The vnode that reports.
    pub vnode: VnodeId,
    /// Its node.
    pub node: NodeId,
    /// Its database.
    pub database: DatabaseId,
    /// The term.
    pub term: u64,
    /// The vnode that leads, where one is known.
    pub leader: Option<VnodeId>,
    /// The last index of its log.
    pub last_index: u64,
    /// The last index it has applied.
    pub applied: u64,
    /// Whether it votes.
    pub votes: bool,
}

/// The way to other nodes' rows.
#[derive(Clone, Debug)]
pub(crate) struct Peers(pub(crate) Arc<dyn Transport>);

impl Peers {
    /// Asks a node.
    pub(crate) async fn ask(
        &self,
        node: NodeId,
        request: &Request,
        payload: &[u8],
        patience: Duration,
    ) -> std::result::Result<(Response, Bytes), CallError> {
        let message = encode(request, payload);
        let answer = self.0.call(node, ROWS, message, patience).await?;
        decode(&answer)
    }

    /// Asks a node for the rows of a scan it pins.
    pub(crate) async fn read(
        &self,
        node: NodeId,
        read: &PinnedScan,
    ) -> std::result::Result<Answers, CallError> {
        self.0.stream(node, ROWS, encode(read, &[])).await
    }
}

pub(crate) fn encode<T: Serialize>(head: &T, payload: &[u8]) -> Bytes {
    let head = serde_json::to_vec(head).expect("heads have string keys");
    let mut out = Vec::with_capacity(head.len() + payload.len() + 8);
    out.put_bytes(&head);
    out.extend_from_slice(payload);
    out.into()
}

pub(crate) fn decode<T: for<'a> Deserialize<'a>>(
    bytes: &Bytes,
) -> std::result::Result<(T, Bytes), CallError> {
    let mut reader = Reader::new(bytes);
    let head = reader.bytes().map_err(|error| CallError::Refused(error.to_string()))?;
    let head = serde_json::from_slice(head);
    let head = head.map_err(|error| CallError::Refused(format!("request: {error}")))?;
    Ok((head, bytes.slice(reader.position()..)))
}

impl Response {
    /// Makes an error of a response that is not what was asked for.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Failed { kind, message } => Error::Remote { kind, message },
            Self::NotLeader { leader } => {
                let leader = leader.map(|node| (0, node));
                Error::Replication(replication::Error::NotLeader { leader })
            }
            Self::LockLost => Error::LockLost,
            Self::Unknown { reason } => {
                Error::Remote { kind: ErrorKind::Unavailable, message: reason }
            }
            other => Error::internal(format!("another answer was asked for: {other:?}")),
        }
    }
}

/// Makes an error of a call that was not answered.
pub(crate) fn not_answered(error: &CallError) -> Error {
    Error::Remote { kind: error.kind(), message: error.to_string() }
}

/// Makes a response of what went wrong here.
pub(crate) fn failed(error: &Error) -> Response {
    match error {
        Error::Replication(replication::Error::NotLeader { leader }) => {
            Response::NotLeader { leader: leader.map(|(_, node)| node) }
        }
        Error::LockLost => Response::LockLost,
        Error::Replication(
            error @ (replication::Error::Stopped(_)
            | replication::Error::NotReady(_)
            | replication::Error::Damaged(_)),
        ) => Response::Unknown { reason: error.to_string() },
        other => Response::Failed { kind: other.kind(), message: other.to_string() },
    }
}

/// Shorthand for what a request returned.
pub(crate) fn done(response: Response) -> Result<()> {
    match response {
        Response::Done => Ok(()),
        other => Err(other.into_error()),
    }
}
