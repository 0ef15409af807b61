//! What concerns databases: their options, and the limits a tenant has on them.

use model::time::Span;
use model::{DatabaseId, ErrorKind, TenantId, TimeRange};

use crate::catalog::{
    Catalog, Database, DatabaseOptions, Entity, GrantObject, Key, Precision, Tenant,
};
use crate::command::{Command, DatabaseChange};
use crate::error::{Error, Result};
use crate::limits::ObjectLimits;

use super::policies::policy_of;
use super::roles::forget_object;
use super::tenants::tenant_of;
use super::views::drop_views;
use super::{Changes, FIRST_DATABASE, MINUTE_NS, check_free, check_limit, check_name};

/// The most shards of a bucket.
const SHARDS_MAX: u32 = 1_024;

/// Names of schemas that are ours.
const SYSTEM_DATABASES: [&str; 5] =
    ["information_schema", "pg_catalog", "pg_temp", "usage_schema", "cluster_schema"];

/// Makes, changes and drops databases; other commands change nothing.
pub(super) fn define_database(
    catalog: &Catalog,
    command: Command,
    changes: &mut Changes,
) -> Result<()> {
    match command {
        Command::CreateDatabase { tenant, name, options } => {
            check_name("database", &name)?;
            check_options(&options)?;
            let tenant = tenant_of(catalog, tenant)?;
            if SYSTEM_DATABASES.contains(&name.as_str()) {
                return Err(Error::exists("database", &name));
            }
            let named = catalog.named_database(tenant.id, &name);
            check_free("database", &name, named.map(|one| one.drop_at))?;
            let count = catalog.named_databases(tenant.id).count();
            check_limit("max_databases", tenant.limits.databases, count + 1)?;
            check_limits(tenant, &options, None)?;
            options.placement.map(|policy| policy_of(catalog, policy)).transpose()?;
            new_database(tenant.id, name, options, changes);
        }
        Command::AlterDatabase { database, change } => {
            alter_database(catalog, database, &change, changes)?;
        }
        Command::DropDatabase { database } => {
            drop_database(catalog, database, changes)?;
            forget_object(catalog, GrantObject::Database(database), changes);
        }
        Command::HideDatabase { database, drop_at } => {
            let mut database = droppable_database(catalog, database)?.clone();
            database.drop_at = Some(drop_at);
            changes.put(Entity::Database(database));
        }
        Command::DropHiddenDatabase { database, drop_at } => {
            let found = catalog.database_by_id(database);
            if found.is_some_and(|found| found.drop_at == Some(drop_at)) {
                drop_database(catalog, database, changes)?;
                forget_object(catalog, GrantObject::Database(database), changes);
            }
        }
        Command::RecoverDatabase { database } => {
            let mut database = database_of(catalog, database)?.clone();
            database.drop_at = None;
            changes.put(Entity::Database(database));
        }
        _ => {}
    }
    Ok(())
}

const DAY_NS: i64 = 86_400 * 1_000_000_000;

/// Refuses options that a tenant's limits do not allow; of a change only what it changes is looked at.
fn check_limits(
    tenant: &Tenant,
    options: &DatabaseOptions,
    before: Option<&DatabaseOptions>,
) -> Result<()> {
    let limits = &tenant.limits;
    if before.is_none_or(|before| before.shards != options.shards) {
        check_limit("max_shard_number", limits.shards, options.shards as usize)?;
    }
    if before.is_none_or(|before| before.replicas != options.replicas) {
        check_limit("max_replicate_number", limits.replicas, options.replicas as usize)?;
    }
    if before.is_some_and(|before| before.ttl == options.ttl) {
        return Ok(());
    }
    let days = match options.ttl {
        Span::Infinite => usize::MAX,
        // A part of a day is one more.
        Span::Ns(ttl) => usize::try_from((ttl - 1).div_euclid(DAY_NS) + 1).unwrap_or(0),
    };
    check_limit("max_retention_time", limits.retention_days, days)
}

