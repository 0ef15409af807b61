//! Who is in a group and who leads it: looked at, waited for, changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::TryFutureExt;
use model::NodeId;
use openraft::{ChangeMembers, LogIdOptionExt};

use crate::error::{Error, Result};
use crate::group::{Group, LEASE_MS, Metrics, translate};
use crate::network::{node_entry, node_of};

/// How long who takes over the lead may take to have it.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(3);

/// How long a change of members may take; it goes on without anybody waiting for it.
const CHANGE_PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a change of members: without a quorum it would never return.
async fn agreed<T>(change: impl Future<Output = Result<T>>) -> Result<()> {
    let changed = tokio::time::timeout(CHANGE_PATIENCE, change).await;
    let late = |_| Error::NotReady("no quorum agreed to the change of members".to_owned());
    changed.map_err(late)?.map(|_| ())
}

/// How often a member is asked to stand for election.
const HAND_OVER_TRIES: usize = 3;
/// After this time members that hear of no leader give their votes, and none stands for election yet.
const LEASE: Duration = Duration::from_millis(LEASE_MS + 50);
/// How long a member that was asked to may take to be elected.
const ELECTION_PATIENCE: Duration = Duration::from_millis(1_000);
/// How long who is to take over the lead may take for the last entries, while proposals wait: it may be gone.
const LAST_ENTRIES_PATIENCE: Duration = Duration::from_millis(500);

/// What a member knows of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The term.
    pub term: u64,
    /// The member that leads and its node, where one is known.
    pub leader: Option<(u64, NodeId)>,
    /// The last index of this member's log.
    pub last_index: Option<u64>,
    /// The last index this member has applied.
    pub applied: Option<u64>,
    /// All members, this one too.
    pub members: Vec<MemberStatus>,
    /// Whether the members are agreed on: no change of them is under way.
    pub settled: bool,
}

impl GroupStatus {
    /// Returns how many entries of its log this member has not applied.
    pub fn unapplied(&self) -> u64 {
        let count = |index: Option<u64>| index.map_or(0, |index| index + 1);
        count(self.last_index).saturating_sub(count(self.applied))
    }

    /// Returns how many entries the slowest member lacks, as the leader knows; 0 where another leads.
    pub fn behind(&self) -> u64 {
        let count = |index: Option<u64>| index.map_or(0, |index| index + 1);
        let slowest = self.members.iter().map(|one| count(one.matched)).min();
        count(self.last_index).saturating_sub(slowest.unwrap_or(0))
    }
}

/// A member of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub member: u64,
    /// Its node.
    pub node: NodeId,
    /// Whether it votes; a learner only follows.
    pub votes: bool,
    /// The index up to which it holds the leader's log; known by the leader alone.
    pub matched: Option<u64>,
}

/// A member that neither sends heartbeats nor stands for election.
struct Silent<'a>(&'a Group);

impl<'a> Silent<'a> {
    fn new(group: &'a Group) -> Self {
        group.keep_still(true);
        Self(group)
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        self.0.keep_still(false);
    }
}

