//! The binary from outside: clients, kill -9, start and stop.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "tests say what they want, and stop where they do not get it"
)]

mod access;
mod clients;
mod cluster;
mod hostile;
mod http;
mod kill9;
mod linear;
mod memory;
mod nodes;
mod power_cut;
mod prometheus;
mod random_queries;
mod reads;
mod secrets;
mod stages;
mod start;
mod weather;
mod writers;
