//! The pure state machine: what a command changes in the catalog, and what it answers.
//! `nodes` holds what concerns nodes and the vnodes on them, `roles` what members of a tenant may do.
//! Invariant: either all changes of a command are returned, or a refusal and none.

mod nodes;
mod roles;
mod views;

use std::collections::BTreeMap;

use model::placement::bucket_range;
use model::schema::{COLUMNS_MAX, NAME_BYTES_MAX, TAGS_MAX};
use model::time::Span;
use model::{
    BucketId, Codec, Column, ColumnId, ColumnKind, DatabaseId, ErrorKind, NodeId, ReplicaSetId,
    TableId, TableSchema, TenantId, TimeRange, UserId, VnodeId,
};

use crate::catalog::{
    Bucket, Catalog, Change, Counters, Database, DatabaseOptions, Entity, GrantObject, Key,
    ObjectLimits, Precision, ReplicaSet, Role, Tenant, User, VnodePlace, VnodeState,
};
use crate::command::{
    AlterTable, Command, DatabaseChange, NewColumn, NewUser, Reply, TenantChange, UserChange,
};
use crate::error::{Error, Result};
pub use nodes::cluster_number;
use nodes::{
    add_vnode, alter_node, leave_vnode, prefer_vnode, register_node, remove_node, remove_vnode,
    vnode_joined,
};
use roles::{change_roles, forget_object};
use views::{NewView, create_view, drop_views};

/// The tenant, database and user that every installation begins with.
pub const FIRST_TENANT: &str = "cnosdb";
const FIRST_DATABASE: &str = "public";
const FIRST_USER: &str = "root";

/// The most buckets of one database.
const BUCKETS_MAX: usize = 100_000;
/// The most buckets of one database made within a minute of log time.
const BUCKETS_PER_MINUTE_MAX: u32 = 200;
const MINUTE_NS: i64 = 60_000_000_000;
/// The most shards of a bucket.
const SHARDS_MAX: u32 = 1_024;

/// Names of schemas that are ours.
const SYSTEM_DATABASES: [&str; 4] =
    ["information_schema", "pg_catalog", "usage_schema", "cluster_schema"];

struct Changes {
    counters: Counters,
    list: Vec<Change>,
}

impl Changes {
    fn put(&mut self, entity: Entity) {
        self.list.push(Change::Put(Box::new(entity)));
    }

    fn delete(&mut self, key: Key) {
        self.list.push(Change::Delete(key));
    }
}

/// Returns what `command` does to `catalog`.
pub(crate) fn apply(catalog: &Catalog, command: Command) -> Result<(Vec<Change>, Reply)> {
    let mut changes = Changes { counters: catalog.counters, list: Vec::new() };
    let reply = dispatch(catalog, command, &mut changes)?;
    if changes.counters != catalog.counters {
        changes.put(Entity::Counters(changes.counters));
    }
    Ok((changes.list, reply))
}

