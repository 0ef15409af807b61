//! The HTTP front end: line protocol in, SQL in and rows out. It only translates: everything behind it
//! is a [`query::Session`].
//!
//! | module    | holds                                                                |
//! |-----------|----------------------------------------------------------------------|
//! | `sockets` | a port: accepts so many connections at once, until it is closed       |
//! | `server`  | TLS, routes, the graceful stop                                        |
//! | `request_id` | a name for each request                                            |
//! | `call`    | a request as the routes take it                                       |
//! | `auth`    | who asks: basic, token or parameters, against the SCRAM verifier      |
//! | `body`    | request bodies, read at a pace and unpacked within limits             |
//! | `pack`    | answers, packed as their reader accepts                               |
//! | `lines`   | line protocol: bytes to columns                                       |
//! | `write`   | the write routes of line protocol                                     |
//! | `samples` | samples of metrics, gathered into batches                             |
//! | `prometheus` | remote write and remote read                                       |
//! | `opentsdb` | OpenTSDB's lines and JSON                                            |
//! | `telnet`  | OpenTSDB's lines on a port of their own                               |
//! | `metrics` | what was done, counted; `/metrics`                                    |
//! | `profile` | where time goes: `/debug/pprof/profile`                               |
//! | `route`   | the route of a request, and what it moves, counted                    |
//! | `sql`     | the SQL route                                                         |
//! | `form`    | the forms that rows are given in, as HTTP names them                  |
//! | `failure` | errors as status and JSON                                             |
//!
//! Change a route: also touch docs/guide/http.md and tests/clients.

mod auth;
mod body;
mod call;
mod failure;
mod form;
mod lines;
mod metrics;
mod opentsdb;
mod pack;
mod profile;
mod prometheus;
mod request_id;
mod route;
mod samples;
mod server;
mod sockets;
mod sql;
mod telnet;
mod write;

pub use lines::{BadLine, Parsed, Precision, parse};
pub use server::{HttpConfig, HttpServer};
pub use telnet::{TelnetConfig, TelnetServer};
