//! Statements that change the catalog, as parsed.

use model::ValueType;
use model::time::Span;

/// A statement that changes the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Definition {
    CreateTenant { name: String, if_not_exists: bool, comment: String },
    AlterTenant { name: String, action: TenantAction },
    DropTenant { name: String, if_exists: bool },
    CreateUser { name: String, if_not_exists: bool, options: UserOptions },
    AlterUser { name: String, action: UserAction },
    DropUser { name: String, if_exists: bool },
    CreateDatabase { name: String, if_not_exists: bool, options: Vec<AlterDatabaseOption> },
    AlterDatabase { name: String, option: AlterDatabaseOption },
    DropDatabase { name: String, if_exists: bool },
    CreateTable { name: Vec<String>, if_not_exists: bool, columns: Vec<ColumnDefinition> },
    AlterTable { name: Vec<String>, action: AlterTableAction },
    DropTable { names: Vec<Vec<String>>, if_exists: bool },
}

/// A change of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantAction {
    Comment(String),
    AddUser(String, String),
    RemoveUser(String),
}

/// A change of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserAction {
    Rename(String),
    Set(UserOptions),
}

/// Options of a user; what is `None` stays as it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserOptions {
    pub password: Option<String>,
    pub comment: Option<String>,
    pub admin: Option<bool>,
}

impl std::fmt::Debug for UserOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password must reach no log.
        f.debug_struct("UserOptions")
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("comment", &self.comment)
            .field("admin", &self.admin)
            .finish()
    }
}

/// An option of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterDatabaseOption {
    Ttl(Span),
    Shard(u32),
    VnodeDuration(i64),
    Replica(u32),
    Precision(meta::Precision),
}

/// A column of CREATE TABLE or ALTER TABLE ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDefinition {
    pub name: String,
    pub kind: NewColumnKind,
    pub not_null: bool,
}

/// What a new column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewColumnKind {
    Time,
    Tag,
    /// True where the type is held in a wider one.
    Field(ValueType, bool),
}

/// A change of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterTableAction {
    Add(ColumnDefinition),
    DropColumn(String),
    RenameColumn(String, String),
    Rename(String),
}
