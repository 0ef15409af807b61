//! Definitions: checks who asks, names what is meant, and lets the catalog decide.

mod databases;
mod tenants;

use std::sync::Arc;

use meta::{AlterTable, Command, NewColumn, NewUser, User, UserChange};
use model::{ColumnKind, UserId};

use crate::access::{Need, Object};
use crate::error::{Error, Result};
use crate::key_pairs::PublicKey;
use crate::output::{Notice, Output};
use crate::scram::make_verifier;
use crate::session::Session;
use crate::sql::{
    AlterTableAction, ColumnDefinition, Definition, NewColumnKind, UserAction, UserOptions,
};

impl Session {
    /// Runs a definition.
    pub(crate) async fn define(&self, definition: &Definition) -> Result<Output> {
        use Definition as Def;
        match definition {
            Def::CreateTenant { .. }
            | Def::AlterTenant { .. }
            | Def::DropTenant { .. }
            | Def::RecoverTenant { .. } => self.define_tenant(definition).await,
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
            Def::CreateExternal(new) => self.create_external(new).await,
            Def::CreateView { name, columns, replace, query } => {
                self.create_view((name, columns), *replace, query).await
            }
            Def::DropView { names, if_exists } => self.drop_views(names, *if_exists).await,
            Def::Grant(statement) => self.grant(statement).await,
            Def::Membership(membership) => self.change_membership(membership).await,
            Def::CreateDatabase { .. }
            | Def::AlterDatabase { .. }
            | Def::DropDatabase { .. }
            | Def::RecoverDatabase { .. } => self.define_database(definition).await,
            Def::CreateTable { .. } | Def::AlterTable { .. } | Def::DropTable { .. } => {
                self.define_table(definition).await
            }
        }
    }

    pub(crate) async fn submit(&self, command: Command, tag: &'static str) -> Result<Output> {
        self.database().meta().submit(&command).await?;
        Ok(Output::Done(tag))
    }

    /// Does nothing, and says so.
    pub(crate) fn skip(&self, what: &str, name: &str, because: &str, tag: &'static str) -> Output {
        self.notice(Notice::plain(format!("{what} \"{name}\" {because}, skipping")));
        Output::Done(tag)
    }

