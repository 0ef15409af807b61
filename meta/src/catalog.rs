//! The whole catalog, in memory. A reader holds an immutable snapshot of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::time::Span;
use model::{
    BucketId, DatabaseId, NodeId, ReplicaSetId, TableId, TableSchema, TenantId, TimeRange, UserId,
    VnodeId,
};
use serde::{Deserialize, Serialize};

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
}

/// What a member of a tenant may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Everything in the tenant.
    Owner,
    /// Enter, and see what there is.
    Member,
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
}

/// A table, with its schema.
pub type Table = TableSchema;

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
}

/// A change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put(Box<Entity>),
    Delete(Key),
}

/// Everything there is, at one version.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Grows with each change.
    pub version: u64,
    pub(crate) counters: Counters,
    tenants: BTreeMap<TenantId, Arc<Tenant>>,
    users: BTreeMap<UserId, Arc<User>>,
    databases: BTreeMap<DatabaseId, Arc<Database>>,
    tables: BTreeMap<TableId, Arc<Table>>,
    buckets: BTreeMap<BucketId, Arc<Bucket>>,
    database_names: BTreeMap<(TenantId, String), DatabaseId>,
    table_names: BTreeMap<(DatabaseId, String), TableId>,
    /// Buckets of a database by their last instant, so that the one of a time is found by a search.
    bucket_ends: BTreeMap<(DatabaseId, i64), BucketId>,
}

impl Catalog {
    /// Returns an empty catalog at a version.
    pub(crate) fn at_version(version: u64) -> Self {
        Self { version, ..Self::default() }
    }

    /// Returns a tenant by name.
    pub fn tenant(&self, name: &str) -> Option<&Arc<Tenant>> {
        self.tenants.values().find(|tenant| tenant.name == name)
    }

    /// Returns a tenant by id.
    pub fn tenant_by_id(&self, id: TenantId) -> Option<&Arc<Tenant>> {
        self.tenants.get(&id)
    }

    /// Returns all tenants.
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
        let id = self.database_names.get(&(tenant, name.to_owned()))?;
        self.databases.get(id)
    }

    /// Returns a database by id.
    pub fn database_by_id(&self, id: DatabaseId) -> Option<&Arc<Database>> {
        self.databases.get(&id)
    }

    /// Returns the databases of a tenant, by name.
    pub fn databases(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<Database>> {
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
                self.buckets.insert(bucket.id, Arc::new(bucket));
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
                }
            }
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
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&u32::to_be_bytes(id));
        bytes
    }
}
