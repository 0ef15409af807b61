//! Storage against a plain map: upserts and retries, crashes, damage.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "tests say what they want, and stop where they do not get it"
)]

mod crash;
mod damage;
mod ended;
mod images;
mod ordered;
mod store;
mod tools;
mod upserts;
mod vectors;
