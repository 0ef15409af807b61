//! What a tenant may have and ask for, as the catalog keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a tenant may have at most; `None`: as much as it wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectLimits {
    /// Members.
    pub users: Option<u32>,
    /// Databases.
    pub databases: Option<u32>,
    /// Shards of a database.
    pub shards: Option<u32>,
    /// Replicas of a database.
    pub replicas: Option<u32>,
    /// Days that rows live.
    pub retention_days: Option<u32>,
    /// Statements that run at once, on each node.
    #[serde(default)]
    pub statements: Option<u32>,
    /// Bytes of memory that its queries take together, on each node.
    #[serde(default)]
    pub query_memory: Option<u64>,
    /// Series of its vnodes together, on each node.
    #[serde(default)]
    pub series: Option<u64>,
}

impl ObjectLimits {
    /// Returns all limits with the names SQL gives them.
    pub fn named(&self) -> [(&'static str, Option<u64>); 8] {
        [
            ("max_users_number", self.users.map(u64::from)),
            ("max_databases", self.databases.map(u64::from)),
            ("max_shard_number", self.shards.map(u64::from)),
            ("max_replicate_number", self.replicas.map(u64::from)),
            ("max_retention_time", self.retention_days.map(u64::from)),
            ("max_running_statements", self.statements.map(u64::from)),
            ("max_query_memory", self.query_memory),
            ("max_series", self.series),
        ]
    }
}

/// The rates of a tenant.
pub type Rates = BTreeMap<RateGroup, Rate>;

/// What is counted against a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RateGroup {
    /// Bytes of rows stored.
    CoordDataIn,
    /// Bytes of rows given to clients.
    CoordDataOut,
    /// Statements that read.
    CoordQueries,
    /// Statements, batches and bodies that write.
    CoordWrites,
    /// Bytes of bodies over HTTP.
    HttpDataIn,
    /// Bytes of answers over HTTP.
    HttpDataOut,
    /// Requests over HTTP that read.
    HttpQueries,
    /// Requests over HTTP that write.
    HttpWrites,
}

impl RateGroup {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::CoordDataIn,
        Self::CoordDataOut,
        Self::CoordQueries,
        Self::CoordWrites,
        Self::HttpDataIn,
        Self::HttpDataOut,
        Self::HttpQueries,
        Self::HttpWrites,
    ];

    /// Returns the name SQL gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CoordDataIn => "coord_data_in",
            Self::CoordDataOut => "coord_data_out",
            Self::CoordQueries => "coord_queries",
            Self::CoordWrites => "coord_writes",
            Self::HttpDataIn => "http_data_in",
            Self::HttpDataOut => "http_data_out",
            Self::HttpQueries => "http_queries",
            Self::HttpWrites => "http_writes",
        }
    }
}

/// A token bucket that all nodes share, and the smaller ones of each node that are filled from it: a node
/// asks for many tokens at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The most tokens of the shared bucket.
    pub remote_max: u64,
    /// Those it begins with.
    pub remote_initial: u64,
    /// Those it gets in each interval.
    pub remote_refill: u64,
    /// The interval, milliseconds.
    pub remote_interval_ms: u64,
    /// The most tokens that a node takes at once beyond what it needs.
    pub local_max: u64,
    /// Those a node begins with.
    pub local_initial: u64,
}

impl Rate {
    /// Returns its parts with the names SQL gives them.
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("remote_max", self.remote_max),
            ("remote_initial", self.remote_initial),
            ("remote_refill", self.remote_refill),
            ("remote_interval", self.remote_interval_ms),
            ("local_max", self.local_max),
            ("local_initial", self.local_initial),
        ]
    }
}
