//! Keeping replica sets as the catalog wants them: whoever leads a set adds, counts in and lets go its
//! members; the node of the leading meta member has dead and draining nodes replaced.
//!
//! Nothing is remembered between rounds: what is wanted is in the catalog, what is there in the group,
//! so that any node can go on where another stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use meta::{Bucket, Catalog, Command, NodeLoad, NodeState, ReplicaSet, VnodePlace, VnodeState};
use model::{ErrorKind, NodeId, ReplicaSetId, VnodeId};
use tokio::time::Instant;
use tskv::{VnodeChecksum, encode_checksum};

use crate::Cluster;
use crate::balance::target;
use crate::error::{Error, Result};
use crate::peers::{GroupReport, Request, Response, done, not_answered};
use crate::service::LOCK_PATIENCE;
use crate::vnodes::HostedVnode;

/// A learner that lacks no more entries than this may vote.
pub(crate) const LAG_MAX: u64 = 64;
/// How long one node may take to answer a question of people.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a lead that is to go elsewhere by itself waits for changes of rows to end.
pub(crate) const BALANCE_PATIENCE: Duration = Duration::from_secs(1);

/// How long the checksum of a replica may take.
const CHECKSUM_PATIENCE: Duration = Duration::from_secs(600);

/// Since when nodes are silent, as the node of the leading meta member saw it.
pub(crate) type Silent = BTreeMap<NodeId, Instant>;

/// What the node of the leading meta member has seen of the others, and since when.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) silent: Silent,
    /// Nodes whose disks are full.
    pub(crate) full: BTreeSet<NodeId>,
    /// Since when vnodes or leads are uneven.
    pub(crate) uneven: Option<Instant>,
}

impl Cluster {
    /// Makes the groups that this node leads as the catalog wants them.
    pub(crate) async fn keep_members(&self) {
        if self.peers.is_none() {
            return;
        }
        let catalog = self.meta.catalog();
        for (member, hosted) in self.vnodes.open_now() {
            if !hosted.group.leads() {
                continue;
            }
            if let Some((_, set)) = catalog.replica_set_of(VnodeId(member))
                && let Err(error) = self.change_members(&hosted, set).await
            {
                tracing::warn!(replica_set = %set.id, %error, "members stay as they are for now");
            }
        }
    }

    /// Hands the lead of a vnode here over while nobody changes rows of it: a change holds in one term
    /// and would have to begin anew, or end halfway.
    pub(crate) async fn hand_over_here(
        &self,
        hosted: &HostedVnode,
        to: VnodeId,
        patience: Duration,
    ) -> Result<()> {
        let changes = Arc::clone(&hosted.beside.changes).write_owned();
        let seconds = patience.as_secs();
        let _no_change =
            tokio::time::timeout(patience, changes).await.map_err(|_| Error::Locked { seconds })?;
        Ok(hosted.group.hand_over(to.0).await?)
    }

