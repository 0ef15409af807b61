//! A node's data through the catalog, Raft and storage together.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "tests say what they want, and stop where they do not get it"
)]

mod groups;
mod node;
mod raft_log;
