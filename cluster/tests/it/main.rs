//! A node's data through the catalog, Raft and storage together.

mod node;
mod raft_log;