    async fn change_members(&self, hosted: &HostedVnode, set: &ReplicaSet) -> Result<()> {
        let group = &hosted.group;
        let status = group.status();
        let places = &set.vnodes;
        for place in places.iter().filter(|place| !place.state.leaves()) {
            if status.members.iter().all(|one| one.member != place.id.0) {
                tracing::info!(replica_set = %set.id, vnode = %place.id, "a vnode is filled");
                return Ok(group.add_learner(place.id.0, place.node).await?);
            }
        }
        // Who leaves votes until those who come in its stead do.
        let waits = places.iter().any(|place| place.state == VnodeState::Joining);
        let wanted = |member: u64| {
            let place = places.iter().find(|place| place.id.0 == member);
            place.is_some_and(|place| waits || !place.state.leaves())
        };
        let last = status.last_index.unwrap_or(0);
        let fit = status.members.iter().filter(|one| {
            let caught_up = one.matched.is_some_and(|has| has + LAG_MAX >= last);
            wanted(one.member) && (one.votes || caught_up)
        });
        let voters: BTreeSet<u64> = fit.map(|one| one.member).collect();
        let now: BTreeSet<u64> =
            status.members.iter().filter(|one| one.votes).map(|one| one.member).collect();
        if !voters.is_empty() && (voters != now || !status.settled) {
            if !voters.contains(&hosted.beside.vnode.id().0) {
                // Whoever is to go does not lead the others out.
                let heir = voters.iter().find(|one| now.contains(one));
                return match heir {
                    Some(heir) => {
                        self.hand_over_here(hosted, VnodeId(*heir), BALANCE_PATIENCE).await
                    }
                    None => Ok(()),
                };
            }
            tracing::info!(replica_set = %set.id, ?voters, "the members that vote change");
            return Ok(group.set_voters(voters).await?);
        }
        if !status.settled {
            return Ok(());
        }
        let gone = status.members.iter().filter(|one| !one.votes && !wanted(one.member));
        let gone: BTreeSet<u64> = gone.map(|one| one.member).collect();
        if !gone.is_empty() {
            return Ok(group.remove_learners(gone).await?);
        }
        // Only what the group has agreed on changes the catalog: a vnode is removed with its files.
        for place in places {
            let member = status.members.iter().find(|one| one.member == place.id.0);
            match place.state {
                VnodeState::Joining if member.is_some_and(|one| one.votes) => {
                    self.meta.submit(&Command::VnodeJoined { vnode: place.id }).await?;
                }
                VnodeState::Leaving | VnodeState::Rebuilding if member.is_none() => {
                    tracing::info!(vnode = %place.id, node = %place.node, "a vnode has left");
                    self.meta.submit(&Command::RemoveVnode { vnode: place.id }).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Replaces the vnodes of nodes that are silent for long, or are being drained; where there are none,
    /// evens out what nodes hold.
    pub(crate) async fn replace_vnodes(&self, seen: &mut Seen) {
        if self.peers.is_none() {
            return;
        }
        let Ok((leader, reports)) = self.meta.nodes().await else { return };
        if leader != self.config.node {
            *seen = Seen::default();
            return;
        }
        seen.full = reports.iter().filter(|one| one.load.is_full()).map(|one| one.node).collect();
        let silent = &mut seen.silent;
        let now = Instant::now();
        let silence = u64::try_from(self.config.node_silence.as_millis()).unwrap_or(u64::MAX);
        for report in reports {
            // A node that was never heard of is silent since this member leads, at least.
            if report.silent_ms.is_none_or(|ms| ms > silence) && report.node != leader {
                silent.entry(report.node).or_insert(now);
            } else {
                silent.remove(&report.node);
            }
        }
        let dead: BTreeSet<NodeId> = silent
            .iter()
            .filter(|(_, since)| since.elapsed() >= self.config.rebuild_after)
            .map(|(node, _)| *node)
            .collect();
        let catalog = self.meta.catalog();
        let leaving = |node: NodeId| {
            let draining = |one: &meta::Node| one.state == NodeState::Draining;
            dead.contains(&node) || catalog.node(node).is_none_or(|node| draining(node))
        };
        for bucket in catalog.all_buckets() {
            for set in &bucket.replica_sets {
                let replaced = self.replace_in(&catalog, (bucket, set), &leaving, seen).await;
                if let Err(error) = replaced {
                    tracing::debug!(replica_set = %set.id, %error, "no vnode is replaced for now");
                }
            }
        }
        if let Err(error) = self.even_out(&catalog, seen).await {
            tracing::debug!(%error, "nothing is evened out for now");
        }
    }

    async fn replace_in(
        &self,
        catalog: &Catalog,
        (bucket, set): (&Bucket, &ReplicaSet),
        leaving: &impl Fn(NodeId) -> bool,
        seen: &Seen,
    ) -> Result<()> {
        let Some(database) = catalog.database_by_id(bucket.database) else { return Ok(()) };
        let leaves = |place: &VnodePlace| place.state.leaves() || leaving(place.node);
        let going = set.vnodes.iter().find(|place| leaves(place));
        let Some(going) = going else { return Ok(()) };
        let staying: Vec<_> = set.vnodes.iter().filter(|place| !leaves(place)).collect();
        let replicas = (database.options.replicas as usize).min(set.vnodes.len());
        let joined = staying.iter().filter(|place| place.state.counts()).count();
        // Whoever leads does the rest, once it is open: it must be, and there must be one.
        self.ensure_led(bucket, set).await?;
        if going.state.leaves() {
            return Ok(());
        }
        // One that is not filled yet goes once others come in its stead, before these are filled.
        let waited_for = if going.state.counts() { joined } else { staying.len() };
        if waited_for >= replicas {
            self.meta.submit(&Command::LeaveVnode { vnode: going.id }).await?;
        } else if staying.len() < replicas {
            if joined == 0 && seen.silent.contains_key(&going.node) {
                return Err(Error::internal("no other vnode holds its rows"));
            }
            let target = target(catalog, set, going, seen);
            let target =
                target.ok_or_else(|| Error::internal("no node can take one more vnode"))?;
            let add = Command::AddVnode { replica_set: set.id, node: target, replaces: None };
            self.meta.submit(&add).await?;
        }
        Ok(())
    }

    /// Has a replica set opened, founded where it was not, and led by somebody whom a quorum follows.
    pub(crate) async fn ensure_led(&self, bucket: &Bucket, set: &ReplicaSet) -> Result<()> {
        let here = |hosted: Arc<HostedVnode>| async move {
            hosted.group.read_barrier().await?;
            Ok((Response::Done, bytes::Bytes::new()))
        };
        let request = |vnode| Request::Lead { vnode };
        done(self.ask_leader((bucket, set), request, &[], here).await?.1)
    }

    /// As people ask for a change of a replica set: it must have begun, for its founders begin it no
    /// more once its members change.
    ///
    /// # Errors
    /// A replica set that is not there, or that nobody leads.
    pub async fn ensure_replica_set_led(&self, id: ReplicaSetId) -> Result<()> {
        let catalog = self.meta.catalog();
        let (bucket, set) = catalog.replica_set(id).ok_or_else(|| no_replica_set(id))?;
        self.ensure_led(bucket, set).await
    }

    /// Gives a sign of life.
    pub(crate) async fn give_sign_of_life(&self) {
        let disk = rustix::fs::statvfs(&self.config.data_dir);
        let (disk_free, disk_size) = match disk {
            Ok(disk) => (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize),
            Err(error) => {
                tracing::warn!(%error, "the disk does not tell how full it is");
                (0, 0)
            }
        };
        let open = self.vnodes.open_now();
        let leads = open.iter().filter(|(_, hosted)| hosted.group.leads()).count();
        let (vnodes, leads) = (open.len() as u64, leads as u64);
        let load = NodeLoad { disk_free, disk_size, vnodes, leads };
        if let Err(error) = self.meta.heartbeat(self.config.node, load).await {
            tracing::debug!(%error, "no meta member hears this node");
        }
    }

    pub(crate) async fn groups_here(&self) -> Vec<GroupReport> {
        let catalog = self.meta.catalog();
        let open = self.vnodes.open_now();
        let reports = open.iter().filter_map(|(member, hosted)| {
            let (bucket, _) = catalog.replica_set_of(VnodeId(*member))?;
            Some(report(self.config.node, bucket, hosted))
        });
        reports.collect()
    }

    /// Returns what the open vnodes of all nodes see of their groups. A node that does not answer is
    /// left out.
    pub async fn groups(&self) -> Vec<GroupReport> {
        let mut groups = self.groups_here().await;
        for response in self.ask_all(&Request::Groups).await {
            if let Response::Groups(reports) = response {
                groups.extend(reports);
            }
        }
        groups.sort_by_key(|group| group.vnode);
        groups
    }

    /// Asks all other nodes that hold data or serve clients. Those that do not answer are left out.
    pub(crate) async fn ask_all(&self, request: &Request) -> Vec<Response> {
        let Some(peers) = &self.peers else { return Vec::new() };
        let catalog = self.meta.catalog();
        let others = catalog
            .nodes()
            .filter(|node| (node.roles.data || node.roles.query) && node.id != self.config.node);
        let asked = others.map(|node| async move {
            peers.ask(node.id, request, &[], PATIENCE).await.map(|(response, _)| response)
        });
        let answers = futures::future::join_all(asked).await;
        let mut responses = Vec::with_capacity(answers.len());
        for answer in answers {
            match answer {
                Ok(response) => responses.push(response),
                Err(error) => tracing::debug!(%error, "a node is left out"),
            }
        }
        responses
    }

    /// Gives the lead of a vnode's replica set to the vnode, for good: it goes back there after the vnode
    /// was away. Where the lead does not go there at once, upkeep gives it as soon as it can.
    ///
    /// # Errors
    /// A vnode that is not there, or that does not vote yet.
    pub async fn promote(&self, vnode: VnodeId) -> Result<()> {
        let catalog = self.meta.catalog();
        let found = catalog.replica_set_of(vnode);
        let (bucket, set) = found.ok_or_else(|| no_vnode(vnode))?;
        if set.vnodes.iter().any(|place| place.id == vnode && !place.state.counts()) {
            let message = format!("vnode {vnode} is being filled, and cannot lead yet");
            return Err(Error::Remote { kind: ErrorKind::Unavailable, message });
        }
        self.meta.submit(&Command::PreferVnode { vnode }).await?;
        let hand_over = |hosted: Arc<HostedVnode>| async move {
            self.hand_over_here(&hosted, vnode, LOCK_PATIENCE).await?;
            Ok((Response::Done, bytes::Bytes::new()))
        };
        let request = |leader| Request::HandOver { vnode: leader, to: vnode };
        let asked = self.ask_leader((bucket, set), request, &[], hand_over).await;
        if let Err(error) = asked.and_then(|(_, response, _)| done(response)) {
            tracing::info!(%vnode, %error, "the lead goes there later");
        }
        Ok(())
    }
}

/// The checksum of a replica, or why there is none.
#[derive(Debug)]
pub struct ReplicaChecksum {
    /// The vnode.
    pub vnode: VnodeId,
    /// Its node.
    pub node: NodeId,
    /// The checksum.
    pub checksum: Result<VnodeChecksum>,
}

impl Cluster {
    /// Returns the checksums of all replicas of a set, of the rows at one place of its log.
    ///
    /// # Errors
    /// A replica set that is not there, or that nobody leads.
    pub async fn checksums(&self, id: ReplicaSetId) -> Result<Vec<ReplicaChecksum>> {
        let catalog = self.meta.catalog();
        let (bucket, set) = catalog.replica_set(id).ok_or_else(|| no_replica_set(id))?;
        let command = encode_checksum(self.vnodes.next_write(id), self.clock.now_ns());
        let index = self.propose((bucket, set), command).await?;
        let mut checksums = Vec::with_capacity(set.vnodes.len());
        for place in set.vnodes.iter().filter(|place| place.state.counts()) {
            let checksum = if place.node == self.config.node {
                self.checksum_here(place.id, index).await
            } else {
                self.checksum_there(place, index).await
            };
            checksums.push(ReplicaChecksum { vnode: place.id, node: place.node, checksum });
        }
        Ok(checksums)
    }

    async fn checksum_there(&self, place: &VnodePlace, index: u64) -> Result<VnodeChecksum> {
        let peers = self.peers.as_ref().ok_or_else(|| Error::internal("no other nodes"))?;
        let request = Request::Checksum { vnode: place.id, index };
        let asked = peers.ask(place.node, &request, &[], CHECKSUM_PATIENCE).await;
        match asked.map_err(|error| not_answered(&error))?.0 {
            Response::Checksum(checksum) => Ok(checksum),
            other => Err(other.into_error()),
        }
    }

    /// Returns the checksum a vnode here kept the rows for, once it has applied so much.
    pub(crate) async fn checksum_here(&self, vnode: VnodeId, index: u64) -> Result<VnodeChecksum> {
        let hosted = self.vnode_by_id(vnode).await?;
        hosted.group.wait_for_applied(index, PATIENCE).await?;
        let vnode = Arc::clone(&hosted.beside.vnode);
        let summed = tokio::task::spawn_blocking(move || vnode.checksum()).await;
        let summed = summed.map_err(Error::internal)??;
        summed.ok_or_else(|| Error::internal("another checksum was asked for meanwhile"))
    }
}

/// Makes the error of a vnode that is not there.
fn no_vnode(vnode: VnodeId) -> Error {
    let message = format!("vnode {vnode} does not exist");
    Error::Remote { kind: ErrorKind::NotFound, message }
}

fn no_replica_set(id: ReplicaSetId) -> Error {
    let message = format!("replica set {id} does not exist");
    Error::Remote { kind: ErrorKind::NotFound, message }
}

fn report(node: NodeId, bucket: &Bucket, hosted: &HostedVnode) -> GroupReport {
    let status = hosted.group.status();
    let vnode = hosted.beside.vnode.id();
    GroupReport {
        vnode,
        node,
        database: bucket.database,
        term: status.term,
        leader: status.leader.map(|(member, _)| VnodeId(member)),
        last_index: status.last_index.unwrap_or(0),
        applied: status.applied.unwrap_or(0),
        votes: status.members.iter().any(|one| one.member == vnode.0 && one.votes),
    }
}
