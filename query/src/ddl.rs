//! Definitions: checks who asks, names what is meant, and lets the catalog decide.

use std::sync::Arc;

use meta::{
    AlterTable, Catalog, Command, DatabaseChange, DatabaseOptions, NewColumn, NewUser, Precision,
    TenantChange, User, UserChange,
};
use model::time::Span;
use model::{ColumnKind, UserId};

use crate::access::{Need, Object};
use crate::error::{Error, Result};
use crate::output::{Notice, Output};
use crate::roles::role_named;
use crate::scram::make_verifier;
use crate::session::Session;
use crate::sql::{
    AlterDatabaseOption, AlterTableAction, ColumnDefinition, Definition, NewColumnKind,
    TenantAction, UserAction, UserOptions,
};

const DAY_NS: i64 = 86_400 * 1_000_000_000;
const HOUR_NS: i64 = 3_600 * 1_000_000_000;

impl Session {
    /// Runs a definition.
    pub(crate) async fn define(&self, definition: &Definition) -> Result<Output> {
        use Definition as Def;
        match definition {
            Def::CreateTenant { .. } | Def::AlterTenant { .. } | Def::DropTenant { .. } => {
                self.define_tenant(definition).await
            }
            Def::CreateUser { .. } | Def::AlterUser { .. } | Def::DropUser { .. } => {
                self.define_user(definition).await
            }
            Def::CreateRole { name, if_not_exists, inherits } => {
                self.create_role(name, *if_not_exists, *inherits).await
            }
            Def::DropRole { name, .. } if self.has_role(name) => self.drop_role(name).await,
            Def::DropRole { name, if_exists } => {
                let (name, if_exists) = (name.clone(), *if_exists);
                self.define_user(&Def::DropUser { name, if_exists }).await
            }
            Def::CreateView { name, columns, replace, query } => {
                self.create_view((name, columns), *replace, query).await
            }
            Def::DropView { names, if_exists } => self.drop_views(names, *if_exists).await,
            Def::Grant(statement) => self.grant(statement).await,
            Def::Membership(membership) => self.change_membership(membership).await,
            Def::CreateDatabase { .. } | Def::AlterDatabase { .. } | Def::DropDatabase { .. } => {
                self.define_database(definition).await
            }
            Def::CreateTable { .. } | Def::AlterTable { .. } | Def::DropTable { .. } => {
                self.define_table(definition).await
            }
        }
    }

    async fn submit(&self, command: Command, tag: &'static str) -> Result<Output> {
        self.database().meta().submit(&command).await?;
        Ok(Output::Done(tag))
    }

    /// Does nothing, and says so.
    pub(crate) fn skip(&self, what: &str, name: &str, because: &str, tag: &'static str) -> Output {
        self.notice(Notice::plain(format!("{what} \"{name}\" {because}, skipping")));
        Output::Done(tag)
    }

    async fn define_tenant(&self, definition: &Definition) -> Result<Output> {
        let catalog = self.database().catalog();
        match definition {
            Definition::CreateTenant { name, if_not_exists, comment } => {
                self.check(Need::Administer)?;
                if *if_not_exists && catalog.tenant(name).is_some() {
                    return Ok(self.skip("tenant", name, "already exists", "CREATE TENANT"));
                }
                let (name, comment) = (name.clone(), comment.clone());
                self.submit(Command::CreateTenant { name, comment }, "CREATE TENANT").await
            }
            Definition::AlterTenant { name, action } => {
                let tenant =
                    catalog.tenant(name).filter(|tenant| tenant.id == self.identity().tenant);
                // An owner changes its own tenant, an administrator any.
                self.check(if tenant.is_some() { Need::Govern } else { Need::Administer })?;
                let tenant = catalog.tenant(name).ok_or_else(|| missing("tenant", name))?;
                let change = match action {
                    TenantAction::Comment(comment) => TenantChange::Comment(comment.clone()),
                    TenantAction::AddUser(user, role) => {
                        TenantChange::AddMember(self.user_id(user)?, role_named(tenant, role)?)
                    }
                    TenantAction::RemoveUser(user) => {
                        TenantChange::RemoveMember(self.user_id(user)?)
                    }
                };
                let tenant = tenant.id;
                self.submit(Command::AlterTenant { tenant, change }, "ALTER TENANT").await
            }
            Definition::DropTenant { name, if_exists } => {
                self.check(Need::Administer)?;
                match catalog.tenant(name) {
                    Some(tenant) => {
                        self.submit(Command::DropTenant { tenant: tenant.id }, "DROP TENANT").await
                    }
                    None if *if_exists => {
                        Ok(self.skip("tenant", name, "does not exist", "DROP TENANT"))
                    }
                    None => Err(missing("tenant", name)),
                }
            }
            _ => Err(Error::internal("a tenant was expected")),
        }
    }