/// Returns the options of a database made without any, as far as a tenant's limits let them be.
pub(super) fn options_within(limits: &ObjectLimits) -> DatabaseOptions {
    let mut options = default_options();
    if let Some(days) = limits.retention_days {
        options.ttl = Span::Ns(i64::from(days).saturating_mul(DAY_NS));
        options.vnode_duration_ns = (i64::from(days) / 12).max(1).saturating_mul(DAY_NS);
    }
    options
}

/// Returns the options of a database created without any.
pub(crate) fn default_options() -> DatabaseOptions {
    DatabaseOptions {
        ttl: Span::Infinite,
        shards: 1,
        vnode_duration_ns: 365 * 86_400 * 1_000_000_000,
        replicas: 1,
        precision: Precision::Ns,
        strict_write: false,
        max_memcache_bytes: None,
        memcache_partitions: None,
        wal_max_file_bytes: None,
        max_cache_readers: None,
        placement: None,
    }
}

fn check_options(options: &DatabaseOptions) -> Result<()> {
    let refuse = |message: &str| Err(Error::refused(ErrorKind::InvalidInput, message));
    if options.shards == 0 || options.shards > SHARDS_MAX {
        return refuse("SHARD must be between 1 and 1024");
    }
    if options.vnode_duration_ns < MINUTE_NS {
        return refuse("VNODE_DURATION must be at least a minute");
    }
    if options.replicas == 0 {
        return refuse("REPLICA must be at least 1");
    }
    Ok(())
}

pub(super) fn new_database(
    tenant: TenantId,
    name: String,
    options: DatabaseOptions,
    changes: &mut Changes,
) {
    changes.counters.database += 1;
    let id = DatabaseId(changes.counters.database);
    let bucket_minute = (i64::MIN, 0);
    let database = Database { id, tenant, name, options, bucket_minute, drop_at: None };
    changes.put(Entity::Database(database));
}

pub(super) fn database_of(catalog: &Catalog, id: DatabaseId) -> Result<&Database> {
    let database = catalog.database_by_id(id);
    database.map(AsRef::as_ref).ok_or_else(|| Error::not_found("database", &id.to_string()))
}

fn alter_database(
    catalog: &Catalog,
    id: DatabaseId,
    change: &DatabaseChange,
    changes: &mut Changes,
) -> Result<()> {
    let mut database = database_of(catalog, id)?.clone();
    let options = &mut database.options;
    match change {
        DatabaseChange::Ttl(ttl) => options.ttl = *ttl,
        DatabaseChange::Shards(shards) => options.shards = *shards,
        DatabaseChange::VnodeDuration(ns) => options.vnode_duration_ns = *ns,
        DatabaseChange::Replicas(replicas) => options.replicas = *replicas,
        DatabaseChange::StrictWrite(strict) => options.strict_write = *strict,
        DatabaseChange::MaxMemcache(bytes) => options.max_memcache_bytes = Some(*bytes),
        DatabaseChange::WalMaxFile(bytes) => options.wal_max_file_bytes = Some(*bytes),
        DatabaseChange::Placement(policy) => options.placement = *policy,
    }
    check_options(options)?;
    let before = database_of(catalog, id)?.options;
    check_limits(tenant_of(catalog, database.tenant)?, &database.options, Some(&before))?;
    changes.put(Entity::Database(database));
    Ok(())
}

fn droppable_database(catalog: &Catalog, id: DatabaseId) -> Result<&Database> {
    let database = database_of(catalog, id)?;
    if database.name == FIRST_DATABASE {
        let message = format!("database \"{FIRST_DATABASE}\" cannot be dropped");
        return Err(Error::refused(ErrorKind::Conflict, message));
    }
    Ok(database)
}

fn drop_database(catalog: &Catalog, id: DatabaseId, changes: &mut Changes) -> Result<()> {
    remove_database(catalog, droppable_database(catalog, id)?, changes);
    Ok(())
}

pub(super) fn remove_database(catalog: &Catalog, database: &Database, changes: &mut Changes) {
    for table in catalog.tables(database.id) {
        changes.delete(Key::Table(table.id));
    }
    drop_views(catalog, database.id, changes);
    for bucket in catalog.buckets(database.id, TimeRange::ALL) {
        changes.delete(Key::Bucket(bucket.id));
    }
    changes.delete(Key::Database(database.id));
}
