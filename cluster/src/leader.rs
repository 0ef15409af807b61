//! Finding the member of a replica set that leads, and asking it.
//!
//! The node that answered last is asked first; one that does not lead names who does, as far as it
//! knows. While nobody leads one waits, within the request's deadline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meta::{Bucket, ReplicaSet, VnodePlace};
use model::{ErrorKind, NodeId, VnodeId};
use replication::transport::CallError;
use tokio::time::Instant;

use crate::Cluster;
use crate::error::{Error, Result};
use crate::peers::{Peers, Request, Response, not_answered};
use crate::vnodes::HostedVnode;

/// How long a request may look for a leader.
const DEADLINE: Duration = Duration::from_secs(15);
/// How long one node may take to answer; a write may wait for memory there.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// After so long without an answer others are asked whether somebody else leads.
const DOUBT: Duration = Duration::from_secs(1);
/// A pause while nobody leads.
const PAUSE: Duration = Duration::from_millis(50);

/// Who leads a replica set.
pub(crate) enum Leader {
    /// This node's member.
    Here(Arc<HostedVnode>),
    /// A member on another node.
    There(VnodePlace),
}

/// Goes through the members of a replica set until one of them leads.
pub(crate) struct Search<'a> {
    cluster: &'a Cluster,
    bucket: &'a Bucket,
    set: &'a ReplicaSet,
    deadline: Instant,
    next: usize,
    hint: Option<NodeId>,
    failed: Option<Error>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(cluster: &'a Cluster, bucket: &'a Bucket, set: &'a ReplicaSet) -> Self {
        let hint = cluster.vnodes.leader_hint(set.id);
        let deadline = Instant::now() + DEADLINE;
        Self { cluster, bucket, set, deadline, next: 0, hint, failed: None }
    }

    /// Returns the member to ask next.
    ///
    /// # Errors
    /// What the last one said, where time is up; a vnode of this node that does not open.
    pub(crate) async fn next(&mut self) -> Result<Leader> {
        loop {
            if Instant::now() >= self.deadline {
                let why = self.failed.take().map(|error| format!(": {error}")).unwrap_or_default();
                let (set, all) = (self.set.id, self.set.vnodes.len());
                let message = format!(
                    "replica set {set} has no leader that a majority of its {all} vnodes follows{why}"
                );
                return Err(Error::Remote { kind: ErrorKind::Unavailable, message });
            }
            let place = self.place()?;
            if place.node != self.cluster.config.node {
                return Ok(Leader::There(place));
            }
            let hosted = match self.cluster.vnode(self.bucket, self.set).await {
                Ok(hosted) => hosted,
                // Another replica may be in better health.
                Err(error) if self.set.vnodes.len() > 1 => {
                    self.no_answer(error).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if hosted.group.leads() {
                return Ok(Leader::Here(hosted));
            }
            let leader = hosted.group.status().leader;
            drop(hosted);
            self.not_leader(leader.map(|(_, node)| node)).await;
        }
    }

    fn place(&mut self) -> Result<VnodePlace> {
        let places = &self.set.vnodes;
        if let Some(hint) = self.hint.take()
            && !self.cluster.vnodes.is_doubted(hint)
            && let Some(place) = places.iter().find(|place| place.node == hint)
        {
            return Ok(*place);
        }
        let turn = |at: usize| places.get((self.next + at) % places.len().max(1));
        let trusted = (0..places.len())
            .filter_map(turn)
            .find(|place| !self.cluster.vnodes.is_doubted(place.node));
        let place = trusted.or_else(|| turn(0));
        self.next += 1;
        place.copied().ok_or_else(|| Error::internal("a replica set without vnodes"))
    }

    /// Notes that the member asked last does not lead, and waits where nobody knows who does.
    pub(crate) async fn not_leader(&mut self, leader: Option<NodeId>) {
        self.failed = Some(Error::Replication(replication::Error::NotLeader { leader: None }));
        self.cluster.vnodes.forget_leader(self.set.id);
        self.hint = leader;
        if leader.is_none() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Notes that the member asked last gave no answer.
    pub(crate) async fn no_answer(&mut self, error: Error) {
        self.failed = Some(error);
        self.cluster.vnodes.forget_leader(self.set.id);
        tokio::time::sleep(PAUSE).await;
    }

    /// Returns the node that leads, once one other than `than` does. Not at once: the member here may
    /// be the one that has not heard of the newest leader yet.
    async fn other_leader(&self, peers: &Peers, than: NodeId) -> NodeId {
        tokio::time::sleep(DOUBT).await;
        let places = &self.set.vnodes;
        if places.iter().any(|place| place.node == self.cluster.config.node)
            && let Ok(hosted) = self.cluster.called_vnode(self.bucket, self.set).await
            && let Ok(leader) = hosted.group.wait_for_other_leader(than).await
        {
            return leader;
        }
        let others = places.iter().filter(|place| place.node != than);
        for place in others.cycle() {
            tokio::time::sleep(DOUBT).await;
            let request = Request::Leader { vnode: place.id };
            let asked = peers.ask(place.node, &request, &[], DOUBT).await;
            if let Ok((Response::NotLeader { leader: Some(leader) }, _)) = asked
                && leader != than
            {
                return leader;
            }
        }
        // There is nobody else to ask.
        std::future::pending().await
    }

    /// Asks the member of another node. `None`: ask the next.
    ///
    /// # Errors
    /// What it refuses.
    pub(crate) async fn ask(
        &mut self,
        place: VnodePlace,
        request: &Request,
        payload: &[u8],
    ) -> Result<Option<(Response, Bytes)>> {
        let Some(peers) = &self.cluster.peers else {
            return Err(Error::internal(format!("node {} is another one", place.node)));
        };
        let asked = peers.ask(place.node, request, payload, ANSWER_PATIENCE);
        let answer = tokio::select! {
            answer = asked => answer,
            // It may be cut off, or stand still: whoever leads now is asked instead. What the other
            // may have done is known by its id.
            leader = self.other_leader(peers, place.node) => {
                // What else it led is looked for elsewhere at once.
                self.cluster.vnodes.doubt(place.node);
                self.cluster.vnodes.note_leader(self.set.id, leader);
                self.hint = Some(leader);
                return Ok(None);
            }
        };
        match answer {
            Ok((Response::NotLeader { leader }, _)) => {
                self.not_leader(leader).await;
                Ok(None)
            }
            Ok((response @ Response::Unknown { .. }, _)) => {
                self.no_answer(response.into_error()).await;
                Ok(None)
            }
            Ok((response @ Response::Failed { .. }, _)) => Err(response.into_error()),
            Ok(answer) => {
                self.cluster.vnodes.note_leader(self.set.id, place.node);
                Ok(Some(answer))
            }
            Err(error @ (CallError::Unreachable { .. } | CallError::Unknown { .. })) => {
                self.no_answer(not_answered(&error)).await;
                Ok(None)
            }
            Err(error @ CallError::Refused(_)) => {
                self.no_answer(not_answered(&error)).await;
                Ok(None)
            }
        }
    }
}

impl Cluster {
    /// Asks the member of a replica set that leads; `here` answers where this node's does.
    pub(crate) async fn ask_leader<F>(
        &self,
        (bucket, set): (&Bucket, &ReplicaSet),
        request: impl Fn(VnodeId) -> Request,
        payload: &[u8],
        here: impl Fn(Arc<HostedVnode>) -> F,
    ) -> Result<(NodeId, Response, Bytes)>
    where
        F: Future<Output = Result<(Response, Bytes)>>,
    {
        let mut search = Search::new(self, bucket, set);
        loop {
            match Box::pin(search.next()).await? {
                Leader::Here(hosted) => match Box::pin(here(hosted)).await {
                    Ok((response, payload)) => return Ok((self.config.node, response, payload)),
                    Err(Error::Replication(replication::Error::NotLeader { leader })) => {
                        search.not_leader(leader.map(|(_, node)| node)).await;
                    }
                    Err(
                        error @ Error::Replication(
                            replication::Error::Stopped(_) | replication::Error::NotReady(_),
                        ),
                    ) => search.no_answer(error).await,
                    Err(error) => return Err(error),
                },
                Leader::There(place) => {
                    if let Some((response, payload)) =
                        search.ask(place, &request(place.id), payload).await?
                    {
                        return Ok((place.node, response, payload));
                    }
                }
            }
        }
    }
}