    pub(crate) fn user_id(&self, name: &str) -> Result<UserId> {
        let catalog = self.database().catalog();
        catalog.user(name).map(|user| user.id).ok_or_else(|| missing("user", name))
    }

    async fn define_user(&self, definition: &Definition) -> Result<Output> {
        let catalog = self.database().catalog();
        match definition {
            Definition::CreateUser { name, if_not_exists, options } => {
                self.check(Need::Administer)?;
                if *if_not_exists && catalog.user(name).is_some() {
                    return Ok(self.skip("user", name, "already exists", "CREATE ROLE"));
                }
                let verifier = verifier_of(options)?;
                let user = NewUser {
                    name: name.clone(),
                    verifier,
                    admin: options.admin.unwrap_or(false),
                    comment: options.comment.clone().unwrap_or_default(),
                    must_change_password: options.must_change_password.unwrap_or(false),
                };
                self.submit(Command::CreateUser(user), "CREATE ROLE").await
            }
            Definition::AlterUser { name, action } => {
                let user = catalog.user(name).ok_or_else(|| missing("user", name));
                let own = user.as_ref().is_ok_and(|user| user.id == self.identity().user);
                // Everyone may change the own password, nothing else of the own.
                let only_password = matches!(action, UserAction::Set(options)
                    if options.admin.is_none()
                        && options.comment.is_none()
                        && options.must_change_password.is_none());
                if !(own && only_password) {
                    self.check(Need::Administer)?;
                }
                self.alter_user(user?, action).await
            }
            Definition::DropUser { name, if_exists } => {
                self.check(Need::Administer)?;
                match catalog.user(name) {
                    Some(user) => {
                        self.submit(Command::DropUser { user: user.id }, "DROP ROLE").await
                    }
                    None if *if_exists => {
                        Ok(self.skip("user", name, "does not exist", "DROP ROLE"))
                    }
                    None => Err(missing("user", name)),
                }
            }
            _ => Err(Error::internal("a user was expected")),
        }
    }

    async fn alter_user(&self, user: &Arc<User>, action: &UserAction) -> Result<Output> {
        let mut changes = Vec::new();
        match action {
            UserAction::Rename(name) => changes.push(UserChange::Rename(name.clone())),
            UserAction::Set(options) => {
                let verifier = verifier_of(options)?;
                let done = verifier.is_some() && user.must_change_password;
                changes.extend(verifier.map(|verifier| UserChange::Verifier(Some(verifier))));
                changes.extend(done.then_some(UserChange::MustChangePassword(false)));
                changes.extend(options.comment.clone().map(UserChange::Comment));
                changes.extend(options.admin.map(UserChange::Admin));
                changes.extend(options.must_change_password.map(UserChange::MustChangePassword));
            }
        }
        for change in changes {
            self.database().meta().submit(&Command::AlterUser { user: user.id, change }).await?;
        }
        Ok(Output::Done("ALTER ROLE"))
    }

