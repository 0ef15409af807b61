//! Newtypes of every id. An id is never reused, and names things on disk and on the wire.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// A tenant: the outermost scope of names, users and data.
    TenantId(u32)
);
id!(
    /// A database of a tenant.
    DatabaseId(u32)
);
id!(
    /// A table of a database.
    TableId(u32)
);
id!(
    /// A column, unique in its table for ever; 0 is `time`.
    ColumnId(u32)
);
id!(
    /// A user of the whole installation.
    UserId(u32)
);
id!(
    /// A time slice of a database.
    BucketId(u32)
);
id!(
    /// The vnodes that hold the same rows: one Raft group.
    ReplicaSetId(u32)
);
id!(
    /// One replica's storage on one node; also its Raft member id.
    VnodeId(u64)
);
id!(
    /// A placement policy: on which nodes replicas may be.
    PolicyId(u32)
);
id!(
    /// A machine of the cluster.
    NodeId(u64)
);
id!(
    /// A series inside one vnode, given by apply in log order.
    SeriesId(u32)
);

impl ColumnId {
    /// The column id of `time` in every table.
    pub const TIME: Self = Self(0);
}
