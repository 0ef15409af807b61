//! The binary from outside: clients, kill -9, start and stop.

mod clients;
mod kill9;
mod start;
mod weather;
