//! The whole catalog, in memory. A reader holds an immutable snapshot of it.

mod nodes;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::time::Span;
use model::{
    BucketId, DatabaseId, NodeId, PolicyId, ReplicaSetId, TableId, TableSchema, TenantId,
    TimeRange, UserId, VnodeId,
};
use serde::{Deserialize, Serialize};

use crate::limits::{ObjectLimits, Rates};
pub use nodes::{Node, NodeRoles, NodeState, PlacementPolicy, PlacementRule, PlacementTerms};

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name, unique.
    pub name: String,
    /// What people say of it.
    pub comment: String,
    /// Who may enter, and as what.
    pub members: BTreeMap<UserId, Role>,
    /// Its own roles, by name.
    #[serde(default)]
    pub roles: BTreeMap<String, CustomRole>,
    /// How long a dropped tenant is kept where DROP says nothing, nanoseconds.
    #[serde(default)]
    pub drop_after_ns: Option<i64>,
    /// What it may have at most.
    #[serde(default)]
    pub limits: ObjectLimits,
    /// How much it may ask for in a time, by what is counted.
    #[serde(default)]
    pub rates: Rates,
    /// Dropped: nobody enters it, and what it holds goes at this time, nanoseconds since the epoch.
    #[serde(default)]
    pub drop_at: Option<i64>,
}

/// What a member of a tenant may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Everything in the tenant.
    Owner,
    /// Enter, and see what there is.
    Member,
    /// What the tenant's role of that name may.
    Custom(String),
}

/// A role every tenant has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemRole {
    /// Everything in the tenant.
    Owner,
    /// Enter, and see what there is.
    Member,
}

impl SystemRole {
    /// Returns the name SQL gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Member => "member",
        }
    }
}

impl Role {
    /// Returns the name SQL gives it.
    pub fn name(&self) -> &str {
        match self {
            Self::Owner => SystemRole::Owner.name(),
            Self::Member => SystemRole::Member.name(),
            Self::Custom(name) => name,
        }
    }
}

/// A role of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomRole {
    /// What it may do at least.
    pub inherits: SystemRole,
    /// What it may do beyond, one for each object.
    pub grants: Vec<Grant>,
}

/// What a role may do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// With what.
    pub object: GrantObject,
    /// What.
    pub level: Level,
}

/// What is granted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantObject {
    /// A database with all its tables.
    Database(DatabaseId),
    /// A table.
    Table(TableId),
}

/// What may be done with an object; each level is one more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Read rows.
    Read,
    /// Write and delete rows.
    Write,
    /// Change the object itself.
    All,
}

impl Level {
    /// Returns the word SQL has for it.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::All => "ALL",
        }
    }
}

/// A user of the whole installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its name, unique.
    pub name: String,
    /// SCRAM-SHA-256 verifier in PostgreSQL's form; `None`: cannot log in by password.
    pub verifier: Option<String>,
    /// Whether it may do everything everywhere.
    pub admin: bool,
    /// What people say of it.
    pub comment: String,
    /// Whether it may do nothing before it has another password.
    #[serde(default)]
    pub must_change_password: bool,
    /// The public key of the key pair it may log in by, in PEM.
    #[serde(default)]
    pub rsa_public_key: Option<String>,
}

/// The unit that integer times of INSERT are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl Precision {
    /// Returns nanoseconds per unit.
    pub fn ns(self) -> i64 {
        match self {
            Self::Ms => 1_000_000,
            Self::Us => 1_000,
            Self::Ns => 1,
        }
    }

    /// Returns the name SQL gives it.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Ms => "MS",
            Self::Us => "US",
            Self::Ns => "NS",
        }
    }
}

