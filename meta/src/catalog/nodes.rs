//! The machines of the cluster, and on which of them replicas may be.

use model::{NodeId, PolicyId};
use serde::{Deserialize, Serialize};

/// A machine of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// The number its data directory got when it was made: a wiped machine is another node.
    pub identity: String,
    /// Where other nodes reach it, `host:port`.
    pub addr: String,
    /// What people call it.
    pub name: String,
    /// What fails together with it: a rack, a data center.
    pub zone: String,
    /// What it does.
    pub roles: NodeRoles,
    /// Whether it may get vnodes and keep them.
    pub state: NodeState,
}

impl Node {
    /// Returns the data center of its zone `data center/rack`; a zone of one word is both.
    pub fn data_center(&self) -> &str {
        self.zone.split_once('/').map_or(&self.zone, |(data_center, _)| data_center)
    }

    /// Returns the rack of its zone.
    pub fn rack(&self) -> &str {
        self.zone.split_once('/').map_or(&self.zone, |(_, rack)| rack)
    }
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRoles {
    /// It keeps a copy of the catalog.
    pub meta: bool,
    /// It keeps vnodes.
    pub data: bool,
    /// It serves clients.
    pub query: bool,
}

/// Whether a node may get vnodes and keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// It gets new vnodes.
    Ready,
    /// It keeps what it has and gets nothing new.
    Cordoned,
    /// What it has is moved elsewhere.
    Draining,
}

impl NodeState {
    /// Returns the word people read.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
        }
    }
}

/// On which nodes replicas of a database may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementPolicy {
    /// Its id.
    pub id: PolicyId,
    /// Its name, unique.
    pub name: String,
    /// What it asks for.
    pub terms: PlacementTerms,
}

/// What a placement policy asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementTerms {
    /// What the replicas of a set must not share.
    pub rule: PlacementRule,
    /// Only nodes of these data centers; empty: of any.
    pub data_centers: Vec<String>,
    /// Only nodes of these racks; empty: of any.
    pub racks: Vec<String>,
}

/// What the replicas of a set must not share. A node's zone is `rack`, or `data center/rack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlacementRule {
    /// A node; zones as few as can be.
    #[default]
    Simple,
    /// A rack.
    RackAware,
    /// A data center.
    DcAware,
}

impl PlacementRule {
    /// Returns the word SQL has for it.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::RackAware => "rack_aware",
            Self::DcAware => "dc_aware",
        }
    }
}
