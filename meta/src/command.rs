//! What may be asked to change, as versioned bytes, and what is answered.

use bytes::Bytes;
use model::{
    BucketId, Codec, ColumnKind, DatabaseId, NodeId, PolicyId, ReplicaSetId, Shape, TableId,
    TenantId, UserId, VnodeId,
};
use serde::{Deserialize, Serialize};

use crate::catalog::{
    DatabaseOptions, GrantObject, Level, NodeRoles, NodeState, PlacementTerms, Role, SystemRole,
};
use crate::error::{Error, Result};
use crate::limits::{ObjectLimits, Rates};

const VERSION: u8 = 1;
/// The most commands that are done together.
pub(crate) const COMMANDS_MAX: usize = 10_000;

/// A command of the catalog's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Does what several commands say in their order, or nothing where one of them is refused.
    All(Vec<Self>),
    /// Makes the first tenant, database and user of an empty catalog; does nothing to another.
    Bootstrap {
        /// The first user's verifier.
        verifier: Option<String>,
    },
    /// Hands out a number that no other session of writers has or will have.
    NewSession,
    /// Makes a tenant.
    CreateTenant {
        /// Its name.
        name: String,
        /// What people say of it.
        comment: String,
        /// How long it is kept once it is dropped, nanoseconds.
        #[serde(default)]
        drop_after_ns: Option<i64>,
        /// What it may have at most.
        #[serde(default)]
        limits: ObjectLimits,
        /// How much it may ask for in a time.
        #[serde(default)]
        rates: Rates,
    },
    /// Changes a tenant.
    AlterTenant {
        /// Which.
        tenant: TenantId,
        /// How.
        change: TenantChange,
    },
    /// Removes a tenant with all it holds.
    DropTenant {
        /// Which.
        tenant: TenantId,
    },
    /// Hides a tenant, and drops it at a time.
    HideTenant {
        /// Which.
        tenant: TenantId,
        /// When it goes, nanoseconds since the epoch.
        drop_at: i64,
    },
    /// Drops a tenant that still waits to be dropped at that time; does nothing to one that was brought
    /// back.
    DropHiddenTenant {
        /// Which.
        tenant: TenantId,
        /// When it was to go.
        drop_at: i64,
    },
    /// Brings back a tenant that waits to be dropped.
    RecoverTenant {
        /// Which.
        tenant: TenantId,
    },
    /// Makes a user.
    CreateUser(NewUser),
    /// Changes a user.
    AlterUser {
        /// Which.
        user: UserId,
        /// How.
        change: UserChange,
    },
    /// Removes a user and its memberships.
    DropUser {
        /// Which.
        user: UserId,
    },
    /// Makes a database.
    CreateDatabase {
        /// In which tenant.
        tenant: TenantId,
        /// Its name.
        name: String,
        /// Its options.
        options: DatabaseOptions,
    },
    /// Changes one option of a database; buckets there are keep theirs.
    AlterDatabase {
        /// Which.
        database: DatabaseId,
        /// How.
        change: DatabaseChange,
    },
    /// Removes a database with its tables and rows.
    DropDatabase {
        /// Which.
        database: DatabaseId,
    },
    /// Hides a database, and drops it at a time.
    HideDatabase {
        /// Which.
        database: DatabaseId,
        /// When it goes, nanoseconds since the epoch.
        drop_at: i64,
    },
    /// Drops a database that still waits to be dropped at that time; does nothing to one that was
    /// brought back.
    DropHiddenDatabase {
        /// Which.
        database: DatabaseId,
        /// When it was to go.
        drop_at: i64,
    },
    /// Brings back a database that waits to be dropped.
    RecoverDatabase {
        /// Which.
        database: DatabaseId,
    },
    /// Makes a table.
    CreateTable {
        /// In which database.
        database: DatabaseId,
        /// Its name.
        name: String,
        /// Its columns without `time`, tags before fields.
        columns: Vec<NewColumn>,
    },
    /// Changes a table.
    AlterTable {
        /// Which.
        table: TableId,
        /// How.
        change: AlterTable,
    },
    /// Removes a table.
    DropTable {
        /// Which.
        table: TableId,
    },
    /// Makes a view.
    CreateView {
        /// In which database.
        database: DatabaseId,
        /// Its name.
        name: String,
        /// Names and Arrow types of its columns.
        columns: Vec<(String, String)>,
        /// The query.
        definition: String,
        /// Whether it may take the place of a view of that name.
        replace: bool,
        /// Whether it is of files.
        #[serde(default)]
        external: bool,
    },
    /// Removes a view.
    DropView {
        /// Which.
        view: TableId,
    },
    /// Makes the bucket that holds a time, if it is not there.
    CreateBucket {
        /// Of which database.
        database: DatabaseId,
        /// A time in it, nanoseconds.
        time: i64,
        /// The nodes that can take vnodes, best first; filled in by the meta member that leads.
        nodes: Vec<NodeId>,
        /// The caller's clock, nanoseconds.
        now: i64,
    },
    /// Notes that a bucket shall hold no rows later than this; a later time takes the place of an earlier.
    BeginEnd {
        /// Which.
        bucket: BucketId,
        /// The last time, nanoseconds.
        until: i64,
    },
    /// Ends a bucket, all of whose replica sets refuse later rows and hold none. A bucket that ends before it
    /// begins is removed.
    EndBucket {
        /// Which.
        bucket: BucketId,
        /// The time that `BeginEnd` noted last; where it is another by now nothing is done.
        until: i64,
        /// The replica sets that were told; where they are others by now nothing is done.
        told: Vec<ReplicaSetId>,
    },
    /// Removes a bucket with its rows.
    DropBucket {
        /// Which.
        bucket: BucketId,
    },
    /// Puts an empty replica set in the place of one whose rows are given up.
    ResetReplicaSet {
        /// Which.
        replica_set: ReplicaSetId,
        /// The nodes that can take vnodes, best first; filled in by the meta member that leads.
        nodes: Vec<NodeId>,
    },
    /// Makes a placement policy.
    CreatePolicy {
        /// Its name.
        name: String,
        /// What it asks for.
        terms: PlacementTerms,
    },
    /// Changes what a placement policy asks for, of buckets and vnodes to come.
    AlterPolicy {
        /// Which.
        policy: PolicyId,
        /// What it asks for from now on.
        terms: PlacementTerms,
    },
    /// Removes a placement policy that no database has.
    DropPolicy {
        /// Which.
        policy: PolicyId,
    },
    /// Gives up that a vnode which is being filled takes the place of another, or comes at all.
    GiveUpVnode {
        /// The vnode that is being filled.
        vnode: VnodeId,
    },
    /// Takes a node in; one that is known by its identity gets its address and labels.
    RegisterNode(NewNode),
    /// Changes a node.
    AlterNode {
        /// Which.
        node: NodeId,
        /// How.
        change: NodeChange,
    },
    /// Removes a node that holds no vnode any more.
    RemoveNode {
        /// Which.
        node: NodeId,
    },
    /// Adds a vnode to a replica set; it does not count before it has joined.
    AddVnode {
        /// To which.
        replica_set: ReplicaSetId,
        /// On which node.
        node: NodeId,
        /// Which vnode leaves once it has joined.
        replaces: Option<VnodeId>,
    },
    /// Lets a vnode that was added count.
    VnodeJoined {
        /// Which.
        vnode: VnodeId,
    },
    /// Has a vnode leave its replica set: whoever leads the set lets it go, then it is removed. The last
    /// one that counts stays.
    LeaveVnode {
        /// Which.
        vnode: VnodeId,
    },
    /// Has a vnode made anew on its node, from the others of its replica set: it leaves, and another comes in
    /// its place.
    RebuildVnode {
        /// Which.
        vnode: VnodeId,
    },
    /// Puts a vnode first in its replica set: the lead goes back to the first whenever it can.
    PreferVnode {
        /// Which.
        vnode: VnodeId,
    },
    /// Removes a vnode that its replica set has let go.
    RemoveVnode {
        /// Which.
        vnode: VnodeId,
    },
}