fn dispatch(catalog: &Catalog, command: Command, changes: &mut Changes) -> Result<Reply> {
    match command {
        Command::Bootstrap { verifier } => bootstrap(catalog, verifier, changes)?,
        Command::NewSession => {
            changes.counters.session += 1;
            return Ok(Reply::Session(changes.counters.session));
        }
        Command::CreateTenant { .. }
        | Command::AlterTenant { .. }
        | Command::DropTenant { .. }
        | Command::HideTenant { .. }
        | Command::DropHiddenTenant { .. }
        | Command::RecoverTenant { .. } => define_tenant(catalog, command, changes)?,
        Command::CreateUser(user) => create_user(catalog, user, changes)?,
        Command::AlterUser { user, change } => alter_user(catalog, user, change, changes)?,
        Command::DropUser { user } => drop_user(catalog, user, changes)?,
        Command::CreateDatabase { .. }
        | Command::AlterDatabase { .. }
        | Command::DropDatabase { .. }
        | Command::HideDatabase { .. }
        | Command::DropHiddenDatabase { .. }
        | Command::RecoverDatabase { .. } => define_database(catalog, command, changes)?,
        Command::CreateTable { database, name, columns } => {
            create_table(catalog, database, name, &columns, changes)?;
        }
        Command::AlterTable { table, change } => alter_table(catalog, table, change, changes)?,
        Command::DropTable { table } => {
            let table = table_of(catalog, table)?;
            changes.delete(Key::Table(table.id));
            forget_object(catalog, GrantObject::Table(table.id), changes);
        }
        Command::CreateView { database, name, columns, definition, replace } => {
            let view = NewView { database, name, columns, definition };
            create_view(catalog, view, replace, changes)?;
        }
        Command::DropView { view } => changes.delete(Key::View(view)),
        Command::CreateBucket { database, time, nodes, now } => {
            return create_bucket(catalog, database, (time, now), &nodes, changes);
        }
        Command::DropBucket { bucket } => changes.delete(Key::Bucket(bucket)),
        Command::RegisterNode(node) => return register_node(catalog, node, changes),
        Command::AlterNode { node, change } => alter_node(catalog, node, change, changes)?,
        Command::RemoveNode { node } => remove_node(catalog, node, changes)?,
        Command::AddVnode { replica_set, node, replaces } => {
            return add_vnode(catalog, (replica_set, replaces), node, changes);
        }
        Command::VnodeJoined { vnode } => vnode_joined(catalog, vnode, changes)?,
        Command::LeaveVnode { vnode } => leave_vnode(catalog, vnode, changes)?,
        Command::PreferVnode { vnode } => prefer_vnode(catalog, vnode, changes)?,
        Command::RemoveVnode { vnode } => remove_vnode(catalog, vnode, changes)?,
    }
    Ok(Reply::Done)
}

/// Makes, changes and drops tenants; other commands change nothing.
fn define_tenant(catalog: &Catalog, command: Command, changes: &mut Changes) -> Result<()> {
    match command {
        Command::CreateTenant { name, comment, drop_after_ns, limits } => {
            check_name("tenant", &name)?;
            check_free("tenant", &name, catalog.named_tenant(&name).map(|one| one.drop_at))?;
            let tenant = new_tenant(name, comment, (drop_after_ns, limits), changes);
            let options = options_within(&limits);
            new_database(tenant, FIRST_DATABASE.to_owned(), options, changes);
        }
        Command::AlterTenant { tenant, change } => alter_tenant(catalog, tenant, change, changes)?,
        Command::DropTenant { tenant } => drop_tenant(catalog, tenant, changes)?,
        Command::HideTenant { tenant, drop_at } => {
            let mut tenant = droppable_tenant(catalog, tenant)?.clone();
            tenant.drop_at = Some(drop_at);
            changes.put(Entity::Tenant(tenant));
        }
        Command::DropHiddenTenant { tenant, drop_at } => {
            let found = catalog.tenant_by_id(tenant);
            if found.is_some_and(|found| found.drop_at == Some(drop_at)) {
                drop_tenant(catalog, tenant, changes)?;
            }
        }
        Command::RecoverTenant { tenant } => {
            let mut tenant = tenant_of(catalog, tenant)?.clone();
            tenant.drop_at = None;
            changes.put(Entity::Tenant(tenant));
        }
        _ => {}
    }
    Ok(())
}

