//! Evening out what nodes hold and lead.
//!
//! One move at a time, and only once things were uneven for a while: a node that is down for a moment is no
//! reason to carry its rows about.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meta::{Catalog, Command, Node, NodeState, ReplicaSet, VnodePlace};
use model::{NodeId, VnodeId};
use tokio::time::Instant;

use crate::Cluster;
use crate::error::Result;
use crate::members::{BALANCE_PATIENCE, LAG_MAX, Seen};

/// A node that gave a sign of life within this time may be given the lead.
const LATELY: Duration = Duration::from_millis(1_500);
/// What differs by less than this is even.
const UNEVEN: usize = 2;

/// What evens things out.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// A vnode goes to another node.
    Move { vnode: VnodeId, to: NodeId },
    /// A vnode that is there leads from now on.
    Lead { vnode: VnodeId },
}

impl Cluster {
    /// Gives the lead of one replica set back to the node it was placed on first, where that answers: a
    /// node that was away would lead nothing for ever. A node whose disk is full gives away all it leads.
    pub(crate) async fn balance_leaders(&self) {
        if self.peers.is_none() {
            return;
        }
        let Ok((_, reports)) = self.meta.nodes().await else { return };
        let answers = |node: NodeId| {
            let mut reports = reports.iter().filter(|one| one.node == node);
            reports.any(|one| one.was_heard_within(LATELY) && !one.load.is_full())
        };
        let full = self.wal.admit().is_err();
        let catalog = self.meta.catalog();
        for (member, hosted) in self.vnodes.open_now() {
            let Some((_, set)) = catalog.replica_set_of(VnodeId(member)) else { continue };
            if !hosted.group.leads() {
                continue;
            }
            let status = hosted.group.status();
            // Under writes it never holds all: what it lacks it is given while they wait.
            let last = status.last_index.unwrap_or(0);
            let follows = |one: &replication::MemberStatus, place: &VnodePlace| {
                let near = one.matched.is_some_and(|has| has + LAG_MAX >= last);
                one.member == place.id.0 && one.votes && near
            };
            let fit = |place: &&VnodePlace| {
                let follows = status.members.iter().any(|one| follows(one, place));
                place.id.0 != member && status.settled && follows && answers(place.node)
            };
            let mut stay = set.vnodes.iter().filter(|place| !place.state.leaves());
            let heir = if full { stay.find(fit) } else { stay.next().filter(fit) };
            let Some(heir) = heir else { continue };
            match self.hand_over_here(&hosted, heir.id, BALANCE_PATIENCE).await {
                Ok(()) => tracing::debug!(replica_set = %set.id, full, "the lead was given away"),
                Err(error) => tracing::debug!(%error, "the lead stays where it is"),
            }
            if !full {
                return;
            }
        }
    }

    /// Moves one vnode, or one lead, from the node that has most to one that has least.
    pub(crate) async fn even_out(&self, catalog: &Catalog, seen: &mut Seen) -> Result<()> {
        let Some(step) = next_step(catalog, seen) else {
            seen.uneven = None;
            return Ok(());
        };
        let since = *seen.uneven.get_or_insert_with(Instant::now);
        if since.elapsed() < self.config.balance_after {
            return Ok(());
        }
        let (Step::Move { vnode, .. } | Step::Lead { vnode }) = step;
        let Some((bucket, set)) = catalog.replica_set_of(vnode) else { return Ok(()) };
        tracing::info!(replica_set = %set.id, ?step, "what nodes hold is evened out");
        let command = match step {
            Step::Move { vnode, to } => {
                self.ensure_led(bucket, set).await?;
                Command::AddVnode { replica_set: set.id, node: to, replaces: Some(vnode) }
            }
            Step::Lead { vnode } => Command::PreferVnode { vnode },
        };
        self.meta.submit(&command).await?;
        Ok(())
    }
}

/// Returns whether a node can take vnodes.
fn takes(node: &Node, seen: &Seen) -> bool {
    node.roles.data
        && node.state == NodeState::Ready
        && !seen.silent.contains_key(&node.id)
        && !seen.full.contains(&node.id)
}

