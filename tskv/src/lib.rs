//! Storage of vnodes on one node: write-ahead log, memcache, TSM files, summary, scans.
//!
//! It knows no SQL, no Raft and no network. Who owns what:
//!
//! | module       | holds                                                                     |
//! |--------------|---------------------------------------------------------------------------|
//! | `disk`       | the seam to files: the system's, or a simulated disk that loses power     |
//! | `wal`        | the logs of all vnodes in one append stream; the Raft log                 |
//! | `command`    | the bytes of a write or delete                                            |
//! | `vnode`      | one replica: open, apply, pin                                             |
//! | `memcache`   | rows not yet in a file                                                    |
//! | `run`        | sorted rows and the one merge                                             |
//! | `tombstone`  | recorded deletes                                                          |
//! | `index`      | series key to id and back, tag values to ids: its own segments            |
//! | `sessions`   | which writes were applied already                                         |
//! | `tsm`        | column files                                                              |
//! | `sealed`     | small files with a checksum at their end                                  |
//! | `version`    | the files and tombstones valid together                                   |
//! | `summary`    | the log of version edits                                                  |
//! | `flush`      | memcache to file                                                          |
//! | `compaction` | files to fewer files                                                      |
//! | `checksum`   | one number of all rows, to compare replicas by                            |
//! | `damage`     | whether a file was found damaged                                          |
//! | `image`      | a full copy of a vnode, given and taken                                   |
//! | `inspect`    | what files say, for people                                                |
//! | `repair`     | damaged files of a stopped vnode                                          |
//! | `schemas`    | what may be asked of the catalog                                          |
//! | `reader`     | merged rows out of files and memory                                       |
//! | `value_test` | tests of values that are asked before other columns are read              |
//! | `decoded`    | what was read of files and decoded, kept in memory                        |
//! | `ordered`    | series in the order of their tags                                         |
//! | `scan`       | Arrow batches of them                                                     |
//!
//! Write path: `wal` → (Raft) → `vnode::apply` → `run` → `memcache` → `flush` → `tsm`, `summary`.
//! Read path: `vnode::scan` → `index` → `reader` (`tsm`, `memcache`, `tombstone`, `merge`) → Arrow.
//! Change a stored byte: also touch docs/formats and the fixtures of tests/compat.

mod checksum;
mod command;
mod compaction;
mod damage;
mod decoded;
pub mod disk;
mod error;
mod flush;
#[cfg(test)]
mod fuzz;
mod image;
mod index;
pub mod inspect;
mod memcache;
mod merge;
mod ordered;
mod reader;
pub mod repair;
mod run;
mod scan;
mod schemas;
pub mod sealed;
mod sessions;
mod summary;
mod tombstone;
mod tsm;
mod value_test;
mod version;
mod vnode;
pub mod wal;

pub use checksum::VnodeChecksum;
pub use command::{
    Move, Outcome, encode_checksum, encode_delete_matching, encode_delete_rows, encode_end,
    encode_move, encode_write, renumber, rows_written,
};
pub use compaction::{CompactionReport, CompactionTotals, CompactionWish};
pub use decoded::DecodedCache;
pub use error::{Error, Result};
pub use image::{MissingPiece, PIECE_BYTES_MAX};
pub use index::{SeriesCache, SeriesCacheTotals, SeriesFilter, TagTest};
pub use reader::known::{KnownField, KnownGroup, KnownNumbers};
pub use reader::{ExactCounts, ScanCounts};
pub use scan::{ScanColumn, ScanRequest, VnodeScan};
pub use schemas::{Schemas, TableFate};
pub use sessions::{SESSION_WINDOW, WriteId};
pub use value_test::{Comparison, Number, ValueTest};
pub use vnode::{MemcacheGauge, Progress, Vnode, VnodeConfig, VnodeSize};