/// Options of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseOptions {
    /// How long rows live.
    pub ttl: Span,
    /// Hash shards per bucket.
    pub shards: u32,
    /// Length of a bucket, nanoseconds.
    pub vnode_duration_ns: i64,
    /// Replicas of each row.
    pub replicas: u32,
    /// Unit of integer times.
    pub precision: Precision,
    /// Whether rows of line protocol and the like may make no tables and columns.
    #[serde(default)]
    pub strict_write: bool,
    /// Bytes of memory of a vnode from which on it is flushed; `None`: what the node's configuration says.
    #[serde(default)]
    pub max_memcache_bytes: Option<u64>,
    /// Files that a flush of a vnode writes at once, each of other series; `None`: one.
    #[serde(default)]
    pub memcache_partitions: Option<u32>,
    /// Bytes of the log that a vnode may hold back: with more it is flushed.
    #[serde(default)]
    pub wal_max_file_bytes: Option<u64>,
    /// Files of a vnode that are kept open; `None`: all.
    #[serde(default)]
    pub max_cache_readers: Option<u32>,
    /// On which nodes replicas may be; `None`: on any, spread over zones.
    #[serde(default)]
    pub placement: Option<PolicyId>,
}

/// A database of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its id.
    pub id: DatabaseId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Its name, unique in the tenant.
    pub name: String,
    /// Its options.
    pub options: DatabaseOptions,
    /// Log time at which a minute of bucket creation began, and buckets created in it.
    pub bucket_minute: (i64, u32),
    /// Dropped: it has no name any more, and goes at this time, nanoseconds since the epoch.
    #[serde(default)]
    pub drop_at: Option<i64>,
}

/// A table, with its schema.
pub type Table = TableSchema;

/// A query, or files, that read as a table does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Its id, out of those of tables.
    pub id: TableId,
    /// Its database.
    pub database: DatabaseId,
    /// Its name, which no table and no other view of the database has.
    pub name: String,
    /// Names and Arrow types of its columns.
    pub columns: Vec<(String, String)>,
    /// The query; tables are named with their databases. Where it is external: which files, as JSON.
    pub definition: String,
    /// Whether it is no query, but files that are read as a table is.
    #[serde(default)]
    pub external: bool,
}

/// A time slice of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its id.
    pub id: BucketId,
    /// Its database.
    pub database: DatabaseId,
    /// The times whose rows it holds.
    pub times: TimeRange,
    /// One replica set per shard, in order of shard.
    pub replica_sets: Vec<ReplicaSet>,
    /// The last time it shall hold, where it is being ended before its time: its replica sets refuse later
    /// rows, or soon will.
    #[serde(default)]
    pub ending: Option<i64>,
}

/// The vnodes that hold the same rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSet {
    /// Its id.
    pub id: ReplicaSetId,
    /// Its members.
    pub vnodes: Vec<VnodePlace>,
}

/// A vnode and the node it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VnodePlace {
    /// The vnode.
    pub id: VnodeId,
    /// The node.
    pub node: NodeId,
    /// How it came to be in its replica set.
    #[serde(default)]
    pub state: VnodeState,
    /// The vnode that leaves once this one has joined.
    #[serde(default)]
    pub replaces: Option<VnodeId>,
}

/// How a vnode came to be in its replica set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VnodeState {
    /// The replica set began with it.
    #[default]
    Founder,
    /// It was added and is being filled; it does not count yet.
    Joining,
    /// It was added and counts.
    Joined,
    /// It counts, and goes once another has joined in its stead.
    Leaving,
    /// It counts, and goes; then another takes its place on its node.
    Rebuilding,
}

impl VnodeState {
    /// Returns whether the vnode holds its replica set's rows and goes on to.
    pub fn stays(self) -> bool {
        matches!(self, Self::Founder | Self::Joined)
    }

    /// Returns whether the vnode holds its replica set's rows.
    pub fn counts(self) -> bool {
        self != Self::Joining
    }

    /// Returns whether the vnode is on its way out.
    pub fn leaves(self) -> bool {
        matches!(self, Self::Leaving | Self::Rebuilding)
    }

