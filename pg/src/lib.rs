//! The PostgreSQL wire front end: it only translates between the protocol and `query::Session`.
//!
//! | module       | holds                                                                  |
//! |--------------|------------------------------------------------------------------------|
//! | `server`     | accepts connections, limits and stops them                             |
//! | `connection` | the loop of one connection                                             |
//! | `auth`       | SCRAM-SHA-256 and loopback trust                                       |
//! | `simple`     | the simple query protocol                                              |
//! | `extended`   | parse, bind, describe, execute                                         |
//! | `copy`       | COPY, both ways                                                        |
//! | `encode`     | Arrow columns to text and binary fields                                |
//! | `decode`     | parameters                                                             |
//! | `types`      | Arrow's types and PostgreSQL's                                         |
//!
//! Invariant: nothing a client sends before it has proved who it is reaches a session.

mod auth;
mod connection;
mod copy;
mod decode;
mod encode;
mod extended;
mod server;
mod simple;
mod types;

pub use pgwire::tokio::TlsAcceptor;
pub use server::{PgConfig, PgServer, tls_acceptor};
