//! What commands about nodes do, and about the vnodes on them.

use model::{ErrorKind, NodeId, ReplicaSetId, VnodeId};

use super::{Changes, check_name};
use crate::catalog::{
    Bucket, Catalog, Entity, Key, Node, NodeState, ReplicaSet, VnodePlace, VnodeState,
};
use crate::command::{NewNode, NodeChange, Reply};
use crate::error::{Error, Result};

/// The most nodes of a cluster.
const NODES_MAX: usize = 1_000;

fn refuse<T>(kind: ErrorKind, message: impl Into<String>) -> Result<T> {
    Err(Error::refused(kind, message))
}

pub(super) fn register_node(
    catalog: &Catalog,
    new: NewNode,
    changes: &mut Changes,
) -> Result<Reply> {
    let NewNode { identity, known_as, addr, name, zone, roles } = new;
    check_name("node", &name)?;
    // Whoever listens there now is the node that asks: one with an empty directory, say.
    let others = catalog.nodes().filter(|node| node.identity != identity);
    for other in others.filter(|node| !addr.is_empty() && node.addr == addr) {
        changes.put(Entity::Node(Node { addr: String::new(), ..Node::clone(other) }));
    }
    let known = catalog.nodes().find(|node| node.identity == identity);
    let (id, state) = match known {
        Some(known) => (known.id, known.state),
        None if known_as.is_some_and(|id| id.0 <= catalog.counters.node) => {
            let id = known_as.unwrap_or_default();
            let message = format!(
                "node {id} was removed from the cluster; with an empty data directory it joins anew"
            );
            return refuse(ErrorKind::Conflict, message);
        }
        None if catalog.nodes().count() >= NODES_MAX => {
            return refuse(ErrorKind::LimitReached, format!("a cluster has {NODES_MAX} nodes"));
        }
        None => {
            if changes.counters.cluster == 0 {
                changes.counters.cluster = cluster_number(&identity);
            }
            changes.counters.node += 1;
            (NodeId(changes.counters.node), NodeState::Ready)
        }
    };
    let node = Node { id, identity, addr, name, zone, roles, state };
    if known.is_none_or(|known| **known != node) {
        changes.put(Entity::Node(node));
    }
    Ok(Reply::Node(id))
}

/// Returns the number that tells a cluster from others, of the identity of the node that began it.
pub fn cluster_number(identity: &str) -> u64 {
    let digits = identity.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    digits.unwrap_or(1).max(1)
}

fn node_of(catalog: &Catalog, id: NodeId) -> Result<Node> {
    let node = catalog.node(id).map(|node| Node::clone(node));
    node.ok_or_else(|| Error::not_found("node", &id.to_string()))
}

pub(super) fn alter_node(
    catalog: &Catalog,
    id: NodeId,
    change: NodeChange,
    changes: &mut Changes,
) -> Result<()> {
    let mut node = node_of(catalog, id)?;
    match change {
        NodeChange::Address(addr) => node.addr = addr,
        NodeChange::State(state) => node.state = state,
    }
    changes.put(Entity::Node(node));
    Ok(())
}

pub(super) fn remove_node(catalog: &Catalog, id: NodeId, changes: &mut Changes) -> Result<()> {
    let node = node_of(catalog, id)?;
    let vnodes = catalog.vnodes_by_node().get(&id).copied().unwrap_or(0);
    if vnodes > 0 {
        let message = format!("node {id} holds {vnodes} vnodes: drain it first");
        return refuse(ErrorKind::Conflict, message);
    }
    if node.roles.meta && catalog.nodes().filter(|node| node.roles.meta).count() == 1 {
        return refuse(
            ErrorKind::Conflict,
            format!("node {id} is the last that keeps the catalog"),
        );
    }
    changes.delete(Key::Node(id));
    Ok(())
}

/// Returns the bucket of a vnode, to be changed.
fn bucket_of_vnode(catalog: &Catalog, id: VnodeId) -> Result<Bucket> {
    let found = catalog.replica_set_of(id).map(|(bucket, _)| Bucket::clone(bucket));
    found.ok_or_else(|| Error::not_found("vnode", &id.to_string()))
}

pub(super) fn add_vnode(
    catalog: &Catalog,
    (id, replaces): (ReplicaSetId, Option<VnodeId>),
    node: NodeId,
    changes: &mut Changes,
) -> Result<Reply> {
    let found = catalog.replica_set(id).map(|(bucket, _)| Bucket::clone(bucket));
    let mut bucket = found.ok_or_else(|| Error::not_found("replica set", &id.to_string()))?;
    if !node_of(catalog, node)?.roles.data {
        return refuse(ErrorKind::Conflict, format!("node {node} holds no data"));
    }
    let Some(set) = bucket.replica_sets.iter_mut().find(|set| set.id == id) else {
        return refuse(ErrorKind::NotFound, format!("replica set {id} does not exist"));
    };
    if set.vnodes.iter().any(|place| place.node == node) {
        let message = format!("replica set {id} has a vnode on node {node}");
        return refuse(ErrorKind::AlreadyExists, message);
    }
    let mut at = set.vnodes.len();
    if let Some(replaced) = replaces {
        let found = set.vnodes.iter().position(|place| place.id == replaced);
        at = found.ok_or_else(|| Error::not_found("vnode", &replaced.to_string()))?;
        if set.vnodes[at].state == VnodeState::Joining {
            let message = format!("vnode {replaced} is being filled, and has nothing to move yet");
            return refuse(ErrorKind::Conflict, message);
        }
        set.vnodes[at].state = VnodeState::Leaving;
        end_founding(set);
    }
    changes.counters.vnode += 1;
    let vnode = VnodeId(changes.counters.vnode);
    // In its place: where the first goes, the lead goes to who comes in its stead.
    set.vnodes.insert(at, VnodePlace { id: vnode, node, state: VnodeState::Joining, replaces });
    changes.put(Entity::Bucket(bucket));
    Ok(Reply::Vnode(vnode))
}