    /// Returns the word people read.
    pub fn name(self) -> &'static str {
        match self {
            Self::Founder | Self::Joined => "joined",
            Self::Joining => "joining",
            Self::Leaving => "leaving",
            Self::Rebuilding => "rebuilding",
        }
    }
}

/// Ids handed out so far, of each kind; the next is one higher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    pub(crate) tenant: u32,
    pub(crate) user: u32,
    pub(crate) database: u32,
    pub(crate) table: u32,
    pub(crate) bucket: u32,
    pub(crate) replica_set: u32,
    pub(crate) vnode: u64,
    pub(crate) session: u64,
    #[serde(default)]
    pub(crate) node: u64,
    /// How often the catalog was changed.
    #[serde(default)]
    pub(crate) version: u64,
    /// Tells this cluster from others: of the identity of the node that began it; 0 before that.
    #[serde(default)]
    pub(crate) cluster: u64,
    #[serde(default)]
    pub(crate) policy: u32,
}

impl Counters {
    /// Returns the counters with so many ids of each kind left out, but for the cluster, which stays itself.
    pub(crate) fn raised(self, by: u32) -> Self {
        let (one, other) =
            (|id: u32| id.saturating_add(by), |id: u64| id.saturating_add(by.into()));
        Self {
            tenant: one(self.tenant),
            user: one(self.user),
            database: one(self.database),
            table: one(self.table),
            bucket: one(self.bucket),
            replica_set: one(self.replica_set),
            vnode: other(self.vnode),
            session: other(self.session),
            node: other(self.node),
            version: other(self.version),
            cluster: self.cluster,
            policy: one(self.policy),
        }
    }
}

/// One stored row of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entity {
    Tenant(Tenant),
    User(User),
    Database(Database),
    Table(Table),
    Bucket(Bucket),
    Counters(Counters),
    Node(Node),
    View(View),
    Policy(PlacementPolicy),
}

/// The key of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Counters,
    Tenant(TenantId),
    User(UserId),
    Database(DatabaseId),
    Table(TableId),
    Bucket(BucketId),
    Node(NodeId),
    View(TableId),
    Policy(PolicyId),
}

/// A change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put(Box<Entity>),
    Delete(Key),
}

/// Everything there is, at one version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    pub(crate) counters: Counters,
    tenants: BTreeMap<TenantId, Arc<Tenant>>,
    users: BTreeMap<UserId, Arc<User>>,
    databases: BTreeMap<DatabaseId, Arc<Database>>,
    tables: BTreeMap<TableId, Arc<Table>>,
    buckets: BTreeMap<BucketId, Arc<Bucket>>,
    nodes: BTreeMap<NodeId, Arc<Node>>,
    views: BTreeMap<TableId, Arc<View>>,
    policies: BTreeMap<PolicyId, Arc<PlacementPolicy>>,
    database_names: BTreeMap<(TenantId, String), DatabaseId>,
    table_names: BTreeMap<(DatabaseId, String), TableId>,
    /// Buckets of a database by their last instant, so that the one of a time is found by a search.
    bucket_ends: BTreeMap<(DatabaseId, i64), BucketId>,
    vnode_buckets: BTreeMap<VnodeId, BucketId>,
    set_buckets: BTreeMap<ReplicaSetId, BucketId>,
}

impl Catalog {
    /// Returns how often the catalog was changed: the same number means the same catalog.
    pub fn version(&self) -> u64 {
        self.counters.version
    }

    /// Returns the number that tells this cluster from others; 0 where it has not begun.
    pub fn cluster(&self) -> u64 {
        self.counters.cluster
    }

    /// Returns a tenant by name.
    pub fn tenant(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.named_tenant(name).filter(|tenant| tenant.drop_at.is_none())
    }

    /// Returns a tenant by name, also one that waits to be dropped.
    pub fn named_tenant(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.tenants.values().find(|tenant| tenant.name == name)
    }