/// A node to be taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNode {
    /// The number its data directory got when it was made.
    pub identity: String,
    /// The id it has; `None` for one that never joined.
    #[serde(default)]
    pub known_as: Option<NodeId>,
    /// Where other nodes reach it, `host:port`.
    pub addr: String,
    /// What people call it.
    pub name: String,
    /// What fails together with it.
    pub zone: String,
    /// What it does.
    pub roles: NodeRoles,
}

/// A change of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeChange {
    /// Another address.
    Address(String),
    /// Whether it gets and keeps vnodes.
    State(NodeState),
}

/// A user to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewUser {
    /// Its name.
    pub name: String,
    /// Its SCRAM verifier.
    pub verifier: Option<String>,
    /// Whether it may do everything.
    pub admin: bool,
    /// What people say of it.
    pub comment: String,
    /// Whether it may do nothing before it has another password.
    #[serde(default)]
    pub must_change_password: bool,
    /// Its public key, in PEM.
    #[serde(default)]
    pub rsa_public_key: Option<String>,
}

/// A change of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TenantChange {
    /// Other options; what is `None` stays.
    Options {
        /// What people say of it.
        comment: Option<String>,
        /// How long it is kept once it is dropped, nanoseconds.
        drop_after_ns: Option<i64>,
        /// Whether it is not kept any more.
        unset_drop_after: bool,
        /// What it may have at most.
        limits: Option<ObjectLimits>,
        /// Set beside those there are; an empty map takes all away.
        #[serde(default)]
        rates: Option<Rates>,
    },
    /// Another comment.
    Comment(String),
    /// A new member; an old one gets the role.
    AddMember(UserId, Role),
    /// One member less.
    RemoveMember(UserId),
    /// One role more, and what it inherits.
    AddRole(String, SystemRole),
    /// One role less; nobody may have it.
    DropRole(String),
    /// What a role may do.
    Grant(String, GrantChange),
}

