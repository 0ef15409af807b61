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
    let NewNode { identity, addr, name, zone, roles } = new;
    check_name("node", &name)?;
    let mut others = catalog.nodes().filter(|node| node.identity != identity);
    if let Some(other) = others.find(|node| !addr.is_empty() && node.addr == addr) {
        let message = format!("node {} has the address {addr}", other.id);
        return refuse(ErrorKind::AlreadyExists, message);
    }
    let known = catalog.nodes().find(|node| node.identity == identity);
    let (id, state) = match known {
        Some(known) => (known.id, known.state),
        None if catalog.nodes().count() >= NODES_MAX => {
            return refuse(ErrorKind::LimitReached, format!("a cluster has {NODES_MAX} nodes"));
        }
        None => {
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
    let sets = catalog.all_buckets().flat_map(|bucket| &bucket.replica_sets);
    let vnodes = sets.flat_map(|set| &set.vnodes).filter(|place| place.node == id).count();
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

/// Returns the bucket of a replica set or vnode, to be changed.
fn bucket_of(found: Option<&Bucket>, what: &str, id: impl ToString) -> Result<Bucket> {
    found.cloned().ok_or_else(|| Error::not_found(what, &id.to_string()))
}

pub(super) fn add_vnode(
    catalog: &Catalog,
    (id, replaces): (ReplicaSetId, Option<VnodeId>),
    node: NodeId,
    changes: &mut Changes,
) -> Result<Reply> {
    let found = catalog.replica_set(id).map(|(bucket, _)| bucket.as_ref());
    let mut bucket = bucket_of(found, "replica set", id)?;
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
    if let Some(replaced) = replaces {
        let found = set.vnodes.iter_mut().find(|place| place.id == replaced);
        let found = found.ok_or_else(|| Error::not_found("vnode", &replaced.to_string()))?;
        found.state = VnodeState::Leaving;
        end_founding(set);
    }
    changes.counters.vnode += 1;
    let vnode = VnodeId(changes.counters.vnode);
    set.vnodes.push(VnodePlace { id: vnode, node, state: VnodeState::Joining });
    changes.put(Entity::Bucket(bucket));
    Ok(Reply::Vnode(vnode))
}

/// Those who began a group can begin it no more once its members change: they would begin another one.
fn end_founding(set: &mut ReplicaSet) {
    let founders = set.vnodes.iter_mut().filter(|one| one.state == VnodeState::Founder);
    founders.for_each(|place| place.state = VnodeState::Joined);
}

pub(super) fn vnode_joined(catalog: &Catalog, id: VnodeId, changes: &mut Changes) -> Result<()> {
    let found = catalog.replica_set_of(id).map(|(bucket, _)| bucket.as_ref());
    let mut bucket = bucket_of(found, "vnode", id)?;
    let places = bucket.replica_sets.iter_mut().flat_map(|set| &mut set.vnodes);
    for place in places.filter(|place| place.id == id && place.state == VnodeState::Joining) {
        place.state = VnodeState::Joined;
    }
    changes.put(Entity::Bucket(bucket));
    Ok(())
}

pub(super) fn remove_vnode(catalog: &Catalog, id: VnodeId, changes: &mut Changes) -> Result<()> {
    let found = catalog.replica_set_of(id).map(|(bucket, _)| bucket.as_ref());
    let mut bucket = bucket_of(found, "vnode", id)?;
    for set in &mut bucket.replica_sets {
        let counts = |place: &VnodePlace| place.state != VnodeState::Joining;
        let removed = set.vnodes.iter().find(|place| place.id == id);
        let others = set.vnodes.iter().filter(|place| place.id != id && counts(place)).count();
        if removed.is_some_and(counts) && others == 0 {
            let message = format!("vnode {id} is the last that holds the rows of its replica set");
            return refuse(ErrorKind::Conflict, message);
        }
        if removed.is_none() {
            continue;
        }
        set.vnodes.retain(|place| place.id != id);
        end_founding(set);
    }
    changes.put(Entity::Bucket(bucket));
    Ok(())
}
