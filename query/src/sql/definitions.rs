//! Statements that change the catalog, as parsed.

use datafusion::sql::sqlparser::ast;
use model::ValueType;
use model::time::Span;

/// A statement that changes the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Definition {
    CreateTenant {
        name: String,
        if_not_exists: bool,
        options: TenantOptions,
    },
    AlterTenant {
        name: String,
        action: TenantAction,
    },
    DropTenant {
        name: String,
        if_exists: bool,
        /// How long it can be brought back, nanoseconds.
        after: Option<i64>,
    },
    RecoverTenant {
        name: String,
        if_exists: bool,
    },
    CreateUser {
        name: String,
        if_not_exists: bool,
        options: UserOptions,
    },
    AlterUser {
        name: String,
        action: UserAction,
    },
    DropUser {
        name: String,
        if_exists: bool,
    },
    CreateRole {
        name: String,
        if_not_exists: bool,
        inherits: meta::SystemRole,
    },
    /// A role of the tenant, else a user, as PostgreSQL calls both.
    DropRole {
        name: String,
        if_exists: bool,
    },
    CreateExternal(NewExternal),
    CreateView {
        name: Vec<String>,
        columns: Vec<String>,
        replace: bool,
        query: Box<ast::Query>,
    },
    DropView {
        names: Vec<Vec<String>>,
        if_exists: bool,
    },
    Grant(GrantStatement),
    Membership(Membership),
    CreateDatabase {
        name: String,
        if_not_exists: bool,
        options: Vec<AlterDatabaseOption>,
    },
    AlterDatabase {
        name: String,
        option: AlterDatabaseOption,
    },
    DropDatabase {
        name: String,
        if_exists: bool,
        /// How long it can be brought back, nanoseconds.
        after: Option<i64>,
    },
    RecoverDatabase {
        name: String,
        if_exists: bool,
    },
    CreateTable {
        name: Vec<String>,
        if_not_exists: bool,
        columns: Vec<ColumnDefinition>,
    },
    AlterTable {
        name: Vec<String>,
        action: AlterTableAction,
    },
    DropTable {
        names: Vec<Vec<String>>,
        if_exists: bool,
    },
}

/// Files that are to be read as a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewExternal {
    pub name: Vec<String>,
    pub if_not_exists: bool,
    /// None where the files tell them.
    pub columns: Vec<ast::ColumnDef>,
    pub url: String,
    /// How the files are written.
    pub format: Vec<(String, String)>,
    /// Columns that the names of folders hold.
    pub partitions: Vec<String>,
    /// How the store is reached; no keys.
    pub options: Vec<(String, String)>,
}

/// What roles may do from now on, or no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantStatement {
    pub grants: Vec<(meta::Level, GrantedOn)>,
    pub roles: Vec<String>,
    pub revoke: bool,
}

/// What is granted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantedOn {
    Database(String),
    Table(Vec<String>),
}

/// Who has a role of the tenant from now on, or no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub role: String,
    pub users: Vec<String>,
    pub revoke: bool,
}

/// A change of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantAction {
    Set(TenantOptions),
    /// Takes the limits and rates away.
    UnsetLimits,
    UnsetDropAfter,
    AddUser(String, String),
    RemoveUser(String),
}

/// Options of a tenant; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantOptions {
    pub comment: Option<String>,
    /// How long it can be brought back once it is dropped, nanoseconds.
    pub drop_after: Option<i64>,
    pub limits: Option<meta::ObjectLimits>,
    /// Rates to be set beside those there are; an empty map takes all away.
    pub rates: Option<meta::Rates>,
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
    /// A verifier in PostgreSQL's form, as a dump has it.
    pub verifier: Option<String>,
    pub comment: Option<String>,
    pub admin: Option<bool>,
    pub must_change_password: Option<bool>,
    /// A public key in PEM; an empty text takes it away.
    pub rsa_public_key: Option<String>,
}

impl std::fmt::Debug for UserOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The password must reach no log.
        f.debug_struct("UserOptions")
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("verifier", &self.verifier.as_ref().map(|_| "***"))
            .field("comment", &self.comment)
            .field("admin", &self.admin)
            .field("must_change_password", &self.must_change_password)
            .field("rsa_public_key", &self.rsa_public_key)
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
    StrictWrite(bool),
    MaxMemcacheSize(u64),
    MemcachePartitions(u32),
    WalMaxFileSize(u64),
    MaxCacheReaders(u32),
    /// The name of a placement policy; empty: none.
    Placement(String),
    /// Writes are always synced: it may be said, not changed.
    WalSync,
}

/// A column of CREATE TABLE or ALTER TABLE ADD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDefinition {
    pub name: String,
    pub kind: NewColumnKind,
    pub not_null: bool,
    pub codec: model::Codec,
    pub shape: Option<model::Shape>,
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
    Add { column: ColumnDefinition, if_not_exists: bool },
    DropColumn(String),
    RenameColumn(String, String),
    Rename(String),
    Codec(String, model::Codec),
}