/// A change of what a role may do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantChange {
    /// With what.
    pub object: GrantObject,
    /// What is granted, or taken.
    pub level: Level,
    /// Whether it is taken.
    pub revoke: bool,
}

/// A change of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserChange {
    /// Another name.
    Rename(String),
    /// Another verifier.
    Verifier(Option<String>),
    /// Admin or not.
    Admin(bool),
    /// Another comment.
    Comment(String),
    /// Whether it may do nothing before it has another password.
    MustChangePassword(bool),
    /// Another public key, in PEM, or none.
    RsaPublicKey(Option<String>),
}

/// A change of a database's options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DatabaseChange {
    /// Another life time of rows.
    Ttl(model::time::Span),
    /// Another number of shards in new buckets.
    Shards(u32),
    /// Another length of new buckets.
    VnodeDuration(i64),
    /// Another number of replicas in new buckets.
    Replicas(u32),
    /// Whether rows may make no tables and columns.
    StrictWrite(bool),
    /// Other bytes of memory from which on vnodes are flushed.
    MaxMemcache(u64),
    /// Other bytes of the log that vnodes may hold back.
    WalMaxFile(u64),
    /// Another placement policy, of new vnodes, or none.
    Placement(Option<PolicyId>),
}

/// A column to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewColumn {
    /// Its name.
    pub name: String,
    /// Tag or field.
    pub kind: ColumnKind,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// Which encodings its pages may have.
    #[serde(default)]
    pub codec: Codec,
    /// What shapes its texts are.
    #[serde(default)]
    pub shape: Option<Shape>,
}

/// A change of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlterTable {
    /// One column more.
    Add(NewColumn),
    /// One field less.
    Drop(String),
    /// Another name of a column.
    RenameColumn {
        /// From.
        from: String,
        /// To.
        to: String,
    },
    /// Another name of the table.
    Rename(String),
    /// Another codec of a column, for what is written from now on.
    Codec {
        /// The column.
        column: String,
        /// Its codec.
        codec: Codec,
    },
}

/// What a command answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// A number that was handed out.
    Session(u64),
    /// The bucket that holds the time asked for.
    Bucket(BucketId),
    /// A node that was taken in.
    Node(NodeId),
    /// A vnode that was added.
    Vnode(VnodeId),
}

impl Command {
    /// Returns whether a second application does no harm, so that an unknown outcome may be repeated.
    pub(crate) fn is_repeatable(&self) -> bool {
        matches!(
            self,
            Self::Bootstrap { .. }
                | Self::NewSession
                | Self::CreateBucket { .. }
                | Self::DropBucket { .. }
                | Self::BeginEnd { .. }
                | Self::EndBucket { .. }
                | Self::RegisterNode(_)
                | Self::AlterNode { .. }
                | Self::VnodeJoined { .. }
                | Self::LeaveVnode { .. }
                | Self::RebuildVnode { .. }
                | Self::GiveUpVnode { .. }
                | Self::AlterPolicy { .. }
                | Self::PreferVnode { .. }
                | Self::RemoveVnode { .. }
                | Self::DropHiddenTenant { .. }
                | Self::DropHiddenDatabase { .. }
        )
    }
}

// FORMAT: docs/formats/meta.md, v1
pub(crate) fn encode(command: &Command) -> Result<Bytes> {
    let mut bytes = vec![VERSION];
    let json = serde_json::to_vec(command).map_err(|error| Error::Corrupt(error.to_string()))?;
    bytes.extend_from_slice(&json);
    Ok(bytes.into())
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Command> {
    match bytes.split_first() {
        Some((&VERSION, json)) => {
            serde_json::from_slice(json).map_err(|error| Error::Corrupt(error.to_string()))
        }
        other => {
            let version = other.map(|(version, _)| *version);
            Err(Error::Corrupt(format!(
                "command version {version:?}; this program reads {VERSION}"
            )))
        }
    }
}