    /// Returns a tenant by id.
    pub fn tenant_by_id(&self, id: TenantId) -> Option<&Arc<Tenant>> {
        self.tenants.get(&id)
    }

    /// Returns all tenants, also those that wait to be dropped.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.values()
    }

    /// Returns a user by name.
    pub fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.values().find(|user| user.name == name)
    }

    /// Returns a user by id.
    pub fn user_by_id(&self, id: UserId) -> Option<&Arc<User>> {
        self.users.get(&id)
    }

    /// Returns all users.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values()
    }

    /// Returns a database of a tenant by name.
    pub fn database(&self, tenant: TenantId, name: &str) -> Option<&Arc<Database>> {
        self.named_database(tenant, name).filter(|database| database.drop_at.is_none())
    }

    /// Returns a database of a tenant by name, also one that waits to be dropped.
    pub fn named_database(&self, tenant: TenantId, name: &str) -> Option<&Arc<Database>> {
        let id = self.database_names.get(&(tenant, name.to_owned()))?;
        self.databases.get(id)
    }

    /// Returns a database by id.
    pub fn database_by_id(&self, id: DatabaseId) -> Option<&Arc<Database>> {
        self.databases.get(&id)
    }

    /// Returns the databases of a tenant, by name.
    pub fn databases(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<Database>> {
        self.named_databases(tenant).filter(|database| database.drop_at.is_none())
    }

    /// Returns the databases of a tenant, also those that wait to be dropped.
    pub fn named_databases(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<Database>> {
        let names = self.database_names.range((tenant, String::new())..);
        let names = names.take_while(move |((of, _), _)| *of == tenant);
        names.filter_map(|(_, id)| self.databases.get(id))
    }

    /// Returns the databases of all tenants.
    pub fn all_databases(&self) -> impl Iterator<Item = &Arc<Database>> {
        self.databases.values()
    }

    /// Returns a table of a database by name.
    pub fn table(&self, database: DatabaseId, name: &str) -> Option<&Arc<Table>> {
        let id = self.table_names.get(&(database, name.to_owned()))?;
        self.tables.get(id)
    }

    /// Returns a table by id.
    pub fn table_by_id(&self, id: TableId) -> Option<&Arc<Table>> {
        self.tables.get(&id)
    }

    /// Returns whether a table was there and is no more. One that this catalog is too old to know was
    /// not dropped.
    pub fn table_was_dropped(&self, id: TableId) -> bool {
        id.0 <= self.counters.table && !self.tables.contains_key(&id)
    }

    /// Returns the tables of a database, by name.
    pub fn tables(&self, database: DatabaseId) -> impl Iterator<Item = &Arc<Table>> {
        let names = self.table_names.range((database, String::new())..);
        let names = names.take_while(move |((of, _), _)| *of == database);
        names.filter_map(|(_, id)| self.tables.get(id))
    }

    /// Returns a view of a database by name.
    pub fn view(&self, database: DatabaseId, name: &str) -> Option<&Arc<View>> {
        self.views(database).find(|view| view.name == name)
    }

    /// Returns the views of a database.
    pub fn views(&self, database: DatabaseId) -> impl Iterator<Item = &Arc<View>> {
        self.views.values().filter(move |view| view.database == database)
    }

    /// Returns a bucket by its id.
    pub fn bucket(&self, id: BucketId) -> Option<&Arc<Bucket>> {
        self.buckets.get(&id)
    }

    /// Returns the bucket that holds a time, if it was made.
    pub fn bucket_of(&self, database: DatabaseId, time: i64) -> Option<&Arc<Bucket>> {
        let ((of, _), id) = self.bucket_ends.range((database, time)..).next()?;
        let bucket = self.buckets.get(id)?;
        (*of == database && bucket.times.contains(time)).then_some(bucket)
    }

    /// Returns the buckets of a database that share an instant with `times`, in order of time.
    pub fn buckets(&self, database: DatabaseId, times: TimeRange) -> Vec<Arc<Bucket>> {
        let from = self.bucket_ends.range((database, times.min)..);
        let buckets = from.take_while(|((of, _), _)| *of == database);
        let buckets = buckets.filter_map(|(_, id)| self.buckets.get(id));
        buckets.take_while(|bucket| bucket.times.overlaps(&times)).map(Arc::clone).collect()
    }

    /// Returns the buckets of all databases.
    pub fn all_buckets(&self) -> impl Iterator<Item = &Arc<Bucket>> {
        self.buckets.values()
    }

    /// Returns a replica set and its bucket.
    pub fn replica_set(&self, id: ReplicaSetId) -> Option<(&Arc<Bucket>, &ReplicaSet)> {
        let bucket = self.buckets.get(self.set_buckets.get(&id)?)?;
        bucket.replica_sets.iter().find(|set| set.id == id).map(|set| (bucket, set))
    }

    /// Returns the replica sets of all databases, each with its bucket.
    pub fn replica_sets(&self) -> impl Iterator<Item = (&Arc<Bucket>, &ReplicaSet)> {
        self.buckets
            .values()
            .flat_map(|bucket| bucket.replica_sets.iter().map(move |set| (bucket, set)))
    }

    /// Returns how many vnodes each node holds; nodes that hold none are left out.
    pub fn vnodes_by_node(&self) -> BTreeMap<NodeId, usize> {
        let mut counts = BTreeMap::new();
        for place in self.replica_sets().flat_map(|(_, set)| &set.vnodes) {
            *counts.entry(place.node).or_default() += 1;
        }
        counts
    }

    /// Returns the replica set a vnode is in, and its bucket.
    pub fn replica_set_of(&self, vnode: VnodeId) -> Option<(&Arc<Bucket>, &ReplicaSet)> {
        let bucket = self.buckets.get(self.vnode_buckets.get(&vnode)?)?;
        let mut sets = bucket.replica_sets.iter();
        let found = sets.find(|set| set.vnodes.iter().any(|place| place.id == vnode))?;
        Some((bucket, found))
    }

    /// Returns all nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Returns a node by id.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// Returns all placement policies, by id.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<PlacementPolicy>> {
        self.policies.values()
    }

    /// Returns a placement policy by name.
    pub fn policy(&self, name: &str) -> Option<&Arc<PlacementPolicy>> {
        self.policies.values().find(|policy| policy.name == name)
    }

    /// Returns a placement policy by id.
    pub fn policy_by_id(&self, id: PolicyId) -> Option<&Arc<PlacementPolicy>> {
        self.policies.get(&id)
    }

    /// Returns the placement policy of a database, where it has one.
    pub fn policy_of(&self, database: DatabaseId) -> Option<&Arc<PlacementPolicy>> {
        self.policies.get(&self.database_by_id(database)?.options.placement?)
    }

    /// Makes a change, in memory only.
    pub(crate) fn absorb(&mut self, change: &Change) {
        match change {
            Change::Put(entity) => self.put((**entity).clone()),
            Change::Delete(key) => self.delete(*key),
        }
    }

    pub(crate) fn put(&mut self, entity: Entity) {
        self.delete(entity.key());
        match entity {
            Entity::Counters(counters) => self.counters = counters,
            Entity::Tenant(tenant) => {
                self.tenants.insert(tenant.id, Arc::new(tenant));
            }
            Entity::User(user) => {
                self.users.insert(user.id, Arc::new(user));
            }
            Entity::Database(database) => {
                self.database_names.insert((database.tenant, database.name.clone()), database.id);
                self.databases.insert(database.id, Arc::new(database));
            }
            Entity::Table(table) => {
                self.table_names.insert((table.database, table.name.clone()), table.id);
                self.tables.insert(table.id, Arc::new(table));
            }
            Entity::Bucket(bucket) => {
                self.bucket_ends.insert((bucket.database, bucket.times.max), bucket.id);
                let vnodes = bucket.replica_sets.iter().flat_map(|set| &set.vnodes);
                self.vnode_buckets.extend(vnodes.map(|place| (place.id, bucket.id)));
                let sets = bucket.replica_sets.iter().map(|set| (set.id, bucket.id));
                self.set_buckets.extend(sets);
                self.buckets.insert(bucket.id, Arc::new(bucket));
            }
            Entity::Node(node) => {
                self.nodes.insert(node.id, Arc::new(node));
            }
            Entity::View(view) => {
                self.views.insert(view.id, Arc::new(view));
            }
            Entity::Policy(policy) => {
                self.policies.insert(policy.id, Arc::new(policy));
            }
        }
    }

    fn delete(&mut self, key: Key) {
        match key {
            Key::Counters => {}
            Key::Tenant(id) => drop(self.tenants.remove(&id)),
            Key::User(id) => drop(self.users.remove(&id)),
            Key::Database(id) => {
                if let Some(old) = self.databases.remove(&id) {
                    self.database_names.remove(&(old.tenant, old.name.clone()));
                }
            }
            Key::Table(id) => {
                if let Some(old) = self.tables.remove(&id) {
                    self.table_names.remove(&(old.database, old.name.clone()));
                }
            }
            Key::Bucket(id) => {
                if let Some(old) = self.buckets.remove(&id) {
                    self.bucket_ends.remove(&(old.database, old.times.max));
                    for set in &old.replica_sets {
                        self.set_buckets.remove(&set.id);
                        for place in &set.vnodes {
                            self.vnode_buckets.remove(&place.id);
                        }
                    }
                }
            }
            Key::Node(id) => drop(self.nodes.remove(&id)),
            Key::View(id) => drop(self.views.remove(&id)),
            Key::Policy(id) => drop(self.policies.remove(&id)),
        }
    }
}

