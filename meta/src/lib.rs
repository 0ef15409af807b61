//! The catalog and placement service: one Raft group over RocksDB, and a client with a watched cache.
//!
//! | module    | holds                                                                   |
//! |-----------|-------------------------------------------------------------------------|
//! | `catalog` | tenants, users, databases, tables, buckets: the whole state, in memory  |
//! | `command` | what may be asked to change, as versioned bytes                         |
//! | `apply`   | the pure state machine: (catalog, command) → changes and a reply        |
//! | `store`   | RocksDB: column families, log, state                                    |
//! | `machine` | the state machine over the store                                        |
//! | `backup`  | the catalog of a stopped node as text, and back                         |
//! | `client`  | what the rest of the program talks to                                   |
//! | `node`    | a node's part: a member of the group, or a follower of one              |
//! | `service` | what members do for other nodes                                         |
//! | `placement` | which nodes get new vnodes                                            |
//! | `limits`  | what a tenant may have and ask for                                      |
//! | `rates`   | token buckets that nodes share                                          |
//!
//! Invariant: apply asks nobody: no clock, no randomness, no IO decides what a command does.
//! Change an entity: also touch docs/formats/meta.md.

mod apply;
mod backup;
mod catalog;
mod client;
mod command;
mod error;
mod limits;
mod machine;
mod node;
mod placement;
mod rates;
mod service;
mod store;

pub use apply::{FIRST_DATABASE, FIRST_TENANT, cluster_number};
pub use backup::{dump, restore};
pub use catalog::{
    Bucket, Catalog, CustomRole, Database, DatabaseOptions, Grant, GrantObject, Level, Node,
    NodeRoles, NodeState, PlacementPolicy, PlacementRule, PlacementTerms, Precision, ReplicaSet,
    Role, SystemRole, Table, Tenant, User, View, VnodePlace, VnodeState,
};
pub use client::MetaClient;
pub use command::{
    AlterTable, Command, DatabaseChange, GrantChange, NewColumn, NewNode, NewUser, NodeChange,
    Reply, TenantChange, UserChange,
};
pub use error::{Error, Result};
pub use limits::{ObjectLimits, Rate, RateGroup, Rates};
pub use machine::MetaMachine;
pub use node::{MetaNode, fetch_catalog, register};
pub use service::{NodeLoad, NodeReport};
pub use store::MetaStore;
