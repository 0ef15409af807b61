//! The members of a group over a transport: what openraft says to others, and what others say to it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use model::NodeId;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{AnyError, BasicNode, OptionalSend, Snapshot};

use crate::error::{Error, Result};
use crate::group::Group;
use crate::machine::Image;
use crate::messages::{self, AppendRequest, Message, Reply};
use crate::transport::{Answer, CallError, Service, Transport};
use crate::types::{TypeConfig, Vote};

/// How long a short message between members may take.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a member may take to begin an election: proposals wait for it.
const ELECT_PATIENCE: Duration = Duration::from_secs(1);

/// The way to the other members of some groups: those whose messages one service takes.
#[derive(Clone, Debug)]
pub struct Network {
    transport: Arc<dyn Transport>,
    service: &'static str,
    node: NodeId,
}

impl Network {
    /// Makes the way to members by a service, for a node.
    pub fn new(transport: Arc<dyn Transport>, service: &'static str, node: NodeId) -> Self {
        Self { transport, service, node }
    }

    async fn ask(
        &self,
        (node, member): (NodeId, u64),
        message: &Message,
        patience: Duration,
    ) -> std::result::Result<Reply, CallError> {
        let request = messages::encode(member, message);
        let answer = self.transport.call(node, self.service, request, patience).await?;
        match messages::decode_reply(&answer) {
            Ok(Reply::Failed(reason)) => Err(CallError::Refused(reason)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(CallError::Refused(error.to_string())),
        }
    }

    /// Has a member stand for election now.
    pub(crate) async fn elect(&self, target: (NodeId, u64)) -> Result<()> {
        let asked = self.ask(target, &Message::Elect, ELECT_PATIENCE).await;
        asked.map(|_| ()).map_err(|error| Error::NotReady(error.to_string()))
    }
}

/// The files of a member that sent an image.
#[derive(Clone, Debug)]
pub struct Pieces {
    network: Network,
    source: (NodeId, u64),
}

impl Pieces {
    /// Reads a piece of a file; fewer bytes than `len` only at its end.
    ///
    /// # Errors
    /// A member that is gone, or has the file no more.
    pub async fn read(&self, part: &str, offset: u64, len: u32) -> io::Result<Bytes> {
        let message = Message::Piece { part: part.to_owned(), offset, len };
        match self.network.ask(self.source, &message, MESSAGE_PATIENCE).await {
            Ok(Reply::Piece(piece)) => Ok(piece),
            Ok(_) => Err(io::Error::other("a piece of a file was asked for")),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

/// Makes openraft's links; without a network it reaches nobody.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    pub(crate) network: Option<Network>,
    pub(crate) member: u64,
}

/// openraft's way to one member.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    links: Links,
    target: Option<(NodeId, u64)>,
}

type Failed = RPCError<u64, BasicNode, RaftError<u64>>;

/// Returns what a membership says of where a member is: the number of its node.
pub(crate) fn node_of(node: &BasicNode) -> Option<NodeId> {
    node.addr.parse().ok().map(NodeId)
}

pub(crate) fn node_entry(node: NodeId) -> BasicNode {
    BasicNode::new(node.0)
}

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Link {
        let target = node_of(node).map(|node| (node, target));
        Link { links: self.clone(), target }
    }
}

fn unreachable(error: &CallError) -> Unreachable {
    Unreachable::new(&AnyError::error(error))
}

/// Returns whether the entries do not follow one another, or what they are said to follow: the log may
/// be purged between the moment openraft decides what to send and the moment it reads it.
fn has_gap(request: &AppendRequest) -> bool {
    let after = request.prev_log_id.as_ref().map_or(0, |before| before.index + 1);
    (after..).zip(&request.entries).any(|(index, entry)| entry.log_id.index != index)
}

impl Link {
    async fn ask(
        &self,
        message: &Message,
        patience: Duration,
    ) -> std::result::Result<Reply, CallError> {
        match (&self.links.network, self.target) {
            (Some(network), Some(target)) => network.ask(target, message, patience).await,
            _ => Err(CallError::Refused("the group has one member".to_owned())),
        }
    }
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        request: AppendRequest,
        option: RPCOption,
    ) -> std::result::Result<AppendEntriesResponse<u64>, Failed> {
        if has_gap(&request) {
            // openraft then looks again at what is there, and sends an image.
            let error = io::Error::other("what was to be sent was purged meanwhile");
            return Err(RPCError::Network(NetworkError::new(&error)));
        }
        match self.ask(&Message::Append(request), option.hard_ttl()).await {
            Ok(Reply::Append(response)) => Ok(response),
            Ok(_) => Err(unexpected()),
            Err(error) => Err(RPCError::Unreachable(unreachable(&error))),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> std::result::Result<VoteResponse<u64>, Failed> {
        match self.ask(&Message::Vote(request), option.hard_ttl()).await {
            Ok(Reply::Vote(response)) => Ok(response),
            Ok(_) => Err(unexpected()),
            Err(error) => Err(RPCError::Unreachable(unreachable(&error))),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> std::result::Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let node = self.links.network.as_ref().map_or(0, |network| network.node.0);
        let message = Message::Image {
            vote,
            meta: snapshot.meta,
            data: *snapshot.snapshot,
            node,
            source: self.links.member,
        };
        let answer = tokio::select! {
            answer = self.ask(&message, option.hard_ttl()) => answer,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        match answer {
            Ok(Reply::Image { vote }) => Ok(SnapshotResponse { vote }),
            Ok(_) => Err(StreamingError::Unreachable(unreachable(&CallError::Refused(
                "another answer was asked for".to_owned(),
            )))),
            Err(error) => Err(StreamingError::Unreachable(unreachable(&error))),
        }
    }
}

fn unexpected() -> Failed {
    let error = CallError::Refused("another answer was asked for".to_owned());
    RPCError::Unreachable(unreachable(&error))
}

/// Whatever holds a group.
pub trait HoldsGroup: Send + Sync {
    /// Returns it.
    fn group(&self) -> &Group;
}

impl HoldsGroup for Group {
    fn group(&self) -> &Group {
        self
    }
}

/// Keeps a member from standing for election while it takes an image: the leader is silent until then, and a
/// newer term would have it send the image again.
struct Patient<'a>(&'a Group);

impl<'a> Patient<'a> {
    fn new(group: &'a Group) -> Self {
        let mut taken = group.images_taken.lock();
        *taken += 1;
        group.raft.runtime_config().elect(false);
        drop(taken);
        Self(group)
    }
}

impl Drop for Patient<'_> {
    fn drop(&mut self) {
        let mut taken = self.0.images_taken.lock();
        *taken -= 1;
        if *taken == 0 {
            self.0.raft.runtime_config().elect(true);
        }
    }
}

/// The members of this node that others may speak to; they are opened where they are not open.
pub trait Members: Send + Sync + 'static {
    /// Returns the group of a member.
    fn member(&self, member: u64) -> BoxFuture<'_, Result<Arc<dyn HoldsGroup>>>;

    /// Refuses where their logs have no space for entries.
    ///
    /// # Errors
    /// `NotReady`: there may be space later.
    fn admit(&self) -> Result<()> {
        Ok(())
    }
}

/// The service that takes what other members say.
#[derive(Debug)]
pub struct RaftService<M> {
    members: M,
    network: Network,
}

impl<M: Members> RaftService<M> {
    /// Makes the service of some members; `network` is how these members answer questions of their
    /// own.
    pub fn new(members: M, network: Network) -> Self {
        Self { members, network }
    }