impl Change {
    /// Returns the row it changes.
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Put(entity) => entity.key(),
            Self::Delete(key) => *key,
        }
    }
}

impl Entity {
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Counters(_) => Key::Counters,
            Self::Tenant(tenant) => Key::Tenant(tenant.id),
            Self::User(user) => Key::User(user.id),
            Self::Database(database) => Key::Database(database.id),
            Self::Table(table) => Key::Table(table.id),
            Self::Bucket(bucket) => Key::Bucket(bucket.id),
            Self::Node(node) => Key::Node(node.id),
            Self::View(view) => Key::View(view.id),
            Self::Policy(policy) => Key::Policy(policy.id),
        }
    }
}

impl Key {
    /// Returns the bytes the row is stored under: kind, then id, big-endian.
    // FORMAT: docs/formats/meta.md, v1
    pub(crate) fn bytes(self) -> Vec<u8> {
        let (kind, id) = match self {
            Self::Counters => (0, 0),
            Self::Tenant(id) => (1, id.0),
            Self::User(id) => (2, id.0),
            Self::Database(id) => (3, id.0),
            Self::Table(id) => (4, id.0),
            Self::Bucket(id) => (5, id.0),
            Self::Node(id) => (6, u32::try_from(id.0).unwrap_or(u32::MAX)),
            Self::View(id) => (7, id.0),
            Self::Policy(id) => (8, id.0),
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&u32::to_be_bytes(id));
        bytes
    }

    /// Reads what [`Self::bytes`] wrote.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, id) = bytes.split_first()?;
        let id = u32::from_be_bytes(id.try_into().ok()?);
        Some(match kind {
            0 => Self::Counters,
            1 => Self::Tenant(TenantId(id)),
            2 => Self::User(UserId(id)),
            3 => Self::Database(DatabaseId(id)),
            4 => Self::Table(TableId(id)),
            5 => Self::Bucket(BucketId(id)),
            6 => Self::Node(NodeId(u64::from(id))),
            7 => Self::View(TableId(id)),
            8 => Self::Policy(PolicyId(id)),
            _ => return None,
        })
    }
}
