//! The catalog and placement service: one Raft group over RocksDB, and a client with a watched cache.
//!
//! | module    | holds                                                                   |
//! |-----------|-------------------------------------------------------------------------|
//! | `catalog` | tenants, users, databases, tables, buckets: the whole state, in memory  |
//! | `command` | what may be asked to change, as versioned bytes                         |
//! | `apply`   | the pure state machine: (catalog, command) → changes and a reply        |
//! | `store`   | RocksDB: column families, log, state                                    |
//! | `machine` | the state machine over the store                                        |
//! | `client`  | what the rest of the program talks to                                   |
//!
//! Invariant: apply asks nobody: no clock, no randomness, no IO decides what a command does.
//! Change an entity: also touch docs/formats/meta.md.

mod apply;
mod catalog;
mod client;
mod command;
mod error;
mod machine;
mod store;

pub use catalog::{
    Bucket, Catalog, Database, DatabaseOptions, Precision, ReplicaSet, Role, Table, Tenant, User,
    VnodePlace,
};
pub use client::{MetaClient, MetaNode};
pub use command::{
    AlterTable, Command, DatabaseChange, NewColumn, NewUser, Reply, TenantChange, UserChange,
};
pub use error::{Error, Result};
pub use machine::MetaMachine;
pub use store::MetaStore;