    async fn define_database(&self, definition: &Definition) -> Result<Output> {
        let catalog = self.database().catalog();
        let tenant = self.identity().tenant;
        match definition {
            Definition::CreateDatabase { name, if_not_exists, options } => {
                self.check(Need::Govern)?;
                if *if_not_exists && catalog.database(tenant, name).is_some() {
                    return Ok(self.skip("database", name, "already exists", "CREATE DATABASE"));
                }
                let options = options_of(options)?;
                check_replicas(options.replicas, &catalog)?;
                let name = name.clone();
                self.submit(Command::CreateDatabase { tenant, name, options }, "CREATE DATABASE")
                    .await
            }
            Definition::AlterDatabase { name, option } => {
                let database = self.user_database(name)?.id;
                self.check(Need::Define(Object::database(database)))?;
                let change = match *option {
                    AlterDatabaseOption::Ttl(ttl) => DatabaseChange::Ttl(ttl),
                    AlterDatabaseOption::Shard(shards) => DatabaseChange::Shards(shards),
                    AlterDatabaseOption::VnodeDuration(ns) => DatabaseChange::VnodeDuration(ns),
                    AlterDatabaseOption::Replica(replicas) => {
                        check_replicas(replicas, &catalog)?;
                        DatabaseChange::Replicas(replicas)
                    }
                    AlterDatabaseOption::Precision(_) => {
                        return Err(Error::new(
                            "0A000",
                            "PRECISION is fixed when a database is created",
                        ));
                    }
                };
                self.submit(Command::AlterDatabase { database, change }, "ALTER DATABASE").await
            }
            Definition::DropDatabase { name, if_exists } => match self.user_database(name) {
                Ok(database) => {
                    let database = database.id;
                    self.check(Need::Define(Object::database(database)))?;
                    self.submit(Command::DropDatabase { database }, "DROP DATABASE").await
                }
                Err(_) if *if_exists => {
                    Ok(self.skip("database", name, "does not exist", "DROP DATABASE"))
                }
                Err(error) => Err(error),
            },
            _ => Err(Error::internal("a database was expected")),
        }
    }