impl Group {
    /// Returns what this member knows of its group.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let members = membership.nodes().map(|(member, node)| {
            let others = metrics.replication.as_ref();
            let matched = others.and_then(|others| others.get(member)).and_then(|id| id.index());
            let own = (*member == self.member).then_some(metrics.last_log_index).flatten();
            MemberStatus {
                member: *member,
                node: node_of(node).unwrap_or(NodeId(0)),
                votes: voters.contains(member),
                matched: matched.or(own),
            }
        });
        let members: Vec<MemberStatus> = members.collect();
        let leader = metrics.current_leader.and_then(|leader| {
            members.iter().find(|one| one.member == leader).map(|one| (one.member, one.node))
        });
        let settled = membership.get_joint_config().len() == 1
            && *metrics.membership_config.log_id() <= metrics.last_applied;
        GroupStatus {
            settled,
            term: metrics.current_term,
            leader,
            last_index: metrics.last_log_index,
            applied: metrics.last_applied.index(),
            members,
        }
    }

    /// Returns whether this member leads.
    pub fn leads(&self) -> bool {
        self.raft.metrics().borrow().state.is_leader()
    }

    /// Keeps the member from sending heartbeats and from standing for election, or lets it again: who is
    /// about to be closed wakes nobody.
    pub fn keep_still(&self, still: bool) {
        self.raft.runtime_config().heartbeat(!still);
        self.raft.runtime_config().elect(!still);
    }

    /// Waits until a leader is known and returns it.
    ///
    /// # Errors
    /// `NotReady` where none is known in time.
    pub async fn wait_for_leader(&self, patience: Duration) -> Result<(u64, NodeId)> {
        self.wait(|metrics| metrics.current_leader.is_some(), patience).await?;
        let leader = self.status().leader;
        leader.ok_or_else(|| Error::NotReady("the leader is being changed".to_owned()))
    }

    /// Waits until this member knows of a leader on another node than `than`.
    ///
    /// # Errors
    /// What stopped the group.
    pub async fn wait_for_other_leader(&self, than: NodeId) -> Result<NodeId> {
        let leader = |metrics: &Metrics| {
            let leader = metrics.current_leader?;
            let node = metrics.membership_config.membership().get_node(&leader)?;
            node_of(node).filter(|node| *node != than)
        };
        let mut metrics = self.raft.metrics();
        let known =
            metrics.wait_for(|metrics| leader(metrics).is_some() || metrics.running_state.is_err());
        let known = known.await.map_err(|error| Error::Stopped(error.to_string()))?;
        leader(&known).ok_or_else(|| Error::Stopped("it failed".to_owned()))
    }

    /// Waits until this member has applied an index.
    ///
    /// # Errors
    /// `NotReady` where it has not in time.
    pub async fn wait_for_applied(&self, index: u64, patience: Duration) -> Result<()> {
        let reached = move |metrics: &Metrics| metrics.last_applied.index() >= Some(index);
        self.wait(reached, patience).await.map(|_| ())
    }

    /// Lets a member follow: it gets the log, or an image, and does not vote yet.
    ///
    /// # Errors
    /// `NotLeader`; a change of members that is under way.
    pub async fn add_learner(&self, member: u64, node: NodeId) -> Result<()> {
        let added = self.raft.add_learner(member, node_entry(node), false);
        agreed(added.map_err(|error| translate(&error))).await
    }

    /// Sets who votes, by joint consensus; whoever no longer does is a member no more.
    ///
    /// # Errors
    /// `NotLeader`; `Refused` where one is no learner yet or another change is under way.
    pub async fn set_voters(&self, voters: BTreeSet<u64>) -> Result<()> {
        let changed = self.raft.change_membership(voters, false);
        agreed(changed.map_err(|error| translate(&error))).await
    }

    /// Removes learners.
    ///
    /// # Errors
    /// `NotLeader`; `Refused` where one votes.
    pub async fn remove_learners(&self, members: BTreeSet<u64>) -> Result<()> {
        let change = ChangeMembers::<u64, openraft::BasicNode>::RemoveNodes(members);
        let changed = self.raft.change_membership(change, false);
        agreed(changed.map_err(|error| translate(&error))).await
    }

    /// Waits until a member has nearly all of the log.
    ///
    /// # Errors
    /// `NotReady` where it has not in time.
    pub async fn wait_for_member(&self, member: u64, patience: Duration) -> Result<()> {
        const NEARLY: u64 = 64;
        let caught_up = move |metrics: &Metrics| {
            let others: Option<&BTreeMap<_, _>> = metrics.replication.as_ref();
            let matched = others.and_then(|others| others.get(&member)).and_then(|id| id.index());
            matched.is_some_and(|matched| matched + NEARLY >= metrics.last_log_index.unwrap_or(0))
        };
        self.wait(caught_up, patience).await.map(|_| ())
    }

    /// Hands the lead over to another voter. Proposals and reads wait meanwhile, once the target holds nearly all
    /// of the log.
    ///
    /// openraft 0.9 has no transfer: once the target holds the whole log it is told to stand for
    /// election. This leader votes for it, which makes a majority of three; where more vote, it falls
    /// silent first for so long that they give their votes too, and stands for no election itself.
    ///
    /// # Errors
    /// `NotLeader`, or `NotReady` where the target does not take over in time; then this member may
    /// lead on.
    pub async fn hand_over(&self, target: u64) -> Result<()> {
        if target == self.member && self.leads() {
            return Ok(());
        }
        let not_leader = || Error::NotLeader { leader: self.status().leader };
        if !self.leads() {
            return Err(not_leader());
        }
        let status = self.status();
        let voter = status.members.iter().find(|one| one.member == target && one.votes);
        let node = voter
            .map(|voter| voter.node)
            .ok_or_else(|| Error::Refused(format!("member {target} is no voter of the group")))?;
        self.wait_for_member(target, HAND_OVER_PATIENCE).await?;
        let held = tokio::time::timeout(HAND_OVER_PATIENCE, self.lead.write()).await;
        let busy = |_| Error::NotReady("proposals under way do not end".to_owned());
        let _held = held.map_err(busy)?;
        if !self.leads() {
            return Err(not_leader());
        }
        let network = self.network.as_ref();
        let network = network.ok_or_else(|| Error::Refused("the group is alone".to_owned()))?;
        let caught_up = move |metrics: &Metrics| {
            let others = metrics.replication.as_ref();
            let matched = others.and_then(|others| others.get(&target)).and_then(|id| id.index());
            matched == metrics.last_log_index
        };
        self.wait(caught_up, LAST_ENTRIES_PATIENCE).await?;
        let voters = self.status().members.iter().filter(|one| one.votes).count();
        let silent = (voters > 3).then(|| Silent::new(self));
        // A leader that is new refuses its vote for the time of a lease; then once more is enough.
        for _ in 0..HAND_OVER_TRIES {
            if silent.is_some() {
                tokio::time::sleep(LEASE).await;
            }
            network.elect((node, target)).await?;
            let took = move |metrics: &Metrics| metrics.current_leader == Some(target);
            match self.wait(took, ELECTION_PATIENCE).await {
                Err(Error::NotReady(_)) if self.leads() => {}
                Err(Error::NotReady(_)) => {
                    self.wait(|metrics| metrics.current_leader.is_some(), HAND_OVER_PATIENCE)
                        .await?;
                    if !self.leads() {
                        break;
                    }
                }
                taken => return taken.map(|_| ()),
            }
        }
        match self.status().leader {
            Some((leader, _)) if leader == target => Ok(()),
            leader => Err(Error::NotLeader { leader }),
        }
    }
}
