//! What can go wrong in a group.

use model::{ErrorKind, NodeId};

/// An error of replication.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// This member does not lead the group; `leader` does, if one is known.
    #[error("not the leader of the group{}", leader.map(|(id, node)| format!(", member {id} on node {node} is")).unwrap_or_default())]
    NotLeader {
        /// The member that leads, and its node.
        leader: Option<(u64, NodeId)>,
    },
    /// The change of members cannot be made as the group is now.
    #[error("the group refuses: {0}")]
    Refused(String),
    /// The group has stopped; what was proposed last may or may not have been applied.
    #[error("the raft group stopped: {0}")]
    Stopped(String),
    /// What the member holds is not what was written: another member may serve.
    #[error("{0}")]
    Damaged(String),
    /// The group did not get ready in time.
    #[error("the raft group is not ready: {0}")]
    NotReady(String),
}

/// Shorthand of a result of replication.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Returns what a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused(_) => ErrorKind::Conflict,
            Self::Damaged(_) => ErrorKind::Corrupt,
            Self::NotLeader { .. } | Self::Stopped(_) | Self::NotReady(_) => ErrorKind::Unavailable,
        }
    }
}