    async fn define_table(&self, definition: &Definition) -> Result<Output> {
        match definition {
            Definition::CreateTable { name, if_not_exists, columns } => {
                let (database, table) = self.split_table(name)?;
                let database = self.user_database(&database)?.id;
                self.check(Need::Define(Object::database(database)))?;
                let exists = self.database().catalog().table(database, table).is_some();
                if *if_not_exists && exists {
                    return Ok(self.skip("relation", table, "already exists", "CREATE TABLE"));
                }
                columns.iter().for_each(|column| self.note_widening(column));
                let (name, columns) = (table.to_owned(), columns.iter().map(new_column).collect());
                self.submit(Command::CreateTable { database, name, columns }, "CREATE TABLE").await
            }
            Definition::AlterTable { name, action } => {
                let (database, table) = self.user_table(name)?;
                self.check(Need::Define(Object::table(database.id, table.id)))?;
                let change = match action {
                    AlterTableAction::Add(column) => {
                        self.note_widening(column);
                        AlterTable::Add(new_column(column))
                    }
                    AlterTableAction::DropColumn(name) => AlterTable::Drop(name.clone()),
                    AlterTableAction::RenameColumn(from, to) => {
                        AlterTable::RenameColumn { from: from.clone(), to: to.clone() }
                    }
                    AlterTableAction::Rename(name) => AlterTable::Rename(name.clone()),
                };
                self.submit(Command::AlterTable { table: table.id, change }, "ALTER TABLE").await
            }
            Definition::DropTable { names, if_exists } => {
                for name in names {
                    match self.user_table(name) {
                        Ok((database, table)) => {
                            self.check(Need::Define(Object::table(database.id, table.id)))?;
                            let dropped = Command::DropTable { table: table.id };
                            self.database().meta().submit(&dropped).await?;
                        }
                        Err(_) if *if_exists => {
                            drop(self.skip(
                                "table",
                                &name.join("."),
                                "does not exist",
                                "DROP TABLE",
                            ));
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(Output::Done("DROP TABLE"))
            }
            _ => Err(Error::internal("a table was expected")),
        }
    }

    fn note_widening(&self, column: &ColumnDefinition) {
        if let NewColumnKind::Field(value_type, true) = column.kind {
            let message = format!("column \"{}\" is held as {}", column.name, value_type.sql());
            self.notice(Notice::plain(message));
        }
    }
}

/// Returns the verifier of a new password, or the one that is given.
fn verifier_of(options: &UserOptions) -> Result<Option<String>> {
    match (&options.password, &options.verifier) {
        (Some(_), Some(_)) => Err(Error::syntax("password and hash_password exclude each other")),
        (Some(password), None) => make_verifier(password).map(Some),
        (None, Some(verifier)) => match crate::scram::Verifier::parse(verifier) {
            Some(_) => Ok(Some(verifier.clone())),
            None => Err(Error::new("22023", "hash_password is no SCRAM-SHA-256 verifier")),
        },
        (None, None) => Ok(None),
    }
}

fn missing(what: &str, name: &str) -> Error {
    let sqlstate = if what == "tenant" { "3D000" } else { "42704" };
    Error::new(sqlstate, format!("{what} \"{name}\" does not exist"))
}

fn new_column(column: &ColumnDefinition) -> NewColumn {
    let kind = match column.kind {
        NewColumnKind::Time => ColumnKind::Time,
        NewColumnKind::Tag => ColumnKind::Tag,
        NewColumnKind::Field(value_type, _) => ColumnKind::Field(value_type),
    };
    NewColumn { name: column.name.clone(), kind, not_null: column.not_null }
}

fn check_replicas(replicas: u32, catalog: &Catalog) -> Result<()> {
    let nodes = catalog.nodes().filter(|node| node.roles.data).count();
    if replicas as usize <= nodes {
        return Ok(());
    }
    let are = if nodes == 1 { "is" } else { "are" };
    let message = format!("REPLICA {replicas} needs {replicas} data nodes, there {are} {nodes}");
    Err(Error::new("53000", message))
}

/// Reads the options of CREATE DATABASE. Without VNODE_DURATION buckets are a year long, or a twelfth
/// of the TTL in whole days, at least an hour.
fn options_of(options: &[AlterDatabaseOption]) -> Result<DatabaseOptions> {
    let mut read = DatabaseOptions {
        ttl: Span::Infinite,
        shards: 1,
        vnode_duration_ns: 0,
        replicas: 1,
        precision: Precision::Ns,
    };
    for (at, option) in options.iter().enumerate() {
        let same = |other: &AlterDatabaseOption| {
            std::mem::discriminant(other) == std::mem::discriminant(option)
        };
        if options[..at].iter().any(same) {
            return Err(Error::syntax("conflicting or redundant options"));
        }
        match *option {
            AlterDatabaseOption::Ttl(ttl) => read.ttl = ttl,
            AlterDatabaseOption::Shard(shards) => read.shards = shards,
            AlterDatabaseOption::VnodeDuration(ns) => read.vnode_duration_ns = ns,
            AlterDatabaseOption::Replica(replicas) => read.replicas = replicas,
            AlterDatabaseOption::Precision(precision) => read.precision = precision,
        }
    }
    if read.vnode_duration_ns == 0 {
        read.vnode_duration_ns = match read.ttl {
            Span::Infinite => 365 * DAY_NS,
            Span::Ns(ttl) if ttl / 12 >= DAY_NS => ttl / 12 / DAY_NS * DAY_NS,
            Span::Ns(ttl) => (ttl / 12).max(HOUR_NS),
        };
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_the_ttl_where_nothing_is_said() {
        let duration =
            |ttl| options_of(&[AlterDatabaseOption::Ttl(ttl)]).unwrap().vnode_duration_ns;
        assert_eq!(duration(Span::Infinite), 365 * DAY_NS);
        assert_eq!(duration(Span::Ns(30 * DAY_NS)), 2 * DAY_NS);
        assert_eq!(duration(Span::Ns(DAY_NS)), 2 * HOUR_NS);
        assert_eq!(duration(Span::Ns(1)), HOUR_NS);
        let none = check_replicas(3, &Catalog::default());
        assert_eq!(none.unwrap_err().sqlstate, "53000");
    }
}
