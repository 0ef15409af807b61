//! Which nodes get new vnodes: those that answer, with the fewest vnodes and the most free space first, in
//! zones that differ, as placement policies allow.

use std::cmp::Reverse;
use std::collections::VecDeque;

use model::{DatabaseId, ErrorKind, NodeId};

use crate::catalog::{Catalog, Node, NodeState, PlacementPolicy, PlacementRule, PlacementTerms};
use crate::error::{Error, Result};
use crate::service::NodeLoad;

/// Returns the nodes that can take vnodes of a database's new sets, best first. Nodes that do not answer are
/// among them only where the others do not suffice: a set of three may begin with two.
pub(crate) fn candidates(
    catalog: &Catalog,
    database: DatabaseId,
    answers: impl Fn(NodeId) -> bool,
    load: impl Fn(NodeId) -> NodeLoad,
) -> Vec<NodeId> {
    let replicas = catalog.database_by_id(database).map_or(1, |one| one.options.replicas as usize);
    let policy = catalog.policy_of(database);
    let held = catalog.vnodes_by_node();
    let takes = |node: &&std::sync::Arc<Node>| {
        let allowed = policy.is_none_or(|policy| policy.terms.allows(node));
        node.roles.data && node.state == NodeState::Ready && allowed && !load(node.id).is_full()
    };
    let mut nodes: Vec<Candidate<'_>> = catalog
        .nodes()
        .filter(takes)
        .map(|node| Candidate {
            silent: !answers(node.id),
            held: held.get(&node.id).copied().unwrap_or(0),
            free: Reverse(load(node.id).disk_free / FREE_UNIT),
            node: node.id,
            zone: &node.zone,
        })
        .collect();
    nodes.sort_unstable();
    let silent = nodes.iter().position(|one| one.silent).unwrap_or(nodes.len());
    let (answering, silent) = nodes.split_at(silent);
    let mut chosen = in_turn(answering);
    for node in in_turn(silent) {
        if choose(catalog, policy.map(AsRef::as_ref), (&chosen, 0), replicas).is_ok() {
            break;
        }
        chosen.push(node);
    }
    chosen
}

/// Differences in free space below this count for nothing.
const FREE_UNIT: u64 = 1 << 30;

/// A node that can take vnodes; the best is the least.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate<'a> {
    silent: bool,
    held: usize,
    free: Reverse<u64>,
    node: NodeId,
    zone: &'a str,
}

impl PlacementTerms {
    /// Returns whether a node may have replicas at all.
    pub fn allows(&self, node: &Node) -> bool {
        let named =
            |names: &[String], name: &str| names.is_empty() || names.iter().any(|one| one == name);
        named(&self.data_centers, node.data_center()) && named(&self.racks, node.rack())
    }

    /// Returns whether a node may have a replica beside those that others have.
    pub fn allows_beside<'a>(
        &self,
        node: &Node,
        mut others: impl Iterator<Item = &'a Node>,
    ) -> bool {
        self.allows(node)
            && match self.rule {
                PlacementRule::Simple => true,
                PlacementRule::RackAware => others.all(|other| other.zone != node.zone),
                PlacementRule::DcAware => {
                    others.all(|other| other.data_center() != node.data_center())
                }
            }
    }
}

/// Chooses the nodes of one replica set out of candidates, beginning with one of them: in zones that differ
/// as far as there are such, and as the policy asks for.
///
/// # Errors
/// Too few nodes.
pub(crate) fn choose(
    catalog: &Catalog,
    policy: Option<&PlacementPolicy>,
    (candidates, first): (&[NodeId], usize),
    replicas: usize,
) -> Result<Vec<NodeId>> {
    let turn = |at: usize| candidates.get((first + at) % candidates.len().max(1));
    let nodes = (0..candidates.len()).filter_map(turn).filter_map(|node| catalog.node(*node));
    let nodes: Vec<&Node> = nodes.map(AsRef::as_ref).collect();
    let mut chosen: Vec<&Node> = Vec::with_capacity(replicas);
    // First those of other zones, then, where that is allowed, any.
    for apart in [true, false] {
        for node in &nodes {
            let has = chosen.iter().any(|one| one.id == node.id);
            let shares = chosen.iter().any(|one| one.zone == node.zone);
            let allowed = policy
                .is_none_or(|policy| policy.terms.allows_beside(node, chosen.iter().copied()));
            if chosen.len() < replicas && !has && allowed && !(apart && shares) {
                chosen.push(node);
            }
        }
    }
    if chosen.len() == replicas {
        return Ok(chosen.into_iter().map(|node| node.id).collect());
    }
    let by = policy.map_or(String::new(), |policy| {
        format!(" that placement policy \"{}\" allows beside one another", policy.name)
    });
    let message =
        format!("REPLICA {replicas} needs {replicas} data nodes{by}, there are {}", chosen.len());
    Err(Error::refused(ErrorKind::LimitReached, message))
}

