//! Who may do what: the only place that decides. Front ends and statements ask, none compares roles.
//!
//! An administrator may do everything. In a tenant an owner may do everything, a member may enter and see
//! what there is; a role of the tenant may do what it inherits and what was granted to it.

use meta::{Catalog, CustomRole, GrantObject, Level, Role, SystemRole, Tenant, User};
use model::{DatabaseId, TableId, TenantId, UserId};

use crate::error::{Error, Result};

/// Who asks, and in which tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) user: UserId,
    pub(crate) tenant: TenantId,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To change users, tenants and nodes.
    Administer,
    /// To change members and roles of the tenant, and to make databases.
    Govern,
    /// To change an object itself.
    Define(Object),
    /// To write rows.
    Write(Object),
    /// To read rows.
    Read(Object),
    /// To see what there is in the tenant.
    See,
}

/// A database, or a table of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) database: DatabaseId,
    pub(crate) table: Option<TableId>,
}

impl Object {
    pub(crate) fn database(database: DatabaseId) -> Self {
        Self { database, table: None }
    }

    pub(crate) fn table(database: DatabaseId, table: TableId) -> Self {
        Self { database, table: Some(table) }
    }
}

/// Refuses what the identity may not do. The catalog is the newest, so that a change reaches open
/// sessions with their next statement.
pub(crate) fn check(catalog: &Catalog, who: Identity, need: Need) -> Result<()> {
    let Some(user) = catalog.user_by_id(who.user) else {
        return Err(Error::new("28000", "the user of this session was dropped"));
    };
    let hidden = catalog.tenant_by_id(who.tenant).is_some_and(|tenant| tenant.drop_at.is_some());
    if hidden && need != Need::Administer {
        return Err(Error::new("3D000", "the tenant of this session was dropped"));
    }
    if user.admin {
        return Ok(());
    }
    let tenant = catalog.tenant_by_id(who.tenant).filter(|tenant| tenant.drop_at.is_none());
    let role = tenant.and_then(|tenant| Some((tenant, tenant.members.get(&who.user)?)));
    let allowed = match (role, need) {
        (_, Need::Administer) | (None, _) => false,
        (Some((_, Role::Owner)), _) | (Some(_), Need::See) => true,
        (Some((_, Role::Member)), _) => false,
        (Some((tenant, Role::Custom(name))), need) => role_may(tenant, name, need),
    };
    if allowed { Ok(()) } else { Err(denied(catalog, need)) }
}

fn role_may(tenant: &Tenant, name: &str, need: Need) -> bool {
    let Some(role) = tenant.roles.get(name) else { return false };
    role.inherits == SystemRole::Owner
        || match need {
            Need::Administer | Need::Govern => false,
            Need::See => true,
            Need::Define(object) => granted(role, object) >= Some(Level::All),
            Need::Write(object) => granted(role, object) >= Some(Level::Write),
            Need::Read(object) => granted(role, object) >= Some(Level::Read),
        }
}

/// Returns the most that was granted on an object, or on the database it is in.
fn granted(role: &CustomRole, object: Object) -> Option<Level> {
    let covers = |granted: GrantObject| match granted {
        GrantObject::Database(database) => database == object.database,
        GrantObject::Table(table) => Some(table) == object.table,
    };
    let grants = role.grants.iter().filter(|grant| covers(grant.object));
    grants.map(|grant| grant.level).max()
}