    /// Does what several commands say, or nothing where one of them is refused.
    pub(crate) async fn submit_all(&self, mut commands: Vec<Command>) -> Result<()> {
        let command = match (commands.pop(), commands.is_empty()) {
            (None, _) => return Ok(()),
            (Some(only), true) => only,
            (Some(last), false) => {
                commands.push(last);
                Command::All(commands)
            }
        };
        self.database().meta().submit(&command).await?;
        Ok(())
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
                let rsa_public_key = public_key_of(options)?.flatten();
                let user = NewUser {
                    name: name.clone(),
                    verifier,
                    admin: options.admin.unwrap_or(false),
                    comment: options.comment.clone().unwrap_or_default(),
                    must_change_password: options.must_change_password.unwrap_or(false),
                    rsa_public_key,
                };
                self.submit(Command::CreateUser(user), "CREATE ROLE").await
            }
            Definition::AlterUser { name, action } => {
                let user = catalog.user(name).ok_or_else(|| missing("user", name));
                let own = user.as_ref().is_ok_and(|user| user.id == self.identity().user);
                // Everyone may change the own password and key, nothing else of the own.
                let only_proof = matches!(action, UserAction::Set(options)
                    if options.admin.is_none()
                        && options.comment.is_none()
                        && options.must_change_password.is_none());
                if !(own && only_proof) {
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
                let key = public_key_of(options)?;
                let done = verifier.is_some() && user.must_change_password;
                changes.extend(verifier.map(|verifier| UserChange::Verifier(Some(verifier))));
                changes.extend(key.map(UserChange::RsaPublicKey));
                changes.extend(done.then_some(UserChange::MustChangePassword(false)));
                changes.extend(options.comment.clone().map(UserChange::Comment));
                changes.extend(options.admin.map(UserChange::Admin));
                changes.extend(options.must_change_password.map(UserChange::MustChangePassword));
            }
        }
        let commands = changes.into_iter();
        let commands = commands.map(|change| Command::AlterUser { user: user.id, change });
        self.submit_all(commands.collect()).await?;
        Ok(Output::Done("ALTER ROLE"))
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
                if self.temporary.named(name).is_some() {
                    return Err(Error::unsupported("ALTER of a temporary table"));
                }
                let (database, table) = self.user_table(name)?;
                self.check(Need::Define(Object::table(database.id, table.id)))?;
                let change = match action {
                    AlterTableAction::Add { column, if_not_exists } => {
                        if *if_not_exists && table.column(&column.name).is_some() {
                            let tag = "ALTER TABLE";
                            return Ok(self.skip("column", &column.name, "already exists", tag));
                        }
                        self.note_widening(column);
                        AlterTable::Add(new_column(column))
                    }
                    AlterTableAction::DropColumn(name) => AlterTable::Drop(name.clone()),
                    AlterTableAction::RenameColumn(from, to) => {
                        AlterTable::RenameColumn { from: from.clone(), to: to.clone() }
                    }
                    AlterTableAction::Rename(name) => AlterTable::Rename(name.clone()),
                    AlterTableAction::Codec(column, codec) => {
                        AlterTable::Codec { column: column.clone(), codec: *codec }
                    }
                };
                self.submit(Command::AlterTable { table: table.id, change }, "ALTER TABLE").await
            }
            Definition::DropTable { names, if_exists } => self.drop_tables(names, *if_exists).await,
            _ => Err(Error::internal("a table was expected")),
        }
    }

    /// Drops tables of a database or of the session, and external ones.
    async fn drop_tables(&self, names: &[Vec<String>], if_exists: bool) -> Result<Output> {
        let there =
            |name: &[String]| self.temporary.named(name).is_some() || self.external(name).is_some();
        // All are there before the first is dropped.
        for name in names.iter().filter(|name| !if_exists && !there(name)) {
            self.user_table(name)?;
        }
        let mut commands: Vec<Command> = Vec::new();
        for name in names {
            if self.temporary.named(name).is_some() {
                continue;
            }
            if let Some(dropped) = self.drop_external(name)? {
                commands.push(dropped);
                continue;
            }
            match self.user_table(name) {
                Ok((database, table)) => {
                    self.check(Need::Define(Object::table(database.id, table.id)))?;
                    commands.push(Command::DropTable { table: table.id });
                }
                Err(_) if if_exists => {
                    drop(self.skip("table", &name.join("."), "does not exist", "DROP TABLE"));
                }
                Err(error) => return Err(error),
            }
        }
        // One that is named twice is dropped once.
        let twice = |at: &usize| !commands[..*at].contains(&commands[*at]);
        let commands: Vec<Command> =
            (0..commands.len()).filter(twice).map(|at| commands[at].clone()).collect();
        self.submit_all(commands).await?;
        for name in names {
            self.temporary.remove(name);
        }
        Ok(Output::Done("DROP TABLE"))
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

/// Returns the public key that is set, `Some(None)` where it is taken away.
fn public_key_of(options: &UserOptions) -> Result<Option<Option<String>>> {
    let Some(key) = &options.rsa_public_key else { return Ok(None) };
    if key.is_empty() {
        return Ok(Some(None));
    }
    PublicKey::parse(key)?;
    Ok(Some(Some(key.clone())))
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
    let ColumnDefinition { ref name, not_null, codec, shape, .. } = *column;
    NewColumn { name: name.clone(), kind, not_null, codec, shape }
}

fn not_dropped(what: &str, sqlstate: &'static str, name: &str) -> Error {
    Error::new(sqlstate, format!("no {what} \"{name}\" waits to be dropped"))
}
