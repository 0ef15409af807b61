//! Which nodes get new vnodes: those that answer, with the fewest vnodes first, zones in turn.

use std::collections::{BTreeMap, VecDeque};

use model::NodeId;

use crate::catalog::{Catalog, Node, NodeState};

/// Returns the nodes that can take vnodes of sets of so many replicas, best first. Nodes that do not
/// answer are among them only where the others do not suffice: a set of three may begin with two.
pub(crate) fn candidates(
    catalog: &Catalog,
    replicas: usize,
    answers: impl Fn(NodeId) -> bool,
) -> Vec<NodeId> {
    let mut held: BTreeMap<NodeId, usize> = BTreeMap::new();
    for set in catalog.all_buckets().flat_map(|bucket| &bucket.replica_sets) {
        for place in &set.vnodes {
            *held.entry(place.node).or_default() += 1;
        }
    }
    let takes = |node: &&std::sync::Arc<Node>| node.roles.data && node.state == NodeState::Ready;
    let mut nodes: Vec<(bool, usize, NodeId, &str)> = catalog
        .nodes()
        .filter(takes)
        .map(|node| {
            let count = held.get(&node.id).copied().unwrap_or(0);
            (!answers(node.id), count, node.id, node.zone.as_str())
        })
        .collect();
    nodes.sort_unstable();
    let silent = nodes.iter().position(|(silent, ..)| *silent).unwrap_or(nodes.len());
    let (answering, silent) = nodes.split_at(silent);
    let mut chosen = in_turn(answering);
    let missing = replicas.saturating_sub(chosen.len());
    chosen.extend(in_turn(silent).into_iter().take(missing));
    chosen
}

/// Takes one node of each zone, again and again; the order within a zone stays.
fn in_turn(nodes: &[(bool, usize, NodeId, &str)]) -> Vec<NodeId> {
    let mut zones: Vec<(&str, VecDeque<NodeId>)> = Vec::new();
    for (_, _, node, zone) in nodes {
        match zones.iter_mut().find(|(name, _)| name == zone) {
            Some((_, nodes)) => nodes.push_back(*node),
            None => zones.push((zone, VecDeque::from([*node]))),
        }
    }
    let mut order = Vec::with_capacity(nodes.len());
    while order.len() < nodes.len() {
        order.extend(zones.iter_mut().filter_map(|(_, nodes)| nodes.pop_front()));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_take_turns_and_the_emptiest_node_of_each_comes_first() {
        let nodes = [(1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "c")];
        let nodes = nodes.map(|(id, zone)| (false, 0, NodeId(id), zone));
        let order: Vec<u64> = in_turn(&nodes).into_iter().map(|node| node.0).collect();
        assert_eq!(order, [1, 3, 5, 2, 4]);
    }
}