fn denied(catalog: &Catalog, need: Need) -> Error {
    let name = |object: Object| match object.table.and_then(|id| catalog.table_by_id(id)) {
        Some(table) => format!("table \"{}\"", table.name),
        None => match catalog.database_by_id(object.database) {
            Some(database) => format!("database \"{}\"", database.name),
            None => "this object".to_owned(),
        },
    };
    let message = match need {
        Need::Administer => "permission denied to administer users, tenants and nodes".to_owned(),
        Need::Govern => "permission denied to change this tenant".to_owned(),
        Need::See => "permission denied to see this tenant".to_owned(),
        Need::Define(object) | Need::Write(object) | Need::Read(object) => {
            format!("permission denied for {}", name(object))
        }
    };
    let hint = match need {
        Need::Define(_) => Some("this takes ALL on it"),
        Need::Write(_) => Some("this takes WRITE on it"),
        Need::Read(_) => Some("this takes READ on it"),
        _ => None,
    };
    let error = Error::new("42501", message);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Returns whether a user may enter a tenant at all.
pub(crate) fn may_enter(user: &User, tenant: &Tenant) -> bool {
    user.admin || tenant.members.contains_key(&user.id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::sql::{Definition, Statement, parse};

    /// Names each kind of statement: a new one does not compile without its name.
    fn kind(statement: &Statement) -> &'static str {
        match statement {
            Statement::Query(_) => "query",
            Statement::Insert(_) => "insert",
            Statement::Delete(_) => "delete",
            Statement::Update(_) => "update",
            Statement::Truncate(_) => "truncate",
            Statement::Compact(_) => "compact",
            Statement::Kill(_) => "kill",
            Statement::CreateTemporary(_) => "create temp table",
            Statement::CreateTableAs(_) => "create table as",
            Statement::Nodes(_) => "nodes",
            Statement::Copy(_) => "copy",
            Statement::CopyInto(_) => "copy into",
            Statement::Definition(definition) => defined(definition),
            Statement::Show(_) => "show",
            Statement::Set(..) => "set",
            Statement::SetLocal(..) => "set local",
            Statement::ResetAll => "reset",
            Statement::Begin(..) => "begin",
            Statement::Commit => "commit",
            Statement::Rollback => "rollback",
            Statement::Savepoint(_) => "savepoint",
            Statement::Prepare(..) => "prepare",
            Statement::Execute(..) => "execute",
            Statement::Deallocate(_) => "deallocate",
            Statement::Declare(..) => "declare",
            Statement::Fetch(..) => "fetch",
            Statement::Close(_) => "close",
            Statement::DiscardAll => "discard all",
            Statement::Discard(_) => "discard",
        }
    }

    fn defined(definition: &Definition) -> &'static str {
        match definition {
            Definition::CreateTenant { .. } => "create tenant",
            Definition::AlterTenant { .. } => "alter tenant",
            Definition::DropTenant { .. } => "drop tenant",
            Definition::RecoverTenant { .. } => "recover tenant",
            Definition::CreateUser { .. } => "create user",
            Definition::AlterUser { .. } => "alter user",
            Definition::DropUser { .. } => "drop user",
            Definition::CreateRole { .. } => "create role",
            Definition::DropRole { .. } => "drop role",
            Definition::Grant(_) => "grant",
            Definition::Membership(_) => "membership",
            Definition::CreateDatabase { .. } => "create database",
            Definition::AlterDatabase { .. } => "alter database",
            Definition::DropDatabase { .. } => "drop database",
            Definition::RecoverDatabase { .. } => "recover database",
            Definition::CreateExternal(_) => "create external table",
            Definition::CreateView { .. } => "create view",
            Definition::DropView { .. } => "drop view",
            Definition::CreateTable { .. } => "create table",
            Definition::AlterTable { .. } => "alter table",
            Definition::DropTable { .. } => "drop table",
        }
    }

    /// As many as the two functions above name.
    const KINDS: usize = 49;

    #[test]
    fn every_kind_of_statement_has_a_row_in_the_table_of_privileges() {
        let table = include_str!("../../tests/data/access.txt");
        let mut found = BTreeSet::new();
        for row in table.lines().filter(|line| !line.starts_with('#')) {
            let (outcomes, sql) = row.split_once('\t').unwrap();
            assert_eq!(outcomes.len(), 7, "{row}");
            let statements = parse(&sql.replace("{u}", "x")).unwrap();
            found.extend(statements.iter().map(kind));
        }
        assert_eq!(found.len(), KINDS, "{found:?}");
    }
}
