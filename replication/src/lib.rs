//! openraft made ours: many Raft groups in one process.
//!
//! This crate alone names openraft. It knows neither vnodes nor the catalog: a group is a [`LogStore`]
//! and a [`Machine`] that its owner brings. Commands are opaque bytes.
//!
//! | module    | holds                                                       |
//! |-----------|-------------------------------------------------------------|
//! | `types`   | the types openraft is parameterised with                    |
//! | `codec`   | bytes of entries, votes, log ids and raft states            |
//! | `log`     | the seam to a log, and openraft's view of it                |
//! | `machine` | the seam to a state machine, and openraft's view of it      |
//! | `group`   | one group: open, propose, snapshot, close                   |
//! | `host`    | the groups of a process, opened on need                     |
//! | `suite`   | openraft's own storage tests, for the owners' logs          |
//!
//! Change a byte in `codec`: also touch docs/formats/raft.md.

#![allow(clippy::result_large_err, reason = "openraft's errors are large and not ours to box")]

mod codec;
mod error;
mod group;
mod host;
mod log;
mod machine;
mod network;
pub mod suite;
mod types;

pub use error::{Error, Result};
pub use group::{Group, GroupConfig};
pub use host::{Hosted, RaftHost};
pub use log::{Completion, LogStore};
pub use machine::{Image, Machine};
