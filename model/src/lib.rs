//! The nouns of the database: ids, schema, series keys, points, time, placement, errors, the clock.
//!
//! Invariant: `model` does no IO, knows no async runtime and no SQL.
//!
//! | module       | holds                                                             |
//! |--------------|-------------------------------------------------------------------|
//! | `ids`        | newtypes of every id                                              |
//! | `wire`       | bounded reading and writing of little-endian bytes                |
//! | `schema`     | columns and tables                                                |
//! | `codec`      | the encodings a column's pages may have                           |
//! | `lossy`      | codecs that change values within a bound                          |
//! | `series_key` | the canonical bytes of a series                                   |
//! | `points`     | the columnar batch that is sent, logged and applied               |
//! | `time`       | time ranges and durations as people write them                    |
//! | `shape`      | what a column of geometries holds                                 |
//! | `size`       | sizes in bytes as people write them                               |
//! | `placement`  | buckets and shards                                                |
//! | `error`      | the kinds every crate's error maps to                             |
//! | `generations` | a cache of what was asked for lately                             |
//! | `clock`      | wall time, system or set by a test                                |
//!
//! Change a column type here: also touch `points`, `tskv::tsm` and `query::types`.

pub mod clock;
pub mod codec;
pub mod error;
pub mod generations;
pub mod ids;
pub mod lossy;
pub mod placement;
pub mod points;
pub mod schema;
pub mod series_key;
pub mod shape;
pub mod size;
pub mod time;
pub mod wire;

pub use clock::{Clock, SystemClock};
pub use codec::Codec;
pub use error::ErrorKind;
pub use ids::{
    BucketId, ColumnId, DatabaseId, NodeId, PolicyId, ReplicaSetId, SeriesId, TableId, TenantId,
    UserId, VnodeId,
};
pub use points::Points;
pub use schema::{Column, ColumnKind, TableSchema, ValueType};
pub use series_key::SeriesKey;
pub use shape::Shape;
pub use time::TimeRange;
