//! The types openraft is parameterised with.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::runtime::Runtime;

/// What one entry carries: commands proposed at about the same time, logged with one fsync.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commands(pub(crate) Vec<Bytes>);

/// The answers to the commands of one entry, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replies(pub(crate) Vec<Bytes>);

openraft::declare_raft_types!(
    /// The parameters of every group.
    pub(crate) TypeConfig:
        D = Commands,
        R = Replies,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Bytes,
        Responder = openraft::impls::OneshotResponder<TypeConfig>,
        AsyncRuntime = Runtime,
);

pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, openraft::BasicNode>;
pub(crate) type StorageError = openraft::StorageError<u64>;
