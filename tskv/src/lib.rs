//! Storage of vnodes on one node: write-ahead log, memcache, TSM files, summary, scans.
//!
//! It knows no SQL, no Raft and no network. Who owns what:
//!
//! | module     | holds                                                                     |
//! |------------|---------------------------------------------------------------------------|
//! | `disk`     | the seam to files: the system's, or a simulated disk that loses power      |
//! | `wal`      | the logs of all vnodes in one append stream; the Raft log                  |
//! | `command`  | the bytes of a write                                                      |
//! | `vnode`    | one replica: apply, flush, recover, scan                                  |
//! | `memcache` | rows not yet in a file                                                    |
//! | `run`      | sorted rows and the one merge                                             |
//! | `series`   | series key to id and back                                                 |
//! | `sessions` | which writes were applied already                                         |
//! | `tsm`      | column files                                                              |
//! | `summary`  | the log of version edits                                                  |
//! | `scan`     | the read path                                                             |
//!
//! Write path: `wal` → (Raft) → `vnode::apply` → `run` → `memcache` → `flush` → `tsm`, `summary`.
//! Read path: `vnode::scan` → `series` → `tsm` + `memcache` → `run::merge` → Arrow.
//! Change a stored byte: also touch docs/formats and the fixtures of tests/compat.

mod command;
pub mod disk;
mod error;
mod memcache;
mod run;
mod scan;
mod series;
mod sessions;
mod summary;
mod tsm;
mod vnode;
pub mod wal;

pub use command::{Outcome, encode_write};
pub use error::{Error, Result};
pub use scan::{ScanColumn, ScanCounts, ScanRequest, VnodeScan};
pub use series::SeriesFilter;
pub use sessions::{SESSION_WINDOW, WriteId};
pub use vnode::{MemcacheGauge, Progress, Vnode, VnodeSize};