    async fn answer(&self, request: &Bytes) -> Result<Reply> {
        let (member, message) =
            messages::decode(request).map_err(|error| Error::Stopped(error.to_string()))?;
        let holder = self.members.member(member).await?;
        let group = holder.group();
        let stopped = |error: &dyn std::fmt::Display| Error::Stopped(error.to_string());
        Ok(match message {
            Message::Append(request) if has_gap(&request) => {
                return Err(Error::NotReady("entries do not follow one another".to_owned()));
            }
            Message::Append(mut request) => {
                let full = if request.entries.is_empty() { Ok(()) } else { self.members.admit() };
                if full.is_err() {
                    // It hears from its leader all the same, and so does not stand for election.
                    request.entries.clear();
                }
                let response = group.raft.append_entries(request).await;
                let response = response.map_err(|error| stopped(&error))?;
                if response.is_success() {
                    full?;
                }
                Reply::Append(response)
            }
            Message::Vote(request) => {
                let response = group.raft.vote(request).await;
                Reply::Vote(response.map_err(|error| stopped(&error))?)
            }
            Message::Image { vote, meta, data, node, source } => {
                let raft_state =
                    crate::codec::encode_state(meta.last_log_id, &meta.last_membership);
                let image = Image { raft_state: Some(raft_state), data: data.clone() };
                let source = (NodeId(node), source);
                let _patient = Patient::new(group);
                let pieces = Pieces { network: self.network.clone(), source };
                group.files()?.fetch(&image, pieces).await.map_err(|error| stopped(&error))?;
                let snapshot = Snapshot { meta, snapshot: Box::new(data) };
                let installed = group.raft.install_full_snapshot(vote, snapshot).await;
                Reply::Image { vote: installed.map_err(|error| stopped(&error))?.vote }
            }
            Message::Piece { part, offset, len } => {
                let piece = group.files()?.read_piece(&part, offset, len).await;
                Reply::Piece(piece.map_err(|error| stopped(&error))?)
            }
            Message::Elect => {
                group.raft.trigger().elect().await.map_err(|error| stopped(&error))?;
                Reply::Done
            }
        })
    }
}

impl<M: Members> Service for RaftService<M> {
    fn call(self: Arc<Self>, request: Bytes) -> BoxFuture<'static, Answer> {
        async move {
            let reply = self.answer(&request).await;
            let reply = reply.unwrap_or_else(|error| Reply::Failed(error.to_string()));
            Ok(messages::encode_reply(&reply))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;
    use openraft::{CommittedLeaderId, LogId, Vote};

    use super::*;
    use crate::types::Entry;

    #[test]
    fn entries_that_do_not_follow_what_is_before_them_are_a_gap() {
        let log_id = |index| LogId::new(CommittedLeaderId::new(1, 1), index);
        let request = |before: Option<u64>, entries: &[u64]| AppendRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: before.map(log_id),
            entries: entries.iter().map(|index| Entry::new_blank(log_id(*index))).collect(),
            leader_commit: None,
        };
        assert!(!has_gap(&request(None, &[0, 1])));
        assert!(!has_gap(&request(Some(7), &[])));
        assert!(!has_gap(&request(Some(7), &[8, 9])));
        assert!(has_gap(&request(Some(7), &[10])));
        assert!(has_gap(&request(Some(7), &[8, 10])));
        assert!(has_gap(&request(None, &[1])));
    }
}
