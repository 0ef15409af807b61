//! The catalog as the statements that make it: SHOW DDL.
//!
//! Run in their order, in the tenants that `\change_tenant` names, they make tenants, users, roles, databases,
//! tables and views as they are here. Passwords are told as their verifiers.

use std::fmt::Write;
use std::str::FromStr;

use datafusion::arrow::datatypes::DataType;
use meta::{Catalog, Database, GrantObject, PlacementPolicy, Tenant, User, View};
use model::time::Span;
use model::{Codec, Column, ColumnKind, TableSchema};

use crate::access::Need;
use crate::error::{Error, Result};
use crate::files::{ExternalParts, external_parts};
use crate::session::Session;
use crate::temporary::sql_type_of;

impl Session {
    /// Returns the statements that make some tenants, or all, and the users of the installation.
    pub(crate) fn ddl_lines(&self, tenants: &[String]) -> Result<Vec<Vec<String>>> {
        self.check(Need::Administer)?;
        let catalog = self.database().catalog();
        if let Some(unknown) = tenants.iter().find(|name| catalog.tenant(name).is_none()) {
            return Err(Error::new("3D000", format!("tenant \"{unknown}\" does not exist")));
        }
        let mut lines: Vec<String> = catalog.users().map(|user| user_line(user)).collect();
        lines.extend(catalog.policies().map(|policy| policy_line(policy)));
        let wanted = |tenant: &&Tenant| tenants.is_empty() || tenants.contains(&tenant.name);
        let all: Vec<&Tenant> = catalog.tenants().map(AsRef::as_ref).collect();
        let all = all.into_iter().filter(|tenant| tenant.drop_at.is_none());
        for tenant in all.filter(wanted) {
            tenant_lines(&catalog, tenant, &mut lines);
        }
        Ok(lines.into_iter().map(|line| vec![line]).collect())
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Writes a span in the one unit that says it exactly: months and years are read as others than they are told.
fn exact(span: Span) -> String {
    let Span::Ns(ns) = span else { return "INF".to_owned() };
    let units = [
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
    ];
    let whole = units.into_iter().find(|(_, length)| ns % length == 0);
    let (unit, length) = whole.unwrap_or(("ns", 1));
    format!("{}{unit}", ns / length)
}

fn user_line(user: &User) -> String {
    let mut line = format!("CREATE USER IF NOT EXISTS {} WITH", quoted(&user.name));
    if let Some(verifier) = &user.verifier {
        put(&mut line, format_args!(" hash_password = {},", literal(verifier)));
    }
    if let Some(key) = &user.rsa_public_key {
        put(&mut line, format_args!(" rsa_public_key = {},", literal(key)));
    }
    put(&mut line, format_args!(" granted_admin = {},", user.admin));
    put(&mut line, format_args!(" must_change_password = {},", user.must_change_password));
    put(&mut line, format_args!(" comment = {}", literal(&user.comment)));
    line
}

fn policy_line(policy: &PlacementPolicy) -> String {
    let (name, terms) = (quoted(&policy.name), &policy.terms);
    let mut line =
        format!("CREATE PLACEMENT POLICY IF NOT EXISTS {name} WITH rule {}", terms.rule.sql());
    for (option, names) in [("dc", &terms.data_centers), ("rack", &terms.racks)] {
        if !names.is_empty() {
            put(&mut line, format_args!(" {option} {}", literal(&names.join(","))));
        }
    }
    line
}

/// Writes to a text, which cannot fail.
fn put(line: &mut String, what: std::fmt::Arguments<'_>) {
    line.write_fmt(what).expect("a text takes what is written");
}

fn tenant_lines(catalog: &Catalog, tenant: &Tenant, lines: &mut Vec<String>) {
    let name = quoted(&tenant.name);
    let mut options = vec![format!("comment = {}", literal(&tenant.comment))];
    if let Some(ns) = tenant.drop_after_ns {
        options.push(format!("drop_after = {}", literal(&exact(Span::Ns(ns)))));
    }
    let limits = tenant.limits.named().into_iter();
    let limits = limits.filter_map(|(name, most)| Some(format!("{name} = {}", most?)));
    let limits: Vec<String> = limits.collect();
    if !limits.is_empty() {
        options.push(format!("object_config {}", limits.join(" ")));
    }
    for (group, rate) in &tenant.rates {
        let parts = rate.named().map(|(name, value)| format!("{name} = {value}"));
        options.push(format!("{} {}", group.name(), parts.join(" ")));
    }
    lines.push(format!("CREATE TENANT IF NOT EXISTS {name}"));
    lines.push(format!("ALTER TENANT {name} SET {}", options.join(", ")));
    lines.push(format!("\\change_tenant {}", tenant.name));
    for (role, custom) in &tenant.roles {
        let inherits = custom.inherits.name();
        lines.push(format!("CREATE ROLE IF NOT EXISTS {} INHERIT {inherits}", quoted(role)));
    }
    for database in catalog.databases(tenant.id) {
        database_lines(catalog, database, lines);
    }
    // Behind all they may read: in the order they were made.
    let mut views: Vec<&View> = catalog
        .databases(tenant.id)
        .flat_map(|database| catalog.views(database.id))
        .map(AsRef::as_ref)
        .collect();
    views.sort_by_key(|view| view.id);
    lines.extend(views.into_iter().filter_map(|view| view_line(catalog, view)));
    for (role, custom) in &tenant.roles {
        let grants = custom.grants.iter().filter_map(|grant| {
            let object = object_name(catalog, grant.object)?;
            Some(format!("GRANT {} ON {object} TO ROLE {}", grant.level.sql(), quoted(role)))
        });
        lines.extend(grants);
    }
    for (user, role) in &tenant.members {
        if let Some(user) = catalog.user_by_id(*user) {
            let (user, role) = (quoted(&user.name), quoted(role.name()));
            lines.push(format!("ALTER TENANT {name} ADD USER {user} AS {role}"));
        }
    }
}

fn object_name(catalog: &Catalog, object: GrantObject) -> Option<String> {
    Some(match object {
        GrantObject::Database(id) => {
            format!("DATABASE {}", quoted(&catalog.database_by_id(id)?.name))
        }
        GrantObject::Table(id) => {
            let table = catalog.table_by_id(id)?;
            let database = catalog.database_by_id(table.database)?;
            format!("TABLE {}.{}", quoted(&database.name), quoted(&table.name))
        }
    })
}

fn database_lines(catalog: &Catalog, database: &Database, lines: &mut Vec<String>) {
    let (name, options) = (quoted(&database.name), &database.options);
    let duration = exact(Span::Ns(options.vnode_duration_ns));
    let mut created = format!(
        "CREATE DATABASE IF NOT EXISTS {name} WITH TTL {} SHARD {} VNODE_DURATION {} REPLICA {} \
         PRECISION '{}' STRICT_WRITE '{}'",
        literal(&exact(options.ttl)),
        options.shards,
        literal(&duration),
        options.replicas,
        options.precision.sql(),
        options.strict_write,
    );
    if let Some(bytes) = options.max_memcache_bytes {
        put(&mut created, format_args!(" MAX_MEMCACHE_SIZE '{bytes}'"));
    }
    if let Some(count) = options.memcache_partitions {
        put(&mut created, format_args!(" MEMCACHE_PARTITIONS {count}"));
    }
    if let Some(bytes) = options.wal_max_file_bytes {
        put(&mut created, format_args!(" WAL_MAX_FILE_SIZE '{bytes}'"));
    }
    if let Some(count) = options.max_cache_readers {
        put(&mut created, format_args!(" MAX_CACHE_READERS {count}"));
    }
    if let Some(policy) = options.placement.and_then(|id| catalog.policy_by_id(id)) {
        put(&mut created, format_args!(" PLACEMENT_POLICY {}", quoted(&policy.name)));
    }
    lines.push(created);
    if database.name == meta::FIRST_DATABASE {
        // It came with its tenant.
        let changes = [
            format!("TTL {}", literal(&exact(options.ttl))),
            format!("SHARD {}", options.shards),
            format!("VNODE_DURATION {}", literal(&duration)),
            format!("REPLICA {}", options.replicas),
            format!("STRICT_WRITE '{}'", options.strict_write),
        ];
        lines.extend(changes.map(|change| format!("ALTER DATABASE {name} SET {change}")));
    }
    for table in catalog.tables(database.id) {
        table_lines(&name, table, lines);
    }
}

/// A table is made with its columns up to where their order is not tags before fields; others are added.
fn table_lines(database: &str, table: &TableSchema, lines: &mut Vec<String>) {
    let name = format!("{database}.{}", quoted(&table.name));
    let mut columns = table.columns.iter().filter(|one| one.kind != ColumnKind::Time).peekable();
    let (mut tags, mut fields) = (Vec::new(), Vec::new());
    while let Some(tag) = columns.next_if(|one| one.kind == ColumnKind::Tag) {
        tags.push(tag);
    }
    while let Some(field) = columns.next_if(|one| one.kind != ColumnKind::Tag) {
        fields.push(field_text(field));
    }
    let named: Vec<String> = tags.iter().map(|tag| quoted(&tag.name)).collect();
    let mut parts = Vec::new();
    if tags.iter().any(|tag| tag.not_null) {
        let of = |tag: &&Column| {
            let not_null = if tag.not_null { " NOT NULL" } else { "" };
            format!("{} STRING{not_null}", quoted(&tag.name))
        };
        parts.extend(tags.iter().map(of));
        parts.extend(fields);
        parts.push(format!("PRIMARY KEY (time, {})", named.join(", ")));
    } else {
        parts.extend(fields);
        if !named.is_empty() {
            parts.push(format!("TAGS({})", named.join(", ")));
        }
    }
    lines.push(format!("CREATE TABLE IF NOT EXISTS {name} ({})", parts.join(", ")));
    for column in columns {
        let added = match column.kind {
            ColumnKind::Tag => format!("TAG IF NOT EXISTS {}", quoted(&column.name)),
            _ => format!("FIELD IF NOT EXISTS {}", field_text(column)),
        };
        lines.push(format!("ALTER TABLE {name} ADD {added}"));
    }
}

fn field_text(column: &Column) -> String {
    let codec = match column.codec {
        Codec::Default => String::new(),
        codec => format!(" CODEC({codec})"),
    };
    format!("{} {}{codec}", quoted(&column.name), column.sql())
}

fn view_line(catalog: &Catalog, view: &View) -> Option<String> {
    let database = catalog.database_by_id(view.database)?;
    let name = format!("{}.{}", quoted(&database.name), quoted(&view.name));
    if view.external {
        return external_line(&name, view);
    }
    let columns: Vec<String> = view.columns.iter().map(|(name, _)| quoted(name)).collect();
    let columns = columns.join(", ");
    Some(format!("CREATE OR REPLACE VIEW {name} ({columns}) AS {}", view.definition))
}

fn external_line(name: &str, view: &View) -> Option<String> {
    let ExternalParts { url, format, partitions, options } = external_parts(view).ok()?;
    let option = |wanted: &str| {
        format.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
    };
    let columns = view.columns.iter().map(|(column, of)| {
        let of = DataType::from_str(of).ok().and_then(|of| sql_type_of(&of));
        of.map(|of| format!("{} {of}", quoted(column)))
    });
    let mut line = format!("CREATE EXTERNAL TABLE IF NOT EXISTS {name}");
    // Columns of types that SQL cannot name are found in the files again.
    if let Some(columns) = columns.collect::<Option<Vec<_>>>() {
        put(&mut line, format_args!(" ({})", columns.join(", ")));
    }
    put(&mut line, format_args!(" STORED AS {}", option("type")?.to_uppercase()));
    if option("with_header").as_deref() == Some("true") {
        line.push_str(" WITH HEADER ROW");
    }
    if let Some(delimiter) = option("delimiter") {
        put(&mut line, format_args!(" DELIMITER {}", literal(&delimiter)));
    }
    if let Some(compression) = option("file_compression_type") {
        put(&mut line, format_args!(" COMPRESSION TYPE {compression}"));
    }
    if !partitions.is_empty() {
        let partitions: Vec<String> = partitions.iter().map(|name| quoted(name)).collect();
        put(&mut line, format_args!(" PARTITIONED BY ({})", partitions.join(", ")));
    }
    if !options.is_empty() {
        let options: Vec<String> = options
            .iter()
            .map(|(name, value)| format!("{} {}", literal(name), literal(value)))
            .collect();
        put(&mut line, format_args!(" OPTIONS ({})", options.join(", ")));
    }
    put(&mut line, format_args!(" LOCATION {}", literal(&url)));
    Some(line)
}