pub(super) fn give_up_vnode(catalog: &Catalog, id: VnodeId, changes: &mut Changes) -> Result<()> {
    let mut bucket = bucket_of_vnode(catalog, id)?;
    for set in &mut bucket.replica_sets {
        let Some(place) = set.vnodes.iter_mut().find(|place| place.id == id) else { continue };
        match place.state {
            VnodeState::Joining => place.state = VnodeState::Leaving,
            VnodeState::Leaving | VnodeState::Rebuilding => {}
            VnodeState::Founder | VnodeState::Joined => {
                return refuse(ErrorKind::Conflict, format!("vnode {id} is not being filled"));
            }
        }
        let replaced = place.replaces.take();
        let stays = set.vnodes.iter_mut().filter(|one| Some(one.id) == replaced);
        stays.for_each(|one| one.state = VnodeState::Joined);
    }
    changes.put(Entity::Bucket(bucket));
    Ok(())
}

/// Those who began a group can begin it no more once its members change: they would begin another one.
fn end_founding(set: &mut ReplicaSet) {
    let founders = set.vnodes.iter_mut().filter(|one| one.state == VnodeState::Founder);
    founders.for_each(|place| place.state = VnodeState::Joined);
}

pub(super) fn vnode_joined(catalog: &Catalog, id: VnodeId, changes: &mut Changes) -> Result<()> {
    let mut bucket = bucket_of_vnode(catalog, id)?;
    let places = bucket.replica_sets.iter_mut().flat_map(|set| &mut set.vnodes);
    for place in places.filter(|place| place.id == id && place.state == VnodeState::Joining) {
        place.state = VnodeState::Joined;
        place.replaces = None;
    }
    changes.put(Entity::Bucket(bucket));
    Ok(())
}

pub(super) fn leave_vnode(catalog: &Catalog, id: VnodeId, changes: &mut Changes) -> Result<()> {
    let mut bucket = bucket_of_vnode(catalog, id)?;
    for set in &mut bucket.replica_sets {
        if set.vnodes.iter().all(|place| place.id != id) {
            continue;
        }
        if !set.vnodes.iter().any(|place| place.id != id && place.state.stays()) {
            let message = format!("vnode {id} is the last that holds the rows of its replica set");
            return refuse(ErrorKind::Conflict, message);
        }
        end_founding(set);
        let leaving = set.vnodes.iter_mut().filter(|place| place.id == id);
        leaving.for_each(|place| place.state = VnodeState::Leaving);
    }
    changes.put(Entity::Bucket(bucket));
    Ok(())
}

pub(super) fn rebuild_vnode(catalog: &Catalog, id: VnodeId, changes: &mut Changes) -> Result<()> {
    let mut bucket = bucket_of_vnode(catalog, id)?;
    for set in &mut bucket.replica_sets {
        let Some(at) = set.vnodes.iter().position(|place| place.id == id) else { continue };
        let mut others = set.vnodes.iter().filter(|place| place.id != id);
        if set.vnodes[at].state == VnodeState::Rebuilding {
            return Ok(());
        }
        if set.vnodes.len() < 2 || !others.all(|place| place.state.stays()) {
            let message =
                format!("vnode {id} is the only one, or others of its replica set come or go");
            return refuse(ErrorKind::Conflict, message);
        }
        end_founding(set);
        set.vnodes[at].state = VnodeState::Rebuilding;
    }
    changes.put(Entity::Bucket(bucket));
    Ok(())
}

pub(super) fn prefer_vnode(catalog: &Catalog, id: VnodeId, changes: &mut Changes) -> Result<()> {
    let mut bucket = bucket_of_vnode(catalog, id)?;
    for set in &mut bucket.replica_sets {
        set.vnodes.sort_by_key(|place| place.id != id);
    }
    changes.put(Entity::Bucket(bucket));
    Ok(())
}

pub(super) fn remove_vnode(catalog: &Catalog, id: VnodeId, changes: &mut Changes) -> Result<()> {
    let Some((bucket, _)) = catalog.replica_set_of(id) else { return Ok(()) };
    let mut bucket = Bucket::clone(bucket);
    for set in &mut bucket.replica_sets {
        if set.vnodes.iter().any(|place| place.id == id && place.state.stays()) {
            return refuse(ErrorKind::Conflict, format!("vnode {id} was not told to leave"));
        }
        let place = set.vnodes.iter_mut().find(|place| place.id == id);
        match place.filter(|place| place.state == VnodeState::Rebuilding) {
            Some(place) => {
                changes.counters.vnode += 1;
                place.id = VnodeId(changes.counters.vnode);
                place.state = VnodeState::Joining;
            }
            None => set.vnodes.retain(|place| place.id != id),
        }
    }
    changes.put(Entity::Bucket(bucket));
    Ok(())
}
