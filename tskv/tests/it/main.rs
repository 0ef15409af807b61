//! Storage against a plain map: upserts and retries, crashes, damage.

mod crash;
mod damage;
mod store;
mod upserts;
