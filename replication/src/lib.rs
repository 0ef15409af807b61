//! openraft made ours: many Raft groups in one process.
//!
//! This crate alone names openraft. It knows neither vnodes nor the catalog: a group is a [`LogStore`]
//! and a [`Machine`] that its owner brings. Commands are opaque bytes.
//!
//! | module    | holds                                                       |
//! |-----------|-------------------------------------------------------------|
//! | `types`   | the types openraft is parameterised with                    |
//! | `runtime` | tokio as openraft wants it                                  |
//! | `codec`   | bytes of entries, votes, log ids and raft states            |
//! | `log`     | the seam to a log, and openraft's view of it                |
//! | `machine` | the seam to a state machine, and openraft's view of it      |
//! | `group`   | one group: open, propose, snapshot, close                   |
//! | `members` | who is in a group and who leads it                          |
//! | `host`    | the groups of a process, opened on need                     |
//! | `messages`| bytes of what members say to each other                     |
//! | `network` | openraft's links over a transport, and the service they call |
//! | `transport` | the seam between nodes: calls and streams to services     |
//! | `grpc`    | nodes over gRPC, behind the cluster's secret                |
//! | `suite`   | openraft's own storage tests, for the owners' logs          |
//!
//! Change a byte in `codec`: also touch docs/formats/raft.md; in `messages` or `grpc`:
//! docs/formats/rpc.md.

#![allow(clippy::result_large_err, reason = "openraft's errors are large and not ours to box")]

mod codec;
mod error;
mod group;
pub mod grpc;
mod host;
mod log;
mod machine;
mod members;
mod messages;
mod network;
mod runtime;
pub mod suite;
pub mod transport;
mod types;

pub use codec::{BegunAlone, begun_alone};
pub use error::{Error, Result};
pub use group::{Bounds, Group, GroupConfig, Origin, Purge};
pub use host::{Hosted, RaftHost};
pub use log::{Completion, LogStore, told};
pub use machine::{Image, Machine};
pub use members::{GroupStatus, MemberStatus};
pub use network::{HoldsGroup, Members, Network, Pieces, RaftService};