/// Makes, changes and drops databases; other commands change nothing.
fn define_database(catalog: &Catalog, command: Command, changes: &mut Changes) -> Result<()> {
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

/// Refuses a name that something has, also what waits to be dropped.
fn check_free(what: &str, name: &str, taken: Option<Option<i64>>) -> Result<()> {
    match taken {
        None => Ok(()),
        Some(None) => Err(Error::exists(what, name)),
        Some(Some(_)) => {
            let message = format!(
                "{what} \"{name}\" waits to be dropped: RECOVER {} {name} brings it back",
                what.to_uppercase()
            );
            Err(Error::refused(ErrorKind::AlreadyExists, message))
        }
    }
}

fn check_limit(limit: &str, most: Option<u32>, wanted: usize) -> Result<()> {
    match most {
        Some(most) if wanted > most as usize => {
            let message = format!("the tenant's limit {limit} is {most}");
            Err(Error::refused(ErrorKind::LimitReached, message))
        }
        _ => Ok(()),
    }
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
fn options_within(limits: &ObjectLimits) -> DatabaseOptions {
    let mut options = default_options();
    if let Some(days) = limits.retention_days {
        options.ttl = Span::Ns(i64::from(days).saturating_mul(DAY_NS));
        options.vnode_duration_ns = (i64::from(days) / 12).max(1).saturating_mul(DAY_NS);
    }
    options
}

fn check_name(what: &str, name: &str) -> Result<()> {
    let wrong = if name.trim().is_empty() {
        "must not be blank"
    } else if name.contains('/') {
        "must not contain \"/\""
    } else if name.contains('\0') {
        "must not contain a zero byte"
    } else if name.len() > NAME_BYTES_MAX {
        "is too long"
    } else {
        return Ok(());
    };
    let message = format!("{what} name \"{name}\" {wrong}");
    Err(Error::refused(ErrorKind::InvalidInput, message))
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

fn bootstrap(catalog: &Catalog, verifier: Option<String>, changes: &mut Changes) -> Result<()> {
    if catalog.tenants().next().is_some() {
        return Ok(());
    }
    let tenant = new_tenant(
        FIRST_TENANT.to_owned(),
        "system tenant".to_owned(),
        (None, ObjectLimits::default()),
        changes,
    );
    new_database(tenant, FIRST_DATABASE.to_owned(), default_options(), changes);
    let comment = "system admin".to_owned();
    create_user(
        catalog,
        NewUser {
            name: FIRST_USER.to_owned(),
            verifier,
            admin: true,
            comment,
            must_change_password: false,
        },
        changes,
    )
}

fn new_tenant(
    name: String,
    comment: String,
    (drop_after_ns, limits): (Option<i64>, ObjectLimits),
    changes: &mut Changes,
) -> TenantId {
    changes.counters.tenant += 1;
    let id = TenantId(changes.counters.tenant);
    changes.put(Entity::Tenant(Tenant {
        id,
        name,
        comment,
        members: BTreeMap::new(),
        roles: BTreeMap::new(),
        drop_after_ns,
        limits,
        drop_at: None,
    }));
    id
}

fn tenant_of(catalog: &Catalog, id: TenantId) -> Result<&Tenant> {
    let tenant = catalog.tenant_by_id(id);
    tenant.map(AsRef::as_ref).ok_or_else(|| Error::not_found("tenant", &id.to_string()))
}

fn alter_tenant(
    catalog: &Catalog,
    id: TenantId,
    change: TenantChange,
    changes: &mut Changes,
) -> Result<()> {
    let mut tenant = tenant_of(catalog, id)?.clone();
    match change {
        TenantChange::Comment(comment) => tenant.comment = comment,
        TenantChange::Options { comment, drop_after_ns, unset_drop_after, limits } => {
            if tenant.name == FIRST_TENANT
                && limits.is_some_and(|one| one != ObjectLimits::default())
            {
                let message = format!("tenant \"{FIRST_TENANT}\" cannot be limited");
                return Err(Error::refused(ErrorKind::Conflict, message));
            }
            tenant.comment = comment.unwrap_or(tenant.comment);
            let before = tenant.drop_after_ns.filter(|_| !unset_drop_after);
            tenant.drop_after_ns = drop_after_ns.or(before);
            tenant.limits = limits.unwrap_or(tenant.limits);
        }
        TenantChange::AddMember(user, role) => {
            user_of(catalog, user)?;
            if let Role::Custom(name) = &role
                && !tenant.roles.contains_key(name)
            {
                return Err(Error::not_found("role", name));
            }
            if tenant.members.insert(user, role).is_none() {
                check_limit("max_users_number", tenant.limits.users, tenant.members.len())?;
            }
        }
        change @ (TenantChange::AddRole(..)
        | TenantChange::DropRole(_)
        | TenantChange::Grant(..)) => change_roles(&mut tenant, change)?,
        TenantChange::RemoveMember(user) => {
            if tenant.members.remove(&user).is_none() {
                let name = user_of(catalog, user)?.name.clone();
                return Err(Error::not_found("member", &name));
            }
        }
    }
    changes.put(Entity::Tenant(tenant));
    Ok(())
}

fn droppable_tenant(catalog: &Catalog, id: TenantId) -> Result<&Tenant> {
    let tenant = tenant_of(catalog, id)?;
    if tenant.name == FIRST_TENANT {
        let message = format!("tenant \"{FIRST_TENANT}\" cannot be dropped");
        return Err(Error::refused(ErrorKind::Conflict, message));
    }
    Ok(tenant)
}

fn drop_tenant(catalog: &Catalog, id: TenantId, changes: &mut Changes) -> Result<()> {
    droppable_tenant(catalog, id)?;
    for database in catalog.named_databases(id) {
        remove_database(catalog, database, changes);
    }
    changes.delete(Key::Tenant(id));
    Ok(())
}

fn create_user(catalog: &Catalog, user: NewUser, changes: &mut Changes) -> Result<()> {
    check_name("user", &user.name)?;
    if catalog.user(&user.name).is_some() {
        return Err(Error::exists("user", &user.name));
    }
    changes.counters.user += 1;
    let id = UserId(changes.counters.user);
    let NewUser { name, verifier, admin, comment, must_change_password } = user;
    let user = User { id, name, verifier, admin, comment, must_change_password };
    changes.put(Entity::User(user));
    Ok(())
}

fn user_of(catalog: &Catalog, id: UserId) -> Result<&User> {
    let user = catalog.user_by_id(id);
    user.map(AsRef::as_ref).ok_or_else(|| Error::not_found("user", &id.to_string()))
}

fn alter_user(
    catalog: &Catalog,
    id: UserId,
    change: UserChange,
    changes: &mut Changes,
) -> Result<()> {
    let mut user = user_of(catalog, id)?.clone();
    let is_first = user.name == FIRST_USER;
    match change {
        UserChange::Rename(name) => {
            check_name("user", &name)?;
            if catalog.user(&name).is_some() {
                return Err(Error::exists("user", &name));
            }
            if is_first {
                return Err(protected());
            }
            user.name = name;
        }
        UserChange::Verifier(verifier) => user.verifier = verifier,
        UserChange::Admin(_) if is_first => return Err(protected()),
        UserChange::Admin(admin) => user.admin = admin,
        UserChange::Comment(comment) => user.comment = comment,
        UserChange::MustChangePassword(must) => user.must_change_password = must,
    }
    changes.put(Entity::User(user));
    Ok(())
}

fn protected() -> Error {
    let message = format!("user \"{FIRST_USER}\" is protected");
    Error::refused(ErrorKind::Conflict, message)
}

fn drop_user(catalog: &Catalog, id: UserId, changes: &mut Changes) -> Result<()> {
    if user_of(catalog, id)?.name == FIRST_USER {
        return Err(protected());
    }
    for tenant in catalog.tenants().filter(|tenant| tenant.members.contains_key(&id)) {
        let mut tenant = Tenant::clone(tenant);
        tenant.members.remove(&id);
        changes.put(Entity::Tenant(tenant));
    }
    changes.delete(Key::User(id));
    Ok(())
}

fn new_database(tenant: TenantId, name: String, options: DatabaseOptions, changes: &mut Changes) {
    changes.counters.database += 1;
    let id = DatabaseId(changes.counters.database);
    let bucket_minute = (i64::MIN, 0);
    let database = Database { id, tenant, name, options, bucket_minute, drop_at: None };
    changes.put(Entity::Database(database));
}

fn database_of(catalog: &Catalog, id: DatabaseId) -> Result<&Database> {
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

fn remove_database(catalog: &Catalog, database: &Database, changes: &mut Changes) {
    for table in catalog.tables(database.id) {
        changes.delete(Key::Table(table.id));
    }
    drop_views(catalog, database.id, changes);
    for bucket in catalog.buckets(database.id, TimeRange::ALL) {
        changes.delete(Key::Bucket(bucket.id));
    }
    changes.delete(Key::Database(database.id));
}

fn create_table(
    catalog: &Catalog,
    database: DatabaseId,
    name: String,
    columns: &[NewColumn],
    changes: &mut Changes,
) -> Result<()> {
    check_name("table", &name)?;
    database_of(catalog, database)?;
    if catalog.table(database, &name).is_some() || catalog.view(database, &name).is_some() {
        return Err(Error::exists("table", &name));
    }
    changes.counters.table += 1;
    let time = Column {
        id: ColumnId::TIME,
        name: "time".to_owned(),
        kind: ColumnKind::Time,
        not_null: true,
        codec: Codec::Default,
    };
    let mut table = TableSchema {
        id: TableId(changes.counters.table),
        database,
        name,
        version: 1,
        next_column: 1,
        columns: vec![time],
    };
    columns.iter().try_for_each(|column| add_column(&mut table, column))?;
    if table.fields().next().is_none() {
        let message = format!("table \"{}\" needs at least one field", table.name);
        return Err(Error::refused(ErrorKind::InvalidInput, message));
    }
    changes.put(Entity::Table(table));
    Ok(())
}

fn add_column(table: &mut TableSchema, column: &NewColumn) -> Result<()> {
    check_name("column", &column.name)?;
    if table.column(&column.name).is_some() {
        let message = format!("column \"{}\" of \"{}\" already exists", column.name, table.name);
        return Err(Error::refused(ErrorKind::AlreadyExists, message));
    }
    let limit = |message: String| Err(Error::refused(ErrorKind::LimitReached, message));
    check_codec(&column.name, column.kind, column.codec)?;
    if table.columns.len() >= COLUMNS_MAX {
        return limit(format!("table \"{}\" has {COLUMNS_MAX} columns", table.name));
    }
    if column.kind == ColumnKind::Tag && table.tags().count() >= TAGS_MAX {
        return limit(format!("table \"{}\" has {TAGS_MAX} tags", table.name));
    }
    table.columns.push(Column {
        id: ColumnId(table.next_column),
        name: column.name.clone(),
        kind: column.kind,
        not_null: column.not_null,
        codec: column.codec,
    });
    table.next_column += 1;
    Ok(())
}

fn check_codec(name: &str, kind: ColumnKind, codec: Codec) -> Result<()> {
    if codec.fits(kind) {
        return Ok(());
    }
    let kind = match kind {
        ColumnKind::Time => "the time of a row".to_owned(),
        ColumnKind::Tag => "a tag".to_owned(),
        ColumnKind::Field(value_type) => format!("a field of type {}", value_type.sql()),
    };
    let message = format!("column \"{name}\": {kind} cannot have codec {codec}");
    Err(Error::refused(ErrorKind::InvalidInput, message))
}

fn table_of(catalog: &Catalog, id: TableId) -> Result<&TableSchema> {
    let table = catalog.table_by_id(id);
    table.map(AsRef::as_ref).ok_or_else(|| Error::not_found("table", &id.to_string()))
}

fn alter_table(
    catalog: &Catalog,
    id: TableId,
    change: AlterTable,
    changes: &mut Changes,
) -> Result<()> {
    let mut table = table_of(catalog, id)?.clone();
    match change {
        AlterTable::Add(column) => add_column(&mut table, &column)?,
        AlterTable::Drop(name) => drop_column(&mut table, &name)?,
        AlterTable::RenameColumn { from, to } => rename_column(&mut table, &from, to)?,
        AlterTable::Codec { column, codec } => {
            let known = table.columns.iter_mut().find(|known| known.name == column);
            let known = known.ok_or_else(|| Error::not_found("column", &column))?;
            check_codec(&column, known.kind, codec)?;
            known.codec = codec;
        }
        AlterTable::Rename(name) => {
            check_name("table", &name)?;
            if catalog.table(table.database, &name).is_some() {
                return Err(Error::exists("table", &name));
            }
            table.name = name;
        }
    }
    table.version += 1;
    changes.put(Entity::Table(table));
    Ok(())
}

fn no_column(table: &TableSchema, name: &str) -> Error {
    let message = format!("column \"{name}\" of table \"{}\" does not exist", table.name);
    Error::refused(ErrorKind::NotFound, message)
}

fn drop_column(table: &mut TableSchema, name: &str) -> Result<()> {
    let column = table.column(name).ok_or_else(|| no_column(table, name))?;
    let conflict = |message: String| Err(Error::refused(ErrorKind::Conflict, message));
    match column.kind {
        ColumnKind::Time => return conflict("column \"time\" cannot be dropped".to_owned()),
        ColumnKind::Tag => {
            return conflict(format!(
                "tag \"{name}\" cannot be dropped: rows that differ only in it would become one"
            ));
        }
        ColumnKind::Field(_) if table.fields().count() == 1 => {
            return conflict(format!("\"{name}\" is the last field of table \"{}\"", table.name));
        }
        ColumnKind::Field(_) => {}
    }
    table.columns.retain(|column| column.name != name);
    Ok(())
}

fn rename_column(table: &mut TableSchema, from: &str, to: String) -> Result<()> {
    check_name("column", &to)?;
    if table.column(&to).is_some() {
        let message = format!("column \"{to}\" of \"{}\" already exists", table.name);
        return Err(Error::refused(ErrorKind::AlreadyExists, message));
    }
    let missing = no_column(table, from);
    let column = table.columns.iter_mut().find(|column| column.name == from).ok_or(missing)?;
    if column.kind == ColumnKind::Time {
        let message = "column \"time\" cannot be renamed";
        return Err(Error::refused(ErrorKind::Conflict, message));
    }
    column.name = to;
    Ok(())
}

fn create_bucket(
    catalog: &Catalog,
    database: DatabaseId,
    (time, now): (i64, i64),
    nodes: &[NodeId],
    changes: &mut Changes,
) -> Result<Reply> {
    let mut database = database_of(catalog, database)?.clone();
    if let Some(bucket) = catalog.bucket_of(database.id, time) {
        return Ok(Reply::Bucket(bucket.id));
    }
    check_bucket_limits(catalog, &mut database, now)?;
    let replicas = database.options.replicas as usize;
    if nodes.len() < replicas {
        let message =
            format!("REPLICA {replicas} needs {replicas} data nodes, there are {}", nodes.len());
        return Err(Error::refused(ErrorKind::LimitReached, message));
    }
    let times = free_range(catalog, &database, time);
    changes.counters.bucket += 1;
    let id = BucketId(changes.counters.bucket);
    let replica_sets = (0..database.options.shards).map(|_| {
        changes.counters.replica_set += 1;
        // Another node begins each set, so that those who lead are spread.
        let first = changes.counters.replica_set as usize;
        let vnodes = (0..replicas).map(|replica| {
            changes.counters.vnode += 1;
            let node = nodes[(first + replica) % nodes.len()];
            VnodePlace { id: VnodeId(changes.counters.vnode), node, state: VnodeState::Founder }
        });
        ReplicaSet { id: ReplicaSetId(changes.counters.replica_set), vnodes: vnodes.collect() }
    });
    let replica_sets = replica_sets.collect();
    let bucket = Bucket { id, database: database.id, times, replica_sets };
    changes.put(Entity::Bucket(bucket));
    changes.put(Entity::Database(database));
    Ok(Reply::Bucket(id))
}

fn check_bucket_limits(catalog: &Catalog, database: &mut Database, now: i64) -> Result<()> {
    let limit = |message: String| Err(Error::refused(ErrorKind::LimitReached, message));
    let name = &database.name;
    if catalog.buckets(database.id, TimeRange::ALL).len() >= BUCKETS_MAX {
        return limit(format!("database \"{name}\" has {BUCKETS_MAX} buckets"));
    }
    let (start, count) = database.bucket_minute;
    if now.saturating_sub(start) >= MINUTE_NS || now < start {
        database.bucket_minute = (now, 1);
    } else if count < BUCKETS_PER_MINUTE_MAX {
        database.bucket_minute = (start, count + 1);
    } else {
        return limit(format!(
            "database \"{name}\" got {BUCKETS_PER_MINUTE_MAX} new buckets within a minute; \
             are the times of the rows right, or is VNODE_DURATION too short for them?"
        ));
    }
    Ok(())
}

/// Returns the slice of time around `time`, clipped to the buckets there are: after an ALTER of the
/// duration the grid is another one.
fn free_range(catalog: &Catalog, database: &Database, time: i64) -> TimeRange {
    let mut range = bucket_range(time, database.options.vnode_duration_ns);
    for bucket in catalog.buckets(database.id, range) {
        if bucket.times.max < time {
            range.min = range.min.max(bucket.times.max + 1);
        } else if bucket.times.min > time {
            range.max = range.max.min(bucket.times.min - 1);
        }
    }
    range
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TestCatalog(Catalog);

    impl TestCatalog {
        fn new() -> Self {
            let mut catalog = Self(Catalog::default());
            catalog.run(Command::Bootstrap { verifier: None }).unwrap();
            catalog
        }

        fn run(&mut self, command: Command) -> Result<Reply> {
            let (changes, reply) = apply(&self.0, command)?;
            changes.iter().for_each(|change| self.0.absorb(change));
            Ok(reply)
        }

        fn public(&self) -> DatabaseId {
            let tenant = self.0.tenant(FIRST_TENANT).unwrap().id;
            self.0.database(tenant, FIRST_DATABASE).unwrap().id
        }

        fn bucket(&mut self, time: i64, now: i64) -> Result<Reply> {
            let nodes = vec![NodeId(1)];
            self.run(Command::CreateBucket { database: self.public(), time, nodes, now })
        }
    }

    fn field(name: &str) -> NewColumn {
        let kind = ColumnKind::Field(model::ValueType::F64);
        NewColumn { name: name.to_owned(), kind, not_null: false, codec: Codec::Default }
    }

    #[test]
    fn a_dropped_and_recreated_table_has_another_id_and_columns_keep_theirs() {
        let mut catalog = TestCatalog::new();
        let database = catalog.public();
        let create = || Command::CreateTable {
            database,
            name: "t".to_owned(),
            columns: vec![field("a"), field("b")],
        };
        catalog.run(create()).unwrap();
        assert!(catalog.run(create()).is_err());
        let table = catalog.0.table(database, "t").unwrap().id;
        let alter = |change| Command::AlterTable { table, change };
        catalog.run(alter(AlterTable::Drop("a".to_owned()))).unwrap();
        assert!(catalog.run(alter(AlterTable::Drop("b".to_owned()))).is_err());
        catalog.run(alter(AlterTable::Add(field("a")))).unwrap();
        let schema = catalog.0.table_by_id(table).unwrap();
        assert_eq!(schema.column("a").unwrap().id, ColumnId(3));
        assert_eq!(schema.version, 3);
        catalog.run(Command::DropTable { table }).unwrap();
        catalog.run(create()).unwrap();
        assert!(catalog.0.table(database, "t").unwrap().id > table);
    }

    #[test]
    fn buckets_never_overlap_whatever_the_duration_becomes() {
        let mut catalog = TestCatalog::new();
        let database = catalog.public();
        let day = 86_400 * 1_000_000_000;
        for (step, duration) in [3, 2, 7, 1, 5].into_iter().enumerate() {
            let change = DatabaseChange::VnodeDuration(duration * day);
            catalog.run(Command::AlterDatabase { database, change }).unwrap();
            for at in 0..6_i64 {
                let time = (at * 37 + step as i64 * 11) % 100 * day;
                catalog.bucket(time, 0).unwrap();
                assert!(catalog.0.bucket_of(database, time).unwrap().times.contains(time));
            }
        }
        let buckets = catalog.0.buckets(database, TimeRange::ALL);
        assert!(buckets.windows(2).all(|pair| pair[0].times.max < pair[1].times.min));
    }

    #[test]
    fn wild_timestamps_cannot_make_buckets_without_end() {
        let mut catalog = TestCatalog::new();
        let year = 366 * 86_400 * 1_000_000_000;
        for at in 0..200 {
            catalog.bucket((at - 100) * year, 5).unwrap();
        }
        assert!(catalog.bucket(101 * year, 5).is_err());
        assert!(catalog.bucket(99 * year, 5).is_ok(), "one that is there is no new one");
        assert!(catalog.bucket(101 * year, 5 + MINUTE_NS).is_ok());
    }

    #[test]
    fn dropping_a_tenant_drops_all_it_holds() {
        let mut catalog = TestCatalog::new();
        let comment = String::new();
        catalog
            .run(Command::CreateTenant {
                name: "t".to_owned(),
                comment,
                drop_after_ns: None,
                limits: ObjectLimits::default(),
            })
            .unwrap();
        let tenant = catalog.0.tenant("t").unwrap().id;
        let database = catalog.0.database(tenant, "public").unwrap().id;
        let columns = vec![field("a")];
        catalog.run(Command::CreateTable { database, name: "x".to_owned(), columns }).unwrap();
        let table = catalog.0.table(database, "x").unwrap().id;
        catalog.run(Command::DropTenant { tenant }).unwrap();
        assert!(catalog.0.database_by_id(database).is_none());
        assert!(catalog.0.table_by_id(table).is_none());
        let first = catalog.0.tenant(FIRST_TENANT).unwrap().id;
        assert!(catalog.run(Command::DropTenant { tenant: first }).is_err());
    }
}