/// Takes one node of each zone, again and again; the order within a zone stays.
fn in_turn(nodes: &[Candidate<'_>]) -> Vec<NodeId> {
    let mut zones: Vec<(&str, VecDeque<NodeId>)> = Vec::new();
    for Candidate { node, zone, .. } in nodes {
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
    use model::PolicyId;

    use super::*;
    use crate::catalog::{Entity, NodeRoles};

    /// A catalog of nodes in zones; ids count from one.
    fn nodes_in(zones: &[&str]) -> Catalog {
        let mut catalog = Catalog::default();
        for (id, zone) in (1..).zip(zones) {
            catalog.put(Entity::Node(Node {
                id: NodeId(id),
                identity: id.to_string(),
                addr: String::new(),
                name: id.to_string(),
                zone: (*zone).to_owned(),
                roles: NodeRoles { meta: true, data: true, query: true },
                state: NodeState::Ready,
            }));
        }
        catalog
    }

    fn chosen(
        catalog: &Catalog,
        terms: Option<PlacementTerms>,
        first: usize,
        replicas: usize,
    ) -> Result<Vec<u64>> {
        let policy =
            terms.map(|terms| PlacementPolicy { id: PolicyId(1), name: "p".to_owned(), terms });
        let nodes = candidates(catalog, DatabaseId(1), |_| true, |_| NodeLoad::default());
        let nodes = choose(catalog, policy.as_ref(), (&nodes, first), replicas)?;
        Ok(nodes.into_iter().map(|node| node.0).collect())
    }

    #[test]
    fn zones_take_turns_and_the_emptiest_node_of_each_comes_first() {
        let catalog = nodes_in(&["a", "a", "b", "a", "c"]);
        let nodes = candidates(&catalog, DatabaseId(1), |_| true, |_| NodeLoad::default());
        let order: Vec<u64> = nodes.into_iter().map(|node| node.0).collect();
        assert_eq!(order, [1, 3, 5, 2, 4]);
    }

    #[test]
    fn replicas_are_in_zones_that_differ_wherever_they_begin() {
        let catalog = nodes_in(&["a", "a", "b", "a", "c"]);
        for first in 0..5 {
            let nodes = chosen(&catalog, None, first, 3).unwrap();
            let zones: std::collections::BTreeSet<&str> =
                nodes.iter().map(|id| catalog.node(NodeId(*id)).unwrap().zone.as_str()).collect();
            assert_eq!(zones.len(), 3, "{nodes:?}");
        }
        assert_eq!(chosen(&catalog, None, 0, 5).unwrap().len(), 5);
    }

    #[test]
    fn policies_keep_replicas_apart_and_to_the_places_they_name() {
        let catalog = nodes_in(&["x/1", "x/1", "x/2", "y/1", "z/9"]);
        let terms = |rule, data_centers: &[&str]| PlacementTerms {
            rule,
            data_centers: data_centers.iter().map(|name| (*name).to_owned()).collect(),
            racks: Vec::new(),
        };
        let racks = terms(PlacementRule::RackAware, &["x"]);
        assert_eq!(chosen(&catalog, Some(racks.clone()), 0, 2).unwrap(), [1, 3]);
        let error = chosen(&catalog, Some(racks), 0, 3).unwrap_err().to_string();
        assert!(error.contains("placement policy \"p\""), "{error}");
        let centers = terms(PlacementRule::DcAware, &[]);
        assert_eq!(chosen(&catalog, Some(centers.clone()), 0, 3).unwrap(), [1, 4, 5]);
        assert!(chosen(&catalog, Some(centers), 0, 4).is_err());
        assert!(chosen(&catalog, Some(terms(PlacementRule::Simple, &["x"])), 0, 3).is_ok());
    }

    #[test]
    fn full_disks_get_nothing_and_more_free_space_comes_first() {
        let catalog = nodes_in(&["a", "a", "a"]);
        let free = [10_u64 << 20, 50 << 30, 90 << 30];
        let load = |node: NodeId| NodeLoad {
            disk_free: free[usize::try_from(node.0).unwrap() - 1],
            disk_size: 100 << 30,
            ..NodeLoad::default()
        };
        let nodes = candidates(&catalog, DatabaseId(1), |_| true, load);
        assert_eq!(nodes, [NodeId(3), NodeId(2)]);
    }
}
