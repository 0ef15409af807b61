//! The HTTP front end: line protocol in, SQL in and rows out. It only translates: everything behind it
//! is a [`query::Session`].
//!
//! | module    | holds                                                                |
//! |-----------|----------------------------------------------------------------------|
//! | `server`  | sockets, TLS, routes, the graceful stop                               |
//! | `auth`    | who asks: basic, token or parameters, against the SCRAM verifier      |
//! | `body`    | request bodies, unpacked within limits                                |
//! | `lines`   | line protocol: bytes to columns                                       |
//! | `write`   | the write routes of line protocol                                     |
//! | `samples` | samples of metrics, gathered into batches                             |
//! | `prometheus` | remote write and remote read                                       |
//! | `opentsdb` | OpenTSDB's lines and JSON                                            |
//! | `metrics` | what was done, counted; `/metrics`                                    |
//! | `sql`     | the SQL route                                                         |
//! | `rows`    | batches as CSV, TSV, JSON, NDJSON                                     |
//! | `failure` | errors as status and JSON                                             |
//!
//! Change a route: also touch docs/guide/http.md and tests/clients.

mod auth;
mod body;
mod failure;
mod lines;
mod metrics;
mod opentsdb;
mod prometheus;
mod rows;
mod samples;
mod server;
mod sql;
mod write;

pub use lines::{BadLine, Parsed, Precision, parse};
pub use server::{HttpConfig, HttpServer};