/// Returns the node with the fewest vnodes that can take one of a set in the stead of another, in a zone of
/// its own where there is one.
pub(crate) fn target(
    catalog: &Catalog,
    set: &ReplicaSet,
    going: &VnodePlace,
    seen: &Seen,
) -> Option<NodeId> {
    let held = catalog.vnodes_by_node();
    let zones = zones(catalog, set.vnodes.iter().filter(|place| place.id != going.id));
    let fit = catalog.nodes().filter(|node| {
        takes(node, seen)
            && set.vnodes.iter().all(|place| place.node != node.id)
            && is_allowed(catalog, set, going.id, node)
    });
    let best = fit.min_by_key(|node| (zones.contains(node.zone.as_str()), held.get(&node.id)));
    best.map(|node| node.id)
}

/// Returns whether the placement policy of a set's database lets a node have a replica in the stead of
/// another.
fn is_allowed(catalog: &Catalog, set: &ReplicaSet, going: VnodeId, node: &Node) -> bool {
    let database = catalog.replica_set(set.id).map(|(bucket, _)| bucket.database);
    let policy = database.and_then(|database| catalog.policy_of(database));
    let others = set.vnodes.iter().filter(|place| place.id != going);
    let others = others.filter_map(|place| catalog.node(place.node).map(AsRef::as_ref));
    policy.is_none_or(|policy| policy.terms.allows_beside(node, others))
}

fn zones<'a>(
    catalog: &'a Catalog,
    places: impl Iterator<Item = &'a VnodePlace>,
) -> BTreeSet<&'a str> {
    places.filter_map(|place| catalog.node(place.node).map(|node| node.zone.as_str())).collect()
}

/// Returns the pairs of nodes of which the first has more than the second, the most uneven first.
fn uneven(counts: &BTreeMap<NodeId, usize>) -> Vec<(NodeId, NodeId)> {
    let pairs = counts.iter().flat_map(|(from, more)| {
        counts.iter().filter_map(move |(to, fewer)| {
            let by = more.saturating_sub(*fewer);
            (by >= UNEVEN).then_some((by, *from, *to))
        })
    });
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by_key(|(by, from, to)| (usize::MAX - by, *from, *to));
    pairs.into_iter().map(|(_, from, to)| (from, to)).collect()
}

/// Returns what evens out what nodes hold, then what they lead; `None` where it is even, or where vnodes
/// come or go already.
fn next_step(catalog: &Catalog, seen: &Seen) -> Option<Step> {
    let mut places = catalog.replica_sets().flat_map(|(_, set)| &set.vnodes);
    if !places.all(|place| place.state.stays()) {
        return None;
    }
    let counts = catalog.vnodes_by_node();
    let nodes = catalog.nodes().filter(|node| takes(node, seen));
    let held: BTreeMap<NodeId, usize> =
        nodes.map(|node| (node.id, counts.get(&node.id).copied().unwrap_or(0))).collect();
    let mut led: BTreeMap<NodeId, usize> = held.keys().map(|node| (*node, 0)).collect();
    for first in catalog.replica_sets().filter_map(|(_, set)| set.vnodes.first()) {
        led.entry(first.node).and_modify(|count| *count += 1);
    }
    let place_on = |set: &ReplicaSet, node: NodeId| {
        set.vnodes.iter().position(|place| place.node == node).map(|at| (at, set.vnodes[at].id))
    };
    for (from, to) in uneven(&held) {
        let leads_too = led.get(&from) > led.get(&to);
        let moved = catalog.replica_sets().filter_map(|(bucket, set)| {
            let (at, vnode) = place_on(set, from)?;
            let stay = set.vnodes.iter().filter(|place| place.id != vnode);
            let mut then = zones(catalog, stay);
            then.insert(catalog.node(to)?.zone.as_str());
            let fits = place_on(set, to).is_none()
                && is_allowed(catalog, set, vnode, catalog.node(to)?)
                && then.len() >= zones(catalog, set.vnodes.iter()).len();
            // Of those that fit the newest, for that is where rows come.
            fits.then_some(((leads_too == (at == 0), bucket.times.max), vnode))
        });
        if let Some((_, vnode)) = moved.max_by_key(|(order, _)| *order) {
            return Some(Step::Move { vnode, to });
        }
    }
    for (from, to) in uneven(&led) {
        let shared = catalog.replica_sets().filter_map(|(bucket, set)| {
            let led = set.vnodes.first().is_some_and(|first| first.node == from);
            let (_, vnode) = place_on(set, to)?;
            led.then_some((bucket.times.max, vnode))
        });
        if let Some((_, vnode)) = shared.max_by_key(|(newest, _)| *newest) {
            return Some(Step::Lead { vnode });
        }
    }
    None
}
